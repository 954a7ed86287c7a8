//! One run of a pipeline: driven until it ends, is told to stop, or fails.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{Handoff, Position, Share};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Barrier;
use super::chain::ChainCommand;
use super::error::RunError;
use super::lifecycle::{Command, ReloadError};
use super::pace::Pace;
use super::setup::Setup;
use super::sink::Committed;
use super::source::{STAGE as SOURCE, SourceCommand};
use super::status::{CheckpointStatus, Counts, PipelineStatus, now_millis};
use crate::state::{Checkpoint, SinkState, Store};

/// How long a pipeline that is told to stop may take to get its rows out. After that it ends as after a crash: from the
/// last checkpoint, with nothing lost that the source can read again.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the stages may take to end once the run is over: to close, and to make the last checkpoint count in a sink
/// of two phases. Then they are ended.
const END: Duration = Duration::from_secs(2);
/// How long the transforms may take to be swapped: a call that is under way, and the start of the new ones. Whoever
/// reloads waits for it, so it must stay below what `packaging/acequia.service` has as its watchdog's interval.
const SWAP: Duration = Duration::from_secs(15);
/// How often the run's loop says that it comes round, if checkpoints are not more frequent.
const BEAT: Duration = Duration::from_secs(1);
/// Checkpoints after which a careful run is taken to be past its trouble.
const CAREFUL_CHECKPOINTS: u64 = 2;

/// What the stages tell the run.
#[derive(Debug)]
pub(super) enum Report {
    /// The source sent the barrier.
    Source { number: u64, position: Position, handoff: Option<Handoff>, counts: Counts },
    /// The barrier passed the transforms. The snapshots held the rows up for so long.
    Chain { number: u64, snapshots: BTreeMap<String, Vec<u8>>, held: Duration, counts: BTreeMap<String, Counts> },
    /// Everything before the barrier is safe in this sink.
    Sink { id: String, number: u64, state: Option<Value>, counts: Counts },
    /// The sink in two phases has made everything before the barrier count.
    Final { number: u64 },
    /// The source wants a checkpoint now.
    Wanted,
    /// The source has no more rows.
    Ended,
}

/// Why a run ended.
pub(super) enum RunEnd {
    /// The source has ended, and every row is confirmed.
    Completed,
    /// It was told to stop.
    Stopped(oneshot::Sender<()>),
    /// It was told to make room for a new configuration.
    Replaced(Arc<Setup>, oneshot::Sender<Result<(), ReloadError>>),
    /// It failed.
    Failed,
}

/// How a run ended.
pub(super) struct Outcome {
    pub(super) end: RunEnd,
    /// What failed. Always there if the run failed; also there if it failed while it was being stopped or replaced.
    pub(super) error: Option<RunError>,
}

/// Whether a run that was to end got every row out in time.
enum InTime {
    Yes,
    No,
}

/// A barrier on its way.
struct InFlight {
    barrier: Barrier,
    started: Instant,
    checkpoint: Checkpoint,
    /// What the source gave along for a sink in two phases.
    handoff: Option<Handoff>,
    /// Reports that are missing: the source's, the chain's, each sink's; then, of a sink in two phases, that it is final.
    missing: usize,
    /// Since when it is on disk.
    stored: Option<Arc<Checkpoint>>,
}

/// New transforms on their way into the chain.
pub(super) struct Swap {
    setup: Arc<Setup>,
    reply: oneshot::Sender<Result<(), ReloadError>>,
    answer: oneshot::Receiver<Result<(), RunError>>,
    deadline: Instant,
}

impl Swap {
    /// From here on the chain does not take the new transforms; what it said, if it has taken or refused them already. In
    /// another thread it may do so at this very moment, and what it has done must not be called rejected (invariant 7).
    fn withdraw(&mut self) -> Option<Result<(), RunError>> {
        self.answer.close();
        self.answer.try_recv().ok()
    }
}

/// The stages' tasks, by name.
pub(super) struct Tasks {
    share: Share,
    set: JoinSet<Result<(), RunError>>,
    names: HashMap<Id, String>,
}

/// A run.
pub(super) struct Run {
    pub(super) setup: Arc<Setup>,
    pub(super) store: Store,
    pub(super) status: Arc<PipelineStatus>,
    pub(super) tasks: Tasks,
    pub(super) source: mpsc::Sender<SourceCommand>,
    pub(super) chain: mpsc::UnboundedSender<ChainCommand>,
    /// To each sink, in the order of the setup; the dead letters' last.
    pub(super) committed: Vec<mpsc::Sender<Committed>>,
    /// Which of them has two phases.
    pub(super) two_phase: Option<usize>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) swap: Option<Swap>,
    pub(super) last: Checkpoint,
    pub(super) careful: bool,
    /// How many checkpoints it has stored.
    pub(super) made: u64,
    /// The pipeline's pulse when the last barrier was sent.
    pub(super) pulse: u64,
    pub(super) pace: Pace,
}

impl Run {
    /// How many checkpoints this run has stored.
    pub(super) fn checkpoints(&self) -> u64 {
        self.made
    }

    /// The setup that runs; a swap changes it.
    pub(super) fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    /// Drive it until it ends. When this returns, every task of the run has ended, so that what it held is free.
    pub(super) async fn drive(&mut self, commands: &mut mpsc::Receiver<Command>) -> Outcome {
        let mut end = None;
        let result = self.drive_tasks(commands, &mut end).await;
        let late = self.close(matches!(result, Ok(InTime::Yes))).await;
        let error = match (result, late) {
            // When one stage fails, its neighbours fail after it because their channels close: find the one that began.
            (Err(echo), Some(own)) if echo.echo => Some(own),
            (Err(error), _) => Some(error),
            (Ok(_), late) => late,
        };
        let end = match end {
            Some(RunEnd::Completed) | None if error.is_some() => RunEnd::Failed,
            Some(end) => end,
            None => RunEnd::Failed,
        };
        Outcome { end: self.settle_swap(end), error }
    }

    async fn drive_tasks(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        end: &mut Option<RunEnd>,
    ) -> Result<InTime, RunError> {
        let interval = self.setup.delivery.checkpoint_interval.0.max(Duration::from_millis(1));
        let mut timer = every(interval);
        let mut beat = every(BEAT);
        let mut in_flight: Option<InFlight> = None;
        // By when a run that is to end must have done so.
        let mut deadline: Option<Instant> = None;
        let mut last_sent = false;
        let mut wanted = false;
        loop {
            if wanted && end.is_none() && in_flight.is_none() {
                in_flight = Some(self.send_barrier(false).await?);
                wanted = false;
            }
            if end.is_some() && in_flight.is_none() && !last_sent {
                in_flight = Some(self.send_barrier(true).await?);
                last_sent = true;
            }
            let told_to_end = matches!(end, Some(RunEnd::Stopped(_) | RunEnd::Replaced(..)));
            tokio::select! {
                biased;
                report = self.reports.recv() => match report {
                    Some(Report::Ended) => { end.get_or_insert(RunEnd::Completed); }
                    Some(Report::Wanted) => wanted = true,
                    Some(report) => {
                        if let Some(done) = self.take(report, &mut in_flight)? {
                            in_flight = self.commit(done).await?;
                            if last_sent && in_flight.is_none() {
                                return Ok(InTime::Yes);
                            }
                        }
                    }
                    None => return Err(RunError::echo("run")),
                },
                Some(result) = self.tasks.join() => result?,
                result = swapped(&mut self.swap) => self.end_swap(result),
                command = commands.recv(), if !told_to_end => {
                    match command {
                        Some(Command::Swap(setup, reply)) if end.is_none() => {
                            self.begin_swap(setup, reply);
                            continue;
                        }
                        Some(Command::Swap(setup, reply) | Command::Replace(setup, reply)) => {
                            *end = Some(RunEnd::Replaced(setup, reply));
                        }
                        Some(Command::Stop(reply)) => *end = Some(RunEnd::Stopped(reply)),
                        None => *end = Some(RunEnd::Stopped(oneshot::channel().0)),
                    }
                    self.supersede_swap();
                    deadline = Some(Instant::now() + DRAIN);
                },
                () = until(deadline), if deadline.is_some() => {
                    tracing::warn!(pipeline = self.setup.name, after = ?DRAIN,
                        "the rows in flight could not be delivered in time; the pipeline ends at its last checkpoint");
                    return Ok(InTime::No);
                }
                _ = beat.tick(), if interval > BEAT => self.status.alive(),
                _ = timer.tick() => {
                    self.status.alive();
                    if end.is_none() && in_flight.is_none() {
                        if self.status.pulse() == self.pulse {
                            self.status.settled();
                        } else if self.pace.allows() {
                            in_flight = Some(self.send_barrier(false).await?);
                        }
                    }
                }
            }
        }
    }

    async fn send_barrier(&mut self, last: bool) -> Result<InFlight, RunError> {
        self.pulse = self.status.pulse();
        let barrier = Barrier { number: self.last.number + 1, last };
        // There is always room: at most one barrier is on its way, and what else goes there never waits.
        self.source.send(SourceCommand::Barrier(barrier)).await.map_err(|_| RunError::echo("run"))?;
        Ok(InFlight {
            barrier,
            started: Instant::now(),
            checkpoint: Checkpoint {
                number: barrier.number,
                source_type: self.setup.source.spec.type_name().to_owned(),
                ..Checkpoint::default()
            },
            handoff: None,
            stored: None,
            missing: 2 + self.setup.sinks.len() + usize::from(self.setup.dead_letter.is_some()),
        })
    }

    /// Take a report. When it was the last one missing, the checkpoint is complete and comes back (invariant 1).
    fn take(&mut self, report: Report, slot: &mut Option<InFlight>) -> Result<Option<InFlight>, RunError> {
        let Some(flight) = slot.as_mut() else { return Ok(None) };
        let checkpoint = &mut flight.checkpoint;
        let number = match report {
            Report::Source { number, position, handoff, counts } => {
                checkpoint.position = position;
                flight.handoff = handoff;
                checkpoint.counts.insert(SOURCE.to_owned(), counts);
                number
            }
            Report::Chain { number, snapshots, held, counts } => {
                checkpoint.snapshots = snapshots;
                self.pace.held(held);
                checkpoint.counts.extend(counts);
                number
            }
            Report::Sink { id, number, state, counts } => {
                if let Some(state) = state {
                    let stage = self.setup.sinks.iter().chain(&self.setup.dead_letter).find(|stage| stage.id == id);
                    let sink_type = stage.map_or("", |stage| stage.spec.type_name()).to_owned();
                    checkpoint.sinks.insert(id.clone(), SinkState { sink_type, state });
                }
                checkpoint.counts.insert(id, counts);
                number
            }
            Report::Final { number } => number,
            Report::Ended | Report::Wanted => return Ok(None),
        };
        if number != flight.barrier.number {
            return Err(RunError::new(
                "run",
                format!("a stage answered barrier {number}, not {}", flight.barrier.number),
            ));
        }
        flight.missing = flight.missing.saturating_sub(1);
        Ok(if flight.missing == 0 { slot.take() } else { None })
    }

    /// Everything before the barrier is safe: store position, snapshots and sinks' states together (invariant 2). What
    /// comes back is still on its way: its sink in two phases has to make it count.
    async fn commit(&mut self, mut flight: InFlight) -> Result<Option<InFlight>, RunError> {
        if let Some(stored) = flight.stored.take() {
            self.confirm(&stored);
            return Ok(None);
        }
        let mut checkpoint = flight.checkpoint;
        checkpoint.at = now_millis();
        let bytes = checkpoint.snapshots.values().map(|bytes| bytes.len() as u64).sum();
        let stored = Arc::new(checkpoint);
        let saved = match self.two_phase {
            Some(_) => self.store.save_beside(&self.setup.name, stored.clone()).await,
            None => self.store.save(&self.setup.name, stored.clone()).await,
        };
        saved.map_err(|error| RunError::new("checkpoint", error.to_string()))?;
        self.made += 1;
        self.last.number = stored.number;
        self.status.settled();
        self.status.update(|facts| {
            facts.checkpoint = CheckpointStatus {
                number: stored.number,
                at: stored.at,
                took_micros: u64::try_from(flight.started.elapsed().as_micros()).unwrap_or(u64::MAX),
                bytes,
            };
        });
        let Some(committed) = self.two_phase.and_then(|index| self.committed.get(index)) else {
            self.confirm(&stored);
            return Ok(None);
        };
        // There is room: it waits for this one, and has had every one before. If it has ended, the run is about to.
        let _ = committed.try_send(flight.handoff.take());
        Ok(Some(InFlight { checkpoint: Checkpoint::default(), missing: 1, stored: Some(stored), ..flight }))
    }

    /// The checkpoint stands: tell whoever wants to know.
    fn confirm(&mut self, stored: &Checkpoint) {
        for (index, committed) in self.committed.iter().enumerate() {
            if self.two_phase != Some(index) {
                // A sink that still works on the one before learns of both at once.
                let _ = committed.try_send(None);
            }
        }
        let _ = self.source.try_send(SourceCommand::Committed(stored.position.clone()));
        if self.careful && self.made >= CAREFUL_CHECKPOINTS {
            self.careful = false;
            // If the chain has ended, the run is about to.
            let _ = self.chain.send(ChainCommand::Careless);
        }
    }

    /// Hand the new transforms to the chain. The run goes on meanwhile: the chain may have to finish a call first.
    fn begin_swap(&mut self, setup: Arc<Setup>, reply: oneshot::Sender<Result<(), ReloadError>>) {
        self.supersede_swap();
        let (chain_reply, answer) = oneshot::channel();
        // If the chain has ended, the answer says so.
        let _ = self.chain.send(ChainCommand::Swap(setup.transforms.clone(), chain_reply));
        self.swap = Some(Swap { setup, reply, answer, deadline: Instant::now() + SWAP });
    }

    fn end_swap(&mut self, result: SwapResult) {
        let Some(mut swap) = self.swap.take() else { return };
        let result = match result {
            SwapResult::Done(result) => result,
            SwapResult::Late => swap.withdraw().unwrap_or_else(|| {
                Err(RunError::new(
                    "transforms",
                    format!(
                        "they did not take the change within {SWAP:?}: a call or the start of the new ones takes too long"
                    ),
                ))
            }),
            // The chain has failed. The run is about to end, and then goes on with the new ones.
            SwapResult::Gone => {
                self.swap = Some(swap);
                return;
            }
        };
        if result.is_ok() {
            self.setup = swap.setup;
        }
        self.status.arrange(&self.setup.stage_ids());
        drop(swap.reply.send(result.map_err(|error| ReloadError(error.to_string()))));
    }

    /// Another command came before the transforms were in place: the chain forgets about them.
    fn supersede_swap(&mut self) {
        if let Some(mut swap) = self.swap.take() {
            if let Some(result) = swap.withdraw() {
                self.swap = Some(swap);
                return self.end_swap(SwapResult::Done(result));
            }
            drop(swap.reply.send(Err(ReloadError("another command came before it was in place".to_owned()))));
        }
    }

    /// The run has ended with transforms still on their way into it: a run that failed makes room for them (they may be
    /// the cure).
    fn settle_swap(&mut self, end: RunEnd) -> RunEnd {
        let Some(swap) = self.swap.as_mut() else { return end };
        if let Ok(result) = swap.answer.try_recv() {
            self.end_swap(SwapResult::Done(result));
            return end;
        }
        match (self.swap.take(), end) {
            (Some(swap), RunEnd::Failed | RunEnd::Completed) => RunEnd::Replaced(swap.setup, swap.reply),
            (_, end) => end,
        }
    }

    /// Let the stages close what they hold, for a moment; then they are ended. Returns what went wrong in the one that
    /// failed first. After an end in good order a stage that does not come to its end is such a failure too, since the
    /// last checkpoint may not count in it yet.
    async fn close(&mut self, in_order: bool) -> Option<RunError> {
        self.committed.clear();
        self.source = mpsc::channel(1).0;
        self.chain = mpsc::unbounded_channel().0;
        let mut first = None;
        let tasks = &mut self.tasks;
        let all = async {
            while let Some(joined) = tasks.set.join_next_with_id().await {
                if let Some(error) = tasks.own_error(joined) {
                    first.get_or_insert(error);
                }
            }
        };
        let late = tokio::time::timeout(END, all).await.is_err();
        if late {
            tracing::warn!(pipeline = self.setup.name, after = ?END, "a stage does not come to its end and is ended");
            if in_order {
                first.get_or_insert(RunError::new("run", format!("a stage did not come to its end within {END:?}")));
            }
        }
        self.tasks.set.shutdown().await;
        first
    }
}

impl Tasks {
    /// None yet; they will be counted against that share.
    pub(super) fn of(share: Share) -> Self {
        Tasks { share, set: JoinSet::new(), names: HashMap::new() }
    }

    pub(super) fn spawn(&mut self, name: &str, task: impl Future<Output = Result<(), RunError>> + Send + 'static) {
        let task = self.share.meter(task);
        self.add(name, task);
    }

    pub(super) fn spawn_source(&mut self, task: impl Future<Output = Result<(), RunError>> + Send + 'static) {
        let task = self.share.meter_source(task);
        self.add(SOURCE, task);
    }

    fn add(&mut self, name: &str, task: impl Future<Output = Result<(), RunError>> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name.to_owned());
    }

    /// The end of the next stage that ends; never if there is none. Cancel safe.
    async fn join(&mut self) -> Option<Result<(), RunError>> {
        match self.set.join_next_with_id().await {
            Some(Ok((_, result))) => Some(result),
            Some(Err(error)) => Some(Err(self.own_error(Err(error)).unwrap_or_else(|| RunError::echo("run")))),
            None => std::future::pending().await,
        }
    }

    /// What went wrong in a stage itself; not that a neighbour had gone.
    fn own_error(&self, joined: Result<(Id, Result<(), RunError>), JoinError>) -> Option<RunError> {
        match joined {
            Ok((_, result)) => result.err().filter(|error| !error.echo),
            Err(error) if error.is_panic() => {
                let name = self.names.get(&error.id()).map_or("run", String::as_str);
                Some(RunError::new(name, panic_message(error)))
            }
            Err(_) => None,
        }
    }
}

/// What a task said that panicked.
pub(super) fn panic_message(error: JoinError) -> String {
    let payload = match error.try_into_panic() {
        Ok(payload) => payload,
        Err(error) => return error.to_string(),
    };
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    format!("it panicked, which is a mistake in acequia: {}", text.unwrap_or("no message"))
}

enum SwapResult {
    Done(Result<(), RunError>),
    Late,
    Gone,
}

/// What became of the swap under way; never if there is none. Cancel safe.
async fn swapped(swap: &mut Option<Swap>) -> SwapResult {
    match swap {
        Some(swap) if !swap.answer.is_terminated() => {
            match tokio::time::timeout_at(swap.deadline, &mut swap.answer).await {
                Ok(Ok(result)) => SwapResult::Done(result),
                Ok(Err(_)) => SwapResult::Gone,
                Err(_) => SwapResult::Late,
            }
        }
        _ => std::future::pending().await,
    }
}

/// A timer whose first tick is one period away.
fn every(period: Duration) -> Interval {
    let mut timer = tokio::time::interval_at(Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
