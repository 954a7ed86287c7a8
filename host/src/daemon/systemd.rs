//! systemd's notify protocol (`sd_notify(3)`, `sd_watchdog_enabled(3)`), and a watchdog that is fed by progress.
//!
//! A message is one datagram of `KEY=VALUE` lines to the socket that `NOTIFY_SOCKET` names: a path, or `@name` in Linux's
//! abstract namespace.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::admin::Board;
use crate::pipeline::status::State;

/// systemd takes 4096 bytes a datagram (`NOTIFY_BUFFER_MAX`); a longer status is cut, with room left for other lines.
const STATUS_LIMIT: usize = 2048;
/// How long a message may wait for room in systemd's queue before it is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the status is looked at, if no watchdog asks for more.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// The watchdog is fed this many times in its interval, so that one late feed does no harm.
const FEEDS: u32 = 3;

/// A line to systemd. Whatever can't be delivered is logged, and no more: a daemon does not fail for want of a listener.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

/// Take systemd's variables out of the environment, so that no child takes them for its own.
///
/// # Safety
/// No other thread may read or write the environment meanwhile: call it, after [`Notifier::from_env`], before the first
/// thread starts.
pub unsafe fn clear_env() {
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        // SAFETY: the caller's promise.
        unsafe { env::remove_var(variable) };
    }
}

impl Notifier {
    /// What the environment says; `None` if the daemon was not started by systemd with `Type=notify`.
    pub fn from_env() -> Option<Self> {
        let text = |name| env::var(name).ok();
        let (usec, pid) = (text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        let watchdog = watchdog_interval(usec.as_deref(), pid.as_deref(), std::process::id());
        let socket = env::var_os("NOTIFY_SOCKET")?;
        match Notifier::new(&socket, watchdog) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                let socket = socket.to_string_lossy().into_owned();
                tracing::warn!(socket, error = error.to_string(), "can't talk to systemd");
                None
            }
        }
    }

    /// A line to the socket of that name, with the watchdog's interval if it wants to be fed.
    ///
    /// # Errors
    /// If the name is neither an absolute path nor `@` and a name, or is too long, or there is no socket to send from.
    pub fn new(socket: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = parse_address(socket)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Notifier { socket, address, watchdog })
    }

    /// How often the watchdog must be fed at the least; `None` if it need not be.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The daemon is up, or a reload is done.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload begins; [`Notifier::ready`] ends it. systemd from 253 on wants the time with it (`Type=notify-reload`).
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // What `sd_notify(3)` asks for: microseconds of CLOCK_MONOTONIC, no fraction.
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The daemon is on its way out.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", one_line(text)));
    }

    /// The daemon is alive.
    pub fn feed(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        // Sent to an address each time, not over a connection: systemd may have made its socket anew.
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => {}
            Err(error) => {
                let first = message.lines().next().unwrap_or_default();
                tracing::warn!(message = first, error = error.to_string(), "systemd could not be told");
            }
        }
    }
}

fn parse_address(socket: &OsStr) -> io::Result<SocketAddr> {
    let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "neither an absolute path nor @name");
    match socket.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(socket),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] if !name.is_empty() => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(unsupported()),
    }
}

/// The interval of `WATCHDOG_USEC`, unless `WATCHDOG_PID` says that another process is meant.
fn watchdog_interval(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    if let Some(pid) = pid
        && pid.parse() != Ok(own_pid)
    {
        return None;
    }
    let micros: u64 = usec?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// A line feed would end the value, so it becomes a space.
fn one_line(text: &str) -> String {
    let mut line = text.replace(['\n', '\r'], " ");
    let mut end = line.len().min(STATUS_LIMIT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

/// The daemon in one line: `3 pipelines: 2 running, 1 retrying; 1200 rows in, 4 dead`.
pub fn summary(board: &Board) -> String {
    use std::fmt::Write as _;

    let pipelines = board.pipelines();
    let (mut rows, mut dead) = (0_u64, 0_u64);
    for status in pipelines.values() {
        let stages = status.stages();
        rows = rows.saturating_add(stages.first().map_or(0, |(_, source)| source.get().rows_in));
        dead = stages.iter().fold(dead, |dead, (_, stage)| dead.saturating_add(stage.get().dead));
    }
    let census = board.census();
    let mut line = match pipelines.len() {
        1 => "1 pipeline".to_owned(),
        count => format!("{count} pipelines"),
    };
    let states = State::ALL.iter().filter_map(|state| census.get(state.name()).map(|count| (state.name(), count)));
    for (index, (state, count)) in states.enumerate() {
        let before = if index == 0 { ": " } else { ", " };
        // Writing to a string can't fail.
        let _ = write!(line, "{before}{count} {}", state.to_ascii_lowercase());
    }
    let _ = write!(line, "; {rows} rows in, {dead} dead");
    let errors = board.pass().errors.len();
    if errors > 0 {
        let _ = write!(line, "; {errors} {} not usable", if errors == 1 { "file is" } else { "files are" });
    }
    line
}

/// What hangs, in words; `None` if everything makes progress. Before the first pass is done and while the daemon leaves
/// nothing counts as hanging: systemd has other limits for those times (`TimeoutStartSec`, `TimeoutStopSec`).
fn stuck(board: &Board, limit: Duration) -> Option<String> {
    if !board.is_ready() {
        return None;
    }
    if board.heartbeat_age() > limit {
        return Some("the supervisor".to_owned());
    }
    let hung = board.hung(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    match hung.as_slice() {
        [] => None,
        [one] => Some(format!("pipeline {one}")),
        many => Some(format!("pipelines {}", many.join(", "))),
    }
}

/// Feed systemd's watchdog as long as the engine makes progress of its own, and keep the status up to date, until
/// `shutdown` resolves.
///
/// The supervisor's loop and the run of each pipeline must have come round within the watchdog's interval. While one has
/// not, nothing is fed, and systemd kills the daemon and starts it again from its checkpoints. A pipeline that waits for a
/// server or for rows comes round all the same. Should whatever hung go on in time, so does the feeding.
pub async fn watchdog(notifier: Arc<Notifier>, board: Arc<Board>, shutdown: impl Future<Output = ()>) {
    let interval = notifier.watchdog_interval();
    let period = interval.map_or(STATUS_INTERVAL, |interval| (interval / FEEDS).min(STATUS_INTERVAL));
    let mut timer = tokio::time::interval(period.max(Duration::from_millis(1)));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    let mut hanging: Option<String> = None;
    let mut shown = String::new();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            _ = timer.tick() => {}
        }
        if let Some(limit) = interval {
            let found = stuck(&board, limit);
            match &found {
                Some(what) if found != hanging => {
                    tracing::error!(?limit, "{what} does not come round; systemd's watchdog is no longer fed");
                }
                None if hanging.is_some() => tracing::warn!("everything comes round again; the watchdog is fed"),
                _ => {}
            }
            hanging = found;
            if hanging.is_none() {
                notifier.feed();
            }
        }
        // While the daemon starts, reloads or leaves, whoever does that says what to show.
        if board.is_ready() {
            let status = match &hanging {
                Some(what) => format!("{what} does not come round; {}", summary(&board)),
                None => summary(&board),
            };
            if status != shown {
                notifier.status(&status);
                shown = status;
            }
        }
    }
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "packaging_tests.rs"]
mod packaging;
