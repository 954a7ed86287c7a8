use arrow_array::Array;

use super::*;

fn column(name: &str, values: ValuesResult, valid: Option<Vec<u8>>) -> ColumnResult {
    ColumnResult { name: name.to_owned(), values, valid }
}

fn text(offsets: &[u32], data: &[u8]) -> ValuesResult {
    ValuesResult::Text(PackedResult { offsets: offsets.to_vec(), data: data.to_vec() })
}

fn failure(row: u32) -> Failure {
    Failure { row, message: format!("failed at {row}") }
}

fn output(rows: Selection, columns: Vec<ColumnResult>, failed: Vec<Failure>) -> Output {
    Output { rows, columns, failed }
}

/// The complaint about one column of a map over 3 rows.
fn of_column(values: ValuesResult, valid: Option<Vec<u8>>, kind: ColumnType) -> String {
    let output = output(Selection::All, vec![column("c", values, valid)], Vec::new());
    check(output, &[Field::new("c", kind, false)], 3).unwrap_err()
}

/// The complaint about a selection of 10 rows.
fn of_rows(rows: Selection, failed: Vec<Failure>) -> String {
    check(output(rows, Vec::new(), failed), &[], 10).unwrap_err()
}

#[test]
fn columns_that_break_the_contract() {
    let json = |data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap();
        ValuesResult::Json(PackedResult { offsets: vec![0, 0, 0, length], data: data.to_vec() })
    };
    let complaints = [
        of_column(ValuesResult::Int64(vec![1, 2]), None, ColumnType::Int64),
        of_column(ValuesResult::Int64(vec![1, 2, 3]), None, ColumnType::Float64),
        of_column(ValuesResult::Timestamp(vec![1, 2, 3]), None, ColumnType::Int64),
        of_column(ValuesResult::Int64(vec![1, 2, 3]), Some(vec![0b101]), ColumnType::Int64),
        of_column(ValuesResult::Int64(vec![1, 2, 3]), Some(vec![7, 0]), ColumnType::Int64),
        of_column(ValuesResult::Boolean(vec![]), None, ColumnType::Boolean),
        of_column(text(&[0, 1, 2], b"abc"), None, ColumnType::Text),
        of_column(text(&[], b""), None, ColumnType::Text),
        of_column(text(&[1, 1, 2, 3], b"abc"), None, ColumnType::Text),
        of_column(text(&[0, 2, 1, 3], b"abc"), None, ColumnType::Text),
        of_column(text(&[0, 1, 2, 4], b"abc"), None, ColumnType::Text),
        of_column(text(&[0, 1, 2, u32::MAX], b"abc"), None, ColumnType::Text),
        of_column(text(&[0, 1, 2, 3], b"a\xffc"), None, ColumnType::Text),
        // Valid as a whole, but the second value ends in the middle of the ä.
        of_column(text(&[0, 1, 2, 3], "aä".as_bytes()), None, ColumnType::Text),
        of_column(json(b""), None, ColumnType::Json),
        check(output(Selection::All, Vec::new(), Vec::new()), &[Field::new("c", ColumnType::Text, true)], 3)
            .unwrap_err(),
        check(
            output(Selection::All, vec![column("d", ValuesResult::Int64(vec![]), None)], Vec::new()),
            &[Field::new("c", ColumnType::Int64, true)],
            0,
        )
        .unwrap_err(),
    ];
    insta::assert_snapshot!(complaints.join("\n"));
}

#[test]
fn selections_that_break_the_contract() {
    let complaints = [
        of_rows(Selection::Kept(vec![0]), Vec::new()),
        of_rows(Selection::Kept(vec![0; 3]), Vec::new()),
        of_rows(Selection::Some(vec![9, 10]), Vec::new()),
        of_rows(Selection::Some(vec![u32::MAX]), Vec::new()),
        of_rows(Selection::Fresh(u32::MAX), Vec::new()),
        of_rows(Selection::All, vec![failure(10)]),
        of_rows(Selection::All, vec![failure(3), failure(3)]),
        of_rows(Selection::Kept(vec![0b1000, 0]), vec![failure(3)]),
        of_rows(Selection::Some(vec![1, 3]), vec![failure(3)]),
    ];
    insta::assert_snapshot!(complaints.join("\n"));
}

#[test]
fn what_is_not_forbidden_is_taken() {
    // Unused bits of the last byte, bytes behind the last value, a bitmap without nulls, any bytes where a value is null.
    let fields = [Field::new("t", ColumnType::Text, false), Field::new("j", ColumnType::Json, true)];
    let columns = vec![
        column("t", text(&[0, 1, 1], b"a\xff\xff"), Some(vec![0xff])),
        column(
            "j",
            ValuesResult::Json(PackedResult { offsets: vec![0, 1, 4], data: b"{[1]".to_vec() }),
            Some(vec![0b10]),
        ),
    ];
    let answer = check(output(Selection::Kept(vec![0b1111_1101]), columns, vec![failure(1)]), &fields, 3).unwrap();
    let Rows::Kept { mask, count } = answer.rows else { panic!("{answer:?}") };
    assert_eq!((mask.len(), count), (3, 2));
    assert_eq!((answer.columns[0].null_count(), answer.columns[1].null_count()), (0, 1));
}

#[test]
fn counts_what_is_used() {
    let rows = Selection::Some(vec![4, 4, 0]);
    let answer = check(output(rows, Vec::new(), vec![failure(3), failure(2)]), &[], 5).unwrap();
    assert!(matches!(answer.rows, Rows::Picked { used: 2, .. }));
    assert_eq!(answer.failed, [(2, "failed at 2".to_owned()), (3, "failed at 3".to_owned())]);
    let none = check(output(Selection::Some(Vec::new()), Vec::new(), Vec::new()), &[], 0).unwrap();
    assert!(matches!(none.rows, Rows::Picked { used: 0, .. }));
}
