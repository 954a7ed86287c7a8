//! CSV records.

use super::{Frame, Resume};
use crate::CsvOptions;

/// Bytes to CSV records: a line break inside quotes does not end one. The first one is the header, if there is one.
#[derive(Debug)]
pub struct CsvFramer {
    next: Resume,
}

impl CsvFramer {
    /// At the start of an input.
    pub fn new(options: &CsvOptions, max_record: usize) -> Self {
        CsvFramer::resume(options, max_record, Resume::default())
    }

    /// At a mark; see [`super::Framer::resume`].
    pub fn resume(_options: &CsvOptions, _max_record: usize, from: Resume) -> Self {
        CsvFramer { next: from }
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
