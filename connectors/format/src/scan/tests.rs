use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::*;

fn parts(row: &str) -> Option<Vec<(&str, &str, Kind)>> {
    parts_by(&mut Scanner::default(), row)
}

fn parts_by<'a>(scanner: &mut Scanner, row: &'a str) -> Option<Vec<(&'a str, &'a str, Kind)>> {
    let Row { length, plain, .. } = scanner.scan(row.as_bytes())?;
    assert!(length <= row.len());
    let parts = scanner.parts();
    assert_eq!(plain, !parts.iter().any(|part| matches!(part.kind, Kind::Escaped | Kind::Nested)));
    let part = |part: &Part| {
        let (start, end) = part.value();
        (part.key(row).expect("a key"), row.get(start..end).expect("a value"), part.kind)
    };
    Some(parts.iter().map(part).collect())
}

#[test]
fn the_usual_row() {
    let row =
        r#"{"a":1, "b" : -2.5e+3 ,"":"ü \" \u00e9","c":[{"d":[]},{}],"e":null,"f":true,"g":false,"h":"","i":0}  {"#;
    let expected = [
        ("a", "1", Kind::Integer),
        ("b", "-2.5e+3", Kind::Fraction),
        ("", r#""ü \" \u00e9""#, Kind::Escaped),
        ("c", r#"[{"d":[]},{}]"#, Kind::Nested),
        ("e", "null", Kind::Null),
        ("f", "true", Kind::Boolean(true)),
        ("g", "false", Kind::Boolean(false)),
        ("h", r#""""#, Kind::Text),
        ("i", "0", Kind::Integer),
    ];
    assert_eq!(parts(row).as_deref(), Some(expected.as_slice()));
    assert_eq!(Scanner::default().scan(row.as_bytes()).map(|row| row.length), Some(row.len() - 3));
    assert_eq!(parts("{}").as_deref(), Some([].as_slice()));
    assert_eq!(parts("{ }x").as_deref(), Some([].as_slice()));
}

#[test]
fn what_is_not_usual_is_left_alone() {
    for row in [
        "",
        "{",
        "[]",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":+1}",
        "{\"a\":tru}",
        "{\"a\":NaN}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":\"x}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"\t\"}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":{\"b\"}}",
        "{\"a\":{1:2}}",
        "{\"a\":[}",
        "{\"a\":[1}]",
        "{\"a\":{]}",
        "{\"a\n\":1}",
        // These are JSON.
        "{\"a\":\n1}",
        "{\"\\u0061\":1}",
    ] {
        assert_eq!(parts(row), None, "{row}");
    }
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(parts(&deep(DEPTH as usize)).is_some());
    assert!(parts(&deep(DEPTH as usize + 1)).is_none());
}

#[test]
fn every_byte_at_every_place_of_a_word() {
    for byte in 0..=u8::MAX {
        for place in 0..24 {
            for filler in [b'x', 0xff, b'!', b'#', b'[', b']'] {
                let mut bytes = [filler; 24];
                bytes[place] = byte;
                let expected = if matches!(byte, b'"' | b'\\' | 0..0x20) { place } else { 24 };
                assert_eq!(plain(&bytes), expected, "{byte} at {place} among {filler}");
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-d\"]{0,2}", inner), 0..4)
                .prop_map(|entries| Value::from(Map::from_iter(entries))),
        ]
    })
}

/// As serde_json has it: the object's keys and raw values in order.
fn by_serde(row: &str) -> Option<Vec<(String, String)>> {
    struct Entries;
    impl<'de> serde::de::Visitor<'de> for Entries {
        type Value = Vec<(String, String)>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                entries.push((key, value.get().to_owned()));
            }
            Ok(entries)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(row);
    let entries = serde::Deserializer::deserialize_map(&mut deserializer, Entries).ok()?;
    deserializer.end().ok().map(|()| entries)
}

#[test]
fn a_row_like_the_one_before_it_is_known() {
    let mut scanner = Scanner::default();
    let mut shape = |row: &str| scanner.scan(row.as_bytes()).and_then(|row| row.shape);
    assert_eq!(shape(r#"{"a":1,"b":"x"}"#), None);
    let known = shape(r#"{"a":2,"b":null}"#);
    assert!(known.is_some());
    assert_eq!(shape(r#"{"a":-1.5e3,"b":{"c":1} }"#), known);
    assert_eq!(shape(r#"{"a":3}"#), known, "all that it has is as it was");
    assert_eq!(shape(r#"{"b":3,"a":3}"#), None);
    assert_eq!(shape(r#"{"a":3,"b":4,"c":5}"#), None);
    let longer = shape(r#"{"a":3,"b":4,"c":5}"#);
    assert!(longer.is_some() && longer != known);
    assert_eq!(shape(r#"{"a":3,"b":4}"#), longer);
    assert_eq!(shape(r#"{"a":  3,"b":4}"#), longer, "with more blanks");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// What came before never changes what is seen in a row.
    #[test]
    fn rows_are_seen_alike_whatever_came_before(
        rows in prop::collection::vec(prop::collection::vec(("[ab]{0,1}", "1|\"x\"|[1]|null|x", " ?"), 0..4), 1..8),
        ends in prop::collection::vec(prop_oneof![Just("}"), Just(" }"), Just(",}"), Just("")], 8),
    ) {
        let mut scanner = Scanner::default();
        let mut shapes: Vec<(ShapeId, Vec<String>)> = Vec::new();
        for (row, end) in rows.iter().zip(ends) {
            let values: Vec<_> = row.iter().map(|(key, value, blank)| format!("\"{key}\":{blank}{value}")).collect();
            let row = format!("{{{}{end}", values.join(","));
            let seen = parts_by(&mut scanner, &row);
            prop_assert_eq!(&seen, &parts(&row), "{}", row);
            let keys: Vec<_> = seen.iter().flatten().map(|(key, ..)| (*key).to_owned()).collect();
            if let Some(shape) = scanner.scan(row.as_bytes()).and_then(|row| row.shape) {
                for (_, others) in shapes.iter().filter(|(other, _)| *other == shape) {
                    prop_assert!(keys.iter().zip(others).all(|(one, other)| one == other), "{:?} {:?}", keys, others);
                }
                shapes.push((shape, keys));
            }
        }
    }

    /// Whatever it takes, serde_json takes, and sees the same in it; what serde_json writes, it takes.
    #[test]
    fn it_sees_what_serde_sees(
        entries in prop::collection::vec(("[a-z ü]{0,6}", any_json()), 0..6),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>(), any::<bool>())),
    ) {
        let row = Value::from(Map::from_iter(entries)).to_string();
        prop_assert!(parts(&row).is_some(), "{}", row);
        let mut bytes = row.into_bytes();
        if let Some((place, byte, only)) = damage {
            let place = place.index(bytes.len());
            // Half of the time something that means something.
            let byte = if only { b"{}[]\",:\\0-.e \n"[usize::from(byte) % 14] } else { byte };
            bytes[place] = byte;
        }
        let Ok(row) = String::from_utf8(bytes) else { return Ok(()) };
        let mut scanner = Scanner::default();
        if let Some(Row { length, .. }) = scanner.scan(row.as_bytes()) {
            let found = scanner.parts();
            let object = &row[..length];
            prop_assert!(serde_json::from_str::<IgnoredAny>(object).is_ok(), "{}", object);
            let seen: Vec<_> = found.iter().map(|part| {
                let (start, end) = part.value();
                let raw = &object[start..end];
                assert_eq!(part.kind, Kind::of(raw), "{raw}");
                (part.key(object).unwrap().to_owned(), raw.to_owned())
            }).collect();
            prop_assert_eq!(Some(seen), by_serde(object));
        }
    }
}
