//! CSV records.

use super::carry::{Carry, bom, prefix, slice};
use super::{Frame, PREFIX, Parts, Resume};
use crate::CsvOptions;
use crate::csv::{Quoting, State};

/// Bytes to CSV records: one ends at LF or CRLF, but not inside quotes. Empty lines are passed over. The first record is the
/// header if the options say that there is one.
///
/// A quote that is never closed would take all that follows along. So where a record grows too long inside quotes, or the
/// input ends there, only its first line is given up, as a frame with an error, and the second is read as the start of a
/// record.
#[derive(Debug)]
pub struct CsvFramer {
    carry: Carry,
    core: Core,
}

#[derive(Debug)]
struct Core {
    quoting: Quoting,
    max_record: u64,
    has_header: bool,
    /// Between two records: the place of the next byte.
    at: Resume,
    record: Option<Record>,
    /// The beginning of a record that is too long.
    prefix: Vec<u8>,
}

/// The record that is being read.
#[derive(Debug)]
struct Record {
    offset: u64,
    line: u64,
    state: State,
    /// Behind its first line, if that ends inside quotes.
    second_line: Option<u64>,
    /// It is too long: its bytes are passed over, up to the end of the line.
    long: bool,
}

impl CsvFramer {
    /// At the start of an input.
    pub fn new(options: &CsvOptions, max_record: usize) -> Self {
        CsvFramer::resume(options, max_record, Resume::default())
    }

    /// At a mark; see [`super::Framer::resume`].
    pub fn resume(options: &CsvOptions, max_record: usize, from: Resume) -> Self {
        let core = Core {
            quoting: Quoting::new(options),
            max_record: max_record as u64,
            has_header: options.header,
            at: from,
            record: None,
            prefix: Vec::new(),
        };
        CsvFramer { carry: Carry::new(from.offset), core }
    }

    /// See [`super::Framer::feed`].
    pub fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        self.carry.feed(bytes, |data, base| self.core.process(data, base, false, each));
    }

    /// See [`super::Framer::finish`].
    pub fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        self.carry.feed(&[], |data, base| self.core.process(data, base, true, each));
    }

    /// See [`super::Framer::position`].
    pub fn position(&self) -> Resume {
        self.core.at
    }
}

impl Core {
    /// See [`Carry::feed`].
    fn process(&mut self, data: &[u8], base: u64, at_end: bool, each: &mut impl FnMut(Frame<'_>)) -> u64 {
        let end = base + data.len() as u64;
        loop {
            let Some(mut record) = self.record.take() else {
                if !self.begin(data, base, at_end) {
                    return self.at.offset;
                }
                continue;
            };
            let bytes = slice(data, base, record.offset, end);
            if self.advance(&mut record, bytes) {
                let line_end = record.offset;
                record.offset += 1;
                record.line += 1;
                self.emit(&record, line_end, data, base, None, each);
            } else if !record.long && record.offset - self.at.offset > self.max_record.saturating_add(1) {
                // One more than the limit, as in `advance`.
                if !self.give_up_line(&record, "is longer than the limit", data, base, each) {
                    record.long = true;
                    let start = slice(data, base, self.at.offset, record.offset);
                    self.prefix.extend_from_slice(prefix(start, usize::try_from(self.max_record).unwrap_or(PREFIX)));
                    self.record = Some(record);
                }
            } else if !at_end {
                let keep_from = if record.long { end } else { self.at.offset };
                self.record = Some(record);
                return keep_from;
            } else if record.state != State::Quoted || record.long {
                self.emit(&record, end, data, base, None, each);
            } else if !self.give_up_line(&record, "has no end", data, base, each) {
                let error = "a quoted field has no end".to_owned();
                self.emit(&record, end, data, base, Some(error), each);
            }
        }
    }

    /// Pass over empty lines. False: no record starts in `data`.
    fn begin(&mut self, data: &[u8], base: u64, at_end: bool) -> bool {
        if self.at.offset == 0 {
            let Some(length) = bom(data, at_end) else { return false };
            self.at.offset = length;
        }
        loop {
            match slice(data, base, self.at.offset, u64::MAX) {
                [b'\n', ..] => self.at.offset += 1,
                [b'\r', b'\n', ..] => self.at.offset += 2,
                [b'\r'] if !at_end => return false,
                [b'\r'] => {
                    self.at.offset += 1;
                    return false;
                }
                [] => return false,
                _ => break,
            }
            self.at.line += 1;
        }
        let Resume { offset, line, .. } = self.at;
        self.record = Some(Record { offset, line, state: State::FieldStart, second_line: None, long: false });
        true
    }

    /// Go on with these bytes. True: `record.offset` is at the line break that ends the record.
    fn advance(&self, record: &mut Record, bytes: &[u8]) -> bool {
        let limit = self.at.offset.saturating_add(self.max_record);
        for byte in bytes {
            if *byte == b'\n' {
                if record.state != State::Quoted || record.long {
                    return true;
                }
                record.second_line.get_or_insert(record.offset + 1);
                record.line += 1;
            } else {
                record.state = self.quoting.next(record.state, *byte);
            }
            record.offset += 1;
            // A carriage return before the line break does not count.
            if record.offset > limit.saturating_add(1) && !record.long {
                return false;
            }
        }
        false
    }

    /// If the record went over its first line inside quotes, make an error of that line alone and go on at the second.
    fn give_up_line(
        &mut self,
        record: &Record,
        what: &str,
        data: &[u8],
        base: u64,
        each: &mut impl FnMut(Frame<'_>),
    ) -> bool {
        let Some(second_line) = record.second_line else { return false };
        let first = Record {
            offset: second_line,
            line: self.at.line + 1,
            state: State::Quoted,
            second_line: None,
            long: false,
        };
        let error = format!("a quoted field that starts on this line {what}");
        self.emit(&first, second_line - 1, data, base, Some(error), each);
        true
    }

    /// A record from `self.at` to `line_end`, behind which `record` stands.
    fn emit(
        &mut self,
        record: &Record,
        line_end: u64,
        data: &[u8],
        base: u64,
        error: Option<String>,
        each: &mut impl FnMut(Frame<'_>),
    ) {
        let Resume { offset: start, line, .. } = self.at;
        let whole = slice(data, base, start, line_end);
        let mut bytes = if record.long { &self.prefix } else { whole };
        if !record.long && record.offset > line_end {
            bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        }
        let mut error = error;
        if record.long || bytes.len() as u64 > self.max_record {
            bytes = prefix(bytes, usize::try_from(self.max_record).unwrap_or(PREFIX));
            let (length, limit) = (line_end - start, self.max_record);
            error
                .get_or_insert_with(|| format!("a record of {length} bytes is longer than the limit of {limit} bytes"));
        }
        let header = self.has_header && !self.at.header;
        self.at = Resume { offset: record.offset, line: record.line, header: self.has_header, ..self.at };
        let resume = self.at;
        each(Frame { record: bytes, line, start, end: resume.offset, error, header, resume, parts: Parts::default() });
        self.prefix.clear();
        self.prefix.shrink_to(PREFIX);
    }
}
