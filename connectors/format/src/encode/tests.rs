use std::sync::Arc;

use acequia_connector_api::RowSchema;
use arrow_array::{BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_schema::{Field, Schema};
use proptest::prelude::*;

use super::*;
use crate::{Decoder, FormatOptions, Framer, SchemaConfig};

fn batch(columns: Vec<(&str, ColumnType, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, kind, _)| kind.arrow_field(name, true)).collect();
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Every type, a usual value, an unusual one and a null.
fn everything() -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![Some(1_586_779_777_768_982), Some(-1), None]).with_timezone("UTC");
    batch(vec![
        ("b", ColumnType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("i", ColumnType::Int64, Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(-7), None]))),
        ("f", ColumnType::Float64, Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), None]))),
        ("t", ColumnType::Timestamp, Arc::new(times)),
        ("s", ColumnType::Text, Arc::new(StringArray::from(vec![Some("a,\"b\"\né"), Some(""), None]))),
        ("y", ColumnType::Binary, Arc::new(BinaryArray::from(vec![Some(&b"\xff\0x"[..]), Some(b""), None]))),
        ("j", ColumnType::Json, Arc::new(StringArray::from(vec![Some("{ \"k\": [1, \"x y\"] }"), Some("null"), None]))),
    ])
}

fn encode(encoder: &mut Encoder, rows: &RecordBatch) -> (String, Vec<(usize, String)>) {
    let mut out = Vec::new();
    let failed = encoder.encode(rows, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), failed)
}

fn encoder(format: Format, value: Option<&str>) -> Encoder {
    Encoder::new(format, &CsvOptions::default(), value)
}

fn texts(name: &str, values: &[Option<&str>]) -> RecordBatch {
    batch(vec![(name, ColumnType::Text, Arc::new(StringArray::from(values.to_vec())))])
}

#[test]
fn json() {
    // The base64 of FF 00 78 by Python's base64.b64encode.
    let expected = concat!(
        "{\"b\":true,\"i\":9223372036854775807,\"f\":1.0,\"t\":\"2020-04-13T12:09:37.768982Z\",\"s\":\"a,\\\"b\\\"\\né\",",
        "\"y\":\"/wB4\",\"j\":{\"k\":[1,\"x y\"]}}\n",
        "{\"b\":false,\"i\":-7,\"f\":null,\"t\":\"1969-12-31T23:59:59.999999Z\",\"s\":\"\",\"y\":\"\",\"j\":null}\n",
        "{\"b\":null,\"i\":null,\"f\":null,\"t\":null,\"s\":null,\"y\":null,\"j\":null}\n",
    );
    assert_eq!(encode(&mut encoder(Format::Json, None), &everything()), (expected.to_owned(), vec![]));
    let names = texts("a\"b", &[Some("x")]);
    assert_eq!(encode(&mut encoder(Format::Json, None), &names).0, "{\"a\\\"b\":\"x\"}\n");
    let empty = RecordBatch::from(arrow_array::StructArray::new_empty_fields(2, None));
    assert_eq!(encode(&mut encoder(Format::Json, None), &empty).0, "{}\n{}\n");
}

#[test]
fn csv() {
    let mut encoder = encoder(Format::Csv, None);
    let expected = concat!(
        "b,i,f,t,s,y,j\n",
        "true,9223372036854775807,1.0,2020-04-13T12:09:37.768982Z,\"a,\"\"b\"\"\né\",/wB4,\"{ \"\"k\"\": [1, \"\"x y\"\"] }\"\n",
        "false,-7,NaN,1969-12-31T23:59:59.999999Z,\"\",\"\",null\n",
        ",,,,,,\n",
    );
    assert_eq!(encode(&mut encoder, &everything()), (expected.to_owned(), vec![]));
    // A second batch: no header, the columns by name, one that is missing, one that is new.
    let ints = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let second = batch(vec![
        ("new", ColumnType::Int64, ints(vec![None, Some(1)])),
        ("i", ColumnType::Int64, ints(vec![Some(5), Some(6)])),
    ]);
    let (text, failed) = encode(&mut encoder, &second);
    assert_eq!(text, ",5,,,,,\n");
    assert_eq!(
        failed,
        [(1, "column `new` is not in the header of the CSV file, which the first rows made".to_owned())]
    );
}

#[test]
fn csv_headers() {
    let rows = texts("a", &[Some("1"), None, Some("\u{feff}x")]);
    let mut first = encoder(Format::Csv, None);
    assert_eq!(encode(&mut first, &rows).0, "a\n1\n\"\"\n\"\u{feff}x\"\n");
    assert_eq!(first.header(), Some(&["a".to_owned()][..]));
    let mut again = encoder(Format::Csv, None);
    again.set_header(first.header().map(<[String]>::to_vec));
    assert_eq!(encode(&mut again, &texts("a", &[Some("2")])).0, "2\n");
    let bare = CsvOptions { header: false, delimiter: ';', quote: '\'', ..CsvOptions::default() };
    let mut bare = Encoder::new(Format::Csv, &bare, None);
    assert_eq!(encode(&mut bare, &texts("a", &[Some("1,;'")])).0, "'1,;'''\n");
    // Nothing is written before the first row.
    let mut late = encoder(Format::Csv, None);
    assert_eq!(encode(&mut late, &texts("other", &[])).0, "");
    assert_eq!(late.header(), None);
}

#[test]
fn text_and_raw() {
    let all = everything();
    assert_eq!(encode(&mut encoder(Format::Text, Some("s")), &all).0, "a,\"b\"\né\n\n\n");
    assert_eq!(encode(&mut encoder(Format::Text, Some("f")), &all).0, "1.0\nNaN\n\n");
    assert_eq!(encode(&mut encoder(Format::Raw, Some("i")), &all).0, "9223372036854775807-7");
    let (text, failed) = encode(&mut encoder(Format::Text, Some("y")), &all);
    assert_eq!(text, "\n\n");
    assert_eq!(failed, [(0, "can't cast 3 bytes (base64 /wB4) to text: it is not valid UTF-8".to_owned())]);
    let mut out = Vec::new();
    encoder(Format::Raw, Some("y")).encode(&all, &mut out).unwrap();
    assert_eq!(out, b"\xff\0x");
    // The column by default: `value`, else the only one.
    assert_eq!(encode(&mut encoder(Format::Text, None), &texts("any", &[Some("x")])).0, "x\n");
    let error = encoder(Format::Text, None).encode(&all, &mut out).unwrap_err().to_string();
    assert_eq!(
        error,
        "the rows have no column `value`, which is to be written: name one of their columns in `value`, or use json"
    );
    assert!(encoder(Format::Text, Some("no")).encode(&texts("any", &[]), &mut out).is_err());
}

#[test]
fn single_messages() {
    let rows = batch(vec![
        ("value", ColumnType::Json, Arc::new(StringArray::from(vec![Some("\"x\""), None, Some("[1")]))),
        ("n", ColumnType::Int64, Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ]);
    let messages = |format| {
        let mut messages = Vec::new();
        let failed = encoder(format, None)
            .encode_each(&rows, &mut |row, message| {
                messages.push((row, message.map(|message| String::from_utf8(message.to_vec()).unwrap())));
            })
            .unwrap();
        (messages, failed.iter().map(|(row, _)| *row).collect::<Vec<_>>())
    };
    let some = |text: &str| Some(text.to_owned());
    let json = vec![(0, some("{\"value\":\"x\",\"n\":1}")), (1, some("{\"value\":null,\"n\":2}"))];
    assert_eq!(messages(Format::Json), (json, vec![2]));
    assert_eq!(messages(Format::Text), (vec![(0, some("x")), (1, None), (2, some("[1"))], vec![]));
    let csv = vec![(0, some("\"\"\"x\"\"\",1")), (1, some(",2")), (2, some("[1,3"))];
    assert_eq!(messages(Format::Csv), (csv, vec![]));
}

#[test]
fn rows_that_are_not_json() {
    let rows = batch(vec![
        ("n", ColumnType::Int64, Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("j", ColumnType::Json, Arc::new(StringArray::from(vec!["{}", "{", "1"]))),
    ]);
    let (text, failed) = encode(&mut encoder(Format::Json, None), &rows);
    assert_eq!(text, "{\"n\":1,\"j\":{}}\n{\"n\":3,\"j\":1}\n");
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.starts_with("column \"j\": it is not valid JSON"), "{}", failed[0].1);
}

#[test]
fn a_type_that_is_none() {
    let column: ArrayRef = Arc::new(arrow_array::Int32Array::from(vec![1]));
    let rows = RecordBatch::try_from_iter([("small", column)]).unwrap();
    let mut out = Vec::new();
    for format in [Format::Json, Format::Csv, Format::Text] {
        let error = encoder(format, None).encode(&rows, &mut out).unwrap_err().to_string();
        assert_eq!(error, "column `small` has the Arrow type Int32, which is no column type");
    }
    assert!(out.is_empty());
}

fn any_column(kind: ColumnType, rows: usize) -> BoxedStrategy<ArrayRef> {
    fn column<T: Clone + std::fmt::Debug, A: Array + From<Vec<Option<T>>> + 'static>(
        value: impl Strategy<Value = T> + 'static,
        rows: usize,
    ) -> BoxedStrategy<ArrayRef> {
        prop::collection::vec(prop::option::of(value), rows)
            .prop_map(|values| Arc::new(A::from(values)) as ArrayRef)
            .boxed()
    }
    match kind {
        ColumnType::Boolean => column::<_, BooleanArray>(any::<bool>(), rows),
        ColumnType::Int64 => column::<_, Int64Array>(any::<i64>(), rows),
        // No NaN, which is not equal to itself, and no infinity, which JSON has not.
        ColumnType::Float64 => column::<_, Float64Array>(prop::num::f64::NORMAL | prop::num::f64::ZERO, rows),
        ColumnType::Timestamp => prop::collection::vec(prop::option::of(any::<i64>()), rows)
            .prop_map(|values| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef)
            .boxed(),
        ColumnType::Json => column::<_, StringArray>(
            prop_oneof![
                any::<i64>().prop_map(|value| value.to_string()),
                any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
                prop::collection::vec(any::<bool>(), 0..3)
                    .prop_map(|values| serde_json::Value::from(values).to_string()),
            ],
            rows,
        ),
        // Binary goes out as base64 and comes back as text: it has tests of its own.
        ColumnType::Text | ColumnType::Binary => column::<_, StringArray>("[a\"',;\n\r\\\\é\u{feff}\0 ]{0,5}", rows),
    }
}

fn any_batch() -> impl Strategy<Value = (RecordBatch, SchemaConfig)> {
    let kinds = prop::sample::select(vec![
        ColumnType::Boolean,
        ColumnType::Int64,
        ColumnType::Float64,
        ColumnType::Timestamp,
        ColumnType::Text,
        ColumnType::Json,
    ]);
    (prop::collection::vec(kinds, 2..5), 0usize..8).prop_flat_map(|(kinds, rows)| {
        let arrays: Vec<_> = kinds.iter().map(|kind| any_column(*kind, rows)).collect();
        arrays.prop_map(move |arrays| {
            let names: Vec<String> = (0..kinds.len()).map(|index| format!("\u{feff}column, \"{index}\"")).collect();
            let columns = names.iter().zip(&kinds).zip(arrays);
            let rows = batch(columns.map(|((name, kind), array)| (name.as_str(), *kind, array)).collect());
            (rows, SchemaConfig(names.into_iter().zip(kinds.clone()).collect()))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn rows_come_back(
        (rows, schema) in any_batch(),
        format in prop::sample::select(vec![Format::Json, Format::Csv]),
        delimiter in prop::sample::select(vec![',', ';', '\t', '-', '1', 'e', ' ']),
        quote in prop::sample::select(vec!['"', '\'']),
        cut in 0usize..1000,
    ) {
        let csv = CsvOptions { delimiter, quote, ..CsvOptions::default() };
        let mut bytes = Vec::new();
        let failed = Encoder::new(format, &csv, None).encode(&rows, &mut bytes).unwrap();
        prop_assert!(failed.is_empty());

        let options = FormatOptions { format, schema: Some(schema), csv };
        options.check().unwrap();
        let mut framer = Framer::new(&options, 1 << 20);
        let mut decoder = Decoder::new(&options);
        let partition: Arc<str> = "p".into();
        let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
        framer.feed(first, &mut |frame| decoder.push_frame(&frame, &partition));
        framer.feed(second, &mut |frame| decoder.push_frame(&frame, &partition));
        framer.finish(&mut |frame| decoder.push_frame(&frame, &partition));
        let back = decoder.finish();
        prop_assert!(back.failed.is_empty(), "{:?}", back.failed);
        prop_assert_eq!(RowSchema::from_arrow(back.rows.schema_ref()), options.row_schema());
        prop_assert_eq!(back.rows, rows);
    }
}
