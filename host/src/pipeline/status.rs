//! What can be seen of a pipeline from outside while it runs: counts, states, errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acequia_connector_api::Progress;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Now, in milliseconds since the epoch.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// What a stage has counted since the pipeline's first start; part of the checkpoint, so that the sums hold across
/// restarts. For every stage, at every checkpoint: `rows_in + added = rows_out + dropped + dead` (invariant 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Rows that came to the stage. For the source: rows that it found, good and bad.
    pub rows_in: u64,
    /// Rows that it gave on. For a sink: rows that the target has confirmed or will have at the next flush.
    pub rows_out: u64,
    /// Rows that a transform left out on purpose.
    pub dropped: u64,
    /// Output rows beyond one for each input row.
    pub added: u64,
    /// Rows that failed.
    pub dead: u64,
}

/// The counts of a running stage.
#[derive(Debug, Default)]
pub struct StageCounters {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    dropped: AtomicU64,
    added: AtomicU64,
    dead: AtomicU64,
    retries: AtomicU64,
    replaced: AtomicU64,
    batches: AtomicU64,
}

impl StageCounters {
    /// Count one batch. Only the stage's own task calls it, between two messages, so a reader may see a batch half
    /// counted; a barrier never does.
    pub fn add(&self, counts: Counts) {
        self.rows_in.fetch_add(counts.rows_in, Ordering::Relaxed);
        self.rows_out.fetch_add(counts.rows_out, Ordering::Relaxed);
        self.dropped.fetch_add(counts.dropped, Ordering::Relaxed);
        self.added.fetch_add(counts.added, Ordering::Relaxed);
        self.dead.fetch_add(counts.dead, Ordering::Relaxed);
        // A flush counts rows too, and a tick: no batch came then.
        self.batches.fetch_add(u64::from(counts.rows_in > 0), Ordering::Relaxed);
    }

    /// Count a retry of the same work.
    pub fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// This run's guest was replaced `now` times so far, of which `before` are counted already.
    pub fn replaced(&self, before: u64, now: u64) {
        self.replaced.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
    }

    /// The counts now.
    pub fn get(&self) -> Counts {
        Counts {
            rows_in: self.rows_in.load(Ordering::Relaxed),
            rows_out: self.rows_out.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            added: self.added.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
        }
    }

    /// Go back to a checkpoint's counts.
    pub fn set(&self, counts: Counts) {
        self.rows_in.store(counts.rows_in, Ordering::Relaxed);
        self.rows_out.store(counts.rows_out, Ordering::Relaxed);
        self.dropped.store(counts.dropped, Ordering::Relaxed);
        self.added.store(counts.added, Ordering::Relaxed);
        self.dead.store(counts.dead, Ordering::Relaxed);
    }

    /// Batches that came since the daemon's start.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Retries and replacements since the daemon's start.
    pub fn troubles(&self) -> (u64, u64) {
        (self.retries.load(Ordering::Relaxed), self.replaced.load(Ordering::Relaxed))
    }
}

/// Where a pipeline is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Its configuration could not be used, and there is no older one to run.
    Failed,
    /// It is being opened.
    Starting,
    /// Rows can flow.
    Running,
    /// It failed and waits to try again by itself.
    Retrying,
    /// It was told to stop, or `on_error = "stop"` met a row that failed.
    Stopped,
    /// Its source has ended and every row is confirmed.
    Completed,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [State; 6] =
        [State::Failed, State::Starting, State::Running, State::Retrying, State::Stopped, State::Completed];

    /// The word as REST has it.
    pub fn name(self) -> &'static str {
        match self {
            State::Failed => "FAILED",
            State::Starting => "STARTING",
            State::Running => "RUNNING",
            State::Retrying => "RETRYING",
            State::Stopped => "STOPPED",
            State::Completed => "COMPLETED",
        }
    }
}

/// An error and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Milliseconds since the epoch.
    pub at: u64,
    /// The whole chain of causes.
    pub message: String,
}

impl Trouble {
    /// An error, now.
    pub fn now(message: impl Into<String>) -> Self {
        Trouble { at: now_millis(), message: message.into() }
    }
}

/// What became of the last reload of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Milliseconds since the epoch.
    pub at: u64,
    /// `started`, `unchanged`, `swapped`, `restarted` or `rejected`.
    pub kind: &'static str,
    /// What is wrong with the new configuration, if it was rejected.
    pub error: Option<String>,
}

/// The last checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckpointStatus {
    /// How many there have been since the pipeline's first start.
    pub number: u64,
    /// When it was stored, milliseconds since the epoch; 0: never.
    pub at: u64,
    /// From the barrier's start to the store, microseconds.
    pub took_micros: u64,
    /// Size of the snapshots in it.
    pub bytes: u64,
}

/// What a pipeline reads from and writes to, by the connectors' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connectors {
    /// The source's type; empty as long as the pipeline has not been opened.
    pub source: String,
    /// The sinks' types, in the order of the file.
    pub sinks: Vec<String>,
}

/// Everything about a pipeline that changes seldom.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it is in its life.
    pub state: State,
    /// The first error since it last worked.
    pub first_error: Option<Trouble>,
    /// The last error, kept until the daemon ends.
    pub last_error: Option<Trouble>,
    /// How often it was restarted after an error since the daemon's start.
    pub restarts: u64,
    /// Counts up with every configuration that takes effect.
    pub generation: u64,
    /// Hash of the configuration and plugins that run.
    pub hash: String,
    /// The last reload.
    pub reload: Option<Reload>,
    /// The last checkpoint.
    pub checkpoint: CheckpointStatus,
    /// How far a finite source is.
    pub progress: Option<(u64, u64, &'static str)>,
    /// Things that are no errors but are likely not meant.
    pub warnings: Vec<String>,
    /// What it reads from and writes to.
    pub connectors: Connectors,
    /// The stages that don't work for now and try again by themselves.
    pub retrying: BTreeSet<String>,
}

/// What can be seen of a pipeline.
#[derive(Debug)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    facts: Mutex<Facts>,
    stages: Mutex<Vec<(String, Arc<StageCounters>)>>,
    /// Counts up whenever a stage did something: what the watchdog looks at.
    pulse: AtomicU64,
    /// When the run's loop last came round, milliseconds since `origin`; 0: never.
    alive_at: AtomicU64,
    origin: Instant,
}

impl PipelineStatus {
    /// The status of a pipeline that has not started.
    pub fn new(name: &str) -> Self {
        PipelineStatus {
            name: name.to_owned(),
            facts: Mutex::new(Facts {
                state: State::Starting,
                first_error: None,
                last_error: None,
                restarts: 0,
                generation: 0,
                hash: String::new(),
                reload: None,
                checkpoint: CheckpointStatus::default(),
                progress: None,
                warnings: Vec::new(),
                connectors: Connectors::default(),
                retrying: BTreeSet::new(),
            }),
            stages: Mutex::new(Vec::new()),
            pulse: AtomicU64::new(0),
            alive_at: AtomicU64::new(0),
            origin: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // The facts are plain values: a panic elsewhere can't leave them in a state that would mislead.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the facts.
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// Change the facts.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
    }

    /// Enter a state.
    pub fn enter(&self, state: State) {
        self.lock().state = state;
    }

    /// An error happened.
    pub fn trouble(&self, message: &str) {
        let mut facts = self.lock();
        let trouble = Trouble::now(message);
        facts.first_error.get_or_insert_with(|| trouble.clone());
        facts.last_error = Some(trouble);
    }

    /// A stage does not work for now, and tries again by itself.
    pub fn retrying(&self, stage: &str, message: &str) {
        self.trouble(message);
        let mut facts = self.lock();
        facts.retrying.insert(stage.to_owned());
        facts.state = State::Retrying;
    }

    /// A stage works (again). The pipeline does when all of them do.
    pub fn recovered(&self, stage: &str) {
        let mut facts = self.lock();
        if facts.retrying.remove(stage) && facts.retrying.is_empty() {
            facts.state = State::Running;
        }
    }

    /// A run is open: rows can flow.
    pub fn opened(&self) {
        self.alive();
        let mut facts = self.lock();
        facts.retrying.clear();
        facts.state = State::Running;
    }

    /// Everything that came in is confirmed: the first error is history, unless a stage still tries.
    pub fn settled(&self) {
        let mut facts = self.lock();
        if facts.state == State::Running {
            facts.first_error = None;
        }
    }

    /// The counters of a stage, made at its first mention.
    pub fn stage(&self, id: &str) -> Arc<StageCounters> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        match stages.iter().find(|(name, _)| name == id) {
            Some((_, counters)) => counters.clone(),
            None => {
                let counters = Arc::new(StageCounters::default());
                stages.push((id.to_owned(), counters.clone()));
                counters
            }
        }
    }

    /// The stages now are these, in this order; counters of others are let go.
    pub fn arrange(&self, ids: &[String]) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arranged = Vec::with_capacity(ids.len());
        for id in ids {
            let counters = stages.iter().find(|(name, _)| name == id).map(|(_, counters)| counters.clone());
            arranged.push((id.clone(), counters.unwrap_or_default()));
        }
        *stages = arranged;
    }

    /// Every stage with its counters, in order of flow.
    pub fn stages(&self) -> Vec<(String, Arc<StageCounters>)> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counts of every stage.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        self.stages().into_iter().map(|(id, counters)| (id, counters.get())).collect()
    }

    /// A stage did something.
    pub fn beat(&self) {
        self.pulse.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a stage did something.
    pub fn pulse(&self) -> u64 {
        self.pulse.load(Ordering::Relaxed)
    }

    /// The run's own loop came round: said every second, even if nothing flows.
    pub fn alive(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.alive_at.store(now.saturating_add(1), Ordering::Relaxed);
    }

    /// How long ago the run's loop last came round, whatever the wall clock says; `None` if it never has.
    pub fn silent_for(&self) -> Option<Duration> {
        let alive = self.alive_at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.origin.elapsed().saturating_sub(Duration::from_millis(alive)))
    }

    /// How far a finite source is.
    pub fn set_progress(&self, progress: Option<Progress>) {
        self.lock().progress = progress.map(|progress| (progress.done, progress.total, progress.unit));
    }
}
