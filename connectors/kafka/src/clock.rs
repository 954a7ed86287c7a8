//! Finds out that the wall clock was set back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acequia_connector_api::ConnectorError;

/// Less than that does no harm.
const HARMLESS: Duration = Duration::from_secs(3);

/// librdkafka's threads wait by the wall clock (`cnd_timedwait`). Set back by an hour, it makes waits of milliseconds an hour
/// long, such as that for the next attempt to connect: the client says nothing any more, and only a new one helps.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// The most that the wall clock has been ahead of the one that only goes forward.
    ahead: Duration,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        Clock { start, ahead: ahead(start, SystemTime::now()) }
    }

    /// See how far it has gone forward, if it has.
    pub(crate) fn observe(&mut self) {
        self.ahead = self.ahead.max(ahead(self.start, SystemTime::now()));
    }

    /// Look at it; often enough that it is seen to go forward before it goes back.
    ///
    /// # Errors
    /// If it was set back since the last look, by more than does no harm.
    pub(crate) fn look(&mut self) -> Result<(), ConnectorError> {
        self.look_at(SystemTime::now())
    }

    fn look_at(&mut self, now: SystemTime) -> Result<(), ConnectorError> {
        let ahead = ahead(self.start, now);
        let back = self.ahead.saturating_sub(ahead);
        if back <= HARMLESS {
            self.ahead = self.ahead.max(ahead);
            return Ok(());
        }
        self.ahead = ahead;
        Err(ConnectorError::failed(format!(
            "this machine's clock was set back by {} s, and Kafka's client would wait for as long: it is made anew",
            back.as_secs()
        )))
    }
}

/// How far the wall clock is ahead of the time since `start`.
fn ahead(start: Instant, now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_does_no_harm_and_back_is_seen_once() {
        let mut clock = Clock::new();
        let now = SystemTime::now();
        let hours = Duration::from_secs(7200);
        assert!(clock.look_at(now - Duration::from_secs(2)).is_ok());
        assert!(clock.look_at(now + hours).is_ok());
        let error = clock.look_at(now).unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("set back by 7"), "{error}");
        assert!(clock.look_at(now).is_ok());
    }
}
