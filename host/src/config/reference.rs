//! `docs/configuration.md`, made from the types, so that it can't be wrong about them.

use std::fmt::Write as _;

use acequia_connector_api::{ConnectorInfo, Registry};
use serde_json::Value;

use super::file::{ErrorsTable, TransformTable};
use super::model::DeliveryConfig;
use super::shape::Shape;

const HEAD: &str = r#"# Configuration

<!-- Made by `acequia reference` from the types in the code. Change the doc comments there, not this file. -->

One TOML file is one pipeline: a source, transforms in order, one or more sinks. The pipeline's name is the file's stem:
letters (A-Z, a-z), digits, `.`, `_` and `-`, beginning with a letter or a digit. In a folder every `*.toml`
counts except hidden files; folders below it are not looked into.

```toml
description = "even numbers on the console"

[source]
type = "rate"
rows_per_second = 1

[[transform]]
plugin = "even-filter"
config = { column = "value" }
limits = { memory = "64MiB", time = "5s" }

[[sink]]
type = "console"

[errors]
on_error = "dead_letter"

[errors.dead_letter]
type = "file"
path = "dead/seq.jsonl"

[delivery]
checkpoint_interval = "1s"
```

Relative paths start from the folder of the file. `acequia validate PATH...` checks files without starting anything, and
says file, line, column and the nearest right name of what is wrong; `acequia schema` prints a JSON Schema for editors
(`#:schema ./pipeline.schema.json` on the first line of a file, for those that use Taplo).

## The file

| key | what |
|---|---|
| `description` | What the pipeline is for, a string; shown in its status. |
| `[source]` | Where rows come from. `type` names the [connector](#sources); the other keys are its own. |
| `[[transform]]` | What happens to the rows, in order; may be absent. |
| `[[sink]]` | Where rows go; at least one. Each sink gets every row. `type` names the [connector](#sinks). |
| `[errors]` | What happens to rows that fail. |
| `[delivery]` | Checkpoints and batches. |

In the tables below, a **size** is a number of bytes such as `65536`, `"64KiB"`, `"8MiB"` or `"8MB"`; a **duration** is a number
with its unit, such as `"20ms"`, `"1.5s"`, `"5m"` or `"1h"`; a **column type** is one of `"boolean"`, `"int64"`, `"float64"`,
`"timestamp"` (microseconds, UTC), `"text"`, `"binary"`, `"json"`; a **secret** is described [below](#secrets).
"#;

const VARIABLES: &str = r#"## Variables

`${NAME}` in any string stands for the environment variable `NAME`; `${NAME:-default}` gives a default for one that is not set or
empty; `$$` is a dollar. Keys are not looked at. A variable that is not set and has no default is an error.

What a variable holds can't become TOML: it is put in after parsing. Where a number or a boolean is wanted and the string is nothing
but one `${NAME}`, its text is read as one: `rows_per_second = "${RATE:-1}"`. In a plugin's `config` it stays a string.

`acequia validate --no-env` looks at no variable: those without a default are taken as set to something unknown, and
what hangs on them is not checked.

## Secrets

A key whose type is *secret* takes

- `{ env = "NAME" }`: an environment variable,
- `{ file = "PATH" }`: a file, such as a systemd credential; one line break at its end is not part of it,
- a string, the secret itself: for trying things out.

Secrets are read when the connector is opened, not before, and are never printed: not in the log, not over REST, not in diagnostics.
If the file of one holds something else, the pipeline is opened again with that, from its checkpoint.
"#;

const PLUGINS: &str = r#"### Where plugins are looked for

`plugin = "NAME"` is the first `NAME.wasm` in: the folders given by `--plugins`, those in `$ACEQUIA_PLUGINS` (separated by
colons), `../plugins` and `plugins` beside the daemon's binary, `/usr/local/lib/acequia/plugins`, `/usr/lib/acequia/plugins`.
With a `/` in it, or ending in `.wasm`, it is a path, relative to the pipeline's file.
"#;

/// The reference of the configuration, in Markdown.
pub fn reference_markdown(registry: &Registry) -> String {
    let mut out = String::from(HEAD);
    section(&mut out, "## `[[transform]]`", "", &Shape::of::<TransformTable>());
    out.push('\n');
    out.push_str(PLUGINS);
    section(&mut out, "## `[errors]`", "", &Shape::of::<ErrorsTable>());
    section(&mut out, "## `[delivery]`", "", &Shape::of::<DeliveryConfig>());
    out.push('\n');
    out.push_str(VARIABLES);
    out.push_str("\n## Sources\n");
    for kind in registry.sources() {
        connector(&mut out, kind.info(), "source", &Shape::from(|generator| kind.json_schema(generator)));
    }
    out.push_str("\n## Sinks\n");
    for kind in registry.sinks() {
        connector(&mut out, kind.info(), "sink", &Shape::from(|generator| kind.json_schema(generator)));
    }
    out
}

/// A connector's example with its header, as it stands in a file. `side` is `source` or `sink`.
pub fn example(info: ConnectorInfo, side: &str) -> String {
    let text = info.example.trim();
    if text.starts_with('[') {
        return format!("{text}\n");
    }
    let header = if side == "source" { "[source]" } else { "[[sink]]" };
    format!("{header}\n{text}\n")
}

fn connector(out: &mut String, info: ConnectorInfo, side: &str, shape: &Shape) {
    let mut summary = info.summary.trim_end_matches('.').to_owned();
    if let Some(first) = summary.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let text = format!("{summary}.\n\n```toml\n{}```", example(info, side));
    section(out, &format!("### `{}` {side}", info.name), &text, shape);
}

fn section(out: &mut String, title: &str, text: &str, shape: &Shape) {
    let mut rows = String::new();
    write_keys(&mut rows, shape, &shape.keys(), &shape.required(), "");
    // Writing to a String can't fail.
    let _ = write!(out, "\n{title}\n\n");
    if !text.is_empty() {
        let _ = write!(out, "{text}\n\n");
    }
    if rows.is_empty() {
        out.push_str("No further keys.\n");
    } else {
        let _ = write!(out, "| key | type | default | what |\n|---|---|---|---|\n{rows}");
    }
}

fn write_keys(out: &mut String, shape: &Shape, keys: &[(&str, &Value)], required: &[&str], prefix: &str) {
    for (name, schema) in keys {
        let default = match schema.get("default") {
            _ if required.contains(name) => "required".to_owned(),
            // The keys of a table have their own lines, with their own defaults.
            None | Some(Value::Null | Value::Object(_)) => String::new(),
            Some(Value::Array(values)) if values.is_empty() => "`[]`".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let mut what = shape.description(schema).unwrap_or_default();
        for (value, description) in shape.described_values(schema) {
            let _ = write!(what, "<br>`{value}`: {description}");
        }
        let kind = shape.type_name(schema);
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(out, "| `{prefix}{name}` | {} | {} | {} |", cell(&kind), cell(&default), cell(&what));
        // A secret has keys as well; they are described once for all.
        if kind != "secret"
            && let Some(table) = shape.table_of(schema)
        {
            let below = format!("{prefix}{name}{}.", if kind.starts_with("array") { "[]" } else { "" });
            write_keys(out, shape, &Shape::keys_of(table), &Shape::required_of(table), &below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_connectors;

    #[test]
    fn the_reference_of_small_connectors() {
        let text = reference_markdown(&test_connectors::registry());
        let connectors = text.split_once("## Sources").unwrap().1;
        insta::assert_snapshot!(connectors);
    }

    /// Only in a build with the default features, whose connectors the file describes.
    #[cfg(all(feature = "blackhole", feature = "console", feature = "file", feature = "rate", feature = "socket"))]
    #[test]
    fn the_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == reference_markdown(&crate::connectors::registry()),
            "docs/configuration.md is out of date; renew it with `make docs` (acequia reference > docs/configuration.md)"
        );
    }
}
