//! Rows on their way through a pipeline.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, StructArray};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::calendar::civil_from_days;
use crate::record::{RECORD, record_column};
use crate::types::{ColumnType, column_type_of};

/// Some rows, where each came from, and the rows that were lost to an error on the way here.
///
/// Every column of `rows` has one of the seven types of [`ColumnType`].
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// Where they came from, row by row.
    pub origin: Origin,
    /// Rows that failed. They travel with the batch to the dead letters, so that a barrier behind this batch covers them.
    pub failed: Vec<FailedRow>,
}

impl Batch {
    /// A batch without failed rows.
    pub fn new(rows: RecordBatch, origin: Origin) -> Self {
        Batch { rows, origin, failed: Vec::new() }
    }

    /// A batch that carries only failed rows.
    pub fn of_failures(failed: Vec<FailedRow>) -> Self {
        let rows = RecordBatch::from(StructArray::new_empty_fields(0, None));
        Batch { rows, origin: Origin::Unknown, failed }
    }

    /// Number of rows that did not fail.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether no row is left (there may be failed ones).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `row` as a failed row, with its origin and its content as JSON.
    pub fn fail(&self, row: usize, error: impl Into<String>) -> FailedRow {
        let (partition, offset) = self.origin.locate(row);
        FailedRow {
            stage: String::new(),
            partition,
            offset,
            error: error.into(),
            row: (row < self.len()).then(|| row_text(&self.rows, row)),
        }
    }
}

/// One row that could not be handled, on its way to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRow {
    /// The stage that failed; the engine fills it in.
    pub stage: String,
    /// Which part of the source it came from (a file, a Kafka partition), if that is known.
    pub partition: Option<Arc<str>>,
    /// Its place there: a line number (from 1), an offset.
    pub offset: Option<i64>,
    /// What is wrong with it, and, if that can be said, what would be right.
    pub error: String,
    /// The row: JSON if it had been decoded, else the raw text, with bytes that are not UTF-8 replaced.
    pub row: Option<String>,
}

/// Where the rows of a batch came from. Only read when a row fails, so that the usual case costs nothing.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Not known (the rows of an aggregate).
    Unknown,
    /// Runs of consecutive rows, in the order of the batch.
    Segments(Arc<[Segment]>),
    /// The rows of another batch whose bit is set, a filter's output.
    Kept {
        /// The origin of the filter's input.
        base: Box<Origin>,
        /// One bit for each row of the input.
        mask: arrow_buffer::BooleanBuffer,
    },
    /// Rows picked from another batch, a flat map's output.
    Picked {
        /// The origin of the flat map's input.
        base: Box<Origin>,
        /// For each row its index in the input.
        rows: Arc<[u32]>,
    },
}

/// A run of rows that follow each other in one partition of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index in the batch of the run's first row. The run ends where the next one starts.
    pub start: usize,
    /// The part of the source.
    pub partition: Arc<str>,
    /// Place of the first row there; each next row is one further.
    pub first: i64,
}

impl Origin {
    /// Consecutive rows of one partition.
    pub fn run(partition: Arc<str>, first: i64) -> Self {
        Origin::Segments(Arc::from([Segment { start: 0, partition, first }]))
    }

    /// Partition and place of a row, where known.
    pub fn locate(&self, row: usize) -> (Option<Arc<str>>, Option<i64>) {
        match self {
            Origin::Unknown => (None, None),
            Origin::Segments(segments) => {
                let index = segments.partition_point(|segment| segment.start <= row);
                match index.checked_sub(1).and_then(|index| segments.get(index)) {
                    Some(segment) => {
                        let distance = i64::try_from(row - segment.start).unwrap_or(i64::MAX);
                        (Some(segment.partition.clone()), segment.first.checked_add(distance))
                    }
                    None => (None, None),
                }
            }
            Origin::Kept { base, mask } => match mask.set_indices().nth(row) {
                Some(index) => base.locate(index),
                None => (None, None),
            },
            Origin::Picked { base, rows } => match rows.get(row) {
                Some(index) => base.locate(*index as usize),
                None => (None, None),
            },
        }
    }
}

/// One row as JSON text.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    match record_column(rows).map(|records| records.value(row)) {
        // With a number that nothing holds (1e999): as it is.
        Some(record) if serde_json::from_str::<Value>(record).is_err() => record.to_owned(),
        _ => row_to_json(rows, row).to_string(),
    }
}

/// One row as a JSON object: names in the batch's order, timestamps as RFC 3339 with six digits and `Z`, binary as
/// base64 (RFC 4648), a float that JSON can't hold (infinite, not a number) as null. What the row was read from, where it
/// carries that, comes first: it has the columns that nobody reads.
pub fn row_to_json(rows: &RecordBatch, row: usize) -> Value {
    let record = record_column(rows).and_then(|records| serde_json::from_str(records.value(row)).ok());
    let has_record = record.is_some();
    let mut object: serde_json::Map<String, Value> = record.unwrap_or_default();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if field.name() == RECORD {
            continue;
        }
        let kind = column_type_of(field).unwrap_or(ColumnType::Text);
        let value = scalar_to_json(column.as_ref(), kind, row);
        // Null is a column that the row did not have.
        if !(value.is_null() && has_record && !object.contains_key(field.name())) {
            object.insert(field.name().clone(), value);
        }
    }
    Value::Object(object)
}

/// One value as JSON; see [`row_to_json`].
pub(crate) fn scalar_to_json(column: &dyn Array, kind: ColumnType, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let value = match kind {
        ColumnType::Boolean => column.as_boolean_opt().map(|array| array.value(row).into()),
        ColumnType::Int64 => column.as_primitive_opt::<Int64Type>().map(|array| array.value(row).into()),
        ColumnType::Float64 => column.as_primitive_opt::<Float64Type>().map(|array| array.value(row).into()),
        ColumnType::Timestamp => {
            column.as_primitive_opt::<TimestampMicrosecondType>().map(|array| format_timestamp(array.value(row)).into())
        }
        ColumnType::Text => column.as_string_opt::<i32>().map(|array| array.value(row).into()),
        ColumnType::Binary => column.as_binary_opt::<i32>().map(|array| base64(array.value(row)).into()),
        ColumnType::Json => column.as_string_opt::<i32>().map(|array| {
            let text = array.value(row);
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }),
    };
    value.unwrap_or(Value::Null)
}

/// `2020-04-13T12:09:37.768982Z`: RFC 3339, always six digits, always UTC. Years outside 0..=9999 have a sign, as ISO
/// 8601's expanded form has it.
pub fn format_timestamp(micros: i64) -> String {
    let days = micros.div_euclid(86_400_000_000);
    let of_day = micros.rem_euclid(86_400_000_000);
    let (year, month, day) = civil_from_days(days);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let sign = if (0..=9999).contains(&year) {
        ""
    } else if year < 0 {
        "-"
    } else {
        "+"
    };
    format!("{sign}{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z", year.unsigned_abs())
}

/// Base64 with padding, RFC 4648 section 4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * place) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The bytes of [`base64`]'s text; `None` if it is not that, to the padding.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut word, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    (word == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locates_rows_through_filters() {
        let segments = [
            Segment { start: 0, partition: "a".into(), first: 10 },
            Segment { start: 2, partition: "b".into(), first: 1 },
        ];
        let base = Origin::Segments(Arc::from(segments));
        assert_eq!(base.locate(1), (Some("a".into()), Some(11)));
        assert_eq!(base.locate(4), (Some("b".into()), Some(3)));
        let mask = arrow_buffer::BooleanBuffer::from(vec![false, true, false, true]);
        let kept = Origin::Kept { base: Box::new(base), mask };
        assert_eq!(kept.locate(1), (Some("b".into()), Some(2)));
        assert_eq!(kept.locate(2), (None, None));
        let picked = Origin::Picked { base: Box::new(kept), rows: Arc::from([1, 1, 0]) };
        assert_eq!(picked.locate(2), (Some("a".into()), Some(11)));
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        // Python: datetime.datetime(2020, 4, 13, 12, 9, 37, 768982, datetime.timezone.utc).timestamp() * 1e6
        assert_eq!(format_timestamp(1_586_779_777_768_982), "2020-04-13T12:09:37.768982Z");
        assert_eq!(format_timestamp(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(format_timestamp(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
    }

    #[test]
    fn base64_pads() {
        // RFC 4648, section 10.
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(from_base64(coded).as_deref(), Some(plain.as_bytes()));
        }
    }
}
