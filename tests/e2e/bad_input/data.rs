//! Files that are not there, or not any more.

use acequia_tests::{Account, Daemon, json_lines};
use serde_json::{Value, json};

use super::steady;

fn numbers(rows: impl IntoIterator<Item = u64>) -> Vec<Value> {
    rows.into_iter().map(|n| json!({ "n": n })).collect()
}

/// A pipeline that takes 100 ms for each row of `path`, since its plugin is ended by its time limit; so there is time to
/// do something in the middle. Every row of it is dead.
fn slowly(path: &str) -> String {
    format!(
        r#"
        source = {{ type = "file", path = "{path}" }}
        transform = [{{ plugin = "evil", config = {{ mode = "loop", column = "n" }}, limits = {{ time = "100ms" }} }}]
        sink = [{{ type = "file", path = "OUT/slow.jsonl" }}]
        delivery = {{ batch = {{ rows = 1 }}, in_flight = 1, checkpoint_interval = "20ms" }}
        "#
    )
}

#[test]
fn a_file_that_vanishes_in_the_middle_is_waited_for() {
    let evil = acequia_tests::evil_plugin("evil");
    let mut daemon = Daemon::new().arg("--plugins").arg(&evil.parent().unwrap().display().to_string());
    std::fs::create_dir(daemon.folder().join("in")).unwrap();
    let lines = |from: u64, to: u64| (from..to).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    daemon.file("in/a.jsonl", lines(0, 20));
    daemon.file("in/b.jsonl", lines(20, 23));
    daemon.file("in/c.jsonl", lines(23, 25));
    daemon.pipeline("slow", &slowly("../in/*.jsonl"));
    daemon.start();
    let letters = |daemon: &Daemon| json_lines(&daemon.dead_letters("slow"));
    acequia_tests::wait_until("the first rows are through", || letters(&daemon).len() > 1);
    // One that is being read, and one that is not yet.
    assert!(letters(&daemon).len() < 15, "too late to be in the middle");
    std::fs::remove_file(daemon.folder().join("in/a.jsonl")).unwrap();
    std::fs::rename(daemon.folder().join("in/b.jsonl"), daemon.folder().join("in/b.away")).unwrap();
    let status = daemon.wait_state("slow", "RETRYING");
    let error = status["acequia"]["last_error"]["message"].as_str().unwrap();
    insta::assert_snapshot!("data_vanished", steady(&daemon, error));
    acequia_tests::wait_until("the open file is read to its end", || letters(&daemon).len() == 20);
    assert_eq!(daemon.status("slow")["acequia"]["restarts"], 0, "it is still the same run");

    std::fs::rename(daemon.folder().join("in/b.away"), daemon.folder().join("in/b.jsonl")).unwrap();
    let status = daemon.wait_state("slow", "COMPLETED");
    Account::of(&status).check("file", true);
    assert_eq!(Account::of(&status).stage("source").rows_in, 25);
    let rows: Vec<Value> =
        letters(&daemon).iter().map(|letter| serde_json::from_str(letter["row"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(rows, numbers(0..25));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn what_is_no_file_is_said_and_waited_for() {
    let mut daemon = Daemon::new();
    let cases = [
        ("missing", "../nothing.json"),
        ("no-match", "../nothing/*.json"),
        ("folder", "../out"),
        ("below-a-file", "../file/x.json"),
        ("device", "/dev/null"),
    ];
    daemon.file("file", "");
    for (name, path) in cases {
        daemon.pipeline(
            name,
            &format!(
                "source = {{ type = \"file\", path = \"{path}\" }}\n\
                 sink = [{{ type = \"file\", path = \"OUT/{name}.jsonl\" }}]\n"
            ),
        );
    }
    daemon.start();
    let mut seen = String::new();
    for (name, _) in cases {
        let status = daemon.wait_state(name, "RETRYING");
        let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
        seen.push_str(&format!("{name}: {}\n", steady(&daemon, error)));
    }
    insta::assert_snapshot!("data_no_file", seen);
    daemon.file("nothing.json", "[{\"n\":1}]");
    daemon.wait_state("missing", "COMPLETED");
    assert_eq!(json_lines(&daemon.out("missing.jsonl")), numbers([1]));
    assert_eq!(daemon.stop().code, Some(0));
}
