//! Opens the file only if all of it is sound (invariant 2).
//!
//! The database trusts a file that was closed in good order: on damaged pages it may panic, or find nothing where there was
//! something. And where the newest commit is damaged it may go back to the one before. So the whole file is judged first,
//! by checksums from the roots down (the database's own, XXH3 of every page), on a copy-on-write view of it ([`Overlay`]):
//! a file that is refused is left as it is.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Database, DatabaseError, StorageBackend, StorageError};
use rustix::fs::{FlockOperation, flock};

use super::error::corrupt;

/// The database's cache: its default of 1 GiB is more than everything else together.
const CACHE_BYTES: usize = 8 << 20;

/// Of redb's header (docs/design.md there, file format 3): its length, the byte with the flags, and in each of the two commit
/// slots the number of the transaction.
const HEADER: usize = 320;
const FLAGS: u64 = 9;
const PRIMARY: u8 = 1;
const TRANSACTION: [usize; 2] = [64 + 104, 192 + 104];

pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Open the file to be written.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    // The database holds this lock too: nobody writes while it is looked at. Where there are no locks, the folder's
    // own one must do.
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
        return Err(DatabaseError::DatabaseAlreadyOpen);
    }
    let (database, flags) = newest(&file)?;
    drop(database);
    if let Some(flags) = flags {
        file.write_all_at(&[flags], FLAGS)?;
        file.sync_data()?;
    }
    drop(file);
    guarded(|| builder().open(path)).map_err(corrupt)?
}

/// The newest whole state in a file, as a database that leaves the file alone; and what its flags have to become if that
/// is not the state that they name.
///
/// Every commit is in two phases ([`super::layout`]), so the slot that the flags name must be whole: it was confirmed. The
/// other one is newer if the process ended between the phases, or if the flag itself was hit. If it is whole, it is
/// taken: what it holds was confirmed, or on its way to be.
pub(super) fn newest(file: &File) -> Result<(Database, Option<u8>), DatabaseError> {
    let length = file.metadata()?.len();
    let mut header = [0; HEADER];
    if length < HEADER as u64 {
        return Err(corrupt(format!("it has {length} bytes")));
    }
    file.read_exact_at(&mut header, 0)?;
    let named = view(file, None)?;
    let flags = header.get(FLAGS as usize).copied().unwrap_or_default();
    let transaction = |slot: usize| {
        let bytes = TRANSACTION.get(slot).and_then(|at| header.get(*at..at + 8)?.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let primary = usize::from(flags & PRIMARY);
    if transaction(1 - primary) > transaction(primary)
        && let Ok(newer) = view(file, Some(flags ^ PRIMARY))
    {
        return Ok((newer, Some(flags ^ PRIMARY)));
    }
    Ok((named, None))
}

fn view(file: &File, flags: Option<u8>) -> Result<Database, DatabaseError> {
    let overlay = Overlay::new(file.try_clone()?)?;
    if let Some(flags) = flags {
        overlay.write(FLAGS, &[flags])?;
    }
    let opened =
        guarded(|| builder().set_check_integrity_on_open(true).create_with_backend(overlay)).map_err(corrupt)?;
    opened.map_err(|error| match error {
        // A page that is not there, or no database at all.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
        {
            corrupt(error.to_string())
        }
        DatabaseError::UpgradeRequired(version) => {
            corrupt(format!("it has version {version} of redb's format, which acequia never wrote"))
        }
        error => error,
    })
}

/// Do something with the database that may panic on a damaged file; the panic's message.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Whatever was being changed is dropped by the caller.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| format!("the database can't read it: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

const BLOCK: u64 = 4096;

/// A file that can be written without changing: what is written stays in memory.
#[derive(Debug)]
struct Overlay {
    file: File,
    state: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    /// So much of the file itself is still valid.
    below: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Overlay { file, state: Mutex::new(Written { length, below: length, blocks: BTreeMap::new() }) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Written> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it lies in the file; zeros where that ends.
    fn original(&self, block: u64, below: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; BLOCK as usize].into_boxed_slice();
        let there = below.saturating_sub(block * BLOCK).min(BLOCK) as usize;
        if let Some(bytes) = bytes.get_mut(..there) {
            self.file.read_exact_at(bytes, block * BLOCK)?;
        }
        Ok(bytes)
    }
}

/// The parts of a range that lie in one block each: the block, where in it, where in the range.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset + length as u64;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let (from, to) = (offset.max(block * BLOCK), end.min((block + 1) * BLOCK));
        let within = (from - block * BLOCK) as usize..(to - block * BLOCK) as usize;
        (block, within, (from - offset) as usize..(to - offset) as usize)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let outside = || io::Error::from(ErrorKind::UnexpectedEof);
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.length) {
            return Err(outside());
        }
        if state.blocks.is_empty() && offset + out.len() as u64 <= state.below {
            return self.file.read_exact_at(out, offset);
        }
        for (block, within, part) in pieces(offset, out.len()) {
            let out = out.get_mut(part).ok_or_else(outside)?;
            match state.blocks.get(&block) {
                Some(bytes) => out.copy_from_slice(bytes.get(within).ok_or_else(outside)?),
                None => out.copy_from_slice(self.original(block, state.below)?.get(within).ok_or_else(outside)?),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.below = state.below.min(length);
        // What comes back after a cut is zeros.
        let cut = length.div_ceil(BLOCK);
        state.blocks.split_off(&cut);
        if let Some(last) = state.blocks.get_mut(&(length / BLOCK))
            && let Some(rest) = last.get_mut((length % BLOCK) as usize..)
        {
            rest.fill(0);
        }
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let outside = || io::Error::from(ErrorKind::UnexpectedEof);
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > state.length) {
            return Err(outside());
        }
        for (block, within, part) in pieces(offset, data.len()) {
            let bytes = match state.blocks.remove(&block) {
                Some(bytes) => bytes,
                None => self.original(block, state.below)?,
            };
            let bytes = state.blocks.entry(block).or_insert(bytes);
            bytes.get_mut(within).ok_or_else(outside)?.copy_from_slice(data.get(part).ok_or_else(outside)?);
        }
        Ok(())
    }
}
