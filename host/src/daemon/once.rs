//! `--once`: run until every finite source has ended.

use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::supervisor::Supervisor;
use crate::admin::Pass;
use crate::pipeline::status::{Facts, PipelineStatus, State};

/// How often the states are looked at. Only `--once` waits like this; it ends by itself.
const LOOK: Duration = Duration::from_millis(20);
/// A pipeline that has failed this often without a checkpoint between is given up: nobody watches a batch job.
const TRIES: u64 = 6;

/// Everything is confirmed.
const CONFIRMED: u8 = 0;
/// Something failed.
const FAILED: u8 = 1;
/// Everything ran to its end, but rows went to the dead letters or were skipped. Not 2: that is a wrong command line.
const DEAD: u8 = 3;

/// Done when every finite source has ended and its rows are confirmed, or something failed for good. Without `once`:
/// never.
pub(super) fn finished(supervisor: &Supervisor, once: bool, pass: &Pass) -> impl Future<Output = ExitCode> + use<> {
    let statuses = supervisor.statuses();
    let finite = supervisor.finite();
    let broken = !pass.errors.is_empty();
    async move {
        if !once {
            return std::future::pending().await;
        }
        if !finite.iter().any(|finite| *finite) && !broken {
            tracing::error!(
                "--once needs a source that ends, and none of these does: give `rows` to a rate source, or leave `follow` out of a file source"
            );
            return ExitCode::from(FAILED);
        }
        let pipelines: Vec<_> = statuses.into_iter().zip(finite).collect();
        let mut watches: Vec<Watch> = pipelines.iter().map(|_| Watch::default()).collect();
        let bars = Bars::new(&pipelines);
        loop {
            let mut waiting = false;
            for (watch, (status, finite)) in watches.iter_mut().zip(&pipelines) {
                waiting |= *finite && !watch.is_over(&status.facts());
            }
            bars.show(&pipelines);
            if !waiting {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        bars.clear();
        ExitCode::from(verdict(&pipelines, broken))
    }
}

#[derive(Default)]
struct Watch {
    checkpoint: u64,
    restarts: u64,
}

impl Watch {
    fn is_over(&mut self, facts: &Facts) -> bool {
        if facts.checkpoint.number != self.checkpoint {
            self.checkpoint = facts.checkpoint.number;
            self.restarts = facts.restarts;
        }
        match facts.state {
            State::Completed | State::Stopped | State::Failed => true,
            State::Retrying => facts.restarts >= self.restarts + TRIES,
            State::Starting | State::Running => false,
        }
    }
}

fn verdict(pipelines: &[(Arc<PipelineStatus>, bool)], broken: bool) -> u8 {
    let mut code = if broken { FAILED } else { CONFIRMED };
    for (status, finite) in pipelines {
        let facts = status.facts();
        let dead: u64 = status.counts().values().map(|counts| counts.dead).sum();
        if *finite && facts.state != State::Completed {
            let error = facts.last_error.map(|error| error.message).unwrap_or_default();
            tracing::error!(pipeline = status.name, error, "did not complete");
            code = FAILED;
        } else if dead > 0 {
            tracing::warn!(pipeline = status.name, rows = dead, "rows failed: see the dead letters");
            if code == CONFIRMED {
                code = DEAD;
            }
        }
    }
    code
}

/// A bar for each finite source, if somebody looks.
struct Bars(Vec<Option<ProgressBar>>);

impl Bars {
    fn new(pipelines: &[(Arc<PipelineStatus>, bool)]) -> Self {
        if !std::io::stderr().is_terminal() {
            return Bars(Vec::new());
        }
        let all = MultiProgress::new();
        let template = "{prefix:20!} [{bar:30}] {percent:>3}% {msg} {elapsed}";
        let bar = |(status, finite): &(Arc<PipelineStatus>, bool)| {
            finite.then(|| {
                let bar = all.add(ProgressBar::new(1));
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.with_prefix(status.name.clone())
            })
        };
        Bars(pipelines.iter().map(bar).collect())
    }

    fn show(&self, pipelines: &[(Arc<PipelineStatus>, bool)]) {
        for (bar, (status, _)) in self.0.iter().zip(pipelines) {
            let Some(bar) = bar else { continue };
            if let Some((done, total, _)) = status.facts().progress {
                bar.set_length(total);
                bar.set_position(done);
            }
            let rows = status.stages().first().map_or(0, |(_, counters)| counters.get().rows_in);
            bar.set_message(format!("{rows} rows"));
        }
    }

    fn clear(&self) {
        for bar in self.0.iter().flatten() {
            bar.finish_and_clear();
        }
    }
}
