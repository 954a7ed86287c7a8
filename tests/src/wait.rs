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
    eventually_or(|| look().ok_or_else(|| format!("still not: {what}")))
}

/// The same, where what is not yet so is only known once it has been looked at.
///
/// # Panics
/// If it does not within [`PATIENCE`]; the message is the last one of `look`.
#[track_caller]
pub fn eventually_or<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(still) => assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?} {still}"),
        }
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
