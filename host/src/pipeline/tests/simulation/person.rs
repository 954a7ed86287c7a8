//! Who drives a schedule: starts the pipeline, changes it, stops it, and pulls the plug.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::disk::{STAGE as STORE, serve};
use super::model::check_end;
use super::schedule::Scene;
use super::source::STAGE as SOURCE;
use super::transform::JOURNAL;
use super::world::World;
use crate::pipeline::status::{PipelineStatus, State};
use crate::pipeline::{Command, Pipeline, ReloadError};
use crate::state::simulated;

/// By when a reload must have been answered.
const RELOAD: Duration = Duration::from_secs(90);
/// By when a stop must have come to its end.
const STOP: Duration = Duration::from_secs(60);
/// By when a pipeline must have recovered once nothing fails any more.
const CALM: Duration = Duration::from_secs(600);

/// A reload that was asked for.
struct Asked {
    version: usize,
    answer: oneshot::Receiver<Result<(), ReloadError>>,
}

/// A process, and who looks after it.
pub struct Person {
    scene: Arc<Scene>,
    world: Arc<World>,
    pipeline: Option<Pipeline>,
    status: Arc<PipelineStatus>,
    store: JoinHandle<()>,
    /// The version that runs, as far as the person knows.
    version: usize,
    asked: Vec<Asked>,
}

impl Person {
    /// Start it for the first time.
    pub fn new(scene: &Arc<Scene>) -> Self {
        let world = scene.world.clone();
        world.note("plan", format_args!("{}", scene.describe()));
        let mut person = Person {
            scene: scene.clone(),
            world,
            pipeline: None,
            status: Arc::new(PipelineStatus::new("p")),
            store: tokio::spawn(async {}),
            version: 0,
            asked: Vec::new(),
        };
        person.start();
        person
    }

    /// A new process.
    fn start(&mut self) {
        self.world.live();
        self.world.note("PERSON", format_args!("starts version {}", self.version));
        let (store, requests) = simulated::store();
        self.store.abort();
        self.store = tokio::spawn(serve(self.scene.clone(), requests));
        self.status = Arc::new(PipelineStatus::new("p"));
        self.pipeline = Some(Pipeline::start(self.scene.setup(self.version), store, self.status.clone()));
    }

    fn state(&self) -> State {
        self.status.facts().state
    }

    /// The whole schedule.
    pub async fn run(mut self) {
        let strikes = self.world.draw(2..=8);
        self.world.faults([0, 0, 5, 20, 50][self.world.draw(0..5)]);
        for _ in 0..strikes {
            let wait = self.world.time(0..[200, 1000, 4000][self.world.draw(0..3)]);
            self.wait(wait).await;
            if self.world.is_wrong().is_some() {
                return;
            }
            self.strike().await;
        }
        self.world.note("PERSON", format_args!("from here on nothing fails"));
        self.world.calm();
        self.end().await;
        if self.world.is_wrong().is_none() && self.world.chance(30) {
            self.world.note("PERSON", format_args!("starts it once more"));
            self.start();
            self.end().await;
        }
    }

    /// Look on for a while; if the process dies, there is a new one.
    async fn wait(&mut self, time: Duration) {
        self.world.sleep(time).await;
        self.look().await;
    }

    async fn look(&mut self) {
        if self.world.is_dead() {
            self.crash().await;
        }
        self.answers();
        let facts = self.status.facts();
        // Invariant 6: what is wrong can be seen.
        if facts.state == State::Retrying && facts.first_error.is_none() {
            self.world.wrong("the pipeline retries, and no error is visible");
        }
        if facts.state == State::Stopped && self.pipeline.is_some() {
            if facts.last_error.is_none() {
                self.world.wrong("the pipeline has stopped, and no error is visible");
            }
            self.scene.skip();
            self.world.note("PERSON", format_args!("lets failed rows be skipped"));
            self.ask(false, self.version);
        }
    }

    /// Take the answers that have come.
    fn answers(&mut self) {
        for Asked { version, mut answer } in std::mem::take(&mut self.asked) {
            match answer.try_recv() {
                Ok(Ok(())) => {
                    self.world.note("PERSON", format_args!("version {version} is accepted"));
                    // Nothing ran, so there was nothing to keep: it is mended where it is.
                    self.scene.mend(version);
                    self.version = version;
                }
                Ok(Err(error)) => {
                    self.world.note("PERSON", format_args!("version {version} is rejected: {error}"));
                    if version != self.version {
                        self.scene.reject(version);
                    }
                }
                Err(oneshot::error::TryRecvError::Empty) => self.asked.push(Asked { version, answer }),
                Err(oneshot::error::TryRecvError::Closed) => {
                    self.world.note("PERSON", format_args!("version {version} is not answered"));
                }
            }
        }
    }

    /// Ask for a reload.
    fn ask(&mut self, swap: bool, version: usize) {
        let Some(pipeline) = &self.pipeline else { return };
        let (reply, answer) = oneshot::channel();
        let setup = self.scene.setup(version);
        let kind = if swap { "a swap to" } else { "a replacement by" };
        let command = if swap { Command::Swap(setup, reply) } else { Command::Replace(setup, reply) };
        match pipeline.commands.try_send(command) {
            Ok(()) => {
                self.world.note("PERSON", format_args!("asks for {kind} version {version}"));
                self.asked.push(Asked { version, answer });
            }
            Err(mpsc::error::TrySendError::Full(_)) => self.world.note("PERSON", format_args!("is too fast")),
            Err(mpsc::error::TrySendError::Closed(_)) => self.world.wrong("the pipeline takes no commands"),
        }
    }

    /// Wait for every answer.
    async fn await_answers(&mut self) {
        let limit = tokio::time::Instant::now() + RELOAD;
        while !self.asked.is_empty() && self.world.is_wrong().is_none() {
            if tokio::time::Instant::now() > limit {
                self.world.wrong(format!("a reload was not answered within {RELOAD:?}"));
            }
            self.wait(Duration::from_millis(50)).await;
        }
    }

    async fn reload(&mut self) {
        let broken = self.world.chance(30);
        let version = self.scene.draw_version(broken);
        let swap = self.world.chance(50);
        if !swap && self.world.chance(50) {
            self.scene.change();
        }
        self.ask(swap, version);
        if self.world.chance(50) {
            self.await_answers().await;
        }
    }

    /// The process dies: whatever runs never runs again.
    async fn crash(&mut self) {
        self.world.note("PERSON", format_args!("the process has died"));
        let Some(pipeline) = self.pipeline.take() else { return };
        pipeline.task.abort();
        self.store.abort();
        let _ = pipeline.task.await;
        // The stages were ended with it; they are dropped when the runtime comes to them.
        self.nothing_open().await;
        // It starts with what is in the files.
        if let Some(Asked { version, .. }) = self.asked.pop().filter(|_| self.world.chance(50)) {
            self.scene.mend(version);
            self.version = version;
        }
        self.asked.clear();
        self.start();
    }

    /// What has died is dropped as soon as the runtime comes to it.
    async fn nothing_open(&self) {
        for _ in 0..10_000 {
            if self.world.open().is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
        self.world.wrong(format!("what has died does not end: {:?}", self.world.open()));
    }

    /// Stop it in good order; but the plug may be pulled meanwhile.
    async fn stop(&mut self) {
        let Some(pipeline) = self.pipeline.take() else { return };
        self.world.note("PERSON", format_args!("stops it"));
        let abort = pipeline.task.abort_handle();
        let stop = tokio::spawn(pipeline.stop());
        let limit = tokio::time::Instant::now() + STOP;
        while !stop.is_finished() && !self.world.is_dead() && self.world.is_wrong().is_none() {
            if tokio::time::Instant::now() > limit {
                self.world.wrong(format!("it did not stop within {STOP:?}"));
            }
            self.world.sleep(Duration::from_millis(20)).await;
        }
        self.store.abort();
        stop.abort();
        abort.abort();
        if self.world.is_dead() {
            self.nothing_open().await;
        }
        self.answers();
        self.asked.clear();
        self.world.note("PERSON", format_args!("it has stopped: {}", self.state().name()));
    }

    /// One thing that goes wrong, or is done by a person.
    async fn strike(&mut self) {
        match self.world.draw(0..14) {
            0..3 => {
                let points = self.world.draw(1..120);
                self.world.note("PERSON", format_args!("the process dies in {points} points"));
                self.world.die_in(points);
            }
            3 => self.crash().await,
            4 => {
                if self.world.chance(30) {
                    self.world.die_in(self.world.draw(1..60));
                }
                self.stop().await;
                self.start();
            }
            5..9 => self.reload().await,
            9 => {
                // Two at once: the second is the one that counts.
                self.reload().await;
                self.reload().await;
            }
            _ => self.burst(),
        }
    }

    /// A stage fails for some calls.
    fn burst(&mut self) {
        let world = &self.world;
        let tables: Vec<&str> =
            self.scene.tables.iter().chain(&self.scene.letters).map(|table| table.id.as_str()).collect();
        let table = tables[world.draw(0..tables.len())];
        let (stage, call) = match world.draw(0..14) {
            0 | 1 => (table, "write"),
            2 | 3 => (table, "flush"),
            4 | 5 => (table, "committed"),
            6 => (table, "open"),
            7 => (SOURCE, "next"),
            8 => (SOURCE, "open"),
            9 => (JOURNAL, "start"),
            10 => (JOURNAL, "apply"),
            11 => (JOURNAL, "snapshot"),
            12 => (STORE, "save"),
            _ => (STORE, "load"),
        };
        let (fault, times) = (world.draw_fault(), world.draw(1..5));
        world.note("PERSON", format_args!("the next {times} times {call} of {stage} will be {fault:?}"));
        world.burst(stage, call, fault, times);
    }

    /// Nothing fails any more: let it come to its end, and look.
    async fn end(&mut self) {
        self.await_answers().await;
        let limit = tokio::time::Instant::now() + CALM;
        let goal = self.scene.script.next() + 30;
        while self.world.is_wrong().is_none() {
            self.wait(Duration::from_millis(100)).await;
            let done = match self.scene.script.rows {
                Some(_) => self.state() == State::Completed,
                // What died meanwhile has to come up again first.
                None => {
                    self.state() == State::Running
                        && self.scene.stored.position().is_some_and(|position| position >= goal)
                }
            };
            if done && self.asked.is_empty() {
                break;
            }
            if tokio::time::Instant::now() > limit {
                let facts = self.status.facts();
                self.world.wrong(format!("it does not come to its end: {facts:?}"));
            }
        }
        // It is not to die any more.
        self.world.live();
        self.stop().await;
        if self.world.is_wrong().is_none() {
            check_end(&self.scene);
        }
    }
}
