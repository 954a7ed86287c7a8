use acequia_connector_api::{Field, RowSchema};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Int64Array, StringArray};

use super::*;
use crate::plugin::plan::{Input, Move, Passes, Plan};

fn input(name: &str, kind: ColumnType, nullable: bool) -> Input {
    Input { name: name.to_owned(), kind, nullable }
}

fn prepare(reads: Vec<Input>, moves: Vec<Move>) -> (Prepared, Vec<FailedRow>) {
    let schema = RowSchema::closed(vec![
        Field::new("text", ColumnType::Text, true),
        Field::new("number", ColumnType::Int64, true),
        Field::new("json", ColumnType::Json, true),
    ]);
    let rows = RecordBatch::try_new(
        schema.to_arrow(),
        vec![
            Arc::new(StringArray::from(vec![Some("1.5"), Some("two"), None, Some("4")])),
            Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None])),
            Arc::new(StringArray::from(vec![Some("1"), Some("2"), Some("3"), Some("null")])),
        ],
    )
    .unwrap();
    let plan = Plan { reads: Some(reads), adds: Vec::new(), passes: Passes::Every, moves, tick_every: None };
    let layout = Layout::new(&plan, &rows.schema()).unwrap();
    Prepared::new(Arc::new(layout), rows, Origin::run("lines".into(), 1)).unwrap()
}

fn errors(failed: &[FailedRow]) -> Vec<(i64, &str)> {
    failed.iter().map(|row| (row.offset.unwrap(), row.error.as_str())).collect()
}

#[test]
fn rows_that_cannot_be_cast_do_not_reach_the_plugin() {
    let (prepared, failed) = prepare(vec![input("text", ColumnType::Float64, true)], Vec::new());
    let read = prepared.reads[0].as_primitive::<Float64Type>();
    assert_eq!(read.iter().collect::<Vec<_>>(), [Some(1.5), None, Some(4.0)]);
    assert_eq!(prepared.rows.num_rows(), 3);
    let [(2, error)] = errors(&failed)[..] else { panic!("{failed:?}") };
    assert!(error.starts_with("column `text`: ") && error.contains("two") && error.contains("float64"), "{error}");
    assert_eq!(failed[0].row.as_deref(), Some(r#"{"text":"two","number":2,"json":2}"#));
    assert_eq!(prepared.describe(&(1..3)), "rows 3 to 4 of lines");
}

#[test]
fn nulls_do_not_reach_a_plugin_that_wants_none() {
    let (prepared, failed) = prepare(vec![input("text", ColumnType::Float64, false)], Vec::new());
    assert_eq!(prepared.rows.num_rows(), 2);
    assert_eq!(failed.len(), 2);
    assert_eq!(errors(&failed)[1], (3, "column `text` is null"));
    assert_eq!(prepared.reads[0].null_count(), 0);
    let (prepared, failed) = prepare(vec![input("json", ColumnType::Int64, false)], Vec::new());
    assert_eq!(errors(&failed), [(4, "column `json` is null")], "JSON's null is one too");
    assert_eq!(prepared.reads[0].as_primitive::<Int64Type>().values(), &[1, 2, 3]);
    let both = vec![input("text", ColumnType::Float64, false), input("number", ColumnType::Int64, false)];
    let (prepared, failed) = prepare(both, Vec::new());
    assert_eq!((prepared.rows.num_rows(), failed.len()), (1, 3), "each row fails once");
}

#[test]
fn an_absent_column_is_all_null() {
    let (prepared, failed) = prepare(vec![input("other", ColumnType::Text, true)], Vec::new());
    assert!(failed.is_empty());
    assert_eq!(prepared.reads[0].null_count(), 4);
    assert!(prepared.guest_columns(&prepared.reads).is_some());
    let (prepared, failed) = prepare(vec![input("other", ColumnType::Text, false)], Vec::new());
    assert_eq!(prepared.rows.num_rows(), 0);
    assert_eq!(errors(&failed)[3], (4, "column `other` is missing"));
}

#[test]
fn a_moved_column_is_cast_before_the_call() {
    let moved = Move { source: "text".to_owned(), name: "value".to_owned(), kind: Some(ColumnType::Float64) };
    let (prepared, failed) = prepare(Vec::new(), vec![moved]);
    assert_eq!(failed.len(), 1);
    assert_eq!(prepared.casts[0].len(), 3);
    assert_eq!(prepared.layout.output.field(0).name(), "value");
    let part = prepared.slice(&(1..3));
    assert_eq!(part.casts[0].as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [None, Some(4.0)]);
}

#[test]
fn nothing_is_copied_if_nothing_must_be() {
    let (prepared, failed) = prepare(vec![input("number", ColumnType::Int64, true)], Vec::new());
    assert!(failed.is_empty() && Arc::ptr_eq(&prepared.reads[0], prepared.rows.column(1)));
}

#[test]
fn says_which_rows_without_the_name_of_an_only_part() {
    let (mut prepared, _) = prepare(Vec::new(), Vec::new());
    assert_eq!(prepared.describe(&(1..2)), "row 2 of lines");
    prepared.origin = Origin::run("".into(), 7);
    assert_eq!(prepared.describe(&(1..2)), "row 8");
    assert_eq!(prepared.describe(&(0..4)), "rows 7 to 10");
}
