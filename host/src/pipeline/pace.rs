//! How soon one checkpoint follows another.

use std::time::Duration;

use tokio::time::Instant;

/// Rows stand still while the transforms make their snapshots: for one part in so many of the time, at most.
const SHARE: u32 = 10;

/// Keeps snapshots from taking up the time that rows need. A large state takes as long for each snapshot as it is large; at a
/// fixed interval a pipeline with twice the state would come to a standstill, rather than take twice as long for its
/// checkpoints. Replays are longer by as much (invariant 4).
#[derive(Debug, Default)]
pub(super) struct Pace {
    rests_until: Option<Instant>,
}

impl Pace {
    /// Snapshots held the rows up for so long, until now.
    pub(super) fn held(&mut self, held: Duration) {
        self.rests_until = Some(Instant::now() + held.saturating_mul(SHARE - 1));
    }

    /// Whether the rows have flowed for long enough since then.
    pub(super) fn allows(&self) -> bool {
        self.rests_until.is_none_or(|until| until <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_flow_nine_times_as_long_as_they_stood_still() {
        let mut pace = Pace::default();
        assert!(pace.allows());
        pace.held(Duration::from_millis(100));
        tokio::time::advance(Duration::from_millis(899)).await;
        assert!(!pace.allows());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pace.allows());
        pace.held(Duration::ZERO);
        assert!(pace.allows());
    }
}
