//! One run of a pipeline: opened from a checkpoint, driven until it ends, is told to stop, or fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{Position, Sink};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Barrier;
use super::chain::{Chain, ChainCommand, ChainTask};
use super::dead_letters::FailureRoute;
use super::error::RunError;
use super::lifecycle::{Command, ReloadError};
use super::setup::{Setup, TransformFactory};
use super::sink::{Refused, SinkTask};
use super::source::{STAGE as SOURCE, SourceCommand, SourceTask};
use super::status::{CheckpointStatus, Counts, PipelineStatus, now_millis};
use crate::config::model::SinkStage;
use crate::state::{Checkpoint, SinkState, Store};

/// How long a pipeline that is told to stop may take to get its rows out. After that it ends as after a crash: from the
/// last checkpoint, with nothing lost that the source can read again.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the transforms may take to be swapped: a call that is under way, the dead letters, the start of the new ones.
const SWAP: Duration = Duration::from_secs(20);
/// Checkpoints after which a careful run is taken to be past its trouble.
const CAREFUL_CHECKPOINTS: u64 = 2;

/// What the stages tell the run.
#[derive(Debug)]
pub(super) enum Report {
    /// The source sent the barrier.
    Source { number: u64, position: Position, counts: Counts },
    /// The barrier passed the transforms.
    Chain { number: u64, snapshots: BTreeMap<String, Vec<u8>>, counts: BTreeMap<String, Counts> },
    /// Everything before the barrier is safe in this sink.
    Sink { id: String, number: u64, state: Option<Value>, counts: Counts },
    /// The source has no more rows.
    Ended,
}

/// How a run ended in good order.
pub(super) enum RunEnd {
    /// The source has ended, and every row is confirmed.
    Completed,
    /// It was told to stop.
    Stopped(oneshot::Sender<()>),
    /// It was told to make room for a new configuration.
    Replaced(Arc<Setup>, oneshot::Sender<Result<(), ReloadError>>),
}

/// A barrier on its way.
struct InFlight {
    barrier: Barrier,
    started: Instant,
    checkpoint: Checkpoint,
    /// Reports that are missing: the source's, the chain's, each sink's.
    missing: usize,
    /// The barrier has been sent to the dead letters, which it must reach last.
    at_letters: bool,
}

/// A run.
pub(super) struct Run {
    setup: Arc<Setup>,
    store: Store,
    status: Arc<PipelineStatus>,
    tasks: JoinSet<Result<(), RunError>>,
    source: mpsc::Sender<SourceCommand>,
    chain: mpsc::Sender<ChainCommand>,
    letters: Option<mpsc::Sender<super::Message>>,
    committed: Vec<mpsc::Sender<()>>,
    reports: mpsc::Receiver<Report>,
    last: Checkpoint,
    careful: bool,
    made: u64,
    pulse: u64,
}

impl Run {
    /// Open everything, transforms first (they touch nothing outside), the source last (so that no row is taken before
    /// there is a place for it), and store a first checkpoint if the sinks are not where the last one left them.
    pub(super) async fn open(
        setup: Arc<Setup>,
        store: Store,
        status: Arc<PipelineStatus>,
        checkpoint: Option<Checkpoint>,
        careful: bool,
    ) -> Result<Self, RunError> {
        status.arrange(&setup.stage_ids());
        status.update(|facts| facts.connectors = setup.connectors());
        let known = checkpoint.is_some();
        let mut last = checkpoint.unwrap_or_default();
        for (id, counters) in status.stages() {
            counters.set(last.counts.get(&id).copied().unwrap_or_default());
        }
        let input = setup.source.spec.schema();
        let mut chain = Chain::start(&setup.transforms, &input, &last.snapshots, &status).await?;
        chain.set_careful(careful);

        let mut sinks = Vec::new();
        let mut states = BTreeMap::new();
        for stage in &setup.sinks {
            sinks.push(open_sink(&setup, stage, &last, &mut states).await?);
        }
        let letters = match &setup.dead_letter {
            Some(stage) => Some(open_sink(&setup, stage, &last, &mut states).await?),
            None => None,
        };
        let position = (last.source_type == setup.source.spec.type_name()).then_some(&last.position);
        if known && position.is_none() {
            tracing::warn!(
                pipeline = setup.name,
                before = last.source_type,
                now = setup.source.spec.type_name(),
                "the source is of another type than before: it starts from its beginning"
            );
        }
        let source = setup
            .source
            .spec
            .open(&setup.context(SOURCE), position)
            .await
            .map_err(|error| RunError::connector(SOURCE, &error))?;

        let first = source.position();
        if !known || last.sinks != states || position != Some(&first) {
            // A crash before the next checkpoint must find the sinks as they are now (a file as long as it is now), and
            // the source where it is now, or rows that were written meanwhile would come twice.
            last.number += 1;
            last.at = now_millis();
            last.position = first;
            last.source_type = setup.source.spec.type_name().to_owned();
            last.sinks = states;
            store
                .save(&setup.name, Arc::new(last.clone()))
                .await
                .map_err(|error| RunError::new("checkpoint", error.to_string()))?;
        }
        Ok(Run::spawn(setup, store, status, Stages { source, chain, sinks, letters }, last, careful))
    }

    fn spawn(
        setup: Arc<Setup>,
        store: Store,
        status: Arc<PipelineStatus>,
        stages: Stages,
        last: Checkpoint,
        careful: bool,
    ) -> Self {
        let capacity = setup.delivery.in_flight.max(1);
        let mut tasks = JoinSet::new();
        let (report, reports) = mpsc::channel(16);
        let mut committed = Vec::new();
        let mut spawn_sink = |stage: &SinkStage, sink: Box<dyn Sink>, refused: Refused| {
            let (sender, input) = mpsc::channel(capacity);
            let (commit, commits) = mpsc::channel(1);
            committed.push(commit);
            let task = SinkTask {
                id: stage.id.clone(),
                sink,
                input,
                committed: commits,
                reports: report.clone(),
                refused,
                counters: status.stage(&stage.id),
                status: status.clone(),
            };
            (sender, task)
        };
        let mut sink_tasks = Vec::new();
        let mut letters = None;
        if let (Some(stage), Some(sink)) = (&setup.dead_letter, stages.letters) {
            let (sender, task) = spawn_sink(stage, sink, Refused::Fatal);
            letters = Some(sender);
            sink_tasks.push(task);
        }
        let failures =
            FailureRoute { pipeline: setup.name.as_str().into(), on_error: setup.on_error, letters: letters.clone() };
        let mut outputs = Vec::new();
        for (stage, sink) in setup.sinks.iter().zip(stages.sinks) {
            let (sender, task) = spawn_sink(stage, sink, Refused::Route(failures.clone()));
            outputs.push(sender);
            sink_tasks.push(task);
        }
        for task in sink_tasks {
            tasks.spawn(task.run());
        }
        let (chain_commands, commands) = mpsc::channel(4);
        let (to_chain, chain_input) = mpsc::channel(capacity);
        let chain = ChainTask {
            chain: stages.chain,
            input: chain_input,
            commands,
            outputs,
            failures,
            reports: report.clone(),
            status: status.clone(),
        };
        tasks.spawn(chain.run());
        let (source_commands, commands) = mpsc::channel(4);
        let source = SourceTask {
            source: stages.source,
            commands,
            output: to_chain,
            reports: report,
            counters: status.stage(SOURCE),
            status: status.clone(),
        };
        tasks.spawn(source.run());
        Run {
            setup,
            store,
            pulse: status.pulse(),
            status,
            tasks,
            source: source_commands,
            chain: chain_commands,
            letters,
            committed,
            reports,
            last,
            careful,
            made: 0,
        }
    }

    /// How many checkpoints this run has stored.
    pub(super) fn checkpoints(&self) -> u64 {
        self.made
    }

    /// The setup that runs; a swap changes it.
    pub(super) fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    /// Drive it until it ends. When this returns, every task of the run has ended, so that what it held is free.
    pub(super) async fn drive(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<RunEnd, RunError> {
        let result = self.drive_tasks(commands).await;
        if result.is_ok() {
            self.close().await;
        }
        self.tasks.shutdown().await;
        result
    }

    async fn drive_tasks(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<RunEnd, RunError> {
        let mut timer = tokio::time::interval(self.setup.delivery.checkpoint_interval.0.max(Duration::from_millis(1)));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer.reset();
        let mut in_flight: Option<InFlight> = None;
        // Why the run is coming to its end, and by when it must.
        let mut end: Option<RunEnd> = None;
        let mut deadline: Option<Instant> = None;
        let mut last_sent = false;
        loop {
            if end.is_some() && in_flight.is_none() && !last_sent {
                in_flight = Some(self.send_barrier(true).await?);
                last_sent = true;
            }
            let overdue = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                report = self.reports.recv() => match report {
                    Some(Report::Ended) => { end.get_or_insert(RunEnd::Completed); }
                    Some(report) => {
                        if let Some(done) = self.take(report, &mut in_flight).await? {
                            self.commit(done).await?;
                            if last_sent && in_flight.is_none() {
                                return end.ok_or_else(|| RunError::new("run", "ended without a reason"));
                            }
                        }
                    }
                    None => return Err(self.first_failure().await),
                },
                Some(joined) = self.tasks.join_next(), if !self.tasks.is_empty() => match joined {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(self.root_cause(error).await),
                    Err(error) => return Err(RunError::new("run", format!("a stage panicked: {error}"))),
                },
                command = commands.recv(), if end.as_ref().is_none_or(|end| matches!(end, RunEnd::Completed)) => match command {
                    Some(Command::Swap(setup, reply)) if end.is_none() => self.swap(setup, reply).await,
                    Some(Command::Swap(setup, reply) | Command::Replace(setup, reply)) => {
                        end = Some(RunEnd::Replaced(setup, reply));
                        deadline = Some(Instant::now() + DRAIN);
                    }
                    Some(Command::Stop(reply)) => {
                        end = Some(RunEnd::Stopped(reply));
                        deadline = Some(Instant::now() + DRAIN);
                    }
                    None => {
                        let (reply, _) = oneshot::channel();
                        end = Some(RunEnd::Stopped(reply));
                        deadline = Some(Instant::now() + DRAIN);
                    }
                },
                () = overdue => {
                    tracing::warn!(pipeline = self.setup.name, after = ?DRAIN,
                        "the rows in flight could not be delivered in time; the pipeline ends at its last checkpoint");
                    self.tasks.shutdown().await;
                    return end.ok_or_else(|| RunError::new("run", "ended without a reason"));
                }
                _ = timer.tick(), if end.is_none() => {
                    self.status.alive();
                    self.status.settled();
                    if in_flight.is_none() && self.status.pulse() != self.pulse {
                        in_flight = Some(self.send_barrier(false).await?);
                    }
                }
            }
        }
    }

    async fn send_barrier(&mut self, last: bool) -> Result<InFlight, RunError> {
        self.pulse = self.status.pulse();
        let barrier = Barrier { number: self.last.number + 1, last };
        if self.source.send(SourceCommand::Barrier(barrier)).await.is_err() {
            return Err(self.first_failure().await);
        }
        Ok(InFlight {
            barrier,
            started: Instant::now(),
            checkpoint: Checkpoint {
                number: barrier.number,
                source_type: self.setup.source.spec.type_name().to_owned(),
                ..Checkpoint::default()
            },
            missing: 2 + self.setup.sinks.len(),
            at_letters: false,
        })
    }

    /// Take a report. When it was the last one missing, the checkpoint is complete and comes back.
    async fn take(&mut self, report: Report, slot: &mut Option<InFlight>) -> Result<Option<InFlight>, RunError> {
        let Some(flight) = slot.as_mut() else { return Ok(None) };
        let checkpoint = &mut flight.checkpoint;
        let number = match report {
            Report::Source { number, position, counts } => {
                checkpoint.position = position;
                checkpoint.counts.insert(SOURCE.to_owned(), counts);
                number
            }
            Report::Chain { number, snapshots, counts } => {
                checkpoint.snapshots = snapshots;
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
            Report::Ended => return Ok(None),
        };
        if number != flight.barrier.number {
            return Err(RunError::new(
                "run",
                format!("a stage answered barrier {number}, not {}", flight.barrier.number),
            ));
        }
        flight.missing = flight.missing.saturating_sub(1);
        if flight.missing > 0 {
            return Ok(None);
        }
        if !flight.at_letters {
            // Every stage has passed the barrier, so every row that failed before it is on its way to the dead letters:
            // only now may the barrier follow them.
            flight.at_letters = true;
            if let Some(letters) = &self.letters {
                flight.missing = 1;
                let barrier = flight.barrier;
                if letters.send(super::Message::Barrier(barrier)).await.is_err() {
                    return Err(self.first_failure().await);
                }
                return Ok(None);
            }
        }
        Ok(slot.take())
    }

    /// Everything before the barrier is safe: store it, then tell whoever wants to know.
    async fn commit(&mut self, flight: InFlight) -> Result<(), RunError> {
        let mut checkpoint = flight.checkpoint;
        checkpoint.at = now_millis();
        let bytes = checkpoint.snapshots.values().map(|bytes| bytes.len() as u64).sum();
        let stored = Arc::new(checkpoint);
        self.store
            .save(&self.setup.name, stored.clone())
            .await
            .map_err(|error| RunError::new("checkpoint", error.to_string()))?;
        self.made += 1;
        self.last = Checkpoint { snapshots: BTreeMap::new(), ..stored.as_ref().clone() };
        self.status.update(|facts| {
            facts.checkpoint = CheckpointStatus {
                number: stored.number,
                at: stored.at,
                took_micros: u64::try_from(flight.started.elapsed().as_micros()).unwrap_or(u64::MAX),
                bytes,
            };
        });
        for committed in &self.committed {
            // A sink that still works on the one before learns of both at once.
            let _ = committed.try_send(());
        }
        let _ = self.source.try_send(SourceCommand::Committed(stored.position.clone()));
        if self.careful && self.made >= CAREFUL_CHECKPOINTS {
            self.careful = false;
            let _ = self.chain.try_send(ChainCommand::Careless);
        }
        Ok(())
    }

    async fn swap(&mut self, setup: Arc<Setup>, reply: oneshot::Sender<Result<(), ReloadError>>) {
        let result = self.swap_transforms(&setup.transforms).await;
        if result.is_ok() {
            self.setup = setup;
        }
        // Also if it failed: some of the new stages may have begun to count.
        self.status.arrange(&self.setup.stage_ids());
        drop(reply.send(result.map_err(|error| ReloadError(error.to_string()))));
    }

    async fn swap_transforms(&self, factories: &[Arc<dyn TransformFactory>]) -> Result<(), RunError> {
        let (reply, answer) = oneshot::channel();
        let gone = || RunError::new("transforms", "the pipeline failed meanwhile");
        self.chain.send(ChainCommand::Swap(factories.to_vec(), reply)).await.map_err(|_| gone())?;
        match tokio::time::timeout(SWAP, answer).await {
            Ok(answer) => answer.map_err(|_| gone())?,
            Err(_) => Err(RunError::new(
                "transforms",
                format!(
                    "they did not take the change within {SWAP:?}, since dead letters can't be written or a call takes long"
                ),
            )),
        }
    }

    /// When one stage fails, its neighbours fail after it because their channels close: find the one that began.
    async fn root_cause(&mut self, error: RunError) -> RunError {
        let secondary = |error: &RunError| error.message.ends_with("has ended");
        if !secondary(&error) {
            return error;
        }
        while let Some(joined) = self.tasks.join_next().await {
            match joined {
                Ok(Err(other)) if !secondary(&other) => return other,
                Err(panic) if panic.is_panic() => return RunError::new("run", format!("a stage panicked: {panic}")),
                _ => {}
            }
        }
        error
    }

    async fn first_failure(&mut self) -> RunError {
        self.root_cause(RunError::new("run", "a stage has ended")).await
    }

    /// Let the stages close what they hold, for a moment; then they are ended.
    async fn close(&mut self) {
        self.committed.clear();
        let (source, _) = mpsc::channel(1);
        self.source = source;
        let (chain, _) = mpsc::channel(1);
        self.chain = chain;
        self.letters = None;
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    }
}

struct Stages {
    source: Box<dyn acequia_connector_api::Source>,
    chain: Chain,
    sinks: Vec<Box<dyn Sink>>,
    letters: Option<Box<dyn Sink>>,
}

async fn open_sink(
    setup: &Setup,
    stage: &SinkStage,
    last: &Checkpoint,
    states: &mut BTreeMap<String, SinkState>,
) -> Result<Box<dyn Sink>, RunError> {
    let sink_type = stage.spec.type_name();
    let state = last.sinks.get(&stage.id).filter(|state| state.sink_type == sink_type).map(|state| &state.state);
    let failed = |error| RunError::connector(&stage.id, &error);
    let mut sink = stage.spec.open(&setup.context(&stage.id), state).await.map_err(failed)?;
    if let Some(state) = sink.flush().await.map_err(failed)?.state {
        states.insert(stage.id.clone(), SinkState { sink_type: sink_type.to_owned(), state });
    }
    Ok(sink)
}
