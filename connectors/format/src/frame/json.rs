//! JSON values.

use super::carry::{Carry, bom, prefix, slice};
use super::nested::{Nested, Place, Step};
use super::{Frame, Known, PREFIX, Parts, Resume};
use crate::scan::{Row, Scanner};
use crate::utf8;

/// Bytes to JSON rows: the elements of an array, one object over many lines, values one after the other, or one a line. It
/// finds out by itself: `[` at the top opens an array of rows, anything else is a row.
///
/// It cuts, it does not parse: a broken row is a frame like any other, and the decoder says what is wrong with it. After a
/// broken one it finds the next by balanced brackets, or by the next line that starts like a row. Between the elements of an
/// array commas and line breaks separate alike, and a comma before the `]` is passed over. At the top, what is neither object
/// nor array is one record up to the end of its line. An array without an end, where no element is cut off either, is reported
/// by an empty frame with an error.
#[derive(Debug)]
pub struct JsonFramer {
    carry: Carry,
    core: Core,
}

#[derive(Debug)]
struct Core {
    max_record: u64,
    /// Between two values: the place of the next byte.
    at: Place,
    array: bool,
    lines: bool,
    value: Option<Value>,
    /// The beginning of a value that is too long.
    prefix: Vec<u8>,
    /// Of rows of the usual kind.
    scanner: Scanner,
}

/// What comes next.
enum Next {
    /// Nothing that is no blank.
    Nothing,
    /// A row of the usual kind.
    Row(Row),
    /// Another value; it is begun.
    Value,
}

/// The value that is being read.
#[derive(Debug)]
struct Value {
    start: Place,
    shape: Shape,
    /// It is too long: its bytes are passed over.
    long: bool,
}

#[derive(Debug)]
enum Shape {
    Nested(Nested),
    /// Something else, up to the end of the line; inside an array up to the next separator.
    Plain {
        at: Place,
        in_array: bool,
        in_string: bool,
        escaped: bool,
    },
}

impl JsonFramer {
    /// At the start of an input.
    pub fn new(max_record: usize) -> Self {
        JsonFramer::resume(max_record, Resume::default())
    }

    /// At a mark; see [`super::Framer::resume`].
    pub fn resume(max_record: usize, from: Resume) -> Self {
        let line_start = from.offset.saturating_sub(from.column);
        let core = Core {
            max_record: max_record as u64,
            at: Place { offset: from.offset, line: from.line, line_start },
            array: from.array,
            lines: from.lines,
            value: None,
            prefix: Vec::new(),
            scanner: Scanner::default(),
        };
        JsonFramer { carry: Carry::new(from.offset), core }
    }

    /// See [`super::Framer::feed`].
    pub fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        self.carry.feed(bytes, |data, base| self.core.process(data, base, false, each));
    }

    /// See [`super::Framer::finish`].
    pub fn finish(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        self.carry.feed(&[], |data, base| self.core.process(data, base, true, each));
        if std::mem::take(&mut self.core.array) {
            let resume = self.core.resume(self.core.at);
            let error = "the array of rows has no end: the input is cut off".to_owned();
            let (offset, line) = (resume.offset, resume.line);
            each(Frame {
                record: b"",
                line,
                start: offset,
                end: offset,
                error: Some(error),
                header: false,
                resume,
                parts: Parts::default(),
            });
        }
    }

    /// See [`super::Framer::position`].
    pub fn position(&self) -> Resume {
        self.core.resume(self.core.value.as_ref().map_or(self.core.at, |value| value.start))
    }
}

impl Core {
    fn resume(&self, at: Place) -> Resume {
        let Place { offset, line, .. } = at;
        Resume { offset, line, column: at.column(), array: self.array, lines: self.lines, header: false }
    }

    /// See [`Carry::feed`].
    fn process(&mut self, data: &[u8], base: u64, at_end: bool, each: &mut impl FnMut(Frame<'_>)) -> u64 {
        let end = base + data.len() as u64;
        // Looked at once for all rows, and only if there are usual ones.
        let mut text = None;
        loop {
            let Some(value) = &mut self.value else {
                match self.begin(data, base, at_end) {
                    Next::Nothing => return self.at.offset,
                    Next::Row(row) => {
                        let text = *text.get_or_insert_with(|| utf8::prefix(data));
                        self.emit_row(data, text, base, row, each);
                    }
                    Next::Value => {}
                }
                continue;
            };
            let limit = if value.long { u64::MAX } else { value.start.offset.saturating_add(self.max_record) };
            let mut step = value.shape.advance(slice(data, base, value.shape.at().offset, end), limit);
            if step == Step::More && at_end {
                step = value.shape.candidate().map_or(Step::Done, Step::Cut);
                // The row that is cut off says enough: no word about the array around it.
                self.array &= step != Step::Done;
            }
            match step {
                Step::More if value.long => return end,
                Step::More => return value.start.offset,
                Step::TooLong => match value.shape.candidate() {
                    Some(place) => self.emit(data, base, Some(place), each),
                    None => {
                        value.long = true;
                        let record = slice(data, base, value.start.offset, value.shape.at().offset);
                        self.prefix.extend_from_slice(prefix(record, self.max_record as usize));
                        if value.shape.give_up() {
                            self.emit(data, base, None, each);
                        }
                    }
                },
                Step::Done => self.emit(data, base, None, each),
                Step::Cut(place) => self.emit(data, base, Some(place), each),
            }
        }
    }

    /// Pass over what stands between values.
    fn begin(&mut self, data: &[u8], base: u64, at_end: bool) -> Next {
        if self.at.offset == 0 {
            let Some(length) = bom(data, at_end) else { return Next::Nothing };
            self.at.offset = length;
            self.at.line_start = length;
        }
        let rest = slice(data, base, self.at.offset, u64::MAX);
        for (index, byte) in rest.iter().enumerate() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b',' if self.array => {}
                b']' if self.array => self.array = false,
                b'[' if !self.array => self.array = true,
                b'{' | b'[' => {
                    if let Some(row) = self.usual_row(rest.get(index..).unwrap_or_default()) {
                        return Next::Row(row);
                    }
                    let shape = Shape::Nested(Nested::new(*byte, self.at, self.lines));
                    self.value = Some(Value { start: self.at, shape, long: false });
                    return Next::Value;
                }
                _ => {
                    let (at, in_array) = (self.at, self.array);
                    let shape = Shape::Plain { at, in_array, in_string: false, escaped: false };
                    self.value = Some(Value { start: self.at, shape, long: false });
                    return Next::Value;
                }
            }
            self.at.advance(*byte);
        }
        Next::Nothing
    }

    /// The row that `bytes` begins with, if it can be told at once: it is an object, is on one line, and nothing is wrong with
    /// it. `Nested` would see the same, only slower.
    fn usual_row(&mut self, bytes: &[u8]) -> Option<Row> {
        self.scanner.scan(bytes).filter(|row| row.length as u64 <= self.max_record)
    }

    /// `text` is as much of `data` as is UTF-8.
    fn emit_row(&mut self, data: &[u8], text: &str, base: u64, row: Row, each: &mut impl FnMut(Frame<'_>)) {
        let Place { offset: start, line, .. } = self.at;
        self.at.offset += row.length as u64;
        self.lines = true;
        let (end, resume) = (self.at.offset, self.resume(self.at));
        let place = usize::try_from(start - base).unwrap_or(usize::MAX);
        let text = text.get(place..place.saturating_add(row.length));
        let known = Known { text, parts: self.scanner.parts(), row };
        let (record, parts) = (slice(data, base, start, end), Parts(Some(known)));
        each(Frame { record, line, start, end, error: None, header: false, resume, parts });
    }

    /// The value ends, at `cut` or where it is.
    fn emit(&mut self, data: &[u8], base: u64, cut: Option<Place>, each: &mut impl FnMut(Frame<'_>)) {
        let Some(value) = self.value.take() else { return };
        self.at = cut.unwrap_or(value.shape.at());
        self.lines |= cut.is_none() && matches!(&value.shape, Shape::Nested(nested) if nested.is_line());
        let resume = self.resume(self.at);
        let (start, end) = (value.start.offset, self.at.offset);
        let mut record = if value.long { &self.prefix } else { slice(data, base, start, end) };
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = record.split_last() {
            record = rest;
        }
        let error = value.long.then(|| {
            format!("a JSON value of {} bytes is longer than the limit of {} bytes", end - start, self.max_record)
        });
        let (line, parts) = (value.start.line, Parts::default());
        each(Frame { record, line, start, end, error, header: false, resume, parts });
        self.prefix.clear();
        self.prefix.shrink_to(PREFIX);
    }
}

impl Shape {
    fn at(&self) -> Place {
        match self {
            Shape::Nested(nested) => nested.at(),
            Shape::Plain { at, .. } => *at,
        }
    }

    fn candidate(&self) -> Option<Place> {
        match self {
            Shape::Nested(nested) => nested.candidate(),
            Shape::Plain { .. } => None,
        }
    }

    /// Its bytes are kept no longer. Returns whether its end has been reached all the same.
    fn give_up(&mut self) -> bool {
        match self {
            Shape::Nested(nested) => {
                nested.forget();
                nested.is_closed()
            }
            Shape::Plain { .. } => false,
        }
    }

    fn advance(&mut self, bytes: &[u8], limit: u64) -> Step {
        match self {
            Shape::Nested(nested) => nested.advance(bytes, limit),
            Shape::Plain { at, in_array, in_string, escaped } => {
                for byte in bytes {
                    let ends = match byte {
                        b'\n' => true,
                        b',' | b']' | b'{' => *in_array && !*in_string,
                        _ => false,
                    };
                    if ends {
                        return Step::Done;
                    }
                    match byte {
                        _ if *escaped => *escaped = false,
                        b'\\' => *escaped = *in_string,
                        b'"' => *in_string = !*in_string,
                        _ => {}
                    }
                    at.advance(*byte);
                    if at.offset > limit {
                        return Step::TooLong;
                    }
                }
                Step::More
            }
        }
    }
}
