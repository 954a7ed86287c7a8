//! A message's headers from a row's columns.

use acequia_connector_api::from_base64;
use rdkafka::message::{Header, OwnedHeaders};
use serde::Deserialize;
use serde_json::Value;

/// Headers of one message: names, and values as bytes or null, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderList(pub(crate) Vec<(String, Option<Vec<u8>>)>);

/// One header as the Kafka source writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    #[serde(default)]
    value: Value,
    /// In place of a value that is not UTF-8.
    base64: Option<String>,
}

impl Entry {
    fn header(self) -> Result<(String, Option<Vec<u8>>), String> {
        match &self.base64 {
            Some(text) => match from_base64(text) {
                Some(value) => Ok((self.key, Some(value))),
                None => Err(format!("the value of header `{}` is not base64", self.key)),
            },
            None => Ok((self.key, bytes(self.value))),
        }
    }
}

impl HeaderList {
    /// From JSON: an object of names and values, or an array of `{"key", "value"}`, in which a name may come again.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let value = serde_json::from_str(json).map_err(|error| format!("the headers are not JSON: {error}"))?;
        match value {
            Value::Null => Ok(HeaderList::default()),
            Value::Object(fields) => {
                Ok(HeaderList(fields.into_iter().map(|(name, value)| (name, bytes(value))).collect()))
            }
            Value::Array(_) => {
                let entries: Vec<Entry> = serde_json::from_value(value).map_err(|error| {
                    format!("the headers are not an array of {{\"key\": ..., \"value\": ...}}: {error}")
                })?;
                entries.into_iter().map(Entry::header).collect::<Result<_, _>>().map(HeaderList)
            }
            other => Err(format!("the headers are neither a JSON object nor an array, but {other}")),
        }
    }

    /// Lengths of names and values, for [`super::wire::size`].
    pub(super) fn lengths(&self) -> impl ExactSizeIterator<Item = (usize, Option<usize>)> {
        self.0.iter().map(|(name, value)| (name.len(), value.as_ref().map(Vec::len)))
    }

    /// As librdkafka takes them; `None` if there are none.
    pub(super) fn build(&self) -> Option<OwnedHeaders> {
        if self.0.is_empty() {
            return None;
        }
        let headers = OwnedHeaders::new_with_capacity(self.0.len());
        Some(
            self.0
                .iter()
                .fold(headers, |headers, (name, value)| headers.insert(Header { key: name, value: value.as_deref() })),
        )
    }
}

/// Text as its UTF-8, null as null, everything else as JSON.
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use acequia_connector_api::base64;

    use super::*;

    fn list(entries: &[(&str, Option<&str>)]) -> HeaderList {
        HeaderList(
            entries.iter().map(|(name, value)| ((*name).to_owned(), value.map(|v| v.as_bytes().to_vec()))).collect(),
        )
    }

    #[test]
    fn an_object_or_an_array() {
        assert_eq!(
            HeaderList::parse(r#"{"a": "x", "b": null, "c": 1.5, "d": {"e": [1]}}"#).unwrap(),
            list(&[("a", Some("x")), ("b", None), ("c", Some("1.5")), ("d", Some(r#"{"e":[1]}"#))])
        );
        assert_eq!(
            HeaderList::parse(r#"[{"key": "a", "value": "1"}, {"key": "a", "value": null}, {"key": "b"}]"#).unwrap(),
            list(&[("a", Some("1")), ("a", None), ("b", None)])
        );
        assert_eq!(HeaderList::parse("null").unwrap(), HeaderList::default());
    }

    #[test]
    fn bytes_come_as_base64() {
        let parsed = HeaderList::parse(r#"[{"key": "a", "base64": "/w=="}, {"key": "b", "base64": ""}]"#).unwrap();
        assert_eq!(parsed, HeaderList(vec![("a".to_owned(), Some(vec![255])), ("b".to_owned(), Some(vec![]))]));
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            assert_eq!(from_base64(&base64(&bytes)), Some(bytes));
        }
        for bad in ["/w=", "/w", "/x==", "====", "ä===", "a b="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
        assert!(HeaderList::parse(r#"[{"key": "a", "base64": "?"}]"#).unwrap_err().contains("not base64"));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (bad, part) in [("{", "not JSON"), ("3", "neither"), (r#"[{"name": "a"}]"#, "key"), ("[1]", "array of")] {
            let error = HeaderList::parse(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
