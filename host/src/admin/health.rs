//! `/health` for a supervisor that restarts what does not answer, `/ready` for one that sends work or waits for a start.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::App;
use super::Board;
use crate::pipeline::status::{State as PipelineState, now_millis};

/// The answer of `GET /health`, always 200: that there is an answer is the news.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Always `ok`.
    pub status: &'static str,
    /// Seconds since the daemon's start.
    pub uptime_seconds: f64,
    /// How many pipelines are in each state; states with none are left out.
    pub pipelines: BTreeMap<&'static str, usize>,
}

/// The answer of `GET /ready`: 200 after the first pass over the directories, else 503. A pipeline that failed does not
/// make the daemon unready (invariant 6), but is listed.
#[derive(Debug, Serialize)]
pub struct Ready {
    /// Whether the first pass is done and the daemon is not on its way out.
    pub ready: bool,
    /// How many passes over the directories there have been.
    pub passes: u64,
    /// Pipelines that failed or wait to try again, by name.
    pub troubled: Vec<Troubled>,
}

/// A pipeline that does not run though it should.
#[derive(Debug, Serialize)]
pub struct Troubled {
    /// Its name.
    pub pipeline: String,
    /// `FAILED` or `RETRYING`.
    pub state: &'static str,
    /// The first error since it last worked.
    pub error: Option<String>,
}

impl Health {
    /// The daemon's health at `now`, milliseconds since the epoch.
    pub fn at(board: &Board, now: u64) -> Self {
        Health {
            status: "ok",
            uptime_seconds: seconds(now.saturating_sub(board.started_at)),
            pipelines: board.census(),
        }
    }
}

impl Ready {
    /// Whether the daemon is ready.
    pub fn of(board: &Board) -> Self {
        let troubled = board.pipelines().into_iter().filter_map(|(pipeline, status)| {
            let facts = status.facts();
            matches!(facts.state, PipelineState::Failed | PipelineState::Retrying).then(|| Troubled {
                pipeline,
                state: facts.state.name(),
                error: facts.first_error.or(facts.last_error).map(|trouble| trouble.message),
            })
        });
        Ready { ready: board.is_ready(), passes: board.passes(), troubled: troubled.collect() }
    }
}

/// Milliseconds as seconds.
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// `GET /health`
pub(super) async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    Json(Health::at(&app.board, now_millis()))
}

/// `GET /ready`
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Ready>) {
    let ready = Ready::of(&app.board);
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready))
}
