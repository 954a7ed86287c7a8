//! One daemon to a state folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StateError;

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
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
            .map_err(io)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Best effort: the number only makes the message better.
            let _ = file.read_to_string(&mut holder);
            return Err(StateError::Locked { dir: dir.to_owned(), holder: holder.trim().to_owned() });
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
