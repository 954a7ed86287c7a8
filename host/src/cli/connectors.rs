//! `acequia connectors`

use std::process::ExitCode;

use acequia_connector_api::{ConnectorInfo, Registry};
use serde_json::{Value, json};

use super::Output;
use super::output::table;
use crate::config::example;

/// Arguments of `acequia connectors`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(arguments: &Args, registry: &Registry, output: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let sources = registry.sources().map(|kind| ("source", kind.info()));
    let sinks = registry.sinks().map(|kind| ("sink", kind.info()));
    let all: Vec<(&str, ConnectorInfo)> = sources.chain(sinks).collect();
    if arguments.json {
        let list: Vec<Value> = all
            .iter()
            .map(|(kind, info)| json!({ "name": info.name, "kind": kind, "summary": info.summary, "example": example(*info, kind) }))
            .collect();
        return output.json(&list);
    }
    let mut rows = vec![vec!["NAME".to_owned(), "KIND".to_owned(), "WHAT".to_owned()]];
    rows.extend(all.iter().map(|(kind, info)| vec![info.name.to_owned(), (*kind).to_owned(), info.summary.to_owned()]));
    output.text(&table(&rows))
}
