//! A sink of numbered Parquet files.
//!
//! A Parquet file ends with an index of itself, so it can't be cut back to a checkpoint. Instead each flush closes a
//! file, and the checkpoint says how many there are: on a restart the files beyond that number are deleted, and their
//! rows come again. A file gets its name only once it is complete and on disk, so a reader never sees half of one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use acequia_connector_api::{Batch, ConnectorError, FailedRow, Flushed, Sink};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::errors::{could_not, fatal, state_value, sync_folder};
use crate::identity::is_missing;

/// A row group is closed at this many bytes, so that an open file takes no more memory than that.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// What the checkpoint holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The path of the configuration, made absolute.
    path: PathBuf,
    /// Files that are complete: `name-00001.parquet` to this number.
    files: u64,
}

pub(crate) struct ParquetSink {
    path: PathBuf,
    /// Files that are complete.
    files: u64,
    open: Option<OpenFile>,
    /// Whether this sink is gone. A file that is being completed then must not get its name any more: the next sink has the
    /// number.
    gone: Arc<Mutex<bool>>,
}

impl Drop for ParquetSink {
    fn drop(&mut self) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

struct OpenFile {
    writer: ArrowWriter<File>,
    schema: SchemaRef,
    /// Its name until it is complete.
    part: PathBuf,
}

impl ParquetSink {
    pub(crate) fn open(path: PathBuf, append: bool, state: Option<&Value>) -> Result<Self, ConnectorError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|error| could_not("create the folder", folder, error))?;
        let state = state.and_then(|state| State::deserialize(state).ok()).filter(|state| state.path == path);
        let existing = numbered_files(&path).map_err(|error| could_not("list the folder", folder, error))?;
        let files = match state {
            Some(state) => state.files,
            None if append => existing.iter().filter(|(_, complete, _)| *complete).map(|(n, ..)| *n).max().unwrap_or(0),
            None => 0,
        };
        for (number, complete, name) in existing {
            if number > files || !complete {
                match std::fs::remove_file(&name) {
                    Err(error) if !is_missing(&error) => {
                        return Err(could_not("delete the unconfirmed file", &name, error));
                    }
                    _ => {}
                }
            }
        }
        Ok(ParquetSink { path, files, open: None, gone: Arc::default() })
    }

    async fn write_rows(&mut self, batch: &Batch) -> Result<(), ConnectorError> {
        let schema = batch.rows.schema();
        // A JSON source may learn of a column while it runs: a Parquet file has one schema, so the next one begins.
        if self.open.as_ref().is_some_and(|open| open.schema != schema) {
            self.finish().await?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(begin(&self.path, self.files + 1, schema)?),
        };
        let written = open.writer.write(&batch.rows).and_then(|()| {
            if open.writer.in_progress_size() >= ROW_GROUP_BYTES { open.writer.flush() } else { Ok(()) }
        });
        written.map_err(|error| {
            // The writer can't take back half a batch, and with it goes what it holds of earlier ones: only the
            // checkpoint knows a place to go on from.
            let part = self.open.take().map(|open| open.part).unwrap_or_default();
            fatal(could_not("write", &part, error))
        })
    }

    /// Complete the open file, if there is one.
    async fn finish(&mut self) -> Result<(), ConnectorError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let name = numbered(&self.path, self.files + 1);
        // Compressing and syncing takes a while: other pipelines share this thread.
        let gone = self.gone.clone();
        let completed = tokio::task::spawn_blocking(move || complete(open, &name, &gone)).await;
        completed.map_err(|error| ConnectorError::failed(format!("a Parquet file was not completed: {error}")))??;
        self.files += 1;
        Ok(())
    }
}

fn begin(path: &Path, number: u64, schema: SchemaRef) -> Result<OpenFile, ConnectorError> {
    let part = part_of(path, number);
    let file = File::create(&part).map_err(|error| could_not("create", &part, error))?;
    // Snappy is what every reader of Parquet has.
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
        .map_err(|error| fatal(could_not("begin", &part, error)))?;
    Ok(OpenFile { writer, schema, part })
}

fn complete(open: OpenFile, name: &Path, gone: &Mutex<bool>) -> Result<(), ConnectorError> {
    let part = open.part;
    let file = open.writer.into_inner().map_err(|error| fatal(could_not("complete", &part, error)))?;
    file.sync_all().map_err(|error| fatal(could_not("bring to disk", &part, error)))?;
    let gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
    if *gone {
        // Nobody waits for it: the flush was dropped. The next sink deletes what is left of it.
        return Ok(());
    }
    std::fs::rename(&part, name).map_err(|error| fatal(could_not("rename", &part, error)))?;
    drop(gone);
    sync_folder(name).map_err(|error| fatal(could_not("bring to disk the folder of", name, error)))
}

#[async_trait]
impl Sink for ParquetSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if batch.rows.num_columns() == 0 {
            let error = "a Parquet file needs at least one column, and this row has none";
            return Ok((0..batch.len()).map(|row| batch.fail(row, error)).collect());
        }
        self.write_rows(batch).await?;
        Ok(Vec::new())
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        self.finish().await?;
        let state = State { path: self.path.clone(), files: self.files };
        Ok(Flushed { failed: Vec::new(), state: Some(state_value(&state)?) })
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            // Unconfirmed: the restart would delete it too.
            if let Err(error) = std::fs::remove_file(&open.part) {
                tracing::debug!(path = %open.part.display(), %error, "could not delete the unconfirmed file");
            }
        }
    }
}

/// `out.parquet` and 7: `out-00007.parquet`.
fn numbered(path: &Path, number: u64) -> PathBuf {
    let (stem, extension) = name_of(path);
    path.with_file_name(format!("{stem}-{number:05}{extension}"))
}

/// The name of a file that is not complete. A leading dot keeps it out of patterns such as `*.parquet`.
fn part_of(path: &Path, number: u64) -> PathBuf {
    let (stem, extension) = name_of(path);
    path.with_file_name(format!(".{stem}-{number:05}{extension}.part"))
}

fn name_of(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (text(path.file_stem()).unwrap_or_default(), extension)
}

/// The files that belong to `path`: number, whether it is complete, name.
fn numbered_files(path: &Path) -> std::io::Result<Vec<(u64, bool, PathBuf)>> {
    let (stem, extension) = name_of(path);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if is_missing(&error) => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let part = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
        let number = part
            .unwrap_or(&name)
            .strip_prefix(&stem)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.strip_suffix(&extension))
            .filter(|digits| digits.len() >= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        if let Some(number) = number {
            found.push((number, part.is_none(), folder.join(name)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_sink_is_gone_gets_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.parquet");
        let sink = ParquetSink::open(path.clone(), true, None).unwrap();
        let schema: SchemaRef = Arc::new(arrow_schema::Schema::empty());
        let (gone, open) = (sink.gone.clone(), begin(&path, 1, schema.clone()).unwrap());
        complete(open, &numbered(&path, 1), &gone).unwrap();
        assert!(numbered(&path, 1).exists());
        let open = begin(&path, 2, schema).unwrap();
        drop(sink);
        complete(open, &numbered(&path, 2), &gone).unwrap();
        assert!(!numbered(&path, 2).exists());
    }

    #[test]
    fn names_and_finds_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.parquet");
        assert_eq!(numbered(&path, 7), folder.path().join("out-00007.parquet"));
        for name in
            ["out-00002.parquet", ".out-00003.parquet.part", "out-x.parquet", "out.parquet", "other-00001.parquet"]
        {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let mut found = numbered_files(&path).unwrap();
        found.sort();
        let names = [(2, true, numbered(&path, 2)), (3, false, part_of(&path, 3))];
        assert_eq!(found, names);
    }
}
