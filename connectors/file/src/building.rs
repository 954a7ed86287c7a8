//! The batch in the making, and the position that goes with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acequia_connector_api::{Batch, BatchLimits, Origin, Position, Segment};
use acequia_format::Decoder;
use serde_json::Value;

use crate::tail::Tail;

/// Rows that take so many times the memory that their records take (there are hundreds of columns, and few of them in each) are
/// not read ahead.
const SWOLLEN: usize = 16;
/// Of a batch of less it does not tell.
const LITTLE: usize = 64 << 10;

/// Records go in, batches come out. Each batch has with it what changes in the position once it is handed over: a chunk
/// of a file may hold the rows of several batches, and the position must not run ahead of the one that was returned last.
pub(crate) struct Building {
    /// Makes a decoder that knows nothing yet.
    make: Arc<dyn Fn() -> Decoder + Send + Sync>,
    decoder: Decoder,
    limits: BatchLimits,
    /// Records since the last batch, failed ones too.
    records: usize,
    /// A batch took much more memory than its records.
    swollen: bool,
    /// When the first of them was taken.
    since: Option<Instant>,
    /// The file whose CSV header the decoder has.
    turn: Option<Arc<str>>,
    /// What was learnt of the rows' types, as the position has it.
    learnt: Option<Value>,
    changes: Changes,
    ready: VecDeque<Ready>,
}

/// A batch, and what it changes in the position.
pub(crate) type Ready = (Batch, Changes);

/// New values of the position's entries; none: the entry goes.
pub(crate) type Changes = BTreeMap<String, Option<Value>>;

impl Building {
    pub(crate) fn new(
        make: impl Fn() -> Decoder + Send + Sync + 'static,
        limits: BatchLimits,
        position: &Position,
    ) -> Self {
        Building::of(Arc::new(make), limits, position.as_single().cloned())
    }

    fn of(make: Arc<dyn Fn() -> Decoder + Send + Sync>, limits: BatchLimits, learnt: Option<Value>) -> Self {
        let decoder = taught(&make, learnt.as_ref());
        Building {
            make,
            decoder,
            limits,
            records: 0,
            swollen: false,
            since: None,
            turn: None,
            learnt,
            changes: Changes::new(),
            ready: VecDeque::new(),
        }
    }

    /// An empty one that knows the same of the rows' types.
    pub(crate) fn another(&self) -> Building {
        Building::of(self.make.clone(), self.limits, self.learnt.clone())
    }

    /// Whether a batch took much more memory than its records.
    pub(crate) fn has_swollen(&self) -> bool {
        self.swollen
    }

    /// What is known of the rows' types.
    pub(crate) fn learnt(&self) -> Option<&Value> {
        self.learnt.as_ref()
    }

    /// Its closed batches, for [`Building::accept`]. What the position has behind the last of them is left out: whoever takes them
    /// knows that place.
    pub(crate) fn take_ready(&mut self) -> VecDeque<Ready> {
        self.changes.clear();
        std::mem::take(&mut self.ready)
    }

    /// Take the batches that another one has made of what follows, and has counted lines from 0 in, where so many are before.
    /// Nothing may be in this one.
    pub(crate) fn accept(&mut self, ready: VecDeque<Ready>, other: &Building, lines: u64) {
        self.ready.extend(ready.into_iter().map(|(batch, changes)| moved(batch, changes, lines)));
        if self.learnt != other.learnt {
            self.learnt.clone_from(&other.learnt);
            self.decoder = taught(&self.make, self.learnt.as_ref());
        }
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
        let bytes = self.decoder.bytes().max(LITTLE);
        let batch = self.decoder.finish();
        self.swollen |= batch.rows.get_array_memory_size() > SWOLLEN * bytes;
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

/// A batch with so many lines before it.
fn moved(mut batch: Batch, mut changes: Changes, lines: u64) -> Ready {
    let by = i64::try_from(lines).unwrap_or(i64::MAX);
    if let Origin::Segments(segments) = &batch.origin {
        let segments =
            segments.iter().map(|segment| Segment { first: segment.first.saturating_add(by), ..segment.clone() });
        batch.origin = Origin::Segments(segments.collect());
    }
    for failed in &mut batch.failed {
        failed.offset = failed.offset.map(|line| line.saturating_add(by));
    }
    changes.values_mut().flatten().for_each(|entry| crate::tail::move_entry(entry, lines));
    (batch, changes)
}

fn taught(make: &Arc<dyn Fn() -> Decoder + Send + Sync>, learnt: Option<&Value>) -> Decoder {
    let mut decoder = make();
    if let Some(learnt) = learnt {
        decoder.set_inferred(learnt);
    }
    decoder
}

fn apply(changes: Changes, position: &mut Position) {
    for (partition, value) in changes {
        match value {
            Some(value) => position.0.insert(partition, value),
            None => position.0.remove(&partition),
        };
    }
}
