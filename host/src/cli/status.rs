//! `acequia status`: what a running daemon says of its pipelines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Output;
use super::output::table;

/// An answer is never larger: 10,000 pipelines of a few hundred bytes each, and room.
const LARGEST_ANSWER: u64 = 64 << 20;

/// Arguments of `acequia status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the daemon's REST interface listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8083")]
    address: SocketAddr,
    /// Print what the daemon answered, as JSON.
    #[arg(long)]
    json: bool,
}

/// One pipeline in the answer to `GET /connectors?expand=status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expanded {
    /// As in the answer to `GET /connectors/NAME/status`.
    pub status: PipelineStatus,
}

/// The answer to `GET /connectors/NAME/status`: Kafka Connect's shape, and beside it what Acequia knows more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// The pipeline.
    pub name: String,
    /// The pipeline as a whole.
    pub connector: TaskStatus,
    /// Its tasks.
    #[serde(default)]
    pub tasks: Vec<TaskStatus>,
    /// Rows since the start.
    #[serde(default)]
    pub rows: Rows,
    /// The first error since the last good configuration, which is mostly the cause of the others.
    #[serde(default)]
    pub first_error: Option<String>,
    /// The last error.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// State of a pipeline or of one of its tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Number of the task; absent for the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// `RUNNING`, `PAUSED`, `FAILED`, `RESTARTING`, `STOPPED`, `UNASSIGNED`.
    pub state: String,
    /// The daemon's address.
    #[serde(default)]
    pub worker_id: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// Rows of a pipeline: `in = out + dropped + dead`, but for those on their way.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rows {
    /// From the source, and added by transforms.
    #[serde(rename = "in")]
    pub input: u64,
    /// Confirmed by the sinks.
    #[serde(rename = "out")]
    pub output: u64,
    /// Dropped on purpose by a transform.
    pub dropped: u64,
    /// In the dead letters.
    pub dead: u64,
}

pub(super) fn execute(arguments: &Args, output: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let client = Client::new(arguments.address);
    let (healthy, health) = client.get("/health")?;
    let (found, connectors) = client.get("/connectors?expand=status")?;
    if !found {
        bail!("the daemon at {} does not tell its pipelines: {connectors}", arguments.address);
    }
    let pipelines: BTreeMap<String, Expanded> = serde_json::from_str(&connectors)
        .with_context(|| format!("the answer of {} is not what a daemon says: is it one?", arguments.address))?;
    let failed = pipelines.values().any(|pipeline| state(&pipeline.status) == "FAILED");
    let code = if failed || !healthy { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if arguments.json {
        let health: Value = serde_json::from_str(&health).unwrap_or(Value::String(health));
        output.json(&json!({ "healthy": healthy, "health": health, "connectors": pipelines }))?;
        return Ok(code);
    }
    let mut rows = vec![["NAME", "STATE", "IN", "OUT", "DROPPED", "DEAD", "LAST ERROR"].map(str::to_owned).to_vec()];
    for (name, Expanded { status }) in &pipelines {
        let count = |count: u64| count.to_string();
        let Rows { input, output, dropped, dead } = status.rows;
        let error = last_error(status).unwrap_or_default();
        let state = state(status).to_owned();
        rows.push(vec![name.clone(), state, count(input), count(output), count(dropped), count(dead), error]);
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

/// The worst state of a pipeline and its tasks.
fn state(status: &PipelineStatus) -> &str {
    let failed = status.tasks.iter().find(|task| task.state == "FAILED");
    failed.map_or(&status.connector.state, |task| &task.state)
}

fn last_error(status: &PipelineStatus) -> Option<String> {
    let traces = status.tasks.iter().chain([&status.connector]).filter_map(|task| task.trace.as_ref());
    status.last_error.iter().chain(traces).map(|text| first_line(text)).find(|line| !line.is_empty())
}

/// Without control characters: it goes to a terminal.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).collect()
}

struct Client {
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
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
