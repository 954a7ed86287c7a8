//! Chunks of records to batches of rows.

use std::sync::{Arc, Mutex, PoisonError};

use acequia_connector_api::{Batch, ColumnType};
use acequia_format::{Decoder, FormatOptions};
use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow_schema::{FieldRef, Schema};
use serde_json::Value;

use super::chunk::{Chunk, Record};
use super::config::{KeyFormat, Metadata};
use super::partition::Partition;

/// A batch, not yet handed out.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) batch: Batch,
    /// How far it goes in each partition.
    pub(super) marks: Vec<(Arc<Partition>, i64)>,
    /// What is known of the columns, if this batch has changed that.
    pub(super) learnt: Option<Value>,
    /// Nothing comes after it from the same consumer.
    pub(super) last: bool,
}

/// What every decoder of a source makes of records.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) options: FormatOptions,
    pub(super) metadata: Vec<Metadata>,
    pub(super) key_format: KeyFormat,
    /// See [`acequia_connector_api::Context::reads`].
    pub(super) reads: Option<Vec<String>>,
}

impl Shape {
    fn decoder(&self) -> Decoder {
        Decoder::new(&self.options).reading(self.reads.as_deref())
    }
}

/// Decodes what one consumer reads.
pub(super) struct Rows {
    shape: Arc<Shape>,
    decoder: Decoder,
    /// What all the source's decoders have learnt of the columns, so that they give them the same types.
    learnt: Arc<Mutex<Option<Value>>>,
    known: Option<Value>,
}

impl Rows {
    pub(super) fn new(shape: Arc<Shape>, learnt: Arc<Mutex<Option<Value>>>) -> Self {
        let decoder = shape.decoder();
        Rows { shape, decoder, learnt, known: None }
    }

    pub(super) fn decode(&mut self, chunk: Chunk) -> Decoded {
        self.catch_up();
        let keep = self.push_all(&chunk);
        let mut batch = self.decoder.finish();
        batch.rows = with_metadata(&self.shape, &batch.rows, &chunk, keep.as_deref());
        let learnt = self.learn();
        Decoded { batch, marks: chunk.partitions, learnt, last: chunk.last }
    }

    /// Returns which records became rows, if not all did.
    fn push_all(&mut self, chunk: &Chunk) -> Option<Vec<bool>> {
        let mut keep = None;
        for (index, record) in chunk.iter().enumerate() {
            let Some((partition, _)) = chunk.partitions.get(record.partition) else { continue };
            let before = self.decoder.rows();
            match (record.value, bad_key(self.shape.key_format, &record)) {
                (value, Some(error)) => {
                    self.decoder.fail(value.unwrap_or_default(), &partition.name, record.offset, error);
                }
                (Some(value), None) => self.decoder.push(value, &partition.name, record.offset),
                (None, None) => self.decoder.push_null(&partition.name, record.offset),
            }
            if self.decoder.rows() == before {
                keep.get_or_insert_with(|| vec![true; chunk.len()])[index] = false;
            }
        }
        keep
    }

    /// Take over what other decoders have learnt.
    fn catch_up(&mut self) {
        let learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if *learnt != self.known {
            self.known.clone_from(&learnt);
            self.decoder = self.shape.decoder();
            if let Some(known) = &self.known {
                self.decoder.set_inferred(known);
            }
        }
    }

    /// Tell the others what this one has learnt. Returns what is known now if that is more than before.
    fn learn(&mut self) -> Option<Value> {
        let mine = self.decoder.inferred()?;
        if self.known.as_ref() == Some(&mine) {
            return None;
        }
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let merged = match learnt.as_ref() {
            Some(theirs) => merge(theirs, &mine),
            None => mine.clone(),
        };
        if merged == mine {
            self.known = Some(mine);
        }
        *learnt = Some(merged.clone());
        Some(merged)
    }
}

fn bad_key(format: KeyFormat, record: &Record<'_>) -> Option<String> {
    let key = record.key.filter(|_| format == KeyFormat::Text)?;
    let error = str::from_utf8(key).err()?;
    Some(format!(
        "the key is not valid UTF-8 from its byte {} on: read it with key_format = \"raw\"",
        error.valid_up_to() + 1
    ))
}

/// What two decoders have inferred, together: all columns of both, each as wide as both need.
fn merge(one: &Value, other: &Value) -> Value {
    type Columns = Vec<(String, ColumnType)>;
    let columns = |value: &Value| -> Columns {
        value.get("columns").cloned().and_then(|columns| serde_json::from_value(columns).ok()).unwrap_or_default()
    };
    let mut merged = columns(one);
    for (name, kind) in columns(other) {
        match merged.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = wider(*known, kind),
            None => merged.push((name, kind)),
        }
    }
    let mut value = one.clone();
    if let (Some(object), Ok(columns)) = (value.as_object_mut(), serde_json::to_value(merged)) {
        object.insert("columns".to_owned(), columns);
    }
    value
}

fn wider(one: ColumnType, other: ColumnType) -> ColumnType {
    match (one, other) {
        (one, other) if one == other => one,
        (ColumnType::Json, _) | (_, ColumnType::Json) => ColumnType::Json,
        (ColumnType::Int64, ColumnType::Float64) | (ColumnType::Float64, ColumnType::Int64) => ColumnType::Float64,
        _ => ColumnType::Text,
    }
}

/// The columns of the value, and those of the record beside them, unless the value has one of the same name.
fn with_metadata(shape: &Shape, rows: &RecordBatch, chunk: &Chunk, keep: Option<&[bool]>) -> RecordBatch {
    let count = rows.num_rows();
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let metadata = |column: Metadata, fields: &mut Vec<FieldRef>, columns: &mut Vec<ArrayRef>| {
        if !shape.metadata.contains(&column) || rows.schema_ref().column_with_name(column.name()).is_some() {
            return;
        }
        let field = column.field(shape.key_format);
        fields.push(Arc::new(field.kind.arrow_field(&field.name, field.nullable)));
        columns.push(metadata_column(column, shape.key_format, chunk, keep, count));
    };
    metadata(Metadata::Key, &mut fields, &mut columns);
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        // A tombstone has no value: so that a column does not change when the first one comes, each may be null.
        let nullable = field.as_ref().clone().with_nullable(true);
        fields.push(Arc::new(nullable));
        columns.push(column.clone());
    }
    for column in Metadata::ALL.into_iter().skip(1) {
        metadata(column, &mut fields, &mut columns);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    // Each column has a value for each row, of its field's type. Were it ever not so, the value's own columns are right.
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap_or_else(|_| rows.clone())
}

fn metadata_column(
    column: Metadata,
    key_format: KeyFormat,
    chunk: &Chunk,
    keep: Option<&[bool]>,
    count: usize,
) -> ArrayRef {
    let records = chunk
        .iter()
        .enumerate()
        .filter(move |(index, _)| keep.is_none_or(|keep| keep.get(*index).copied().unwrap_or(false)))
        .map(|(_, record)| record);
    let partition = |record: &Record<'_>| chunk.partitions.get(record.partition).map(|(partition, _)| partition);
    match column {
        Metadata::Key if key_format == KeyFormat::Raw => {
            let mut keys = BinaryBuilder::with_capacity(count, 0);
            records.for_each(|record| keys.append_option(record.key));
            Arc::new(keys.finish())
        }
        Metadata::Key => texts(count, 0, records.map(|record| record.key.and_then(|key| str::from_utf8(key).ok()))),
        Metadata::Headers => {
            texts(count, 0, records.map(|record| record.headers.and_then(|json| str::from_utf8(json).ok())))
        }
        Metadata::Topic => {
            let bytes = chunk.partitions.first().map_or(0, |(partition, _)| partition.topic.len() * count);
            texts(count, bytes, records.map(|record| Some(partition(&record).map_or("", |it| it.topic.as_str()))))
        }
        Metadata::Partition => Arc::new(Int64Array::from_iter_values(
            records.map(|record| partition(&record).map_or(-1, |it| i64::from(it.number))),
        )),
        Metadata::Offset => Arc::new(Int64Array::from_iter_values(records.map(|record| record.offset))),
        Metadata::Timestamp => {
            let micros = records.map(|record| record.millis.and_then(|millis| millis.checked_mul(1000)));
            Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("UTC"))
        }
    }
}

fn texts<'a>(count: usize, bytes: usize, values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(count, bytes);
    values.for_each(|value| texts.append_option(value));
    Arc::new(texts.finish())
}

#[cfg(test)]
mod tests {
    use acequia_connector_api::row_to_json;
    use acequia_format::{CsvOptions, Format};
    use serde_json::json;

    use super::super::chunk::tests::chunk;
    use super::*;

    const RECORD: Record<'_> =
        Record { partition: 0, offset: 7, millis: Some(1_586_779_777_768), value: None, key: None, headers: None };

    fn rows(format: Format, metadata: &[Metadata], key_format: KeyFormat) -> Rows {
        let options =
            FormatOptions { csv: CsvOptions { header: false, ..CsvOptions::default() }, ..FormatOptions::new(format) };
        Rows::new(Arc::new(Shape { options, metadata: metadata.to_vec(), key_format, reads: None }), Arc::default())
    }

    fn decode(rows: &mut Rows, records: &[Record<'_>]) -> Decoded {
        rows.decode(chunk(&[&Arc::new(Partition::new("t", 3))], records))
    }

    fn json_of(batch: &Batch) -> Vec<String> {
        (0..batch.len()).map(|row| row_to_json(&batch.rows, row).to_string()).collect()
    }

    #[test]
    fn columns_as_spark_has_them() {
        let record = Record { value: Some(b"15.5"), key: Some(b"k\xff"), headers: Some(b"[]"), ..RECORD };
        let text = decode(&mut rows(Format::Text, &Metadata::ALL, KeyFormat::Raw), &[record, RECORD]);
        assert_eq!(
            json_of(&text.batch),
            [
                r#"{"key":"a/8=","value":"15.5","topic":"t","partition":3,"offset":7,"timestamp":"2020-04-13T12:09:37.768000Z","headers":[]}"#,
                r#"{"key":null,"value":null,"topic":"t","partition":3,"offset":7,"timestamp":"2020-04-13T12:09:37.768000Z","headers":null}"#,
            ],
            "the second one is a tombstone"
        );
        assert_eq!(text.marks.first().map(|(_, next)| *next), Some(8));
        let bare = decode(&mut rows(Format::Raw, &[], KeyFormat::Raw), &[record]);
        assert_eq!(json_of(&bare.batch), [r#"{"value":"MTUuNQ=="}"#]);
    }

    #[test]
    fn a_field_of_the_value_takes_precedence() {
        let record = Record { value: Some(br#"{"offset": "mine", "a": 1}"#), ..RECORD };
        let mut json = rows(Format::Json, &[Metadata::Offset, Metadata::Topic], KeyFormat::Raw);
        assert_eq!(json_of(&decode(&mut json, &[record]).batch), [r#"{"offset":"mine","a":1,"topic":"t"}"#]);
    }

    // invariant 3
    #[test]
    fn a_bad_record_costs_itself_only() {
        let good = Record { value: Some(br#"{"a": 1}"#), key: Some(b"k"), ..RECORD };
        let records = [
            Record { offset: 1, ..good },
            Record { offset: 2, value: Some(b"{"), ..good },
            Record { offset: 5, key: Some(b"\xff"), ..good },
            Record { offset: 9, ..good },
        ];
        let mut rows = rows(Format::Json, &[Metadata::Key, Metadata::Offset], KeyFormat::Text);
        let decoded = decode(&mut rows, &records);
        assert_eq!(json_of(&decoded.batch), [r#"{"key":"k","a":1,"offset":1}"#, r#"{"key":"k","a":1,"offset":9}"#]);
        assert_eq!(decoded.batch.origin.locate(1), (Some("t/3".into()), Some(9)));
        let failed: Vec<_> =
            decoded.batch.failed.iter().map(|row| (row.partition.as_deref(), row.offset, row.row.as_deref())).collect();
        assert_eq!(failed, [(Some("t/3"), Some(2), Some("{")), (Some("t/3"), Some(5), Some(r#"{"a": 1}"#))]);
        assert!(decoded.batch.failed[1].error.contains("key_format"), "{:?}", decoded.batch.failed);
    }

    #[test]
    fn decoders_agree_on_the_columns() {
        let learnt = Arc::new(Mutex::new(None));
        let shape = Arc::new(Shape {
            options: FormatOptions::new(Format::Json),
            metadata: Vec::new(),
            key_format: KeyFormat::Raw,
            reads: None,
        });
        let mut one = Rows::new(shape.clone(), learnt.clone());
        let mut other = Rows::new(shape, learnt);
        let record = |value: &'static [u8]| Record { value: Some(value), ..RECORD };
        let whole = decode(&mut one, &[record(br#"{"a": 1, "b": true}"#)]);
        assert_eq!(whole.learnt.unwrap()["columns"], json!([["a", "int64"], ["b", "boolean"]]));
        let float = decode(&mut other, &[record(br#"{"a": 1.5, "c": "x"}"#)]);
        assert_eq!(float.learnt.unwrap()["columns"], json!([["a", "float64"], ["b", "boolean"], ["c", "text"]]));
        let again = decode(&mut one, &[record(br#"{"a": 2}"#)]);
        assert_eq!(json_of(&again.batch), [r#"{"a":2.0,"b":null,"c":null}"#]);
        assert_eq!(again.learnt, None);
    }

    #[test]
    fn types_meet_where_both_fit() {
        use ColumnType::*;
        for (one, other, both) in
            [(Int64, Float64, Float64), (Int64, Int64, Int64), (Boolean, Int64, Text), (Text, Json, Json)]
        {
            assert_eq!((wider(one, other), wider(other, one)), (both, both));
        }
    }
}
