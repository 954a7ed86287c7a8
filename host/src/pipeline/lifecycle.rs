//! A pipeline's life: run after run, until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::backoff::Backoff;
use super::error::{Remedy, RunError};
use super::run::{Outcome, Run, RunEnd, panic_message};
use super::setup::Setup;
use super::status::{PipelineStatus, State};
use crate::state::Store;

/// How long a new configuration may take to open while there is an old one to go back to. Whoever reloads waits for it
/// and for the old one's end, so together they must stay below what `packaging/acequia.service` has as its watchdog's
/// interval.
const OPEN: Duration = Duration::from_secs(10);

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
    pub(super) commands: mpsc::Sender<Command>,
    status: Arc<PipelineStatus>,
    pub(super) task: JoinHandle<()>,
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

/// What to do next.
enum Next {
    Open { careful: bool },
    Drive { run: Box<Run>, careful: bool },
    Ended,
}

/// What came of opening a run.
enum Opened {
    Run(Box<Run>),
    Failed(RunError),
    /// A command came first, and it was given up.
    Told(Option<Command>),
}

impl Life {
    async fn run(mut self) {
        let mut next = Next::Open { careful: false };
        loop {
            next = match next {
                Next::Open { careful } => {
                    self.status.enter(State::Starting);
                    match self.open(self.setup.clone(), careful).await {
                        Opened::Run(run) => Next::Drive { run, careful },
                        Opened::Failed(error) => self.failed(error).await,
                        Opened::Told(command) => self.obey(command),
                    }
                }
                Next::Drive { run, careful } => self.drive(run, careful).await,
                Next::Ended => return,
            };
        }
    }

    /// Open a run; in a task of its own, so that a connector that panics or never comes back does not take the pipeline
    /// with it.
    async fn open(&mut self, setup: Arc<Setup>, careful: bool) -> Opened {
        let mut opening = JoinSet::new();
        opening.spawn(Run::open(setup, self.store.clone(), self.status.clone(), careful));
        tokio::select! {
            biased;
            Some(opened) = opening.join_next() => match opened {
                Ok(Ok(run)) => Opened::Run(Box::new(run)),
                Ok(Err(error)) => Opened::Failed(error),
                Err(error) => Opened::Failed(RunError::new("open", panic_message(error))),
            },
            command = self.commands.recv() => {
                opening.shutdown().await;
                Opened::Told(command)
            }
        }
    }

    async fn drive(&mut self, mut run: Box<Run>, careful: bool) -> Next {
        tracing::info!(pipeline = self.setup.name, careful, "running");
        let Outcome { end, error } = run.drive(&mut self.commands).await;
        self.setup = run.setup().clone();
        let progressed = run.checkpoints() > 0;
        drop(run);
        if progressed {
            self.backoff.reset();
        }
        if let Some(error) = &error {
            self.note(error);
        }
        match (end, error) {
            (RunEnd::Completed, _) => {
                self.status.enter(State::Completed);
                tracing::info!(
                    pipeline = self.setup.name,
                    "completed: the source has ended and every row is confirmed"
                );
                self.wait(None, false).await
            }
            (RunEnd::Stopped(reply), _) => self.stop(reply),
            (RunEnd::Replaced(setup, reply), error) => {
                let careful = error.is_some_and(|error| error.remedy == Remedy::Careful);
                self.replace(setup, reply, careful).await
            }
            // A second loss of state without a checkpoint between is no longer news: it waits like any failure, and
            // still goes on carefully.
            (RunEnd::Failed, Some(error)) if error.remedy == Remedy::Careful && (!careful || progressed) => {
                self.status.update(|facts| facts.restarts += 1);
                Next::Open { careful: true }
            }
            (RunEnd::Failed, Some(error)) => self.retry(&error).await,
            // A run that failed says why.
            (RunEnd::Failed, None) => Next::Open { careful },
        }
    }

    /// Nothing runs any more, and the checkpoint is stored: open the new setup there. If it can't be opened, the old one
    /// goes on (invariant 7).
    async fn replace(
        &mut self,
        setup: Arc<Setup>,
        reply: oneshot::Sender<Result<(), ReloadError>>,
        careful: bool,
    ) -> Next {
        self.status.enter(State::Starting);
        let rejected = match tokio::time::timeout(OPEN, self.open(setup.clone(), careful)).await {
            Ok(Opened::Run(run)) => {
                self.setup = setup;
                drop(reply.send(Ok(())));
                return Next::Drive { run, careful };
            }
            Ok(Opened::Told(command)) => {
                drop(reply.send(Err(ReloadError("another command came before it was open".to_owned()))));
                return match command {
                    // What ran before is still what to fall back to.
                    Some(Command::Swap(setup, reply) | Command::Replace(setup, reply)) => {
                        Box::pin(self.replace(setup, reply, careful)).await
                    }
                    command => self.obey(command),
                };
            }
            Ok(Opened::Failed(error)) => error.to_string(),
            Err(_) => format!("it could not be opened within {OPEN:?}"),
        };
        drop(reply.send(Err(ReloadError(rejected))));
        // From the same checkpoint; if that fails too, it is the usual retry.
        Next::Open { careful }
    }

    /// A command comes while nothing runs, so there is nothing to keep: a new setup is taken and tried from here on.
    fn obey(&mut self, command: Option<Command>) -> Next {
        match command {
            Some(Command::Swap(setup, reply) | Command::Replace(setup, reply)) => {
                self.setup = setup;
                self.backoff.reset();
                drop(reply.send(Ok(())));
                Next::Open { careful: false }
            }
            Some(Command::Stop(reply)) => self.stop(reply),
            None => self.stop(oneshot::channel().0),
        }
    }

    fn stop(&self, reply: oneshot::Sender<()>) -> Next {
        // What has completed stays so.
        self.status.update(|facts| {
            if facts.state != State::Completed {
                facts.state = State::Stopped;
            }
        });
        let _ = reply.send(());
        Next::Ended
    }

    fn note(&self, error: &RunError) {
        tracing::error!(pipeline = self.setup.name, stage = error.stage, error = error.message, "the pipeline failed");
        self.status.trouble(&error.to_string());
    }

    /// A run could not be opened.
    async fn failed(&mut self, error: RunError) -> Next {
        self.note(&error);
        self.retry(&error).await
    }

    /// After a failure: wait, then try again; or stay stopped (invariant 6).
    async fn retry(&mut self, error: &RunError) -> Next {
        self.status.update(|facts| facts.restarts += 1);
        if error.remedy == Remedy::Stop {
            self.status.enter(State::Stopped);
            return self.wait(None, false).await;
        }
        self.status.enter(State::Retrying);
        let wait = self.backoff.next(None);
        tracing::info!(pipeline = self.setup.name, retry_in = ?wait, "the pipeline will go on from its checkpoint");
        self.wait(Some(wait), error.remedy == Remedy::Careful).await
    }

    /// Until a command comes, or the time is over.
    async fn wait(&mut self, time: Option<Duration>, careful: bool) -> Next {
        let timer = async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            command = self.commands.recv() => self.obey(command),
            () = timer => Next::Open { careful },
        }
    }
}
