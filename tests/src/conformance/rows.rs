//! The rows that sinks are given.

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, Origin};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::Schema;

/// The name of the part of the source that the rows come from; each row's place there is its number.
pub(super) const PARTITION: &str = "rows";

/// Row `n`'s text: its number, letters of all lengths that UTF-8 has, and as many more bytes as asked for.
pub fn text(n: u64, more: usize) -> String {
    format!("row {n} é€😀{}", "x".repeat(more))
}

/// Rows with these numbers and all seven types: `n` (never null), `t`, `b`, `f`, `at`, `raw`, `j`. Of the last six each is
/// null in every seventh row.
///
/// # Panics
/// Never, unless this is wrong.
pub fn rows(numbers: std::ops::Range<u64>, more: usize) -> RecordBatch {
    let keep = |n: u64, column: u64| (n + column) % 7 != 6;
    let column = |index: u64| numbers.clone().map(move |n| keep(n, index).then_some(n));
    let at = |n: u64| 1_586_779_777_768_982 + i64::try_from(n).unwrap_or(0) * 1_000_003;
    let columns: [(&str, ColumnType, ArrayRef); 7] = [
        ("n", ColumnType::Int64, Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| n as i64)))),
        ("t", ColumnType::Text, Arc::new(column(0).map(|n| n.map(|n| text(n, more))).collect::<StringArray>())),
        ("b", ColumnType::Boolean, Arc::new(column(1).map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>())),
        // A third has no short form: every digit must arrive.
        ("f", ColumnType::Float64, Arc::new(column(2).map(|n| n.map(|n| n as f64 / 3.0)).collect::<Float64Array>())),
        (
            "at",
            ColumnType::Timestamp,
            Arc::new(column(3).map(|n| n.map(at)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ),
        (
            "raw",
            ColumnType::Binary,
            Arc::new(column(4).map(|n| n.map(|n| [0, 0xff, (n % 256) as u8])).collect::<BinaryArray>()),
        ),
        (
            "j",
            ColumnType::Json,
            Arc::new(column(5).map(|n| n.map(|n| format!(r#"{{"a":[{n},null]}}"#))).collect::<StringArray>()),
        ),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, kind, _)| kind.arrow_field(name, *name != "n")).collect();
    let columns = columns.into_iter().map(|(_, _, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

/// As a batch whose origin is the rows' numbers.
pub(super) fn batch(first: u64, rows: RecordBatch) -> Batch {
    Batch::new(rows, Origin::run(PARTITION.into(), i64::try_from(first).unwrap_or(i64::MAX)))
}

/// With one column more, a text.
pub(super) fn with_column(rows: &RecordBatch, name: &str) -> RecordBatch {
    let mut fields: Vec<_> = rows.schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(ColumnType::Text.arrow_field(name, true));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec![Some("more"); rows.num_rows()])));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

/// Without a column.
pub(super) fn without_column(rows: &RecordBatch, name: &str) -> RecordBatch {
    let kept: Vec<usize> =
        (0..rows.num_columns()).filter(|index| rows.schema_ref().field(*index).name() != name).collect();
    rows.project(&kept).expect("these columns")
}

/// With column `t` as the whole number of the row.
pub(super) fn with_other_type(rows: &RecordBatch) -> RecordBatch {
    let fields: Vec<_> = (rows.schema_ref().fields().iter())
        .map(|field| match field.name().as_str() {
            "t" => ColumnType::Int64.arrow_field("t", true),
            _ => field.as_ref().clone(),
        })
        .collect();
    let columns = (rows.schema_ref().fields().iter().zip(rows.columns()))
        .map(|(field, column)| match field.name().as_str() {
            "t" => rows.column(0).clone(),
            _ => column.clone(),
        })
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}
