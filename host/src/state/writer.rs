//! The thread that owns the database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError};
use tokio::sync::mpsc;

use super::StateError;
use super::checkpoint::{Checkpoint, Sum, sum_of};
use super::error::Failure;
use super::layout::{self, Entry};
use super::sound::guarded;
use super::store::{GROUP, Reply, Request};

/// Opens the database, at the start and again after it failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

struct Save {
    pipeline: String,
    checkpoint: Arc<Checkpoint>,
    /// Keep the checkpoint that it replaces.
    beside: bool,
    reply: Reply<()>,
}

impl Save {
    fn entry(&self) -> Entry<'_> {
        Entry { pipeline: &self.pipeline, checkpoint: &self.checkpoint, beside: self.beside }
    }
}

/// By entry, which sums it may have when it is read: that of the last one that was written, and those of later ones of
/// which it is not known what came of them. `None` is no entry.
type Expected = BTreeMap<String, Vec<Option<Sum>>>;

pub(super) struct Writer {
    open: Opener,
    /// `None`: it failed, and is opened again for the next request.
    database: Option<Database>,
    file: PathBuf,
    /// The pages are not verified again while the file is open: so it is known here what must be in it.
    expected: Expected,
}

impl Writer {
    pub(super) fn open(file: &Path, open: Opener) -> Result<Self, StateError> {
        let mut writer = Writer { open, database: None, file: file.to_owned(), expected: Expected::new() };
        let database = writer.opened()?;
        writer.database = Some(database);
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
        let together = self.save(&saves);
        // One checkpoint that can't be written (its state is too large, say) must not fail the other pipelines' ones.
        let apart = together.is_err() && saves.len() > 1;
        for one in saves {
            let result = if apart { self.save(std::slice::from_ref(&one)) } else { together.clone() };
            let _ = one.reply.send(result);
        }
    }

    fn save(&mut self, saves: &[Save]) -> Result<(), StateError> {
        let mut written = BTreeMap::new();
        let result = self.with(|database| layout::save(database, saves.iter().map(Save::entry), &mut written));
        for (name, sum) in written {
            let expected = self.expected.entry(name).or_insert_with(|| vec![None]);
            if result.is_ok() {
                expected.clear();
            }
            // After an error it may be on disk all the same.
            expected.push(sum);
        }
        result
    }

    fn load(&mut self, name: &str) -> Result<Option<Checkpoint>, StateError> {
        let pipeline = layout::owner(name);
        let sealed = self.with(|database| layout::read(database, name))?;
        let damaged =
            |error: String| StateError::Damaged { file: self.file.clone(), pipeline: pipeline.to_owned(), error };
        let found = sealed.as_ref().map(|sealed| sum_of(&sealed.head).unwrap_or_default());
        if !self.expected.get(name).map_or(found.is_none(), |expected| expected.contains(&found)) {
            let error = if found.is_some() { "it is not the last one that was stored" } else { "it is gone" };
            return Err(damaged(error.to_owned()));
        }
        sealed.map(|sealed| sealed.open(pipeline)).transpose().map_err(damaged)
    }

    /// Work with the database. After an error of the disk (which may be full for a while) it refuses everything until it
    /// is opened again, so it is closed here and opened for the next request; and so it is after damage was found.
    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StateError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.opened()?,
        };
        let result = guarded(|| work(&database)).unwrap_or_else(|panic| Err(Failure::Corrupt(panic)));
        let broken = match &result {
            Ok(_) | Err(Failure::Newer { .. }) => false,
            Err(Failure::Corrupt(_)) => true,
            Err(Failure::Redb(error)) => matches!(
                error,
                redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Backend(_) | redb::Error::Corrupted(_)
            ),
        };
        if !broken {
            self.database = Some(database);
        } else if let Err(panic) = guarded(|| drop(database)) {
            tracing::warn!(file = %self.file.display(), error = panic, "the state file could not be closed");
        }
        result.map_err(|failure| failure.of_file(&self.file))
    }

    /// The database, whole, and with what must be in it.
    fn opened(&mut self) -> Result<Database, StateError> {
        let opened = guarded(|| {
            let database = (self.open)()?;
            let sums = layout::adopt(&database)?;
            Ok::<_, Failure>((database, sums))
        });
        let (database, sums) = opened
            .unwrap_or_else(|panic| Err(Failure::Corrupt(panic)))
            .map_err(|failure| failure.of_file(&self.file))?;
        if self.expected.is_empty() {
            self.expected = sums.into_iter().map(|(name, sum)| (name, vec![Some(sum)])).collect();
            return Ok(database);
        }
        // Opened again. What was tried when it failed has come to be, or has not; anything else stays to be found damaged.
        for (name, expected) in &mut self.expected {
            let found = sums.get(name).copied();
            if expected.contains(&found) {
                *expected = vec![found];
            }
        }
        Ok(database)
    }
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
        layout::make_tables(&Database::create(&file).unwrap()).unwrap();
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
