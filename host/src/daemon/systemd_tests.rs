use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::admin::Pass;
use crate::pipeline::status::Counts;

/// Longer than anything takes: a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// systemd's end of the line.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path, _folder: folder }
    }

    fn notifier(&self, watchdog: Option<Duration>) -> Notifier {
        Notifier::new(self.path.as_os_str(), watchdog).unwrap()
    }

    /// The next datagram within that time.
    fn within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 8192];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn next(&self) -> String {
        self.within(PATIENCE).unwrap()
    }
}

fn monotonic_micros() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

#[test]
fn datagrams_are_exact() {
    let manager = Manager::new();
    let notifier = manager.notifier(None);
    notifier.ready("2 pipelines");
    assert_eq!(manager.next(), "READY=1\nSTATUS=2 pipelines");
    let before = monotonic_micros();
    notifier.reloading();
    let after = monotonic_micros();
    let message = manager.next();
    let micros: i128 = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=after).contains(&micros), "{before} {micros} {after}");
    notifier.status("first\nREADY=1\r\nlast");
    assert_eq!(manager.next(), "STATUS=first READY=1  last", "a line feed must not smuggle in another key");
    notifier.feed();
    assert_eq!(manager.next(), "WATCHDOG=1");
    notifier.stopping();
    assert_eq!(manager.next(), "STOPPING=1");
}

#[test]
fn a_long_status_is_cut_between_characters() {
    let manager = Manager::new();
    manager.notifier(None).status(&"ñ".repeat(3000));
    // "ñ" is two bytes.
    assert_eq!(manager.next(), format!("STATUS={}", "ñ".repeat(1024)));
    manager.notifier(None).status(&format!("x{}", "ñ".repeat(3000)));
    assert_eq!(manager.next(), format!("STATUS=x{}", "ñ".repeat(1023)));
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_socket_works_too() {
    use std::os::linux::net::SocketAddrExt as _;

    let name = format!("acequia-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Notifier::new(format!("@{name}").as_ref(), None).unwrap().stopping();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"STOPPING=1");
}

#[test]
fn a_socket_that_is_made_anew_is_found_again() {
    let manager = Manager::new();
    let notifier = manager.notifier(None);
    let Manager { socket, path, _folder } = manager;
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    notifier.feed(); // Lost, and no more than that.
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = Manager { socket, path, _folder };
    notifier.stopping();
    assert_eq!(manager.next(), "STOPPING=1");
}

#[test]
fn addresses_that_are_none() {
    for wrong in ["", "@", "relative/path", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
        assert!(Notifier::new(wrong.as_ref(), None).is_err(), "{wrong}");
    }
}

#[test]
fn the_watchdogs_interval() {
    let interval = |usec, pid| watchdog_interval(usec, pid, 77);
    assert_eq!(interval(Some("30000000"), Some("77")), Some(Duration::from_secs(30)));
    assert_eq!(interval(Some("30000000"), None), Some(Duration::from_secs(30)));
    assert_eq!(interval(Some("30000000"), Some("78")), None, "another process is meant");
    assert_eq!(interval(Some("30000000"), Some("")), None);
    assert_eq!(interval(Some("0"), None), None);
    assert_eq!(interval(Some("-1"), None), None);
    assert_eq!(interval(None, Some("77")), None);
}

/// The environment is one for all tests of a process, so this test starts itself again as the daemon.
#[test]
fn from_the_environment() {
    const ROLE: &str = "ACEQUIA_TEST_AS_DAEMON";
    if env::var_os(ROLE).is_some() {
        let notifier = Notifier::from_env().unwrap();
        // SAFETY: this process runs this one test, and the thread of the test harness does nothing but wait for it.
        unsafe { clear_env() };
        assert!(Notifier::from_env().is_none());
        let left: Vec<_> = env::vars().filter(|(name, _)| name.starts_with("WATCHDOG_")).collect();
        notifier.ready(&format!("{:?} {left:?}", notifier.watchdog_interval()));
        return;
    }
    let manager = Manager::new();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "daemon::systemd::tests::from_the_environment"])
        .env(ROLE, "1")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "1500000")
        .env_remove("WATCHDOG_PID")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(manager.next(), "READY=1\nSTATUS=Some(1.5s) []");
}

#[test]
fn the_daemon_in_one_line() {
    let (board, _requests) = Board::new();
    assert_eq!(summary(&board), "0 pipelines; 0 rows in, 0 dead");
    for (name, state) in [("a", State::Running), ("b", State::Running), ("c", State::Retrying)] {
        let status = board.status_of(name);
        status.enter(state);
        status.arrange(&["source".into(), "sink".into()]);
        status.stage("source").add(Counts { rows_in: 10, rows_out: 9, dead: 1, ..Counts::default() });
        status.stage("sink").add(Counts { rows_in: 9, rows_out: 8, dead: 1, ..Counts::default() });
    }
    assert_eq!(summary(&board), "3 pipelines: 2 running, 1 retrying; 30 rows in, 6 dead");
    board.set_pass(Pass { errors: vec![("d.toml".into(), "wrong".into())], ..Pass::default() });
    assert_eq!(summary(&board), "3 pipelines: 2 running, 1 retrying; 30 rows in, 6 dead; 1 file is not usable");
}

#[test]
fn what_counts_as_hanging() {
    let (board, _requests) = Board::new();
    let wait = |age: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !age() {
            assert!(start.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    };
    let limit = Duration::from_millis(50);
    let ages = || board.heartbeat_age() > limit;
    wait(&ages);
    assert_eq!(stuck(&board, limit), None, "it is still starting");
    board.set_ready(true);
    assert_eq!(stuck(&board, limit).as_deref(), Some("the supervisor"));
    assert_eq!(stuck(&board, PATIENCE), None);
    board.beat();
    assert!(board.heartbeat_age() < PATIENCE / 2);

    let status = board.status_of("a");
    status.enter(State::Running);
    board.beat();
    assert_eq!(stuck(&board, PATIENCE), None, "it has not come round for the first time yet");
    status.alive();
    wait(&|| status.silent_for() > Some(Duration::from_millis(1)));
    board.beat();
    assert_eq!(board.hung(1), ["a"]);
    board.status_of("b").enter(State::Running);
    board.status_of("b").alive();
    assert_eq!(stuck(&board, PATIENCE), None);
    status.enter(State::Retrying);
    assert!(board.hung(0).iter().all(|name| name == "b"), "who waits to try again does not hang");
    board.set_ready(false);
    assert_eq!(stuck(&board, Duration::ZERO), None, "it is on its way out");
}

#[test]
fn the_watchdog_is_fed_by_progress_only() {
    let manager = Manager::new();
    let interval = Duration::from_millis(300);
    let notifier = Arc::new(manager.notifier(Some(interval)));
    let (board, _requests) = Board::new();
    let status = board.status_of("a");
    status.enter(State::Running);
    board.set_ready(true);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = runtime.spawn(watchdog(notifier, board.clone(), async {
        let _ = stopped.await;
    }));

    // As long as both come round, it is fed, and the status is shown once, for it does not change.
    let come_round = || {
        board.beat();
        status.alive();
    };
    let feed = |seen: &mut Vec<String>| {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            come_round();
            if let Some(message) = manager.within(Duration::from_millis(20)) {
                seen.push(message);
                if seen.last().is_some_and(|last| last == "WATCHDOG=1") {
                    return;
                }
            }
        }
        panic!("not fed: {seen:?}");
    };
    let mut seen = Vec::new();
    for _ in 0..5 {
        feed(&mut seen);
    }
    let shown: Vec<_> = seen.iter().filter(|message| message.starts_with("STATUS=1 pipeline: 1 running; ")).collect();
    assert!(!shown.is_empty(), "{seen:?}");

    // The pipeline hangs; the supervisor goes on. The last that is heard names the pipeline, then there is silence for
    // several intervals.
    let mut last = String::new();
    let mut quiet = Instant::now();
    while quiet.elapsed() < interval * 4 {
        board.beat();
        if let Some(message) = manager.within(Duration::from_millis(20)) {
            quiet = Instant::now();
            last = message;
        }
    }
    assert_eq!(last, "STATUS=pipeline a does not come round; 1 pipeline: 1 running; 0 rows in, 0 dead");

    // It comes round again, and so does the feeding.
    feed(&mut Vec::new());

    stop.send(()).unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, task).await }).unwrap().unwrap();
}
