//! Rows that carry what they were read from.

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, record_column, row_to_json};
use proptest::prelude::*;
use serde_json::Value;

use crate::parse::compact_json;
use crate::{CsvOptions, Decoder, Encoder, Format, FormatOptions, Framer, SchemaConfig};

fn reading(options: &FormatOptions, columns: &[&str]) -> Decoder {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    Decoder::new(options).reading(Some(&columns))
}

fn read(decoder: &mut Decoder, options: &FormatOptions, input: &str) -> Batch {
    let partition: Arc<str> = "file".into();
    let mut framer = Framer::new(options, 1 << 20);
    // Cut anywhere.
    for part in input.as_bytes().chunks(7) {
        framer.feed(part, &mut |frame| decoder.push_frame(&frame, &partition));
    }
    framer.finish(&mut |frame| decoder.push_frame(&frame, &partition));
    decoder.finish()
}

fn json(columns: &[&str], input: &str) -> Batch {
    let options = FormatOptions::new(Format::Json);
    read(&mut reading(&options, columns), &options, input)
}

fn records(batch: &Batch) -> Vec<String> {
    record_column(&batch.rows).unwrap().iter().map(|record| record.unwrap().to_owned()).collect()
}

fn names(batch: &Batch) -> Vec<String> {
    batch.rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect()
}

#[test]
fn only_what_is_read_becomes_a_column() {
    let input = "{\"a\": 1, \"b\": {\"c\": [1, 2]}}\n{\"b\":1.50,\"a\":2,\"é\":\"\\u00e9\"}\n";
    let batch = json(&["a"], input);
    assert_eq!(names(&batch), ["a", "\0record"]);
    assert_eq!(records(&batch), input.lines().collect::<Vec<_>>());
    // A dead letter shows the whole row.
    assert_eq!(row_to_json(&batch.rows, 1).to_string(), "{\"b\":1.5,\"a\":2,\"é\":\"é\"}");
    let odd = json(&[], "{\"a\": 1e999}");
    assert_eq!(odd.fail(0, "no").row.unwrap(), "{\"a\": 1e999}");
    assert_eq!(names(&json(&[], input)), ["\0record"]);
    assert_eq!(json(&[], input).len(), 2);
    // A column that no row has.
    assert_eq!(names(&json(&["z"], input)), ["\0record"]);
}

#[test]
fn the_sink_writes_what_was_read() {
    let input =
        "{\"n\": 1, \"x\":1.0e2}\n  {\"n\":2}\r\n[{\"n\":3,\r\"y\":null},\n{\n  \"n\": 4,\n  \"z\": \"a b\"\n}]";
    let batch = json(&["n"], input);
    let mut encoder = Encoder::new(Format::Json, &CsvOptions::default(), None);
    let mut out = Vec::new();
    assert!(encoder.encode(&batch.rows, &mut out).unwrap().is_empty());
    let expected = "{\"n\": 1, \"x\":1.0e2}\n{\"n\":2}\n{\"n\":3,\"y\":null}\n{\"n\":4,\"z\":\"a b\"}\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut each = Vec::new();
    encoder
        .encode_each(&batch.rows, &mut |_, value| each.push(String::from_utf8(value.unwrap().to_vec()).unwrap()))
        .unwrap();
    assert_eq!(each, expected.lines().collect::<Vec<_>>());
}

#[test]
fn what_is_not_read_must_be_right_too() {
    let deep = format!("{{\"a\":1,\"b\":{}{}}}", "[".repeat(200), "]".repeat(200));
    for bad in ["{\"a\":1,\"b\":\"\\ud800\"}", "{\"a\":1,\"b\":tru}", "{\"a\":1,\"b\":01}", "{\"a\":1", &deep, "7"] {
        for columns in [&["a"][..], &["b"], &[]] {
            let batch = json(columns, bad);
            assert_eq!((batch.len(), batch.failed.len()), (0, 1), "{bad}");
            assert_eq!(batch.failed[0].error, json_whole(bad).failed[0].error, "{bad}");
        }
    }
}

fn json_whole(input: &str) -> Batch {
    let options = FormatOptions::new(Format::Json);
    read(&mut Decoder::new(&options), &options, input)
}

#[test]
fn rows_without_a_value_and_the_types_learnt_before() {
    let options = FormatOptions::new(Format::Json);
    let mut before = Decoder::new(&options);
    read(&mut before, &options, "{\"a\":1,\"b\":2}\n{\"a\":\"x\",\"b\":3}");
    let mut decoder = reading(&options, &["a"]);
    decoder.set_inferred(&before.inferred().unwrap());
    let partition: Arc<str> = "t/0".into();
    decoder.push_null(&partition, 1);
    decoder.push(br#"{"a":7,"b":8}"#, &partition, 2);
    let batch = decoder.finish();
    assert_eq!(names(&batch), ["a", "\0record"]);
    assert_eq!(records(&batch), ["{}", r#"{"a":7,"b":8}"#]);
    assert_eq!(row_to_json(&batch.rows, 1).to_string(), r#"{"a":"7","b":8}"#);
    assert_eq!(decoder.inferred().unwrap().to_string(), r#"{"columns":[["a","text"]]}"#);
}

#[test]
fn other_formats_and_declared_types_are_as_before() {
    let declared = SchemaConfig(vec![("a".to_owned(), ColumnType::Int64), ("b".to_owned(), ColumnType::Int64)]);
    let declared = FormatOptions { schema: Some(declared), ..FormatOptions::new(Format::Json) };
    for (options, input) in [(declared, "{\"a\":1,\"b\":2}"), (FormatOptions::new(Format::Csv), "a,b\n1,2\n")] {
        assert!(!options.projects());
        let batch = read(&mut reading(&options, &["a"]), &options, input);
        assert_eq!(names(&batch), ["a", "b"]);
    }
    assert!(FormatOptions::new(Format::Json).projects());
}

/// A row as somebody may write it, or nearly.
fn row() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| format!("{value:?}")),
        "[ -~é\u{1F600}]{0,20}".prop_map(|text| Value::from(text).to_string()),
        Just("[1, {\"k\" : \"v\\n\"}, []]".to_owned()),
        Just("\"\\ud83d\\ude00\"".to_owned()),
        Just("\"\\ud83d\"".to_owned()),
        Just("1e999".to_owned()),
        Just("-".to_owned()),
    ];
    let pair =
        ("[abc]", value, "[ \t\r\n]{0,2}").prop_map(|(key, value, blank)| format!("{blank}\"{key}\"{blank}:{value}"));
    let row = prop::collection::vec(pair, 0..5).prop_map(|pairs| format!("{{{}}}", pairs.join(",")));
    // Of a key that is there again only the last value counts, unless the row goes on as it is: then all must be right.
    row.prop_filter("a value that counts for one and not for the other", |row| {
        let is_twice = |key: &str| row.matches(key).count() > 1;
        !row.contains(r#""\ud83d""#) || !["\"a\"", "\"b\"", "\"c\""].into_iter().any(is_twice)
    })
}

proptest! {
    /// Reading less of the rows refuses the same ones for the same reasons, and the others are what they were.
    #[test]
    fn reading_less_changes_no_row(rows in prop::collection::vec(row(), 1..20), columns in prop::sample::subsequence(vec!["a", "b", "c"], 0..=3)) {
        let options = FormatOptions::new(Format::Json);
        let partition: Arc<str> = "t/0".into();
        let (mut whole, mut less) = (Decoder::new(&options), reading(&options, &columns));
        for (place, row) in rows.iter().enumerate() {
            whole.push(row.as_bytes(), &partition, place as i64);
            less.push(row.as_bytes(), &partition, place as i64);
        }
        let (whole, less) = (whole.finish(), less.finish());
        prop_assert_eq!(&whole.failed, &less.failed);
        prop_assert_eq!(whole.len(), less.len());
        let records = records(&less);
        for (index, record) in records.iter().enumerate() {
            let place = less.origin.locate(index).1.unwrap() as usize;
            let row = rows[place].trim();
            if row.contains(['\n', '\r']) {
                let mut compact = String::new();
                prop_assert!(compact_json(row, &mut compact));
                prop_assert_eq!(record, &compact);
            } else {
                prop_assert_eq!(record, row);
            }
            prop_assert!(!record.contains(['\n', '\r']), "{}", record);
        }
        for name in columns {
            prop_assert_eq!(whole.rows.column_by_name(name), less.rows.column_by_name(name));
        }
    }
}
