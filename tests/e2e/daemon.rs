//! The daemon as a process: signals, its state folder, what two pipelines can't both have, what it counts.

use std::fs;

use acequia_tests::{Daemon, json_lines, rows, run, values_of, wait_until};
use rustix::process::Signal;

const RATE: &str = r#"
[source]
type = "rate"
rows_per_second = 2000

[[sink]]
type = "file"
path = "OUT/numbers.jsonl"
"#;

#[test]
fn sigterm_and_sigint_drain_and_checkpoint() {
    let mut daemon = Daemon::new();
    // Without the last one there would be no checkpoint after the first.
    daemon.pipeline("numbers", &format!("{RATE}\n[delivery]\ncheckpoint_interval = \"1h\"\n"));
    let out = daemon.out("numbers.jsonl");
    let mut before = 0;
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        daemon.start();
        daemon.wait_rows("numbers.jsonl", before + 500);
        // All that was there at the last stop is there.
        assert!(rows(&out) > before);
        daemon.signal(signal);
        let exit = daemon.wait_exit();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(exit.stderr.contains("stopping: delivering what is in flight") && exit.stderr.contains("stopped"));
        assert!(!exit.stderr.contains("could not be delivered in time"), "{}", exit.stderr);
        let values = values_of(&out, "value");
        assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
        assert!(values.len() >= before + 500);
        before = values.len();
    }
}

#[test]
fn sighup_reloads_and_a_hail_of_it_does_no_harm() {
    let mut daemon = Daemon::new();
    daemon.pipeline("numbers", RATE);
    daemon.start();
    daemon.wait_rows("numbers.jsonl", 10);
    let passes = |daemon: &Daemon| daemon.rest().get("/ready").unwrap()["passes"].as_u64().unwrap();
    for _ in 0..200 {
        daemon.signal(Signal::HUP);
    }
    let before = passes(&daemon);
    daemon.signal(Signal::HUP);
    wait_until("another pass", || passes(&daemon) > before);
    daemon.pipeline("more", &RATE.replace("numbers.jsonl", "more.jsonl"));
    daemon.signal(Signal::HUP);
    daemon.wait_rows("more.jsonl", 10);
    assert_eq!(daemon.status("numbers")["acequia"]["generation"], 1);
    assert!(daemon.is_running());
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("numbers.jsonl"), "value");
    assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let mut first = Daemon::new();
    first.pipeline("numbers", RATE);
    first.start();
    let state = first.folder().join("state").display().to_string();
    let refused = run(&["run", &first.pipelines().display().to_string(), "--state", &state]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let pid = first.pid().to_string();
    for part in [state.as_str(), pid.as_str(), "is in use by process", "--state"] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
    assert!(first.is_running());
    // Whoever holds it may be killed: the folder is free at once.
    first.kill();
    first.start();
    assert_eq!(first.stop().code, Some(0));
}

#[test]
fn the_state_of_a_plugin_survives_a_restart() {
    let mut daemon = Daemon::new();
    daemon.file("lines.txt", "a b a\n".repeat(1000));
    let text = r#"
[source]
type = "file"
path = "DIR/lines.txt"
format = "text"
follow = true

[[transform]]
plugin = "word-count"

[[sink]]
type = "file"
path = "OUT/words.jsonl"
"#;
    daemon.pipeline("words", text);
    let last = |daemon: &Daemon| {
        let rows = json_lines(&daemon.out("words.jsonl"));
        let of = |word: &str| rows.iter().rfind(|row| row["word"] == word).and_then(|row| row["count"].as_i64());
        (of("a"), of("b"))
    };
    daemon.start();
    wait_until("all words are counted", || last(&daemon) == (Some(2000), Some(1000)));
    assert_eq!(daemon.stop().code, Some(0));
    let path = daemon.folder().join("lines.txt");
    let mut lines = fs::read_to_string(&path).unwrap();
    lines.push_str(&"b\n".repeat(10));
    fs::write(&path, &lines).unwrap();
    daemon.start();
    wait_until("the new words are added to the old totals", || last(&daemon) == (Some(2000), Some(1010)));
    let seen = daemon.status("words")["acequia"]["stages"][0]["rows_in"].as_u64();
    assert_eq!(seen, Some(1010), "counts go on too");
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn several_sinks_get_every_row() {
    let mut daemon = Daemon::new();
    let text = r#"
[source]
type = "rate"
rows_per_second = "max"
rows = 100000

[[transform]]
plugin = "even-filter"

[[sink]]
type = "file"
path = "OUT/a.jsonl"

[[sink]]
type = "file"
path = "OUT/b.csv"

[[sink]]
type = "file"
path = "OUT/c.txt"
format = "text"
value = "value"

[[sink]]
type = "blackhole"
"#;
    daemon.pipeline("several", text);
    assert_eq!(daemon.once().code, Some(0));
    let expected: Vec<i64> = (0..100_000).step_by(2).collect();
    assert_eq!(values_of(&daemon.out("a.jsonl"), "value"), expected);
    let csv = fs::read_to_string(daemon.out("b.csv")).unwrap();
    let (header, csv) = csv.split_once('\n').unwrap();
    assert_eq!(header, "value,timestamp");
    let first = |line: &str| line.split(',').next().unwrap().parse::<i64>().unwrap();
    assert!(csv.lines().map(first).eq(expected.iter().copied()));
    let text = fs::read_to_string(daemon.out("c.txt")).unwrap();
    assert!(text.lines().map(first).eq(expected.iter().copied()));
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let mut daemon = Daemon::new().prelude("ulimit -Sn 40");
    for number in 0..60 {
        daemon.pipeline(&format!("p{number}"), &RATE.replace("numbers", &format!("p{number}")));
    }
    daemon.start();
    for number in 0..60 {
        daemon.wait_rows(&format!("p{number}.jsonl"), 1);
    }
    assert_eq!(daemon.stop().code, Some(0));
}

/// Of two that want one file the first keeps it, also if the other one comes first in the alphabet. When it goes, the other
/// one gets it.
#[test]
fn two_pipelines_that_write_one_file() {
    let mut daemon = Daemon::new();
    daemon.pipeline("numbers", RATE);
    daemon.start();
    daemon.wait_rows("numbers.jsonl", 10);
    // By another way to the same file.
    daemon.pipeline("another", &RATE.replace("OUT/numbers.jsonl", "../out/../out/numbers.jsonl"));
    let status = daemon.wait_state("another", "FAILED");
    let error = status["acequia"]["last_reload"]["error"].as_str().unwrap();
    for part in ["another.toml:6:1", "numbers.jsonl", "numbers"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let (code, body) = daemon.rest().reload();
    assert_eq!(code, 422);
    assert!(body["errors"][0]["file"].as_str().unwrap().ends_with("/another.toml"), "{body}");
    let before = rows(&daemon.out("numbers.jsonl"));
    daemon.wait_rows("numbers.jsonl", before + 100);
    assert_eq!(daemon.status("numbers")["acequia"]["state"], "RUNNING");
    fs::remove_file(daemon.pipelines().join("numbers.toml")).unwrap();
    daemon.wait_state("another", "RUNNING");
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn two_pipelines_that_listen_on_one_port() {
    let mut daemon = Daemon::new();
    // Bound and let go: free most likely, and of two pipelines only one can have it in any case.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = |name: &str| {
        format!(
            "[source]\ntype = \"socket\"\naddress = \"127.0.0.1:{port}\"\nlisten = true\n\n\
             [[sink]]\ntype = \"file\"\npath = \"OUT/{name}.jsonl\"\n"
        )
    };
    daemon.pipeline("one", &text("one"));
    daemon.pipeline("two", &text("two"));
    daemon.start();
    daemon.wait_state("one", "RUNNING");
    let status = daemon.wait_state("two", "FAILED");
    let error = status["acequia"]["last_reload"]["error"].as_str().unwrap();
    for part in ["two.toml:1:1", &format!("127.0.0.1:{port}"), "one"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut client, b"hello\n").unwrap();
    daemon.wait_rows("one.jsonl", 1);
    drop(client);
    // The first one moves to another port, and the second one gets this one, in one pass.
    daemon.pipeline("one", &text("one").replace(&port.to_string(), "0"));
    daemon.wait_state("two", "RUNNING");
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut client, b"hello\n").unwrap();
    daemon.wait_rows("two.jsonl", 1);
    assert_eq!(daemon.stop().code, Some(0));
}
