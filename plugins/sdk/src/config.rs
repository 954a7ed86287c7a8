use std::fmt::{self, Display};

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::Error;

/// The configuration of a plugin that has nothing to configure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// A plugin's configuration from the JSON object that the host passes on.
///
/// # Errors
/// The message names the key, and for an unknown key those that exist.
pub fn parse<C: DeserializeOwned>(json: &str) -> Result<C, Error> {
    let table: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| Error::new(format!("the configuration is not a table: {error}")))?;
    C::deserialize(Table(table)).map_err(|Message(message)| Error::new(message))
}

/// The candidate that was probably meant, if one is near enough.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= name.len().max(candidate.len()).div_ceil(3))
        .map(|(_, candidate)| candidate)
}

/// `a`, `b`, `c`.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The top level of the configuration. serde_json's own errors do not say which key they are about; this does.
struct Table(Map<String, Value>);

impl<'de> Deserializer<'de> for Table {
    type Error = Message;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        visitor.visit_map(Entries { rest: self.0.into_iter(), current: None })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries {
    rest: serde_json::map::IntoIter,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Message;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Message> {
        self.current = self.rest.next();
        self.current.as_ref().map(|(key, _)| seed.deserialize(de::value::StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Message> {
        let (key, value) = self.current.take().unwrap_or_default();
        seed.deserialize(value).map_err(|error| Message(format!("`{key}`: {error}")))
    }
}

/// An error in our words where serde's are meant for programmers.
#[derive(Debug)]
struct Message(String);

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Message {}

impl de::Error for Message {
    fn custom<T: Display>(message: T) -> Self {
        Message(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let keys = match expected {
            [] => "there are none".to_string(),
            keys => format!("the keys are {}", list(keys.iter().copied())),
        };
        Message(match nearest(field, expected.iter().copied()) {
            Some(near) => format!("unknown key `{field}`; did you mean `{near}`? ({keys})"),
            None => format!("unknown key `{field}`: {keys}"),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Message(format!("the key `{field}` is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        column: String,
        #[serde(default)]
        length: f64,
        #[serde(default)]
        mode: Mode,
        #[serde(default)]
        names: Vec<String>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Update,
        Complete,
    }

    #[track_caller]
    fn fails(json: &str, expected: &str) {
        assert_eq!(parse::<Config>(json).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_table_becomes_a_struct() {
        let config: Config = parse(r#"{ "column": "v", "length": 30, "mode": "complete", "names": ["a"] }"#).unwrap();
        let expected =
            Config { column: "v".to_string(), length: 30.0, mode: Mode::Complete, names: vec!["a".to_string()] };
        assert_eq!(config, expected);
        assert_eq!(parse("{}"), Ok(NoConfig {}));
    }

    #[test]
    fn errors_name_the_key() {
        fails("{}", "the key `column` is missing");
        fails(
            r#"{ "colum": "v" }"#,
            "unknown key `colum`; did you mean `column`? (the keys are `column`, `length`, `mode`, `names`)",
        );
        fails(r#"{ "zzz": 1 }"#, "unknown key `zzz`: the keys are `column`, `length`, `mode`, `names`");
        fails(r#"{ "column": 3 }"#, "`column`: invalid type: integer `3`, expected a string");
        fails(
            r#"{ "column": "v", "mode": "updat" }"#,
            "`mode`: unknown variant `updat`, expected `update` or `complete`",
        );
        fails(r#"{ "column": "v", "names": "a" }"#, r#"`names`: invalid type: string "a", expected a sequence"#);
        assert_eq!(parse::<NoConfig>(r#"{ "a": 1 }"#).unwrap_err().to_string(), "unknown key `a`: there are none");
    }

    #[test]
    fn far_names_are_not_near() {
        assert_eq!(nearest("nmae", ["age", "name"]), Some("name"));
        assert_eq!(nearest("Value", ["value"]), Some("value"));
        assert_eq!(nearest("timestamp", ["value", "word"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
