//! A pipeline's life: run after run, until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::error::{Remedy, RunError};
use super::run::{Run, RunEnd};
use super::setup::Setup;
use super::status::{PipelineStatus, State};
use crate::state::Store;

/// Why a reload was rejected. What ran before goes on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(pub String);

/// What a pipeline can be told.
#[derive(Debug)]
pub enum Command {
    /// Only transforms changed: put the new ones in place without stopping the stream.
    Swap(Arc<Setup>, oneshot::Sender<Result<(), ReloadError>>),
    /// Stop at a barrier, and go on from there with the new setup; if it can't be opened, with the old one.
    Replace(Arc<Setup>, oneshot::Sender<Result<(), ReloadError>>),
    /// Stop at a barrier and end.
    Stop(oneshot::Sender<()>),
}

/// A pipeline that has been started.
#[derive(Debug)]
pub struct Pipeline {
    commands: mpsc::Sender<Command>,
    status: Arc<PipelineStatus>,
    task: JoinHandle<()>,
}

impl Pipeline {
    /// Start it; it opens, runs, fails, waits and tries again by itself.
    pub fn start(setup: Arc<Setup>, store: Store, status: Arc<PipelineStatus>) -> Self {
        let (commands, receiver) = mpsc::channel(4);
        let life = Life { setup, store, status: status.clone(), commands: receiver, backoff: Backoff::new() };
        Pipeline { commands, status, task: tokio::spawn(life.run()) }
    }

    /// Its status.
    pub fn status(&self) -> &Arc<PipelineStatus> {
        &self.status
    }

    /// Put new transforms in place without stopping the stream.
    ///
    /// # Errors
    /// If one of them can't start; the old ones go on.
    pub async fn swap(&self, setup: Arc<Setup>) -> Result<(), ReloadError> {
        self.ask(|reply| Command::Swap(setup, reply)).await
    }

    /// Go on from a barrier with a new setup.
    ///
    /// # Errors
    /// If it can't be opened; the old one goes on.
    pub async fn replace(&self, setup: Arc<Setup>) -> Result<(), ReloadError> {
        self.ask(|reply| Command::Replace(setup, reply)).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), ReloadError>>) -> Command,
    ) -> Result<(), ReloadError> {
        let gone = || ReloadError("the pipeline has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Deliver what is in flight, store a checkpoint, and end.
    pub async fn stop(self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stop(reply)).await.is_ok() {
            // An error means that it had ended already.
            let _ = answer.await;
        }
        if let Err(error) = self.task.await {
            tracing::error!(pipeline = self.status.name, error = error.to_string(), "the pipeline's task panicked");
        }
    }
}

struct Life {
    setup: Arc<Setup>,
    store: Store,
    status: Arc<PipelineStatus>,
    commands: mpsc::Receiver<Command>,
    backoff: Backoff,
}

/// What to do after a run, or a wait.
enum Next {
    Open { careful: bool },
    Ended,
}

impl Life {
    async fn run(mut self) {
        let mut next = Next::Open { careful: false };
        while let Next::Open { careful } = next {
            self.status.enter(State::Starting);
            next = match self.open(self.setup.clone(), careful).await {
                Ok(run) => self.drive(run, careful).await,
                Err(error) => self.failed(error).await,
            };
        }
    }

    async fn open(&self, setup: Arc<Setup>, careful: bool) -> Result<Run, RunError> {
        let checkpoint =
            self.store.load(&setup.name).await.map_err(|error| RunError::new("checkpoint", error.to_string()))?;
        Run::open(setup, self.store.clone(), self.status.clone(), checkpoint, careful).await
    }

    async fn drive(&mut self, mut run: Run, careful: bool) -> Next {
        loop {
            self.status.enter(State::Running);
            tracing::info!(pipeline = self.setup.name, careful, "running");
            let result = run.drive(&mut self.commands).await;
            self.setup = run.setup().clone();
            let progressed = run.checkpoints() > 0;
            drop(run);
            if progressed {
                self.backoff.reset();
            }
            match result {
                Ok(RunEnd::Completed) => {
                    self.status.enter(State::Completed);
                    tracing::info!(
                        pipeline = self.setup.name,
                        "completed: the source has ended and every row is confirmed"
                    );
                    return self.rest().await;
                }
                Ok(RunEnd::Stopped(reply)) => {
                    self.status.enter(State::Stopped);
                    let _ = reply.send(());
                    return Next::Ended;
                }
                Ok(RunEnd::Replaced(setup, reply)) => match self.open(setup.clone(), false).await {
                    Ok(new) => {
                        self.setup = setup;
                        drop(reply.send(Ok(())));
                        run = new;
                    }
                    Err(error) => {
                        // The old one is opened again from the same checkpoint; if that fails too, it is the usual retry.
                        drop(reply.send(Err(ReloadError(error.to_string()))));
                        match self.open(self.setup.clone(), false).await {
                            Ok(old) => run = old,
                            Err(error) => return self.failed(error).await,
                        }
                    }
                },
                // A second loss of state without a checkpoint between is no longer news: it waits like any failure, and
                // still goes on carefully.
                Err(error) if error.remedy == Remedy::Careful && (!careful || progressed) => {
                    self.note(&error);
                    return Next::Open { careful: true };
                }
                Err(error) => return self.failed(error).await,
            }
        }
    }

    fn note(&self, error: &RunError) {
        tracing::error!(pipeline = self.setup.name, stage = error.stage, error = error.message, "the pipeline failed");
        self.status.trouble(&error.to_string());
        self.status.update(|facts| facts.restarts += 1);
    }

    /// A run failed, or could not be opened: wait, then try again; or stay stopped.
    async fn failed(&mut self, error: RunError) -> Next {
        self.note(&error);
        if error.remedy == Remedy::Stop {
            self.status.enter(State::Stopped);
            return self.rest().await;
        }
        self.status.enter(State::Retrying);
        let wait = self.backoff.next(None);
        tracing::info!(pipeline = self.setup.name, retry_in = ?wait, "the pipeline will go on from its checkpoint");
        self.wait(Some(wait), error.remedy == Remedy::Careful).await
    }

    /// Nothing to do until a command comes.
    async fn rest(&mut self) -> Next {
        self.wait(None, false).await
    }

    async fn wait(&mut self, time: Option<Duration>, careful: bool) -> Next {
        let timer = async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            command = self.commands.recv() => match command {
                // Nothing runs, so there is nothing to keep: the new setup is taken and tried from here on.
                Some(Command::Swap(setup, reply) | Command::Replace(setup, reply)) => {
                    self.setup = setup;
                    self.backoff.reset();
                    drop(reply.send(Ok(())));
                    Next::Open { careful: false }
                }
                Some(Command::Stop(reply)) => {
                    let _ = reply.send(());
                    Next::Ended
                }
                None => Next::Ended,
            },
            () = timer => Next::Open { careful },
        }
    }
}
