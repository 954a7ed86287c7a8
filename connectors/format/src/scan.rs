//! The usual JSON row, read in one pass: an object on one line. It is checked to the letter, and noted where its keys and
//! values stand; nothing is built. What is not usual (an escaped key, a line break between two tokens, brackets within
//! brackets by the dozen, anything that is not JSON) is left to others, who take longer and know how to complain.

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

/// The object that `bytes` begins with: how long it is. Its parts are in `parts`, which was empty. `None`: it is not usual, and
/// what is in `parts` means nothing.
///
/// That strings are UTF-8 is for others to check.
pub(crate) fn object(bytes: &[u8], parts: &mut Vec<Part>) -> Option<usize> {
    let mut scan = Scan { bytes, at: 0 };
    scan.take(b'{')?;
    scan.blanks();
    if scan.take(b'}').is_some() {
        return Some(scan.at);
    }
    loop {
        let key_start = scan.at + 1;
        if scan.take(b'"').is_none() || scan.string()? == Kind::Escaped {
            return None;
        }
        let key_end = scan.at - 1;
        scan.blanks();
        scan.take(b':')?;
        scan.blanks();
        let start = scan.at;
        let kind = scan.value()?;
        let range = |from: usize, to: usize| Some((u32::try_from(from).ok()?, u32::try_from(to).ok()?));
        parts.push(Part { key: range(key_start, key_end)?, value: range(start, scan.at)?, kind });
        scan.blanks();
        if scan.take(b',').is_some() {
            scan.blanks();
        } else {
            scan.take(b'}')?;
            return Some(scan.at);
        }
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
