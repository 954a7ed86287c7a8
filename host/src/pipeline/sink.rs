//! A sink's task; the dead letters' sink has one too.

use std::sync::Arc;

use acequia_connector_api::{Batch, ConnectorError, FailedRow, Flushed, Handoff, Kind, Sink};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::dead_letters::FailureRoute;
use super::error::{RunError, chain_of};
use super::inlet::Inlet;
use super::run::Report;
use super::status::{Counts, PipelineStatus, StageCounters};
use super::{Barrier, CLOSE, Message};

/// What becomes of rows that the sink refuses.
pub(super) enum Refused {
    /// They go where the pipeline's failed rows go.
    Route(FailureRoute),
    /// This is the dead letters' own sink: a letter that can't be written must not vanish, so the run ends.
    Fatal,
}

/// A checkpoint is on disk; with what the source gave at its barrier.
pub(super) type Committed = Option<Handoff>;

/// A sink's task: writes batches, retries, and answers each barrier once everything before it is safe.
pub(super) struct SinkTask {
    pub(super) id: String,
    pub(super) sink: Box<dyn Sink>,
    pub(super) input: Inlet,
    /// One message for each checkpoint that is on disk; closed when the run is over.
    pub(super) committed: mpsc::Receiver<Committed>,
    /// What it writes only comes to count with a checkpoint: nothing is written between a flush and that.
    pub(super) two_phase: bool,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) refused: Refused,
    pub(super) counters: Arc<StageCounters>,
    pub(super) status: Arc<PipelineStatus>,
}

impl SinkTask {
    pub(super) async fn run(mut self) -> Result<(), RunError> {
        // Rows written since the last flush that the target has not refused.
        let mut pending = 0;
        let mut done = false;
        loop {
            tokio::select! {
                biased;
                committed = self.committed.recv() => match committed {
                    Some(handoff) => self.committed(handoff.as_ref()).await?,
                    None => {
                        self.close().await;
                        return Ok(());
                    }
                },
                message = self.input.recv(), if !done => match message {
                    // The pass is held until it is written: from then on the sink could take another one.
                    Some(Message::Batch(batch, _pass)) => pending += self.write(&batch).await?,
                    Some(Message::Barrier(barrier)) => {
                        self.flush(barrier, &mut pending).await?;
                        if self.two_phase && !self.commit(barrier).await? {
                            return Ok(());
                        }
                        done = barrier.last;
                    }
                    None => done = true,
                },
            }
        }
    }

    async fn close(&mut self) {
        if tokio::time::timeout(CLOSE, self.sink.close()).await.is_err() {
            tracing::warn!(pipeline = self.status.name, stage = self.id, after = ?CLOSE,
                "the sink does not close and is dropped");
        }
    }

    async fn committed(&mut self, handoff: Option<&Handoff>) -> Result<(), RunError> {
        self.sink.committed(handoff).await.map_err(|error| RunError::connector(&self.id, &error))
    }

    /// The second phase: wait until the checkpoint is on disk, make what was written count, and say so. False if the run
    /// was over first.
    async fn commit(&mut self, barrier: Barrier) -> Result<bool, RunError> {
        let Some(handoff) = self.committed.recv().await else {
            self.close().await;
            return Ok(false);
        };
        let mut retries = Retries::default();
        while let Err(error) = self.sink.committed(handoff.as_ref()).await {
            self.wait(&error, &mut retries).await?;
        }
        self.recovered(retries).await?;
        let report = Report::Final { number: barrier.number };
        self.reports.send(report).await.map_err(|_| RunError::echo(&self.id))?;
        Ok(true)
    }

    async fn write(&mut self, batch: &Batch) -> Result<u64, RunError> {
        let mut retries = Retries::default();
        let failed = loop {
            match self.sink.write(batch).await {
                Ok(failed) => break failed,
                Err(error) => self.wait(&error, &mut retries).await?,
            }
        };
        self.recovered(retries).await?;
        let rows = batch.len() as u64;
        let dead = failed.len() as u64;
        self.refuse(failed).await?;
        self.counters.add(Counts { rows_in: rows, dead, ..Counts::default() });
        self.status.beat();
        Ok(rows.saturating_sub(dead))
    }

    /// Not a beat of the pipeline: nothing flows in a flush, and a checkpoint must not be the reason for the next.
    async fn flush(&mut self, barrier: Barrier, pending: &mut u64) -> Result<(), RunError> {
        let mut retries = Retries::default();
        let Flushed { failed, state } = loop {
            match self.sink.flush().await {
                Ok(flushed) => break flushed,
                Err(error) => self.wait(&error, &mut retries).await?,
            }
        };
        self.recovered(retries).await?;
        let dead = failed.len() as u64;
        self.refuse(failed).await?;
        if let Refused::Route(route) = &self.refused {
            route.barrier(&self.id, barrier).await?;
        }
        self.counters.add(Counts { rows_out: pending.saturating_sub(dead), dead, ..Counts::default() });
        *pending = 0;
        let report = Report::Sink { id: self.id.clone(), number: barrier.number, state, counts: self.counters.get() };
        self.reports.send(report).await.map_err(|_| RunError::echo(&self.id))
    }

    async fn refuse(&mut self, failed: Vec<FailedRow>) -> Result<(), RunError> {
        match (&self.refused, failed.first()) {
            (_, None) => Ok(()),
            (Refused::Route(route), _) => route.route(&self.id, failed).await,
            (Refused::Fatal, Some(first)) => {
                Err(RunError::new(&self.id, format!("a dead letter can't be written: {}", first.error)))
            }
        }
    }

    /// Wait before the next try; an error if there is none to be made.
    async fn wait(&mut self, error: &ConnectorError, retries: &mut Retries) -> Result<(), RunError> {
        let Kind::Retryable { after } = error.kind else {
            return Err(RunError::connector(&self.id, error));
        };
        let wait = retries.backoff.next(after);
        retries.tries += 1;
        let message = format!("{}: {}", self.id, chain_of(error));
        tracing::warn!(pipeline = self.status.name, stage = self.id, error = message, retry_in = ?wait,
            tries = retries.tries, "the sink will be tried again");
        self.counters.retry();
        self.status.retrying(&self.id, &message);
        let at = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                committed = self.committed.recv() => match committed {
                    // The sink is in the middle of something: it is told when that is over.
                    Some(_) => retries.committed = true,
                    // The run is over: no more tries.
                    None => {
                        self.close().await;
                        return Err(RunError::echo(&self.id));
                    }
                },
                () = tokio::time::sleep_until(at) => return Ok(()),
            }
        }
    }

    async fn recovered(&mut self, retries: Retries) -> Result<(), RunError> {
        if retries.tries > 0 {
            tracing::info!(pipeline = self.status.name, stage = self.id, tries = retries.tries, "the sink works again");
            self.status.recovered(&self.id);
        }
        if retries.committed {
            self.committed(None).await?;
        }
        Ok(())
    }
}

/// The tries of one call.
struct Retries {
    backoff: Backoff,
    tries: u32,
    /// A checkpoint was stored meanwhile.
    committed: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { backoff: Backoff::new(), tries: 0, committed: false }
    }
}
