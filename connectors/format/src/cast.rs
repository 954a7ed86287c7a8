//! The one cast of the project.

use std::sync::Arc;

use acequia_connector_api::ColumnType;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};

use crate::column::{ColumnBuilder, Scalar};
use crate::parse::EXACT;

/// A column after a cast.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The values, as many as before. A value that could not be cast is null.
    pub values: ArrayRef,
    /// The rows whose value could not be cast, in order, with a message that shows the value and the wanted type.
    pub failed: Vec<(usize, String)>,
}

/// Cast a column. `from` must be the column's type; null stays null; the same type is the same memory. Nothing is rounded or
/// cut off in silence: a value that the wanted type can't hold is refused.
///
/// | from | to | |
/// |---|---|---|
/// | text | int64, float64, boolean | parsed, no white space; `true` and `false` in any case of letters |
/// | text | timestamp | see [`crate::parse_timestamp`] |
/// | text | binary | its UTF-8 |
/// | text | json | parsed: it must be a JSON value |
/// | int64 | float64 | if a double holds it exactly |
/// | float64 | int64 | if it is whole and in range |
/// | int64 | boolean | 0 and 1 |
/// | boolean | int64, float64 | 0 and 1 |
/// | timestamp | int64 | microseconds since the epoch |
/// | int64, float64 | timestamp | never: a number has no unit of time |
/// | binary | all others | as the text that it holds, if it is UTF-8 |
/// | json | all others | a scalar as its own value, `null` as null; to text and binary also an object or array, compact |
/// | all others | text | floats as short as they can be, timestamps as RFC 3339 |
/// | all others | json | numbers and booleans as such, timestamps as strings |
pub fn cast_column(column: &ArrayRef, from: ColumnType, to: ColumnType) -> Cast {
    if from == to {
        return Cast { values: column.clone(), failed: Vec::new() };
    }
    if let Some(values) = exact_floats(column, from, to) {
        return Cast { values, failed: Vec::new() };
    }
    let mut values = ColumnBuilder::new(to, column.len());
    let mut failed = Vec::new();
    let Some(reader) = Reader::new(column, from) else {
        for row in 0..column.len() {
            values.push_null();
            if column.is_valid(row) {
                failed.push((row, format!("can't cast to {to}: the column is not {from} but {}", column.data_type())));
            }
        }
        return Cast { values: values.finish(), failed };
    };
    for row in 0..column.len() {
        if let Err(error) = values.push(reader.get(row)) {
            values.push_null();
            failed.push((row, error));
        }
    }
    Cast { values: values.finish(), failed }
}

/// The way of most casts, int64 to float64 where every value is small, without a look at each value by itself.
fn exact_floats(column: &ArrayRef, from: ColumnType, to: ColumnType) -> Option<ArrayRef> {
    if (from, to) != (ColumnType::Int64, ColumnType::Float64) {
        return None;
    }
    let column = column.as_primitive_opt::<Int64Type>()?;
    // What stands in the slot of a null may be large too; that only costs the slower way.
    let exact = column.values().iter().fold(true, |exact, value| exact & (value.unsigned_abs() <= EXACT as u64));
    exact.then(|| Arc::new(column.unary::<_, Float64Type>(|value| value as f64)) as ArrayRef)
}

/// A column of a known type, read value by value.
#[derive(Debug)]
pub(crate) enum Reader<'a> {
    Boolean(&'a BooleanArray),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Json(&'a StringArray),
}

impl<'a> Reader<'a> {
    /// `None` if the column is not of that type.
    pub(crate) fn new(column: &'a ArrayRef, kind: ColumnType) -> Option<Self> {
        Some(match kind {
            ColumnType::Boolean => Reader::Boolean(column.as_boolean_opt()?),
            ColumnType::Int64 => Reader::Int64(column.as_primitive_opt::<Int64Type>()?),
            ColumnType::Float64 => Reader::Float64(column.as_primitive_opt::<Float64Type>()?),
            ColumnType::Timestamp => Reader::Timestamp(column.as_primitive_opt::<TimestampMicrosecondType>()?),
            ColumnType::Text => Reader::Text(column.as_string_opt::<i32>()?),
            ColumnType::Binary => Reader::Binary(column.as_binary_opt::<i32>()?),
            ColumnType::Json => Reader::Json(column.as_string_opt::<i32>()?),
        })
    }

    /// The value of a row, which must be below the column's length.
    pub(crate) fn get(&self, row: usize) -> Scalar<'a> {
        match self {
            Reader::Boolean(array) if array.is_valid(row) => Scalar::Boolean(array.value(row)),
            Reader::Int64(array) if array.is_valid(row) => Scalar::Int64(array.value(row)),
            Reader::Float64(array) if array.is_valid(row) => Scalar::Float64(array.value(row)),
            Reader::Timestamp(array) if array.is_valid(row) => Scalar::Timestamp(array.value(row)),
            Reader::Text(array) if array.is_valid(row) => Scalar::Text(array.value(row)),
            Reader::Binary(array) if array.is_valid(row) => Scalar::Binary(array.value(row)),
            Reader::Json(array) if array.is_valid(row) => Scalar::Json(array.value(row).trim_ascii()),
            _ => Scalar::Null,
        }
    }
}
