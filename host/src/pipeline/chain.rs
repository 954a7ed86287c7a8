//! The transforms' task: the whole chain of a pipeline, between the source and the sinks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acequia_connector_api::{Batch, FailedRow, Pass, RowSchema, record_column, without_record};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dead_letters::FailureRoute;
use super::error::{Remedy, RunError};
use super::run::Report;
use super::setup::{Setup, TransformFactory};
use super::source::STAGE as SOURCE;
use super::status::{Counts, PipelineStatus, StageCounters};
use super::transform::{Applied, Transform, TransformError};
use super::{Barrier, Message};

/// What the run tells the chain.
pub(super) enum ChainCommand {
    /// Put these transforms in the place of those that run, with their state, between two batches. If one of them can't
    /// start, or whoever asks does not wait any more, nothing changes.
    Swap(Vec<Arc<dyn TransformFactory>>, oneshot::Sender<Result<(), RunError>>),
    /// A run that began carefully is past the rows that made it careful.
    Careless,
}

/// One transform that runs.
struct Link {
    id: String,
    transform: Box<dyn Transform>,
    counters: Arc<StageCounters>,
    next_tick: Option<Instant>,
    replaced: u64,
}

/// The transforms of a pipeline, started.
pub(super) struct Chain {
    links: Vec<Link>,
    input: RowSchema,
    careful: bool,
}

impl Chain {
    /// Start the transforms one after the other, each for the rows that the one before it makes, with the snapshot that
    /// belongs to its id.
    pub(super) async fn start(
        factories: &[Arc<dyn TransformFactory>],
        input: &RowSchema,
        snapshots: &BTreeMap<String, Vec<u8>>,
        careful: bool,
        status: &PipelineStatus,
    ) -> Result<Self, RunError> {
        let mut schema = input.clone();
        let mut links = Vec::with_capacity(factories.len());
        for factory in factories {
            let id = factory.id().to_owned();
            let mut transform = factory
                .start(&schema, snapshots.get(&id).map(Vec::as_slice))
                .await
                .map_err(|error| RunError::new(&id, error.message))?;
            transform.set_careful(careful);
            schema = transform.schema().clone();
            let next_tick = next_tick(transform.as_ref());
            let counters = status.stage(&id);
            links.push(Link { id, transform, counters, next_tick, replaced: 0 });
        }
        Ok(Chain { links, input: input.clone(), careful })
    }

    fn set_careful(&mut self, careful: bool) {
        self.careful = careful;
        for link in &mut self.links {
            link.transform.set_careful(careful);
        }
    }

    /// Run a batch through the transforms from `first` on. Returns the output and the rows that failed, by stage.
    async fn apply(
        &mut self,
        mut batch: Batch,
        first: usize,
    ) -> Result<(Batch, Vec<(String, Vec<FailedRow>)>), RunError> {
        let mut failures = Vec::new();
        for link in self.links.iter_mut().skip(first) {
            if batch.is_empty() {
                break;
            }
            let rows_in = batch.len() as u64;
            let applied = link.transform.apply(batch).await.map_err(|error| link.failed(&error))?;
            let (output, failed) = link.count(rows_in, applied);
            if !failed.is_empty() {
                failures.push((link.id.clone(), failed));
            }
            batch = output;
        }
        Ok((batch, failures))
    }

    async fn snapshots(&mut self) -> Result<BTreeMap<String, Vec<u8>>, RunError> {
        let mut snapshots = BTreeMap::new();
        for link in &mut self.links {
            if let Some(snapshot) = link.transform.snapshot().await.map_err(|error| link.failed(&error))? {
                snapshots.insert(link.id.clone(), snapshot);
            }
        }
        Ok(snapshots)
    }

    /// The first transform whose tick is due, and when the next is.
    fn next_tick(&self) -> Option<(usize, Instant)> {
        let ticks = self.links.iter().enumerate().filter_map(|(index, link)| Some((index, link.next_tick?)));
        ticks.min_by_key(|(_, at)| *at)
    }
}

/// When a transform wants its next tick. At the earliest in a moment, whatever it says: ticks must not keep rows from
/// flowing.
fn next_tick(transform: &dyn Transform) -> Option<Instant> {
    transform.tick_every().map(|every| Instant::now() + every.max(Duration::from_millis(1)))
}

impl Link {
    fn failed(&self, error: &TransformError) -> RunError {
        let remedy = if error.state_lost { Remedy::Careful } else { Remedy::Retry };
        RunError::new(&self.id, error.message.clone()).with(remedy)
    }

    fn count(&mut self, rows_in: u64, applied: Applied) -> (Batch, Vec<FailedRow>) {
        let Applied { mut batch, dropped, added } = applied;
        let failed = std::mem::take(&mut batch.failed);
        self.counters.add(Counts { rows_in, rows_out: batch.len() as u64, dropped, added, dead: failed.len() as u64 });
        let replaced = self.transform.replaced();
        self.counters.replaced(self.replaced, replaced);
        self.replaced = replaced;
        (batch, failed)
    }
}

/// What becomes of the text that rows were read from, if they carry it ([`acequia_connector_api::RECORD`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// They don't, or the sinks can do with or without it.
    Any,
    /// A sink writes it: it must be there.
    Needed,
    /// A sink would not know what it is.
    Removed,
}

impl Record {
    pub(super) fn of(setup: &Setup) -> Self {
        match &setup.projection {
            Some(projection) if projection.unchanged => Record::Needed,
            Some(_) if setup.sinks.iter().any(|sink| sink.spec.reads().is_none()) => Record::Removed,
            _ => Record::Any,
        }
    }

    /// The rows as the sinks get them.
    fn settle(self, batch: &mut Batch) -> Result<(), RunError> {
        let is_missing = || record_column(&batch.rows).is_none() && batch.rows.num_columns() > 0;
        match self {
            // What is not in a column would be lost.
            Record::Needed if is_missing() => Err(RunError::new(CHAIN, "rows came without what they were read from")),
            Record::Removed => {
                batch.rows = without_record(&batch.rows);
                Ok(())
            }
            Record::Any | Record::Needed => Ok(()),
        }
    }
}

/// The chain's task.
pub(super) struct ChainTask {
    pub(super) chain: Chain,
    pub(super) record: Record,
    pub(super) input: mpsc::Receiver<Message>,
    pub(super) commands: mpsc::UnboundedReceiver<ChainCommand>,
    pub(super) outputs: Vec<mpsc::Sender<Message>>,
    pub(super) failures: FailureRoute,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) status: Arc<PipelineStatus>,
}

const CHAIN: &str = "transforms";

fn gone() -> RunError {
    RunError::echo(CHAIN)
}

impl ChainTask {
    pub(super) async fn run(mut self) -> Result<(), RunError> {
        loop {
            let tick = self.chain.next_tick();
            let due = async {
                match tick {
                    Some((_, at)) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await?,
                    None => return Ok(()),
                },
                () = due => if let Some((index, _)) = tick {
                    self.tick(index).await?;
                },
                message = self.input.recv() => match message {
                    Some(Message::Batch(batch, pass)) => self.batch(batch, pass).await?,
                    Some(Message::Barrier(barrier)) => {
                        self.barrier(barrier).await?;
                        if barrier.last {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    async fn batch(&mut self, mut batch: Batch, pass: Option<Pass>) -> Result<(), RunError> {
        let failed = std::mem::take(&mut batch.failed);
        self.dead(SOURCE, failed).await?;
        let (output, failures) = self.chain.apply(batch, 0).await?;
        self.finish(output, failures, pass).await
    }

    async fn tick(&mut self, index: usize) -> Result<(), RunError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let Some(link) = self.chain.links.get_mut(index) else { return Ok(()) };
        let applied = link.transform.tick(now).await.map_err(|error| link.failed(&error))?;
        // Counted from the end of this one: a tick that takes longer than its interval must leave time for rows.
        link.next_tick = next_tick(link.transform.as_ref());
        let (output, failed) = link.count(0, applied);
        let mut failures = vec![(link.id.clone(), failed)];
        let (output, later) = self.chain.apply(output, index + 1).await?;
        failures.extend(later);
        self.finish(output, failures, None).await
    }

    async fn finish(
        &mut self,
        mut output: Batch,
        failures: Vec<(String, Vec<FailedRow>)>,
        pass: Option<Pass>,
    ) -> Result<(), RunError> {
        for (stage, failed) in failures {
            self.dead(&stage, failed).await?;
        }
        self.status.beat();
        if output.is_empty() {
            return Ok(());
        }
        self.record.settle(&mut output)?;
        self.forward(&Message::Batch(output, pass)).await
    }

    async fn barrier(&mut self, barrier: Barrier) -> Result<(), RunError> {
        let begin = Instant::now();
        let report = Report::Chain {
            number: barrier.number,
            snapshots: self.chain.snapshots().await?,
            held: begin.elapsed(),
            counts: self.chain.links.iter().map(|link| (link.id.clone(), link.counters.get())).collect(),
        };
        self.reports.send(report).await.map_err(|_| gone())?;
        if let Some(letters) = self.failures.letters.clone() {
            self.send(&letters, Message::Barrier(barrier)).await?;
        }
        self.forward(&Message::Barrier(barrier)).await
    }

    /// Rows that failed in `stage`.
    async fn dead(&mut self, stage: &str, rows: Vec<FailedRow>) -> Result<(), RunError> {
        match (self.failures.letter(stage, rows)?, self.failures.letters.clone()) {
            (Some(letter), Some(letters)) => self.send(&letters, letter).await,
            _ => Ok(()),
        }
    }

    /// Give a message to every sink.
    async fn forward(&mut self, message: &Message) -> Result<(), RunError> {
        for output in self.outputs.clone() {
            self.send(&output, message.clone()).await?;
        }
        Ok(())
    }

    /// Give a message to a sink, once there is room for it (invariant 5). While there is none (it retries, say) commands are still obeyed, so a reload never
    /// hangs behind a sink. Only called between two batches as the transforms see them, so that they can be swapped.
    async fn send(&mut self, output: &mpsc::Sender<Message>, message: Message) -> Result<(), RunError> {
        loop {
            tokio::select! {
                biased;
                permit = output.reserve() => {
                    permit.map_err(|_| gone())?.send(message);
                    return Ok(());
                }
                Some(command) = self.commands.recv() => self.obey(command).await?,
            }
        }
    }

    async fn obey(&mut self, command: ChainCommand) -> Result<(), RunError> {
        match command {
            ChainCommand::Careless => {
                self.chain.set_careful(false);
                Ok(())
            }
            ChainCommand::Swap(factories, reply) => self.swap(&factories, reply).await,
        }
    }

    /// The new transforms start beside the old ones, from the old ones' state; only if all of them could do the old go.
    async fn swap(
        &mut self,
        factories: &[Arc<dyn TransformFactory>],
        mut reply: oneshot::Sender<Result<(), RunError>>,
    ) -> Result<(), RunError> {
        // Whoever asked may have given up, before or while the new ones start: then nothing may change behind his back.
        if reply.is_closed() {
            return Ok(());
        }
        let snapshots = match self.chain.snapshots().await {
            Ok(snapshots) => snapshots,
            Err(error) => {
                // Not the new ones' fault: those that run can't go on.
                drop(reply.send(Err(error.clone())));
                return Err(error);
            }
        };
        let started = tokio::select! {
            biased;
            () = reply.closed() => return Ok(()),
            started = Chain::start(factories, &self.chain.input, &snapshots, self.chain.careful, &self.status) => started,
        };
        match started {
            Ok(chain) => {
                if reply.send(Ok(())).is_err() {
                    return Ok(());
                }
                for id in snapshots.keys() {
                    if !factories.iter().any(|factory| factory.id() == id) {
                        tracing::warn!(
                            pipeline = self.status.name,
                            stage = id,
                            "the transform is gone, and its state with it"
                        );
                    }
                }
                self.chain = chain;
            }
            Err(error) => drop(reply.send(Err(error))),
        }
        Ok(())
    }
}
