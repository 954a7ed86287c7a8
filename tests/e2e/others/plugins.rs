//! Plugins that loop, leak, trap, forget, and that are slow because of how they are called.

use std::io::Write;

use acequia_tests::{Account, Daemon, json_lines, rows, values_of, wait_until};

use super::{NEIGHBOUR, details, neighbour_goes_on, stage};
use crate::evil::{daemon, log_lines};

/// `rows` rows as fast as they are taken, through one plugin, to `OUT/rows.jsonl`.
fn through(transform: &str, rows: u64, delivery: &str) -> String {
    format!(
        "source = {{ type = \"rate\", rows_per_second = \"max\", rows = {rows} }}\ntransform = [{{ {transform} }}]\n\
         sink = [{{ type = \"file\", path = \"OUT/rows.jsonl\" }}]\ndelivery = {{ {delivery} }}\n"
    )
}

/// Theirs: a guest that never returns hangs its consumer, and nothing ends it. Here every call has an end: those for rows, at
/// a tick, for a snapshot, and the one before the first row.
#[test]
fn fluvio_1245_an_endless_loop_is_ended_in_every_call() {
    let mut daemon = daemon();
    daemon.pipeline("neighbour", NEIGHBOUR);
    let pipeline = |plugin: &str, config: &str| {
        format!(
            "source = {{ type = \"rate\", rows_per_second = 100 }}\nsink = [{{ type = \"blackhole\" }}]\n\
             transform = [{{ plugin = \"{plugin}\", config = {{ {config} }}, limits = {{ time = \"100ms\" }} }}]\n\
             delivery = {{ checkpoint_interval = \"20ms\" }}\n"
        )
    };
    daemon.pipeline("rows", &pipeline("evil", "mode = \"loop\""));
    daemon.pipeline("tick", &pipeline("evil-ticking", "mode = \"loops\", every = 20"));
    daemon.pipeline("snapshot", &pipeline("evil-stateful", "mode = \"snapshot-loops\""));
    daemon.pipeline("configure", &pipeline("evil", "mode = \"configure-loops\""));
    daemon.start();
    for name in ["rows", "tick"] {
        wait_until(&format!("{name}: ended, and called again"), || {
            details(&daemon, name)["stages"][1]["guest_replacements"].as_u64() > Some(2)
        });
    }
    wait_until("snapshot: ended, and called again", || details(&daemon, "snapshot")["restarts"].as_u64() > Some(1));
    daemon.wait_state("configure", "FAILED");
    for name in ["rows", "tick", "snapshot", "configure"] {
        let said = log_lines(&daemon, &[name, "100ms"]);
        assert!(!said.is_empty(), "{name} is not said to have taken too long:\n{}", daemon.stderr());
    }
    neighbour_goes_on(&daemon);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: an aggregate begins with nothing whenever the connector starts.
#[test]
fn fluvio_3120_an_aggregate_goes_on_where_it_was() {
    let mut daemon = Daemon::new();
    let path = daemon.file("lines.txt", "a\na\na\n");
    let text = "source = { type = \"file\", path = \"DIR/lines.txt\", format = \"text\", follow = true }\n\
                transform = [{ plugin = \"word-count\" }]\nsink = [{ type = \"file\", path = \"OUT/rows.jsonl\" }]\n\
                delivery = { checkpoint_interval = \"20ms\" }\n";
    daemon.pipeline("p", text);
    let last = |daemon: &Daemon| values_of(&daemon.out("rows.jsonl"), "count").last().copied();
    daemon.start();
    for life in 1..5 {
        wait_until("the total has grown", || last(&daemon) == Some(2 + life));
        wait_until("it is stored", || {
            details(&daemon, "p")["checkpoint"]["number"].as_u64() >= Some(u64::try_from(life).unwrap())
                && stage(&daemon, "p", "file").rows_out == rows(&daemon.out("rows.jsonl")) as u64
        });
        if life % 2 == 0 {
            daemon.kill();
        } else {
            assert_eq!(daemon.stop().code, Some(0));
        }
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"a\n").unwrap();
        daemon.start();
    }
    wait_until("the last one", || last(&daemon) == Some(7));
    let totals = values_of(&daemon.out("rows.jsonl"), "count");
    assert!(totals.is_sorted_by(|one, next| one < next), "a total went back: {totals:?}");
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: every `.wasm` is compiled at every start.
#[test]
fn conduit_2862_a_second_start_compiles_nothing() {
    let mut daemon = Daemon::new().env("ACEQUIA_LOG", "debug");
    for (number, plugin) in ["even-filter", "triangle-wave", "even-filter"].iter().enumerate() {
        let text = through(&format!("plugin = \"{plugin}\""), 10, "").replace("rows.jsonl", &format!("{number}.jsonl"));
        daemon.pipeline(&format!("p{number}"), &text);
    }
    for (compiled, found) in [(2, 0), (0, 2), (0, 2)] {
        daemon.start();
        for number in 0..3 {
            daemon.wait_state(&format!("p{number}"), "COMPLETED");
        }
        assert_eq!(daemon.stop().code, Some(0));
        assert_eq!(log_lines(&daemon, &["a plugin was compiled"]).len(), compiled);
        assert_eq!(log_lines(&daemon, &["compiled code was found"]).len(), found);
    }
}

/// Theirs: each line gets an instance of its own. This plugin counts what its instance has seen, and is never asked for its
/// state here: every other instance would begin with 1 again.
#[test]
fn fluent_bit_7112_one_instance_sees_all_rows() {
    const ROWS: i64 = 100_000;
    let mut daemon = daemon();
    let delivery = "checkpoint_interval = \"1h\", batch = { rows = 100 }";
    daemon.pipeline("p", &through("plugin = \"evil-stateful\"", ROWS.unsigned_abs(), delivery));
    daemon.start();
    let status = daemon.wait_state("p", "COMPLETED");
    assert_eq!(status["acequia"]["stages"][1]["guest_replacements"], 0);
    assert!(values_of(&daemon.out("rows.jsonl"), "count").into_iter().eq(1..=ROWS));
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: an instance that is kept for ever grows to 4 GB and then fails every call. This one leaks 256 KiB a batch, 50 MiB in
/// all, and may have 4 MiB.
#[test]
fn doctor_cluster_1617_an_instance_that_has_grown_is_replaced_before_it_fails() {
    const ROWS: u64 = 200;
    let mut daemon = daemon();
    let leak = "plugin = \"evil\", config = { mode = \"leak\", size = 262144 }, limits = { memory = \"4MiB\" }";
    daemon.pipeline("p", &through(leak, ROWS, "batch = { rows = 1 }"));
    daemon.start();
    let status = daemon.wait_state("p", "COMPLETED");
    Account::of(&status).check("file", false);
    assert_eq!((rows(&daemon.out("rows.jsonl")) as u64, Account::of(&status).dead()), (ROWS, 0));
    assert_eq!(status["acequia"]["stages"][1]["guest_replacements"], 0, "not one call failed");
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: after a trap the instance can't be entered any more, and every later call fails too.
#[test]
fn wasmtime_10995_after_a_trap_the_next_rows_are_as_good_as_ever() {
    let mut daemon = daemon();
    let poison = "config = { mode = \"poison\", value = 50 }";
    daemon.pipeline(
        "stateless",
        &through(&format!("plugin = \"evil\", {poison}"), 100, "").replace("rows.jsonl", "other.jsonl"),
    );
    let delivery = "batch = { rows = 10 }, checkpoint_interval = \"10ms\"";
    daemon.pipeline("stateful", &through(&format!("plugin = \"evil-stateful\", {poison}"), 100, delivery));
    daemon.start();
    for name in ["stateless", "stateful"] {
        daemon.wait_state(name, "COMPLETED");
        assert!(details(&daemon, name)["stages"][1]["guest_replacements"].as_u64() > Some(0), "{name}");
        let letters = json_lines(&daemon.dead_letters(name));
        assert_eq!((letters.len(), letters[0]["offset"].as_i64()), (1, Some(50)), "{name}: {letters:?}");
    }
    let others: Vec<i64> = (0..100).filter(|value| *value != 50).collect();
    for file in ["other.jsonl", "rows.jsonl"] {
        assert_eq!(values_of(&daemon.out(file), "value"), others, "{file}");
    }
    // With the state of before the trap.
    assert_eq!(values_of(&daemon.out("rows.jsonl"), "count"), (1..100).collect::<Vec<_>>());
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: every event went into the guest whole, as text, and out again. Rows of 4 MiB pass a filter that may have 3 MiB of
/// memory: only the column that it reads goes in, and nothing but its choice comes out.
#[test]
fn vector_8036_only_the_columns_that_a_plugin_reads_go_into_it() {
    let mut daemon = Daemon::new();
    let text = "x".repeat(4 << 20);
    let lines: String = (0..10).map(|n| format!("{{\"n\":{n},\"text\":\"{text}\"}}\n")).collect();
    daemon.file("in.jsonl", lines);
    daemon.pipeline(
        "p",
        "source = { type = \"file\", path = \"DIR/in.jsonl\" }\nsink = [{ type = \"file\", path = \"OUT/rows.jsonl\" }]\n\
         transform = [{ plugin = \"even-filter\", config = { column = \"n\" }, limits = { memory = \"3MiB\" } }]\n",
    );
    let exit = daemon.once();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let rows = json_lines(&daemon.out("rows.jsonl"));
    assert_eq!(rows.iter().filter_map(|row| row["n"].as_i64()).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
    assert!(rows.iter().all(|row| row["text"] == text.as_str()));
}
