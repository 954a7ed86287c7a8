//! A disk in memory, and stores on it that are answered on the test's own runtime: what the simulation of the engine has
//! instead of the thread and the file. The database, and how a checkpoint lies in it, are the real ones.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::Database;
use redb::backends::InMemoryBackend;
use tokio::sync::{mpsc, oneshot};

use super::layout::make_tables;
use super::store::Reply;
use super::writer::Writer;
use super::{Checkpoint, StateError, Store};

pub(crate) use super::store::Request;

/// What outlives the process.
pub(crate) struct Disk(Mutex<Writer>);

impl Disk {
    pub(crate) fn new() -> Self {
        let open = || {
            let database = Database::builder().create_with_backend(InMemoryBackend::new())?;
            make_tables(&database).map_err(|error| redb::StorageError::Corrupted(format!("{error:?}")))?;
            Ok(database)
        };
        Disk(Mutex::new(Writer::open(Path::new("memory"), Box::new(open)).unwrap()))
    }

    /// Save now. What `Store::save` and `save_beside` come to.
    pub(crate) fn save(&self, pipeline: &str, checkpoint: Arc<Checkpoint>, beside: bool) -> Result<(), StateError> {
        self.answer(|reply| Request::Save(pipeline.to_owned(), checkpoint, beside, reply))
    }

    /// Load now. What `Store::load` comes to.
    pub(crate) fn load(&self, pipeline: &str) -> Result<Option<Checkpoint>, StateError> {
        self.answer(|reply| Request::Load(pipeline.to_owned(), reply))
    }

    fn answer<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StateError> {
        let (reply, mut answer) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).answer([request(reply)]);
        answer.try_recv().map_err(|_| StateError::Closed)?
    }
}

/// A process's store; whoever has the receiver answers it.
pub(crate) fn store() -> (Store, mpsc::Receiver<Request>) {
    Store::simulated()
}
