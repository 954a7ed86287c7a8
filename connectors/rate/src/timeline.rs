//! Which timestamp each row has, and how that follows the clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::Rate;

/// The function from `value` to `timestamp`, in microseconds since the epoch. It never falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timeline {
    /// Timestamp of value 0; after a change of the rate, what it would have been.
    pub(crate) start: i64,
    pub(crate) rate: Rate,
}

impl Timeline {
    /// Microseconds from the start to row `value`, rounded down. `i64::MAX` stands for "further than can be counted".
    fn offset(rate: Rate, value: i64) -> i64 {
        match rate {
            Rate::Max => value,
            // Exact up to 9e9 rows (2^53 / 1e6), and off by less than a microsecond for a century after that. `as`
            // saturates. Multiplying first keeps whole seconds whole: 3 / 3 * 1e6 would need 1/3 to be exact.
            Rate::PerSecond(rate) => (value as f64 * 1e6 / rate) as i64,
        }
    }

    /// Timestamp of row `value`.
    pub(crate) fn at(self, value: i64) -> i64 {
        self.start.saturating_add(Self::offset(self.rate, value))
    }

    /// Whether row `value` has a timestamp that an int64 can hold: at 1e-9 rows a second, the 10,000th has not.
    pub(crate) fn reaches(self, value: i64) -> bool {
        self.start.checked_add(Self::offset(self.rate, value)).is_some_and(|at| at < i64::MAX)
    }

    /// Another rate from row `next` on. The row before it keeps its timestamp, so that time goes on from there: at a higher
    /// rate the next row need not wait for when it would have come, nor be ahead of the clock. Depends on nothing but what
    /// is stored, so that a replay comes to the same.
    pub(crate) fn with_rate(self, rate: Rate, next: i64) -> Self {
        if rate == self.rate {
            return self;
        }
        let last = next.saturating_sub(1).max(0);
        Timeline { start: self.at(last).saturating_sub(Self::offset(rate, last)), rate }
    }

    /// The first row of `low..high` whose timestamp is after `limit`, or `high`.
    pub(crate) fn first_after(self, limit: i64, low: i64, high: i64) -> i64 {
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle) > limit {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The timestamps of rows `first..until`.
    pub(crate) fn column(self, first: i64, until: i64) -> Vec<i64> {
        match self.rate {
            // The usual case is a plain addition, so that it becomes vector instructions.
            Rate::Max if self.start.checked_add(until).is_some() => (self.start + first..self.start + until).collect(),
            Rate::Max => (first..until).map(|value| self.start.saturating_add(value)).collect(),
            Rate::PerSecond(_) => (first..until).map(|value| self.at(value)).collect(),
        }
    }
}

/// The wall clock, read once and carried on by the monotonic one: a step of the wall clock neither stops rows nor
/// releases a flood of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    opened: Instant,
    wall: i64,
}

impl Clock {
    /// The wall clock says `wall`, in microseconds since the epoch.
    pub(crate) fn new(wall: i64) -> Self {
        Clock { opened: Instant::now(), wall }
    }

    /// Microseconds since the epoch.
    pub(crate) fn now(&self) -> i64 {
        self.wall.saturating_add(micros(self.opened.elapsed()))
    }

    /// Return when [`Clock::now`] is `time` or later.
    pub(crate) async fn sleep_until(&self, time: i64) {
        if self.now() >= time {
            return;
        }
        let ahead = u64::try_from(time.saturating_sub(self.wall)).unwrap_or(0);
        match self.opened.checked_add(Duration::from_micros(ahead)) {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
    }
}

/// A length of time in microseconds, capped.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THIRD: Timeline = Timeline { start: 1_000, rate: Rate::PerSecond(3.0) };

    #[test]
    fn rows_stand_where_the_rate_puts_them() {
        // By hand: a third of a second is 333,333.3 microseconds.
        assert_eq!(THIRD.column(0, 5), [1_000, 334_333, 667_666, 1_001_000, 1_334_333]);
        assert_eq!(Timeline { start: 5, rate: Rate::Max }.column(2, 5), [7, 8, 9]);
        assert_eq!(THIRD.first_after(667_666, 0, 100), 3);
        assert_eq!(THIRD.first_after(667_665, 0, 100), 2);
        assert_eq!(THIRD.first_after(i64::MAX, 0, 100), 100);
        assert_eq!(THIRD.first_after(0, 7, 7), 7);
    }

    #[test]
    fn another_rate_goes_on_from_the_next_row() {
        let faster = THIRD.with_rate(Rate::PerSecond(1000.0), 3);
        // Row 2 is at 667,666; from there on they are a millisecond apart, and then a microsecond.
        assert_eq!(faster.column(2, 5), [667_666, 668_666, 669_666]);
        assert_eq!(faster.with_rate(Rate::Max, 5).column(4, 7), [669_666, 669_667, 669_668]);
        assert_eq!(THIRD.with_rate(Rate::Max, 0).column(0, 2), [1_000, 1_001]);
        assert_eq!(THIRD.with_rate(Rate::PerSecond(3.0), 77), THIRD);
    }

    #[test]
    fn the_end_of_the_numbers_is_not_passed() {
        let late = Timeline { start: i64::MAX - 2, rate: Rate::Max };
        assert_eq!(late.column(0, 5), [i64::MAX - 2, i64::MAX - 1, i64::MAX, i64::MAX, i64::MAX]);
        assert!(late.reaches(1));
        assert!(!late.reaches(2));
        let slow = Timeline { start: 0, rate: Rate::PerSecond(1e-9) };
        assert!(slow.reaches(9_223));
        assert!(!slow.reaches(9_224));
    }

    proptest! {
        #[test]
        fn timestamps_never_fall(
            start in -1_000_000_000_000_000i64..4_000_000_000_000_000,
            first in 0i64..1_000_000_000_000,
            before in 1e-6f64..1e9,
            after in prop_oneof![(1e-6f64..1e9).prop_map(Rate::PerSecond), Just(Rate::Max)],
        ) {
            let line = Timeline { start, rate: Rate::PerSecond(before) };
            let mut all = line.column(first, first + 50);
            all.extend(line.with_rate(after, first + 50).column(first + 50, first + 100));
            prop_assert!(all.is_sorted());
        }

        #[test]
        fn the_search_agrees_with_the_function(first in 0i64..1_000_000_000, rate in 0.001f64..1e7, limit in 0i64..10_000_000) {
            let line = Timeline { start: 0, rate: Rate::PerSecond(rate) };
            let limit = line.at(first).saturating_add(limit);
            let found = line.first_after(limit, first, first + 1000);
            let counted = (first..first + 1000).filter(|value| line.at(*value) <= limit).count();
            prop_assert_eq!(found - first, counted as i64);
        }
    }
}
