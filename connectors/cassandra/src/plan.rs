//! From a row of a batch to the values of a prepared statement.

use acequia_connector_api::{ColumnType, Field};
use scylla::client::session::Session;
use scylla::cluster::metadata::Table;
use scylla::errors::SerializationError;
use scylla::frame::response::result::ColumnType as CqlType;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::prepared::PreparedStatement;

use crate::config::{CassandraSink, MAX_TTL, Nulls};
use crate::encode::{Column, Scalar, encode};
use crate::schema::{Statement, write_statement};
use crate::types::type_name;

/// A statement that is ready for rows with certain columns.
pub(crate) struct Plan {
    /// The columns that it is for.
    pub(crate) fields: Vec<Field>,
    pub(crate) prepared: PreparedStatement,
    pub(crate) counter: bool,
    values: Vec<Target>,
    ttl: Option<usize>,
    timestamp: Option<usize>,
    nulls: Nulls,
}

/// A column of the table, and what fills it.
struct Target {
    name: String,
    kind: CqlType<'static>,
    place: usize,
    key: bool,
}

/// Why there is no plan.
pub(crate) enum NoPlan {
    /// The rows do not fit the table, whatever their values.
    Misfit(String),
    /// The server does not prepare it.
    Prepare(scylla::errors::PrepareError),
}

impl Plan {
    pub(crate) async fn prepare(
        session: &Session,
        config: &CassandraSink,
        table: &Table,
        fields: Vec<Field>,
    ) -> Result<Self, NoPlan> {
        let Statement { text, values, ttl, timestamp, counter } =
            write_statement(config, table, &fields).map_err(NoPlan::Misfit)?;
        let mut prepared = session.prepare(text).await.map_err(NoPlan::Prepare)?;
        // With the same timestamp a row can be written any number of times; a counter can't.
        prepared.set_is_idempotent(!counter);
        let kinds = prepared.get_variable_col_specs();
        let values = values.into_iter().enumerate().filter_map(|(index, (name, place))| {
            let kind = kinds.get_by_index(index)?.typ().clone();
            let key = table.partition_key.contains(&name) || table.clustering_key.contains(&name);
            Some(Target { name, kind, place, key })
        });
        let values = values.collect();
        Ok(Plan { fields, prepared, counter, values, ttl, timestamp, nulls: config.nulls })
    }

    /// Encode a row. `columns` are all of the batch, in its order. Returns when the row was written, if a column says so.
    ///
    /// # Errors
    /// Names the column of the table, its type and the value.
    pub(crate) fn encode(
        &self,
        columns: &[Option<Column<'_>>],
        row: usize,
        out: &mut Encoded,
    ) -> Result<Option<i64>, String> {
        out.clear();
        let value = |place: usize| columns.get(place).and_then(Option::as_ref).and_then(|column| column.value(row));
        for target in &self.values {
            let name = &target.name;
            match value(target.place) {
                Some(value) => {
                    encode(value, &target.kind, &mut out.bytes)
                        .map_err(|message| format!("column `{name}`{} {message}", self.filled_from(target)))?;
                    out.end(Cell::Value);
                }
                None if target.key => {
                    return Err(format!(
                        "column `{name}`{} is part of the table's key and can't be null ({})",
                        self.filled_from(target),
                        type_name(&target.kind)
                    ));
                }
                // A counter takes no null, but can be left alone.
                None if self.nulls == Nulls::Null && !self.counter => out.end(Cell::Null),
                None => out.end(Cell::Unset),
            }
        }
        if let Some(place) = self.ttl {
            match value(place) {
                None => out.end(Cell::Unset),
                Some(Scalar::Int64(seconds @ 0..=MAX_TTL)) => {
                    out.bytes.extend_from_slice(&i32::try_from(seconds).unwrap_or_default().to_be_bytes());
                    out.end(Cell::Value);
                }
                Some(Scalar::Int64(seconds)) => {
                    return Err(format!("the ttl must be from 0 to {MAX_TTL} seconds, but is {seconds}"));
                }
                Some(_) => return Err(format!("the ttl must be an int64, but is {}", self.kind(place))),
            }
        }
        match self.timestamp.map(|place| (place, value(place))) {
            Some((_, Some(Scalar::Int64(micros) | Scalar::Timestamp(micros)))) => Ok(Some(micros)),
            Some((place, Some(_))) => {
                Err(format!("the timestamp must be a timestamp or an int64, but is {}", self.kind(place)))
            }
            Some((_, None)) | None => Ok(None),
        }
    }

    fn kind(&self, place: usize) -> ColumnType {
        self.fields.get(place).map_or(ColumnType::Text, |field| field.kind)
    }

    /// The row's column, where it has another name.
    fn filled_from(&self, target: &Target) -> String {
        match self.fields.get(target.place) {
            Some(field) if field.name != target.name => format!(" (from `{}`)", field.name),
            _ => String::new(),
        }
    }
}

/// The encoded values of one row; used again for the next one.
#[derive(Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    cells: Vec<(Cell, usize)>,
}

#[derive(Clone, Copy)]
enum Cell {
    Value,
    Null,
    Unset,
}

impl Encoded {
    fn clear(&mut self) {
        self.bytes.clear();
        self.cells.clear();
    }

    fn end(&mut self, cell: Cell) {
        self.cells.push((cell, self.bytes.len()));
    }
}

impl SerializeRow for Encoded {
    fn serialize(&self, _: &RowSerializationContext<'_>, writer: &mut RowWriter) -> Result<(), SerializationError> {
        let mut start = 0;
        for (cell, end) in &self.cells {
            let writer = writer.make_cell_writer();
            match cell {
                Cell::Value => {
                    let bytes = self.bytes.get(start..*end).unwrap_or_default();
                    writer.set_value(bytes).map_err(SerializationError::new)?;
                }
                Cell::Null => {
                    writer.set_null();
                }
                Cell::Unset => {
                    writer.set_unset();
                }
            }
            start = *end;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}
