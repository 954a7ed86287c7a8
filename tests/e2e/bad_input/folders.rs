//! Folders that can't be read. (Rights are no way to test that: the tests may run as root, whom they don't bind. What
//! follows is the same to the daemon: the folder can't be opened.)

use std::os::unix::fs::symlink;

use acequia_tests::{Daemon, rows, values_of, wait_until};

use super::{steady, validate};

const RATE: &str = r#"
source = { type = "rate", rows_per_second = 500 }
sink = [{ type = "file", path = "OUT/rate.jsonl" }]
"#;

#[test]
fn a_folder_that_can_not_be_read_stops_nothing() {
    let daemon = Daemon::new();
    daemon.pipeline("rate", RATE);
    // A link to nowhere, and a file in place of a folder.
    let (link, target) = (daemon.folder().join("more"), daemon.folder().join("target"));
    symlink(&target, &link).unwrap();
    let below = daemon.file("file", "").join("pipelines");
    let mut daemon = daemon.arg(&link.display().to_string()).arg(&below.display().to_string());

    let output = validate(&link, &[]);
    assert_eq!(output.status.code(), Some(1));
    let mut seen = String::from_utf8_lossy(&output.stderr).into_owned();
    let output = validate(&below, &[]);
    assert_eq!(output.status.code(), Some(1));
    seen.push_str(&String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!("folders", steady(&daemon, &seen));

    daemon.start();
    daemon.wait_rows("rate.jsonl", 100);
    let (code, answer) = daemon.rest().reload();
    assert!(answer.to_string().contains("can't be read"), "{code} {answer}");
    let log = daemon.stderr();
    for path in [&link, &below] {
        assert!(log.lines().any(|line| line.contains(&path.display().to_string())), "the log names it: {log}");
    }

    // The folder appears: it is found.
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("late.toml"), daemon.expand(&RATE.replace("rate.jsonl", "late.jsonl"))).unwrap();
    daemon.wait_rows("late.jsonl", 100);

    // Both folders vanish: what runs goes on.
    let away = daemon.folder().join("away");
    std::fs::rename(daemon.pipelines(), &away).unwrap();
    std::fs::remove_file(&link).unwrap();
    daemon.rest().reload();
    for file in ["rate.jsonl", "late.jsonl"] {
        let before = rows(&daemon.out(file));
        daemon.wait_rows(file, before + 100);
    }
    assert_eq!(daemon.status("rate")["acequia"]["generation"], 1);
    assert_eq!(daemon.status("rate")["acequia"]["restarts"], 0);

    // And come back, one of them without its pipeline.
    std::fs::rename(&away, daemon.pipelines()).unwrap();
    std::fs::remove_file(target.join("late.toml")).unwrap();
    symlink(&target, &link).unwrap();
    wait_until("the pipeline without a file is gone", || daemon.status("late").is_null());
    assert_eq!(daemon.status("rate")["acequia"]["generation"], 1);
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("rate.jsonl"), "value");
    assert!((0..).zip(&values).all(|(place, value)| place == *value));
}
