//! JSON values.

use super::{Frame, Resume};

/// Bytes to JSON rows: the elements of an array, one object over many lines, values one after the other, or one a line. It
/// finds out by itself: `[` at the top opens an array of rows, anything else is a row.
#[derive(Debug)]
pub struct JsonFramer {
    next: Resume,
}

impl JsonFramer {
    /// At the start of an input.
    pub fn new(max_record: usize) -> Self {
        JsonFramer::resume(max_record, Resume::default())
    }

    /// At a mark; see [`super::Framer::resume`].
    pub fn resume(_max_record: usize, from: Resume) -> Self {
        JsonFramer { next: from }
    }

    /// See [`super::Framer::feed`].
    pub fn feed(&mut self, _bytes: &[u8], _each: &mut impl FnMut(Frame<'_>)) {
        unimplemented!()
    }

    /// See [`super::Framer::finish`].
    pub fn finish(&mut self, _each: &mut impl FnMut(Frame<'_>)) {
        unimplemented!()
    }

    /// See [`super::Framer::position`].
    pub fn position(&self) -> Resume {
        self.next
    }
}
