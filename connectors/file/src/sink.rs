//! The sink of rows one after the other: JSON lines, CSV, text, raw.
//!
//! How a row is written exactly once (invariants 1 to 4):
//! - the checkpoint holds the file's length, and a restart cuts the file back to it;
//! - a write that fails cuts the file back to where its batch began, so that a retry neither doubles a row nor leaves
//!   half of one;
//! - a file that was renamed is left for a new one only at a flush, so every checkpoint speaks of one file, and a restart
//!   that finds the file under its new name cuts it back there;
//! - a `fdatasync` that fails is not tried again: the kernel may have dropped the pages, and the next one would succeed
//!   for nothing (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use acequia_connector_api::{Batch, ConnectorError, FailedRow, Flushed, Sink};
use acequia_format::Format;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::config::FileSink;
use crate::errors::{could_not, fatal, state_value, sync_folder};
use crate::identity::{FileId, Mark, is_missing};
use crate::rows::RowWriter;

/// What the checkpoint holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The path of the configuration, made absolute.
    path: PathBuf,
    /// Its file, and how long it is.
    #[serde(flatten)]
    mark: Mark,
    /// The columns of a CSV file, in order: with `header = false` they stand nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
}

/// So much is written before the system is asked to bring it to disk. Without that a checkpoint would find everything still to be
/// done, and would wait for it.
const WRITE_BACK: u64 = 4 << 20;

pub(crate) struct FileWriter {
    path: PathBuf,
    file: Arc<File>,
    id: FileId,
    /// Whether a row ends in a line break.
    lines: bool,
    rows: RowWriter,
    /// The file's length: whole rows up to here.
    length: u64,
    /// The length at the last flush.
    flushed: u64,
    /// The system was asked to bring the file to disk up to here.
    asked: u64,
    /// That it asks.
    write_back: Option<JoinHandle<()>>,
    /// A write failed and may have left bytes beyond `length`.
    torn: bool,
    /// The file's entry in its folder is not yet on disk.
    created: bool,
    /// Something of the file's content or length is not yet on disk.
    dirty: bool,
    buffer: Vec<u8>,
}

impl FileWriter {
    pub(crate) fn open(
        config: &FileSink,
        format: Format,
        path: PathBuf,
        state: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        let state = state.and_then(|state| State::deserialize(state).ok()).filter(|state| state.path == path);
        let mut columns = None;
        let (file, created) = match state {
            Some(state) => {
                columns = state.columns;
                restore(&path, &state.mark)?
            }
            None => {
                let (file, created) = open_or_create(&path)?;
                if !config.append {
                    cut_back(&file, 0).map_err(|error| could_not("empty", &path, error))?;
                }
                (file, created)
            }
        };
        let lines = format != Format::Raw;
        let length = end_last_line(&file, lines).map_err(|error| could_not("prepare", &path, error))?;
        let metadata = file.metadata().map_err(|error| could_not("look at", &path, error))?;
        let rows = RowWriter::new(format, &config.csv, config.value.as_deref(), columns);
        let mut writer = FileWriter {
            path,
            file: Arc::new(file),
            id: FileId::of(&metadata),
            lines,
            rows,
            length,
            flushed: length,
            asked: length,
            write_back: None,
            torn: false,
            created,
            dirty: true,
            buffer: Vec::new(),
        };
        writer.learn_columns()?;
        Ok(writer)
    }

    /// A CSV file that was begun before says itself what its columns are.
    fn learn_columns(&mut self) -> Result<(), ConnectorError> {
        let read = self.rows.learn_columns(&self.file, self.length);
        read.map_err(|error| could_not("read the header of", &self.path, error))
    }

    /// Take notice if someone else cut the file short (a rotation by copying): its rows are wherever that program put
    /// them, and the next ones follow at the new end.
    fn look(&mut self) -> Result<(), ConnectorError> {
        let metadata = self.file.metadata().map_err(|error| could_not("look at", &self.path, error))?;
        if metadata.len() < self.length {
            tracing::warn!(path = %self.path.display(), from = self.length, to = metadata.len(),
                "the file was cut short by another program; going on at its end");
            self.length = end_last_line(&self.file, self.lines)
                .map_err(|error| could_not("end the last line of", &self.path, error))?;
            self.flushed = self.flushed.min(self.length);
        }
        Ok(())
    }

    /// Undo what a failed write left.
    fn mend(&mut self) -> Result<(), ConnectorError> {
        if self.torn {
            cut_back(&self.file, self.length).map_err(|error| could_not("cut back", &self.path, error))?;
            self.torn = false;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), ConnectorError> {
        if !self.dirty {
            return Ok(());
        }
        let file = self.file.clone();
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        match synced {
            Ok(Ok(())) => {
                self.dirty = false;
                Ok(())
            }
            Ok(Err(error)) => Err(fatal(could_not("bring to disk", &self.path, error))),
            Err(error) => Err(fatal(could_not("bring to disk", &self.path, error))),
        }
    }

    /// Have what was written brought to disk, without waiting for it. If that fails, the next [`FileWriter::sync`] says so.
    fn begin_write_back(&mut self) {
        // A file that was cut short or begun anew.
        self.asked = self.asked.min(self.length);
        let is_busy = self.write_back.as_ref().is_some_and(|task| !task.is_finished());
        if is_busy || self.length - self.asked < WRITE_BACK {
            return;
        }
        #[cfg(target_os = "linux")]
        if let (Ok(start), Ok(length)) = (i64::try_from(self.asked), i64::try_from(self.length - self.asked)) {
            let file = self.file.clone();
            // It waits where the disk has too much to do already.
            self.write_back = Some(tokio::task::spawn_blocking(move || {
                // SAFETY: the file is open, and the call touches no memory of ours. That some file systems can't do it is no harm.
                unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, libc::SYNC_FILE_RANGE_WRITE) };
            }));
        }
        self.asked = self.length;
    }

    /// Whether the path names another file than the open one, or none.
    fn was_moved(&self) -> Result<bool, ConnectorError> {
        let now = FileId::at(&self.path).map_err(|error| could_not("look at", &self.path, error))?;
        Ok(now != Some(self.id))
    }

    /// Begin the file anew under its path.
    fn begin_anew(&mut self) -> Result<(), ConnectorError> {
        let (file, created) = open_or_create(&self.path)?;
        let path = &self.path;
        let fail = |error: io::Error| could_not("begin anew", path, error);
        let metadata = file.metadata().map_err(fail)?;
        let start = end_last_line(&file, self.lines).map_err(fail)?;
        let deleted = self.file.metadata().map_err(fail)?.nlink() == 0;
        let mut length = start;
        if deleted && self.length > self.flushed {
            // No name leads to the rows since the last flush any more, but the open file still has them.
            // They begin with the header only if none of the file was confirmed.
            let header = if start == 0 && self.flushed > 0 { self.rows.header() } else { Vec::new() };
            if let Err(error) = carry_over(&self.file, self.flushed..self.length, &header, &file) {
                let cut = cut_back(&file, start);
                return Err(fail(cut.err().unwrap_or(error)));
            }
            length = file.metadata().map_err(fail)?.len();
        }
        tracing::info!(path = %path.display(), deleted, "the file was renamed or deleted; going on with a new one");
        self.id = FileId::of(&metadata);
        self.file = Arc::new(file);
        self.length = length;
        self.flushed = start;
        self.created = created;
        self.torn = false;
        self.dirty = true;
        self.learn_columns()
    }
}

#[async_trait]
impl Sink for FileWriter {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        self.mend()?;
        self.look()?;
        self.dirty = true;
        self.buffer.clear();
        let failed = self.rows.encode(batch, self.length == 0, &mut self.buffer)?;
        // One call for the whole batch; the file is open for appending, so it goes to the end wherever that is.
        if let Err(error) = (&*self.file).write_all(&self.buffer) {
            self.torn = true;
            if let Err(cut) = self.mend() {
                tracing::warn!(path = %self.path.display(), error = %cut, "a failed write is undone later");
            }
            return Err(could_not("write", &self.path, error));
        }
        self.length += self.buffer.len() as u64;
        self.begin_write_back();
        Ok(failed)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        self.mend()?;
        self.look()?;
        self.sync().await?;
        if self.was_moved()? {
            self.begin_anew()?;
            self.sync().await?;
        }
        if self.created {
            sync_folder(&self.path).map_err(|error| could_not("bring to disk the folder of", &self.path, error))?;
            self.created = false;
        }
        let mark =
            Mark::new(&self.file, self.id, self.length).map_err(|error| could_not("read back", &self.path, error))?;
        self.flushed = self.length;
        let state = State { path: self.path.clone(), mark, columns: self.rows.columns() };
        Ok(Flushed { failed: Vec::new(), state: Some(state_value(&state)?) })
    }
}

/// Open the file where the checkpoint left it, cut back to its length then. Also says whether it was created.
fn restore(path: &Path, mark: &Mark) -> Result<(File, bool), ConnectorError> {
    let fail = |error: io::Error| could_not("go on with", path, error);
    let found = FileId::at(path).map_err(fail)?;
    if found == Some(mark.id) {
        let (file, created) = open_or_create(path)?;
        let length = file.metadata().map_err(fail)?.len();
        if length < mark.offset {
            return Err(ConnectorError::failed(format!(
                "`{}` has {length} bytes, but {} at the last checkpoint: rows that were confirmed are gone from it; \
                 put the file back, or rename or delete it to begin a new one",
                path.display(),
                mark.offset
            )));
        }
        if mark.fits(&file).map_err(fail)? {
            cut_back(&file, mark.offset).map_err(fail)?;
        } else {
            tracing::warn!(path = %path.display(), "the file was changed since the last checkpoint; appending to it");
        }
        return Ok((file, created));
    }
    if let Some(renamed) = mark.find_renamed(path).map_err(fail)? {
        // Rotated while the pipeline was down, or since the last checkpoint.
        let (file, _) = open_or_create(&renamed)?;
        cut_back(&file, mark.offset).map_err(|error| could_not("cut back", &renamed, error))?;
        return open_or_create(path);
    }
    let (file, created) = open_or_create(path)?;
    if found.is_some() && mark.fits(&file).map_err(fail)? {
        // Another inode with the same content: copied back from somewhere.
        cut_back(&file, mark.offset).map_err(fail)?;
    } else if mark.offset > 0 {
        tracing::warn!(path = %path.display(), "the file of the last checkpoint is gone; going on with a new one");
    }
    Ok((file, created))
}

/// Open for reading and appending; says whether the file was created.
fn open_or_create(path: &Path) -> Result<(File, bool), ConnectorError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| could_not("create the folder", folder, error))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    let opened = match options.open(path) {
        Err(error) if is_missing(&error) => options.create(true).open(path).map(|file| (file, true)),
        opened => opened.map(|file| (file, false)),
    };
    let (file, created) = opened.map_err(|error| could_not("open", path, error))?;
    let metadata = file.metadata().map_err(|error| could_not("look at", path, error))?;
    if !metadata.is_file() {
        return Err(ConnectorError::failed(format!(
            "`{}` is not a regular file, so it can't be cut back to a checkpoint; use the `console` sink for a terminal \
             or a pipe",
            path.display()
        )));
    }
    Ok((file, created))
}

/// Cut the file to that length, if it is longer.
fn cut_back(file: &File, length: u64) -> io::Result<()> {
    if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) }
}

/// See to it that the next row begins on a line of its own, whatever wrote the file before: a last line without a line
/// break gets one. The half row stays, since it is not ours to delete. Returns the length.
fn end_last_line(file: &File, lines: bool) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if !lines || length == 0 {
        return Ok(length);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    if last == *b"\n" {
        return Ok(length);
    }
    let mut writer = file;
    writer.write_all(b"\n")?;
    Ok(length + 1)
}

/// Copy a range of bytes from one file to the end of another, after a header.
fn carry_over(from: &File, range: std::ops::Range<u64>, header: &[u8], to: &File) -> io::Result<()> {
    let mut to = to;
    to.write_all(header)?;
    let mut chunk = vec![0; 64 << 10];
    let mut place = range.start;
    while place < range.end {
        let wanted = usize::try_from(range.end - place).unwrap_or(usize::MAX).min(chunk.len());
        let read = from.read_at(&mut chunk[..wanted], place)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&chunk[..read])?;
        place += read as u64;
    }
    Ok(())
}
