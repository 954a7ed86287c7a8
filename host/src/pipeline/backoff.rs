//! How long to wait before the next try.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential backoff with jitter: each wait is drawn between half and the whole of a span that doubles from 100 ms to
/// 30 s. Half is kept so that a failing server is never asked again at once; the rest is random so that pipelines which
/// failed together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    span: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Backoff { span: FIRST }
    }

    /// The next wait, at least `least` (what the other side asked for).
    pub(super) fn next(&mut self, least: Option<Duration>) -> Duration {
        let wait = self.span.mul_f64(jitter());
        self.span = (self.span * 2).min(LONGEST);
        wait.max(least.unwrap_or_default())
    }

    /// It worked: the next failure starts from the shortest wait.
    pub(super) fn reset(&mut self) {
        self.span = FIRST;
    }
}

fn jitter() -> f64 {
    #[cfg(test)]
    if let Some(drawn) = dice::drawn() {
        return drawn;
    }
    rand::rng().random_range(0.5..=1.0)
}

/// The simulation runs each schedule in one thread, and must be able to run it again.
#[cfg(test)]
pub(super) mod dice {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From here on, what this thread draws follows from the seed.
    pub fn seed(seed: u64) {
        DICE.with_borrow_mut(|dice| *dice = Some(StdRng::seed_from_u64(seed)));
    }

    pub(super) fn drawn() -> Option<f64> {
        DICE.with_borrow_mut(|dice| Some(dice.as_mut()?.random_range(0.5..=1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_limit_and_respects_the_other_side() {
        let mut backoff = Backoff::new();
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let wait = backoff.next(None).as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} of {expected}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
        assert_eq!(backoff.next(Some(Duration::from_secs(60))), Duration::from_secs(60));
    }
}
