//! The usual JSON row, read in one pass: an object on one line. It is checked to the letter, and noted where its keys and
//! values stand; nothing is built. What is not usual (an escaped key, a line break between two tokens, brackets within
//! brackets by the dozen, anything that is not JSON) is left to others, who take longer and know how to complain.

mod shape;

use self::shape::Shape;
pub(crate) use self::shape::ShapeId;

/// A key and its value, as ranges of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The key, without its quotes.
    key: (u32, u32),
    /// The value.
    value: (u32, u32),
    pub(crate) kind: Kind,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean(bool),
    /// Digits, perhaps behind a sign.
    Integer,
    /// A number with a fraction or an exponent.
    Fraction,
    /// A string without an escape.
    Text,
    /// A string with one.
    Escaped,
    /// An object or an array.
    Nested,
}

/// Deeper ones are left to others.
const DEPTH: u32 = 64;

impl Part {
    pub(crate) fn key<'a>(&self, row: &'a str) -> Option<&'a str> {
        row.get(self.key.0 as usize..self.key.1 as usize)
    }

    pub(crate) fn value(&self) -> (usize, usize) {
        (self.value.0 as usize, self.value.1 as usize)
    }
}

impl Kind {
    /// Of a valid value.
    pub(crate) fn of(raw: &str) -> Kind {
        match raw.as_bytes().first() {
            None | Some(b'n') => Kind::Null,
            Some(b't') => Kind::Boolean(true),
            Some(b'f') => Kind::Boolean(false),
            Some(b'"') if memchr::memchr(b'\\', raw.as_bytes()).is_some() => Kind::Escaped,
            Some(b'"') => Kind::Text,
            Some(b'{' | b'[') => Kind::Nested,
            Some(_) if raw.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => Kind::Integer,
            Some(_) => Kind::Fraction,
        }
    }
}

/// Reads rows, and remembers how they are written.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    shape: Shape,
    parts: Vec<Part>,
}

/// A row as [`Scanner::scan`] has seen it, beside its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// How long it is.
    pub(crate) length: usize,
    /// Which keys it has, if the rows before it had the same in front of their values.
    pub(crate) shape: Option<ShapeId>,
    /// No value is an object, an array, or a string with an escape.
    pub(crate) plain: bool,
}

impl Scanner {
    /// The keys and values of the last row, if it was a usual one.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The object that `bytes` begins with. `None`: it is not usual.
    ///
    /// That strings are UTF-8 is for others to check.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Option<Row> {
        let Scanner { shape, parts } = self;
        parts.clear();
        // So that places fit into a part.
        let bytes = bytes.get(..u32::MAX as usize).unwrap_or(bytes);
        let mut scan = Scan { bytes, at: 0 };
        let (mut plain, mut known) = (true, true);
        loop {
            let before = scan.at;
            let place = parts.len();
            let (key_start, key_end) = match shape.find(place, bytes.get(before..)?) {
                Some((length, (start, end))) => {
                    scan.at += length;
                    // There may be more of them than before.
                    scan.blanks();
                    (before + start, before + end)
                }
                None => {
                    let Some(key) = scan.lead(place == 0)? else { break };
                    known = false;
                    shape.note(place, bytes.get(before..scan.at)?, (key.0 - before, key.1 - before));
                    key
                }
            };
            let start = scan.at;
            let kind = scan.value()?;
            plain &= !matches!(kind, Kind::Escaped | Kind::Nested);
            let range = |from: usize, to: usize| (from as u32, to as u32);
            parts.push(Part { key: range(key_start, key_end), value: range(start, scan.at), kind });
            if parts.len() == shape.len() && scan.take(b'}').is_some() {
                break;
            }
        }
        Some(Row { length: scan.at, shape: known.then(|| shape.id()), plain })
    }
}

/// How many of the first bytes can stand in a JSON string as they are: up to a quote, a backslash or a control character.
pub(crate) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(Ok(chunk)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let found = special(u64::from_le_bytes(chunk));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

/// The top bit of each byte that is a quote, a backslash or a control character. Right for the lowest of them, which is what
/// counts: a borrow only disturbs the bytes above one that was found
/// (<https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>).
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64)) | control) & TOPS
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// What stands in front of a value, behind the one before it if it is not the `first`. Returns where the key is; nothing at
    /// the end of the object.
    fn lead(&mut self, first: bool) -> Option<Option<(usize, usize)>> {
        if first {
            self.take(b'{')?;
        }
        self.blanks();
        if self.take(b'}').is_some() {
            return Some(None);
        }
        if !first {
            self.take(b',')?;
            self.blanks();
        }
        let start = self.at + 1;
        if self.take(b'"').is_none() || self.string()? == Kind::Escaped {
            return None;
        }
        let end = self.at - 1;
        self.blanks();
        self.take(b':')?;
        self.blanks();
        Some(Some((start, end)))
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Blanks, but no line break: so a row is one line.
    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn value(&mut self) -> Option<Kind> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true", Kind::Boolean(true)),
            b'f' => self.word(b"false", Kind::Boolean(false)),
            b'n' => self.word(b"null", Kind::Null),
            b'{' | b'[' => self.nested(),
            _ => None,
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Option<Kind> {
        self.bytes.get(self.at..)?.starts_with(word).then(|| self.at += word.len())?;
        Some(kind)
    }

    /// A string, from behind its first quote to behind its last.
    #[inline]
    fn string(&mut self) -> Option<Kind> {
        let mut kind = Kind::Text;
        loop {
            self.at += plain(self.bytes.get(self.at..)?);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(kind);
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
            kind = Kind::Escaped;
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.bytes.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' if self.bytes.get(self.at + 2..self.at + 6)?.iter().all(u8::is_ascii_hexdigit) => self.at += 6,
            _ => return None,
        }
        Some(())
    }

    /// A number (RFC 8259, section 6).
    #[inline]
    fn number(&mut self) -> Option<Kind> {
        let _ = self.take(b'-');
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        let mut kind = Kind::Integer;
        if self.take(b'.').is_some() {
            kind = Kind::Fraction;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            kind = Kind::Fraction;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(kind)
    }

    /// One digit at least.
    #[inline]
    fn digits(&mut self) -> Option<()> {
        let before = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > before).then_some(())
    }

    /// An object or an array. What is open is in `open`, one bit each, the innermost lowest: 1 for an object.
    fn nested(&mut self) -> Option<Kind> {
        let (mut open, mut depth) = (0u64, 0u32);
        'value: loop {
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    if depth == DEPTH {
                        return None;
                    }
                    open = open << 1 | u64::from(bracket == b'{');
                    depth += 1;
                    self.blanks();
                    if self.take(if bracket == b'{' { b'}' } else { b']' }).is_none() {
                        if bracket == b'{' {
                            self.inner_key()?;
                        }
                        continue 'value;
                    }
                    open >>= 1;
                    depth -= 1;
                }
                _ => {
                    self.value()?;
                }
            }
            // Behind a value.
            while depth > 0 {
                let is_object = open & 1 == 1;
                self.blanks();
                if self.take(b',').is_some() {
                    self.blanks();
                    if is_object {
                        self.inner_key()?;
                    }
                    continue 'value;
                }
                self.take(if is_object { b'}' } else { b']' })?;
                open >>= 1;
                depth -= 1;
            }
            return Some(Kind::Nested);
        }
    }

    /// A key within a value, up to where its own value starts.
    fn inner_key(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.string()?;
        self.blanks();
        self.take(b':')?;
        self.blanks();
        Some(())
    }
}

#[cfg(test)]
mod tests;
