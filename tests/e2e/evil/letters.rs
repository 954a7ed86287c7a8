//! Plugins that fail over their rows: the rows are dead letters, and only those.

use std::collections::BTreeSet;

use acequia_tests::{Account, json_lines, values_of, wait_until};

use super::{Neighbour, daemon, log_lines, steady};

/// One way to misbehave.
struct Case {
    mode: &'static str,
    /// More keys of `config`.
    config: &'static str,
    /// More keys of `limits`.
    limits: &'static str,
    /// So many rows come: 0, 1, 2...
    rows: u64,
    /// At which the plugin fails.
    dead: Dead,
}

enum Dead {
    All,
    None,
    Only(u64),
}

fn all(mode: &'static str) -> Case {
    // Not a multiple of 8: the last byte of a bitmap has bits to spare.
    Case { mode, config: "", limits: "", rows: 12, dead: Dead::All }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "loop",
        "recursion",
        "large-frames",
        "memory-bomb",
        "panic",
        "ungranted",
        "apply-error",
        "fail-all",
        "row-index",
        "kept-length",
        "kept-long",
        "kept-failed",
        "failed-twice",
        "failed-out-of-range",
        "fresh-mismatch",
        "fresh-huge",
        "wrong-length",
        "offsets",
        "offsets-decreasing",
        "offsets-start",
        "invalid-utf8",
        "cut-character",
        "bad-name",
        "wrong-type",
        "missing-column",
        "extra-column",
        "nulls",
        "valid-length",
        "invalid-json",
    ]
    .into_iter()
    .map(all)
    .collect();
    cases.extend([
        // The bits behind the last row mean nothing, as in Arrow.
        Case { dead: Dead::None, ..all("kept-tail") },
        // More rows than are looked for one by one.
        Case { rows: 1000, ..all("trap") },
        Case { limits: ", output = \"1MiB\"", ..all("huge-output") },
        // Less than the limit in each row, and more in all of them.
        Case {
            mode: "huge-output",
            config: ", size = 100000",
            limits: ", output = \"256KiB\"",
            rows: 8,
            dead: Dead::None,
        },
        // In the second batch, and not at its border.
        Case { mode: "poison", config: ", value = 12345", limits: "", rows: 20_000, dead: Dead::Only(12_345) },
        Case { mode: "fail-row", config: ", value = 12345", limits: "", rows: 20_000, dead: Dead::Only(12_345) },
    ]);
    cases
}

#[test]
fn every_row_is_accounted_for_and_the_message_says_what_happened() {
    let mut daemon = daemon();
    let neighbour = Neighbour::add(&daemon);
    daemon.start();
    neighbour.goes_on(&mut daemon);

    // All through the test one plugin loops without end, again and again.
    daemon.pipeline(
        "for-ever",
        r#"
        source = { type = "rate", rows_per_second = 100 }
        transform = [{ plugin = "evil", config = { mode = "loop" }, limits = { time = "100ms" } }]
        sink = [{ type = "file", path = "OUT/for-ever.jsonl" }]
        "#,
    );
    let cases = cases();
    let named =
        |case: &Case| if case.config.contains("size") { format!("{}-2", case.mode) } else { case.mode.to_owned() };
    for case in &cases {
        let Case { mode, config, limits, rows, .. } = case;
        daemon.pipeline(
            &named(case),
            &format!(
                r#"
                source = {{ type = "rate", rows_per_second = "max", rows = {rows} }}
                transform = [{{
                    plugin = "evil",
                    config = {{ mode = "{mode}"{config} }},
                    limits = {{ time = "200ms", memory = "16MiB"{limits} }},
                }}]
                sink = [{{ type = "file", path = "OUT/{}.jsonl" }}]
                "#,
                named(case)
            ),
        );
    }
    let mut seen = String::new();
    for (number, case) in cases.iter().enumerate() {
        let name = named(case);
        let status = daemon.wait_state(&name, "COMPLETED");
        let account = Account::of(&status);
        account.check("file", true);
        assert_eq!(account.stage("source").rows_in, case.rows, "{name}");

        // Exactly those rows that the plugin fails at, each once, with their places; and exactly the others in the sink.
        let letters = json_lines(&daemon.dead_letters(&name));
        let dead: Vec<u64> = letters.iter().map(|letter| letter["offset"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = match case.dead {
            Dead::All => (0..case.rows).collect(),
            Dead::None => Vec::new(),
            Dead::Only(row) => vec![row],
        };
        assert_eq!(dead, expected, "{name}");
        let through = values_of(&daemon.out(&format!("{name}.jsonl")), "value");
        let expected: Vec<i64> = (0..case.rows).filter(|row| !dead.contains(row)).map(|row| row as i64).collect();
        assert!(through == expected, "{name}: {} rows came through", through.len());

        let mut errors = BTreeSet::new();
        for letter in &letters {
            assert_eq!((letter["pipeline"].as_str(), letter["stage"].as_str()), (Some(name.as_str()), Some("evil")));
            let row: serde_json::Value = serde_json::from_str(letter["row"].as_str().unwrap()).unwrap();
            assert_eq!(row["value"], letter["offset"], "the letter holds the row");
            errors.insert(steady(&daemon, letter["error"].as_str().unwrap()));
        }
        let replaced = status["acequia"]["stages"][1]["guest_replacements"].as_u64().unwrap();
        if !case.mode.starts_with("fail-") && !dead.is_empty() {
            let place = format!("pipeline `{name}`, transform `evil` (evil.wasm)");
            assert!(errors.iter().all(|error| error.starts_with(&place)), "{errors:?}");
            assert!(replaced > 0, "{name}");
            let pipeline = format!("pipeline=\"{name}\"");
            let said = log_lines(&daemon, &["the plugin failed and is replaced", &pipeline, "plugin=\"evil.wasm\""]);
            assert_eq!(said.len() as u64, replaced, "{name}: each replacement is in the log");
        }
        let first = errors.first().cloned().unwrap_or_default();
        seen.push_str(&format!("{name}: {} of {} rows, {replaced} guests\n    {first}\n", dead.len(), case.rows));
        if number % 8 == 0 {
            neighbour.goes_on(&mut daemon);
        }
    }
    insta::assert_snapshot!("letters", seen);

    wait_until("the endless loop is ended again and again", || {
        daemon.status("for-ever")["acequia"]["stages"][1]["guest_replacements"].as_u64() > Some(5)
    });
    neighbour.goes_on(&mut daemon);
    assert_eq!(daemon.stop().code, Some(0));
    neighbour.is_whole(&daemon);
}
