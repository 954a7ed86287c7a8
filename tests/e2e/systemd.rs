//! systemd's notify protocol, over a real socket that a real daemon writes to; the unit's checks.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use acequia_tests::{Daemon, PATIENCE, workspace};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

const PIPELINE: &str = "[source]\ntype = \"rate\"\nrows_per_second = 100\n[[sink]]\ntype = \"blackhole\"\n";

/// systemd's end of the line.
struct Manager(UnixDatagram);

impl Manager {
    /// A daemon that is told of it.
    fn new() -> (Self, Daemon) {
        let daemon = Daemon::new();
        let path = daemon.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Manager(socket), daemon.env("NOTIFY_SOCKET", &path.display().to_string()))
    }

    fn next(&self) -> String {
        let mut buffer = [0; 8192];
        let length = self.0.recv(&mut buffer).expect("the daemon says something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next message that begins so. What comes before it may only be a status or food for the watchdog.
    fn expect(&self, start: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(start) {
                return message;
            }
            let harmless = message.starts_with("STATUS=") || message == "WATCHDOG=1";
            assert!(harmless, "{message} before {start}");
        }
    }
}

fn monotonic_micros() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

#[test]
fn ready_reloading_ready_stopping() {
    let (manager, mut daemon) = Manager::new();
    daemon.pipeline("numbers", PIPELINE);
    daemon.pipeline("broken", "[source]\n");
    daemon.spawn(&["--listen", "127.0.0.1:0"]);
    // The very first message, and only after the first pass: the broken file is known.
    let ready = manager.next();
    assert!(ready.starts_with("READY=1\nSTATUS=2 pipelines: 1 failed, "), "{ready}");
    assert!(ready.ends_with("; 1 file is not usable"), "{ready}");
    daemon.wait_ready();

    for reload in 0..2 {
        let before = monotonic_micros();
        if reload == 0 {
            daemon.signal(Signal::HUP);
        } else {
            assert_eq!(daemon.rest().reload().0, 422);
        }
        let message = manager.expect("RELOADING=1");
        let after = monotonic_micros();
        let micros: i128 = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=after).contains(&micros), "{before} {micros} {after}");
        // Between the two a pipeline may come up, which is told too.
        assert!(manager.expect("READY=1").starts_with("READY=1\nSTATUS="), "a reload ends in READY");
    }

    // A change that the daemon sees by itself is told in the status.
    std::fs::remove_file(daemon.pipelines().join("broken.toml")).unwrap();
    while !manager.expect("STATUS=").starts_with("STATUS=1 pipeline: 1 running") {}

    daemon.signal(Signal::TERM);
    assert_eq!(manager.expect("STOPPING=1"), "STOPPING=1");
    assert_eq!(daemon.wait_exit().code, Some(0));
}

#[test]
fn the_watchdog_is_fed_while_rows_flow_and_while_they_do_not() {
    let (manager, daemon) = Manager::new();
    let interval = Duration::from_millis(1500);
    let mut daemon = daemon.env("WATCHDOG_USEC", &interval.as_micros().to_string());
    daemon.pipeline("numbers", PIPELINE);
    // One that waits for a server which is not there is no reason to be killed.
    daemon.pipeline("waits", "[source]\ntype = \"socket\"\nunix = \"gone.sock\"\n[[sink]]\ntype = \"blackhole\"\n");
    daemon.spawn(&[]);
    manager.expect("READY=1");
    let mut last = Instant::now();
    for _ in 0..8 {
        manager.expect("WATCHDOG=1");
        assert!(last.elapsed() < interval, "fed after {:?} only", last.elapsed());
        last = Instant::now();
    }
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let (manager, daemon) = Manager::new();
    let mut daemon = daemon.env("WATCHDOG_USEC", "30000").env("WATCHDOG_PID", "1");
    daemon.pipeline("numbers", PIPELINE);
    daemon.spawn(&["--listen", "127.0.0.1:0"]);
    manager.expect("READY=1");
    daemon.wait_ready();
    daemon.wait_state("numbers", "RUNNING");
    daemon.signal(Signal::TERM);
    loop {
        let message = manager.next();
        assert_ne!(message, "WATCHDOG=1");
        if message == "STOPPING=1" {
            break;
        }
    }
    assert_eq!(daemon.wait_exit().code, Some(0));
}

/// systemd's own checks of the unit, where there is systemd.
#[test]
fn the_unit_is_clean() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: this machine has no systemd-analyze");
        return;
    }
    let output = Command::new(workspace().join("packaging/check.sh")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let level = text.split("acequia.service: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let level: f64 = level.unwrap().parse().unwrap();
    println!("packaging/check.sh: exposure {level}");
    assert!(level < 3.0);
}
