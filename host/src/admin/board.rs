//! What the daemon shows to the outside: the admin listener, systemd, the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::pipeline::status::{PipelineStatus, State, now_millis};

/// What became of a pass over the directories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pass {
    /// When it ended, milliseconds since the epoch.
    pub at: u64,
    /// Counts up with every pass that changed something.
    pub generation: u64,
    /// Pipelines started, swapped, restarted, stopped.
    pub changed: usize,
    /// What could not be used: file and message, as a person reads it.
    pub errors: Vec<(String, String)>,
}

/// Somebody asks for a pass, and wants to know what became of it.
pub type ReloadRequest = oneshot::Sender<Pass>;

/// The shared view of a running daemon. Cheap to share; never held across an await.
#[derive(Debug)]
pub struct Board {
    /// When the daemon started, milliseconds since the epoch.
    pub started_at: u64,
    pipelines: Mutex<BTreeMap<String, Arc<PipelineStatus>>>,
    pass: Mutex<Pass>,
    passes: AtomicU64,
    ready: AtomicBool,
    /// What the heartbeat is counted from: a clock that no one sets.
    origin: Instant,
    /// When the supervisor's loop last came round, milliseconds after `origin`.
    beat: AtomicU64,
    reload: mpsc::Sender<ReloadRequest>,
}

impl Board {
    /// An empty board; reload requests come out of the receiver.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<ReloadRequest>) {
        let (reload, requests) = mpsc::channel(16);
        let board = Board {
            started_at: now_millis(),
            pipelines: Mutex::default(),
            pass: Mutex::default(),
            passes: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            origin: Instant::now(),
            beat: AtomicU64::new(0),
            reload,
        };
        (Arc::new(board), requests)
    }

    /// Every pipeline by name, also those that have never run because their file is wrong.
    pub fn pipelines(&self) -> BTreeMap<String, Arc<PipelineStatus>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One pipeline.
    pub fn pipeline(&self, name: &str) -> Option<Arc<PipelineStatus>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The status of a pipeline, made at its first mention.
    pub fn status_of(&self, name: &str) -> Arc<PipelineStatus> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        pipelines.entry(name.to_owned()).or_insert_with(|| Arc::new(PipelineStatus::new(name))).clone()
    }

    /// The pipeline is gone, and so is its file.
    pub fn forget(&self, name: &str) {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// How many pipelines are in each state.
    pub fn census(&self) -> BTreeMap<&'static str, usize> {
        let mut census = BTreeMap::new();
        for status in self.pipelines().values() {
            *census.entry(status.facts().state.name()).or_insert(0) += 1;
        }
        census
    }

    /// The last pass over the directories.
    pub fn pass(&self) -> Pass {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many passes there have been.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// A pass has ended.
    pub fn set_pass(&self, pass: Pass) {
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = pass;
        self.passes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the first pass over the directories is done and the daemon is not on its way out.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The first pass is done; or the daemon is on its way out.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// The supervisor's loop came round: to be said every few seconds, also when there is nothing to do and in the middle
    /// of a long pass.
    pub fn beat(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(now, Ordering::Relaxed);
    }

    /// How long ago the supervisor's loop last came round; if it never has, how long the board has been there.
    pub fn heartbeat_age(&self) -> Duration {
        self.origin.elapsed().saturating_sub(Duration::from_millis(self.beat.load(Ordering::Relaxed)))
    }

    /// Ask for a pass over the directories, and wait for what becomes of it. `None`: the daemon is on its way out.
    pub async fn reload(&self) -> Option<Pass> {
        let (reply, answer) = oneshot::channel();
        self.reload.send(reply).await.ok()?;
        answer.await.ok()
    }

    /// Pipelines whose run has not come round for longer than `limit` milliseconds although it should have: what the
    /// watchdog acts on. A pipeline that waits for a server or for rows comes round all the same.
    pub fn hung(&self, limit: u64) -> Vec<String> {
        let limit = Duration::from_millis(limit);
        self.pipelines()
            .into_iter()
            .filter(|(_, status)| {
                status.facts().state == State::Running && status.silent_for().is_some_and(|silent| silent > limit)
            })
            .map(|(name, _)| name)
            .collect()
    }
}
