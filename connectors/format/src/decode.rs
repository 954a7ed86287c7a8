//! Records to rows.

use std::sync::Arc;

use acequia_connector_api::Batch;
use serde_json::Value;

use crate::{FormatOptions, Frame};

/// Records to batches of rows.
///
/// **JSON** without a declared schema: types are inferred row by row, remembered, and widened: int64 to float64, these and
/// boolean to text when they meet something else, and anything that meets an object or an array to json. An integer that
/// neither int64 nor float64 holds exactly makes its column json, which keeps the digits. Null tells nothing: a column that
/// has only been null is not in the rows. A widened type holds from the batch that it is met in; earlier ones stay as they
/// are.
///
/// **CSV** without a declared schema: every column is text. An empty field without quotes is null. A record that has more or
/// fewer fields than the header is a failed row.
///
/// A row that can't be decoded is a failed row, with its place and its text, and leaves no trace in the columns.
#[derive(Debug)]
pub struct Decoder {}

impl Decoder {
    /// A decoder that knows nothing but the options.
    pub fn new(_options: &FormatOptions) -> Decoder {
        unimplemented!()
    }

    /// What has been learnt of the rows (names, types and order of the columns, the header of the CSV file), for a source to
    /// keep in its position. `None` if there is nothing to keep.
    pub fn inferred(&self) -> Option<Value> {
        unimplemented!()
    }

    /// Go on with what an earlier decoder had learnt. Anything else than a value of [`Decoder::inferred`] is ignored.
    pub fn set_inferred(&mut self, _inferred: &Value) {
        unimplemented!()
    }

    /// What a framer found: a record, a record known to be bad, or a header. The place of a row is its line.
    pub fn push_frame(&mut self, _frame: &Frame<'_>, _partition: &Arc<str>) {
        unimplemented!()
    }

    /// One record: a line, a JSON value, a message.
    pub fn push(&mut self, _record: &[u8], _partition: &Arc<str>, _place: i64) {
        unimplemented!()
    }

    /// A record that is known to be bad.
    pub fn fail(&mut self, _record: &[u8], _partition: &Arc<str>, _place: i64, _error: String) {
        unimplemented!()
    }

    /// The header of the CSV file whose records follow. Each file has its own: when one decoder reads several files by turns,
    /// call this at each turn.
    pub fn set_header(&mut self, _record: &[u8], _partition: &Arc<str>, _place: i64) {
        unimplemented!()
    }

    /// Rows since the last `finish`, failed ones not counted.
    pub fn rows(&self) -> usize {
        unimplemented!()
    }

    /// Bytes of the records since the last `finish`, failed ones counted.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }

    /// Whether there is neither a row nor a failed row.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// The rows and failed rows since the last `finish`. What was learnt of the columns stays.
    pub fn finish(&mut self) -> Batch {
        unimplemented!()
    }
}
