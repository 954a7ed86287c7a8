//! `GET /metrics`: what Prometheus scrapes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Board;
use super::exposition::{CONTENT_TYPE, Exposition, Kind};
use super::health::seconds;
use super::process::Process;
use super::{App, Info};
use crate::pipeline::status::{Counts, Facts, State as PipelineState, now_millis};

/// A stage at one moment.
struct Stage {
    id: String,
    counts: Counts,
    batches: u64,
    retries: u64,
    replaced: u64,
}

/// A pipeline at one moment, so that all of its metrics are of that moment.
struct Pipeline {
    name: String,
    facts: Facts,
    stages: Vec<Stage>,
}

/// A metric that every stage has: name, help, value.
type StageMetric = (&'static str, &'static str, fn(&Stage) -> u64);

/// The row counts are the checkpoint's: they hold across restarts, and go back with the pipeline if it goes back to its last
/// checkpoint, so that `in + added = out + dropped + dead` can be read off (invariant 3). Prometheus takes a counter that
/// goes back for one that began anew: around a pipeline's restart its `rate` is too high for one interval.
const STAGE_METRICS: [StageMetric; 8] = [
    ("acequia_rows_in_total", "Rows that came to the stage since the pipeline's first start.", |stage| {
        stage.counts.rows_in
    }),
    ("acequia_rows_out_total", "Rows that the stage gave on since the pipeline's first start.", |stage| {
        stage.counts.rows_out
    }),
    (
        "acequia_rows_dropped_total",
        "Rows that the stage left out on purpose since the pipeline's first start.",
        |stage| stage.counts.dropped,
    ),
    (
        "acequia_rows_added_total",
        "Output rows beyond one for each input row since the pipeline's first start.",
        |stage| stage.counts.added,
    ),
    ("acequia_rows_dead_total", "Rows that failed in the stage since the pipeline's first start.", |stage| {
        stage.counts.dead
    }),
    ("acequia_batches_total", "Batches that came to the stage since the daemon's start.", |stage| stage.batches),
    ("acequia_retries_total", "Retries of the same work since the daemon's start.", |stage| stage.retries),
    ("acequia_guest_replacements_total", "Guests replaced after a trap since the daemon's start.", |stage| {
        stage.replaced
    }),
];

fn snapshot(board: &Board) -> Vec<Pipeline> {
    let pipelines = board.pipelines().into_iter().map(|(name, status)| {
        let stages = status.stages().into_iter().map(|(id, counters)| {
            let (retries, replaced) = counters.troubles();
            Stage { id, counts: counters.get(), batches: counters.batches(), retries, replaced }
        });
        Pipeline { name, facts: status.facts(), stages: stages.collect() }
    });
    pipelines.collect()
}

/// Everything, at `now` (milliseconds since the epoch).
pub(super) fn render(board: &Board, info: &Info, process: &Process, now: u64) -> String {
    let pipelines = snapshot(board);
    let mut text = Exposition::default();
    text.family("acequia_build_info", Kind::Gauge, "The daemon's version; always 1.");
    text.sample(&[("version", &info.version), ("commit", &info.commit)], 1);
    stage_metrics(&mut text, &pipelines);
    pipeline_metrics(&mut text, &pipelines);
    checkpoint_metrics(&mut text, &pipelines, now);
    config_metrics(&mut text, board);
    process_metrics(&mut text, board, process);
    text.finish()
}

fn stage_metrics(text: &mut Exposition, pipelines: &[Pipeline]) {
    for (name, help, value) in STAGE_METRICS {
        text.family(name, Kind::Counter, help);
        for pipeline in pipelines {
            for stage in &pipeline.stages {
                text.sample(&[("pipeline", &pipeline.name), ("stage", &stage.id)], value(stage));
            }
        }
    }
}

fn pipeline_metrics(text: &mut Exposition, pipelines: &[Pipeline]) {
    text.family("acequia_pipeline_state", Kind::Gauge, "1 for the state that the pipeline is in, 0 for the others.");
    for pipeline in pipelines {
        for state in PipelineState::ALL {
            let is = u8::from(pipeline.facts.state == state);
            text.sample(&[("pipeline", &pipeline.name), ("state", state.name())], is);
        }
    }
    let help = "Restarts of the pipeline after an error since the daemon's start.";
    text.family("acequia_pipeline_restarts_total", Kind::Counter, help);
    for pipeline in pipelines {
        text.sample(&[("pipeline", &pipeline.name)], pipeline.facts.restarts);
    }
    let help = "Counts up with every configuration of the pipeline that takes effect.";
    text.family("acequia_pipeline_generation", Kind::Gauge, help);
    for pipeline in pipelines {
        text.sample(&[("pipeline", &pipeline.name)], pipeline.facts.generation);
    }
}

/// A pipeline without a checkpoint has no such series, rather than one that says it was in 1970.
fn checkpoint_metrics(text: &mut Exposition, pipelines: &[Pipeline], now: u64) {
    let mut family = |name, help, value: &dyn Fn(&Facts) -> f64| {
        text.family(name, Kind::Gauge, help);
        for pipeline in pipelines.iter().filter(|pipeline| pipeline.facts.checkpoint.at > 0) {
            text.sample(&[("pipeline", &pipeline.name)], value(&pipeline.facts));
        }
    };
    family("acequia_checkpoint_number", "Checkpoints since the pipeline's first start.", &|facts| {
        facts.checkpoint.number as f64
    });
    family("acequia_checkpoint_age_seconds", "Time since the last checkpoint was stored.", &|facts| {
        seconds(now.saturating_sub(facts.checkpoint.at))
    });
    let help = "Time from the last checkpoint's barrier to its being stored.";
    family("acequia_checkpoint_duration_seconds", help, &|facts| facts.checkpoint.took_micros as f64 / 1e6);
    let help = "Size of the plugins' snapshots in the last checkpoint.";
    family("acequia_checkpoint_snapshot_bytes", help, &|facts| facts.checkpoint.bytes as f64);
}

fn config_metrics(text: &mut Exposition, board: &Board) {
    let pass = board.pass();
    text.family("acequia_ready", Kind::Gauge, "1 after the first pass over the directories.");
    text.sample(&[], u8::from(board.is_ready()));
    let help = "Counts up with every pass over the directories that changed something.";
    text.family("acequia_config_generation", Kind::Gauge, help);
    text.sample(&[], pass.generation);
    let help = "When the last pass over the directories ended; 0 before the first.";
    text.family("acequia_config_last_reload_timestamp_seconds", Kind::Gauge, help);
    text.sample(&[], seconds(pass.at));
    text.family("acequia_config_last_reload_errors", Kind::Gauge, "Files that the last pass could not use.");
    text.sample(&[], pass.errors.len());
}

/// The names are those that Prometheus' own clients use.
fn process_metrics(text: &mut Exposition, board: &Board, process: &Process) {
    text.family("process_cpu_seconds_total", Kind::Counter, "Time on all processors.");
    text.sample(&[], process.cpu_seconds);
    text.family("process_start_time_seconds", Kind::Gauge, "When the daemon started, since the epoch.");
    text.sample(&[], seconds(board.started_at));
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Address space, most of it only reserved.", process.virtual_bytes),
        ("process_open_fds", "Open file descriptors.", process.open_fds),
        ("process_max_fds", "How many file descriptors may be open.", process.max_fds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.family(name, Kind::Gauge, help);
            text.sample(&[], value);
        }
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = render(&app.board, &app.info, &Process::read(), now_millis());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}
