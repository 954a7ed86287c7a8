//! Rows to bytes.

#[cfg(test)]
mod tests;

use acequia_connector_api::{ColumnType, base64, column_type_of, format_timestamp, record_column};
use arrow_array::{Array, ArrayRef, RecordBatch, StringViewArray};
use serde::de::IgnoredAny;

use crate::cast::{Cast, Reader, cast_column};
use crate::column::{Scalar, float_text};
use crate::csv::Quoting;
use crate::{CsvOptions, Format, parse};

/// Why no row of a batch can be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// `text` and `raw` write one column.
    #[error("the rows have no column `{0}`, which is to be written: name one of their columns in `value`, or use json")]
    NoValue(String),
    /// A column has an Arrow type that is none of the seven.
    #[error("column `{0}` has the Arrow type {1}, which is no column type")]
    NoType(String, String),
}

/// Rows to bytes.
///
/// - `json`: one object a line. A row that carries what it was read from is written as that. Of others, nulls are written; timestamps as RFC 3339 with six digits and `Z`; binary as base64; json
///   values as they are, without white space; a float that JSON can't hold (infinite, not a number) as null.
/// - `csv`: RFC 4180 with LF. Values as the cast to text writes them, binary as base64. A null is an empty field, an empty text
///   is `""`; so is, in a file of one column, a null, since an empty line is no record. The header is written once, by the
///   first batch; a later row with a value in a column that it does not have is a failed row.
/// - `text`: one column, cast to text, a line each; a null is an empty line. A line break within a value is written as it is.
/// - `raw`: the bytes of one column, as they are, nothing between them; what is not binary is cast to text.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    quoting: Quoting,
    writes_header: bool,
    value: Option<String>,
    header: Option<Vec<String>>,
}

/// How a row of a certain batch is written.
enum Plan<'a> {
    /// What each row was read from.
    Records(&'a StringViewArray),
    /// For each column `{"name":` or `,"name":`, and its values.
    Json(Vec<(Vec<u8>, Reader<'a>)>),
    /// The columns in the header's order, and those that it does not have.
    Csv(Quoting, Vec<Option<Reader<'a>>>, Vec<(&'a str, Reader<'a>)>),
    /// One column, and the rows of it that could not be cast.
    Value(Reader<'a>, &'a [(usize, String)]),
}

impl Encoder {
    /// `value` is the column that `text` and `raw` write; `None`: `value`, or the only column.
    pub fn new(format: Format, csv: &CsvOptions, value: Option<&str>) -> Encoder {
        Encoder {
            format,
            quoting: Quoting::new(csv),
            writes_header: csv.header,
            value: value.map(str::to_owned),
            header: None,
        }
    }

    /// Append the rows to `out`, each with its line break. Returns the rows that can't be written, by index, with the reason;
    /// of such a row nothing is in `out`.
    ///
    /// # Errors
    /// If no row can be written; nothing is in `out` then.
    pub fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<Vec<(usize, String)>, EncodeError> {
        let value = self.value_column(rows)?;
        let is_record = self.format == Format::Json && record_column(rows).is_some();
        for index in 0..if is_record { 0 } else { rows.num_columns() } {
            kind_of(rows, index)?;
        }
        if self.format == Format::Csv && self.header.is_none() && rows.num_rows() > 0 {
            let names: Vec<_> = rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
            if self.writes_header {
                write_header(self.quoting, &names, out);
            }
            self.header = Some(names);
        }
        let plan = self.plan(rows, value.as_ref())?;
        let mut failed = Vec::new();
        for row in 0..rows.num_rows() {
            let before = out.len();
            match plan.write(row, out) {
                Ok(_) if self.format == Format::Raw => {}
                Ok(_) => out.push(b'\n'),
                Err(error) => {
                    out.truncate(before);
                    failed.push((row, error));
                }
            }
        }
        Ok(failed)
    }

    /// For a target that has messages instead of a stream: each row by itself, without line break or header. `None` is a null
    /// value of `text` or `raw`.
    ///
    /// # Errors
    /// As for [`Encoder::encode`].
    pub fn encode_each(
        &mut self,
        rows: &RecordBatch,
        each: &mut impl FnMut(usize, Option<&[u8]>),
    ) -> Result<Vec<(usize, String)>, EncodeError> {
        let value = self.value_column(rows)?;
        let plan = self.plan(rows, value.as_ref())?;
        let mut failed = Vec::new();
        let mut message = Vec::new();
        for row in 0..rows.num_rows() {
            message.clear();
            match plan.write(row, &mut message) {
                Ok(true) => each(row, Some(&message)),
                Ok(false) => each(row, None),
                Err(error) => failed.push((row, error)),
            }
        }
        Ok(failed)
    }

    /// The columns of the CSV header that is written, for a sink to keep in its state.
    pub fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// Go on in a file that has this header, or anew (`None`).
    pub fn set_header(&mut self, header: Option<Vec<String>>) {
        self.header = header;
    }

    /// The one column that `text` and `raw` write, as text or binary.
    fn value_column(&self, rows: &RecordBatch) -> Result<Option<(Cast, ColumnType)>, EncodeError> {
        if !matches!(self.format, Format::Text | Format::Raw) {
            return Ok(None);
        }
        let name = self.value.as_deref().unwrap_or("value");
        let schema = rows.schema_ref();
        let only = (self.value.is_none() && rows.num_columns() == 1).then_some(0);
        let index = schema.column_with_name(name).map(|(index, _)| index).or(only);
        let (Some(index), Some(column)) = (index, index.and_then(|index| rows.columns().get(index))) else {
            return Err(EncodeError::NoValue(name.to_owned()));
        };
        let kind = kind_of(rows, index)?;
        let to = if self.format == Format::Raw && kind == ColumnType::Binary { kind } else { ColumnType::Text };
        Ok(Some((cast_column(column, kind, to), to)))
    }

    fn plan<'a>(&self, rows: &'a RecordBatch, value: Option<&'a (Cast, ColumnType)>) -> Result<Plan<'a>, EncodeError> {
        if let Some((cast, kind)) = value {
            let reader = Reader::new(&cast.values, *kind);
            let reader = reader.ok_or_else(|| EncodeError::NoType("value".to_owned(), kind.to_string()))?;
            return Ok(Plan::Value(reader, &cast.failed));
        }
        if self.format == Format::Json
            && let Some(records) = record_column(rows)
        {
            return Ok(Plan::Records(records));
        }
        let mut columns = Vec::with_capacity(rows.num_columns());
        for (index, (field, column)) in rows.schema_ref().fields().iter().zip(rows.columns()).enumerate() {
            let kind = kind_of(rows, index)?;
            let reader = Reader::new(column, kind).ok_or_else(|| no_type(field.name(), column))?;
            columns.push((field.name().as_str(), reader));
        }
        Ok(match self.format {
            Format::Csv => {
                let header = self.header.as_deref().unwrap_or_default();
                let mut fields: Vec<_> = header.iter().map(|_| None).collect();
                let mut extra = Vec::new();
                for (name, reader) in columns {
                    let place = header.iter().position(|column| column == name);
                    match place.and_then(|place| fields.get_mut(place)) {
                        Some(field) => *field = Some(reader),
                        None => extra.push((name, reader)),
                    }
                }
                if self.header.is_none() {
                    // Single messages have no header: all columns in their own order.
                    fields = extra.drain(..).map(|(_, reader)| Some(reader)).collect();
                }
                Plan::Csv(self.quoting, fields, extra)
            }
            _ => Plan::Json(
                columns
                    .into_iter()
                    .enumerate()
                    .map(|(index, (name, reader))| {
                        let start = if index == 0 { '{' } else { ',' };
                        (format!("{start}{}:", serde_json::Value::from(name)).into_bytes(), reader)
                    })
                    .collect(),
            ),
        })
    }
}

fn kind_of(rows: &RecordBatch, index: usize) -> Result<ColumnType, EncodeError> {
    let field = rows.schema_ref().field(index);
    column_type_of(field).ok_or_else(|| EncodeError::NoType(field.name().clone(), field.data_type().to_string()))
}

fn no_type(name: &str, column: &ArrayRef) -> EncodeError {
    EncodeError::NoType(name.to_owned(), column.data_type().to_string())
}

fn write_header(quoting: Quoting, names: &[String], out: &mut Vec<u8>) {
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(quoting.delimiter);
        }
        quoting.write(name, out);
    }
    out.push(b'\n');
}

impl Plan<'_> {
    /// Append a row. False: its one value is null. After an error a part of it may be there.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        match self {
            Plan::Records(records) => out.extend_from_slice(records.value(row).as_bytes()),
            Plan::Json(columns) => {
                for (key, reader) in columns {
                    out.extend_from_slice(key);
                    write_json(reader.get(row), out).map_err(|error| {
                        let name = String::from_utf8_lossy(key.get(1..key.len().saturating_sub(1)).unwrap_or_default());
                        format!("column {name}: {error}")
                    })?;
                }
                out.extend_from_slice(if columns.is_empty() { b"{}" } else { b"}" });
            }
            Plan::Csv(quoting, fields, extra) => {
                if let Some((name, _)) = extra.iter().find(|(_, reader)| !matches!(reader.get(row), Scalar::Null)) {
                    return Err(format!(
                        "column `{name}` is not in the header of the CSV file, which the first rows made"
                    ));
                }
                let before = out.len();
                for (index, reader) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(quoting.delimiter);
                    }
                    if let Some(reader) = reader {
                        write_field(*quoting, reader.get(row), out);
                    }
                }
                if out.len() == before {
                    out.extend_from_slice(&[quoting.quote, quoting.quote]);
                }
            }
            Plan::Value(reader, failed) => match reader.get(row) {
                Scalar::Text(text) => out.extend_from_slice(text.as_bytes()),
                Scalar::Binary(bytes) => out.extend_from_slice(bytes),
                _ => {
                    let error = failed.binary_search_by_key(&row, |(row, _)| *row).ok();
                    return match error.and_then(|index| failed.get(index)) {
                        Some((_, error)) => Err(error.clone()),
                        None => Ok(false),
                    };
                }
            },
        }
        Ok(true)
    }
}

fn write_json(value: Scalar<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    // Writing to memory does not fail; serde_json writes numbers faster than `write!` does.
    let written = match value {
        Scalar::Null => serde_json::to_writer(out, &()),
        Scalar::Boolean(value) => serde_json::to_writer(out, &value),
        Scalar::Int64(value) => serde_json::to_writer(out, &value),
        Scalar::Float64(value) => serde_json::to_writer(out, &value),
        Scalar::Text(text) => serde_json::to_writer(out, text),
        Scalar::Timestamp(value) => {
            out.push(b'"');
            out.extend_from_slice(format_timestamp(value).as_bytes());
            out.push(b'"');
            Ok(())
        }
        Scalar::Binary(bytes) => {
            out.push(b'"');
            out.extend_from_slice(base64(bytes).as_bytes());
            out.push(b'"');
            Ok(())
        }
        Scalar::Json(raw) | Scalar::Number(raw) => {
            serde_json::from_str::<IgnoredAny>(raw).map_err(|error| format!("it is not valid JSON: {error}"))?;
            let mut compact = String::with_capacity(raw.len());
            if !parse::compact_json(raw, &mut compact) {
                return Err("it is nested more than 127 levels deep".to_owned());
            }
            out.extend_from_slice(compact.as_bytes());
            Ok(())
        }
    };
    written.map_err(|error| error.to_string())
}

fn write_field(quoting: Quoting, value: Scalar<'_>, out: &mut Vec<u8>) {
    match value {
        Scalar::Null => {}
        Scalar::Boolean(value) => quoting.write(if value { "true" } else { "false" }, out),
        Scalar::Int64(value) => quoting.write(&value.to_string(), out),
        Scalar::Float64(value) => quoting.write(&float_text(value), out),
        Scalar::Timestamp(value) => quoting.write(&format_timestamp(value), out),
        Scalar::Text(text) | Scalar::Json(text) | Scalar::Number(text) => quoting.write(text, out),
        Scalar::Binary(bytes) => quoting.write(&base64(bytes), out),
    }
}
