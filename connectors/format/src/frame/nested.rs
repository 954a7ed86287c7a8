//! Where a JSON object or array ends, also a broken one.

/// What to do after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    More,
    /// The value ends here.
    Done,
    /// The value is broken; the next row starts at this place.
    Cut(Place),
    /// The value is longer than allowed.
    TooLong,
}

/// A place in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) line: u64,
    /// Offset of the line's first byte.
    pub(super) line_start: u64,
}

impl Place {
    pub(super) fn column(self) -> u64 {
        self.offset - self.line_start
    }

    pub(super) fn advance(&mut self, byte: u8) {
        self.offset += 1;
        if byte == b'\n' {
            self.line += 1;
            self.line_start = self.offset;
        }
    }
}

/// Finds the end of one object or array by its brackets, and notices what can't be JSON as far as brackets, strings and
/// separators go (the decoder checks the rest).
///
/// A broken row must not take its neighbours along, yet a nested object must not be taken for a row. So where a value is broken
/// the next row is looked for only at the start of a line, at a `{` that stands in the same column as the broken value's own
/// start, as rows do in JSON lines and in printed arrays. If rows have had lines of their own so far (`lines`), also a `{` of
/// that kind that was passed before the damage showed counts: `{"a":` cut off in the middle swallows the next line in good
/// grammar.
#[derive(Debug)]
pub(super) struct Nested {
    start: Place,
    at: Place,
    lines: bool,
    /// One bit a bracket that is open, the innermost lowest: 1 for an object.
    stack: u128,
    depth: u32,
    /// Brackets beyond what the stack holds (serde_json refuses such values too).
    over: u64,
    in_string: bool,
    escaped: bool,
    /// Whether a value may come next.
    expects_value: bool,
    /// Whether only blanks came so far on this line, which is not the value's first.
    line_is_blank: bool,
    broken: bool,
    candidate: Option<Place>,
}

/// Bytes that mean something inside a string.
const fn ends_string_run(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'\n')
}

impl Nested {
    /// `first` is `{` or `[`, and `start` its place.
    pub(super) fn new(first: u8, start: Place, lines: bool) -> Self {
        let mut nested = Nested {
            start,
            at: start,
            lines,
            stack: 0,
            depth: 0,
            over: 0,
            in_string: false,
            escaped: false,
            expects_value: true,
            line_is_blank: false,
            broken: false,
            candidate: None,
        };
        nested.open(first);
        nested.at.advance(first);
        nested
    }

    /// Where it is.
    pub(super) fn at(&self) -> Place {
        self.at
    }

    /// Whether it was a well-formed value on one line.
    pub(super) fn is_line(&self) -> bool {
        !self.broken && self.at.line == self.start.line
    }

    /// Whether its last bracket is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.depth == 0
    }

    /// Its bytes are kept no longer: the next row can't start at a place that is behind.
    pub(super) fn forget(&mut self) {
        self.candidate = None;
        self.lines = false;
    }

    /// Where the next row might start if this one is given up.
    pub(super) fn candidate(&self) -> Option<Place> {
        self.candidate
    }

    /// Go on with these bytes, the first of which is at [`Nested::at`]. `limit` is the offset that the value may not go past.
    pub(super) fn advance(&mut self, bytes: &[u8], limit: u64) -> Step {
        let mut bytes = bytes;
        loop {
            if self.in_string && !self.escaped {
                let run = bytes.iter().position(|byte| ends_string_run(*byte)).unwrap_or(bytes.len());
                self.at.offset += run as u64;
                bytes = bytes.get(run..).unwrap_or_default();
            }
            if self.at.offset > limit {
                return Step::TooLong;
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return Step::More;
            };
            bytes = rest;
            let step = self.byte(*byte);
            if let Step::Cut(_) = step {
                return step;
            }
            self.at.advance(*byte);
            if step == Step::Done {
                return if self.at.offset > limit { Step::TooLong } else { step };
            }
        }
    }

    /// One byte, at `self.at`. `Done` means after it.
    fn byte(&mut self, byte: u8) -> Step {
        if byte == b'\n' {
            self.line_is_blank = true;
            // JSON has no line break in a string: its end is missing.
            if std::mem::take(&mut self.in_string) {
                self.escaped = false;
                return self.breaks();
            }
            return Step::More;
        }
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else {
                self.escaped = byte == b'\\';
                self.in_string = byte != b'"';
            }
            return Step::More;
        }
        if matches!(byte, b' ' | b'\t' | b'\r') {
            return Step::More;
        }
        let starts_line = std::mem::take(&mut self.line_is_blank) && self.at.column() == self.start.column();
        match byte {
            b'"' => {
                self.in_string = true;
                self.expects_value = false;
            }
            b'{' | b'[' => {
                if byte == b'{' && starts_line {
                    if self.broken || !self.expects_value {
                        self.broken = true;
                        return Step::Cut(self.candidate.unwrap_or(self.at));
                    }
                    if self.lines && self.candidate.is_none() {
                        self.candidate = Some(self.at);
                    }
                }
                let fits = self.expects_value && self.depth < u128::BITS;
                self.open(byte);
                if !fits {
                    return self.breaks();
                }
            }
            b'}' | b']' => {
                let fits = self.close(byte == b'}');
                self.expects_value = false;
                if !fits && let Step::Cut(place) = self.breaks() {
                    return Step::Cut(place);
                }
                if self.depth == 0 {
                    return Step::Done;
                }
            }
            b':' => self.expects_value = true,
            b',' => self.expects_value = self.stack & 1 == 0,
            _ => self.expects_value = false,
        }
        Step::More
    }

    /// It can't be JSON. If the next row has been seen, it starts there.
    fn breaks(&mut self) -> Step {
        self.broken = true;
        self.candidate.map_or(Step::More, Step::Cut)
    }

    fn open(&mut self, byte: u8) {
        if self.depth == u128::BITS {
            self.over += 1;
        } else {
            self.stack = self.stack << 1 | u128::from(byte == b'{');
            self.depth += 1;
        }
        self.expects_value = byte == b'[';
    }

    /// Close the innermost bracket of that kind, and those inside it, whose own ends are missing. A bracket that closes nothing
    /// is passed over. Returns whether it was the innermost that closed.
    fn close(&mut self, object: bool) -> bool {
        if self.over > 0 {
            self.over -= 1;
            return true;
        }
        let fits = (self.stack & 1 == 1) == object;
        let open = if self.depth == u128::BITS { u128::MAX } else { (1 << self.depth) - 1 };
        let any = if object { self.stack & open != 0 } else { !self.stack & open != 0 };
        while any && self.depth > 0 {
            let matches = (self.stack & 1 == 1) == object;
            self.stack >>= 1;
            self.depth -= 1;
            if matches {
                break;
            }
        }
        fits
    }
}
