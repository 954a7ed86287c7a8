//! A partition, while it is assigned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// A partition, from when it is assigned to when it is taken away. If it comes back it is another one.
#[derive(Debug)]
pub(super) struct Partition {
    /// As it is called in positions and dead letters: `topic/3`.
    pub(super) name: Arc<str>,
    pub(super) topic: String,
    pub(super) number: i32,
    /// Set when it is taken away: rows of it that have not been handed out must not be any more. Changes only under the lock
    /// of the state.
    pub(super) gone: AtomicBool,
    taken: Taken,
}

/// What the polling thread, which alone uses it, has taken last.
#[derive(Debug, Default)]
struct Taken {
    /// Which poll that was, and the first offset that it brought.
    poll: AtomicU64,
    first: AtomicI64,
    /// The offset after the last one.
    next: AtomicI64,
    /// How often partitions had come or gone by then.
    changes: AtomicU64,
}

impl Partition {
    pub(super) fn new(topic: &str, number: i32) -> Self {
        Partition {
            name: partition_name(topic, number).into(),
            topic: topic.to_owned(),
            number,
            gone: AtomicBool::new(false),
            taken: Taken::default(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The offset after the last message that was taken; 0 before the first.
    pub(super) fn next(&self) -> i64 {
        self.taken.next.load(Ordering::Relaxed)
    }

    /// Whether a message is to be taken. It is not if it is a repeat: when partitions come or go, librdkafka stops reading those
    /// that stay, too, and goes on from where the application is. It looks that up in another thread
    /// (`rd_kafka_toppar_pause_resume`), maybe just when messages have been handed out and are not yet counted
    /// (`rd_kafka_update_app_pos`); then it hands them out again.
    ///
    /// A lower offset that comes otherwise is a row like any other: the topic has been made anew, or was cut off.
    pub(super) fn take(&self, offset: i64, poll: u64, changes: u64) -> bool {
        let taken = &self.taken;
        let first = taken.first.load(Ordering::Relaxed);
        if (first..self.next()).contains(&offset) && taken.changes.load(Ordering::Relaxed) != changes {
            return false;
        }
        if taken.poll.swap(poll, Ordering::Relaxed) != poll {
            taken.first.store(offset, Ordering::Relaxed);
        }
        taken.next.store(offset.saturating_add(1), Ordering::Relaxed);
        taken.changes.store(changes, Ordering::Relaxed);
        true
    }
}

pub(super) fn partition_name(topic: &str, number: i32) -> String {
    format!("{topic}/{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(partition: &Partition, messages: &[(i64, u64, u64)]) -> Vec<i64> {
        let taken = messages.iter().filter(|(offset, poll, changes)| partition.take(*offset, *poll, *changes));
        taken.map(|(offset, _, _)| *offset).collect()
    }

    // invariant 2
    #[test]
    fn what_comes_again_after_partitions_came_or_went_is_taken_once() {
        let partition = Partition::new("t", 0);
        assert_eq!(taken(&partition, &[(0, 1, 1), (1, 1, 1), (2, 2, 1), (4, 2, 1)]), [0, 1, 2, 4]);
        assert_eq!(taken(&partition, &[(2, 3, 2), (4, 3, 2), (5, 3, 2), (6, 4, 2)]), [5, 6], "the last poll's again");
        assert_eq!(taken(&partition, &[(6, 5, 3), (7, 6, 3)]), [7], "and once more");
    }

    #[test]
    fn a_topic_that_begins_anew_is_read_anew() {
        let partition = Partition::new("t", 0);
        assert_eq!(taken(&partition, &[(0, 1, 1), (0, 2, 1), (1, 2, 1)]), [0, 0, 1], "nothing came or went");
        let partition = Partition::new("t", 0);
        assert_eq!(
            taken(&partition, &[(7, 1, 1), (8, 2, 1), (0, 3, 2), (1, 4, 2)]),
            [7, 8, 0, 1],
            "not the last poll's"
        );
    }
}
