//! Looking at a state folder, and forgetting what is in it: for the command line.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Database;
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};

use super::checkpoint::Checkpoint;
use super::error::Failure;
use super::layout::{self, Sealed, owner, previous};
use super::lock::LOCK;
use super::sound::{self, guarded};
use super::store::FILE;
use super::{StateError, StateLock};

/// How often a copy is tried while a daemon writes.
const TRIES: usize = 50;
/// What changes with every commit, at the beginning of the file.
const HEADER: usize = 320;

/// What a state folder holds.
#[derive(Clone, Debug)]
pub struct Look {
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The number of its format.
    pub format: u32,
    /// The version of acequia that wrote it last; none in format 1.
    pub acequia: Option<String>,
    /// One for each pipeline, by name.
    pub entries: Vec<Entry>,
}

/// What is stored of one pipeline.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub pipeline: String,
    /// Its last checkpoint.
    pub last: Stored,
    /// The one before, if it is kept.
    pub previous: Option<Stored>,
}

/// A checkpoint as it was found.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The checkpoint, or what is wrong with it.
    pub checkpoint: Result<Checkpoint, String>,
    sealed: Arc<Sealed>,
}

impl Stored {
    fn new(pipeline: &str, sealed: Sealed) -> Self {
        Stored { checkpoint: sealed.open(pipeline), sealed: Arc::new(sealed) }
    }

    /// Its size in the file.
    pub fn bytes(&self) -> u64 {
        self.sealed.bytes()
    }

    /// As it lies in the file: the head, and the snapshots by transform; layout byte, sum, bytes.
    pub fn raw(&self) -> (&[u8], &[(String, Vec<u8>)]) {
        (&self.sealed.head, &self.sealed.snapshots)
    }
}

/// Look at a folder. Nothing is written and nothing held: a daemon that has the folder is not disturbed, and none is kept from
/// starting. A copy of the file is read, taken between two commits.
///
/// # Errors
/// If there is no state, or the file is damaged as a whole, or a daemon writes to it without a pause.
pub fn look(dir: &Path) -> Result<Look, StateError> {
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StateError::Missing { dir: dir.to_owned() });
        }
        file => file.map_err(|error| Failure::from(error).of_file(&path))?,
    };
    let looked = guarded(|| {
        let copy = copy(&file)?;
        let (database, _) = sound::newest(&copy)?;
        contents(&database, &path, copy.metadata()?.len())
    });
    looked.unwrap_or_else(|panic| Err(Failure::Corrupt(panic))).map_err(|failure| failure.of_file(&path))
}

/// A copy of the file in memory, of one moment. The pages of a commit are only written again after a later one, so if the
/// header is the same before and after, all that it leads to is too.
fn copy(mut file: &File) -> io::Result<File> {
    for _ in 0..TRIES {
        let before = header(file)?;
        let copy = File::from(memfd_create("acequia-state", MemfdFlags::CLOEXEC)?);
        file.rewind()?;
        io::copy(&mut file, &mut &copy)?;
        if header(file)? == before {
            return Ok(copy);
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "a daemon writes to it without a pause: try again, or stop it first"))
}

fn header(file: &File) -> io::Result<(u64, Vec<u8>)> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; HEADER.min(usize::try_from(length).unwrap_or(HEADER))];
    file.read_exact_at(&mut bytes, 0)?;
    Ok((length, bytes))
}

fn contents(database: &Database, file: &Path, bytes: u64) -> Result<Look, Failure> {
    let (about, sums) = layout::survey(database)?;
    let mut entries = Vec::new();
    for name in sums.keys().filter(|name| owner(name) == *name) {
        let stored = |entry: &str| Ok::<_, Failure>(layout::read(database, entry)?.map(|it| Stored::new(name, it)));
        if let Some(last) = stored(name)? {
            entries.push(Entry { pipeline: name.clone(), last, previous: stored(&previous(name))? });
        }
    }
    let (format, acequia) = about.map_or((1, None), |about| (about.format, Some(about.acequia)));
    Ok(Look { file: file.to_owned(), bytes, format, acequia, entries })
}

/// The process number of the daemon that has the folder.
pub fn holder(dir: &Path) -> Option<String> {
    let file = File::open(dir.join(LOCK)).ok()?;
    // Let go of at once: a daemon that starts in this moment tries more than once.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(super::lock::holder(&file)),
        _ => None,
    }
}

/// A state folder that no daemon has, to be changed.
#[derive(Debug)]
pub struct Folder {
    file: PathBuf,
    database: Database,
    _lock: StateLock,
}

impl Folder {
    /// Take it.
    ///
    /// # Errors
    /// If there is no state, a daemon has it, or the file is damaged as a whole.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let file = dir.join(FILE);
        // The lock would make the folder.
        if !file.exists() {
            return Err(StateError::Missing { dir: dir.to_owned() });
        }
        let lock = StateLock::take(dir)?;
        let opened = guarded(|| {
            let database = sound::open(&file)?;
            layout::adopt(&database)?;
            Ok::<_, Failure>(database)
        });
        let opened = opened.unwrap_or_else(|panic| Err(Failure::Corrupt(panic)));
        let database = opened.map_err(|failure| failure.of_file(&file))?;
        Ok(Folder { file, database, _lock: lock })
    }

    /// What it holds.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn look(&self) -> Result<Look, StateError> {
        self.work(|database| {
            let bytes = std::fs::metadata(&self.file)?.len();
            contents(database, &self.file, bytes)
        })
    }

    /// Forget everything of these pipelines, in one transaction.
    ///
    /// # Errors
    /// If it can't be written; then nothing is forgotten.
    pub fn forget(&self, pipelines: &[&str]) -> Result<(), StateError> {
        self.work(|database| layout::remove(database, pipelines.iter().copied()))
    }

    fn work<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StateError> {
        let done = guarded(|| work(&self.database)).unwrap_or_else(|panic| Err(Failure::Corrupt(panic)));
        done.map_err(|failure| failure.of_file(&self.file))
    }
}
