//! `acequia status`: what a running daemon says of its pipelines.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Output;
use super::output::table;

/// An answer is never larger: 10,000 pipelines of a few hundred bytes each, and room.
const LARGEST_ANSWER: u64 = 64 << 20;

/// Arguments of `acequia status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the daemon's REST interface listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8083")]
    address: String,
    /// Print what the daemon answered, as JSON.
    #[arg(long)]
    json: bool,
}

/// What is read of one pipeline in the answer to `GET /connectors?expand=status`: Kafka Connect's shape, with an `acequia`
/// object beside it.
#[derive(Debug, Deserialize)]
struct Expanded {
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Status {
    connector: Connector,
    #[serde(default)]
    acequia: Details,
}

#[derive(Debug, Deserialize)]
struct Connector {
    /// One of Connect's words.
    state: String,
    trace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    /// In Acequia's own words.
    state: Option<String>,
    last_error: Option<Trouble>,
    last_reload: Option<Reload>,
    sinks: Vec<String>,
    /// In order of flow: `source`, the transforms, the sinks, perhaps `dead-letter`.
    stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
struct Trouble {
    message: String,
}

#[derive(Debug, Deserialize)]
struct Reload {
    /// Set if the file as it is now can't be used, and something older goes on.
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Stage {
    id: String,
    rows_in: u64,
    rows_out: u64,
    dropped: u64,
    dead: u64,
}

/// Rows of a pipeline.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rows {
    /// Found by the source, good and bad.
    input: u64,
    /// Taken by the sinks; by the one that is furthest behind, if there are several.
    output: u64,
    /// Dropped on purpose.
    dropped: u64,
    /// Failed, at whatever stage.
    dead: u64,
}

impl Details {
    fn rows(&self) -> Rows {
        let stages = match self.stages.as_slice() {
            [stages @ .., last] if last.id == "dead-letter" => stages,
            stages => stages,
        };
        let sinks = stages.get(stages.len().saturating_sub(self.sinks.len())..).unwrap_or_default();
        Rows {
            input: stages.first().map_or(0, |source| source.rows_in),
            output: sinks.iter().map(|sink| sink.rows_out).min().unwrap_or_default(),
            dropped: stages.iter().map(|stage| stage.dropped).sum(),
            dead: stages.iter().map(|stage| stage.dead).sum(),
        }
    }
}

pub(super) fn execute(arguments: &Args, output: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.address);
    let (healthy, health) = client.get("/health")?;
    let (found, connectors) = client.get("/connectors?expand=status")?;
    if !found {
        bail!("the daemon at {} does not tell its pipelines: {connectors}", arguments.address);
    }
    let strange = || format!("the answer of {} is not what a daemon says: is it one?", arguments.address);
    let answer: Value = serde_json::from_str(&connectors).with_context(strange)?;
    let pipelines = BTreeMap::<String, Expanded>::deserialize(&answer).with_context(strange)?;
    let failed = pipelines.values().any(|pipeline| pipeline.status.connector.state == "FAILED");
    let code = if failed || !healthy { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if arguments.json {
        let health: Value = serde_json::from_str(&health).unwrap_or(Value::String(health));
        output.json(&json!({ "healthy": healthy, "health": health, "connectors": answer }))?;
        return Ok(code);
    }
    let mut rows = vec![["NAME", "STATE", "IN", "OUT", "DROPPED", "DEAD", "LAST ERROR"].map(str::to_owned).to_vec()];
    for (name, Expanded { status }) in &pipelines {
        let Rows { input, output, dropped, dead } = status.acequia.rows();
        let mut row = vec![name.clone(), status.acequia.state.as_ref().unwrap_or(&status.connector.state).clone()];
        row.extend([input, output, dropped, dead].map(|count| count.to_string()));
        let rejected = status.acequia.last_reload.as_ref().and_then(|reload| reload.error.as_ref());
        let error = rejected.or(status.acequia.last_error.as_ref().map(|trouble| &trouble.message));
        row.push(error.or(status.connector.trace.as_ref()).map(|text| first_line(text)).unwrap_or_default());
        rows.push(row);
    }
    if pipelines.is_empty() {
        output.text("no pipelines\n")?;
    } else {
        output.text(&table(&rows))?;
    }
    if !healthy {
        writeln!(output.err, "the daemon is not healthy: {}", first_line(&health))?;
    }
    Ok(code)
}

/// Without control characters: it goes to a terminal.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).collect()
}

struct Client<'a> {
    agent: ureq::Agent,
    address: &'a str,
}

impl<'a> Client<'a> {
    fn new(address: &'a str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            // A proxy from the environment has no business between this machine and itself.
            .proxy(None)
            .build();
        Client { agent: config.new_agent(), address }
    }

    /// Whether the answer was a good one, and its text.
    fn get(&self, path: &str) -> anyhow::Result<(bool, String)> {
        let Client { agent, address } = self;
        let unreachable =
            || format!("no daemon answers at {address} (`acequia run --listen {address}` starts one there)");
        let mut response = agent.get(format!("http://{address}{path}")).call().with_context(unreachable)?;
        let good = response.status().is_success();
        let text =
            response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string().with_context(unreachable)?;
        Ok((good, text))
    }
}
