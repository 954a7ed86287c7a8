//! The tables of a pipeline's file as serde sees them. Their doc comments are the reference and the editors' help.

use acequia_connector_api::{ByteSize, Span};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::time::Duration;

use super::model::{DeliveryConfig, Grants, Limits, OnError};

/// The tables and keys at the top of a file.
pub(super) const TOP_LEVEL: [&str; 6] = ["description", "source", "transform", "sink", "errors", "delivery"];

/// One `[[transform]]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransformTable {
    /// The plugin: `NAME` for `NAME.wasm` on the plugin path, or a path to a `.wasm` file, relative to this file.
    pub plugin: String,
    /// Names the stage in messages and metrics, and keeps its state across reloads. By default the plugin's name.
    pub name: Option<String>,
    /// The plugin's own configuration; see its documentation.
    #[schemars(with = "Option<Map<String, Value>>")]
    #[allow(dead_code, reason = "read from the tree, with places; here so that serde knows the key")]
    pub config: Option<IgnoredAny>,
    /// What the plugin may use up. A call over a limit fails its batch.
    #[serde(default)]
    pub limits: Limits,
    /// What the plugin may reach outside itself: nothing by default.
    #[serde(default)]
    pub grants: Grants,
}

/// The `[errors]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorsTable {
    /// What happens to a row that fails.
    #[serde(default)]
    pub on_error: OnError,
    /// Where dead letters go: any sink. By default the file `dead-letters/PIPELINE.jsonl` in the state folder.
    #[schemars(with = "Option<Map<String, Value>>")]
    #[allow(dead_code, reason = "read from the tree, with places; here so that serde knows the key")]
    pub dead_letter: Option<IgnoredAny>,
}

/// A value that has the right type and still can't be right: the key and what is wrong.
pub(super) type Wrong = (&'static str, String);

/// Checks that serde can't do.
pub(super) fn check_limits(limits: &Limits) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    // One page is 64 KiB, and 32-bit WebAssembly can't address more than 4 GiB.
    let (least, most) = (ByteSize(64 << 10), ByteSize(4 << 30));
    if limits.memory < least || limits.memory > most {
        wrong.push(("limits.memory", format!("expected a size from {least} to {most}")));
    }
    if limits.time < Span(Duration::from_millis(1)) {
        wrong.push(("limits.time", "expected 1ms or more".to_owned()));
    }
    if limits.output.0 == 0 {
        wrong.push(("limits.output", "expected a size above 0".to_owned()));
    }
    wrong
}

/// Checks that serde can't do.
pub(super) fn check_grants(grants: &Grants) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let right = |address: &String| {
        address == "*"
            || address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if let Some(address) = grants.network.iter().find(|address| !right(address)) {
        wrong.push(("grants.network", format!("expected `host:port` or `*`, found `{address}`")));
    }
    wrong
}

/// Checks that serde can't do.
pub(super) fn check_delivery(delivery: &DeliveryConfig) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if delivery.checkpoint_interval.0.is_zero() {
        wrong.push(("checkpoint_interval", "expected a length of time above 0".to_owned()));
    }
    for (key, zero) in [
        ("tasks", delivery.tasks == 0),
        ("in_flight", delivery.in_flight == 0),
        ("batch.rows", delivery.batch.rows == 0),
        ("batch.bytes", delivery.batch.bytes.0 == 0),
    ] {
        if zero {
            wrong.push((key, "expected 1 or more".to_owned()));
        }
    }
    // Arrow's offsets are 32 bits wide, and so are the row numbers of the plugin contract.
    if delivery.batch.rows > (1 << 24) {
        wrong.push(("batch.rows", "expected at most 16777216".to_owned()));
    }
    if delivery.batch.bytes > ByteSize(1 << 30) {
        wrong.push(("batch.bytes", "expected at most 1GiB".to_owned()));
    }
    wrong
}
