//! The way in for the fuzz targets, and no part of the interface.

use std::sync::Arc;

use super::{App, Board, Info};

/// What answers the requests, without a listener.
pub fn router(board: Arc<Board>, info: Info) -> axum::Router {
    super::router(Arc::new(App { board, info, worker_id: "127.0.0.1:8083".to_owned() }))
}
