//! The store, as the pipelines see it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::StateError;
use super::checkpoint::Checkpoint;
use super::error::Failure;
use super::layout::{make_tables, previous};
use super::sound;
use super::writer::{Opener, Writer};

/// The file in the state folder.
pub(super) const FILE: &str = "acequia.redb";

/// Requests that are taken at once, and so checkpoints in one transaction, at most.
pub(super) const GROUP: usize = 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StateError>>;

/// What the store's thread is asked.
pub(crate) enum Request {
    Load(String, Reply<Option<Checkpoint>>),
    /// With whether the checkpoint that it replaces is kept.
    Save(String, Arc<Checkpoint>, bool, Reply<()>),
}

/// Checkpoints by pipeline. Cheap to clone; the file is closed when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    dir: PathBuf,
    /// It is answered on the test's own runtime, whose clock need not wait for a thread.
    #[cfg(test)]
    simulated: bool,
}

impl Store {
    /// Open the store in `dir`, which must be locked ([`super::StateLock`]).
    ///
    /// # Errors
    /// If the file can't be opened, or is not a store, or is damaged.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let file = dir.join(FILE);
        let exists = file.try_exists().map_err(|error| Failure::from(error).of_file(&file))?;
        if !exists {
            create(dir, &file).map_err(|failure| failure.of_file(&file))?;
        }
        let path = file.clone();
        Store::with(dir, &file, Box::new(move || sound::open(&path)))
    }

    pub(super) fn with(dir: &Path, file: &Path, open: Opener) -> Result<Self, StateError> {
        let writer = Writer::open(file, open)?;
        let (requests, receiver) = mpsc::channel(GROUP);
        std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| StateError::Database { file: file.to_owned(), error: error.to_string() })?;
        Ok(Store {
            requests,
            dir: dir.to_owned(),
            #[cfg(test)]
            simulated: false,
        })
    }

    /// A store whose requests the test takes from the receiver, and answers.
    #[cfg(test)]
    pub(super) fn simulated() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(GROUP);
        (Store { requests, dir: PathBuf::new(), simulated: true }, receiver)
    }

    /// The state folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The last checkpoint of a pipeline.
    ///
    /// # Errors
    /// If it can't be read whole.
    pub async fn load(&self, pipeline: &str) -> Result<Option<Checkpoint>, StateError> {
        self.ask(|reply| Request::Load(pipeline.to_owned(), reply)).await
    }

    /// The checkpoint before the last one, if that was stored with [`Store::save_beside`].
    ///
    /// # Errors
    /// If it can't be read whole.
    pub async fn load_previous(&self, pipeline: &str) -> Result<Option<Checkpoint>, StateError> {
        self.load(&previous(pipeline)).await
    }

    /// Store a checkpoint; when this returns, it is on disk.
    ///
    /// # Errors
    /// If it could not be written; the one before it stands.
    pub async fn save(&self, pipeline: &str, checkpoint: Arc<Checkpoint>) -> Result<(), StateError> {
        self.ask(|reply| Request::Save(pipeline.to_owned(), checkpoint, false, reply)).await
    }

    /// [`Store::save`], and the checkpoint that it replaces can still be loaded with [`Store::load_previous`]: for a sink
    /// in two phases, in which the new one may not come to count.
    ///
    /// # Errors
    /// As for `save`.
    pub async fn save_beside(&self, pipeline: &str, checkpoint: Arc<Checkpoint>) -> Result<(), StateError> {
        self.ask(|reply| Request::Save(pipeline.to_owned(), checkpoint, true, reply)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StateError> {
        #[cfg(test)]
        let _clock = (!self.simulated).then(tests::hold_the_clock);
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| StateError::Closed)?;
        answer.await.map_err(|_| StateError::Closed)?
    }
}

/// Make a store with its tables, so that a read never has to ask whether they exist. It gets its name only when it is
/// whole and on disk: a crash halfway leaves nothing that looks like a store and is none.
fn create(dir: &Path, file: &Path) -> Result<(), Failure> {
    let new = dir.join("acequia.redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = sound::builder().create(&new)?;
    make_tables(&database)?;
    drop(database);
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateLock;
    use acequia_connector_api::Position;

    /// A test's paused clock runs ahead whenever the runtime has nothing to do. The store works in a thread of its own,
    /// which the runtime does not know of; a blocking task is known, and holds the clock until this is dropped.
    pub(super) fn hold_the_clock() -> std::sync::mpsc::Sender<()> {
        let (held, wait) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || wait.recv().is_err());
        held
    }

    fn checkpoint(number: u64, snapshots: &[(&str, &[u8])]) -> Arc<Checkpoint> {
        Arc::new(Checkpoint {
            number,
            position: Position::single(number.into()),
            snapshots: snapshots.iter().map(|(id, bytes)| ((*id).to_owned(), bytes.to_vec())).collect(),
            ..Checkpoint::default()
        })
    }

    #[tokio::test]
    async fn survives_a_restart_and_forgets_removed_snapshots() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(store.load("a").await.unwrap(), None);
            store.save("a", checkpoint(1, &[("count", b"one"), ("gone", b"x")])).await.unwrap();
            store.save("ab", checkpoint(7, &[("count", b"other")])).await.unwrap();
            store.save("a", checkpoint(2, &[("count", b"two")])).await.unwrap();
        }
        // The thread lets go of the file soon after its last sender; opening must wait for it, not guess.
        let store = loop {
            match Store::open(dir.path()) {
                Ok(store) => break store,
                Err(StateError::Database { error, .. }) if error.contains("already open") => {
                    tokio::task::yield_now().await
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(store.load("a").await.unwrap().unwrap(), *checkpoint(2, &[("count", b"two")]));
        assert_eq!(store.load("ab").await.unwrap().unwrap(), *checkpoint(7, &[("count", b"other")]));
    }

    #[tokio::test]
    async fn the_checkpoint_before_is_kept_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.save_beside("a", checkpoint(1, &[("x", b"one"), ("y", b"one")])).await.unwrap();
        assert_eq!(store.load_previous("a").await.unwrap(), None, "there was none before the first");
        store.save_beside("a", checkpoint(2, &[("x", b"two")])).await.unwrap();
        store.save("ab", checkpoint(7, &[("x", b"other")])).await.unwrap();
        assert_eq!(store.load("a").await.unwrap().unwrap(), *checkpoint(2, &[("x", b"two")]));
        assert_eq!(store.load_previous("a").await.unwrap().unwrap(), *checkpoint(1, &[("x", b"one"), ("y", b"one")]));
        store.save_beside("a", checkpoint(3, &[("x", b"three")])).await.unwrap();
        assert_eq!(store.load_previous("a").await.unwrap().unwrap(), *checkpoint(2, &[("x", b"two")]));
        assert_eq!(store.load_previous("ab").await.unwrap(), None);
    }

    #[test]
    fn a_second_daemon_is_told_who_has_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StateLock::take(dir.path()).unwrap();
        let error = StateLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()) && error.contains("--state"), "{error}");
        drop(lock);
        StateLock::take(dir.path()).unwrap();
    }

    /// What a crash in the middle of making the file leaves is no obstacle.
    #[tokio::test]
    async fn a_file_that_was_half_made_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("acequia.redb.new"), b"half").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load("a").await.unwrap(), None);
        assert!(!dir.path().join("acequia.redb.new").exists());
    }

    #[test]
    fn a_file_that_is_no_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("acequia.redb"), b"something else").unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("acequia.redb"), "{error}");
    }
}
