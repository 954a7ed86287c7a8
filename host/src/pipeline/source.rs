//! The source's task.

use std::sync::Arc;

use acequia_connector_api::{Batch, ConnectorError, Demand, Event, Kind, Position, Source, step_aside};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::error::{RunError, chain_of};
use super::run::Report;
use super::status::{Counts, PipelineStatus, StageCounters};
use super::{Barrier, CLOSE, Message};

pub(super) const STAGE: &str = "source";

/// What the run tells the source.
#[derive(Debug)]
pub(super) enum SourceCommand {
    /// Send a barrier. After one that is the last, nothing more is read.
    Barrier(Barrier),
    /// A checkpoint with this position is on disk.
    Committed(Position),
}

/// The source's task: reads batches, sends them on, and puts barriers between them.
pub(super) struct SourceTask {
    pub(super) source: Box<dyn Source>,
    pub(super) commands: mpsc::Receiver<SourceCommand>,
    pub(super) output: mpsc::Sender<Message>,
    pub(super) reports: mpsc::Sender<Report>,
    /// What it told the source to look at.
    pub(super) demand: Demand,
    pub(super) counters: Arc<StageCounters>,
    pub(super) status: Arc<PipelineStatus>,
}

/// The stage behind has gone: the run is over, and whoever ended it knows why.
fn gone() -> RunError {
    RunError::echo(STAGE)
}

impl SourceTask {
    pub(super) async fn run(mut self) -> Result<(), RunError> {
        let mut ended = false;
        let mut stopped = false;
        let mut backoff = Backoff::new();
        // Set while the source is not to be asked.
        let mut ask_again_at: Option<Instant> = None;
        let mut troubled = false;
        loop {
            let waits = ask_again_at.is_some();
            tokio::select! {
                // Commands first: a source that always has rows must not keep a barrier waiting.
                biased;
                command = self.commands.recv() => match command {
                    Some(SourceCommand::Barrier(barrier)) => {
                        if barrier.last && !ended {
                            self.drain().await?;
                        }
                        self.barrier(barrier).await?;
                        stopped |= barrier.last;
                    }
                    Some(SourceCommand::Committed(position)) => {
                        if let Err(error) = self.source.committed(&position).await {
                            tracing::warn!(pipeline = self.status.name, error = chain_of(&error),
                                "the source could not be told of a checkpoint; the checkpoint stands");
                        }
                    }
                    None => {
                        if tokio::time::timeout(CLOSE, self.source.close()).await.is_err() {
                            tracing::warn!(pipeline = self.status.name, stage = STAGE, after = ?CLOSE,
                                "the source does not close and is dropped");
                        }
                        return Ok(());
                    }
                },
                () = until(ask_again_at), if waits => ask_again_at = None,
                event = self.source.next(), if !ended && !stopped && !waits => match event {
                    Ok(Event::Batch(batch)) => {
                        if std::mem::take(&mut troubled) {
                            backoff.reset();
                            self.status.recovered(STAGE);
                        }
                        self.send(batch).await?;
                    }
                    Ok(Event::Checkpoint) => self.reports.send(Report::Wanted).await.map_err(|_| gone())?,
                    Ok(Event::End) => {
                        ended = true;
                        self.status.recovered(STAGE);
                        self.status.set_progress(self.source.progress());
                        self.reports.send(Report::Ended).await.map_err(|_| gone())?;
                    }
                    Err(error) => {
                        let wait = backoff.next(retry_after(&error)?);
                        troubled = true;
                        self.trouble(&error, wait);
                        ask_again_at = Some(Instant::now() + wait);
                    }
                },
            }
        }
    }

    async fn send(&mut self, batch: Batch) -> Result<(), RunError> {
        let failed = batch.failed.len() as u64;
        let rows = batch.len() as u64;
        let message = Message::Batch(batch, Some(self.demand.pass()));
        self.output.send(message).await.map_err(|_| gone())?;
        self.counters.add(Counts { rows_in: rows + failed, rows_out: rows, dead: failed, ..Counts::default() });
        self.status.beat();
        if let Some(progress) = self.source.progress() {
            self.status.set_progress(Some(progress));
        }
        // Let the stages behind have the batch at once, while it is in the processor's cache; another core may go on with this one.
        // A source that always has rows would else fill its queue first, and so would those of a thousand pipelines: their batches
        // would be in memory all at the same time, and in no cache any more when their turn comes.
        step_aside().await;
        Ok(())
    }

    /// Rows that a source took from outside and can't take again (a socket's) go out before the last barrier.
    async fn drain(&mut self) -> Result<(), RunError> {
        if !self.source.stop() {
            return Ok(());
        }
        loop {
            match self.source.next().await {
                Ok(Event::Batch(batch)) => self.send(batch).await?,
                // The last barrier is about to make one.
                Ok(Event::Checkpoint) => {}
                Ok(Event::End) => return Ok(()),
                Err(error) => return Err(RunError::connector(STAGE, &error)),
            }
        }
    }

    async fn barrier(&mut self, barrier: Barrier) -> Result<(), RunError> {
        let report = Report::Source {
            number: barrier.number,
            position: self.source.position(),
            handoff: self.source.handoff(),
            counts: self.counters.get(),
        };
        self.reports.send(report).await.map_err(|_| gone())?;
        self.output.send(Message::Barrier(barrier)).await.map_err(|_| gone())
    }

    fn trouble(&self, error: &ConnectorError, wait: std::time::Duration) {
        let message = format!("{STAGE}: {}", chain_of(error));
        tracing::warn!(pipeline = self.status.name, stage = STAGE, error = message, retry_in = ?wait, "the source will be asked again");
        self.counters.retry();
        self.status.retrying(STAGE, &message);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn retry_after(error: &ConnectorError) -> Result<Option<std::time::Duration>, RunError> {
    match error.kind {
        Kind::Retryable { after } => Ok(after),
        Kind::Failed => Err(RunError::connector(STAGE, error)),
    }
}
