//! What can go wrong in a connector.

use std::time::Duration;

/// What the engine should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same call may succeed later: the engine waits (exponential backoff with jitter, at least `after`) and makes
    /// it again with the same batch.
    Retryable {
        /// The least time to wait, where the other side says so.
        after: Option<Duration>,
    },
    /// This connector can't go on as it is: the pipeline is restarted from its checkpoint, with backoff.
    Failed,
}

/// An error of a running connector. The text is lower case, without a full stop, and says what to do where that is known.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectorError {
    /// What the engine should do.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ConnectorError {
    /// The same call may succeed later.
    pub fn retryable(message: impl Into<String>) -> Self {
        ConnectorError { kind: Kind::Retryable { after: None }, message: message.into(), source: None }
    }

    /// This connector can't go on.
    pub fn failed(message: impl Into<String>) -> Self {
        ConnectorError { kind: Kind::Failed, message: message.into(), source: None }
    }

    /// With the error that caused it.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retryable { .. })
    }
}

/// A configuration whose values can't be right together, or one value that can't be right at all. Found without any
/// input or output.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CheckError {
    /// The key at fault, for the caret: `path`, or `batch.rows`. Empty: the whole table.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl CheckError {
    /// The value of `key` is wrong.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        CheckError { key: key.into(), message: message.into() }
    }
}
