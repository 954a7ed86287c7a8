//! Bytes to records.

mod carry;
mod csv;
mod json;
mod line;
mod nested;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::csv::CsvFramer;
pub use self::json::JsonFramer;
pub use self::line::LineFramer;
use crate::scan::{Part, Row};
use crate::{Format, FormatOptions};

/// How much of a record that is too long goes into its [`Frame`], at most. Enough to recognise it by.
pub(crate) const PREFIX: usize = 64 << 10;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its bytes, without the line break. If there is an `error`, perhaps only a prefix.
    pub record: &'a [u8],
    /// The line that it starts on, from 1.
    pub line: u64,
    /// Offset of its first byte.
    pub start: u64,
    /// Offset after it, where reading can go on; the same as `resume.offset`.
    pub end: u64,
    /// What is wrong with it, where the framer can tell: it is too long, or its end was never found.
    pub error: Option<String>,
    /// Whether this is the header of a CSV file: it is no row, but names the columns of the following ones.
    pub header: bool,
    /// How to go on after it: store this, and make a framer with `resume`.
    pub resume: Resume,
    /// What the framer has come to know of the record, which spares the decoder the same work.
    pub parts: Parts<'a>,
}

/// Where the keys and values of a JSON row stand, if the framer had to look at them anyway. The default knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts<'a>(pub(crate) Option<Known<'a>>);

/// A JSON row of the usual kind, which is the whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known<'a> {
    /// The record, if it is known to be UTF-8.
    pub(crate) text: Option<&'a str>,
    pub(crate) parts: &'a [Part],
    pub(crate) row: Row,
}

/// Where a framer stands between two records. The default is the start of the input. Serialized it is a small object, for
/// a source's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Offset of the next byte to feed.
    pub offset: u64,
    /// The line that this byte is on, from 1.
    pub line: u64,
    /// JSON: how many bytes of that line are before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub column: u64,
    /// JSON: whether it is inside an array of rows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub array: bool,
    /// JSON: whether rows have been seen that have a line for themselves, which helps to find the next one after a broken one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lines: bool,
    /// CSV: whether the header is behind.
    #[serde(default, skip_serializing_if = "is_false")]
    pub header: bool,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Default for Resume {
    fn default() -> Self {
        Resume { offset: 0, line: 1, column: 0, array: false, lines: false, header: false }
    }
}

/// The framer that goes with a format: [`LineFramer`] for `text` and `raw`, [`JsonFramer`], [`CsvFramer`].
#[derive(Debug)]
pub enum Framer {
    /// `text` and `raw`.
    Line(LineFramer),
    /// `json`.
    Json(JsonFramer),
    /// `csv`.
    Csv(CsvFramer),
}

impl Framer {
    /// At the start of an input. A record of more than `max_record` bytes becomes a frame with an error.
    pub fn new(options: &FormatOptions, max_record: usize) -> Self {
        Framer::resume(options, max_record, Resume::default())
    }

    /// At a mark that an earlier frame, or [`Framer::position`], gave: feed it the bytes from `from.offset`.
    pub fn resume(options: &FormatOptions, max_record: usize, from: Resume) -> Self {
        match options.format {
            Format::Text | Format::Raw => Framer::Line(LineFramer::resume(max_record, from)),
            Format::Json => Framer::Json(JsonFramer::resume(max_record, from)),
            Format::Csv => Framer::Csv(CsvFramer::resume(&options.csv, max_record, from)),
        }
    }

    /// Take the next bytes, cut anywhere; `each` gets every record that they complete. What is left over is kept.
    pub fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        match self {
            Framer::Line(framer) => framer.feed(bytes, each),
            Framer::Json(framer) => framer.feed(bytes, each),
            Framer::Csv(framer) => framer.feed(bytes, each),
        }
    }

    /// The input has ended: a last record without a line break counts. The framer can be fed no further.
    pub fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        match self {
            Framer::Line(framer) => framer.finish(each),
            Framer::Json(framer) => framer.finish(each),
            Framer::Csv(framer) => framer.finish(each),
        }
    }

    /// Where a new framer would have to start to give the records that this one has not given yet. Behind the last frame's
    /// mark if only blanks or closing brackets have followed it.
    pub fn position(&self) -> Resume {
        match self {
            Framer::Line(framer) => framer.position(),
            Framer::Json(framer) => framer.position(),
            Framer::Csv(framer) => framer.position(),
        }
    }
}
