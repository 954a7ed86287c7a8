//! The sink: lines are collected, and sent while the next rows are encoded.
//!
//! How a point is written for sure (invariants 1 to 4):
//! - a flush returns when the server has answered for every line, and an answer is a success or a failed row;
//! - a chunk of lines that could not be sent stays first in the queue, and the engine is told at the next call; points are
//!   never dropped for want of room, since `write` waits for room;
//! - with `concurrency = 1` chunks are sent in order, so that of two rows with the same series and time the later one
//!   stays. Above 1 that is not so, since a chunk can be overtaken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use acequia_connector_api::{Batch, ConnectorError, Context, FailedRow, Flushed, Share, Sink};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::chunk::{Builder, Chunk};
use crate::config::{InfluxSink, PostLimits};
use crate::deliver::Target;
use crate::encode::Encoder;

pub(crate) struct InfluxWriter {
    encoder: Encoder,
    limits: PostLimits,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    share: Share,
    /// The batch that `write` was last called with is in the queue already, and these are its failed rows.
    taken: Option<Vec<FailedRow>>,
}

/// What the sink and the tasks that send share.
struct Shared {
    target: Target,
    concurrency: usize,
    wait: Duration,
    state: Mutex<State>,
    /// Something in the state is new.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Lines that are not enough for a request yet, and since when.
    partial: Builder,
    since: Option<Instant>,
    /// A task waits for the time to send `partial`.
    timer: bool,
    queue: VecDeque<Chunk>,
    /// Tasks that are sending.
    senders: usize,
    /// Why sending has stopped.
    error: Option<ConnectorError>,
    /// Refused since the last flush.
    failed: Vec<FailedRow>,
}

impl State {
    /// Let the lines go that have been collected.
    fn cut(&mut self) {
        self.since = None;
        if !self.partial.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.partial).finish());
        }
    }

    fn idle(&self) -> bool {
        self.queue.is_empty() && self.senders == 0
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Start to send, if there is something to send and a sender may be added. The caller then runs `send`.
    fn claim(&self, state: &mut State) -> bool {
        let claim = state.error.is_none() && state.senders < self.concurrency && state.senders < state.queue.len();
        if claim {
            state.senders += 1;
        }
        claim
    }

    /// Send until the queue is empty, or until something goes wrong.
    async fn send(self: Arc<Self>) {
        let mut sender = Sender { shared: &self, done: false };
        loop {
            let mut chunk = {
                let mut state = self.state();
                let next = if state.error.is_none() { state.queue.pop_front() } else { None };
                let Some(chunk) = next else {
                    sender.leave(&mut state);
                    break;
                };
                chunk
            };
            self.changed.notify_one();
            let mut failed = Vec::new();
            let sent = self.target.deliver(&mut chunk, &mut failed).await;
            let mut state = self.state();
            state.failed.append(&mut failed);
            if let Err(error) = sent {
                state.queue.push_front(chunk);
                state.error.get_or_insert(error);
            }
        }
    }

    /// Send lines that have waited long enough for others.
    async fn tick(self: Arc<Self>) {
        while let Some(due) = self.due() {
            tokio::time::sleep_until(due).await;
        }
        let claim = self.claim(&mut self.state());
        if claim {
            self.send().await;
        }
    }

    /// When the lines have waited long enough; `None` if there are none, or not any more.
    fn due(&self) -> Option<Instant> {
        let mut state = self.state();
        let due = state.since.map(|since| since + self.wait).filter(|due| *due > Instant::now());
        if due.is_none() {
            state.timer = false;
            // While a batch is encoded the lines are not here, and `since` is empty.
            if state.since.is_some() {
                state.cut();
            }
        }
        due
    }
}

/// Counts a sender out, even if it panics.
struct Sender<'a> {
    shared: &'a Shared,
    done: bool,
}

impl Sender<'_> {
    fn leave(&mut self, state: &mut State) {
        self.done = true;
        state.senders = state.senders.saturating_sub(1);
        self.shared.changed.notify_one();
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut state = self.shared.state();
            state.senders = state.senders.saturating_sub(1);
            // Its chunk is gone: the pipeline has to go back to its checkpoint.
            state.error = Some(ConnectorError::failed("the task that sends points to InfluxDB ended"));
            self.shared.changed.notify_one();
        }
    }
}

impl InfluxWriter {
    pub(crate) async fn open(config: &InfluxSink, context: &Context) -> Result<Self, ConnectorError> {
        let keys = config.keys();
        let ini = keys.ini(context)?;
        let server = keys.server(&ini, context)?;
        let bucket = config.bucket.as_deref().or(ini.get("bucket")).map(str::to_owned);
        let bucket =
            bucket.ok_or_else(|| ConnectorError::failed("`bucket` is missing, and the file of `config` has none"))?;
        let target = Target { server, bucket, precision: config.precision.name(), gzip: config.gzip };
        target.probe().await?;
        let shared = Shared {
            target,
            concurrency: config.concurrency,
            wait: config.batch.wait.0,
            state: Mutex::default(),
            changed: Notify::new(),
        };
        Ok(InfluxWriter {
            encoder: Encoder::new(config, ini.tags.into_iter().collect())?,
            limits: config.batch,
            shared: Arc::new(shared),
            tasks: JoinSet::new(),
            share: context.share.clone(),
            taken: None,
        })
    }

    /// The batch's rows as lines, those that are enough for a request in the queue. Returns the rows that no line can hold.
    fn take(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        let shared = self.shared.clone();
        let (mut lines, mut since) = {
            let mut state = shared.state();
            (std::mem::take(&mut state.partial), state.since.take())
        };
        let was_empty = lines.is_empty();
        let limits = self.limits;
        let (tasks, share) = (&mut self.tasks, &self.share);
        let refused = self.encoder.encode(batch, &mut lines, |lines| {
            if lines.len() >= limits.rows || lines.body.len() >= limits.bytes.as_usize() {
                let chunk = lines.take().finish();
                let mut state = shared.state();
                state.queue.push_back(chunk);
                since = None;
                // Sent while the rest is encoded.
                if shared.claim(&mut state) {
                    tasks.spawn(share.meter(shared.clone().send()));
                }
            }
        });
        let mut state = shared.state();
        if lines.is_empty() {
            // Without a line the batch need not be kept.
            lines = Builder::default();
        } else if was_empty || since.is_none() {
            since = Some(Instant::now());
        }
        state.since = since;
        state.partial = lines;
        if state.since.is_some() && !state.timer {
            state.timer = true;
            tasks.spawn(share.meter(shared.clone().tick()));
        }
        drop(state);
        refused
    }

    /// See to it that sending goes on, and wait until `enough`.
    async fn wait(&mut self, enough: impl Fn(&State) -> bool) -> Result<(), ConnectorError> {
        loop {
            while self.tasks.try_join_next().is_some() {}
            {
                let mut state = self.shared.state();
                if state.senders == 0
                    && let Some(error) = state.error.take()
                {
                    return Err(error);
                }
                while self.shared.claim(&mut state) {
                    self.tasks.spawn(self.share.meter(self.shared.clone().send()));
                }
                if enough(&state) {
                    return Ok(());
                }
            }
            self.shared.changed.notified().await;
        }
    }
}

#[async_trait]
impl Sink for InfluxWriter {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        // Without rows it may be without columns, too.
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if self.taken.is_none() {
            self.taken = Some(self.take(batch)?);
        }
        let room = 2 * self.shared.concurrency;
        self.wait(|state| state.queue.len() <= room && state.error.is_none()).await?;
        Ok(self.taken.take().unwrap_or_default())
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        self.shared.state().cut();
        self.wait(State::idle).await?;
        let failed = std::mem::take(&mut self.shared.state().failed);
        Ok(Flushed { failed, state: None })
    }

    async fn close(&mut self) {
        self.tasks.shutdown().await;
    }
}
