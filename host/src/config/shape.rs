//! What the JSON Schema of a table says of its keys: for advice in diagnostics and for the reference.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

/// A table's JSON Schema, with what it refers to.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    root: Value,
    definitions: Map<String, Value>,
}

/// A generator for all schemas here.
pub(super) fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_deserialize().into_generator()
}

impl Shape {
    /// Of a type.
    pub fn of<T: JsonSchema>() -> Self {
        Shape::from(T::json_schema)
    }

    /// Of whatever the function makes.
    pub fn from(make: impl FnOnce(&mut SchemaGenerator) -> Schema) -> Self {
        let mut generator = generator();
        let root = make(&mut generator).to_value();
        Shape { root, definitions: generator.take_definitions(true) }
    }

    /// The keys that must be there.
    pub fn required(&self) -> Vec<&str> {
        Shape::required_of(&self.root)
    }

    /// The keys, in the order of their declaration.
    pub fn keys(&self) -> Vec<(&str, &Value)> {
        Shape::keys_of(self.resolve(&self.root))
    }

    /// As [`Shape::required`], of a table below.
    pub fn required_of(table: &Value) -> Vec<&str> {
        let required = table.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// As [`Shape::keys`], of a table below.
    pub fn keys_of(table: &Value) -> Vec<(&str, &Value)> {
        let properties = table.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)).collect()
    }

    /// The values of an enumeration that have a description.
    pub fn described_values(&self, schema: &Value) -> Vec<(String, String)> {
        let schema = self.resolve(schema);
        let mut values = Vec::new();
        for alternative in alternatives(schema) {
            match (alternative.get("const").and_then(Value::as_str), alternative.get("description")) {
                (Some(value), Some(Value::String(text))) => values.push((value.to_owned(), plain(text))),
                (None, _) if alternative.get("$ref").is_some() => values.extend(self.described_values(alternative)),
                _ => {}
            }
        }
        values
    }

    /// The schema of the key at the end of the path.
    pub fn key(&self, path: &[String]) -> Option<&Value> {
        let mut schema = &self.root;
        for key in path {
            schema = self.table_of(schema)?.get("properties")?.get(key)?;
        }
        Some(schema)
    }

    /// The definition that a schema refers to, or the schema itself.
    pub fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.definitions.get(name)).map_or(schema, |found| self.resolve(found))
    }

    /// The schema of a table behind a reference, an option or the items of an array.
    pub fn table_of<'a>(&'a self, schema: &'a Value) -> Option<&'a Value> {
        let schema = self.resolve(schema);
        if schema.get("properties").is_some() {
            return Some(schema);
        }
        if let Some(items) = schema.get("items") {
            return self.table_of(items);
        }
        // Of several alternatives none is the table.
        let mut tables = alternatives(schema).filter_map(|alternative| self.table_of(alternative));
        let first = tables.next();
        if tables.next().is_some() { None } else { first }
    }

    /// The first sentence of a key's description, on one line.
    pub fn summary(&self, schema: &Value) -> Option<String> {
        let text = self.description(schema)?;
        let end = text
            .match_indices(". ")
            .map(|(at, _)| at)
            .find(|at| !text.get(..*at).is_some_and(|before| before.ends_with("e.g")));
        Some(text.get(..end.unwrap_or(text.len())).unwrap_or(&text).trim_end_matches('.').to_owned())
    }

    /// A key's description, on one line.
    pub fn description(&self, schema: &Value) -> Option<String> {
        let text = schema.get("description").or_else(|| self.resolve(schema).get("description"))?.as_str()?;
        Some(plain(text))
    }

    /// The type of a key's value, in words: `integer`, `string`, `"a" or "b"`, `array of string`.
    pub fn type_name(&self, schema: &Value) -> String {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
            match name {
                "ByteSize" => return "size".to_owned(),
                "Span" => return "duration".to_owned(),
                "Secret" => return "secret".to_owned(),
                "ColumnType" => return "column type".to_owned(),
                _ => {}
            }
        }
        let schema = self.resolve(schema);
        if let Some(value) = schema.get("const") {
            return value.to_string();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return join(values.iter().filter(|value| !value.is_null()).map(Value::to_string));
        }
        if alternatives(schema).next().is_some() {
            return join(
                alternatives(schema).map(|alternative| self.type_name(alternative)).filter(|name| name != "null"),
            );
        }
        match schema.get("type") {
            Some(Value::String(name)) => self.named(name, schema),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
                join(names.map(|name| self.named(name, schema)))
            }
            _ => "any".to_owned(),
        }
    }

    fn named(&self, name: &str, schema: &Value) -> String {
        match name {
            "array" => match schema.get("items") {
                Some(items) => format!("array of {}", self.type_name(items)),
                None => "array".to_owned(),
            },
            "object" => match schema.get("additionalProperties") {
                Some(values @ Value::Object(_)) => format!("table of {}", self.type_name(values)),
                _ => "table".to_owned(),
            },
            "number" => "float".to_owned(),
            name => name.to_owned(),
        }
    }
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| schema.get(key)).filter_map(Value::as_array).flatten()
}

fn join(names: impl Iterator<Item = String>) -> String {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique.join(" or ")
}

/// A doc comment as plain text on one line: links become their text.
fn plain(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // `[`Type::item`]` is a link that only rustdoc can follow.
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use acequia_connector_api::{ByteSize, Secret, Span};

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Example {
        /// First sentence. Second
        /// sentence.
        size: ByteSize,
        time: Option<Span>,
        names: Vec<String>,
        kind: Kind,
        maybe: Option<Kind>,
        secret: Option<Secret>,
        map: std::collections::BTreeMap<String, i64>,
        inner: Inner,
        number: Option<f64>,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Kind {
        /// With words.
        One,
        /// More.
        Two,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Inner {
        /// Deep.
        key: bool,
    }

    #[test]
    fn types_in_words() {
        let shape = Shape::of::<Example>();
        let types: Vec<String> =
            shape.keys().iter().map(|(name, schema)| format!("{name}: {}", shape.type_name(schema))).collect();
        let want = [
            "size: size",
            "time: duration",
            "names: array of string",
            "kind: \"one\" or \"two\"",
            "maybe: \"one\" or \"two\"",
            "secret: secret",
            "map: table of integer",
            "inner: table",
            "number: float",
        ];
        assert_eq!(types, want);
        assert_eq!(shape.required(), ["size", "names", "kind", "map", "inner"]);
    }

    #[test]
    fn descriptions() {
        let shape = Shape::of::<Example>();
        let key = |path: &[&str]| shape.key(&path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        assert_eq!(shape.summary(key(&["size"]).unwrap()).as_deref(), Some("First sentence"));
        assert_eq!(shape.description(key(&["size"]).unwrap()).as_deref(), Some("First sentence. Second sentence."));
        assert_eq!(shape.summary(key(&["inner", "key"]).unwrap()).as_deref(), Some("Deep"));
        assert_eq!(key(&["inner", "x"]), None);
    }
}
