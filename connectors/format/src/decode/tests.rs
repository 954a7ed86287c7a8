use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, RowSchema, row_to_json};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{CsvOptions, Framer, SchemaConfig};

fn options(format: Format, schema: &[(&str, ColumnType)]) -> FormatOptions {
    let columns = schema.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    let schema = (!schema.is_empty()).then_some(SchemaConfig(columns));
    let options = FormatOptions { schema, ..FormatOptions::new(format) };
    options.check().unwrap();
    options
}

/// A whole input by way of the framer.
fn read(options: &FormatOptions, input: impl AsRef<[u8]>) -> Batch {
    let mut decoder = Decoder::new(options);
    read_into(&mut decoder, options, input.as_ref());
    decoder.finish()
}

fn read_into(decoder: &mut Decoder, options: &FormatOptions, input: &[u8]) {
    let partition: Arc<str> = "file".into();
    let mut framer = Framer::new(options, 1 << 20);
    framer.feed(input, &mut |frame| decoder.push_frame(&frame, &partition));
    framer.finish(&mut |frame| decoder.push_frame(&frame, &partition));
}

fn json(input: &str) -> Batch {
    read(&options(Format::Json, &[]), input)
}

fn rows(batch: &Batch) -> Vec<Value> {
    (0..batch.len()).map(|row| row_to_json(&batch.rows, row)).collect()
}

/// `name type, name type`.
fn types(batch: &Batch) -> String {
    let schema = RowSchema::from_arrow(batch.rows.schema_ref());
    let types: Vec<_> = schema.fields.iter().map(|field| format!("{} {}", field.name, field.kind)).collect();
    types.join(", ")
}

/// Place and error of each failed row.
fn failures(batch: &Batch) -> Vec<(i64, String)> {
    batch.failed.iter().map(|failed| (failed.offset.unwrap(), failed.error.clone())).collect()
}

#[test]
fn people() {
    // The course's file: one of them has no age, which is a null and not a 0.
    let batch = json(
        "[\n  {\"name\": \"Michael\"},\n  {\"name\": \"Andy\", \"age\": 30},\n  {\"name\": \"Justin\", \"age\": 19}\n]",
    );
    assert_eq!(types(&batch), "name text, age int64");
    assert_eq!(
        rows(&batch),
        [
            json!({ "name": "Michael", "age": null }),
            json!({ "name": "Andy", "age": 30 }),
            json!({ "name": "Justin", "age": 19 })
        ]
    );
    assert_eq!(batch.origin.locate(0), (Some("file".into()), Some(2)));
    assert_eq!(batch.origin.locate(2), (Some("file".into()), Some(4)));
}

#[test]
fn inferred_types_widen() {
    // (values of one column, row by row; its type; how they come out)
    for (values, kind, expected) in [
        ("1|2|null", "int64", json!([1, 2, null])),
        ("1|2.5|3", "float64", json!([1.0, 2.5, 3.0])),
        ("2.5|1", "float64", json!([2.5, 1.0])),
        ("true|false", "boolean", json!([true, false])),
        ("true|1", "text", json!(["true", "1"])),
        ("1|true", "text", json!(["1", "true"])),
        ("1|2.50|\"x\"|3.50", "text", json!(["1.0", "2.5", "x", "3.50"])),
        ("\"x\"|1e3|true|null", "text", json!(["x", "1e3", "true", null])),
        ("\"x\\n\\u00e9\"", "text", json!(["x\né"])),
        ("1|[1, 2]", "json", json!([1, [1, 2]])),
        ("{\"b\": 1}|2.0|\"x\"|true|null", "json", json!([{ "b": 1 }, 2.0, "x", true, null])),
        ("\"1\"|{}", "json", json!(["1", {}])),
        ("1e2|10000000000000000", "float64", json!([100.0, 1e16])),
        ("", "", json!([])),
    ] {
        let input: String =
            values.split('|').filter(|value| !value.is_empty()).map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let batch = json(&input);
        assert_eq!(failures(&batch), [], "{values}");
        let found: Vec<Value> = rows(&batch).into_iter().map(|row| row["a"].clone()).collect();
        assert_eq!(Value::from(found), expected, "{values}");
        assert_eq!(types(&batch), if kind.is_empty() { String::new() } else { format!("a {kind}") }, "{values}");
    }
}

#[test]
fn no_digit_is_lost() {
    // 2^53 + 1, 2^63, 1e400: none is an int64 beside a float64, or a float64.
    for values in [
        vec!["9007199254740993", "0.5"],
        vec!["0.5", "9007199254740993"],
        vec!["1", "9223372036854775808"],
        vec!["0.5", "1e400"],
        vec!["123456789012345678901234567890"],
    ] {
        let input: String = values.iter().map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let batch = json(&input);
        assert_eq!(types(&batch), "a json");
        let column = batch.rows.column(0).as_string::<i32>();
        let texts: Vec<&str> = (0..values.len()).map(|row| column.value(row)).collect();
        let expected: Vec<&str> = values.iter().map(|value| if *value == "1" { "1" } else { *value }).collect();
        assert_eq!(texts, expected);
    }
}

#[test]
fn a_column_stays_what_it_became() {
    let options = options(Format::Json, &[]);
    let mut decoder = Decoder::new(&options);
    assert_eq!(decoder.inferred(), None);
    read_into(&mut decoder, &options, b"{\"b\": 1, \"n\": null}\n{\"a\": true}");
    assert_eq!(types(&decoder.finish()), "b int64, a boolean");
    read_into(&mut decoder, &options, b"{\"b\": 1.5}");
    let batch = decoder.finish();
    assert_eq!((types(&batch), rows(&batch)), ("b float64, a boolean".into(), vec![json!({ "b": 1.5, "a": null })]));
    let inferred = decoder.inferred().unwrap();
    assert_eq!(inferred, json!({ "columns": [["b", "float64"], ["a", "boolean"]] }));

    let mut again = Decoder::new(&options);
    again.set_inferred(&json!({ "columns": "nonsense" }));
    again.set_inferred(&inferred);
    read_into(&mut again, &options, b"{\"a\": false, \"b\": 2}");
    assert_eq!(rows(&again.finish()), [json!({ "b": 2.0, "a": false })]);
    assert!(again.is_empty());
    assert_eq!(types(&again.finish()), "b float64, a boolean");
}

#[test]
fn a_failed_row_leaves_no_trace() {
    let declared = [("a", ColumnType::Int64), ("b", ColumnType::Text), ("c", ColumnType::Float64)];
    let good = "{\"a\":1,\"b\":\"x\",\"c\":0.5}\n";
    for schema in [&[][..], &declared[..]] {
        let clean = read(&options(Format::Json, schema), good.repeat(2));
        for bad in [
            "{\"a\":2,\"b\":\"long text\",\"c\":7,",
            "{\"a\":2.5,\"b\":[1],\"new\":1,\"c\":}",
            "{\"a\":\"x\",\"new\":{\"deep\":1},\"c\":\"\\ud800\"}",
            "{\"new\":1,\"b\":\"\u{1}\"}",
            "{\"c\":\"far\",\"b\":3,\"a\":9} x",
            "[1,2",
            "7",
        ] {
            let mut decoder = Decoder::new(&options(Format::Json, schema));
            for (place, record) in [(1, good), (2, bad), (3, good)] {
                decoder.push(record.as_bytes(), &"file".into(), place);
            }
            let batch = decoder.finish();
            assert_eq!(batch.rows, clean.rows, "{bad}");
            assert_eq!(failures(&batch).iter().map(|failed| failed.0).collect::<Vec<_>>(), [2], "{bad}");
        }
    }
}

#[test]
fn broken_json_at_row_3_of_10() {
    let lines: Vec<String> = (1..=10)
        .map(|number| if number == 3 { "{\"n\": 3".to_owned() } else { format!("{{\"n\": {number}}}") })
        .collect();
    for input in [lines.join("\n"), format!("[{}]", lines.join(",\n"))] {
        let batch = json(&input);
        assert_eq!(batch.len(), 9);
        assert_eq!(batch.failed.len(), 1);
        let failed = &batch.failed[0];
        assert_eq!((failed.partition.as_deref(), failed.offset), (Some("file"), Some(3)));
        assert!(failed.error.starts_with("invalid JSON at column"), "{}", failed.error);
        assert!(failed.row.as_deref().unwrap().starts_with("{\"n\": 3"));
        assert_eq!(batch.origin.locate(2), (Some("file".into()), Some(4)));
    }
}

#[test]
fn what_failures_say() {
    let schema = [("a", ColumnType::Int64), ("t", ColumnType::Timestamp), ("j", ColumnType::Json)];
    let input = concat!(
        "{\"a\": 1, \"t\": \"2020-04-13 12:09:37.768982\", \"j\": {\"x\": [1, 2]}, \"other\": {}}\n",
        "{\"a\": 1.5}\n",
        "{\"a\": \"abc\"}\n",
        "{\"a\": 9223372036854775808}\n",
        "{\"a\": [1]}\n",
        "{\"t\": 1586779777}\n",
        "{\"t\": \"yesterday\"}\n",
        "{\"a\": 1,\n \"t\" 2}\n",
        "\"text\"\n",
        "{\"a\": \"12\", \"a\": 3.0, \"t\": null, \"j\": null}\n",
        "tru\n",
    );
    let batch = read(&options(Format::Json, &schema), input);
    assert_eq!(
        rows(&batch),
        [
            json!({ "a": 1, "t": "2020-04-13T12:09:37.768982Z", "j": { "x": [1, 2] } }),
            json!({ "a": 3, "t": null, "j": null })
        ]
    );
    let told: Vec<String> = failures(&batch).into_iter().map(|(place, error)| format!("{place}: {error}")).collect();
    assert_eq!(
        told,
        [
            "2: column `a`: can't cast 1.5 to int64: it is not a whole number in the range of int64",
            "3: column `a`: can't cast \"abc\" to int64",
            "4: column `a`: can't cast 9223372036854775808 to int64: it is not a whole number in the range of int64",
            "5: column `a`: can't cast [1] to int64",
            "6: column `t`: can't cast 1586779777 to timestamp: a number alone has no unit of time, write a date and time",
            "7: column `t`: can't cast \"yesterday\" to timestamp",
            "8: invalid JSON in line 2, column 6 of the row: expected `:`",
            "10: expected a JSON object, found a string",
            "12: invalid JSON at column 3 of the row: EOF while parsing a value",
        ]
    );
}

#[test]
fn a_value_alone_is_the_column_value() {
    let batch = read(&options(Format::Json, &[("value", ColumnType::Float64)]), "1.5\n{\"value\": 2}\n\"3\"\nx\n");
    assert_eq!(rows(&batch), [json!({ "value": 1.5 }), json!({ "value": 2.0 }), json!({ "value": 3.0 })]);
    assert_eq!(failures(&batch).len(), 1);
}

#[test]
fn keys_in_any_order_escaped_and_again() {
    let batch =
        json("{\"a\":1,\"b\":2}\n{\"b\":3,\"a\":4}\n{\"\\u0061\":5,\"b\":6,\"b\":7,\"n\":\"x\",\"n\":8}\n{\"n\":9}\n");
    assert_eq!(types(&batch), "a int64, b int64, n int64");
    assert_eq!(
        rows(&batch),
        [
            json!({ "a": 1, "b": 2, "n": null }),
            json!({ "a": 4, "b": 3, "n": null }),
            json!({ "a": 5, "b": 7, "n": 8 }),
            json!({ "a": null, "b": null, "n": 9 })
        ]
    );
    // An object without keys is a row without values.
    assert_eq!(json("{}\n{}").len(), 2);
}

#[test]
fn keys_that_are_data_do_not_fill_the_memory() {
    let row = |from: usize| {
        let keys: Vec<String> = (from..from + 600).map(|key| format!("\"k{key}\":1")).collect();
        format!("{{{}}}\n", keys.join(","))
    };
    let batch = json(&(row(0) + &row(600) + &row(0)));
    assert_eq!((batch.len(), batch.rows.num_columns()), (2, 600));
    assert_eq!(failures(&batch), [(2, "more than 1024 columns: declare those that are needed in `schema`".to_owned())]);
    let many: Vec<String> = (0..2000).map(|key| format!("\"k{key}\":null")).collect();
    assert!(failures(&json(&format!("{{{}}}", many.join(","))))[0].1.contains("more than 1024 keys"));
}

#[test]
fn deep_json_fails_and_does_not_overflow() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(json(&nested(127)).len(), 1);
    assert_eq!(failures(&json(&nested(128)))[0].1, "a value is nested more than 127 levels deep");
    assert_eq!(json(&nested(100_000)).failed.len(), 1);
    let declared = read(&options(Format::Json, &[("a", ColumnType::Json)]), nested(200));
    assert!(failures(&declared)[0].1.ends_with("nested more than 127 levels deep"));
}

#[test]
fn text_and_raw() {
    let input = b"\xEF\xBB\xBFone\r\n\n\xFF\xFEx\na\0b";
    let batch = read(&options(Format::Text, &[]), input);
    assert_eq!(rows(&batch), [json!({ "value": "one" }), json!({ "value": "" }), json!({ "value": "a\0b" })]);
    assert_eq!(failures(&batch), [(3, "not valid UTF-8 from its byte 1 on".to_owned())]);
    assert_eq!(batch.failed[0].row.as_deref(), Some("\u{fffd}\u{fffd}x"));
    assert!(!batch.rows.schema_ref().field(0).is_nullable());
    let batch = read(&options(Format::Raw, &[]), input);
    // Base64 of FF FE 78, by Python's base64.b64encode.
    assert_eq!(rows(&batch)[2], json!({ "value": "//54" }));
    assert_eq!(batch.len(), 4);
    for format in [Format::Text, Format::Raw] {
        let batch = read(&options(format, &[("value", ColumnType::Float64)]), "15.5\n-1e3\nabc\n\n7");
        assert_eq!(rows(&batch), [json!({ "value": 15.5 }), json!({ "value": -1000.0 }), json!({ "value": 7.0 })]);
        let told = failures(&batch);
        assert_eq!(told[1], (4, "column `value`: can't cast \"\" to float64".to_owned()));
        assert_eq!(told[0].0, 3);
    }
}

#[test]
fn nothing_comes_of_nothing() {
    for format in [Format::Json, Format::Text, Format::Csv, Format::Raw] {
        for input in ["", "\u{feff}"] {
            let batch = read(&options(format, &[]), input);
            assert!(batch.is_empty() && batch.failed.is_empty(), "{format}");
        }
    }
}

#[test]
fn invalid_utf_8_in_json_and_csv() {
    let batch =
        read(&options(Format::Json, &[("a", ColumnType::Int64)]), b"{\"a\":1}\n{\"a\":2,\"x\":\"\xFF\"}\n{\"a\":3}");
    assert_eq!(failures(&batch), [(2, "not valid UTF-8 from its byte 13 on".to_owned())]);
    assert_eq!(batch.len(), 2);
    let batch = read(&options(Format::Csv, &[]), b"a\n\xFF\nx");
    assert_eq!((batch.len(), failures(&batch)[0].0), (1, 2));
}

#[test]
fn csv() {
    let batch =
        read(&options(Format::Csv, &[]), "\u{feff}a,,\"b c\"\r\n1,\"\",x\r\n,\"y\"\"\nz\",\r\n1,2\r\n1,2,3,4\r\n5,6,7");
    assert_eq!(types(&batch), "a text, _c1 text, b c text");
    assert_eq!(
        rows(&batch),
        [
            json!({ "a": "1", "_c1": "", "b c": "x" }),
            json!({ "a": null, "_c1": "y\"\nz", "b c": null }),
            json!({ "a": "5", "_c1": "6", "b c": "7" })
        ]
    );
    assert_eq!(
        failures(&batch),
        [(5, "expected 3 fields, found 2".to_owned()), (6, "expected 3 fields, found 4".to_owned())]
    );
    let schema = [("n", ColumnType::Int64), ("t", ColumnType::Timestamp)];
    let batch = read(&options(Format::Csv, &schema), "t,other,n\n2020-04-13 12:09:37,x,1\n,x,\"\"\n,x,one\n");
    assert_eq!(rows(&batch), [json!({ "n": 1, "t": "2020-04-13T12:09:37.000000Z" }), json!({ "n": null, "t": null })]);
    assert_eq!(failures(&batch), [(4, "column `n`: can't cast \"one\" to int64".to_owned())]);
}

#[test]
fn csv_headers() {
    let batch = read(&options(Format::Csv, &[("x", ColumnType::Int64)]), "a,b\n1,2\n");
    let told = failures(&batch);
    assert_eq!(told[0], (1, "the declared column `x` is not among the CSV columns `a`, `b`".to_owned()));
    assert!(told[1].1.starts_with("the CSV header can't be used: the declared column `x`"));
    let batch = read(&options(Format::Csv, &[]), "a,a\n1,2\n");
    assert_eq!(failures(&batch)[0].1, "two CSV columns have the name `a`: rename one");
    assert_eq!(failures(&batch).len(), 2);

    let mut bare = FormatOptions::new(Format::Csv);
    bare.csv.header = false;
    assert_eq!(rows(&read(&bare, "1;2,x\n")), [json!({ "_c0": "1;2", "_c1": "x" })]);
    bare.csv = CsvOptions { delimiter: ';', columns: vec!["p".into(), "q".into()], ..bare.csv };
    assert_eq!(rows(&read(&bare, "1;2,x\n")), [json!({ "p": "1", "q": "2,x" })]);
    bare.schema = Some(SchemaConfig(vec![("q".into(), ColumnType::Int64)]));
    assert_eq!(rows(&read(&bare, "1;2\n")), [json!({ "q": 2 })]);

    // A file that is resumed in its middle: the header is behind.
    let options = options(Format::Csv, &[]);
    let mut decoder = Decoder::new(&options);
    read_into(&mut decoder, &options, b"a,b\n1,2\n");
    decoder.finish();
    let mut again = Decoder::new(&options);
    again.push(b"3,4", &"file".into(), 3);
    assert_eq!(failures(&again.finish())[0].1, "the CSV header has not been read");
    again.set_inferred(&decoder.inferred().unwrap());
    again.push(b"3,4", &"file".into(), 3);
    // Another file with other columns.
    again.set_header(b"c,a", &"file2".into(), 1);
    again.push(b"5,6", &"file2".into(), 2);
    assert_eq!(
        rows(&again.finish()),
        [json!({ "a": "3", "b": "4", "c": null }), json!({ "a": "6", "b": null, "c": "5" })]
    );
}

#[test]
fn csv_files_by_turns() {
    let options = options(Format::Csv, &[]);
    let mut decoder = Decoder::new(&options);
    let (good, bad): (Arc<str>, Arc<str>) = ("good".into(), "bad".into());
    let (good_header, bad_header) = (&b"a,b"[..], &b"a,a"[..]);
    for turn in 0..3 {
        decoder.set_header(good_header, &good, 1);
        decoder.push(b"1,2", &good, 2 + turn);
        decoder.set_header(bad_header, &bad, 1);
        decoder.push(b"3,4", &bad, 2 + turn);
    }
    let batch = decoder.finish();
    assert_eq!(batch.len(), 3);
    // The header once, and each row under it.
    assert_eq!(failures(&batch).iter().map(|failed| failed.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(batch.failed.iter().all(|failed| failed.partition == Some(bad.clone())));
    // The file is written anew, with a header that is good.
    let mut framer = Framer::new(&options, 100);
    framer.feed(b"b,a\n5,6\n", &mut |frame| decoder.push_frame(&frame, &bad));
    decoder.set_header(b"b,a", &bad, 1);
    decoder.push(b"7,8", &bad, 3);
    assert_eq!(rows(&decoder.finish()), [json!({ "a": "6", "b": "5" }), json!({ "a": "8", "b": "7" })]);
    // A header that is too long: what is left of it is no header at the next turn either.
    let mut framer = Framer::new(&options, 10);
    framer.feed(b"aaaaaaaa,bbbbbbbb\n1,2\n", &mut |frame| decoder.push_frame(&frame, &bad));
    decoder.set_header(b"aaaaaaaa,b", &bad, 1);
    decoder.push(b"3,4", &bad, 3);
    let batch = decoder.finish();
    assert_eq!((batch.len(), batch.failed.len()), (0, 3));
}

#[test]
fn counts_and_origins() {
    let mut decoder = Decoder::new(&options(Format::Text, &[]));
    let (first, second): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    decoder.push(b"12", &first, 5);
    decoder.push(b"345", &first, 6);
    decoder.push(b"\xff", &first, 7);
    decoder.push(b"6", &first, 8);
    decoder.push(b"7", &second, 9);
    decoder.fail(b"prefix", &second, 10, "too long".to_owned());
    assert_eq!((decoder.rows(), decoder.bytes(), decoder.is_empty()), (4, 14, false));
    let batch = decoder.finish();
    let places: Vec<_> = (0..4).map(|row| batch.origin.locate(row)).collect();
    let at = |partition: &Arc<str>, place| (Some(partition.clone()), Some(place));
    assert_eq!(places, [at(&first, 5), at(&first, 6), at(&first, 8), at(&second, 9)]);
    assert_eq!(batch.failed[1].error, "too long");
    assert_eq!((decoder.rows(), decoder.bytes(), decoder.is_empty()), (0, 0, true));
}

/// JSON values with the mixture of types that inference meets.
fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5i64..5).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<i32>(), 0..3).prop_map(Value::from),
    ]
}

fn any_row() -> impl Strategy<Value = Value> {
    prop::collection::vec((prop::sample::select(vec!["a", "b", "c", "é"]), any_json()), 0..5)
        .prop_map(|entries| Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// The text in a column of JSON. (To parse it would cost the last digits: serde_json does not always round correctly.)
fn json_text<'a>(batch: &'a Batch, name: &str, row: usize) -> Option<&'a str> {
    let (index, field) = batch.rows.schema_ref().column_with_name(name)?;
    let column = batch.rows.column(index);
    let is_json = acequia_connector_api::column_type_of(field) == Some(ColumnType::Json);
    (is_json && column.is_valid(row)).then(|| column.as_string::<i32>().value(row))
}

/// Whether a text is a value that was written, apart from an integer that was a float in between (`1.0`).
fn is_written(value: &Value, text: &str) -> bool {
    let as_float = value.as_i64().is_some_and(|value| text.parse() == Ok(value as f64) && value as f64 as i64 == value);
    value.to_string().as_str() == text || as_float
}

/// Whether a value that was read is the one that was written, apart from a wider type.
fn same(written: &Value, read: &Value) -> bool {
    match (written, read) {
        (Value::Number(_) | Value::Bool(_), Value::String(text)) => is_written(written, text),
        (Value::Number(_), Value::Number(other)) => is_written(written, &other.to_string()),
        _ => written == read,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn inference_loses_nothing(lines in prop::collection::vec(any_row(), 0..12)) {
        let input: String = lines.iter().map(|row| format!("{row}\n")).collect();
        let batch = json(&input);
        prop_assert!(batch.failed.is_empty());
        prop_assert_eq!(batch.len(), lines.len());
        for (row, (written, read)) in lines.iter().zip(rows(&batch)).enumerate() {
            for (name, value) in written.as_object().unwrap() {
                let found = read.get(name).unwrap_or(&Value::Null);
                let good = match json_text(&batch, name, row) {
                    // A number or boolean that became text before it became JSON is a string.
                    Some(text) => is_written(value, text) || is_written(value, text.trim_matches('"')),
                    None => same(value, found),
                };
                prop_assert!(good, "{} came back as {}", value, found);
            }
        }
    }

    /// Where the batches end decides nothing but the types: the failures and the number of rows are the same.
    #[test]
    fn broken_rows_change_nothing_for_the_others(
        lines in prop::collection::vec((any_row(), any::<bool>(), 1usize..20), 0..12),
    ) {
        let clean: String = lines.iter().filter(|line| !line.1).map(|line| format!("{}\n", line.0)).collect();
        let partition: Arc<str> = "p".into();
        let mut decoder = Decoder::new(&options(Format::Json, &[]));
        let mut broken = 0;
        for (row, is_broken, cut) in &lines {
            let text = row.to_string();
            let end = if *is_broken { text.len() - 1 - cut % (text.len() - 1) } else { text.len() };
            broken += usize::from(*is_broken);
            decoder.push(&text.as_bytes()[..end], &partition, 1);
        }
        let batch = decoder.finish();
        prop_assert_eq!(batch.failed.len(), broken);
        let expected: RecordBatch = json(&clean).rows;
        prop_assert_eq!(batch.rows, expected);
    }

    #[test]
    fn no_bytes_can_do_harm(
        input in prop::collection::vec(any::<u8>(), 0..200),
        format in prop::sample::select(vec![Format::Json, Format::Text, Format::Csv, Format::Raw]),
        declared in any::<bool>(),
    ) {
        let schema = [("value", ColumnType::Json)];
        let csv = format == Format::Csv;
        let batch = read(&options(format, if declared && !csv { &schema } else { &[] }), &input);
        prop_assert!(batch.len() + batch.failed.len() <= input.len() + 1);
    }
}
