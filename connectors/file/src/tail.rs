//! One open file, and how far it is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use acequia_format::{FormatOptions, Framer, Resume};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identity::{FileId, Mark};

/// What the position holds for a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The place after the last row, and the file.
    #[serde(flatten)]
    mark: Mark,
    /// How the framer goes on there.
    at: Resume,
    /// The header of a CSV file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
}

impl Entry {
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }
}

pub(crate) struct Tail {
    pub(crate) path: PathBuf,
    /// The path, as the position and the rows' origin have it.
    pub(crate) partition: Arc<str>,
    pub(crate) file: Arc<File>,
    pub(crate) id: FileId,
    /// Bytes that the framer was fed.
    pub(crate) read: u64,
    pub(crate) framer: Framer,
    options: FormatOptions,
    max_record: usize,
    /// No more is read ahead.
    pub(crate) one_by_one: bool,
    /// The place after the last record.
    pub(crate) at: Resume,
    /// The header of a CSV file, once it is read.
    pub(crate) header: Option<Vec<u8>>,
    /// Set once the path names another file, or none: when the last bytes came.
    pub(crate) rotated: Option<Instant>,
}

impl Tail {
    /// From the entry of a stored position, or from the start.
    pub(crate) fn new(
        path: PathBuf,
        file: File,
        id: FileId,
        entry: Option<Entry>,
        options: &FormatOptions,
        max_record: usize,
    ) -> Self {
        let (at, header) = entry.map(|entry| (entry.at, entry.header)).unwrap_or_default();
        let header = header.map(String::into_bytes);
        let partition = Arc::from(path.to_string_lossy());
        Tail {
            path,
            partition,
            file: Arc::new(file),
            id,
            read: at.offset,
            framer: Framer::resume(options, max_record, at),
            options: options.clone(),
            max_record,
            one_by_one: false,
            at,
            header,
            rotated: None,
        }
    }

    /// The same file, read from another place on.
    pub(crate) fn moved_to(&self, at: Resume) -> Tail {
        Tail {
            path: self.path.clone(),
            partition: self.partition.clone(),
            file: self.file.clone(),
            read: at.offset,
            framer: Framer::resume(&self.options, self.max_record, at),
            options: self.options.clone(),
            at,
            header: self.header.clone(),
            ..*self
        }
    }

    /// Go back to the last record that was taken, and read on from there alone.
    pub(crate) fn go_on_alone(&mut self) {
        self.read = self.at.offset;
        self.framer = Framer::resume(&self.options, self.max_record, self.at);
        self.one_by_one = true;
    }

    /// Read on; 0: there is no more for now.
    pub(crate) fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(chunk, self.read) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.read += read as u64;
                    if read > 0 && self.rotated.is_some() {
                        self.rotated = Some(Instant::now());
                    }
                    return Ok(read);
                }
            }
        }
    }

    /// If the file was cut short: go back to its start. What the framer had of a last line is gone with the file's.
    pub(crate) fn restart_if_cut(&mut self) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length >= self.read {
            return Ok(false);
        }
        tracing::info!(path = %self.path.display(), from = self.read, to = length,
            "the file was cut short; reading it from its start");
        self.read = 0;
        self.at = Resume::default();
        self.header = None;
        self.framer = Framer::new(&self.options, self.max_record);
        Ok(true)
    }

    /// It goes by another name now.
    pub(crate) fn rename(&mut self, path: PathBuf) {
        self.partition = Arc::from(path.to_string_lossy());
        self.path = path;
        self.rotated = None;
    }

    pub(crate) fn entry(&self) -> Value {
        entry(&self.file, self.id, self.at, self.header.as_deref(), &self.partition)
    }
}

/// What the position holds for a file that is read to this place.
pub(crate) fn entry(file: &File, id: FileId, at: Resume, header: Option<&[u8]>, path: &str) -> Value {
    let mark = Mark::new(file, id, at.offset).unwrap_or_else(|error| {
        // Rather a repeated row than a lost one: such a mark fits no file.
        tracing::warn!(path, %error, "could not read the file back; a restart here would read it from its start");
        Mark::of_nothing(id, at.offset)
    });
    let header = header.map(|header| String::from_utf8_lossy(header).into_owned());
    serde_json::to_value(Entry { mark, at, header }).unwrap_or_default()
}

/// The same with so many lines before it. What is no entry stays as it is.
pub(crate) fn move_entry(entry: &mut Value, lines: u64) {
    if let Some(line) = entry.pointer_mut("/at/line")
        && let Some(before) = line.as_u64()
    {
        *line = Value::from(before + lines);
    }
}
