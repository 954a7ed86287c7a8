//! Values to bytes and back; the driver's own types say what the bytes must be.

use std::net::IpAddr;
use std::sync::Arc;

use acequia_connector_api::ColumnType;
use arrow_array::cast::AsArray;
use num_bigint::BigInt;
use proptest::prelude::*;
use scylla::frame::response::result::{CollectionType, ColumnType as CqlType, NativeType, UserDefinedType};
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::CellWriter;
use scylla::value::{CqlDate, CqlDecimal, CqlDuration, CqlTime, CqlTimestamp, CqlTimeuuid, CqlValue, CqlVarint};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::decode::ColumnBuilder;
use crate::encode::{Scalar, encode};
use crate::types::column_type;

fn native(kind: NativeType) -> CqlType<'static> {
    CqlType::Native(kind)
}

fn bytes(value: Scalar<'_>, kind: &CqlType<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    encode(value, kind, &mut out).map(|()| out)
}

/// What the driver sends, without the length before it.
fn expected(value: &impl SerializeValue, kind: &CqlType<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    value.serialize(kind, CellWriter::new(&mut out)).unwrap();
    out.split_off(4)
}

/// The value as text, as a source reads it.
fn read(bytes: &[u8], kind: &CqlType<'_>) -> String {
    let mut builder = ColumnBuilder::new(column_type(kind));
    builder.push(kind, Some(bytes)).unwrap();
    let array = builder.finish();
    if let Some(array) = array.as_string_opt::<i32>() {
        return array.value(0).to_owned();
    }
    let schema = arrow_schema::Schema::new(vec![column_type(kind).arrow_field("v", true)]);
    let rows = arrow_array::RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap();
    match &acequia_connector_api::row_to_json(&rows, 0)["v"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(kind: CqlType<'static>) -> CqlType<'static> {
    CqlType::Collection { frozen: false, typ: CollectionType::List(Box::new(kind)) }
}

fn map(key: CqlType<'static>, kind: CqlType<'static>) -> CqlType<'static> {
    CqlType::Collection { frozen: false, typ: CollectionType::Map(Box::new(key), Box::new(kind)) }
}

fn vector(kind: CqlType<'static>, dimensions: u16) -> CqlType<'static> {
    CqlType::Vector { typ: Box::new(kind), dimensions }
}

fn address() -> CqlType<'static> {
    let fields = vec![
        ("street".into(), native(NativeType::Text)),
        ("number".into(), native(NativeType::Int)),
        ("tags".into(), list(native(NativeType::Text))),
    ];
    let definition = UserDefinedType { name: "address".into(), keyspace: "k".into(), field_types: fields };
    CqlType::UserDefinedType { frozen: true, definition: Arc::new(definition) }
}

#[test]
fn text_of_every_native_type_is_what_the_driver_sends_and_comes_back() {
    use NativeType as N;
    let ip = |text: &str| CqlValue::Inet(text.parse::<IpAddr>().unwrap());
    let uuid = "d06f5a2e-cf0e-11ec-9d64-0242ac120002";
    for (kind, text, value) in [
        (N::Ascii, "abc", CqlValue::Ascii("abc".into())),
        (N::Text, "Zoë \"Z\"", CqlValue::Text("Zoë \"Z\"".into())),
        (N::Boolean, "true", CqlValue::Boolean(true)),
        (N::TinyInt, "-128", CqlValue::TinyInt(-128)),
        (N::SmallInt, "32767", CqlValue::SmallInt(32767)),
        (N::Int, "-2147483648", CqlValue::Int(i32::MIN)),
        (N::BigInt, "9223372036854775807", CqlValue::BigInt(i64::MAX)),
        (N::Float, "1.5", CqlValue::Float(1.5)),
        (N::Double, "0.1", CqlValue::Double(0.1)),
        (N::Varint, "-170141183460469231731687303715884105729", {
            let number: BigInt = "-170141183460469231731687303715884105729".parse().unwrap();
            CqlValue::Varint(CqlVarint::from(number))
        }),
        (N::Decimal, "-12.340", {
            let digits = BigInt::from(-12340).to_signed_bytes_be();
            CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(digits, 3))
        }),
        (N::Date, "2020-04-13", CqlValue::Date(CqlDate((1 << 31) + 18_365))),
        (N::Time, "12:09:37.768982000", CqlValue::Time(CqlTime(43_777_768_982_000))),
        (N::Timestamp, "2020-04-13T12:09:37.768000Z", CqlValue::Timestamp(CqlTimestamp(1_586_779_777_768))),
        (N::Duration, "-1mo2d3h", {
            CqlValue::Duration(CqlDuration { months: -1, days: -2, nanoseconds: -10_800_000_000_000 })
        }),
        (N::Uuid, uuid, CqlValue::Uuid(uuid.parse().unwrap())),
        (N::Timeuuid, uuid, CqlValue::Timeuuid(CqlTimeuuid::from(uuid.parse::<Uuid>().unwrap()))),
        (N::Inet, "127.0.0.1", ip("127.0.0.1")),
        (N::Inet, "2001:db8::1", ip("2001:db8::1")),
    ] {
        let kind = native(kind);
        let sent = bytes(Scalar::Text(text), &kind).unwrap();
        assert_eq!(sent, expected(&value, &kind), "{text}");
        assert_eq!(read(&sent, &kind), text);
    }
    let blob = native(NativeType::Blob);
    assert_eq!(bytes(Scalar::Binary(&[0, 255]), &blob), Ok(vec![0, 255]));
}

#[test]
fn structures_are_what_the_driver_sends_and_come_back() {
    let text = |text: &str| CqlValue::Text(text.into());
    let ints = |numbers: &[i32]| numbers.iter().map(|number| CqlValue::Int(*number)).collect::<Vec<_>>();
    for (kind, json, value) in [
        (list(native(NativeType::Int)), json!([1, -2]), CqlValue::List(ints(&[1, -2]))),
        (list(list(native(NativeType::Int))), json!([[1], []]), {
            CqlValue::List(vec![CqlValue::List(ints(&[1])), CqlValue::List(Vec::new())])
        }),
        (map(native(NativeType::Text), native(NativeType::Int)), json!({"a": 1, "b": 2}), {
            CqlValue::Map(vec![(text("a"), CqlValue::Int(1)), (text("b"), CqlValue::Int(2))])
        }),
        (map(native(NativeType::Int), native(NativeType::Text)), json!({"7": "seven"}), {
            CqlValue::Map(vec![(CqlValue::Int(7), text("seven"))])
        }),
        (CqlType::Tuple(vec![native(NativeType::Int), native(NativeType::Text)]), json!([1, null]), {
            CqlValue::Tuple(vec![Some(CqlValue::Int(1)), None])
        }),
        (address(), json!({"street": "Main", "number": null, "tags": ["a"]}), {
            CqlValue::UserDefinedType {
                keyspace: "k".into(),
                name: "address".into(),
                fields: vec![
                    ("street".into(), Some(text("Main"))),
                    ("number".into(), None),
                    ("tags".into(), Some(CqlValue::List(vec![text("a")]))),
                ],
            }
        }),
        (vector(native(NativeType::Float), 3), json!([0.5, 1.0, -2.0]), {
            CqlValue::Vector([0.5, 1.0, -2.0].into_iter().map(CqlValue::Float).collect())
        }),
        (vector(native(NativeType::Text), 2), json!(["", "x".repeat(300)]), {
            CqlValue::Vector(vec![text(""), text(&"x".repeat(300))])
        }),
        (list(native(NativeType::Blob)), json!(["0x00ff"]), CqlValue::List(vec![CqlValue::Blob(vec![0, 255])])),
        (map(native(NativeType::Blob), native(NativeType::Int)), json!({"0x00ff": 1}), {
            CqlValue::Map(vec![(CqlValue::Blob(vec![0, 255]), CqlValue::Int(1))])
        }),
    ] {
        let raw = json.to_string();
        let sent = bytes(Scalar::Json(&raw), &kind).unwrap();
        assert_eq!(sent, expected(&value, &kind), "{raw}");
        assert_eq!(bytes(Scalar::Text(&raw), &kind), Ok(sent.clone()), "text that is JSON is as good");
        assert_eq!(serde_json::from_str::<Value>(&read(&sent, &kind)).unwrap(), json);
    }
}

#[test]
fn a_value_that_does_not_fit_is_shown() {
    use NativeType as N;
    let long = "x".repeat(100);
    let mut report = String::new();
    let mut add = |value: Scalar<'_>, kind: CqlType<'_>| {
        report += &format!("{}\n", bytes(value, &kind).unwrap_err());
    };
    add(Scalar::Int64(2_147_483_648), native(N::Int));
    add(Scalar::Int64(-129), native(N::TinyInt));
    add(Scalar::Float64(1.5), native(N::BigInt));
    add(Scalar::Float64(f64::NAN), native(N::Int));
    add(Scalar::Float64(f64::INFINITY), native(N::Decimal));
    add(Scalar::Float64(1e300), native(N::Float));
    add(Scalar::Int64(16_777_217), native(N::Float));
    add(Scalar::Int64(9_007_199_254_740_993), native(N::Double));
    add(Scalar::Text(" 1"), native(N::Int));
    add(Scalar::Text("1.0"), native(N::Varint));
    add(Scalar::Text(&long), native(N::Uuid));
    add(Scalar::Text("d06f5a2e-cf0e-41ec-9d64-0242ac120002"), native(N::Timeuuid));
    add(Scalar::Text("localhost"), native(N::Inet));
    add(Scalar::Text("13.4.2020"), native(N::Date));
    add(Scalar::Text("25:00:00"), native(N::Time));
    add(Scalar::Text("soon"), native(N::Duration));
    add(Scalar::Text("ä"), native(N::Ascii));
    add(Scalar::Binary(&[255]), native(N::Text));
    add(Scalar::Binary(&[1, 2, 3]), native(N::Uuid));
    add(Scalar::Int64(1_586_779_777), native(N::Timestamp));
    add(Scalar::Timestamp(0), native(N::Time));
    add(Scalar::Int64(2), native(N::Boolean));
    add(Scalar::Json("{\"a\": 1}"), native(N::Int));
    add(Scalar::Text("no json"), list(native(N::Int)));
    add(Scalar::Json("{}"), list(native(N::Int)));
    add(Scalar::Json("[]"), map(native(N::Int), native(N::Int)));
    add(Scalar::Json("{\"x\": 1}"), map(native(N::Int), native(N::Int)));
    add(Scalar::Json("[1, null]"), list(native(N::Int)));
    add(Scalar::Json("[1, 2]"), CqlType::Tuple(vec![native(N::Int)]));
    add(Scalar::Json("[1, 2]"), vector(native(N::Float), 3));
    add(Scalar::Json("{\"streat\": \"x\"}"), address());
    add(Scalar::Json("{\"number\": \"x\"}"), address());
    add(Scalar::Json("[\"ff\"]"), list(native(N::Blob)));
    add(Scalar::Int64(1), address());
    insta::assert_snapshot!(report);
}

#[test]
fn an_empty_value_is_null_unless_it_is_text() {
    for (kind, nulls) in [(NativeType::Int, 1), (NativeType::Text, 0), (NativeType::Blob, 0), (NativeType::Uuid, 1)] {
        let kind = native(kind);
        let mut builder = ColumnBuilder::new(column_type(&kind));
        builder.push(&kind, Some(&[])).unwrap();
        assert_eq!(builder.finish().null_count(), nulls, "{kind:?}");
    }
}

/// A type and a JSON value for it.
fn kind_and_json() -> impl Strategy<Value = (CqlType<'static>, Value)> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(|number| (native(NativeType::Int), json!(number))),
        any::<i64>().prop_map(|number| (native(NativeType::BigInt), json!(number))),
        any::<bool>().prop_map(|value| (native(NativeType::Boolean), json!(value))),
        (-1e300..1e300).prop_map(|number| (native(NativeType::Double), json!(number))),
        "\\PC{0,9}".prop_map(|text| (native(NativeType::Text), json!(text))),
        any::<u128>().prop_map(|bits| (native(NativeType::Uuid), json!(Uuid::from_u128(bits).to_string()))),
        any::<i128>().prop_map(|number| (native(NativeType::Varint), json!(number.to_string()))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0..4_usize)
                .prop_map(|((kind, value), count)| { (list(kind), Value::Array(vec![value; count])) }),
            (inner.clone(), 0..4_u16)
                .prop_map(|((kind, value), count)| { (vector(kind, count), Value::Array(vec![value; count.into()])) }),
            (inner.clone(), "[a-z]{1,3}")
                .prop_map(|((kind, value), name)| { (map(native(NativeType::Text), kind), json!({ name: value })) }),
            proptest::collection::vec(inner, 1..4).prop_map(|fields| {
                let (kinds, values) = fields.into_iter().unzip();
                (CqlType::Tuple(kinds), Value::Array(values))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn numbers_come_back(number: i64, wide: i128, scale in 0..40_i32, float: f64) {
        for (value, kind, text) in [
            (Scalar::Int64(number), native(NativeType::BigInt), number.to_string()),
            (Scalar::Int64(number), native(NativeType::Varint), number.to_string()),
            (Scalar::Int64(number), native(NativeType::Decimal), number.to_string()),
            (Scalar::Int64(number), native(NativeType::Text), number.to_string()),
            (Scalar::Text(&wide.to_string()), native(NativeType::Varint), wide.to_string()),
        ] {
            prop_assert_eq!(read(&bytes(value, &kind).unwrap(), &kind), text);
        }
        let decimal = native(NativeType::Decimal);
        let text = crate::text::format_decimal(&wide.into(), scale);
        prop_assert_eq!(read(&bytes(Scalar::Text(&text), &decimal).unwrap(), &decimal), text);
        let double = native(NativeType::Double);
        let sent = bytes(Scalar::Float64(float), &double).unwrap();
        prop_assert_eq!(f64::from_be_bytes(sent.try_into().unwrap()).to_bits(), float.to_bits());
    }

    #[test]
    fn an_integer_fits_or_is_refused(number: i64) {
        let small = native(NativeType::Int);
        match i32::try_from(number) {
            Ok(small_number) => {
                prop_assert_eq!(bytes(Scalar::Int64(number), &small), Ok(small_number.to_be_bytes().to_vec()));
            }
            Err(_) => prop_assert!(bytes(Scalar::Int64(number), &small).is_err()),
        }
    }

    #[test]
    fn a_timestamp_loses_less_than_a_millisecond(micros: i64) {
        let kind = native(NativeType::Timestamp);
        let sent = bytes(Scalar::Timestamp(micros), &kind).unwrap();
        let millis = i64::from_be_bytes(sent.try_into().unwrap());
        prop_assert!((0..1000).contains(&(i128::from(micros) - i128::from(millis) * 1000)));
    }

    #[test]
    fn structures_come_back((kind, json) in kind_and_json()) {
        let list = list(kind);
        let raw = Value::Array(vec![json.clone()]).to_string();
        let sent = bytes(Scalar::Json(&raw), &list).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&read(&sent, &list)).unwrap(), Value::Array(vec![json]));
    }

    #[test]
    fn wrong_bytes_do_no_harm((kind, _) in kind_and_json(), bytes: Vec<u8>) {
        let mut builder = ColumnBuilder::new(column_type(&kind));
        let _ = builder.push(&kind, Some(&bytes));
        prop_assert_eq!(builder.finish().len(), 1);
    }
}

#[test]
fn a_json_column_is_text_as_it_is_and_a_json_string_its_own_text() {
    let text = native(NativeType::Text);
    assert_eq!(bytes(Scalar::Json("{\"a\":1}"), &text), Ok(b"{\"a\":1}".to_vec()));
    assert_eq!(bytes(Scalar::Json("\"a\\n\""), &text), Ok(b"a\n".to_vec()));
    assert_eq!(column_type(&text), ColumnType::Text);
}
