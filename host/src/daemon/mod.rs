//! The daemon: from directories of configurations to running pipelines.
//!
//! [`run`] takes the state folder, looks at the directories ([`supervisor`]), tells systemd that it is ready, and looks again
//! whenever something may have changed ([`watch`]) or somebody asks.

mod build;
mod heap;
mod once;
mod projection;
mod supervisor;
pub mod systemd;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::Cores;
use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

pub use build::{Builder, Built, Change, Found, Loaded, Print};
pub(crate) use heap::keep_tight;

use crate::admin::{self, Board};
use crate::config::plugins::PluginPath;
use crate::connectors;
use crate::plugin::{Host, HostOptions};
use crate::state::{StateLock, Store};
use supervisor::{Reason, Supervisor};
use systemd::Notifier;

/// What `acequia run` is told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Directories and files.
    pub paths: Vec<PathBuf>,
    /// The state folder.
    pub state: PathBuf,
    /// Folders with plugins, before the usual ones.
    pub plugins: Vec<PathBuf>,
    /// Where the admin listener listens, if anywhere.
    pub listen: Option<String>,
    /// End when all finite sources have.
    pub once: bool,
}

impl RunOptions {
    /// The builder of pipelines that these options make.
    ///
    /// # Errors
    /// If this machine can't run WebAssembly.
    pub fn builder(plugins: &[PathBuf], cache: Option<PathBuf>, cores: Cores) -> anyhow::Result<Builder> {
        let host = Host::new(&HostOptions { cache }).context("the plugin host can't start")?;
        Ok(Builder { registry: connectors::registry(), plugins: PluginPath::of_process(plugins), host, cores })
    }
}

/// A runtime with a thread for each core, and what the pipelines on it share.
///
/// # Errors
/// If no threads can be started.
pub fn runtime() -> anyhow::Result<(Runtime, Cores)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = Cores::new(threads);
    let idle = cores.clone();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .on_thread_park(move || idle.parks())
        .enable_all()
        .build()
        .context("no threads can be started")?;
    Ok((runtime, cores))
}

/// Done at the first SIGTERM or SIGINT. The handlers are in place when this returns, not when it is first awaited. A second
/// SIGINT ends the process at once: somebody at a terminal means it.
///
/// # Errors
/// If the signals can't be handled.
pub fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => {
                tracing::info!("interrupted: once more ends it at once");
                tokio::spawn(async move {
                    interrupt.recv().await;
                    std::process::exit(130);
                });
            }
        }
    })
}

/// Run until `shutdown` is done or, with `once`, until there is nothing left to do, on a runtime with [`runtime`]'s `cores`.
///
/// # Errors
/// If the daemon itself can't start: its state folder, its listener, its engine. What is wrong with a pipeline is no error
/// here: it is logged, shown in the status, and stops no other.
pub async fn run(options: RunOptions, cores: Cores, shutdown: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
    // Before anything else: a SIGHUP that comes before its handler would end the process.
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP can't be handled")?;
    // A file that may not grow any more (`ulimit -f`, `LimitFSIZE=`) is an error of the write, as a full disk is, and not the
    // end of the daemon. The handler stays when what is returned here is dropped.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).context("SIGXFSZ can't be handled")?);
    raise_file_limit();
    let notifier = Notifier::from_env().map(Arc::new);
    let _lock = StateLock::take(&options.state)?;
    let store = Store::open(&options.state)?;
    let builder = RunOptions::builder(&options.plugins, Some(options.state.join("compiled")), cores)?;
    let (board, mut requests) = Board::new();
    // It ends with this.
    let mut housekeeping = JoinSet::new();
    housekeeping.spawn(heap::give_back_in_turn());
    let (stop_admin, admin_stopped) = tokio::sync::oneshot::channel::<()>();
    let admin = match &options.listen {
        Some(address) => Some(serve(address, &options, &board, admin_stopped).await?),
        None => None,
    };
    let mut supervisor = Supervisor::new(options.paths.clone(), builder, store, board.clone());
    let mut watch = watch::Watch::new();
    // Before the first pass, so that what changes during it is seen.
    watch.set(supervisor.watched());
    let pass = supervisor.pass(Reason::Start).await;
    watch.set(supervisor.watched());
    tracing::info!(pipelines = board.pipelines().len(), errors = pass.errors.len(), state = %options.state.display(), "ready");
    board.set_ready(true);
    if let Some(notifier) = &notifier {
        notifier.ready(&systemd::summary(&board));
    }
    let watchdog = notifier
        .clone()
        .map(|notifier| tokio::spawn(systemd::watchdog(notifier, board.clone(), std::future::pending())));

    tokio::pin!(shutdown);
    let finished = once::finished(&supervisor, options.once, &pass);
    tokio::pin!(finished);
    let mut code = ExitCode::SUCCESS;
    let mut rescan = supervisor.next_scan();
    loop {
        board.beat();
        let reason = tokio::select! {
            biased;
            () = &mut shutdown => break,
            outcome = &mut finished => {
                code = outcome;
                break;
            }
            Some(()) = hangup.recv() => (Reason::Asked, None),
            Some(reply) = requests.recv() => (Reason::Asked, Some(reply)),
            () = watch.changed(rescan), if !options.once => (Reason::Hint, None),
            () = tokio::time::sleep(BEAT) => continue,
        };
        let (reason, reply) = reason;
        if reason == Reason::Asked
            && let Some(notifier) = &notifier
        {
            notifier.reloading();
        }
        let pass = supervisor.pass(reason).await;
        watch.set(supervisor.watched());
        rescan = supervisor.next_scan();
        if reason == Reason::Asked {
            tracing::info!(
                changed = pass.changed,
                errors = pass.errors.len(),
                generation = pass.generation,
                "reloaded"
            );
        }
        if let Some(notifier) = &notifier {
            if reason == Reason::Asked {
                notifier.ready(&systemd::summary(&board));
            } else {
                notifier.status(&systemd::summary(&board));
            }
        }
        if let Some(reply) = reply {
            // Whoever asked may have hung up.
            let _ = reply.send(pass);
        }
    }
    board.set_ready(false);
    if let Some(notifier) = &notifier {
        notifier.stopping();
    }
    tracing::info!("stopping: delivering what is in flight");
    supervisor.stop().await;
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    drop(stop_admin);
    if let Some(admin) = admin {
        let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    }
    tracing::info!("stopped");
    Ok(code)
}

/// A pipeline has a handful of files and sockets open, and the usual soft limit of 1024 is only there for programs that use
/// `select(2)`: take what the hard limit allows.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = error.to_string(), "the limit of open files could not be raised");
    }
}

/// The longest that the daemon's own loop is silent: the watchdog wants to hear of it.
const BEAT: Duration = Duration::from_secs(1);

async fn serve(
    address: &str,
    options: &RunOptions,
    board: &Arc<Board>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = admin::bind(address, admin::Exposure::Loopback).await?;
    tracing::info!("the admin listener is at http://{}", listener.local_addr()?);
    let info = admin::Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("ACEQUIA_COMMIT").unwrap_or("unknown").to_owned(),
        state_dir: options.state.clone(),
    };
    let board = board.clone();
    Ok(tokio::spawn(admin::serve(listener, board, info, async {
        let _ = stopped.await;
    })))
}
