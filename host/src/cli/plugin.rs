//! `acequia plugin ...`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::Output;
use super::backend::Backend;
use super::output::table;

/// The verbs below `acequia plugin`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show what a plugin is: its contract, what it exports and imports, which grants it may need.
    Inspect(InspectArgs),
}

/// Arguments of `acequia plugin inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The `.wasm` file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(verb: &Verb, backend: &dyn Backend, output: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let Verb::Inspect(arguments) = verb;
    let found = backend.inspect(&arguments.file)?;
    if arguments.json {
        return output.json(&found);
    }
    let mut rows = Vec::new();
    for (key, value) in found.as_object().into_iter().flatten() {
        // Each item of a list has a line of its own.
        let cells = match value {
            Value::Array(items) if items.is_empty() => vec!["none".to_owned()],
            Value::Array(items) => items.iter().map(words).collect(),
            value => vec![words(value)],
        };
        for (index, cell) in cells.into_iter().enumerate() {
            rows.push(vec![if index == 0 { key.clone() } else { String::new() }, cell]);
        }
    }
    output.text(&table(&rows))
}

fn words(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    }
}
