//! Rows to messages.

use std::collections::BTreeMap;
use std::ops::Range;

use acequia_connector_api::{ColumnType, column_type_of};
use acequia_format::{CsvOptions, EncodeError, Encoder, cast_column};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::config::{Headers, KafkaSink, ValueFormat};
use super::headers::HeaderList;
use super::wire;

/// One message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Milliseconds since the epoch.
    pub(super) timestamp: Option<i64>,
    pub(super) headers: HeaderList,
}

impl Message<'_> {
    /// Bytes on the wire, if it is alone in its batch and not compressed.
    pub(super) fn size(&self) -> usize {
        wire::size(self.key.map(<[u8]>::len), self.value.map(<[u8]>::len), self.headers.lengths())
    }
}

/// Makes messages of rows, as the configuration says.
#[derive(Debug)]
pub(super) struct Shape {
    config: KafkaSink,
    encoder: Encoder,
}

/// The messages of a batch.
#[derive(Debug)]
pub(super) struct Messages {
    topic: Option<String>,
    /// The values, one after the other, and each row's place: `None` is a value that is null.
    data: Vec<u8>,
    places: Vec<Option<Range<usize>>>,
    topics: Option<Bytes>,
    keys: Option<Bytes>,
    partitions: Option<Int64Array>,
    timestamps: Option<TimestampMicrosecondArray>,
    headers: RowHeaders,
    /// Rows that are no message, and why.
    refused: BTreeMap<usize, String>,
    /// Columns that are named in the configuration and that the batch does not have.
    pub(super) missing: Vec<String>,
}

#[derive(Debug)]
enum RowHeaders {
    None,
    Json(StringArray),
    Columns(Vec<(String, Bytes)>),
}

/// A column of text or bytes.
#[derive(Debug)]
enum Bytes {
    Text(StringArray),
    Binary(BinaryArray),
}

impl Bytes {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Bytes::Text(array) => (row < array.len() && array.is_valid(row)).then(|| array.value(row).as_bytes()),
            Bytes::Binary(array) => (row < array.len() && array.is_valid(row)).then(|| array.value(row)),
        }
    }
}

impl Shape {
    pub(super) fn new(config: &KafkaSink) -> Self {
        let encoder = Encoder::new(config.format.format(), &CsvOptions::default(), config.value.as_deref());
        Shape { config: config.clone(), encoder }
    }

    /// The messages of these rows.
    ///
    /// # Errors
    /// If no row can be encoded.
    pub(super) fn messages(&mut self, rows: &RecordBatch) -> Result<Messages, EncodeError> {
        let mut data = Vec::new();
        let mut places = vec![None; rows.num_rows()];
        let mut each = |row: usize, value: Option<&[u8]>| {
            if let (Some(value), Some(place)) = (value, places.get_mut(row)) {
                let start = data.len();
                data.extend_from_slice(value);
                *place = Some(start..data.len());
            }
        };
        let failed = match self.config.format {
            ValueFormat::Json => self.encoder.encode_each(&self.value_columns(rows)?, &mut each)?,
            ValueFormat::Text | ValueFormat::Raw => self.encoder.encode_each(rows, &mut each)?,
        };
        let mut columns = Columns { rows, refused: failed.into_iter().collect(), missing: Vec::new() };
        let config = &self.config;
        let topics = config.topic_column.as_deref().and_then(|name| columns.bytes(name));
        let keys = config.key.as_deref().and_then(|name| columns.bytes(name));
        let partitions = config.partition.as_deref().and_then(|name| columns.cast(name, ColumnType::Int64));
        let partitions = partitions.and_then(|column| column.as_primitive_opt::<Int64Type>().cloned());
        let timestamps = config.timestamp.as_deref().and_then(|name| columns.cast(name, ColumnType::Timestamp));
        let timestamps = timestamps.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>().cloned());
        let headers = match &config.headers {
            None => RowHeaders::None,
            Some(Headers::Column(name)) => columns
                .cast(name, ColumnType::Json)
                .and_then(|column| column.as_string_opt::<i32>().cloned())
                .map_or(RowHeaders::None, RowHeaders::Json),
            Some(Headers::Columns(names)) => RowHeaders::Columns(
                names.iter().filter_map(|(header, name)| Some((header.clone(), columns.bytes(name)?))).collect(),
            ),
        };
        let Columns { refused, missing, .. } = columns;
        let topic = config.topic.clone();
        Ok(Messages { topic, data, places, topics, keys, partitions, timestamps, headers, refused, missing })
    }

    /// The columns that are in a JSON value.
    fn value_columns(&self, rows: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        let mapped = self.config.mapped();
        let kept: Vec<_> = (0..rows.num_columns())
            .filter(|index| {
                let name = rows.schema_ref().field(*index).name();
                self.config.keep.contains(name) || !mapped.iter().any(|(_, column)| column == name)
            })
            .collect();
        if kept.len() == rows.num_columns() {
            return Ok(rows.clone());
        }
        rows.project(&kept).map_err(|error| EncodeError::NoType("value".to_owned(), error.to_string()))
    }
}

/// Takes columns of a batch.
struct Columns<'a> {
    rows: &'a RecordBatch,
    refused: BTreeMap<usize, String>,
    missing: Vec<String>,
}

impl Columns<'_> {
    /// A column, cast; rows that can't be cast are refused.
    fn cast(&mut self, name: &str, to: ColumnType) -> Option<ArrayRef> {
        let Some((index, field)) = self.rows.schema_ref().column_with_name(name) else {
            self.missing.push(name.to_owned());
            return None;
        };
        let from = column_type_of(field)?;
        let cast = cast_column(self.rows.columns().get(index)?, from, to);
        for (row, error) in cast.failed {
            self.refused.entry(row).or_insert_with(|| format!("column `{name}`: {error}"));
        }
        Some(cast.values)
    }

    /// A column as bytes: binary as it is, everything else as text.
    fn bytes(&mut self, name: &str) -> Option<Bytes> {
        let found = self.rows.schema_ref().column_with_name(name);
        if found.and_then(|(_, field)| column_type_of(field)) == Some(ColumnType::Binary) {
            let column = self.cast(name, ColumnType::Binary)?;
            return column.as_binary_opt::<i32>().cloned().map(Bytes::Binary);
        }
        let column = self.cast(name, ColumnType::Text)?;
        column.as_string_opt::<i32>().cloned().map(Bytes::Text)
    }
}

impl Messages {
    /// The message of a row, or why it is none.
    pub(super) fn get(&self, row: usize) -> Result<Message<'_>, String> {
        if let Some(error) = self.refused.get(&row) {
            return Err(error.clone());
        }
        let topic = match self.topics.as_ref().and_then(|topics| topics.get(row)) {
            Some(name) => std::str::from_utf8(name).map_err(|_| "the topic's name is not UTF-8".to_owned())?,
            None => self.topic.as_deref().ok_or("the row names no topic: its topic column is null")?,
        };
        let partition = match value(self.partitions.as_ref(), row) {
            Some(number) => match i32::try_from(number) {
                Ok(number) if number >= 0 => Some(number),
                _ => return Err(format!("{number} is no partition: they are numbered from 0")),
            },
            None => None,
        };
        let timestamp = match value(self.timestamps.as_ref(), row) {
            Some(micros) if micros < 1000 => {
                return Err("the message's time must be after 1970-01-01T00:00:00Z: Kafka has none before".to_owned());
            }
            micros => micros.map(|micros| micros / 1000),
        };
        let headers = match &self.headers {
            RowHeaders::None => HeaderList::default(),
            RowHeaders::Json(column) if column.is_valid(row) => HeaderList::parse(column.value(row))?,
            RowHeaders::Json(_) => HeaderList::default(),
            RowHeaders::Columns(columns) => {
                let present = |(name, column): &(String, Bytes)| Some((name.clone(), Some(column.get(row)?.to_vec())));
                HeaderList(columns.iter().filter_map(present).collect())
            }
        };
        let value = self.places.get(row).cloned().flatten().and_then(|place| self.data.get(place));
        let key = self.keys.as_ref().and_then(|keys| keys.get(row));
        Ok(Message { topic, partition, key, value, timestamp, headers })
    }
}

fn value<T: arrow_array::ArrowPrimitiveType>(
    column: Option<&arrow_array::PrimitiveArray<T>>,
    row: usize,
) -> Option<T::Native> {
    column.filter(|column| row < column.len() && column.is_valid(row)).map(|column| column.value(row))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::{Field, Schema};

    use super::*;

    fn shape(extra: &str) -> Shape {
        Shape::new(&toml::from_str(&format!("brokers = [\"127.0.0.1:9092\"]\n{extra}")).unwrap())
    }

    fn rows() -> RecordBatch {
        let fields = [
            ("id", ColumnType::Int64),
            ("name", ColumnType::Text),
            ("part", ColumnType::Float64),
            ("time", ColumnType::Timestamp),
        ];
        let schema = Schema::new(fields.map(|(name, kind)| Field::new(name, kind.data_type(), true)).to_vec());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None])),
            Arc::new(arrow_array::Float64Array::from(vec![Some(2.0), Some(2.5), Some(-1.0)])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500), None, Some(0)]).with_timezone("UTC")),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn text(bytes: Option<&[u8]>) -> Option<&str> {
        bytes.map(|bytes| std::str::from_utf8(bytes).unwrap())
    }

    #[test]
    fn json_is_the_row_without_what_is_used_elsewhere() {
        let mut shape = shape("topic = \"t\"\nkey = \"id\"\nheaders = { who = \"name\" }");
        let messages = shape.messages(&rows()).unwrap();
        let first = messages.get(0).unwrap();
        assert_eq!(text(first.value), Some(r#"{"part":2.0,"time":"1970-01-01T00:00:00.001500Z"}"#));
        assert_eq!((first.topic, text(first.key)), ("t", Some("1")));
        assert_eq!(first.headers, HeaderList(vec![("who".to_owned(), Some(b"a".to_vec()))]));
        assert_eq!(messages.get(1).unwrap().key, None);
        assert_eq!(messages.get(2).unwrap().headers, HeaderList::default());
    }

    #[test]
    fn a_column_can_be_kept() {
        let mut shape = shape("topic = \"t\"\nkey = \"id\"\nkeep = [\"id\"]");
        let messages = shape.messages(&rows()).unwrap();
        assert!(text(messages.get(0).unwrap().value).unwrap().starts_with(r#"{"id":1,"#));
    }

    #[test]
    fn partition_and_time_must_be_possible() {
        let mut shape = shape("topic = \"t\"\npartition = \"part\"\ntimestamp = \"time\"");
        let messages = shape.messages(&rows()).unwrap();
        let first = messages.get(0).unwrap();
        assert_eq!((first.partition, first.timestamp), (Some(2), Some(1)));
        assert!(messages.get(1).unwrap_err().contains("column `part`"));
        assert!(messages.get(2).unwrap_err().contains("-1 is no partition"));
    }

    #[test]
    fn topics_come_from_a_column_and_null_values_are_tombstones() {
        let mut shape = shape("topic_column = \"name\"\nformat = \"text\"\nvalue = \"id\"\nkey = \"nope\"");
        let messages = shape.messages(&rows()).unwrap();
        assert_eq!(messages.missing, ["nope"]);
        let second = messages.get(1).unwrap();
        assert_eq!((second.topic, second.value), ("b", None));
        assert!(messages.get(2).unwrap_err().contains("names no topic"));
        assert_eq!(text(messages.get(0).unwrap().value), Some("1"));
    }
}
