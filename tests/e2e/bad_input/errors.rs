//! What becomes of rows that fail: `on_error`, and dead letters in any sink.

use acequia_tests::{Account, Daemon, json_lines, values_of, wait_until};

use super::steady;

/// 1000 rows, of which every tenth is broken.
const ROWS: u64 = 1000;

fn lines() -> String {
    (1..=ROWS).map(|n| if n % 10 == 0 { format!("{{\"n\":{n}\n") } else { format!("{{\"n\":{n}}}\n") }).collect()
}

fn good() -> Vec<i64> {
    (1..=ROWS as i64).filter(|n| n % 10 != 0).collect()
}

fn pipeline(name: &str, errors: &str) -> String {
    format!(
        r#"
        source = {{ type = "file", path = "../in.jsonl" }}
        sink = [{{ type = "file", path = "OUT/{name}.jsonl" }}]
        delivery = {{ batch = {{ rows = 64 }}, checkpoint_interval = "10ms" }}
        {errors}
        "#
    )
}

#[test]
fn skip_counts_and_goes_on() {
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines());
    daemon.pipeline("skip", &pipeline("skip", "errors = { on_error = \"skip\" }"));
    daemon.start();
    let account = Account::of(&daemon.wait_state("skip", "COMPLETED"));
    account.check("file", false);
    assert_eq!((account.stage("source").rows_in, account.dead()), (ROWS, ROWS / 10));
    assert_eq!(values_of(&daemon.out("skip.jsonl"), "n"), good());
    assert!(!daemon.dead_letters("skip").exists());
    let log = daemon.stderr();
    assert!(log.contains("in.jsonl, row 10: ") && log.contains("are skipped"), "{log}");
    assert_eq!(daemon.stop().code, Some(0));
    // In a batch job the exit code tells.
    std::fs::remove_dir_all(daemon.folder().join("state")).unwrap();
    assert_eq!(daemon.once().code, Some(3));
}

#[test]
fn stop_stops_before_the_row_until_it_is_mended() {
    let mut daemon = Daemon::new();
    let broken = (1..=ROWS).map(|n| if n == 500 { "{\"n\":\n".to_owned() } else { format!("{{\"n\":{n}}}\n") });
    daemon.file("in.jsonl", broken.collect::<String>());
    daemon.pipeline("stop", &pipeline("stop", "errors = { on_error = \"stop\" }"));
    daemon.start();
    let status = daemon.wait_state("stop", "STOPPED");
    insta::assert_snapshot!(
        "errors_stop",
        steady(&daemon, status["acequia"]["last_error"]["message"].as_str().unwrap())
    );
    assert_eq!(status["connector"]["state"], "FAILED", "so that a Connect client sees it");
    let values = values_of(&daemon.out("stop.jsonl"), "n");
    assert!((1..500).zip(&values).all(|(n, value)| n == *value) && values.len() < 500, "{values:?}");

    // Another start changes nothing: the row is still there, and no row comes twice.
    assert_eq!(daemon.stop().code, Some(0));
    daemon.start();
    daemon.wait_state("stop", "STOPPED");
    assert!(values_of(&daemon.out("stop.jsonl"), "n").len() < 500);

    // The row is mended in place, and the file of the pipeline touched.
    daemon.file("in.jsonl", (1..=ROWS).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>());
    daemon.pipeline("stop", &pipeline("stop", "errors = { on_error = \"skip\" }"));
    daemon.wait_state("stop", "COMPLETED");
    let values = values_of(&daemon.out("stop.jsonl"), "n");
    assert_eq!(values.last(), Some(&(ROWS as i64)));
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn dead_letters_go_to_any_sink() {
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines());
    let kinds = [
        ("json", "type = \"file\", path = \"OUT/dead-json.jsonl\""),
        ("csv", "type = \"file\", path = \"OUT/dead-csv.csv\""),
        ("text", "type = \"file\", path = \"OUT/dead-text.txt\", format = \"text\", value = \"error\""),
        ("console", "type = \"console\", format = \"json\""),
        ("blackhole", "type = \"blackhole\""),
    ];
    for (name, table) in kinds {
        daemon.pipeline(name, &pipeline(name, &format!("errors = {{ dead_letter = {{ {table} }} }}")));
    }
    daemon.start();
    for (name, _) in kinds {
        let account = Account::of(&daemon.wait_state(name, "COMPLETED"));
        account.check("file", true);
        assert_eq!(account.dead(), ROWS / 10, "{name}");
        assert_eq!(values_of(&daemon.out(&format!("{name}.jsonl")), "n"), good());
        assert!(!daemon.dead_letters(name).exists());
    }
    let expected: Vec<i64> = (1..=ROWS as i64).filter(|n| n % 10 == 0).collect();
    assert_eq!(values_of(&daemon.out("dead-json.jsonl"), "offset"), expected);
    let csv = std::fs::read_to_string(daemon.out("dead-csv.csv")).unwrap();
    assert_eq!(csv.lines().next(), Some("time,pipeline,stage,partition,offset,error,row"));
    assert_eq!(csv.lines().count(), 101);
    assert_eq!(std::fs::read_to_string(daemon.out("dead-text.txt")).unwrap().lines().count(), 100);
    assert_eq!(daemon.stdout().lines().filter(|line| line.contains("\"pipeline\":\"console\"")).count(), 100);
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn a_dead_letter_that_can_not_be_written_holds_the_pipeline_up() {
    let mut daemon = Daemon::new();
    daemon.file("in.jsonl", lines());
    daemon.file("a-file", "");
    daemon.pipeline(
        "no-place",
        &pipeline("no-place", "errors = { dead_letter = { type = \"file\", path = \"../a-file/dead.jsonl\" } }"),
    );
    // A CSV file can't take columns that are not in its header.
    std::fs::write(daemon.out("other.csv"), "a,b\n1,2\n").unwrap();
    daemon.pipeline(
        "no-column",
        &pipeline("no-column", "errors = { dead_letter = { type = \"file\", path = \"OUT/other.csv\" } }"),
    );
    daemon.start();
    let mut seen = String::new();
    for name in ["no-place", "no-column"] {
        wait_until("it has tried more than once", || daemon.status(name)["acequia"]["restarts"].as_u64() > Some(1));
        let status = daemon.status(name);
        assert_ne!(status["acequia"]["state"], "COMPLETED");
        let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
        seen.push_str(&format!("{name}: {}\n", steady(&daemon, error)));
    }
    insta::assert_snapshot!("errors_letters", seen);

    // There is a place now.
    std::fs::remove_file(daemon.folder().join("a-file")).unwrap();
    let account = Account::of(&daemon.wait_state("no-place", "COMPLETED"));
    account.check("file", true);
    assert_eq!(account.dead(), ROWS / 10);
    assert_eq!(json_lines(&daemon.folder().join("a-file/dead.jsonl")).len(), 100);
    assert_eq!(values_of(&daemon.out("no-place.jsonl"), "n"), good());
    assert_eq!(std::fs::read_to_string(daemon.out("other.csv")).unwrap(), "a,b\n1,2\n");
    daemon.pipeline("no-column", &pipeline("no-column", ""));
    let account = Account::of(&daemon.wait_state("no-column", "COMPLETED"));
    account.check("file", true);
    assert_eq!(values_of(&daemon.out("no-column.jsonl"), "n"), good());
    assert_eq!(json_lines(&daemon.dead_letters("no-column")).len(), 100, "none has vanished");
    assert_eq!(daemon.stop().code, Some(0));
}
