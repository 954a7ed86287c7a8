//! The thread that owns the database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::mpsc;

use super::StateError;
use super::checkpoint::{Checkpoint, seal, unseal};
use super::store::{GROUP, Reply, Request, previous};

/// Pipeline -> sealed JSON of everything but the snapshots.
const CHECKPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checkpoints");
/// Pipeline and transform -> the sealed snapshot.
const SNAPSHOTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("snapshots");

/// Opens the database, at the start and again after it failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

struct Save {
    pipeline: String,
    checkpoint: Arc<Checkpoint>,
    /// Keep the checkpoint that it replaces.
    beside: bool,
    reply: Reply<()>,
}

pub(super) struct Writer {
    open: Opener,
    /// `None`: it failed, and is opened again for the next request.
    database: Option<Database>,
    file: PathBuf,
}

impl Writer {
    pub(super) fn open(file: &Path, open: Opener) -> Result<Self, StateError> {
        let mut writer = Writer { open, database: None, file: file.to_owned() };
        writer.with(|_| Ok(()))?;
        Ok(writer)
    }

    /// Until the last [`super::Store`] is gone. What waits at the same time is saved in one transaction, and loaded after
    /// that: whoever loads sees what was given to the store before, also by someone who did not wait for the answer.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while requests.blocking_recv_many(&mut batch, GROUP) > 0 {
            self.answer(batch.drain(..));
        }
    }

    /// Answer requests that came at the same time.
    pub(super) fn answer(&mut self, requests: impl IntoIterator<Item = Request>) {
        let mut saves = Vec::new();
        let mut loads = Vec::new();
        for request in requests {
            match request {
                Request::Load(pipeline, reply) => loads.push((pipeline, reply)),
                Request::Save(pipeline, checkpoint, beside, reply) => {
                    saves.push(Save { pipeline, checkpoint, beside, reply });
                }
            }
        }
        self.save_all(saves);
        for (pipeline, reply) in loads {
            // A reply that nobody waits for is no error: the pipeline was stopped meanwhile.
            let _ = reply.send(self.load(&pipeline));
        }
    }

    fn save_all(&mut self, saves: Vec<Save>) {
        if saves.is_empty() {
            return;
        }
        let together = self.with(|database| save(database, &saves));
        // One checkpoint that can't be written (its state is too large, say) must not fail the other pipelines' ones.
        let apart = together.is_err() && saves.len() > 1;
        for one in saves {
            let result =
                if apart { self.with(|database| save(database, std::slice::from_ref(&one))) } else { together.clone() };
            let _ = one.reply.send(result);
        }
    }

    fn load(&mut self, pipeline: &str) -> Result<Option<Checkpoint>, StateError> {
        let (head, snapshots) = self.with(|database| read(database, pipeline))?;
        let Some(head) = head else { return Ok(None) };
        let damaged =
            |error: String| StateError::Damaged { file: self.file.clone(), pipeline: pipeline.to_owned(), error };
        let head = unseal(&head).map_err(damaged)?;
        let mut checkpoint: Checkpoint = serde_json::from_slice(head).map_err(|error| damaged(error.to_string()))?;
        for (transform, snapshot) in snapshots {
            let bytes = unseal(&snapshot)
                .map_err(|error| damaged(format!("the snapshot of transform `{transform}`: {error}")))?;
            checkpoint.snapshots.insert(transform, bytes.to_vec());
        }
        Ok(Some(checkpoint))
    }

    /// Work with the database. After an error of the disk (which may be full for a while) it refuses everything until it
    /// is opened again, so it is closed here and opened for the next request.
    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StateError> {
        let failed = |error: String| StateError::Database { file: self.file.clone(), error };
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)().map_err(|error| failed(error.to_string()))?,
        };
        let result = work(&database);
        let broken = matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Backend(_)));
        if !broken {
            self.database = Some(database);
        }
        result.map_err(|error| failed(error.to_string()))
    }
}

/// Make the tables that every other function here takes to be there.
pub(super) fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(CHECKPOINTS)?;
    transaction.open_table(SNAPSHOTS)?;
    transaction.commit()?;
    Ok(())
}

type Sealed = (Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

fn read(database: &Database, pipeline: &str) -> Result<Sealed, redb::Error> {
    let transaction = database.begin_read()?;
    let head = transaction.open_table(CHECKPOINTS)?.get(pipeline)?.map(|value| value.value().to_vec());
    Ok((head, snapshots_of(&transaction.open_table(SNAPSHOTS)?, pipeline)?))
}

/// The sealed snapshots of a pipeline, by transform.
fn snapshots_of(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    pipeline: &str,
) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let mut snapshots = Vec::new();
    for entry in table.range((pipeline, "")..)? {
        let (key, value) = entry?;
        let (owner, transform) = key.value();
        if owner != pipeline {
            break;
        }
        snapshots.push((transform.to_owned(), value.value().to_vec()));
    }
    Ok(snapshots)
}

/// Make this, sealed, all that is stored under the name.
fn put(
    heads: &mut Table<'_, &'static str, &'static [u8]>,
    snapshots: &mut Table<'_, (&'static str, &'static str), &'static [u8]>,
    pipeline: &str,
    head: Option<&[u8]>,
    kept: &[(String, Vec<u8>)],
) -> Result<(), redb::Error> {
    match head {
        Some(head) => drop(heads.insert(pipeline, head)?),
        None => drop(heads.remove(pipeline)?),
    }
    let mut gone = Vec::new();
    for entry in snapshots.range((pipeline, "")..)? {
        let (key, _) = entry?;
        let (owner, transform) = key.value();
        if owner != pipeline {
            break;
        }
        if !kept.iter().any(|(kept, _)| kept == transform) {
            gone.push(transform.to_owned());
        }
    }
    for transform in gone {
        snapshots.remove((pipeline, transform.as_str()))?;
    }
    for (transform, bytes) in kept {
        snapshots.insert((pipeline, transform.as_str()), bytes.as_slice())?;
    }
    Ok(())
}

fn save(database: &Database, saves: &[Save]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut heads = transaction.open_table(CHECKPOINTS)?;
        let mut snapshots = transaction.open_table(SNAPSHOTS)?;
        for Save { pipeline, checkpoint, beside, .. } in saves {
            let pipeline = pipeline.as_str();
            if *beside {
                let before = previous(pipeline);
                let head = heads.get(pipeline)?.map(|value| value.value().to_vec());
                let kept = snapshots_of(&snapshots, pipeline)?;
                put(&mut heads, &mut snapshots, &before, head.as_deref(), &kept)?;
            }
            // The types serialise without fail: strings, numbers, and maps with string keys.
            let head = serde_json::to_vec(checkpoint).map_err(std::io::Error::other)?;
            let sealed: Vec<_> =
                checkpoint.snapshots.iter().map(|(transform, bytes)| (transform.clone(), seal(bytes))).collect();
            put(&mut heads, &mut snapshots, pipeline, Some(&seal(&head)), &sealed)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
    use std::sync::{Mutex, PoisonError};

    use acequia_connector_api::Position;
    use redb::StorageBackend;
    use redb::backends::FileBackend;

    use super::*;
    use crate::state::Store;

    /// A disk that can be full, and slow.
    #[derive(Debug, Default)]
    struct Disk {
        /// Every write fails.
        full: AtomicBool,
        /// A write with a run of this byte fails; 0: none does.
        hates: AtomicU8,
        /// A write waits for it.
        gate: Mutex<()>,
    }

    #[derive(Debug)]
    struct OnDisk(FileBackend, Arc<Disk>);

    impl OnDisk {
        fn strike(&self, data: &[u8]) -> io::Result<()> {
            drop(self.1.gate.lock().unwrap_or_else(PoisonError::into_inner));
            let hated = self.1.hates.load(Ordering::SeqCst);
            let hates = hated > 0 && data.windows(64).any(|window| window.iter().all(|byte| *byte == hated));
            if hates || self.1.full.load(Ordering::SeqCst) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(())
        }
    }

    impl StorageBackend for OnDisk {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.strike(&[])?;
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.strike(&[])?;
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.strike(data)?;
            self.0.write(offset, data)
        }
    }

    fn store_on(disk: &Arc<Disk>, dir: &Path) -> Store {
        let file = dir.join("acequia.redb");
        make_tables(&Database::create(&file).unwrap()).unwrap();
        let (disk, path) = (disk.clone(), file.clone());
        let open = move || {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            Database::builder().create_with_backend(OnDisk(FileBackend::new(file)?, disk.clone()))
        };
        Store::with(dir, &file, Box::new(open)).unwrap()
    }

    fn checkpoint(number: u64) -> Arc<Checkpoint> {
        let snapshots = [("sum".to_owned(), vec![u8::try_from(number).unwrap(); 100_000])].into();
        Arc::new(Checkpoint { number, position: Position::single(number.into()), snapshots, ..Checkpoint::default() })
    }

    // invariants 1 and 6
    #[tokio::test]
    async fn a_disk_that_is_full_for_a_while_costs_no_checkpoint_and_no_restart() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let store = store_on(&disk, dir.path());
        store.save("a", checkpoint(1)).await.unwrap();
        disk.full.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let error = store.save("a", checkpoint(2)).await.unwrap_err().to_string();
            assert!(error.contains("acequia.redb"), "{error}");
        }
        disk.full.store(false, Ordering::SeqCst);
        assert_eq!(store.load("a").await.unwrap().unwrap(), *checkpoint(1), "the one before it stands");
        store.save("a", checkpoint(2)).await.unwrap();
        assert_eq!(store.load("a").await.unwrap().unwrap(), *checkpoint(2));
    }

    /// Requests that come while the disk is busy wait together.
    async fn queued_behind_a_slow_write<T>(store: &Store, disk: &Disk, requests: impl Future<Output = T>) -> T {
        let slow = store.clone();
        let first = async {
            slow.save("first", checkpoint(1)).await.unwrap();
        };
        let gate = disk.gate.lock().unwrap();
        let release = async move {
            // Let the others send their requests first: they only wait for answers then.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            drop(gate);
        };
        let ((), (), result) = tokio::join!(first, release, requests);
        result
    }

    // invariant 6
    #[tokio::test]
    async fn a_checkpoint_that_can_not_be_written_does_not_take_others_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let store = store_on(&disk, dir.path());
        store.save("a", checkpoint(1)).await.unwrap();
        disk.hates.store(3, Ordering::SeqCst);
        let both = async { tokio::join!(store.save("a", checkpoint(2)), store.save("b", checkpoint(3))) };
        let (a, b) = queued_behind_a_slow_write(&store, &disk, both).await;
        a.unwrap();
        b.unwrap_err();
        assert_eq!(store.load("a").await.unwrap().unwrap(), *checkpoint(2));
        assert_eq!(store.load("b").await.unwrap(), None);
    }

    // invariant 2
    #[tokio::test]
    async fn whoever_loads_sees_what_was_given_to_the_store_before() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let store = store_on(&disk, dir.path());
        store.save("a", checkpoint(1)).await.unwrap();
        let requests = async {
            // A run that is given up while it saves: the request is on its way, and nobody waits for the answer.
            {
                let mut save = Box::pin(store.save("a", checkpoint(2)));
                assert!(futures::poll!(&mut save).is_pending());
            }
            store.load("a").await
        };
        let loaded = queued_behind_a_slow_write(&store, &disk, requests).await;
        assert_eq!(loaded.unwrap().unwrap().number, 2);
    }
}
