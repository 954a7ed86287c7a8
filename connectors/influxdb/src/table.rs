//! InfluxDB's annotated CSV to rows.
//!
//! An answer has tables one after the other. Each time the columns change, lines that begin with `#` say the new ones' types
//! and defaults, and a header their names. `result` and `table`, which come first, belong to the answer and not to the rows.

use std::sync::Arc;

use acequia_connector_api::{Batch, ByteSize, ColumnType, FailedRow, Origin, Segment, from_base64};
use acequia_format::{SchemaConfig, cast_column};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{ArrowError, Schema};
use csv::ByteRecord;
use csv_core::ReadRecordResult;

/// Cuts an answer into records, in whatever pieces it comes.
#[derive(Debug)]
pub(crate) struct Records {
    reader: csv_core::Reader,
    /// The fields of the record that is being read, one behind the other, and where each ends; larger than what they hold.
    fields: Vec<u8>,
    ends: Vec<usize>,
    /// How much of the two is of this record.
    filled: usize,
    ended: usize,
    record: ByteRecord,
}

impl Records {
    pub(crate) fn new() -> Self {
        // Not the reader's `Default`, which knows no grammar yet.
        let (reader, record) = (csv_core::Reader::new(), ByteRecord::new());
        Records { reader, fields: Vec::new(), ends: Vec::new(), filled: 0, ended: 0, record }
    }

    /// The next record that is complete with these bytes, of which those behind it are left.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<&ByteRecord> {
        // For the reader an empty input is the end.
        if bytes.is_empty() { None } else { self.read(bytes) }
    }

    /// The last record, which may lack its line break.
    pub(crate) fn finish(&mut self) -> Option<&ByteRecord> {
        self.read(&mut &[][..])
    }

    fn read(&mut self, bytes: &mut &[u8]) -> Option<&ByteRecord> {
        loop {
            let fields = self.fields.get_mut(self.filled..).unwrap_or_default();
            let ends = self.ends.get_mut(self.ended..).unwrap_or_default();
            let (result, read, filled, ended) = self.reader.read_record(bytes, fields, ends);
            *bytes = bytes.get(read..).unwrap_or_default();
            self.filled += filled;
            self.ended += ended;
            match result {
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return None,
                ReadRecordResult::OutputFull => self.fields.resize((self.fields.len() * 2).max(1024), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize((self.ends.len() * 2).max(32), 0),
                ReadRecordResult::Record => break,
            }
        }
        self.record.clear();
        let mut start = 0;
        for end in self.ends.iter().take(self.ended) {
            self.record.push_field(self.fields.get(start..*end).unwrap_or_default());
            start = *end;
        }
        (self.filled, self.ended) = (0, 0);
        Some(&self.record)
    }

    /// The bytes of a record that has no end yet.
    pub(crate) fn pending(&self) -> usize {
        self.filled
    }
}

/// One column of the tables that are read.
#[derive(Debug)]
struct Column {
    /// Where it stands in a record.
    place: usize,
    name: String,
    kind: Result<Kind, String>,
    default: String,
    /// The values so far.
    values: Vec<Option<String>>,
}

/// How the values of a column are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    As(ColumnType),
    Base64,
}

impl Kind {
    fn parse(datatype: &str) -> Result<Self, String> {
        Ok(Kind::As(match datatype {
            "string" | "duration" => ColumnType::Text,
            "long" | "unsignedLong" => ColumnType::Int64,
            "double" => ColumnType::Float64,
            "boolean" => ColumnType::Boolean,
            "base64Binary" => return Ok(Kind::Base64),
            time if time.starts_with("dateTime") => ColumnType::Timestamp,
            other => return Err(format!("InfluxDB answers with the type `{other}`, which is not known")),
        }))
    }

    fn column(self) -> ColumnType {
        match self {
            Kind::As(kind) => kind,
            Kind::Base64 => ColumnType::Binary,
        }
    }
}

/// Builds batches of an answer's records.
#[derive(Debug)]
pub(crate) struct Tables {
    schema: Option<SchemaConfig>,
    partition: Arc<str>,
    rows: usize,
    bytes: ByteSize,
    datatypes: Vec<String>,
    defaults: Vec<String>,
    columns: Vec<Column>,
    /// The next record names the columns.
    header: bool,
    error: bool,
    count: usize,
    size: usize,
    /// Rows given so far, with those that were skipped.
    pub(crate) given: u64,
    /// Of these, all their bytes in one number.
    pub(crate) mark: u64,
}

impl Tables {
    pub(crate) fn new(schema: Option<SchemaConfig>, partition: Arc<str>, rows: usize, bytes: ByteSize) -> Self {
        Tables {
            schema,
            partition,
            rows,
            bytes,
            datatypes: Vec::new(),
            defaults: Vec::new(),
            columns: Vec::new(),
            header: true,
            error: false,
            count: 0,
            size: 0,
            given: 0,
            mark: MARK,
        }
    }

    /// Take a record. A row with a number up to `skip` is counted and left out. Returns the batch that is complete now, with all
    /// rows up to this record.
    ///
    /// # Errors
    /// The message of an error that came in the answer, or what in it can't be understood.
    pub(crate) fn push(&mut self, record: &ByteRecord, skip: u64) -> Result<Option<Batch>, String> {
        let text = |place: usize| record.get(place).map(String::from_utf8_lossy).unwrap_or_default();
        let all = || (0..record.len()).map(|place| text(place).into_owned()).collect::<Vec<_>>();
        if record.get(0).is_some_and(|first| first.starts_with(b"#")) {
            match &*text(0) {
                "#datatype" => self.datatypes = all(),
                "#default" => self.defaults = all(),
                _ => {}
            }
            self.header = true;
            return Ok(None);
        }
        if record.iter().eq([&b""[..], b"error", b"reference"]) {
            // It broke off. No annotations come before this header then, and no row is so short.
            self.header = false;
            self.error = true;
            return Ok(self.finish());
        }
        if self.header {
            let batch = self.finish();
            self.begin(all());
            return Ok(batch);
        }
        if self.error {
            let reference = text(2);
            let reference = if reference.is_empty() { String::new() } else { format!(" (reference {reference})") };
            return Err(format!("{}{reference}", text(1)));
        }
        self.given += 1;
        self.mark = mark(self.mark, record);
        if self.given <= skip {
            return Ok(None);
        }
        for column in &mut self.columns {
            let field = record.get(column.place).unwrap_or_default();
            self.size += field.len() + 16;
            column.values.push(match (field, column.default.as_str()) {
                (b"", "") => None,
                (b"", default) => Some(default.to_owned()),
                // The server writes a line break in a field as two characters.
                (field, _) => Some(String::from_utf8_lossy(field).replace("\r\n", "\n")),
            });
        }
        self.count += 1;
        let full = self.count >= self.rows || self.size >= self.bytes.as_usize();
        Ok(if full { self.finish() } else { None })
    }

    /// Whether rows wait in the batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn begin(&mut self, names: Vec<String>) {
        self.header = false;
        let own = |place: usize, name: &str| matches!((place, name), (1, "result") | (2, "table"));
        let at = |texts: &[String], place: usize| texts.get(place).cloned().unwrap_or_default();
        self.columns = names
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(place, name)| !own(*place, name))
            .map(|(place, name)| Column {
                place,
                name: name.clone(),
                kind: Kind::parse(&at(&self.datatypes, place)),
                default: at(&self.defaults, place),
                values: Vec::new(),
            })
            .collect();
    }

    /// The rows so far as a batch.
    pub(crate) fn finish(&mut self) -> Option<Batch> {
        let rows = std::mem::take(&mut self.count);
        self.size = 0;
        if rows == 0 {
            return None;
        }
        let first = i64::try_from(self.given).unwrap_or(i64::MAX) - i64::try_from(rows).unwrap_or(0) + 1;
        let place = |row: usize| first + i64::try_from(row).unwrap_or(0);
        let mut errors: Vec<Option<String>> = vec![None; rows];
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        let mut raw = Vec::new();
        for column in &mut self.columns {
            let values = std::mem::take(&mut column.values);
            let declared = self.schema.as_ref().map(|schema| schema.get(&column.name));
            let (array, kind) = column.array(&values, &mut errors);
            raw.push((column.name.clone(), values));
            let (array, kind) = match declared {
                Some(None) => continue,
                Some(Some(declared)) => {
                    let cast = cast_column(&array, kind, declared);
                    note(&mut errors, cast.failed, &column.name);
                    (cast.values, declared)
                }
                None => (array, kind),
            };
            fields.push(kind.arrow_field(&column.name, true));
            arrays.push(array);
        }
        if let Some(schema) = &self.schema {
            for (name, kind) in &schema.0 {
                if fields.iter().all(|field| field.name() != name) {
                    fields.push(kind.arrow_field(name, true));
                    arrays.push(arrow_array::new_null_array(&kind.data_type(), rows));
                }
            }
        }
        let failed = errors.iter().enumerate().filter_map(|(row, error)| {
            let text = |(name, values): &(String, Vec<Option<String>>)| {
                let value = values.get(row).cloned().flatten().map_or(serde_json::Value::Null, Into::into);
                (name.clone(), value)
            };
            Some(FailedRow {
                stage: String::new(),
                partition: Some(self.partition.clone()),
                offset: Some(place(row)),
                error: error.clone()?,
                row: Some(serde_json::Value::Object(raw.iter().map(text).collect()).to_string()),
            })
        });
        let failed: Vec<FailedRow> = failed.collect();
        let built = build(fields, arrays, rows, &errors);
        let (batch, kept) = match built {
            Ok(built) => built,
            Err(error) => {
                // Two columns of one name, at worst: say so of every row.
                let all = (0..rows).map(|row| FailedRow {
                    stage: String::new(),
                    partition: Some(self.partition.clone()),
                    offset: Some(place(row)),
                    error: format!("the table can't be read: {error}"),
                    row: None,
                });
                return Some(Batch::of_failures(all.collect()));
            }
        };
        let mut segments: Vec<Segment> = Vec::new();
        for (index, row) in kept.iter().enumerate() {
            let follows =
                index.checked_sub(1).and_then(|before| kept.get(before)).is_some_and(|before| before + 1 == *row);
            if !follows {
                segments.push(Segment { start: index, partition: self.partition.clone(), first: place(*row) });
            }
        }
        Some(Batch { rows: batch, origin: Origin::Segments(segments.into()), failed })
    }
}

impl Column {
    /// The values as the annotated type.
    fn array(&self, values: &[Option<String>], errors: &mut [Option<String>]) -> (ArrayRef, ColumnType) {
        let texts: ArrayRef = Arc::new(StringArray::from_iter(values.iter().map(Option::as_deref)));
        match &self.kind {
            Err(message) => {
                let all = (0..values.len()).map(|row| (row, message.clone())).collect();
                note(errors, all, &self.name);
                (texts, ColumnType::Text)
            }
            Ok(Kind::Base64) => {
                let decoded: Vec<_> = values.iter().map(|value| value.as_deref().map(from_base64)).collect();
                let bad = |(row, value): (usize, &Option<Option<Vec<u8>>>)| {
                    matches!(value, Some(None)).then(|| (row, "it is not base64".to_owned()))
                };
                note(errors, decoded.iter().enumerate().filter_map(bad).collect(), &self.name);
                let bytes = BinaryArray::from_iter(decoded.into_iter().map(Option::flatten));
                (Arc::new(bytes), ColumnType::Binary)
            }
            Ok(kind) => {
                let cast = cast_column(&texts, ColumnType::Text, kind.column());
                note(errors, cast.failed, &self.name);
                (cast.values, kind.column())
            }
        }
    }
}

fn note(errors: &mut [Option<String>], failed: Vec<(usize, String)>, column: &str) {
    for (row, message) in failed {
        if let Some(error) = errors.get_mut(row) {
            error.get_or_insert_with(|| format!("column `{column}`: {message}"));
        }
    }
}

/// The rows without an error, and which they are.
fn build(
    fields: Vec<arrow_schema::Field>,
    arrays: Vec<ArrayRef>,
    rows: usize,
    errors: &[Option<String>],
) -> Result<(RecordBatch, Vec<usize>), ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
    let kept: Vec<usize> = (0..rows).filter(|row| errors.get(*row).is_some_and(Option::is_none)).collect();
    if kept.len() == rows {
        return Ok((batch, kept));
    }
    let mask = arrow_array::BooleanArray::from_iter(errors.iter().map(|error| Some(error.is_none())));
    Ok((arrow_select::filter::filter_record_batch(&batch, &mask)?, kept))
}

/// FNV-1a, 64 bits. It tells whether an answer that is asked for again has the same rows.
pub(crate) const MARK: u64 = 0xcbf2_9ce4_8422_2325;

fn mark(mut state: u64, record: &ByteRecord) -> u64 {
    for field in record {
        for byte in field.iter().chain(b",") {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    state
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;
    use acequia_connector_api::{base64, row_to_json};
    use proptest::prelude::*;

    /// As InfluxDB 2.8.0 wrote it, but for the last column's types.
    const ANSWER: &str = "#datatype,string,long,dateTime:RFC3339,boolean,string,base64Binary\r\n\
        #group,false,false,false,false,true,true\r\n\
        #default,_result,,,,,\r\n\
        ,result,table,_time,_value,t,b\r\n\
        ,,0,1970-01-01T00:00:00.000003Z,true,\"a\r\n\"\"b,\",aGk=\r\n\
        ,,1,1970-01-01T00:00:00.123456789Z,,c,\r\n\
        \r\n\
        #datatype,string,long,unsignedLong,double,long\r\n\
        #group,false,false,false,false,false\r\n\
        #default,_result,,7,,\r\n\
        ,result,table,u,v,table\r\n\
        ,,2,18446744073709551615,1,5\r\n\
        ,,2,,2.5,6\r\n\
        \r\n";

    /// All rows as JSON, a line for each, with those that failed, in pieces of `size` bytes.
    fn read(text: &str, size: usize, schema: Option<SchemaConfig>, skip: u64) -> Result<Vec<String>, String> {
        let mut records = Records::new();
        let mut tables = Tables::new(schema, "p".into(), 100, ByteSize(1 << 20));
        let mut batches = Vec::new();
        for mut piece in text.as_bytes().chunks(size) {
            while let Some(record) = records.next(&mut piece) {
                batches.extend(tables.push(record, skip)?);
            }
        }
        if let Some(record) = records.finish() {
            batches.extend(tables.push(record, skip)?);
        }
        batches.extend(tables.finish());
        let mut rows = Vec::new();
        for batch in batches {
            for row in 0..batch.len() {
                let place = batch.origin.locate(row).1.unwrap();
                rows.push(format!("{place} {}", row_to_json(&batch.rows, row)));
            }
            rows.extend(batch.failed.iter().map(|row| format!("{} ! {}", row.offset.unwrap(), row.error)));
        }
        Ok(rows)
    }

    #[test]
    fn tables_with_different_columns() {
        let rows = read(ANSWER, 1 << 20, None, 0).unwrap();
        insta::assert_snapshot!(rows.join("\n"), @r#"
        1 {"_time":"1970-01-01T00:00:00.000003Z","_value":true,"t":"a\n\"b,","b":"aGk="}
        2 {"_time":"1970-01-01T00:00:00.123456Z","_value":null,"t":"c","b":null}
        4 {"u":7,"v":2.5,"table":6}
        3 ! column `u`: can't cast "18446744073709551615" to int64
        "#);
        for size in [1, 2, 7] {
            assert_eq!(read(ANSWER, size, None, 0).unwrap(), rows);
        }
        let rest = read(ANSWER, 5, None, 1).unwrap();
        assert_eq!(rest, rows[1..]);
    }

    #[test]
    fn declared_columns() {
        let schema = SchemaConfig(vec![("v".into(), ColumnType::Int64), ("x".into(), ColumnType::Text)]);
        insta::assert_snapshot!(read(ANSWER, 9, Some(schema), 2).unwrap().join("\n"), @r#"
        3 ! column `u`: can't cast "18446744073709551615" to int64
        4 ! column `v`: can't cast 2.5 to int64: it is not a whole number in the range of int64
        "#);
    }

    #[test]
    fn an_error_in_the_answer_is_no_row() {
        let text = format!("{ANSWER},error,reference\r\n,it broke,897\r\n");
        assert_eq!(read(&text, 11, None, 0).unwrap_err(), "it broke (reference 897)");
        let annotated = "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n,it broke,\n";
        assert_eq!(read(annotated, 11, None, 0).unwrap_err(), "it broke");
        // A table of the user's own that has such columns.
        let own = "#datatype,string,long,string,string\n#default,_result,,,\n,result,table,error,reference\n,,0,x,y\n";
        assert_eq!(read(own, 11, None, 0).unwrap(), ["1 {\"error\":\"x\",\"reference\":\"y\"}"]);
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_base64(&base64(&bytes)), Some(bytes));
        }
    }
}
