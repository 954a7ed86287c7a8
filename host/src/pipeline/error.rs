//! Why a run of a pipeline ended.

use acequia_connector_api::ConnectorError;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Go back to the checkpoint and try again, with backoff.
    Retry,
    /// A guest lost its state: go back to the checkpoint at once and go on carefully.
    Careful,
    /// `on_error = "stop"`: stay stopped.
    Stop,
}

/// Why a run of a pipeline ended. The text names the stage and carries the whole chain of causes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{stage}: {message}")]
pub struct RunError {
    pub(super) stage: String,
    pub(super) message: String,
    pub(super) remedy: Remedy,
    /// The stage only failed because a neighbour had: the neighbour's error is the one that counts.
    pub(super) echo: bool,
}

impl RunError {
    pub(super) fn new(stage: &str, message: impl Into<String>) -> Self {
        RunError { stage: stage.to_owned(), message: message.into(), remedy: Remedy::Retry, echo: false }
    }

    /// The stage can't go on because a neighbour has gone, or the run is over.
    pub(super) fn echo(stage: &str) -> Self {
        RunError { echo: true, ..RunError::new(stage, "the next stage has ended") }
    }

    pub(super) fn with(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    pub(super) fn connector(stage: &str, error: &ConnectorError) -> Self {
        RunError::new(stage, chain_of(error))
    }
}

/// An error and its causes on one line.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
