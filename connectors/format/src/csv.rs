//! The grammar of CSV, RFC 4180, shared by the framer and the decoder so that they see the same quotes.

use crate::CsvOptions;

/// Delimiter and quote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoting {
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
}

/// Where a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// At the start of a field: only here a quote opens a quoted one.
    FieldStart,
    /// In a field without quotes, or behind the quotes of one that has them.
    Plain,
    /// Inside quotes.
    Quoted,
    /// Behind a quote inside quotes: the closing one, or the first of two that stand for one.
    Quote,
}

impl Quoting {
    pub(crate) fn new(options: &CsvOptions) -> Self {
        Quoting { delimiter: options.delimiter_byte(), quote: options.quote_byte() }
    }

    /// The state after a byte.
    pub(crate) fn next(self, state: State, byte: u8) -> State {
        match state {
            State::Quoted if byte == self.quote => State::Quote,
            State::Quoted => State::Quoted,
            State::FieldStart | State::Quote if byte == self.quote => State::Quoted,
            _ if byte == self.delimiter => State::FieldStart,
            _ => State::Plain,
        }
    }

    /// Cut a record into its fields: `each` gets the field's index, its text, and whether it was quoted. `scratch` is used for
    /// fields with quotes inside.
    pub(crate) fn fields(self, record: &str, scratch: &mut String, mut each: impl FnMut(usize, &str, bool)) {
        let mut rest = record;
        let mut index = 0;
        loop {
            let length;
            if rest.as_bytes().first() == Some(&self.quote) {
                length = self.quoted(rest, scratch);
                each(index, scratch, true);
            } else {
                length = memchr::memchr(self.delimiter, rest.as_bytes()).unwrap_or(rest.len());
                each(index, rest.get(..length).unwrap_or_default(), false);
            }
            index += 1;
            // Both bytes are ASCII, so this is a border of characters.
            match rest.get(length + 1..) {
                Some(next) if length < rest.len() => rest = next,
                _ => return,
            }
        }
    }

    /// The content of the quoted field that `text` starts with, and the field's length.
    fn quoted(self, text: &str, content: &mut String) -> usize {
        content.clear();
        let bytes = text.as_bytes();
        let mut from = 1;
        loop {
            let found = bytes.get(from..).and_then(|rest| memchr::memchr(self.quote, rest));
            let Some(found) = found else {
                content.push_str(text.get(from..).unwrap_or_default());
                return text.len();
            };
            let at = from + found;
            content.push_str(text.get(from..at).unwrap_or_default());
            if bytes.get(at + 1) == Some(&self.quote) {
                content.push(char::from(self.quote));
                from = at + 2;
                continue;
            }
            // Behind the closing quote belongs to the field too, up to the delimiter: `"a"b,` is `ab`.
            let tail = text.get(at + 1..).unwrap_or_default();
            let length = memchr::memchr(self.delimiter, tail.as_bytes()).unwrap_or(tail.len());
            content.push_str(tail.get(..length).unwrap_or_default());
            return at + 1 + length;
        }
    }

    /// Append a field, in quotes if it needs them.
    pub(crate) fn write(self, field: &str, out: &mut Vec<u8>) {
        let special = |byte: &u8| *byte == self.quote || *byte == self.delimiter || matches!(byte, b'\r' | b'\n');
        // The byte order mark would be dropped by a reader at the start of the file.
        let plain = !field.is_empty() && !field.starts_with('\u{feff}');
        if plain && !field.as_bytes().iter().any(special) {
            out.extend_from_slice(field.as_bytes());
            return;
        }
        out.push(self.quote);
        for byte in field.as_bytes() {
            if *byte == self.quote {
                out.push(self.quote);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(record: &str) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        let quoting = Quoting { delimiter: b',', quote: b'"' };
        quoting.fields(record, &mut String::new(), |index, field, quoted| {
            assert_eq!(index, all.len());
            all.push((field.to_owned(), quoted));
        });
        all
    }

    #[test]
    fn fields_as_rfc_4180_has_them() {
        let plain = |text: &str| (text.to_owned(), false);
        let quoted = |text: &str| (text.to_owned(), true);
        assert_eq!(fields("a,b"), [plain("a"), plain("b")]);
        assert_eq!(fields(""), [plain("")]);
        assert_eq!(fields(",\"\","), [plain(""), quoted(""), plain("")]);
        assert_eq!(fields("\"a,\"\"b\"\"\nc\",d"), [quoted("a,\"b\"\nc"), plain("d")]);
        assert_eq!(fields("a\"b,\"c\"d,e"), [plain("a\"b"), quoted("cd"), plain("e")]);
        assert_eq!(fields("\"open,x"), [quoted("open,x")]);
        assert_eq!(fields("é,\"ü\""), [plain("é"), quoted("ü")]);
    }
}
