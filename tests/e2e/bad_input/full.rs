//! A disk that is full, by way of the limit on the size of a file, which the kernel enforces in the same place: it writes as
//! much as fits, and refuses the rest.

use acequia_tests::{Account, Daemon, json_lines, rows, values_of, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::steady;

/// How large a file of this daemon may become; `None`: as large as it likes.
fn limit(daemon: &Daemon, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_full_disk_is_waited_for_and_loses_nothing() {
    // The state's own file is smaller than this.
    const LIMIT: u64 = 8 << 20;
    const ROWS: i64 = 400_000;
    let mut daemon = Daemon::new();
    daemon.start();
    limit(&daemon, Some(LIMIT));
    daemon.pipeline(
        "sink",
        &format!(
            r#"
            source = {{ type = "rate", rows_per_second = "max", rows = {ROWS} }}
            sink = [{{ type = "file", path = "OUT/sink.jsonl" }}]
            "#
        ),
    );
    // Rows without end that can't be cast: their letters fill the disk.
    let lines: String = (0..40_000).map(|n| format!("row {n} is not a number {}\n", "x".repeat(100))).collect();
    daemon.file("in.txt", lines);
    daemon.pipeline(
        "letters",
        r#"
        source = { type = "file", path = "../in.txt", format = "text", schema = { value = "int64" } }
        sink = [{ type = "file", path = "OUT/letters.jsonl" }]
        "#,
    );
    daemon.pipeline(
        "neighbour",
        r#"
        source = { type = "rate", rows_per_second = 500 }
        sink = [{ type = "file", path = "OUT/neighbour.jsonl" }]
        "#,
    );
    let mut seen = String::new();
    for name in ["sink", "letters"] {
        let status = daemon.wait_state(name, "RETRYING");
        let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
        seen.push_str(&format!("{}\n", steady(&daemon, error)));
    }
    insta::assert_snapshot!("full", seen);
    let length = std::fs::metadata(daemon.out("sink.jsonl")).unwrap().len();
    assert!(length <= LIMIT);
    json_lines(&daemon.out("sink.jsonl"));
    let before = rows(&daemon.out("neighbour.jsonl"));
    daemon.wait_rows("neighbour.jsonl", before + 100);
    assert!(daemon.is_running());

    // There is room again: they go on by themselves, in the same run.
    limit(&daemon, None);
    for name in ["sink", "letters"] {
        let status = daemon.wait_state(name, "COMPLETED");
        assert_eq!(status["acequia"]["restarts"], 0);
        Account::of(&status).check("file", true);
    }
    assert!(values_of(&daemon.out("sink.jsonl"), "value").into_iter().eq(0..ROWS), "each row once, in order");
    assert!(values_of(&daemon.dead_letters("letters"), "offset").into_iter().eq(1..=40_000), "each letter once");
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn a_checkpoint_that_can_not_be_stored_confirms_nothing() {
    let mut daemon = Daemon::new();
    daemon.pipeline(
        "rate",
        r#"
        source = { type = "rate", rows_per_second = 500 }
        sink = [{ type = "file", path = "OUT/rate.jsonl" }]
        delivery = { checkpoint_interval = "20ms" }
        "#,
    );
    daemon.start();
    daemon.wait_rows("rate.jsonl", 100);
    // Smaller than any file it has: every write past this fails, the state's too.
    limit(&daemon, Some(1));
    wait_until("the trouble is seen", || {
        let status = daemon.status("rate");
        status["acequia"]["state"] == "RETRYING" && status["acequia"]["first_error"]["message"].is_string()
    });
    assert!(daemon.is_running());
    limit(&daemon, None);
    let before = rows(&daemon.out("rate.jsonl"));
    daemon.wait_rows("rate.jsonl", before + 200);
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("rate.jsonl"), "value");
    assert!((0..).zip(&values).all(|(n, value)| n == *value), "each row once, in order");
}
