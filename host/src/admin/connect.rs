//! Kafka Connect's REST shapes, a pipeline being a connector with one task.
//!
//! The shapes are those of Connect's own REST interface (Apache Kafka's documentation, section "Kafka Connect", "REST
//! API", and KIP-465 for `?expand`). What Connect has no word for stands in an `acequia` object beside them, which
//! Connect's clients leave alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::App;
use super::error::ApiError;
use super::health::seconds;
use crate::pipeline::status::{Facts, PipelineStatus, Reload, State as PipelineState, Trouble, now_millis};

/// The answer of `GET /`.
#[derive(Debug, Serialize)]
pub struct Root {
    /// The daemon's version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// Always null: there is no Kafka cluster behind the daemon.
    pub kafka_cluster_id: Option<String>,
    /// What Connect has no word for.
    pub acequia: RootDetails,
}

/// What the daemon says of itself.
#[derive(Debug, Serialize)]
pub struct RootDetails {
    /// The state folder.
    pub state_dir: PathBuf,
    /// When the daemon started, milliseconds since the epoch.
    pub started_at: u64,
    /// How often a pass over the directories changed something.
    pub generation: u64,
}

/// The answer of `GET /connectors/{name}`.
#[derive(Debug, Serialize)]
pub struct ConnectorInfo {
    /// The pipeline.
    pub name: String,
    /// The keys that Connect's clients look for. The file itself is not shown.
    pub config: BTreeMap<&'static str, String>,
    /// Its tasks.
    pub tasks: Vec<TaskId>,
    /// As in [`ConnectorStatus::kind`].
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// A task by name.
#[derive(Debug, Serialize)]
pub struct TaskId {
    /// The pipeline.
    pub connector: String,
    /// Counts from 0.
    pub task: u32,
}

/// The answer of `GET /connectors/{name}/status`.
#[derive(Debug, Serialize)]
pub struct ConnectorStatus {
    /// The pipeline.
    pub name: String,
    /// Its state.
    pub connector: ConnectorState,
    /// Its tasks; none if it is stopped, as in Connect.
    pub tasks: Vec<TaskState>,
    /// What Connect calls a connector that takes rows out of Kafka (`sink`) or brings rows in (`source`); `unknown` as long
    /// as the pipeline has not been opened.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What Connect has no word for.
    pub acequia: Details,
}

/// A connector's state.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectorState {
    /// One of Connect's words: see [`connect_state`].
    pub state: &'static str,
    /// Where this daemon's admin listener is.
    pub worker_id: String,
    /// Why it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A task's state.
#[derive(Debug, Serialize)]
pub struct TaskState {
    /// Counts from 0.
    pub id: u32,
    /// As the connector's.
    #[serde(flatten)]
    pub state: ConnectorState,
}

/// What the daemon knows of a pipeline beyond Connect's words.
#[derive(Debug, Serialize)]
pub struct Details {
    /// `FAILED`, `STARTING`, `RUNNING`, `RETRYING`, `STOPPED` or `COMPLETED`.
    pub state: &'static str,
    /// The first error since it last worked.
    pub first_error: Option<Trouble>,
    /// The last error, also if it works again.
    pub last_error: Option<Trouble>,
    /// How often it was restarted after an error since the daemon's start.
    pub restarts: u64,
    /// Counts up with every configuration that takes effect.
    pub generation: u64,
    /// Hash of the configuration and plugins that run.
    pub hash: String,
    /// The last reload.
    pub last_reload: Option<Reload>,
    /// The last checkpoint; null if there is none yet.
    pub checkpoint: Option<Checkpoint>,
    /// How far a finite source is.
    pub progress: Option<Progress>,
    /// Things that are no errors but are likely not meant.
    pub warnings: Vec<String>,
    /// The source's type.
    pub source: String,
    /// The sinks' types.
    pub sinks: Vec<String>,
    /// Every stage in order of flow.
    pub stages: Vec<Stage>,
}

/// The last checkpoint.
#[derive(Debug, Serialize)]
pub struct Checkpoint {
    /// How many there have been since the pipeline's first start.
    pub number: u64,
    /// When it was stored, milliseconds since the epoch.
    pub at: u64,
    /// Seconds since then.
    pub age_seconds: f64,
    /// From the barrier's start to the store, seconds.
    pub duration_seconds: f64,
    /// Size of the plugins' snapshots in it.
    pub snapshot_bytes: u64,
}

/// How far a finite source is.
#[derive(Debug, Serialize)]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
    /// Of what.
    pub unit: &'static str,
}

/// What a stage has counted since the pipeline's first start, and its troubles since the daemon's.
#[derive(Debug, Serialize)]
pub struct Stage {
    /// Its id.
    pub id: String,
    /// Rows that came to it.
    pub rows_in: u64,
    /// Rows that it gave on.
    pub rows_out: u64,
    /// Rows left out on purpose.
    pub dropped: u64,
    /// Output rows beyond one for each input row.
    pub added: u64,
    /// Rows that failed.
    pub dead: u64,
    /// Retries of the same work.
    pub retries: u64,
    /// Guests replaced after a trap.
    pub guest_replacements: u64,
}

/// Our state in Connect's words.
///
/// `STARTING` is `UNASSIGNED` (no one works at it yet), `RETRYING` is `RESTARTING`, `COMPLETED` is `STOPPED`. A pipeline
/// that a failed row stopped (`on_error = "stop"`) is `FAILED`, as a Connect task with `errors.tolerance = none` is.
pub fn connect_state(facts: &Facts) -> &'static str {
    match facts.state {
        PipelineState::Failed => "FAILED",
        PipelineState::Starting => "UNASSIGNED",
        PipelineState::Running => "RUNNING",
        PipelineState::Retrying => "RESTARTING",
        PipelineState::Stopped if facts.first_error.is_some() => "FAILED",
        PipelineState::Stopped | PipelineState::Completed => "STOPPED",
    }
}

fn kind(facts: &Facts) -> &'static str {
    match facts.connectors.source.as_str() {
        "" => "unknown",
        "kafka" => "sink",
        _ => "source",
    }
}

/// Whether it has a task: one that has never been opened, or is stopped, has none.
fn has_task(facts: &Facts) -> bool {
    !matches!(connect_state(facts), "STOPPED") && !facts.connectors.source.is_empty()
}

impl ConnectorInfo {
    /// The pipeline.
    pub fn of(status: &PipelineStatus) -> Self {
        let facts = status.facts();
        let mut config = BTreeMap::from([("name", status.name.clone()), ("tasks.max", "1".to_owned())]);
        if !facts.connectors.source.is_empty() {
            config.insert("connector.class", facts.connectors.source.clone());
        }
        let tasks = has_task(&facts).then(|| TaskId { connector: status.name.clone(), task: 0 });
        ConnectorInfo { name: status.name.clone(), config, tasks: tasks.into_iter().collect(), kind: kind(&facts) }
    }
}

impl ConnectorStatus {
    /// The pipeline at `now`, milliseconds since the epoch.
    pub fn at(status: &PipelineStatus, worker_id: &str, now: u64) -> Self {
        let facts = status.facts();
        let state = connect_state(&facts);
        let trace = match state {
            "RUNNING" | "STOPPED" | "UNASSIGNED" => None,
            _ => facts.first_error.as_ref().or(facts.last_error.as_ref()).map(|trouble| trouble.message.clone()),
        };
        let connector = ConnectorState { state, worker_id: worker_id.to_owned(), trace };
        let task = has_task(&facts).then(|| TaskState { id: 0, state: connector.clone() });
        ConnectorStatus {
            name: status.name.clone(),
            connector,
            tasks: task.into_iter().collect(),
            kind: kind(&facts),
            acequia: Details::at(status, facts, now),
        }
    }
}

impl Details {
    fn at(status: &PipelineStatus, facts: Facts, now: u64) -> Self {
        let stages = status.stages().into_iter().map(|(id, counters)| {
            let counts = counters.get();
            let (retries, guest_replacements) = counters.troubles();
            Stage {
                id,
                rows_in: counts.rows_in,
                rows_out: counts.rows_out,
                dropped: counts.dropped,
                added: counts.added,
                dead: counts.dead,
                retries,
                guest_replacements,
            }
        });
        let checkpoint = facts.checkpoint;
        Details {
            state: facts.state.name(),
            first_error: facts.first_error,
            last_error: facts.last_error,
            restarts: facts.restarts,
            generation: facts.generation,
            hash: facts.hash,
            last_reload: facts.reload,
            checkpoint: (checkpoint.at > 0).then(|| Checkpoint {
                number: checkpoint.number,
                at: checkpoint.at,
                age_seconds: seconds(now.saturating_sub(checkpoint.at)),
                duration_seconds: checkpoint.took_micros as f64 / 1e6,
                snapshot_bytes: checkpoint.bytes,
            }),
            progress: facts.progress.map(|(done, total, unit)| Progress { done, total, unit }),
            warnings: facts.warnings,
            source: facts.connectors.source,
            sinks: facts.connectors.sinks,
            stages: stages.collect(),
        }
    }
}

/// One pipeline of `GET /connectors?expand=...`: what was asked for.
#[derive(Debug, Default, Serialize)]
struct Expanded {
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ConnectorInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ConnectorStatus>,
}

/// `GET /`
pub(super) async fn root(State(app): State<Arc<App>>) -> Json<Root> {
    Json(Root {
        version: app.info.version.clone(),
        commit: app.info.commit.clone(),
        kafka_cluster_id: None,
        acequia: RootDetails {
            state_dir: app.info.state_dir.clone(),
            started_at: app.board.started_at,
            generation: app.board.pass().generation,
        },
    })
}

/// `GET /connectors`. An expansion that is not known is left alone, as Connect does.
pub(super) async fn list(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let expansions: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("expand=")).collect();
    let pipelines = app.board.pipelines();
    if expansions.is_empty() {
        return Json(pipelines.into_keys().collect::<Vec<_>>()).into_response();
    }
    let now = now_millis();
    let expand = |status: &PipelineStatus| Expanded {
        info: expansions.contains(&"info").then(|| ConnectorInfo::of(status)),
        status: expansions.contains(&"status").then(|| ConnectorStatus::at(status, &app.worker_id, now)),
    };
    let expanded: BTreeMap<&str, Expanded> =
        pipelines.iter().map(|(name, status)| (name.as_str(), expand(status))).collect();
    Json(expanded).into_response()
}

/// The pipeline that the path names; a name that is no UTF-8 is no pipeline's.
fn find(
    app: &App,
    name: Result<Path<String>, PathRejection>,
    missing: impl FnOnce(&str) -> String,
) -> Result<Arc<PipelineStatus>, ApiError> {
    let Path(name) = name.map_err(|rejection| ApiError::new(StatusCode::NOT_FOUND, rejection.body_text()))?;
    app.board.pipeline(&name).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, missing(&name)))
}

/// `GET /connectors/{name}`
pub(super) async fn show(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ConnectorInfo>, ApiError> {
    let pipeline = find(&app, name, |name| format!("Connector {name} not found"))?;
    Ok(Json(ConnectorInfo::of(&pipeline)))
}

/// `GET /connectors/{name}/status`
pub(super) async fn status(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ConnectorStatus>, ApiError> {
    let pipeline = find(&app, name, |name| format!("No status found for connector {name}"))?;
    Ok(Json(ConnectorStatus::at(&pipeline, &app.worker_id, now_millis())))
}
