//! Plugins with state that fail: no row is counted twice, none is left out, and no state is taken that is not right.

use acequia_tests::{Account, Daemon, json_lines, rows, values_of, wait_until};

use super::{Neighbour, daemon, log_lines, steady};

/// Endless, at a row each two milliseconds.
fn counting(name: &str, mode: &str) -> String {
    format!(
        r#"
        source = {{ type = "rate", rows_per_second = 500 }}
        transform = [{{ plugin = "evil-stateful", config = {{ mode = "{mode}" }} }}]
        sink = [{{ type = "file", path = "OUT/{name}.jsonl" }}]
        delivery = {{ checkpoint_interval = "20ms" }}
        "#
    )
}

/// Every row has come once, and its count is the number of rows up to it.
#[track_caller]
fn counts_are_exact(daemon: &Daemon, name: &str) {
    let out = daemon.out(&format!("{name}.jsonl"));
    let values = values_of(&out, "value");
    let first_wrong = (0..).zip(&values).find(|(place, value)| place != *value);
    assert_eq!(first_wrong, None, "{name}: a row came twice or never");
    let first_wrong = (1..).zip(values_of(&out, "count")).find(|(place, count)| place != count);
    assert_eq!(first_wrong, None, "{name}: a count is wrong");
}

#[test]
fn a_poison_row_costs_no_other_row() {
    const ROWS: u64 = 5000;
    const POISON: [u64; 3] = [0, 1234, 4999];
    let mut daemon = daemon();
    for poison in POISON {
        daemon.pipeline(
            &format!("poison-{poison}"),
            &format!(
                r#"
                source = {{ type = "rate", rows_per_second = "max", rows = {ROWS} }}
                transform = [{{ plugin = "evil-stateful", config = {{ mode = "poison", value = {poison} }} }}]
                sink = [{{ type = "file", path = "OUT/poison-{poison}.jsonl" }}]
                delivery = {{ checkpoint_interval = "10ms", batch = {{ rows = 500 }} }}
                "#
            ),
        );
    }
    let neighbour = Neighbour::add(&daemon);
    daemon.start();
    let mut seen = String::new();
    for poison in POISON {
        let name = format!("poison-{poison}");
        let status = daemon.wait_state(&name, "COMPLETED");
        let account = Account::of(&status);
        account.check("file", true);
        assert_eq!((account.stage("source").rows_in, account.dead()), (ROWS, 1));
        let letters = json_lines(&daemon.dead_letters(&name));
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!(letters[0]["offset"], poison);
        seen.push_str(&format!(
            "{name}\n  letter: {}\n  status: {}\n",
            steady(&daemon, letters[0]["error"].as_str().unwrap()),
            steady(&daemon, status["acequia"]["last_error"]["message"].as_str().unwrap())
        ));
        let out = daemon.out(&format!("{name}.jsonl"));
        let expected: Vec<i64> = (0..ROWS).filter(|row| *row != poison).map(|row| row as i64).collect();
        assert_eq!(values_of(&out, "value"), expected);
        let expected: Vec<i64> = (1..ROWS as i64).collect();
        assert_eq!(values_of(&out, "count"), expected, "each of the other rows is counted once");
    }
    insta::assert_snapshot!("state_poison", seen);
    neighbour.goes_on(&mut daemon);
    assert_eq!(daemon.stop().code, Some(0));
    neighbour.is_whole(&daemon);
}

#[test]
fn a_snapshot_that_is_refused_changes_nothing() {
    const MODES: [&str; 2] = ["restore-fails", "restore-traps"];
    let mut daemon = daemon();
    let neighbour = Neighbour::add(&daemon);
    for mode in MODES {
        daemon.pipeline(mode, &counting(mode, "count"));
    }
    daemon.start();
    let mut seen = String::new();
    for mode in MODES {
        let out = format!("{mode}.jsonl");
        daemon.wait_rows(&out, 100);
        daemon.pipeline(mode, &counting(mode, mode));
        wait_until("the reload is rejected", || daemon.status(mode)["acequia"]["last_reload"]["kind"] == "rejected");
        let status = daemon.status(mode);
        assert_eq!(status["acequia"]["state"], "RUNNING", "the old code goes on with the old configuration");
        let error = status["acequia"]["last_reload"]["error"].as_str().unwrap();
        seen.push_str(&format!("reload: {}\n", steady(&daemon, error)));
        let before = rows(&daemon.out(&out));
        daemon.wait_rows(&out, before + 100);
    }

    // Started anew, there is no old code. The state must not be lost over that, nor rows go on without it.
    assert_eq!(daemon.stop().code, Some(0));
    let before: Vec<usize> = MODES.iter().map(|mode| rows(&daemon.out(&format!("{mode}.jsonl")))).collect();
    daemon.start();
    for (mode, before) in MODES.into_iter().zip(before) {
        let status = daemon.wait_state(mode, "RETRYING");
        let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
        assert_eq!(status["connector"]["trace"].as_str(), Some(error));
        seen.push_str(&format!("start: {}\n", steady(&daemon, error)));
        assert_eq!(rows(&daemon.out(&format!("{mode}.jsonl"))), before);
    }
    insta::assert_snapshot!("state_restore", seen);
    neighbour.goes_on(&mut daemon);

    // Mended, it goes on where it was.
    for mode in MODES {
        let out = format!("{mode}.jsonl");
        let before = rows(&daemon.out(&out));
        daemon.pipeline(mode, &counting(mode, "count"));
        daemon.wait_rows(&out, before + 100);
    }
    assert_eq!(daemon.stop().code, Some(0));
    for mode in MODES {
        counts_are_exact(&daemon, mode);
    }
    neighbour.is_whole(&daemon);
}

#[test]
fn without_a_snapshot_nothing_is_confirmed() {
    const MODES: [&str; 3] = ["snapshot-traps", "snapshot-loops", "snapshot-huge"];
    let mut daemon = daemon();
    let neighbour = Neighbour::add(&daemon);
    for mode in MODES {
        daemon.pipeline(
            mode,
            &counting(mode, mode).replacen(" }]", ", limits = { time = \"200ms\", memory = \"16MiB\" } }]", 1),
        );
    }
    daemon.start();
    let mut seen = String::new();
    for mode in MODES {
        wait_until(&format!("{mode} has failed again and again; log:\n{}", daemon.stderr()), || {
            daemon.status(mode)["acequia"]["restarts"].as_u64() > Some(2)
        });
        let status = daemon.status(mode);
        let error = status["acequia"]["last_error"]["message"].as_str().unwrap();
        seen.push_str(&format!("{}\n", steady(&daemon, error)));
        let pipeline = format!("pipeline=\"{mode}\"");
        assert!(!log_lines(&daemon, &["the pipeline failed", &pipeline, "evil-stateful"]).is_empty());
    }
    insta::assert_snapshot!("state_snapshot", seen);
    neighbour.goes_on(&mut daemon);

    // Mended, each counts from the very first row: none was confirmed before.
    for mode in MODES {
        daemon.pipeline(mode, &counting(mode, "count"));
        wait_until("it runs", || daemon.status(mode)["acequia"]["checkpoint"]["number"].as_u64() > Some(5));
    }
    assert_eq!(daemon.stop().code, Some(0));
    for mode in MODES {
        counts_are_exact(&daemon, mode);
    }
    neighbour.is_whole(&daemon);
}
