//! Numbers that are the same in every run.

use std::pin::pin;
use std::task::Poll;

/// A linear congruential generator with Knuth's MMIX constants.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// At least 0, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Poll a future so many times and then drop it; what it returned, if it got that far. `None` stands for a cancel. Between
/// two polls other tasks may run.
pub(super) async fn poll_some<T>(polls: u64, work: impl Future<Output = T>) -> Option<T> {
    let mut left = polls;
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        context.waker().wake_by_ref();
        work.as_mut().poll(context).map(Some)
    })
    .await
}
