//! The way in for the fuzz targets, and no part of the interface: a value's bytes to a column and back.

use acequia_connector_api::ColumnType;
use arrow_array::ArrayRef;
use scylla::frame::response::result::ColumnType as CqlType;

use crate::{decode, encode, types};

/// A column with the one value that the table sent.
///
/// # Errors
/// If no column can hold it.
pub fn decode(kind: &CqlType<'_>, bytes: Option<&[u8]>) -> Result<ArrayRef, String> {
    let mut builder = decode::ColumnBuilder::new(types::column_type(kind));
    builder.push(kind, bytes).map(|()| builder.finish())
}

/// The bytes of the one value of a column, for a table's column of that type. `None` for null.
///
/// # Errors
/// If the table can't hold it.
pub fn encode(column: &ArrayRef, from: ColumnType, kind: &CqlType<'_>) -> Result<Option<Vec<u8>>, String> {
    let Some(value) = encode::Column::new(column, from).and_then(|column| column.value(0)) else { return Ok(None) };
    let mut bytes = Vec::new();
    encode::encode(value, kind, &mut bytes).map(|()| Some(bytes))
}

/// The type of the column that a value of the table is read as.
pub fn column_type(kind: &CqlType<'_>) -> ColumnType {
    types::column_type(kind)
}
