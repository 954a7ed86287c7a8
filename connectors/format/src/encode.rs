//! Rows to bytes.

use arrow_array::RecordBatch;

use crate::{CsvOptions, Format};

/// Why no row of a batch can be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// `text` and `raw` write one column.
    #[error("no column {0:?} to write: name one of the rows' columns in `value`, or use json")]
    NoValue(String),
    /// A column has an Arrow type that is none of the seven.
    #[error("column {0:?} has the Arrow type {1}, which is no column type")]
    NoType(String, String),
}

/// Rows to bytes.
///
/// - `json`: one object a line. Nulls are written; timestamps as RFC 3339 with six digits and `Z`; binary as base64; json
///   values as they are, without white space; a float that JSON can't hold (infinite, not a number) as null.
/// - `csv`: RFC 4180 with LF. A null is an empty field, an empty text is `""`. The header is written once, by the first
///   batch; a later row with a value in a column that it does not have is a failed row.
/// - `text`: one column, a line each; a null is an empty line. A line break within a value is written as it is.
/// - `raw`: the bytes of one column, as they are, nothing between them.
#[derive(Debug)]
pub struct Encoder {}

impl Encoder {
    /// `value` is the column that `text` and `raw` write; `None`: `value`, or the only column.
    pub fn new(_format: Format, _csv: &CsvOptions, _value: Option<&str>) -> Encoder {
        unimplemented!()
    }

    /// Append the rows to `out`, each with its line break. Returns the rows that can't be written, by index, with the reason;
    /// of such a row nothing is in `out`.
    ///
    /// # Errors
    /// If no row can be written; nothing is in `out` then.
    pub fn encode(&mut self, _rows: &RecordBatch, _out: &mut Vec<u8>) -> Result<Vec<(usize, String)>, EncodeError> {
        unimplemented!()
    }

    /// For a target that has messages instead of a stream: each row by itself, without line break or header. `None` is a null
    /// value of `text` or `raw`.
    ///
    /// # Errors
    /// As for [`Encoder::encode`].
    pub fn encode_each(
        &mut self,
        _rows: &RecordBatch,
        _each: &mut impl FnMut(usize, Option<&[u8]>),
    ) -> Result<Vec<(usize, String)>, EncodeError> {
        unimplemented!()
    }

    /// The columns of the CSV header that is written, for a sink to keep in its state.
    pub fn header(&self) -> Option<&[String]> {
        unimplemented!()
    }

    /// Go on in a file that has this header, or anew (`None`).
    pub fn set_header(&mut self, _header: Option<Vec<String>>) {
        unimplemented!()
    }
}
