//! Errors in Kafka Connect's shape.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer that is an error: `{"error_code": 404, "message": "..."}`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

#[derive(Serialize)]
struct Body {
    error_code: u16,
    message: String,
}

impl ApiError {
    /// An error with that status.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into() }
    }

    /// There is nothing at that path. The words are Connect's.
    pub(super) async fn unknown_path() -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "HTTP 404 Not Found")
    }

    /// The path does not know that method. The words are Connect's.
    pub(super) async fn wrong_method() -> Self {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "HTTP 405 Method Not Allowed")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { error_code: self.status.as_u16(), message: self.message };
        (self.status, Json(body)).into_response()
    }
}
