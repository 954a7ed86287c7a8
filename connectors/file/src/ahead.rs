//! JSON lines of a large file on several cores.
//!
//! The file is cut behind line breaks, and each piece is read, framed and decoded in a task of its own, as if the one before it
//! had ended between two rows and had taught nothing new about the rows' types. What comes out is taken in the order of the file, and
//! only if that was so. If it was not, everything from there on is thrown away and read again: with the new types, or, if the file
//! is not one row a line after all, one piece after the other. So the rows are those that a single reader makes, and so are the
//! positions; only where a batch ends may differ.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use acequia_connector_api::{ConnectorError, Share};
use acequia_format::Resume;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::building::{Building, Ready};
use crate::errors::could_not;
use crate::tail::Tail;

/// How much is read at once. In tests so little that a file has many pieces, some of them without a line break.
const PIECE: usize = if cfg!(test) { 40 } else { 512 << 10 };
/// In how many of its last bytes a line break is looked for: first in few, then in more.
const ENDS: [usize; 2] = if cfg!(test) { [4, 32] } else { [4 << 10, 64 << 10] };
/// A file of which less is left is not worth it.
const LEAST: u64 = 2 * PIECE as u64;
/// After so many pieces that had to be read again the rest is for a single reader.
const MISSES: u32 = 8;

/// Pieces of one file on their way.
pub(crate) struct Ahead {
    /// How many at the same time.
    most: usize,
    jobs: VecDeque<JoinHandle<Done>>,
    share: Share,
    /// Where the next piece starts.
    next: u64,
    /// There are no more of them.
    ended: bool,
    misses: u32,
    /// What another piece can use of those that are done.
    buffers: Vec<Vec<u8>>,
    buildings: Vec<Building>,
}

/// A piece, decoded.
struct Done {
    /// Where it started.
    from: u64,
    /// Where it has ended, its lines counted from 0; or why it could not be read.
    at: io::Result<Resume>,
    /// What was known of the types before it.
    learnt: Option<Value>,
    ready: VecDeque<Ready>,
    building: Building,
    buffer: Vec<u8>,
}

impl Ahead {
    /// Whether the rest of a file is worth it, and is one row a line as far as it is known; then begin there. Not in the middle of
    /// a line: soon there will be the start of one.
    pub(crate) fn begin(tail: &Tail, building: &Building, cores: usize, share: &Share) -> Option<Self> {
        let Resume { lines, array, column, .. } = tail.at;
        if cores < 2 || tail.one_by_one || !lines || array || column != 0 || building.has_swollen() {
            return None;
        }
        let length = tail.file.metadata().map_or(0, |metadata| metadata.len());
        (length.saturating_sub(tail.at.offset) >= LEAST).then(|| Ahead {
            most: cores,
            jobs: VecDeque::new(),
            share: share.clone(),
            next: tail.at.offset,
            ended: false,
            misses: 0,
            buffers: Vec::new(),
            buildings: Vec::new(),
        })
    }

    /// Whether nothing is left to do: from `tail.at` on the file is for a single reader.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.jobs.is_empty()
    }

    /// Begin as many pieces as may be in work.
    ///
    /// # Errors
    /// If the file can't be read and nothing is in work; else the error comes again later.
    pub(crate) fn fill(&mut self, tail: &Tail, building: &Building) -> Result<(), ConnectorError> {
        while !self.ended && self.jobs.len() < self.most {
            match end_of_lines(&tail.file, self.next) {
                Ok(None) => self.ended = true,
                Ok(Some(length)) => {
                    self.begin_piece(tail, building, length);
                    self.next += length as u64;
                }
                Err(_) if !self.jobs.is_empty() => return Ok(()),
                Err(error) => return Err(could_not("read", &tail.path, error)),
            }
        }
        Ok(())
    }

    fn begin_piece(&mut self, tail: &Tail, building: &Building, length: usize) {
        let from = self.next;
        let mut tail = tail.moved_to(Resume { offset: from, line: 0, column: 0, ..tail.at });
        let learnt = building.learnt().cloned();
        // One that knows other types is of no use any more.
        let spare = self.buildings.pop().filter(|spare| spare.learnt() == learnt.as_ref());
        let mut building = spare.unwrap_or_else(|| building.another());
        let mut buffer = self.buffers.pop().unwrap_or_default();
        let decode = async move {
            buffer.resize(length, 0);
            let (read, buffer) = read(tail.file.clone(), buffer, from).await;
            if read.is_ok() {
                building.take(&mut tail, Some(&buffer));
                building.close();
            }
            let ready = building.take_ready();
            Done { from, at: read.map(|()| tail.at), learnt, ready, building, buffer }
        };
        self.jobs.push_back(tokio::spawn(self.share.meter_source(decode)));
    }

    /// Wait for the first piece and take what it has brought, if it began where the one before it has ended. Cancel safe.
    ///
    /// # Errors
    /// If the piece could not be read, or if its task has failed, which is a mistake in here.
    pub(crate) async fn take(&mut self, tail: &mut Tail, building: &mut Building) -> Result<(), ConnectorError> {
        let Some(job) = self.jobs.front_mut() else { return Ok(()) };
        let done = job.await;
        self.jobs.pop_front();
        let done = done.map_err(|error| ConnectorError::failed(format!("a task that decodes rows failed: {error}")))?;
        let Resume { offset, column, array, line, .. } = tail.at;
        if (done.from, 0, false) != (offset, column, array) {
            // Not one row a line.
            self.stop();
            return Ok(());
        }
        if done.learnt.as_ref() != building.learnt() {
            self.misses += 1;
            self.again(offset);
            if self.misses > MISSES {
                self.stop();
            }
            return Ok(());
        }
        let at = done.at.map_err(|error| {
            self.again(offset);
            could_not("read", &tail.path, error)
        })?;
        tail.at = Resume { line: at.line + line, ..at };
        tail.read = at.offset;
        building.accept(done.ready, &done.building, line);
        if done.building.has_swollen() {
            self.stop();
        }
        self.buffers.push(done.buffer);
        self.buildings.push(done.building);
        Ok(())
    }

    /// Throw away what is in work, and begin anew there.
    fn again(&mut self, offset: u64) {
        self.jobs.clear();
        self.next = offset;
    }

    fn stop(&mut self) {
        self.ended = true;
        self.jobs.clear();
    }
}

/// Fill the buffer from that place of the file on. What the system has in its memory is there at once; what must come from the disk is
/// waited for by another thread: a disk that hangs must not hold up the tasks of all pipelines (invariant 6).
async fn read(file: Arc<File>, mut buffer: Vec<u8>, from: u64) -> (io::Result<()>, Vec<u8>) {
    let there = read_at_once(&file, &mut buffer, from);
    if there == buffer.len() {
        return (Ok(()), buffer);
    }
    let task = tokio::task::spawn_blocking(move || {
        let rest = buffer.get_mut(there..).unwrap_or_default();
        (file.read_exact_at(rest, from + there as u64), buffer)
    });
    task.await.unwrap_or_else(|error| (Err(io::Error::other(error)), Vec::new()))
}

/// As much of it as can be had without waiting, from its start.
fn read_at_once(file: &File, buffer: &mut [u8], from: u64) -> usize {
    #[cfg(target_os = "linux")]
    {
        let mut there = 0;
        while let Some(rest) = buffer.get_mut(there..).filter(|rest| !rest.is_empty()) {
            let into = &mut [io::IoSliceMut::new(rest)];
            match rustix::io::preadv2(file, into, from + there as u64, rustix::io::ReadWriteFlags::NOWAIT) {
                Ok(read) if read > 0 => there += read,
                // Not in memory, or a file system that can't tell.
                _ => break,
            }
        }
        there
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, buffer, from);
        0
    }
}

/// How long whole lines are from there on, [`PIECE`] bytes at most; `None` if there are not so many bytes, or if the last of them
/// have no line break.
fn end_of_lines(file: &File, offset: u64) -> io::Result<Option<usize>> {
    for length in ENDS {
        let mut bytes = vec![0; length];
        let before = PIECE - length;
        match file.read_exact_at(&mut bytes, offset + before as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Some(place) = memchr::memrchr(b'\n', &bytes) {
            return Ok(Some(before + place + 1));
        }
    }
    Ok(None)
}
