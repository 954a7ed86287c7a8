//! The batch in the making, and the position that goes with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acequia_connector_api::{Batch, BatchLimits, Position};
use acequia_format::Decoder;
use serde_json::Value;

use crate::tail::Tail;

/// Records go in, batches come out. Each batch has with it what changes in the position once it is handed over: a chunk
/// of a file may hold the rows of several batches, and the position must not run ahead of the one that was returned last.
pub(crate) struct Building {
    decoder: Decoder,
    limits: BatchLimits,
    /// Records since the last batch, failed ones too.
    records: usize,
    /// When the first of them was taken.
    since: Option<Instant>,
    /// The file whose CSV header the decoder has.
    turn: Option<Arc<str>>,
    /// What was learnt of the rows' types, as the position has it.
    learnt: Option<Value>,
    changes: Changes,
    ready: VecDeque<(Batch, Changes)>,
}

/// New values of the position's entries; none: the entry goes.
type Changes = BTreeMap<String, Option<Value>>;

impl Building {
    pub(crate) fn new(mut decoder: Decoder, limits: BatchLimits, position: &Position) -> Self {
        let learnt = position.as_single().cloned();
        if let Some(learnt) = &learnt {
            decoder.set_inferred(learnt);
        }
        let ready = VecDeque::new();
        Building { decoder, limits, records: 0, since: None, turn: None, learnt, changes: Changes::new(), ready }
    }

    /// Take the records of these bytes of a file; without bytes: of its end.
    pub(crate) fn take(&mut self, tail: &mut Tail, bytes: Option<&[u8]>) {
        if self.turn.as_ref() != Some(&tail.partition) {
            self.turn = Some(tail.partition.clone());
            if let Some(header) = &tail.header {
                self.decoder.set_header(header, &tail.partition, 1);
            }
        }
        let before = tail.at;
        let Tail { framer, partition, file, id, at, header, .. } = tail;
        let mut each = |frame: acequia_format::Frame<'_>| {
            self.decoder.push_frame(&frame, partition);
            *at = frame.resume;
            if frame.header {
                *header = Some(frame.record.to_vec());
                return;
            }
            self.records += 1;
            self.since.get_or_insert_with(Instant::now);
            if self.is_full() {
                let entry = crate::tail::entry(file, *id, *at, header.as_deref(), partition);
                self.changes.insert(partition.to_string(), Some(entry));
                self.close();
            }
        };
        match bytes {
            Some(bytes) => framer.feed(bytes, &mut each),
            None => framer.finish(&mut each),
        }
        // Blanks and closing brackets behind the last record.
        tail.at = tail.framer.position();
        if tail.at != before {
            self.note(tail);
        }
    }

    fn is_full(&self) -> bool {
        self.records >= self.limits.rows || self.decoder.bytes() as u64 >= self.limits.bytes.0
    }

    /// The next batch carries where this file stands.
    pub(crate) fn note(&mut self, tail: &Tail) {
        self.changes.insert(tail.partition.to_string(), Some(tail.entry()));
    }

    /// The next batch takes this entry out of the position.
    pub(crate) fn forget(&mut self, partition: &str) {
        self.changes.insert(partition.to_owned(), None);
    }

    /// Close the batch, if anything is in it.
    pub(crate) fn close(&mut self) {
        if self.records == 0 {
            return;
        }
        self.records = 0;
        self.since = None;
        let batch = self.decoder.finish();
        let learnt = self.decoder.inferred();
        if learnt != self.learnt {
            self.changes.insert(String::new(), learnt.clone());
            self.learnt = learnt;
        }
        self.ready.push_back((batch, std::mem::take(&mut self.changes)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How long until the batch must be closed; `None` if nothing is in it.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        Some(self.limits.wait.0.saturating_sub(self.since?.elapsed()))
    }

    /// The next closed batch; the position moves behind it.
    pub(crate) fn pop(&mut self, position: &mut Position) -> Option<Batch> {
        let (batch, changes) = self.ready.pop_front()?;
        apply(changes, position);
        Some(batch)
    }

    /// If no row is on its way, what changed since the last one holds at once.
    pub(crate) fn settle(&mut self, position: &mut Position) {
        if self.records == 0 && self.ready.is_empty() {
            apply(std::mem::take(&mut self.changes), position);
        }
    }
}

fn apply(changes: Changes, position: &mut Position) {
    for (partition, value) in changes {
        match value {
            Some(value) => position.0.insert(partition, value),
            None => position.0.remove(&partition),
        };
    }
}
