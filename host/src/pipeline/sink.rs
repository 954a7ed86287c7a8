//! A sink's task; the dead letters' sink has one too.

use std::sync::Arc;

use acequia_connector_api::{Batch, ConnectorError, Flushed, Kind, Sink};
use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::dead_letters::FailureRoute;
use super::error::{RunError, chain_of};
use super::run::Report;
use super::status::{Counts, PipelineStatus, StageCounters, State};
use super::{Barrier, Message};

/// What becomes of rows that the sink refuses.
pub(super) enum Refused {
    /// They go where the pipeline's failed rows go.
    Route(FailureRoute),
    /// This is the dead letters' own sink: a letter that can't be written must not vanish, so the run ends.
    Fatal,
}

/// A sink's task: writes batches, retries, and answers each barrier once everything before it is safe.
pub(super) struct SinkTask {
    pub(super) id: String,
    pub(super) sink: Box<dyn Sink>,
    pub(super) input: mpsc::Receiver<Message>,
    /// One message for each checkpoint that is on disk; closed when the run is over.
    pub(super) committed: mpsc::Receiver<()>,
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
                    Some(()) => self.sink.committed().await.map_err(|error| RunError::connector(&self.id, &error))?,
                    None => {
                        self.sink.close().await;
                        return Ok(());
                    }
                },
                message = self.input.recv(), if !done => match message {
                    Some(Message::Batch(batch)) => pending += self.write(&batch).await?,
                    Some(Message::Barrier(barrier)) => {
                        self.flush(barrier, &mut pending).await?;
                        done = barrier.last;
                    }
                    None => done = true,
                },
            }
        }
    }

    async fn write(&mut self, batch: &Batch) -> Result<u64, RunError> {
        let mut backoff = Backoff::new();
        let mut tries = 0u32;
        let failed = loop {
            match self.sink.write(batch).await {
                Ok(failed) => break failed,
                Err(error) => self.wait(&error, &mut backoff, &mut tries).await?,
            }
        };
        self.recovered(tries);
        let rows = batch.len() as u64;
        let dead = failed.len() as u64;
        self.refuse(failed).await?;
        self.counters.add(Counts { rows_in: rows, dead, ..Counts::default() });
        self.status.beat();
        Ok(rows.saturating_sub(dead))
    }

    async fn flush(&mut self, barrier: Barrier, pending: &mut u64) -> Result<(), RunError> {
        let mut backoff = Backoff::new();
        let mut tries = 0u32;
        let Flushed { failed, state } = loop {
            match self.sink.flush().await {
                Ok(flushed) => break flushed,
                Err(error) => self.wait(&error, &mut backoff, &mut tries).await?,
            }
        };
        self.recovered(tries);
        let dead = failed.len() as u64;
        self.refuse(failed).await?;
        self.counters.add(Counts { rows_out: pending.saturating_sub(dead), dead, ..Counts::default() });
        *pending = 0;
        self.status.beat();
        let report = Report::Sink { id: self.id.clone(), number: barrier.number, state, counts: self.counters.get() };
        self.reports.send(report).await.map_err(|_| RunError::new(&self.id, "the run has ended"))
    }

    async fn refuse(&mut self, failed: Vec<acequia_connector_api::FailedRow>) -> Result<(), RunError> {
        match (&self.refused, failed.first()) {
            (_, None) => Ok(()),
            (Refused::Route(route), _) => route.route(&self.id, failed).await,
            (Refused::Fatal, Some(first)) => {
                Err(RunError::new(&self.id, format!("a dead letter can't be written: {}", first.error)))
            }
        }
    }

    async fn wait(&mut self, error: &ConnectorError, backoff: &mut Backoff, tries: &mut u32) -> Result<(), RunError> {
        let Kind::Retryable { after } = error.kind else {
            return Err(RunError::connector(&self.id, error));
        };
        let wait = backoff.next(after);
        *tries += 1;
        let message = format!("{}: {}", self.id, chain_of(error));
        tracing::warn!(pipeline = self.status.name, stage = self.id, error = message, retry_in = ?wait, tries = *tries,
            "the sink will be tried again");
        self.counters.retry();
        self.status.trouble(&message);
        self.status.enter(State::Retrying);
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn recovered(&self, tries: u32) {
        if tries > 0 {
            tracing::info!(pipeline = self.status.name, stage = self.id, tries, "the sink works again");
            self.status.works();
        }
    }
}
