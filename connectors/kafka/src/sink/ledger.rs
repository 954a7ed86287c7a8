//! What is on its way to the brokers, and what became of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use acequia_connector_api::Batch;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::Notify;

use super::reporter::Reporter;

/// Which row a message is of: the parcel in the upper half, the row in the lower.
pub(super) type Tag = usize;

const _: () = assert!(usize::BITS == 64, "a tag holds two numbers of 32 bits");

/// Deliveries after which a waiting writer is woken, if they do not come to an end before.
const WAKE: u64 = 512;

/// The rows that are handed to librdkafka together: a batch, or one row of it.
pub(super) type Parcel = u32;

/// Both numbers as one.
pub(super) fn tag(parcel: Parcel, row: u32) -> Tag {
    (parcel as usize) << 32 | row as usize
}

/// A message that librdkafka gave up.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) parcel: Parcel,
    pub(super) batch: Arc<Batch>,
    pub(super) row: u32,
    pub(super) error: RDKafkaErrorCode,
}

/// Counts what is on its way.
#[derive(Debug)]
pub(super) struct Ledger {
    reporter: Reporter,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: Parcel,
    outstanding: usize,
    done: u64,
    parcels: HashMap<Parcel, (Arc<Batch>, usize)>,
    failures: Vec<Failure>,
}

impl Ledger {
    pub(super) fn new(reporter: Reporter) -> Self {
        Ledger { reporter, state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `count` rows of a batch are about to be sent. It is kept until the last of them is done.
    pub(super) fn open(&self, batch: Arc<Batch>, count: usize) -> Parcel {
        let mut state = self.state();
        let parcel = state.next;
        state.next = parcel.wrapping_add(1);
        if count > 0 {
            state.outstanding += count;
            state.parcels.insert(parcel, (batch, count));
        }
        parcel
    }

    /// `count` of these rows were not sent after all.
    pub(super) fn forget(&self, parcel: Parcel, count: usize) {
        self.state().settle(parcel, count);
    }

    /// How many messages are on their way, and how many have ever been done.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.outstanding, state.done)
    }

    /// The messages that were given up since the last call.
    pub(super) fn failures(&self) -> Vec<Failure> {
        std::mem::take(&mut self.state().failures)
    }

    /// Until something was delivered or given up; may also come without a reason.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn done(&self, tag: Tag, error: Option<RDKafkaErrorCode>) {
        let parcel = (tag >> 32) as Parcel;
        let mut state = self.state();
        if let Some(error) = error
            && let Some((batch, _)) = state.parcels.get(&parcel)
        {
            let batch = batch.clone();
            state.failures.push(Failure { parcel, batch, row: tag as u32, error });
        }
        state.settle(parcel, 1);
        state.done += 1;
        let wake = state.outstanding == 0 || state.done.is_multiple_of(WAKE);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }
}

impl State {
    fn settle(&mut self, parcel: Parcel, count: usize) {
        if let Some((_, left)) = self.parcels.get_mut(&parcel) {
            *left = left.saturating_sub(count);
            self.outstanding = self.outstanding.saturating_sub(count);
            if *left == 0 {
                self.parcels.remove(&parcel);
            }
        }
    }
}

/// The producer's side of the ledger.
pub(super) struct Delivered(pub(super) Arc<Ledger>);

impl ClientContext for Delivered {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.reporter.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.reporter.error(error, reason);
    }
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Tag;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: Tag) {
        let error = result.as_ref().err().map(|(error, _)| error.rdkafka_error_code());
        self.0.done(tag, error.map(|code| code.unwrap_or(RDKafkaErrorCode::Unknown)));
    }
}

#[cfg(test)]
mod tests {
    use acequia_connector_api::{Batch, Origin};
    use arrow_array::RecordBatch;

    use super::*;

    #[test]
    fn a_batch_is_kept_until_its_last_row_is_done() {
        let ledger = Ledger::new(Reporter::new("p", "sink", &[]));
        let rows = RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty()));
        let batch = Arc::new(Batch::new(rows, Origin::Unknown));
        let first = ledger.open(batch.clone(), 3);
        let second = ledger.open(batch.clone(), 1);
        assert_eq!(ledger.counts(), (4, 0));
        ledger.done(tag(first, 0), None);
        ledger.done(tag(second, 7), Some(RDKafkaErrorCode::MessageSizeTooLarge));
        ledger.forget(first, 1);
        assert_eq!(ledger.counts(), (1, 2));
        ledger.done(tag(first, 1), None);
        assert_eq!(ledger.counts(), (0, 3));
        let failures = ledger.failures();
        assert_eq!(failures.iter().map(|failure| (failure.parcel, failure.row)).collect::<Vec<_>>(), [(second, 7)]);
        drop(failures);
        assert!(ledger.failures().is_empty());
        assert_eq!(Arc::strong_count(&batch), 1);
    }
}
