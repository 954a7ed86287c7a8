//! The state store of the simulation: the real database on a disk in memory, behind a store that takes its time and fails.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::sync::mpsc;

use super::super::memory::lock;
use super::model::check_save;
use super::schedule::Scene;
use super::source::place;
use super::world::Fault;
use crate::state::simulated::Request;
use crate::state::{Checkpoint, StateError};

pub const STAGE: &str = "store";
/// The pipeline's name.
pub const NAME: &str = "p";

/// What is stored, as the world knows it without asking the engine.
#[derive(Default)]
pub struct Stored(Mutex<Book>);

#[derive(Default)]
struct Book {
    last: Option<Arc<Checkpoint>>,
    /// The one before the last, if that is kept.
    previous: Option<Arc<Checkpoint>>,
    /// Every position that was stored and still counts.
    positions: BTreeSet<u64>,
    /// Every position that a sink in two phases has committed; `None`: there is no such sink.
    handed: Option<BTreeSet<u64>>,
}

impl Stored {
    pub fn new(two_phase: bool) -> Self {
        Stored(Mutex::new(Book { handed: two_phase.then(BTreeSet::new), ..Book::default() }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.0)
    }

    pub fn last(&self) -> Option<Arc<Checkpoint>> {
        self.book().last.clone()
    }

    pub fn previous(&self) -> Option<Arc<Checkpoint>> {
        self.book().previous.clone()
    }

    /// Where the last checkpoint says that the source stands.
    pub fn position(&self) -> Option<u64> {
        self.last().and_then(|last| place(&last.position))
    }

    pub fn sink_state(&self, id: &str) -> Option<Value> {
        self.last().and_then(|last| last.sinks.get(id).map(|sink| sink.state.clone()))
    }

    /// A sink in two phases has committed this position.
    pub fn hand(&self, position: u64) {
        if let Some(handed) = &mut self.book().handed {
            handed.insert(position);
        }
    }

    /// Whether a checkpoint with this position is stored, and counts in every sink.
    pub fn is_final(&self, position: u64) -> bool {
        let book = self.book();
        book.positions.contains(&position) && book.handed.as_ref().is_none_or(|handed| handed.contains(&position))
    }

    fn put(&self, checkpoint: Arc<Checkpoint>, beside: bool) {
        let mut book = self.book();
        let position = place(&checkpoint.position).unwrap_or(0);
        book.positions.retain(|stored| *stored <= position);
        book.positions.insert(position);
        let before = book.last.replace(checkpoint);
        if beside {
            book.previous = before;
        }
    }
}

/// Answer the requests of one process, in their order: until it ends, or dies with some of them done and some not.
pub async fn serve(scene: Arc<Scene>, mut requests: mpsc::Receiver<Request>) {
    let world = &scene.world;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Load(name, reply) => {
                world.pause().await;
                let answer = match fails(&scene, "load").await {
                    Err(error) => Err(error),
                    Ok(()) => scene.disk.load(&name),
                };
                world.note(STAGE, format_args!("loads {name:?}: {:?}", answer.as_ref().map(Option::is_some)));
                world.pause().await;
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            Request::Save(name, checkpoint, beside, reply) => {
                world.pause().await;
                let answer = match fails(&scene, "save").await {
                    Err(error) => Err(error),
                    Ok(()) => {
                        let (number, at) = (checkpoint.number, place(&checkpoint.position));
                        world.note(STAGE, format_args!("saves {number} at {at:?}, beside the one before: {beside}"));
                        check_save(&scene, &checkpoint, beside);
                        let answer = scene.disk.save(&name, checkpoint.clone(), beside);
                        scene.stored.put(checkpoint, beside);
                        answer
                    }
                };
                world.pause().await;
                let _ = reply.send(answer);
            }
        }
    }
}

/// The disk is slow, or full.
async fn fails(scene: &Scene, call: &'static str) -> Result<(), StateError> {
    let world = &scene.world;
    let Some(fault) = world.fault(STAGE, call) else { return Ok(()) };
    world.note(STAGE, format_args!("{call}: {fault:?}"));
    match fault {
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            world.pause().await;
            Ok(())
        }
        _ => Err(StateError::Database { file: PathBuf::from("memory"), error: "the disk is full".to_owned() }),
    }
}
