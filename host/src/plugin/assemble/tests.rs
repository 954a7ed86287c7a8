use acequia_connector_api::{ColumnType, Field, RowSchema};
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, StringArray};

use super::*;
use crate::plugin::plan::{Layout, Passes, Plan};

/// Four rows: `text` passes, `length` is added.
fn prepared() -> (Prepared, FreshLayout) {
    let input = RowSchema::closed(vec![Field::new("text", ColumnType::Text, false)]);
    let adds = vec![Field::new("length", ColumnType::Int64, false)];
    let plan = Plan { reads: Some(Vec::new()), adds, passes: Passes::Every, moves: Vec::new(), tick_every: None };
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "bc", "def", "ghij"]));
    let rows = RecordBatch::try_new(input.to_arrow(), vec![column]).unwrap();
    let layout = Arc::new(Layout::new(&plan, &rows.schema()).unwrap());
    let (schema, slots) = layout.fresh();
    let (prepared, _) = Prepared::new(layout, rows, Origin::run("lines".into(), 1)).unwrap();
    (prepared, FreshLayout { schema, slots })
}

fn answer(rows: Rows, lengths: Vec<i64>, failed: &[usize]) -> Answer {
    let failed = failed.iter().map(|row| (*row, format!("failed at {row}"))).collect();
    Answer { rows, columns: vec![Arc::new(Int64Array::from(lengths))], failed }
}

fn limited(answer: Answer, limit: u64) -> Result<Applied, AssembleError> {
    let (input, fresh) = prepared();
    let assembled = Assembled::new(&input, answer, &fresh, ByteSize(limit))?;
    Ok(assembled.finish(input, Vec::new()))
}

fn apply(answer: Answer) -> Applied {
    let applied = limited(answer, 1 << 20).unwrap();
    let out = applied.batch.len() + applied.batch.failed.len();
    assert_eq!(4 + applied.added, out as u64 + applied.dropped, "in + added = out + dropped + failed");
    applied
}

fn shown(applied: &Applied) -> Vec<(String, i64, Option<i64>)> {
    let rows = &applied.batch.rows;
    let lengths = rows.column_by_name("length").unwrap().as_primitive::<Int64Type>();
    let texts = rows.column_by_name("text").map(|text| text.as_string::<i32>());
    let text = |row| texts.map_or_else(String::new, |texts| texts.value(row).to_owned());
    (0..rows.num_rows()).map(|row| (text(row), lengths.value(row), applied.batch.origin.locate(row).1)).collect()
}

fn row(text: &str, length: i64, line: i64) -> (String, i64, Option<i64>) {
    (text.to_owned(), length, Some(line))
}

#[test]
fn a_map() {
    let applied = apply(answer(Rows::All, vec![1, 2, 3, 4], &[]));
    assert_eq!(shown(&applied), [row("a", 1, 1), row("bc", 2, 2), row("def", 3, 3), row("ghij", 4, 4)]);
    let applied = apply(answer(Rows::All, vec![1, 2, 3, 4], &[0, 2]));
    assert_eq!(shown(&applied), [row("bc", 2, 2), row("ghij", 4, 4)], "a failed row has a slot, and leaves");
    assert_eq!(applied.batch.failed[1].row.as_deref(), Some(r#"{"text":"def"}"#));
}

#[test]
fn a_filter() {
    let mask = BooleanBuffer::from(vec![false, true, false, true]);
    let applied = apply(answer(Rows::Kept { mask, count: 2 }, vec![2, 4], &[0]));
    assert_eq!(shown(&applied), [row("bc", 2, 2), row("ghij", 4, 4)]);
    assert_eq!((applied.dropped, applied.batch.failed.len()), (1, 1));
}

#[test]
fn a_flat_map() {
    let applied = apply(answer(Rows::Picked { rows: vec![3, 0, 3, 3, 1], used: 3 }, vec![1, 2, 3, 4, 5], &[2]));
    assert_eq!(
        shown(&applied),
        [row("ghij", 1, 4), row("a", 2, 1), row("ghij", 3, 4), row("ghij", 4, 4), row("bc", 5, 2)]
    );
    assert_eq!((applied.added, applied.dropped), (2, 0));
}

#[test]
fn an_aggregate() {
    let applied = apply(answer(Rows::Fresh(2), vec![10, 20], &[1]));
    assert_eq!(shown(&applied), [(String::new(), 10, None), (String::new(), 20, None)]);
    assert_eq!(applied.batch.rows.num_columns(), 1);
    assert_eq!((applied.added, applied.dropped), (2, 3));
}

#[test]
fn repeats_are_counted_before_they_are_made() {
    let many = |count| answer(Rows::Picked { rows: vec![3; count], used: 1 }, vec![0; count], &[]);
    // Each row of "ghij": four bytes, and four of its offset.
    assert_eq!(limited(many(128), 1024).unwrap().batch.len(), 128);
    assert_eq!(
        limited(many(129), 1024).unwrap_err().to_string(),
        "with the rows that it repeats, the output has more than 1KiB (raise limits.output if it needs more)"
    );
}

#[test]
fn parts_are_joined_in_order() {
    let (input, fresh) = prepared();
    let part = |range: std::ops::Range<usize>, answer: Answer| {
        (range.start, Assembled::new(&input.slice(&range), answer, &fresh, ByteSize(1 << 20)).unwrap())
    };
    let kept = Rows::Kept { mask: BooleanBuffer::from(vec![false, true]), count: 1 };
    let parts = vec![part(0..1, answer(Rows::All, vec![1], &[])), part(2..4, answer(kept, vec![4], &[0]))];
    let applied = join(input, parts, vec![(1, "it trapped".to_owned())], Vec::new()).unwrap();
    assert_eq!(shown(&applied), [row("a", 1, 1), row("ghij", 4, 4)]);
    let failed: Vec<_> = applied.batch.failed.iter().map(|row| (row.offset.unwrap(), row.error.as_str())).collect();
    assert_eq!(failed, [(2, "it trapped"), (3, "failed at 0")]);
}
