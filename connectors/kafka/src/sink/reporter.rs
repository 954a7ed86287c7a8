//! What a client of librdkafka says by itself: its log, and the errors that no call returns.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use acequia_connector_api::ConnectorError;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How long an error that librdkafka reported explains why nothing gets through.
const FRESH: Duration = Duration::from_secs(60);

/// Takes the log and the errors of one sink's clients. Clones share what they know.
#[derive(Clone, Debug)]
pub(super) struct Reporter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pipeline: String,
    stage: String,
    brokers: String,
    last: Mutex<Option<Reported>>,
}

#[derive(Clone, Debug)]
struct Reported {
    code: RDKafkaErrorCode,
    reason: String,
    at: Instant,
}

impl Reporter {
    pub(super) fn new(pipeline: &str, stage: &str, brokers: &[String]) -> Self {
        Reporter(Arc::new(Shared {
            pipeline: pipeline.to_owned(),
            stage: stage.to_owned(),
            brokers: brokers.join(", "),
            last: Mutex::new(None),
        }))
    }

    /// Something got through: what was reported before explains nothing any more.
    pub(super) fn clear(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// An error for a call that did not get through to the brokers.
    pub(super) fn unreachable(&self, fallback: &str) -> ConnectorError {
        let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let brokers = &self.0.brokers;
        ConnectorError::retryable(match last.filter(|reported| reported.at.elapsed() < FRESH) {
            Some(Reported { code: RDKafkaErrorCode::Authentication, reason, .. }) => {
                format!("the brokers {brokers} refuse the user or the password: {reason}")
            }
            Some(Reported { code: RDKafkaErrorCode::SSL, reason, .. }) => {
                format!("no TLS connection to the brokers {brokers}: {reason}")
            }
            Some(Reported { reason, .. }) => format!("the brokers {brokers} can't be reached: {reason}"),
            None => format!("the brokers {brokers} do not answer: {fallback}"),
        })
    }
}

impl ClientContext for Reporter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let Shared { pipeline, stage, .. } = &*self.0;
        match level {
            // What it says there comes as an error too, with a reason that is shown; or it is about properties that
            // only one kind of client has.
            _ if matches!(facility, "FAIL" | "ERROR" | "CONFWARN") => {
                tracing::debug!(pipeline, stage, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(pipeline, stage, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(pipeline, stage, facility, "librdkafka: {line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(pipeline, stage, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(pipeline, stage, facility, "librdkafka: {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Shared { pipeline, stage, .. } = &*self.0;
        tracing::debug!(pipeline, stage, %error, "librdkafka: {reason}");
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        // That all are down only counts them; why was said just before.
        let known = last.as_ref().is_some_and(|reported| reported.at.elapsed() < FRESH);
        if code != RDKafkaErrorCode::AllBrokersDown || !known {
            *last = Some(Reported { code, reason: reason.to_owned(), at: Instant::now() });
        }
    }
}

impl ConsumerContext for Reporter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_kept_and_told() {
        let reporter = Reporter::new("p", "sink", &["a:1".to_owned(), "b:2".to_owned()]);
        assert_eq!(reporter.unreachable("timed out").message, "the brokers a:1, b:2 do not answer: timed out");
        reporter.error(KafkaError::Global(RDKafkaErrorCode::Authentication), "wrong password");
        reporter.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "2/2 brokers are down");
        let error = reporter.unreachable("timed out");
        assert_eq!(error.message, "the brokers a:1, b:2 refuse the user or the password: wrong password");
        assert!(error.is_retryable());
        reporter.clear();
        assert!(reporter.unreachable("timed out").message.ends_with("timed out"));
    }
}
