//! Lines.

use super::{Frame, PREFIX, Parts, Resume};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Bytes to lines: a record ends at LF or CRLF; a UTF-8 byte order mark at the very start is dropped; the last line of a
/// finite input needs no line break. An empty line is a record.
#[derive(Debug)]
pub struct LineFramer {
    max_record: usize,
    /// Where the line that is being read starts (at offset 0 the byte order mark counts as its start).
    next: Resume,
    /// What earlier feeds brought of that line, at most `max_record` bytes and a little.
    partial: Vec<u8>,
    /// How long the line is so far, also where `partial` holds less of it.
    length: u64,
}

impl LineFramer {
    /// At the start of an input.
    pub fn new(max_record: usize) -> Self {
        LineFramer::resume(max_record, Resume::default())
    }

    /// At a mark; see [`super::Framer::resume`].
    pub fn resume(max_record: usize, from: Resume) -> Self {
        LineFramer { max_record, next: from, partial: Vec::new(), length: 0 }
    }

    /// See [`super::Framer::feed`].
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        while let Some(index) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(index);
            bytes = rest.get(1..).unwrap_or_default();
            if self.length == 0 {
                self.emit(line, line.len() as u64, 1, each);
            } else {
                self.keep(line);
                self.emit_partial(1, each);
            }
        }
        if !bytes.is_empty() {
            self.keep(bytes);
        }
    }

    /// See [`super::Framer::finish`].
    pub fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        let only_a_mark = self.next.offset == 0 && self.partial == BOM;
        if self.length > 0 && !only_a_mark {
            self.emit_partial(0, each);
        }
    }

    /// See [`super::Framer::position`].
    pub fn position(&self) -> Resume {
        self.next
    }

    /// Keep a part of a line; of a line that is too long only as much as can tell so.
    fn keep(&mut self, bytes: &[u8]) {
        // Room for a byte order mark, a carriage return, and one byte over the limit.
        let room = self.max_record.saturating_add(BOM.len() + 2).saturating_sub(self.partial.len());
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.length += bytes.len() as u64;
    }

    fn emit_partial(&mut self, line_break: u64, each: &mut impl FnMut(Frame<'_>)) {
        let mut partial = std::mem::take(&mut self.partial);
        let length = std::mem::take(&mut self.length);
        self.emit(&partial, length, line_break, each);
        // One huge line must not hold its memory for ever.
        if partial.capacity() <= PREFIX {
            partial.clear();
            self.partial = partial;
        }
    }

    /// `line` is the line without its break, or as much of it as was kept; `length` is its whole length.
    fn emit(&mut self, line: &[u8], length: u64, line_break: u64, each: &mut impl FnMut(Frame<'_>)) {
        let mut start = self.next.offset;
        let end = start + length + line_break;
        let whole = line.len() as u64 == length;
        let mut record = line;
        if start == 0
            && let Some(rest) = record.strip_prefix(BOM)
        {
            record = rest;
            start = BOM.len() as u64;
        }
        if whole && line_break == 1 {
            record = record.strip_suffix(b"\r").unwrap_or(record);
        }
        let error = (!whole || record.len() > self.max_record).then(|| {
            record = record.get(..PREFIX.min(self.max_record)).unwrap_or(record);
            format!(
                "a line of {} bytes is longer than the limit of {} bytes",
                end - start - line_break,
                self.max_record
            )
        });
        let line = self.next.line;
        self.next = Resume { offset: end, line: line + 1, ..self.next };
        each(Frame { record, line, start, end, error, header: false, resume: self.next, parts: Parts::default() });
    }
}
