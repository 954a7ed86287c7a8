//! The timestamps of rows: they decide which of two rows with the same key stays.

use std::time::{SystemTime, UNIX_EPOCH};

/// Rows that were written after a checkpoint have timestamps at most this much beyond the one in it, in microseconds.
const AHEAD: i64 = 6_000_000;
/// The clock is followed so far: between checkpoints that are further apart than half of it, timestamps fall behind. What is left
/// is for rows that come then, one microsecond each: a million between two checkpoints.
const FOLLOWED: i64 = 5_000_000;

/// Timestamps that grow from row to row, whatever the wall clock does, and over a crash: rows that come again after it must
/// win against what was written before it.
///
/// They follow the wall clock, but never further than [`FOLLOWED`] beyond what the last stored checkpoint has: a clock that
/// jumps forward is followed once a checkpoint knows of it. So a restart knows which timestamps can be in the table, and begins
/// beyond them.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// The last one used.
    last: i64,
    /// The least that the checkpoint may have that is on disk.
    stored: i64,
    /// What the last `flush` gave.
    given: i64,
}

impl Stamps {
    /// After a checkpoint that has `given`, if there was one.
    pub(crate) fn new(given: Option<i64>, now: i64) -> Stamps {
        // Its rows may have timestamps up to there. If the clock is beyond, all is well.
        let used = given.map_or(0, |given| given.saturating_add(AHEAD));
        let last = used.max(now.saturating_sub(1));
        Stamps { last, stored: last, given: last }
    }

    /// Timestamps for so many rows: the first one.
    pub(crate) fn take(&mut self, rows: usize, now: i64) -> i64 {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let followed = if now <= self.stored.saturating_add(FOLLOWED) { now } else { 0 };
        let first = followed.max(self.last.saturating_add(1));
        self.last = first.saturating_add(rows).saturating_sub(1);
        first
    }

    /// What the checkpoint is to have. A checkpoint is begun when the one before it is on disk.
    pub(crate) fn flush(&mut self, now: i64) -> i64 {
        let before = std::mem::replace(&mut self.given, self.last.max(now));
        // Either of the two may be the one that a restart finds.
        self.stored = before.min(self.given);
        self.given
    }
}

/// The wall clock, in microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const NOW: i64 = 500_000 * HOUR;

    #[test]
    fn they_follow_the_clock_and_never_go_back() {
        let mut stamps = Stamps::new(None, NOW);
        assert_eq!(stamps.take(10, NOW), NOW);
        assert_eq!(stamps.take(10, NOW), NOW + 10);
        assert_eq!(stamps.take(1, NOW - HOUR), NOW + 20);
        let half = SECOND / 2;
        assert_eq!(stamps.take(1, NOW + half), NOW + half);
        for step in 1..200 {
            stamps.flush(NOW + step * half);
            assert_eq!(stamps.take(1, NOW + step * half + 7), NOW + step * half + 7);
        }
    }

    #[test]
    fn a_jump_forward_is_followed_once_a_checkpoint_knows_of_it() {
        let mut stamps = Stamps::new(None, NOW);
        assert_eq!(stamps.take(1, NOW + HOUR), NOW, "the clock at the start counts, not this one");
        let mut stamps = Stamps::new(Some(NOW - HOUR), NOW);
        stamps.take(1, NOW);
        assert_eq!(stamps.take(1, NOW + HOUR), NOW + 1);
        assert_eq!(stamps.flush(NOW + HOUR), NOW + HOUR);
        assert_eq!(stamps.take(1, NOW + HOUR), NOW + 2, "that checkpoint may not be on disk yet");
        stamps.flush(NOW + HOUR);
        assert_eq!(stamps.take(1, NOW + HOUR), NOW + HOUR);
    }

    #[test]
    fn a_restart_begins_beyond_what_was_written() {
        assert_eq!(Stamps::new(Some(NOW), NOW + HOUR).take(1, NOW + HOUR), NOW + HOUR);
        assert_eq!(Stamps::new(Some(NOW), NOW + SECOND).take(1, NOW + SECOND), NOW + AHEAD + 1);
        assert_eq!(Stamps::new(Some(NOW), NOW - HOUR).take(1, NOW - HOUR), NOW + AHEAD + 1);
    }

    /// Exactly at the limit: the last row of a batch counts, not the first.
    #[test]
    fn a_batch_does_not_go_beyond_the_limit_in_its_middle() {
        let mut stamps = Stamps::new(None, NOW);
        let disk = stamps.flush(NOW);
        stamps.take(100, NOW + HOUR);
        stamps.flush(NOW + FOLLOWED);
        let first = stamps.take(100, NOW + FOLLOWED);
        assert!(first + 99 <= disk + AHEAD, "{first}");
    }

    proptest! {
        /// Lives of one pipeline under a clock that jumps: what comes after a crash has greater timestamps than all before.
        #[test]
        fn whatever_the_clock_does(
            lives in prop::collection::vec(
                (prop::collection::vec((-20..20_i64, any::<bool>()), 0..12), any::<bool>()), 1..6)
        ) {
            let mut wall = NOW;
            // The checkpoint on disk, and the greatest timestamp in the table.
            let (mut disk, mut table) = (None, 0);
            for (steps, landed) in lives {
                let mut stamps = Stamps::new(disk, wall);
                // A run begins with a checkpoint.
                disk = Some(stamps.flush(wall));
                let mut begun = None;
                for (jump, checkpoint) in steps {
                    wall += jump * HOUR / 7 + SECOND;
                    if checkpoint {
                        disk = begun.or(disk);
                        begun = Some(stamps.flush(wall));
                    }
                    let first = stamps.take(100, wall);
                    prop_assert!(first > table, "{first} after {table}");
                    table = first + 99;
                }
                // A crash, before or after the last one is on disk.
                disk = begun.filter(|_| landed).or(disk);
            }
        }
    }
}
