//! The seven column types of the plugin contract, and how they lie in Arrow.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::cast::cast;
use arrow_schema::{ArrowError, DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Metadata key that marks a `Utf8` column as JSON. The key is Arrow's own for extension types, and so is the value.
const EXTENSION: &str = "ARROW:extension:name";
const JSON_EXTENSION: &str = "arrow.json";

/// The types that a column can have, everywhere in Acequia: in a batch, in a declared schema, in the plugin contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// True or false. Arrow `Boolean`.
    Boolean,
    /// Signed 64-bit integer. Arrow `Int64`.
    Int64,
    /// IEEE 754 double. Arrow `Float64`.
    Float64,
    /// Microseconds since the epoch, UTC. Arrow `Timestamp(Microsecond, "UTC")`.
    Timestamp,
    /// UTF-8 text. Arrow `Utf8`.
    Text,
    /// Bytes. Arrow `Binary`.
    Binary,
    /// A JSON value as text. Arrow `Utf8` with the extension name `arrow.json`.
    Json,
}

impl ColumnType {
    /// All types, in the order of the contract.
    pub const ALL: [ColumnType; 7] = [
        ColumnType::Boolean,
        ColumnType::Int64,
        ColumnType::Float64,
        ColumnType::Timestamp,
        ColumnType::Text,
        ColumnType::Binary,
        ColumnType::Json,
    ];

    /// The name as it stands in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Boolean => "boolean",
            ColumnType::Int64 => "int64",
            ColumnType::Float64 => "float64",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Text => "text",
            ColumnType::Binary => "binary",
            ColumnType::Json => "json",
        }
    }

    /// The Arrow type that holds it.
    pub fn data_type(self) -> DataType {
        match self {
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnType::Text | ColumnType::Json => DataType::Utf8,
            ColumnType::Binary => DataType::Binary,
        }
    }

    /// An Arrow field of this type.
    pub fn arrow_field(self, name: &str, nullable: bool) -> ArrowField {
        let field = ArrowField::new(name, self.data_type(), nullable);
        match self {
            ColumnType::Json => field.with_metadata(HashMap::from([(EXTENSION.to_owned(), JSON_EXTENSION.to_owned())])),
            _ => field,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The column type of an Arrow field, or `None` if it is none of the seven (see [`normalize`]).
pub fn column_type_of(field: &ArrowField) -> Option<ColumnType> {
    match field.data_type() {
        DataType::Boolean => Some(ColumnType::Boolean),
        DataType::Int64 => Some(ColumnType::Int64),
        DataType::Float64 => Some(ColumnType::Float64),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => Some(ColumnType::Timestamp),
        DataType::Utf8 if field.metadata().get(EXTENSION).is_some_and(|name| name == JSON_EXTENSION) => {
            Some(ColumnType::Json)
        }
        DataType::Utf8 => Some(ColumnType::Text),
        DataType::Binary => Some(ColumnType::Binary),
        _ => None,
    }
}

/// Name and type of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Name, unique in its schema.
    pub name: String,
    /// Type.
    pub kind: ColumnType,
    /// Whether a row may have none.
    pub nullable: bool,
}

impl Field {
    /// A field.
    pub fn new(name: impl Into<String>, kind: ColumnType, nullable: bool) -> Self {
        Field { name: name.into(), kind, nullable }
    }
}

/// What is known of the rows before the first one is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSchema {
    /// The columns that are certain.
    pub fields: Vec<Field>,
    /// True when rows may bring columns that are not listed.
    pub open: bool,
}

impl RowSchema {
    /// A schema that lists every column.
    pub fn closed(fields: Vec<Field>) -> Self {
        RowSchema { fields, open: false }
    }

    /// A schema of which nothing is known.
    pub fn unknown() -> Self {
        RowSchema { fields: Vec::new(), open: true }
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// As an Arrow schema.
    pub fn to_arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.fields.iter().map(|field| field.kind.arrow_field(&field.name, field.nullable)).collect::<Vec<_>>(),
        ))
    }

    /// From an Arrow schema whose columns all have one of the seven types; others are left out.
    pub fn from_arrow(schema: &Schema) -> Self {
        RowSchema::closed(
            schema
                .fields()
                .iter()
                .filter_map(|field| Some(Field::new(field.name(), column_type_of(field)?, field.is_nullable())))
                .collect(),
        )
    }
}

/// Bring any Arrow batch (of a Parquet file, say) to the seven types: integers of any width become `int64` (an unsigned
/// one that does not fit becomes null only if `cast` says so: it is an error), floats and decimals `float64`, dates and
/// timestamps `timestamp`, strings `text`, and everything nested or unusual its text.
///
/// # Errors
/// If Arrow has no such cast for a column.
pub fn normalize(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let kind = column_type_of(field).unwrap_or_else(|| nearest_type(field.data_type()));
        let column = match field.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) | DataType::Map(_, _) => {
                json_text(column.as_ref())?
            }
            _ if *field.data_type() == kind.data_type() => column.clone(),
            _ => strict_cast(column, &kind.data_type())?,
        };
        fields.push(kind.arrow_field(field.name(), field.is_nullable()));
        columns.push(column);
    }
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn strict_cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = arrow_cast::CastOptions { safe: false, ..Default::default() };
    arrow_cast::cast_with_options(column, to, &options)
}

fn nearest_type(data_type: &DataType) -> ColumnType {
    match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => ColumnType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Decimal128(_, _) | DataType::Decimal256(_, _) => {
            ColumnType::Float64
        }
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 => ColumnType::Timestamp,
        DataType::LargeBinary | DataType::FixedSizeBinary(_) | DataType::BinaryView => ColumnType::Binary,
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) | DataType::Map(_, _) => ColumnType::Json,
        _ => ColumnType::Text,
    }
}

fn json_text(column: &dyn Array) -> Result<ArrayRef, ArrowError> {
    let mut texts = Vec::with_capacity(column.len());
    for row in 0..column.len() {
        texts.push(if column.is_null(row) { None } else { Some(json_value(column, row)?.to_string()) });
    }
    Ok(Arc::new(StringArray::from(texts)))
}

/// The value of one row as JSON; nested types by their structure, the rest by way of the seven types.
fn json_value(column: &dyn Array, row: usize) -> Result<serde_json::Value, ArrowError> {
    use arrow_array::cast::AsArray;
    if column.is_null(row) {
        return Ok(serde_json::Value::Null);
    }
    let list = |values: ArrayRef| -> Result<serde_json::Value, ArrowError> {
        (0..values.len()).map(|index| json_value(values.as_ref(), index)).collect::<Result<Vec<_>, _>>().map(Into::into)
    };
    match column.data_type() {
        DataType::List(_) => list(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row)),
        DataType::Struct(fields) => {
            let mut object = serde_json::Map::new();
            for (field, values) in fields.iter().zip(column.as_struct().columns()) {
                object.insert(field.name().clone(), json_value(values.as_ref(), row)?);
            }
            Ok(object.into())
        }
        DataType::Map(_, _) => {
            let entries = column.as_map().value(row);
            let keys = cast(entries.column(0), &DataType::Utf8)?;
            let mut object = serde_json::Map::new();
            for index in 0..entries.len() {
                let key = keys.as_string::<i32>().value(index).to_owned();
                object.insert(key, json_value(entries.column(1).as_ref(), index)?);
            }
            Ok(object.into())
        }
        other => {
            let kind = nearest_type(other);
            let kind = match other {
                DataType::Boolean => ColumnType::Boolean,
                DataType::Int64 => ColumnType::Int64,
                DataType::Float64 => ColumnType::Float64,
                _ => kind,
            };
            let value = cast(&column.slice(row, 1), &kind.data_type())?;
            Ok(crate::batch::scalar_to_json(value.as_ref(), kind, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int32Array, Int64Array, ListArray, types::Int32Type};

    #[test]
    fn every_type_survives_the_way_through_arrow() {
        for kind in ColumnType::ALL {
            assert_eq!(column_type_of(&kind.arrow_field("x", true)), Some(kind));
        }
    }

    #[test]
    fn normalizes_what_parquet_brings() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("small", Arc::new(Int32Array::from(vec![Some(7), None])) as ArrayRef, true),
            ("list", Arc::new(list) as ArrayRef, true),
            ("big", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef, false),
        ])
        .unwrap();
        let schema = RowSchema::from_arrow(normalize(&batch).unwrap().schema_ref());
        assert_eq!(
            schema.fields.iter().map(|field| field.kind).collect::<Vec<_>>(),
            [ColumnType::Int64, ColumnType::Json, ColumnType::Int64]
        );
        let text = normalize(&batch).unwrap();
        let text = text.column(1).as_any().downcast_ref::<StringArray>().unwrap().clone();
        assert_eq!(text.value(0), "[1,null]");
        assert!(text.is_null(1));
    }
}
