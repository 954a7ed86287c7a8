//! A source of Parquet files, one after the other. Where it stands is a row number: rows don't move in such a file.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use acequia_connector_api::{
    Batch, BatchLimits, ColumnType, ConnectorError, Context, Event, FailedRow, Origin, Position, Progress, RowSchema,
    Segment, Source, column_type_of, normalize, step_aside,
};
use acequia_format::cast_column;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::Schema;
use async_trait::async_trait;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::{Deserialize, Serialize};

use crate::config::FileSource;
use crate::entry::Entries;
use crate::errors::{could_not, state_value};
use crate::identity::Mark;
use crate::listing::Listing;
use crate::open::{list_or_fail, open_listed};

/// What the position holds for each file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// The whole file: `offset` is its size.
    #[serde(flatten)]
    mark: Mark,
    /// Rows that were read.
    rows: u64,
}

pub(crate) struct ParquetSource {
    todo: VecDeque<PathBuf>,
    entries: Entries<Entry>,
    current: Option<Current>,
    declared: Option<RowSchema>,
    limits: BatchLimits,
    position: Position,
    /// Bytes of the files before the current one, and of all.
    done: u64,
    total: u64,
}

struct Current {
    path: PathBuf,
    partition: Arc<str>,
    reader: ParquetRecordBatchReader,
    mark: Mark,
    /// Rows read, and rows in all.
    rows: u64,
    total: u64,
}

impl ParquetSource {
    pub(crate) fn open(
        config: &FileSource,
        declared: Option<RowSchema>,
        context: &Context,
        position: Option<&Position>,
    ) -> Result<Self, ConnectorError> {
        let listing = Listing::new(&context.base, &config.path);
        let (files, total) = list_or_fail(&listing)?;
        let mut position = position.cloned().unwrap_or_default();
        let entries = Entries::new(&mut position, &files, |entry: &Entry| &entry.mark);
        let todo = files.into_iter().map(|(path, _)| path).collect();
        Ok(ParquetSource { todo, entries, current: None, declared, limits: context.batch, position, done: 0, total })
    }

    /// Open the next file; false if there is none.
    fn begin(&mut self) -> Result<bool, ConnectorError> {
        let Some(path) = self.todo.front().cloned() else { return Ok(false) };
        let (file, id) = open_listed(&path)?;
        let size = file.metadata().map_err(|error| could_not("look at", &path, error))?.len();
        let mark = Mark::new(&file, id, size).map_err(|error| could_not("read", &path, error))?;
        let found = self.entries.take(&path, id, &file).map_err(|error| could_not("read", &path, error))?;
        if let Some(old) = found.as_ref().filter(|found| !found.path.exists()) {
            self.position.0.remove(old.path.to_string_lossy().as_ref());
        }
        let rows = found.map(|found| found.entry.rows).unwrap_or_default();
        let partition: Arc<str> = Arc::from(path.to_string_lossy());
        self.position.0.insert(partition.to_string(), state_value(&Entry { mark: mark.clone(), rows })?);
        let (reader, total) = open_reader(file, rows, &self.limits)
            .map_err(|error| ConnectorError::failed(could_not("read as Parquet", &path, error).message))?;
        self.current = Some(Current { path, partition, reader, mark, rows, total });
        self.todo.pop_front();
        Ok(true)
    }

    fn batch(&mut self, rows: &RecordBatch) -> Result<Batch, ConnectorError> {
        let Some(current) = &mut self.current else { return Err(ConnectorError::failed("no Parquet file is open")) };
        let first = current.rows + 1;
        let batch = to_batch(rows, self.declared.as_ref(), &current.partition, first)?;
        current.rows += rows.num_rows() as u64;
        let entry = Entry { mark: current.mark.clone(), rows: current.rows };
        self.position.0.insert(current.partition.to_string(), state_value(&entry)?);
        Ok(batch)
    }
}

/// A reader that begins after `skip` rows, and the number of rows in the file.
fn open_reader(
    file: File,
    skip: u64,
    limits: &BatchLimits,
) -> Result<(ParquetRecordBatchReader, u64), parquet::errors::ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let groups = builder.metadata().row_groups();
    let (mut total, mut bytes) = (0u64, 0u64);
    let (mut wanted, mut skipped) = (Vec::new(), 0u64);
    for (index, group) in groups.iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or_default();
        total += rows;
        bytes = bytes.saturating_add(u64::try_from(group.total_byte_size()).unwrap_or_default());
        // Groups that lie wholly before the place are not opened at all.
        if total > skip { wanted.push(index) } else { skipped = total }
    }
    let row_bytes = (bytes / total.max(1)).max(1);
    let fitting = usize::try_from(limits.bytes.0 / row_bytes).unwrap_or(usize::MAX);
    let offset = usize::try_from(skip - skipped.min(skip)).unwrap_or(usize::MAX);
    let reader =
        builder.with_row_groups(wanted).with_offset(offset).with_batch_size(limits.rows.min(fitting).max(1)).build()?;
    Ok((reader, total))
}

#[async_trait]
impl Source for ParquetSource {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        // Nothing is awaited between taking rows from a file and returning them, so nothing is lost by a cancel.
        loop {
            if self.current.is_none() && !self.begin()? {
                return Ok(Event::End);
            }
            let Some(current) = &mut self.current else { continue };
            match current.reader.next() {
                Some(Ok(rows)) => return Ok(Event::Batch(self.batch(&rows)?)),
                Some(Err(error)) => {
                    return Err(ConnectorError::failed(could_not("read", &current.path, error).message));
                }
                None => {
                    self.done += current.mark.offset;
                    self.current = None;
                }
            }
            step_aside().await;
        }
    }

    fn position(&self) -> Position {
        self.position.clone()
    }

    fn progress(&self) -> Option<Progress> {
        let here = self.current.as_ref().map_or(0, |current| {
            // The share of the rows, in bytes of the file.
            let part = u128::from(current.mark.offset) * u128::from(current.rows) / u128::from(current.total.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        });
        let done = self.done + here;
        Some(Progress { done, total: self.total.max(done), unit: "bytes" })
    }
}

/// Bring rows to the seven types and, if there is one, to the declared schema. A row that does not fit is a failed row.
fn to_batch(
    rows: &RecordBatch,
    declared: Option<&RowSchema>,
    partition: &Arc<str>,
    first: u64,
) -> Result<Batch, ConnectorError> {
    let first = i64::try_from(first).unwrap_or(i64::MAX);
    let mut errors: Vec<Option<String>> = vec![None; rows.num_rows()];
    let normal = match normalize(rows) {
        Ok(normal) => normal,
        // Rare: one value is out of range. Find the rows that hold such, and null them for now.
        Err(_) => normalize_rows(rows, &mut errors)?,
    };
    let normal = match declared {
        Some(schema) => declare(&normal, schema, &mut errors)?,
        None => normal,
    };
    if errors.iter().all(Option::is_none) {
        return Ok(Batch::new(normal, Origin::run(partition.clone(), first)));
    }
    let keep = BooleanArray::from(errors.iter().map(Option::is_none).collect::<Vec<_>>());
    let kept = arrow_select::filter::filter_record_batch(&normal, &keep).map_err(cannot)?;
    let (mut segments, mut failed, mut count) = (Vec::new(), Vec::new(), 0);
    let mut running = false;
    for (row, error) in errors.into_iter().enumerate() {
        let place = first.saturating_add(i64::try_from(row).unwrap_or(i64::MAX));
        match error {
            None => {
                if !running {
                    segments.push(Segment { start: count, partition: partition.clone(), first: place });
                }
                count += 1;
                running = true;
            }
            Some(error) => {
                running = false;
                failed.push(FailedRow {
                    stage: String::new(),
                    partition: Some(partition.clone()),
                    offset: Some(place),
                    error,
                    row: Some(row_text(rows, row)),
                });
            }
        }
    }
    Ok(Batch { rows: kept, origin: Origin::Segments(segments.into()), failed })
}

/// Normalize each row by itself; one that can't be is named in `errors` and null in the result.
fn normalize_rows(rows: &RecordBatch, errors: &mut [Option<String>]) -> Result<RecordBatch, ConnectorError> {
    let mut good = Vec::new();
    for (row, error) in errors.iter_mut().enumerate() {
        match normalize(&rows.slice(row, 1)) {
            Ok(one) => good.push(one),
            Err(cause) => {
                *error = Some(cause.to_string());
                // A null for each column holds the row's place; the schema is that of an empty slice.
                let schema = normalize(&rows.slice(row, 0)).map_err(cannot)?.schema();
                let fields: Vec<_> =
                    schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
                let nulls = fields.iter().map(|field| new_null_array(field.data_type(), 1)).collect();
                good.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), nulls).map_err(cannot)?);
            }
        }
    }
    let fields: Vec<_> = normalize(&rows.slice(0, 0))
        .map_err(cannot)?
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    arrow_select::concat::concat_batches(&Arc::new(Schema::new(fields)), &good).map_err(cannot)
}

/// The declared columns, in their order: cast, or null where the file has none.
fn declare(
    rows: &RecordBatch,
    declared: &RowSchema,
    errors: &mut [Option<String>],
) -> Result<RecordBatch, ConnectorError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(declared.fields.len());
    for field in &declared.fields {
        let found = rows.schema_ref().column_with_name(&field.name);
        columns.push(match found {
            None => new_null_array(&field.kind.data_type(), rows.num_rows()),
            Some((index, have)) => {
                let from = column_type_of(have).unwrap_or(ColumnType::Text);
                let cast = cast_column(rows.column(index), from, field.kind);
                for (row, error) in cast.failed {
                    if let Some(slot @ None) = errors.get_mut(row) {
                        *slot = Some(format!("column `{}`: {error}", field.name));
                    }
                }
                cast.values
            }
        });
    }
    let fields: Vec<_> = declared.fields.iter().map(|field| field.kind.arrow_field(&field.name, true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(cannot)
}

fn cannot(error: arrow_schema::ArrowError) -> ConnectorError {
    ConnectorError::failed(format!("could not bring the file's columns to Acequia's types: {error}"))
}

/// `name=value, name=value`: for a dead letter, of a row that could not be brought to the seven types.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default();
    let mut texts = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let value = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(formatter) if column.is_valid(row) => formatter.value(row).to_string(),
            _ => "null".to_owned(),
        };
        texts.push(format!("{}={value}", field.name()));
    }
    texts.join(", ")
}
