//! `POST /reload`: the same as SIGHUP, but it tells what became of it.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use super::App;
use super::Pass;
use super::error::ApiError;

/// The answer: 200 if there are no errors, 422 otherwise. Errors stop nothing: the files that are right have taken effect,
/// and what ran goes on (invariant 7).
#[derive(Debug, Serialize)]
pub struct Reloaded {
    /// Counts up with every pass that changed something.
    pub generation: u64,
    /// Pipelines started, swapped, restarted, stopped.
    pub changed: usize,
    /// What could not be used.
    pub errors: Vec<FileError>,
}

/// A file that could not be used.
#[derive(Debug, Serialize)]
pub struct FileError {
    /// Its path.
    pub file: String,
    /// What is wrong with it, with line and column, over several lines.
    pub message: String,
}

impl From<Pass> for Reloaded {
    fn from(pass: Pass) -> Self {
        let errors = pass.errors.into_iter().map(|(file, message)| FileError { file, message });
        Reloaded { generation: pass.generation, changed: pass.changed, errors: errors.collect() }
    }
}

/// Whether the request may have an effect: one that a browser sends for a page of another site says so in `Origin`, and
/// would otherwise reach a listener on loopback.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

/// `POST /reload`. The body is read (so that its size is bounded) and ignored.
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Reloaded>), ApiError> {
    body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    if !same_origin(&headers) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a page of another site may not reload this daemon"));
    }
    let Some(pass) = app.board.reload().await else {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is on its way out"));
    };
    let status = if pass.errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, Json(pass.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_a_page_of_this_listener_may_act_through_a_browser() {
        assert!(same_origin(&headers(None, "127.0.0.1:8083")), "curl sends no origin");
        assert!(same_origin(&headers(Some("http://LOCALHOST:8083"), "localhost:8083")));
        assert!(!same_origin(&headers(Some("https://evil.example"), "127.0.0.1:8083")));
        assert!(!same_origin(&headers(Some("http://127.0.0.1:9999"), "127.0.0.1:8083")));
        assert!(!same_origin(&headers(Some("null"), "127.0.0.1:8083")), "a sandboxed page");
    }
}
