//! The columns of the batch that is being decoded.

use std::collections::{HashMap, HashSet};

use acequia_connector_api::ColumnType;
use arrow_array::ArrayRef;
use arrow_schema::Field;

use crate::column::{ColumnBuilder, Scalar};
use crate::parse;

/// Columns by place and by name.
#[derive(Debug, Default)]
pub(super) struct Columns {
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// Whether there can be no others.
    pub(super) declared: bool,
    /// The only ones that are wanted. Types are inferred all the same.
    pub(super) only: Option<HashSet<String>>,
}

#[derive(Debug)]
struct Column {
    name: String,
    values: ColumnBuilder,
}

/// What a value of JSON says about its column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Class {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    /// A number that neither int64 nor float64 holds.
    Digits,
    Text,
    Nested,
}

impl Class {
    fn kind(self) -> Option<ColumnType> {
        match self {
            Class::Null => None,
            Class::Boolean(_) => Some(ColumnType::Boolean),
            Class::Int64(_) => Some(ColumnType::Int64),
            Class::Float64(_) => Some(ColumnType::Float64),
            Class::Text => Some(ColumnType::Text),
            Class::Digits | Class::Nested => Some(ColumnType::Json),
        }
    }
}

impl Columns {
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Whether a column of this name may be added.
    pub(super) fn wants(&self, name: &str) -> bool {
        !self.declared && self.only.as_ref().is_none_or(|only| only.contains(name))
    }

    pub(super) fn kind(&self, index: usize) -> Option<ColumnType> {
        self.columns.get(index).map(|column| column.values.kind())
    }

    pub(super) fn types(&self) -> Vec<(String, ColumnType)> {
        self.columns.iter().map(|column| (column.name.clone(), column.values.kind())).collect()
    }

    /// A new column, null in the rows so far.
    pub(super) fn add(&mut self, name: &str, kind: ColumnType, rows: usize) -> usize {
        let mut values = ColumnBuilder::new(kind, rows);
        values.pad(rows);
        self.columns.push(Column { name: name.to_owned(), values });
        let index = self.columns.len() - 1;
        self.by_name.insert(name.to_owned(), index);
        index
    }

    /// Append a value to a column, cast to its type.
    pub(super) fn push(&mut self, index: usize, value: Scalar<'_>) -> Result<(), String> {
        let Some(column) = self.columns.get_mut(index) else { return Ok(()) };
        column.values.push(value).map_err(|error| format!("column `{}`: {error}", column.name))
    }

    /// Append a value of JSON to a column whose type is inferred: what it does not fit into gets wider. `raw` is the value as it
    /// is written, `text` its content if it is a string.
    pub(super) fn infer(&mut self, index: usize, class: Class, raw: &str, text: &str) -> Result<(), String> {
        let Some(column) = self.columns.get_mut(index) else { return Ok(()) };
        let kind = column.values.kind();
        // The usual case at once.
        if let (ColumnType::Int64, Class::Int64(value)) = (kind, class) {
            column.values.push_int64(value);
            return Ok(());
        }
        let wider = widen(&column.values, class);
        if wider != kind {
            column.values = convert(&column.values, wider);
        }
        let value = match class {
            Class::Null => Scalar::Null,
            Class::Boolean(value) => Scalar::Boolean(value),
            Class::Int64(value) if wider == ColumnType::Int64 || wider == ColumnType::Float64 => Scalar::Int64(value),
            Class::Float64(value) if wider == ColumnType::Float64 => Scalar::Float64(value),
            Class::Int64(_) | Class::Float64(_) | Class::Digits => Scalar::Number(raw),
            Class::Text if wider == ColumnType::Text => Scalar::Text(text),
            Class::Text | Class::Nested => Scalar::Json(raw),
        };
        self.push(index, value)
    }

    /// A new column of the type that a value has; none if that says nothing.
    pub(super) fn add_inferred(&mut self, name: &str, class: Class, rows: usize) -> Option<usize> {
        class.kind().map(|kind| self.add(name, kind, rows))
    }

    /// Null in each column that has fewer than `rows` values.
    pub(super) fn pad(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.values.pad(rows);
        }
    }

    /// Take back what goes beyond `rows` values.
    pub(super) fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.values.truncate(rows);
        }
    }

    /// The columns, and empty ones in their place.
    pub(super) fn finish(&mut self, nullable: bool) -> Vec<(Field, ArrayRef)> {
        self.columns
            .iter_mut()
            .map(|column| (column.values.kind().arrow_field(&column.name, nullable), column.values.finish()))
            .collect()
    }
}

/// The narrowest type that holds a column and one more value, without loss.
fn widen(values: &ColumnBuilder, class: Class) -> ColumnType {
    match (values.kind(), class) {
        (kind, Class::Null)
        | (kind @ ColumnType::Json, _)
        | (kind @ ColumnType::Boolean, Class::Boolean(_))
        | (kind @ ColumnType::Int64, Class::Int64(_))
        | (kind @ ColumnType::Float64, Class::Float64(_)) => kind,
        (_, Class::Nested) => ColumnType::Json,
        (ColumnType::Float64, Class::Int64(value)) if parse::int64_to_float(value).is_some() => ColumnType::Float64,
        (ColumnType::Int64, Class::Float64(_)) if all_exact(values) => ColumnType::Float64,
        (ColumnType::Int64 | ColumnType::Float64, Class::Int64(_) | Class::Float64(_) | Class::Digits) => {
            ColumnType::Json
        }
        _ => ColumnType::Text,
    }
}

fn all_exact(values: &ColumnBuilder) -> bool {
    (0..values.len()).all(|row| match values.get(row) {
        Scalar::Int64(value) => parse::int64_to_float(value).is_some(),
        _ => true,
    })
}

/// The same values in a wider type, for which [`widen`] has seen to it that they fit.
fn convert(values: &ColumnBuilder, kind: ColumnType) -> ColumnBuilder {
    let mut wider = ColumnBuilder::new(kind, values.len());
    for row in 0..values.len() {
        let quoted;
        let value = match values.get(row) {
            // As a value, not as JSON that the text might contain.
            Scalar::Text(text) if kind == ColumnType::Json => {
                quoted = serde_json::Value::from(text).to_string();
                Scalar::Json(&quoted)
            }
            value => value,
        };
        if wider.push(value).is_err() {
            wider.push_null();
        }
    }
    wider
}
