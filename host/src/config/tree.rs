//! Helpers on parsed TOML: places of keys, JSON, and a hash that layout and comments don't change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

/// What a place in the file belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// The keys that lead there; array elements are not in it.
    pub path: Vec<String>,
}

/// The key whose name or value stands at exactly this place.
pub(super) fn locate(table: &DeTable<'_>, span: &Range<usize>) -> Option<Located> {
    for (key, value) in table {
        let below =
            if key.span() == *span || value.span() == *span { Some(Vec::new()) } else { locate_in_value(value, span) };
        if let Some(mut path) = below {
            path.insert(0, key.get_ref().to_string());
            return Some(Located { path });
        }
    }
    None
}

fn locate_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Table(table) => locate(table, span).map(|found| found.path),
        DeValue::Array(array) => array
            .iter()
            .find_map(|item| if item.span() == *span { Some(Vec::new()) } else { locate_in_value(item, span) }),
        _ => None,
    }
}

/// The value at exactly this place.
pub(super) fn value_at<'t, 'i>(
    table: &'t mut DeTable<'i>,
    span: &Range<usize>,
) -> Option<&'t mut Spanned<DeValue<'i>>> {
    let mut waiting: Vec<&'t mut Spanned<DeValue<'i>>> = table.into_iter().map(|(_, value)| value).collect();
    while let Some(value) = waiting.pop() {
        if value.span() == *span {
            return Some(value);
        }
        match value.get_mut() {
            DeValue::Table(table) => waiting.extend(table.into_iter().map(|(_, value)| value)),
            DeValue::Array(array) => waiting.extend(array.iter_mut()),
            _ => {}
        }
    }
    None
}

/// Remove the key at the end of the path. Where the path goes through an array, the array is removed.
pub(super) fn remove(table: &mut DeTable<'_>, path: &[String]) {
    if let [first, rest @ ..] = path {
        if !rest.is_empty()
            && let Some(DeValue::Table(below)) = table.get_mut(first.as_str()).map(Spanned::get_mut)
        {
            return remove(below, rest);
        }
        table.remove(first.as_str());
    }
}

/// The value under a dotted key; the nearest value above it if there is none.
pub(super) fn value_of<'t, 'i>(table: &'t DeTable<'i>, dotted: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    let mut found = None;
    let mut table = table;
    for key in dotted.split('.') {
        let Some(value) = table.get(key) else { break };
        found = Some(value);
        match value.get_ref() {
            DeValue::Table(below) => table = below,
            _ => break,
        }
    }
    found
}

/// The places of all keys, the deeper ones as dotted keys.
pub(super) fn key_places(table: &DeTable<'_>) -> BTreeMap<String, Range<usize>> {
    fn walk(table: &DeTable<'_>, prefix: &str, places: &mut BTreeMap<String, Range<usize>>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if let DeValue::Table(below) = value.get_ref() {
                walk(below, &format!("{name}."), places);
            }
            places.insert(name, key.span());
        }
    }
    let mut places = BTreeMap::new();
    walk(table, "", &mut places);
    places
}

/// A value that JSON can't hold, and where it stands.
#[derive(Debug)]
pub(super) struct NoJson {
    pub span: Range<usize>,
    pub message: String,
}

/// The value as JSON; a date or time becomes its text.
pub(super) fn to_json(value: &Spanned<DeValue<'_>>) -> Result<Value, NoJson> {
    let refuse = |message: &str| NoJson { span: value.span(), message: message.to_owned() };
    match value.get_ref() {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Integer(integer) => match integer_of(integer) {
            Some(Integer::Signed(number)) => Ok(number.into()),
            Some(Integer::Unsigned(number)) => Ok(number.into()),
            None => Err(refuse("the number is too large for 64 bits")),
        },
        DeValue::Float(float) => float_of(float)
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| refuse("a plugin's configuration travels as JSON, which has no such number")),
        DeValue::Boolean(boolean) => Ok(Value::Bool(*boolean)),
        DeValue::Datetime(time) => Ok(Value::String(time.to_string())),
        DeValue::Array(array) => array.iter().map(to_json).collect::<Result<_, _>>().map(Value::Array),
        DeValue::Table(table) => table_to_json(table),
    }
}

/// The table as a JSON object.
pub(super) fn table_to_json(table: &DeTable<'_>) -> Result<Value, NoJson> {
    let mut object = serde_json::Map::with_capacity(table.len());
    for (key, value) in table {
        object.insert(key.get_ref().to_string(), to_json(value)?);
    }
    Ok(Value::Object(object))
}

enum Integer {
    Signed(i64),
    Unsigned(u64),
}

fn integer_of(integer: &DeInteger<'_>) -> Option<Integer> {
    let (text, radix) = (integer.as_str(), integer.radix());
    match i64::from_str_radix(text, radix) {
        Ok(number) => Some(Integer::Signed(number)),
        Err(_) => u64::from_str_radix(text, radix).ok().map(Integer::Unsigned),
    }
}

fn float_of(float: &DeFloat<'_>) -> Option<f64> {
    float.as_str().parse().ok()
}

/// BLAKE3 over the table as JSON with sorted keys, in hex. Values of different TOML types differ, also where JSON would
/// write them alike.
pub(super) fn hash(table: &DeTable<'_>) -> String {
    let mut text = String::new();
    canonical_table(table, &mut text);
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn canonical(value: &DeValue<'_>, out: &mut String) {
    // Writing to a String can't fail.
    let _ = match value {
        DeValue::String(text) => write!(out, "{}", Value::from(text.as_ref())),
        DeValue::Integer(integer) => match integer_of(integer) {
            Some(Integer::Signed(number)) => write!(out, "{number}"),
            Some(Integer::Unsigned(number)) => write!(out, "{number}"),
            None => write!(out, "{{\"$integer\":{}}}", Value::from(integer.to_string())),
        },
        DeValue::Float(float) => match float_of(float) {
            Some(number) if number.is_finite() => write!(out, "{number:?}"),
            _ => write!(out, "{{\"$float\":{}}}", Value::from(float.as_str())),
        },
        DeValue::Boolean(boolean) => write!(out, "{boolean}"),
        DeValue::Datetime(time) => write!(out, "{{\"$datetime\":\"{time}\"}}"),
        DeValue::Array(array) => {
            out.push('[');
            for (index, item) in array.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item.get_ref(), out);
            }
            out.push(']');
            Ok(())
        }
        DeValue::Table(table) => {
            canonical_table(table, out);
            Ok(())
        }
    };
}

fn canonical_table(table: &DeTable<'_>, out: &mut String) {
    let mut entries: Vec<_> = table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref())).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, "{}:", Value::from(key));
        canonical(value, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(text: &str) -> String {
        hash(DeTable::parse(text).unwrap().get_ref())
    }

    #[test]
    fn the_hash_is_of_the_content() {
        let base = hash_of("a = 1\nb = { c = [1, 2], d = \"x\" }\n");
        assert_eq!(base, hash_of("# comment\nb.d = 'x'\nb.c = [\n 1, 0x2, # two\n]\n\na = 1"));
        for other in [
            "a = 2\nb = { c = [1, 2], d = \"x\" }",
            "a = 1.0\nb = { c = [1, 2], d = \"x\" }",
            "a = \"1\"\nb = { c = [1, 2], d = \"x\" }",
            "a = 1\nb = { c = [2, 1], d = \"x\" }",
            "a = 1\nb = { c = [1, 2], d = \"x\", e = {} }",
        ] {
            assert_ne!(base, hash_of(other), "{other}");
        }
        assert_ne!(hash_of("a = 2020-01-01"), hash_of("a = \"2020-01-01\""));
        assert_ne!(hash_of("a = inf"), hash_of("a = nan"));
    }

    #[test]
    fn the_hash_is_blake3_of_sorted_json() {
        let want = blake3::hash(br#"{"a":1,"b":[true,0.5,"\"x\n"]}"#).to_hex().to_string();
        assert_eq!(hash_of("b = [true, 5e-1, \"\\\"x\\n\"]\na = 1"), want);
    }

    #[test]
    fn json_keeps_order_and_refuses_what_it_can_not_hold() {
        let tree = DeTable::parse("z = 1\na = 2020-04-13T12:09:37Z\nm = 18446744073709551615\n").unwrap();
        let want = r#"{"z":1,"a":"2020-04-13T12:09:37Z","m":18446744073709551615}"#;
        assert_eq!(table_to_json(tree.get_ref()).unwrap().to_string(), want);
        for (text, span) in [("a = nan", 4..7), ("a = [1, inf]", 8..11), ("a = 18446744073709551616", 4..24)] {
            let tree = DeTable::parse(text).unwrap();
            assert_eq!(table_to_json(tree.get_ref()).unwrap_err().span, span, "{text}");
        }
    }

    #[test]
    fn places() {
        let text = "a = 1\nb = { c = [{ d = 2 }] }\n";
        let tree = DeTable::parse(text).unwrap();
        let table = tree.get_ref();
        let under = |key| value_of(table, key).map(|value| &text[value.span()]);
        assert_eq!(under("b.c"), Some("[{ d = 2 }]"));
        assert_eq!(under("b.x"), Some("{ c = [{ d = 2 }] }"));
        assert_eq!(under("a.x"), Some("1"));
        assert_eq!(under("x"), None);
        // The 2: a = 1, line break (6 bytes), then 17 to "d = ".
        let at = text.find('2').unwrap();
        assert_eq!(locate(table, &(at..at + 1)).unwrap().path, ["b", "c", "d"]);
        assert_eq!(key_places(table).keys().collect::<Vec<_>>(), ["a", "b", "b.c"]);
        let mut table = table.clone();
        remove(&mut table, &["b".into(), "c".into(), "d".into()]);
        assert_eq!(table_to_json(&table).unwrap().to_string(), r#"{"a":1,"b":{}}"#);
    }
}
