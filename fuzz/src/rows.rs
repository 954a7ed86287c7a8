//! Rows made of the input, and what holds for all rows.

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, column_type_of, row_to_json};
use arbitrary::{Result, Unstructured};
use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use serde::de::IgnoredAny;

/// Values of JSON that differ in what a cast makes of them.
const JSON: [&str; 10] = [
    "null",
    "1",
    "-0.5e3",
    "9007199254740993",
    "12345678901234567890123",
    "true",
    "\"a\\\"\\u00e9\\n\"",
    "\"2020-04-13 12:09:37\"",
    "{\"a\":[1,null,{\"b\":\"0x00\"}]}",
    "[ 1 , \"x\" ]",
];

/// A type.
pub(crate) fn kind(input: &mut Unstructured<'_>) -> Result<ColumnType> {
    Ok(ColumnType::ALL[usize::from(input.arbitrary::<u8>()?) % ColumnType::ALL.len()])
}

/// A few bytes.
pub(crate) fn bytes<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length = usize::from(input.arbitrary::<u8>()? % 16).min(input.len());
    input.bytes(length)
}

/// All that is left.
pub(crate) fn rest<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    input.bytes(input.len())
}

/// A short text.
pub(crate) fn text(input: &mut Unstructured<'_>) -> Result<String> {
    Ok(String::from_utf8_lossy(bytes(input)?).into_owned())
}

/// A column; without nulls if it may have none.
pub(crate) fn column(input: &mut Unstructured<'_>, kind: ColumnType, rows: usize, nullable: bool) -> Result<ArrayRef> {
    let nulls = if nullable { input.arbitrary::<u16>()? } else { 0 };
    let valid = |row: usize| nulls >> (row % 16) & 1 == 0;
    fn values<T>(
        rows: usize,
        valid: impl Fn(usize) -> bool,
        mut next: impl FnMut() -> Result<T>,
    ) -> Result<Vec<Option<T>>> {
        (0..rows).map(|row| next().map(|value| valid(row).then_some(value))).collect()
    }
    Ok(match kind {
        ColumnType::Boolean => Arc::new(BooleanArray::from(values(rows, valid, || input.arbitrary())?)),
        ColumnType::Int64 => Arc::new(Int64Array::from(values(rows, valid, || input.arbitrary())?)),
        ColumnType::Float64 => Arc::new(Float64Array::from(values(rows, valid, || input.arbitrary())?)),
        ColumnType::Timestamp => {
            let times = values(rows, valid, || input.arbitrary())?;
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        }
        ColumnType::Text => Arc::new(StringArray::from(values(rows, valid, || text(input))?)),
        ColumnType::Binary => Arc::new(BinaryArray::from(values(rows, valid, || bytes(input))?)),
        ColumnType::Json => {
            let json = values(rows, valid, || Ok(JSON[usize::from(input.arbitrary::<u8>()?) % JSON.len()]))?;
            Arc::new(StringArray::from(json))
        }
    })
}

/// Each column is what its type says, to the last value.
pub(crate) fn check(rows: &RecordBatch) {
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let kind = column_type_of(field).expect("one of the seven types");
        column.to_data().validate_full().expect("a valid array");
        assert_eq!(column.len(), rows.num_rows());
        assert!(field.is_nullable() || column.null_count() == 0, "a null in `{}`", field.name());
        if kind == ColumnType::Json {
            for value in column.as_string::<i32>().iter().flatten() {
                serde_json::from_str::<IgnoredAny>(value).expect("JSON in a column of JSON");
            }
        }
    }
}

/// What holds for every batch that goes through a pipeline. Returns its rows as JSON and its failed rows.
pub(crate) fn check_batch(batch: &Batch) -> (Vec<String>, Vec<String>) {
    check(&batch.rows);
    let rows = (0..batch.len()).map(|row| {
        let (partition, place) = batch.origin.locate(row);
        format!("{partition:?} {place:?} {}", row_to_json(&batch.rows, row))
    });
    (rows.collect(), batch.failed.iter().map(|row| format!("{row:?}")).collect())
}
