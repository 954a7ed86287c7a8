//! One pipeline's trouble never stops another, nor the daemon, and passes by itself (invariant 6).

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::Instant;

use acequia_tests::{Daemon, json_lines, rows, values_of, wait_until};

const NEIGHBOUR: &str = r#"
[source]
type = "rate"
rows_per_second = 500

[[sink]]
type = "file"
path = "OUT/neighbour.jsonl"
"#;

fn neighbour_flows(daemon: &Daemon) {
    let before = rows(&daemon.out("neighbour.jsonl"));
    daemon.wait_rows("neighbour.jsonl", before + 100);
    assert_eq!(daemon.status("neighbour")["acequia"]["state"], "RUNNING");
}

#[test]
fn a_sink_that_can_not_be_written() {
    let mut daemon = Daemon::new();
    // A file where a folder must be: even root can't write there.
    fs::write(daemon.out("blocked"), "").unwrap();
    let text = NEIGHBOUR.replace("neighbour.jsonl", "blocked/numbers.jsonl");
    daemon.pipeline("numbers", &text);
    daemon.pipeline("neighbour", NEIGHBOUR);
    daemon.start();
    let status = daemon.wait_state("numbers", "RETRYING");
    assert_eq!(status["connector"]["state"], "RESTARTING");
    let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
    assert!(error.contains("file: ") && error.contains("blocked"), "{error}");
    neighbour_flows(&daemon);
    // A reload is not held up by it (and takes effect).
    let asked = Instant::now();
    daemon.pipeline("numbers", &text.replace("500", "400"));
    wait_until("the new version is there", || daemon.status("numbers")["acequia"]["generation"] == 2);
    println!("a reload behind a sink that retries took {:.1?}", asked.elapsed());
    daemon.wait_state("numbers", "RETRYING");
    fs::remove_file(daemon.out("blocked")).unwrap();
    daemon.wait_rows("blocked/numbers.jsonl", 100);
    // The trouble is over, and not forgotten.
    wait_until("the first error is history", || daemon.status("numbers")["acequia"]["first_error"].is_null());
    let status = daemon.status("numbers");
    assert_eq!(status["connector"]["state"], "RUNNING");
    assert!(status["acequia"]["restarts"].as_u64() > Some(0));
    assert!(status["acequia"]["last_error"]["message"].as_str().unwrap().contains("blocked"));
    neighbour_flows(&daemon);
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("blocked/numbers.jsonl"), "value");
    assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
}

#[test]
fn a_socket_that_can_not_be_reached() {
    let mut daemon = Daemon::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    daemon.pipeline("neighbour", NEIGHBOUR);
    daemon.pipeline(
        "lines",
        &format!("[source]\ntype = \"socket\"\naddress = \"{address}\"\n[[sink]]\ntype = \"file\"\npath = \"OUT/lines.jsonl\"\n"),
    );
    daemon.start();
    let status = daemon.wait_state("lines", "RETRYING");
    let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
    assert!(error.contains(&format!("can't connect to {address}")) && error.contains("refused"), "{error}");
    neighbour_flows(&daemon);
    // The server comes up: all is well before it has said anything.
    let listener = TcpListener::bind(address).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    daemon.wait_state("lines", "RUNNING");
    wait_until("the first error is history", || daemon.status("lines")["acequia"]["first_error"].is_null());
    peer.write_all(b"one\n").unwrap();
    daemon.wait_rows("lines.jsonl", 1);
    // It goes away in the middle, and comes back.
    drop((peer, listener));
    daemon.wait_state("lines", "RETRYING");
    neighbour_flows(&daemon);
    let listener = TcpListener::bind(address).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"two\n").unwrap();
    daemon.wait_rows("lines.jsonl", 2);
    daemon.wait_state("lines", "RUNNING");
    assert_eq!(daemon.stop().code, Some(0));
    let lines: Vec<_> = json_lines(&daemon.out("lines.jsonl")).iter().map(|row| row["value"].clone()).collect();
    assert_eq!(lines, ["one", "two"]);
}

/// At the daemon's start everything may be wrong, and one of ten right.
#[test]
fn whatever_is_wrong_at_the_start_the_right_one_runs() {
    let mut daemon = Daemon::new();
    let wrong = [
        ("syntax", "[source\n"),
        ("nothing", ""),
        ("source", "[source]\ntype = \"rat\"\n[[sink]]\ntype = \"blackhole\"\n"),
        ("sink", "[source]\ntype = \"rate\"\n[[sink]]\ntype = \"blackhol\"\n"),
        ("key", "[source]\ntype = \"rate\"\nrow = 1\n[[sink]]\ntype = \"blackhole\"\n"),
        (
            "plugin",
            "[source]\ntype = \"rate\"\n[[transform]]\nplugin = \"evenfilter\"\n[[sink]]\ntype = \"blackhole\"\n",
        ),
        ("state", "[source]\ntype = \"file\"\npath = \"DIR/gone.json\"\n[[sink]]\ntype = \"blackhole\"\n"),
    ];
    for (name, text) in wrong {
        daemon.pipeline(name, text);
    }
    fs::write(daemon.pipelines().join("binary.toml"), [0, 159, 146, 150]).unwrap();
    std::os::unix::fs::symlink("nowhere", daemon.pipelines().join("dangling.toml")).unwrap();
    daemon.pipeline("neighbour", NEIGHBOUR);
    daemon.start();
    neighbour_flows(&daemon);
    for name in ["syntax", "nothing", "source", "sink", "key", "plugin", "binary", "dangling"] {
        let status = daemon.wait_state(name, "FAILED");
        let error = status["connector"]["trace"].as_str().unwrap();
        assert!(error.contains(&format!("{name}.toml")), "{name}: {error}");
    }
    daemon.wait_state("state", "RETRYING");
    let log = daemon.stderr();
    for nearest in ["`rate`", "`blackhole`", "`rows`", "even-filter"] {
        assert!(log.contains(nearest), "{nearest} in {log}");
    }
    // What has a file is not forgotten when it is mended.
    daemon.pipeline("source", &NEIGHBOUR.replace("neighbour", "mended"));
    daemon.wait_rows("mended.jsonl", 10);
    daemon.wait_state("source", "RUNNING");
    assert_eq!(daemon.stop().code, Some(0));
}
