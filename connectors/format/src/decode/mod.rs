//! Records to rows.

mod columns;
mod csv;
mod json;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, FailedRow, Origin, Segment, record_field};
use arrow_array::builder::StringViewBuilder;
use arrow_array::{Array, RecordBatch, RecordBatchOptions, StringViewArray};
use arrow_schema::Schema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::columns::Columns;
use self::csv::CsvRows;
use self::json::JsonRows;
use crate::column::Scalar;
use crate::frame::Known;
use crate::{Format, FormatOptions, Frame, parse};

/// More columns than this are never inferred: JSON whose keys are data would fill the memory.
pub(crate) const MAX_COLUMNS: usize = 1024;

/// A batch of more bytes is not begun. Far from Arrow's 2 GiB a column, since a number may grow when it becomes text.
const MAX_BYTES: usize = i32::MAX as usize / 8;

/// Records to batches of rows.
///
/// **JSON** without a declared schema: types are inferred row by row, remembered, and widened: int64 to float64, these and
/// boolean to text when they meet something else, and anything that meets an object or an array to json. An integer that
/// neither int64 nor float64 holds exactly makes its column json, which keeps the digits. Null tells nothing: a column that
/// has only been null is not in the rows. A widened type holds from the batch that it is met in; earlier ones stay as they
/// are. At most 1024 columns are inferred. A key that is there twice has its last value.
///
/// **JSON** with a declared schema: other keys are dropped, a missing one is null. Where the only column is `value`, a row that is
/// no object is the value of that column.
///
/// **CSV** without a declared schema: every column is text. An empty field without quotes is null, and so is one with quotes
/// where the column is not text or binary. A record that has more or fewer fields than the header is a failed row. A declared
/// column that the header does not name fails the header and every row after it. A column without a name is `_c` and its
/// place, from 0.
///
/// **Text** and **raw**: the column `value`. A line that is not UTF-8 is a failed row of `text`.
///
/// A row that can't be decoded is a failed row, with its place and its text, and leaves no trace in the columns.
#[derive(Debug)]
pub struct Decoder {
    columns: Columns,
    rows_of: Rows,
    nullable: bool,
    rows: usize,
    bytes: usize,
    segments: Vec<Segment>,
    failed: Vec<FailedRow>,
    /// What each row was read from, where that is wanted.
    records: Option<StringViewBuilder>,
}

/// How a record becomes a row.
#[derive(Debug)]
enum Rows {
    Json(JsonRows),
    Csv(CsvRows),
    Text,
    Raw,
}

/// What a source keeps of a decoder.
#[derive(Debug, Serialize, Deserialize)]
struct Inferred {
    /// Names and types in order; empty where they are declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<(String, ColumnType)>,
    /// The names in the header of the CSV file, in its order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<Vec<String>>,
}

impl Decoder {
    /// A decoder that knows nothing but the options.
    pub fn new(options: &FormatOptions) -> Decoder {
        let rows_of = match options.format {
            Format::Json => Rows::Json(JsonRows::new(options)),
            Format::Csv => Rows::Csv(CsvRows::new(&options.csv)),
            Format::Text => Rows::Text,
            Format::Raw => Rows::Raw,
        };
        let mut decoder = Decoder {
            columns: Columns::default(),
            rows_of,
            nullable: true,
            rows: 0,
            bytes: 0,
            segments: Vec::new(),
            failed: Vec::new(),
            records: None,
        };
        let known = options.row_schema();
        for field in &known.fields {
            decoder.nullable &= field.nullable;
            decoder.columns.add(&field.name, field.kind, 0);
        }
        decoder.columns.declared = !known.open;
        if options.format == Format::Csv && !options.csv.columns.is_empty() {
            decoder.set_names(options.csv.columns.clone());
        }
        decoder
    }

    /// Make only these columns, and one of what each row was read from ([`acequia_connector_api::RECORD`]): of a JSON object
    /// its text as it is, or without its line breaks and blanks if it has more than one line; of a row without a value `{}`.
    /// For JSON whose types are inferred, and a decoder that has had nothing yet; others are as before.
    #[must_use]
    pub fn reading(mut self, columns: Option<&[String]>) -> Decoder {
        if let (Some(columns), Rows::Json(_), false) = (columns, &self.rows_of, self.columns.declared) {
            self.columns.only = Some(columns.iter().cloned().collect());
            self.records = Some(StringViewBuilder::new());
        }
        self
    }

    /// What has been learnt of the rows (names, types and order of the columns, the header of the CSV file), for a source to
    /// keep in its position. `None` if there is nothing to keep. Rows that have not been finished yet count, which does no
    /// harm: read again they teach the same.
    pub fn inferred(&self) -> Option<Value> {
        let columns = if self.columns.declared { Vec::new() } else { self.columns.types() };
        let header = match &self.rows_of {
            Rows::Csv(rows) => rows.names().map(<[String]>::to_vec),
            _ => None,
        };
        if columns.is_empty() && header.is_none() {
            return None;
        }
        serde_json::to_value(Inferred { columns, header }).ok()
    }

    /// Go on with what an earlier decoder had learnt. Anything else than a value of [`Decoder::inferred`] is ignored, and so are
    /// types of columns that are declared now. For a decoder that has not had a record yet.
    pub fn set_inferred(&mut self, inferred: &Value) {
        let Ok(inferred) = Inferred::deserialize(inferred) else { return };
        if !self.columns.declared {
            for (name, kind) in &inferred.columns {
                if self.columns.wants(name) && self.columns.find(name).is_none() && self.columns.len() < MAX_COLUMNS {
                    self.columns.add(name, *kind, self.rows);
                }
            }
        }
        if let Some(names) = inferred.header {
            self.set_names(names);
        }
    }

    /// What a framer found: a record, a record known to be bad, or a header. The place of a row is its line.
    pub fn push_frame(&mut self, frame: &Frame<'_>, partition: &Arc<str>) {
        let place = i64::try_from(frame.line).unwrap_or(i64::MAX);
        if frame.header
            && let Rows::Csv(rows) = &mut self.rows_of
        {
            rows.begin(partition);
        }
        match &frame.error {
            Some(error) => {
                if frame.header
                    && let Rows::Csv(rows) = &mut self.rows_of
                {
                    rows.break_header(error, Some(partition));
                }
                self.fail(frame.record, partition, place, error.clone());
            }
            None if frame.header => self.set_header(frame.record, partition, place),
            None => self.take(frame.record, frame.parts.0, partition, place),
        }
    }

    /// One record: a line, a JSON value, a message. Never fails: a bad one becomes a failed row.
    pub fn push(&mut self, record: &[u8], partition: &Arc<str>, place: i64) {
        self.take(record, None, partition, place);
    }

    fn take(&mut self, record: &[u8], known: Option<Known<'_>>, partition: &Arc<str>, place: i64) {
        match self.decode(record, known) {
            Ok(()) => {
                self.columns.pad(self.rows + 1);
                self.note_origin(partition, place);
                self.rows += 1;
                self.bytes += record.len();
            }
            Err(error) => {
                self.columns.truncate(self.rows);
                self.fail(record, partition, place, error);
            }
        }
    }

    /// A row without a value (a Kafka tombstone): null in every column.
    pub fn push_null(&mut self, partition: &Arc<str>, place: i64) {
        self.nullable = true;
        self.columns.pad(self.rows + 1);
        if let Some(records) = &mut self.records {
            records.append_value("{}");
        }
        self.note_origin(partition, place);
        self.rows += 1;
    }

    fn decode(&mut self, record: &[u8], known: Option<Known<'_>>) -> Result<(), String> {
        if self.bytes.saturating_add(record.len()) > MAX_BYTES {
            return Err(format!("the batch is larger than {MAX_BYTES} bytes: make smaller batches or records"));
        }
        if let Rows::Raw = self.rows_of {
            return self.columns.push(0, Scalar::Binary(record));
        }
        let text = match known.and_then(|known| known.text) {
            Some(text) => text,
            None => str::from_utf8(record)
                .map_err(|error| format!("not valid UTF-8 from its byte {} on", error.valid_up_to() + 1))?,
        };
        match &mut self.rows_of {
            Rows::Json(rows) => {
                let text = if known.is_some() { text } else { text.trim_matches([' ', '\t', '\r', '\n']) };
                let is_line = rows.decode(text, known, &mut self.columns, self.rows)?;
                match &mut self.records {
                    Some(records) if is_line => records.append_value(text),
                    Some(records) => records.append_value(one_line(text)?),
                    None => {}
                }
                Ok(())
            }
            Rows::Csv(rows) => rows.decode(text, &mut self.columns, self.rows),
            Rows::Text | Rows::Raw => self.columns.push(0, Scalar::Text(text)),
        }
    }

    fn note_origin(&mut self, partition: &Arc<str>, place: i64) {
        if let Some(last) = self.segments.last() {
            let same = Arc::ptr_eq(&last.partition, partition) || last.partition == *partition;
            let distance = i64::try_from(self.rows - last.start).unwrap_or(i64::MAX);
            if same && last.first.checked_add(distance) == Some(place) {
                return;
            }
        }
        self.segments.push(Segment { start: self.rows, partition: partition.clone(), first: place });
    }

    /// A record that is known to be bad.
    pub fn fail(&mut self, record: &[u8], partition: &Arc<str>, place: i64, error: String) {
        self.bytes += record.len();
        self.failed.push(FailedRow {
            stage: String::new(),
            partition: Some(partition.clone()),
            offset: Some(place),
            error,
            row: Some(String::from_utf8_lossy(record).into_owned()),
        });
    }

    /// The header of the CSV file whose records follow; for other formats nothing. Where one decoder reads several files by
    /// turns, call it at each turn. A header that can't be used becomes a failed row (once for each partition, until
    /// [`Decoder::push_frame`] brings it another), and so does every row under it.
    pub fn set_header(&mut self, record: &[u8], partition: &Arc<str>, place: i64) {
        let Rows::Csv(rows) = &mut self.rows_of else { return };
        if rows.is_broken(partition) {
            return;
        }
        if let Err(error) = rows.set_header(record, &mut self.columns, self.rows) {
            rows.break_header(&error, Some(partition));
            self.fail(record, partition, place, error);
        }
    }

    fn set_names(&mut self, names: Vec<String>) {
        if let Rows::Csv(rows) = &mut self.rows_of
            && let Err(error) = rows.set_names(names, &mut self.columns, self.rows)
        {
            rows.break_header(&error, None);
        }
    }

    /// Rows since the last `finish`, failed ones not counted.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the records since the last `finish`, failed ones counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is neither a row nor a failed row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.failed.is_empty()
    }

    /// The rows and failed rows since the last `finish`. What was learnt of the columns stays.
    pub fn finish(&mut self) -> Batch {
        let mut columns = self.columns.finish(self.nullable);
        if let Some(records) = &mut self.records {
            let array = records.finish();
            *records = records_like(&array);
            columns.push((record_field(), Arc::new(array)));
        }
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let origin = Origin::Segments(std::mem::take(&mut self.segments).into());
        let mut failed = std::mem::take(&mut self.failed);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        match RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options) {
            Ok(rows) => Batch { rows, origin, failed },
            // Every column has as many values as there are rows, of its own type; if that is ever not so, say it aloud.
            Err(error) => {
                failed.extend((0..rows).map(|row| {
                    let (partition, offset) = origin.locate(row);
                    let error = format!("the decoded columns do not fit together: {error}");
                    FailedRow { stage: String::new(), partition, offset, error, row: None }
                }));
                Batch::of_failures(failed)
            }
        }
    }
}

fn one_line(object: &str) -> Result<String, String> {
    let mut line = String::with_capacity(object.len());
    if parse::compact_json(object, &mut line) {
        Ok(line)
    } else {
        Err("it is nested more than 127 levels deep".to_owned())
    }
}

/// Room for a batch like the last one, in one block: grown in steps it would be many, and each of them new to the processor.
fn records_like(last: &StringViewArray) -> StringViewBuilder {
    let bytes: usize = last.data_buffers().iter().map(arrow_buffer::Buffer::len).sum();
    let block = u32::try_from(bytes + bytes / 8).unwrap_or(u32::MAX).clamp(1 << 10, 1 << 19);
    StringViewBuilder::with_capacity(last.len()).with_fixed_block_size(block)
}
