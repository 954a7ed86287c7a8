//! What an error of the driver means for a row, or for the whole connector.

use acequia_connector_api::ConnectorError;
use scylla::errors::{
    BadQuery, ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};

/// What to do about a row that was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server can't take it now: the same row again, later.
    Again,
    /// Something went wrong inside the server; if that happens to the same row several times, the row is at fault.
    Suspect,
    /// The server refuses it. The statement may be out of date, since the table was changed: look, and try once more.
    Recheck,
    /// The server refuses it for good.
    Reject,
    /// No row can be written.
    Stop,
}

/// Judge an error.
pub(crate) fn fate(error: &ExecutionError) -> Fate {
    match error {
        ExecutionError::LastAttemptError(attempt) => attempt_fate(attempt),
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => attempt_fate(first_attempt),
        ExecutionError::BadQuery(BadQuery::PartitionKeyExtraction) => Fate::Recheck,
        ExecutionError::BadQuery(_) => Fate::Reject,
        // Timeouts, connections, no node: the cluster's.
        _ => Fate::Again,
    }
}

fn attempt_fate(error: &RequestAttemptError) -> Fate {
    match error {
        RequestAttemptError::DbError(error, message) => match error {
            DbError::Unavailable { .. }
            | DbError::Overloaded
            | DbError::IsBootstrapping
            | DbError::ReadTimeout { .. }
            | DbError::WriteTimeout { .. }
            | DbError::RateLimitReached { .. }
            | DbError::TruncateError => Fate::Again,
            DbError::WriteFailure { .. } | DbError::ServerError | DbError::ReadFailure { .. } => Fate::Suspect,
            DbError::Unauthorized | DbError::AuthenticationError => Fate::Stop,
            DbError::Invalid if is_too_large(message) => Fate::Reject,
            DbError::ProtocolError if is_too_large(message) => Fate::Reject,
            // Also a column that is gone, found out when the statement was prepared again.
            DbError::Invalid
            | DbError::SyntaxError
            | DbError::ConfigError
            | DbError::Unprepared { .. }
            | DbError::ProtocolError => Fate::Recheck,
            _ => Fate::Suspect,
        },
        RequestAttemptError::RepreparedIdChanged { .. } => Fate::Recheck,
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => Fate::Reject,
        _ => Fate::Again,
    }
}

/// A mutation over half a segment of the commit log, or a request over the largest frame.
fn is_too_large(message: &str) -> bool {
    ["too large", "too big", "oversized"].iter().any(|sign| message.contains(sign))
}

/// Why there is no session.
pub(crate) fn not_connected(nodes: &str, username: Option<&str>, error: NewSessionError) -> ConnectorError {
    let authentication = match &error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
            last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
        })) => match &setup.error {
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, message) => Some(message.clone()),
            ConnectionSetupRequestErrorKind::MissingAuthentication => Some(String::new()),
            _ => None,
        },
        _ => None,
    };
    match (authentication, username) {
        (Some(message), Some(username)) => ConnectorError::failed(format!(
            "{nodes} refuses the user `{username}` ({message}): check `username` and `password`"
        )),
        (Some(_), None) => ConnectorError::failed(format!("{nodes} asks for a user: set `username` and `password`")),
        // The driver's text has the causes in it already.
        (None, _) => ConnectorError::retryable(format!("can't connect to {nodes}")).because(match error {
            NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
                last_connection_error,
            })) => last_connection_error.to_string(),
            error => error.to_string(),
        }),
    }
}

/// An error of a statement that the connector itself needs: preparing, creating, looking at the schema.
pub(crate) fn of_statement(what: &str, error: impl std::error::Error, fate: Fate) -> ConnectorError {
    match fate {
        Fate::Again | Fate::Suspect => ConnectorError::retryable(what.to_owned()).because(error.to_string()),
        Fate::Recheck | Fate::Reject | Fate::Stop => ConnectorError::failed(what.to_owned()).because(error.to_string()),
    }
}

/// The fate of a statement that can't be prepared.
pub(crate) fn prepare_fate(error: &PrepareError) -> Fate {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => attempt_fate(first_attempt),
        _ => Fate::Again,
    }
}

/// The server's own words, without the driver's around them.
pub(crate) fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(_, message)) if !message.is_empty() => {
            message.clone()
        }
        error => error.to_string(),
    }
}
