//! Lines on their way to the server.

use acequia_connector_api::{Batch, FailedRow};
use bytes::Bytes;

/// Some lines, and the row that each was made of.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    pub(crate) body: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    /// The row of each line in its batch.
    rows: Vec<usize>,
    /// Index of the first line of each batch.
    batches: Vec<(usize, Batch)>,
}

impl Builder {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Take the lines out. The next ones get as much room at once as these needed.
    pub(crate) fn take(&mut self) -> Builder {
        let next = Builder {
            body: Vec::with_capacity(self.body.len()),
            ends: Vec::with_capacity(self.ends.len()),
            rows: Vec::with_capacity(self.rows.len()),
            batches: Vec::new(),
        };
        std::mem::replace(self, next)
    }

    /// The next lines are made of this batch.
    pub(crate) fn begin(&mut self, batch: &Batch) {
        // The failed rows are the engine's.
        let batch = Batch::new(batch.rows.clone(), batch.origin.clone());
        self.batches.push((self.ends.len(), batch));
    }

    /// What was written to `body` since the last line is the line of that row.
    pub(crate) fn end_line(&mut self, row: usize) {
        self.ends.push(self.body.len());
        self.rows.push(row);
    }

    pub(crate) fn finish(self) -> Chunk {
        let todo = vec![(0..self.ends.len()).collect()];
        Chunk { body: self.body.into(), ends: self.ends, rows: self.rows, batches: self.batches, todo }
    }
}

/// Lines that are complete, and which of them the server has not answered yet.
#[derive(Debug)]
pub(crate) struct Chunk {
    body: Bytes,
    ends: Vec<usize>,
    rows: Vec<usize>,
    batches: Vec<(usize, Batch)>,
    /// Lines that still have to be written, each list in one request; the last list is the next.
    pub(crate) todo: Vec<Vec<usize>>,
}

impl Chunk {
    /// A line, without the line break.
    pub(crate) fn line(&self, line: usize) -> &[u8] {
        let start = self.start(line);
        let end = self.ends.get(line).map_or(start, |end| end.saturating_sub(1));
        self.body.get(start..end).unwrap_or_default()
    }

    fn start(&self, line: usize) -> usize {
        line.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    /// These lines as one body.
    pub(crate) fn lines(&self, lines: &[usize]) -> Bytes {
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
            return Bytes::new();
        };
        if last - first + 1 == lines.len() {
            let end = self.ends.get(*last).copied().unwrap_or(self.body.len());
            return self.body.slice(self.start(*first)..end);
        }
        let mut body = Vec::new();
        for line in lines {
            body.extend_from_slice(self.line(*line));
            body.push(b'\n');
        }
        body.into()
    }

    /// The row of a line, as one that can't be written.
    pub(crate) fn fail(&self, line: usize, message: &str) -> Option<FailedRow> {
        let index = self.batches.partition_point(|(first, _)| *first <= line);
        let (_, batch) = self.batches.get(index.checked_sub(1)?)?;
        Some(batch.fail(*self.rows.get(line)?, message))
    }
}
