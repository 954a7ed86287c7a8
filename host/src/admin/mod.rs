//! The admin listener: health, metrics, reload, and Kafka Connect's REST shapes over plain HTTP.
//!
//! There is no authentication, so [`bind`] takes a loopback address unless it is told otherwise. Everything that is shown
//! comes from the [`Board`]; nothing here waits for a pipeline, only `POST /reload` waits for the pass that it asks for.
//!
//! | path | answer |
//! |---|---|
//! | `GET /` | [`connect`]: version and commit |
//! | `GET /connectors[?expand=status&expand=info]` | [`connect`]: the pipelines' names, or all of them whole |
//! | `GET /connectors/{name}`, `GET /connectors/{name}/status` | [`connect`] |
//! | `GET /health`, `GET /ready` | [`health`] |
//! | `GET /metrics` | [`metrics`] |
//! | `POST /reload` | [`reload`] |
//!
//! Whatever goes wrong is answered as Connect does it: `{"error_code": 404, "message": "..."}`.

mod board;
pub mod connect;
mod error;
mod exposition;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod metrics;
mod process;
pub mod reload;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use board::{Board, Pass, ReloadRequest};
use error::ApiError;

/// The largest body of a request, bytes. No path needs one; a client may send an empty object all the same.
const BODY_LIMIT: usize = 64 << 10;
/// How long a request that is under way may still take when the daemon leaves.
const GRACE: Duration = Duration::from_secs(2);

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// The daemon's version.
    pub version: String,
    /// The commit that it was built from; `unknown` if it was built outside a checkout (Connect's own word for it).
    pub commit: String,
    /// The state folder.
    pub state_dir: PathBuf,
}

/// Who may reach the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// This machine only.
    Loopback,
    /// Whoever can reach the address: the caller has been told that there is no authentication.
    Anywhere,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can be reached from other machines.
    #[error(
        "will not listen on {address}, which other machines can reach: the admin listener has no authentication; listen \
         on 127.0.0.1 and put a proxy that asks for a password, or an SSH tunnel, before it"
    )]
    Exposed {
        /// The address as it was given.
        address: String,
    },
    /// It is no address, or its name is unknown.
    #[error("can't listen on {address}: {source}; give HOST:PORT, for instance 127.0.0.1:8083")]
    Address {
        /// The address as it was given.
        address: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The system refuses it.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Listen on `HOST:PORT`. Port 0 takes a free one.
///
/// # Errors
/// If the address can't be resolved or is taken; and, with [`Exposure::Loopback`], if any address that the name stands for
/// is not a loopback address.
pub async fn bind(address: &str, exposure: Exposure) -> Result<TcpListener, BindError> {
    let named = || address.to_owned();
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address)
        .await
        .map_err(|source| BindError::Address { address: named(), source })?
        .collect();
    if exposure == Exposure::Loopback && !resolved.iter().all(|address| address.ip().to_canonical().is_loopback()) {
        return Err(BindError::Exposed { address: named() });
    }
    TcpListener::bind(resolved.as_slice()).await.map_err(|source| BindError::Listen { address: named(), source })
}

/// What every path works on.
#[derive(Debug)]
struct App {
    board: Arc<Board>,
    info: Info,
    /// What Connect calls the worker: where it can be reached.
    worker_id: String,
}

/// Answer requests until `shutdown` resolves; those under way then have two seconds to end.
pub async fn serve(
    listener: TcpListener,
    board: Arc<Board>,
    info: Info,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let worker_id = listener.local_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
    let app = router(Arc::new(App { board, info, worker_id }));
    let listener = listener.tap_io(|stream| {
        // Answers are written whole: there is nothing to gather.
        let _ = stream.set_nodelay(true);
    });
    let (leaving, left) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        shutdown.await;
        drop(leaving);
    });
    // A client that never ends its request must not hold the daemon.
    let overdue = async {
        let _ = left.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server.into_future() => {
            if let Err(error) = ended {
                tracing::error!(error = error.to_string(), "the admin listener has ended");
            }
        }
        () = overdue => tracing::debug!("left while a request to the admin listener was under way"),
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(connect::root))
        .route("/connectors", get(connect::list))
        .route("/connectors/", get(connect::list))
        .route("/connectors/{name}", get(connect::show))
        .route("/connectors/{name}/status", get(connect::status))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/reload", post(reload::reload))
        .fallback(ApiError::unknown_path)
        .method_not_allowed_fallback(ApiError::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(app)
}
