//! The store: a thread that owns the database.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{Checkpoint, seal, unseal};

/// Pipeline -> sealed JSON of everything but the snapshots.
const CHECKPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checkpoints");
/// Pipeline and transform -> the sealed snapshot.
const SNAPSHOTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("snapshots");

/// The database's cache: its default of 1 GiB is more than everything else together.
const CACHE_BYTES: usize = 8 << 20;
/// Checkpoints that one transaction takes at most.
const GROUP: usize = 1024;

/// Something is wrong with the state folder or what is in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// The folder can't be made or written.
    #[error("the state folder {dir} can't be used: {error}", dir = dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        error: Arc<std::io::Error>,
    },
    /// Another daemon has it.
    #[error(
        "the state folder {dir} is in use by process {holder}: stop that daemon, or give this one a folder of its own with --state",
        dir = dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The other's process number.
        holder: String,
    },
    /// The database fails.
    #[error("the state file {file} can't be used: {error}", file = file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        error: String,
    },
    /// One entry is not what was written.
    #[error(
        "the checkpoint of pipeline `{pipeline}` in {file} is damaged: {error}; nothing was read from it: restore the file from a backup, or start the pipeline anew under another name",
        file = file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The pipeline.
        pipeline: String,
        /// What is wrong.
        error: String,
    },
    /// The store's thread has ended.
    #[error("the state store has been closed")]
    Closed,
}

type Reply<T> = oneshot::Sender<Result<T, StateError>>;

enum Request {
    Load(String, Reply<Option<Checkpoint>>),
    Save(String, Arc<Checkpoint>, Reply<()>),
}

/// Checkpoints by pipeline. Cheap to clone; the file is closed when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    dir: PathBuf,
}

impl Store {
    /// Open the store in `dir`, which must be locked ([`super::StateLock`]).
    ///
    /// # Errors
    /// If the file can't be opened, or is not a store, or is damaged.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let file = dir.join("acequia.redb");
        let failed = |error: String| StateError::Database { file: file.clone(), error };
        let exists = file.try_exists().map_err(|error| failed(error.to_string()))?;
        if !exists {
            create(dir, &file).map_err(|error| failed(error.to_string()))?;
        }
        let database = builder().open(&file).map_err(|error| failed(error.to_string()))?;
        let (requests, receiver) = mpsc::channel(GROUP);
        let writer = Writer { database, file: file.clone() };
        std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Store { requests, dir: dir.to_owned() })
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
        let (reply, answer) = oneshot::channel();
        let request = Request::Load(pipeline.to_owned(), reply);
        self.requests.send(request).await.map_err(|_| StateError::Closed)?;
        answer.await.map_err(|_| StateError::Closed)?
    }

    /// Store a checkpoint; when this returns, it is on disk.
    ///
    /// # Errors
    /// If it could not be written; the one before it stands.
    pub async fn save(&self, pipeline: &str, checkpoint: Arc<Checkpoint>) -> Result<(), StateError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Save(pipeline.to_owned(), checkpoint, reply);
        self.requests.send(request).await.map_err(|_| StateError::Closed)?;
        answer.await.map_err(|_| StateError::Closed)?
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Make a store with its two tables, so that a read never has to ask whether they exist. It gets its name only when it is
/// whole and on disk: a crash halfway leaves nothing that looks like a store and is none.
fn create(dir: &Path, file: &Path) -> Result<(), redb::Error> {
    let new = dir.join("acequia.redb.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = builder().create(&new)?;
    let transaction = database.begin_write()?;
    transaction.open_table(CHECKPOINTS)?;
    transaction.open_table(SNAPSHOTS)?;
    transaction.commit()?;
    drop(database);
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

struct Writer {
    database: Database,
    file: PathBuf,
}

impl Writer {
    fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while requests.blocking_recv_many(&mut batch, GROUP) > 0 {
            let mut saves = Vec::new();
            for request in batch.drain(..) {
                // A reply that nobody waits for is no error: the pipeline was stopped meanwhile.
                match request {
                    Request::Load(pipeline, reply) => drop(reply.send(self.load(&pipeline))),
                    Request::Save(pipeline, checkpoint, reply) => saves.push((pipeline, checkpoint, reply)),
                }
            }
            if saves.is_empty() {
                continue;
            }
            let result = self
                .save(saves.iter().map(|(pipeline, checkpoint, _)| (pipeline.as_str(), checkpoint.as_ref())))
                .map_err(|error| self.failed(&error));
            for (_, _, reply) in saves {
                drop(reply.send(result.clone()));
            }
        }
    }

    fn failed(&self, error: &redb::Error) -> StateError {
        StateError::Database { file: self.file.clone(), error: error.to_string() }
    }

    fn load(&self, pipeline: &str) -> Result<Option<Checkpoint>, StateError> {
        let damaged =
            |error: String| StateError::Damaged { file: self.file.clone(), pipeline: pipeline.to_owned(), error };
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let head = transaction.open_table(CHECKPOINTS)?.get(pipeline)?.map(|value| value.value().to_vec());
            let mut snapshots = Vec::new();
            let table = transaction.open_table(SNAPSHOTS)?;
            for entry in table.range((pipeline, "")..)? {
                let (key, value) = entry?;
                let (owner, transform) = key.value();
                if owner != pipeline {
                    break;
                }
                snapshots.push((transform.to_owned(), value.value().to_vec()));
            }
            Ok((head, snapshots))
        };
        let (head, snapshots) = read().map_err(|error| self.failed(&error))?;
        let Some(head) = head else { return Ok(None) };
        let head = unseal(&head).map_err(damaged)?;
        let mut checkpoint: Checkpoint = serde_json::from_slice(head).map_err(|error| damaged(error.to_string()))?;
        for (transform, snapshot) in snapshots {
            let bytes = unseal(&snapshot)
                .map_err(|error| damaged(format!("the snapshot of transform `{transform}`: {error}")))?;
            checkpoint.snapshots.insert(transform, bytes.to_vec());
        }
        Ok(Some(checkpoint))
    }

    fn save<'a>(&self, saves: impl Iterator<Item = (&'a str, &'a Checkpoint)>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut heads = transaction.open_table(CHECKPOINTS)?;
            let mut snapshots = transaction.open_table(SNAPSHOTS)?;
            for (pipeline, checkpoint) in saves {
                // The types serialise without fail: strings, numbers, and maps with string keys.
                let head = serde_json::to_vec(checkpoint).map_err(std::io::Error::other)?;
                heads.insert(pipeline, seal(&head).as_slice())?;
                let mut gone = Vec::new();
                for entry in snapshots.range((pipeline, "")..)? {
                    let (key, _) = entry?;
                    let (owner, transform) = key.value();
                    if owner != pipeline {
                        break;
                    }
                    if !checkpoint.snapshots.contains_key(transform) {
                        gone.push(transform.to_owned());
                    }
                }
                for transform in gone {
                    snapshots.remove((pipeline, transform.as_str()))?;
                }
                for (transform, bytes) in &checkpoint.snapshots {
                    snapshots.insert((pipeline, transform.as_str()), seal(bytes).as_slice())?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateLock;
    use acequia_connector_api::Position;

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
