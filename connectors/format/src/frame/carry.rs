//! What a framer keeps of one feed for the next.

use super::PREFIX;

pub(super) const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The bytes of a record that is not complete yet.
#[derive(Debug)]
pub(super) struct Carry {
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte; if it is empty, of the next byte to be fed.
    base: u64,
}

impl Carry {
    pub(super) fn new(base: u64) -> Self {
        Carry { buffer: Vec::new(), base }
    }

    /// Let `process` see what is kept and then `bytes`, slice by slice, each with its offset. It returns the offset of the first
    /// byte that it wants to see again, then with what follows.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut process: impl FnMut(&[u8], u64) -> u64) {
        if !self.buffer.is_empty() {
            // What is kept mostly lacks the rest of its line: then only that is copied.
            let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
            let (first, rest) = bytes.split_at(line);
            self.buffer.extend_from_slice(first);
            self.process(&mut process);
            bytes = rest;
            if bytes.is_empty() {
                return;
            }
            if !self.buffer.is_empty() {
                self.buffer.extend_from_slice(bytes);
                return self.process(&mut process);
            }
        }
        let to = process(bytes, self.base);
        self.buffer.extend_from_slice(bytes.get(distance(self.base, to)..).unwrap_or_default());
        self.base = to;
    }

    fn process(&mut self, process: &mut impl FnMut(&[u8], u64) -> u64) {
        let to = process(&self.buffer, self.base);
        let done = distance(self.base, to).min(self.buffer.len());
        self.buffer.drain(..done);
        self.base = to;
        // One huge record must not hold its memory for ever.
        if self.buffer.capacity() > 16 * PREFIX && self.buffer.len() < PREFIX {
            self.buffer.shrink_to(PREFIX);
        }
    }
}

fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
}

/// A part of `data`, whose first byte has the offset `base`, by offsets.
pub(super) fn slice(data: &[u8], base: u64, from: u64, to: u64) -> &[u8] {
    let index = |offset: u64| usize::try_from(offset.saturating_sub(base)).unwrap_or(usize::MAX).min(data.len());
    data.get(index(from)..index(to)).unwrap_or_default()
}

/// A prefix of a record that is too long.
pub(super) fn prefix(record: &[u8], max_record: usize) -> &[u8] {
    record.get(..PREFIX.min(max_record)).unwrap_or(record)
}

/// Whether the start of an input may be a byte order mark: its length if it is one, `None` if more bytes must tell.
pub(super) fn bom(data: &[u8], at_end: bool) -> Option<u64> {
    if data.starts_with(BOM) {
        Some(BOM.len() as u64)
    } else if BOM.starts_with(data) && !at_end {
        None
    } else {
        Some(0)
    }
}
