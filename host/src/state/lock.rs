//! One daemon to a state folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::StateError;

/// The file that is locked, with the process number of whoever has it.
pub(super) const LOCK: &str = "lock";
/// `acequia state inspect` has the lock for a moment to see whether it is free.
const TRIES: usize = 10;
const WAIT: Duration = Duration::from_millis(5);

/// Holds the state folder for this process. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Take the folder, made if it is missing.
    ///
    /// # Errors
    /// If another process has it; the message says which.
    pub fn take(dir: &Path) -> Result<Self, StateError> {
        let io = |error| StateError::Folder { dir: dir.to_owned(), error: std::sync::Arc::new(error) };
        std::fs::create_dir_all(dir).map_err(io)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(LOCK)).map_err(io)?;
        let mut tries = 1..=TRIES;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if tries.next().is_none() {
                return Err(StateError::Locked { dir: dir.to_owned(), holder: holder(&file) });
            }
            std::thread::sleep(WAIT);
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(io)?;
        Ok(StateLock { _file: file })
    }
}

/// The process number in the lock's file. Best effort: it only makes a message better.
pub(super) fn holder(mut file: &File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    holder.trim().to_owned()
}
