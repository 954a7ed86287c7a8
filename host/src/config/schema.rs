//! The JSON Schema of a pipeline's file, for editors.

use acequia_connector_api::{ConnectorInfo, Registry};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::file::{ErrorsTable, TransformTable};
use super::model::DeliveryConfig;
use super::shape;

/// A number or a boolean may also come from a variable, and is a string then.
const VARIABLE: &str = r"^\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}$";

/// JSON Schema (draft 2020-12) of a pipeline's file, with the connectors of the registry.
pub fn schema_json(registry: &Registry) -> Value {
    let mut generator = shape::generator();
    let mut sources = Vec::new();
    for kind in registry.sources() {
        sources.push(variant(kind.info(), kind.json_schema(&mut generator)));
    }
    let mut sinks = Vec::new();
    for kind in registry.sinks() {
        sinks.push(variant(kind.info(), kind.json_schema(&mut generator)));
    }
    let transform = TransformTable::json_schema(&mut generator).to_value();
    let delivery = DeliveryConfig::json_schema(&mut generator).to_value();
    let mut errors = ErrorsTable::json_schema(&mut generator).to_value();
    if let Some(dead_letter) = errors.pointer_mut("/properties/dead_letter") {
        let description = dead_letter.get("description").cloned().unwrap_or_default();
        *dead_letter = json!({ "description": description, "$ref": "#/$defs/SinkConnector" });
    }
    let mut definitions = generator.take_definitions(true);
    definitions.insert("SourceConnector".to_owned(), one_of(sources));
    definitions.insert("SinkConnector".to_owned(), one_of(sinks));
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Acequia pipeline",
        "description": "One pipeline: a source, transforms in order, and sinks.",
        "type": "object",
        "properties": {
            "description": { "type": "string", "description": "What the pipeline is for; shown in its status." },
            "source": { "description": "Where rows come from.", "$ref": "#/$defs/SourceConnector" },
            "transform": {
                "description": "What happens to the rows, in order.",
                "type": "array",
                "items": transform,
            },
            "sink": {
                "description": "Where rows go. Each sink gets every row.",
                "type": "array",
                "minItems": 1,
                "items": { "$ref": "#/$defs/SinkConnector" },
            },
            "errors": errors,
            "delivery": delivery,
        },
        "required": ["source", "sink"],
        "additionalProperties": false,
        "$defs": definitions,
    });
    adapt(&mut schema);
    schema
}

fn one_of(variants: Vec<Value>) -> Value {
    let names: Vec<Value> =
        variants.iter().filter_map(|variant| variant.pointer("/properties/type/const").cloned()).collect();
    json!({
        "type": "object",
        "properties": { "type": { "description": "The connector.", "enum": names } },
        "required": ["type"],
        "oneOf": variants,
    })
}

/// A connector's table, told from the others by its `type`.
fn variant(info: ConnectorInfo, schema: Schema) -> Value {
    let mut schema = match schema.to_value() {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    let mut properties = Map::new();
    properties.insert("type".to_owned(), json!({ "const": info.name, "description": info.summary }));
    if let Some(Value::Object(own)) = schema.remove("properties") {
        properties.extend(own);
    }
    let mut required = vec![Value::from("type")];
    if let Some(Value::Array(own)) = schema.remove("required") {
        required.extend(own);
    }
    schema.insert("title".to_owned(), info.name.into());
    schema.insert("description".to_owned(), info.summary.into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("required".to_owned(), required.into());
    schema.into()
}

/// TOML has no null, and a variable may stand for a number or a boolean.
fn adapt(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(adapt),
        Value::Object(schema) => {
            schema.retain(|key, value| key != "default" || !value.is_null());
            for key in ["anyOf", "oneOf"] {
                if let Some(Value::Array(alternatives)) = schema.get_mut(key) {
                    alternatives.retain(|alternative| alternative.get("type").is_none_or(|name| name != "null"));
                }
            }
            if let Some(Value::Array(values)) = schema.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            // A size or a time from a variable.
            if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
                *pattern = format!("{pattern}|{VARIABLE}");
            }
            let mut types: Vec<String> = match schema.get("type") {
                Some(Value::String(name)) => vec![name.clone()],
                Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            types.retain(|name| name != "null");
            let scalar = |name: &String| matches!(name.as_str(), "integer" | "number" | "boolean");
            if types.iter().any(scalar) && !types.iter().any(|name| name == "string") {
                types.push("string".to_owned());
                schema.insert("pattern".to_owned(), VARIABLE.into());
            }
            match types.as_slice() {
                [] => {}
                [name] => {
                    schema.insert("type".to_owned(), name.as_str().into());
                }
                names => {
                    schema.insert("type".to_owned(), names.into());
                }
            }
            for (key, value) in schema.iter_mut() {
                if !matches!(key.as_str(), "default" | "const" | "enum" | "examples") {
                    adapt(value);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_connectors::registry;

    /// Enough of JSON Schema for the schema above: the path of the first violation.
    fn violation(root: &Value, schema: &Value, value: &Value, path: &str) -> Option<String> {
        let at = |what: &str| Some(format!("{path}: {what}"));
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = root.pointer(reference.strip_prefix('#').unwrap()).expect("a definition");
            if let Some(found) = violation(root, target, value, path) {
                return Some(found);
            }
        }
        if schema.get("const").is_some_and(|wanted| wanted != value) {
            return at("const");
        }
        if schema.get("enum").and_then(Value::as_array).is_some_and(|values| !values.contains(value)) {
            return at("enum");
        }
        let fits = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("type {other}"),
        };
        let typed = match schema.get("type") {
            None => true,
            Some(Value::Array(names)) => names.iter().any(fits),
            Some(name) => fits(name),
        };
        if !typed {
            return at("type");
        }
        let count = |key: &str| {
            let alternatives = schema.get(key).and_then(Value::as_array)?;
            Some(alternatives.iter().filter(|schema| violation(root, schema, value, path).is_none()).count())
        };
        if count("oneOf").is_some_and(|count| count != 1) {
            return at("oneOf");
        }
        if count("anyOf").is_some_and(|count| count == 0) {
            return at("anyOf");
        }
        if let Some(object) = value.as_object() {
            for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if !object.contains_key(key.as_str().unwrap()) {
                    return at(&format!("required {key}"));
                }
            }
            for (key, value) in object {
                let below = format!("{path}/{key}");
                match (schema.pointer(&format!("/properties/{key}")), schema.get("additionalProperties")) {
                    (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                        if let Some(found) = violation(root, schema, value, &below) {
                            return Some(found);
                        }
                    }
                    (None, Some(Value::Bool(false))) => return Some(format!("{below}: unknown")),
                    _ => {}
                }
            }
        }
        if let Some(items) = value.as_array() {
            if schema.get("minItems").and_then(Value::as_u64).is_some_and(|least| (items.len() as u64) < least) {
                return at("minItems");
            }
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    if let Some(found) = violation(root, schema, item, &format!("{path}/{index}")) {
                        return Some(found);
                    }
                }
            }
        }
        None
    }

    fn check(registry: &Registry, toml: &str) -> Option<String> {
        let schema = schema_json(registry);
        let value = toml::from_str::<Value>(toml).unwrap();
        violation(&schema, &schema, &value, "")
    }

    #[test]
    fn whole_examples_fit() {
        for text in [
            "source = { type = \"count\" }\nsink = [{ type = \"null\" }]\n",
            "source = { type = \"count\", rows = \"${ROWS:-5}\", per_second = 1.5 }\nsink = [{ type = \"null\" }]\n",
            crate::config::tests::FULL,
        ] {
            assert_eq!(check(&registry(), text), None, "{text}");
        }
    }

    #[test]
    fn wrong_ones_do_not() {
        let sink = "sink = [{ type = \"null\" }]\n";
        for (text, want) in [
            ("source = { type = \"count\" }\n".to_owned(), ": required \"sink\""),
            (format!("source = {{ type = \"count\" }}\nsinks = 1\n{sink}"), "/sinks: unknown"),
            (format!("source = {{ type = \"cont\" }}\n{sink}"), "/source: oneOf"),
            (format!("source = {{ type = \"null\" }}\n{sink}"), "/source: oneOf"),
            (format!("source = {{ type = \"count\", row = 1 }}\n{sink}"), "/source: oneOf"),
            (format!("source = {{ type = \"lines\" }}\n{sink}"), "/source: oneOf"),
            (
                format!("source = {{ type = \"count\" }}\n{sink}transform = [{{ }}]\n"),
                "/transform/0: required \"plugin\"",
            ),
            (format!("source = {{ type = \"count\" }}\n{sink}delivery = {{ tasks = [] }}\n"), "/delivery/tasks: type"),
            (
                format!("source = {{ type = \"count\" }}\n{sink}errors = {{ dead_letter = {{ type = \"nul\" }} }}\n"),
                "/errors/dead_letter: oneOf",
            ),
        ] {
            assert_eq!(check(&registry(), &text).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn every_example_of_a_connector_fits() {
        let registry = crate::connectors::registry();
        let examples = registry.sources().map(|kind| ("source", kind.info()));
        for (kind, info) in examples.chain(registry.sinks().map(|kind| ("sink", kind.info()))) {
            let schema = schema_json(&registry);
            let value = toml::from_str::<Value>(&crate::config::example(info, kind)).expect(info.name);
            let pointer = if kind == "source" { "/source" } else { "/sink/0" };
            let table = value.pointer(pointer).unwrap_or_else(|| panic!("{}: the example is no [{kind}]", info.name));
            let name = if kind == "source" { "SourceConnector" } else { "SinkConnector" };
            let definition = &schema["$defs"][name];
            assert_eq!(violation(&schema, definition, table, info.name), None, "{}", info.example);
        }
    }
}
