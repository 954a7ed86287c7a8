//! Waiting on a condition, never for a time.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: it only costs time when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Wait until `look` returns something.
///
/// # Panics
/// If it does not within [`PATIENCE`]; the message says for what.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Wait until `holds` is true.
///
/// # Panics
/// If it is not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}
