//! The state folder: what is in it can be seen, copied out and forgotten; and what is damaged is found, by the real daemon
//! (invariants 2 and 6).

use std::fs;

use acequia_tests::servers::{Consume, Kafka};
use acequia_tests::{Daemon, Exit, json_lines, rows, run, values_of, wait_until};
use redb::ReadableTable;
use serde_json::Value;

const ROWS: i64 = 1000;

const EVEN: &str = r#"
[source]
type = "rate"
rows_per_second = "max"
rows = 1000

[[transform]]
plugin = "even-filter"

[[transform]]
plugin = "select"
config = { cast = { value = "text" }, keep = ["value"] }

[[transform]]
plugin = "word-count"

[[sink]]
type = "file"
path = "OUT/even.jsonl"
"#;

const FLOWING: &str = r#"
[source]
type = "rate"
rows_per_second = 500

[[sink]]
type = "file"
path = "OUT/flowing.jsonl"

[delivery]
checkpoint_interval = "50ms"
"#;

fn state(daemon: &Daemon, arguments: &[&str]) -> Exit {
    let folder = daemon.folder().join("state").display().to_string();
    run(&[&["state"], arguments, &["--state", &folder]].concat())
}

fn json(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", exit.stdout, exit.stderr))
}

#[test]
fn run_inspect_export_reset_and_run_again() {
    let mut daemon = Daemon::new();
    daemon.pipeline("even", EVEN);
    daemon.pipeline("other", &EVEN.replace("even.jsonl", "other.jsonl"));
    assert_eq!(daemon.once().code, Some(0));
    let even = daemon.out("even.jsonl");
    assert_eq!(rows(&even), 500);

    let exit = state(&daemon, &["inspect", "--json"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let found = json(&exit);
    assert_eq!((&found["format"], &found["daemon"]), (&2.into(), &Value::Null));
    let checkpoint = &found["pipelines"][0]["checkpoint"];
    assert_eq!((&checkpoint["source_type"], &found["pipelines"][1]["pipeline"]), (&"rate".into(), &"other".into()));
    assert_eq!(
        (&checkpoint["counts"]["source"]["rows_out"], &checkpoint["counts"]["even-filter"]["dropped"]),
        (&ROWS.into(), &500.into())
    );
    assert!(checkpoint["snapshots"]["word-count"].as_u64() > Some(1000), "{checkpoint}");
    let text = state(&daemon, &["inspect", "even"]).stdout;
    assert!(text.contains("none has the folder") && text.contains("snapshot word-count"), "{text}");

    let export = state(&daemon, &["export", "even"]);
    assert_eq!((export.code, &json(&export)["pipeline"]), (Some(0), &"even".into()));

    // Nothing left to do, until it is forgotten.
    assert_eq!(daemon.once().code, Some(0));
    assert_eq!(rows(&even), 500);
    let exit = state(&daemon, &["reset", "even"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("--yes"), "{}", exit.stderr);
    let before = json(&state(&daemon, &["export", "even"]));
    let exit = state(&daemon, &["reset", "even", "--yes"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let number = before["checkpoint"]["number"].as_u64().unwrap();
    let backup = daemon.folder().join(format!("state/backup/even-{number}.json"));
    assert!(exit.stdout.contains(&backup.display().to_string()), "{}", exit.stdout);
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(backup).unwrap()).unwrap(), before);

    assert_eq!(daemon.once().code, Some(0));
    let words = json_lines(&even);
    assert_eq!(words.len(), 1000, "its rows come again, after those that the file has");
    let count = |word: &Value| word["count"].as_i64();
    assert!(words.iter().all(|word| count(word) == Some(1)), "the words are counted from the beginning again");
    assert_eq!(rows(&daemon.out("other.jsonl")), 500, "the other one is where it was");
    let counts = &json(&state(&daemon, &["inspect", "even", "--json"]))["pipelines"][0]["checkpoint"]["counts"];
    assert_eq!((&counts["source"]["rows_in"], &counts["file"]["rows_out"]), (&ROWS.into(), &500.into()));
}

#[test]
fn beside_a_running_daemon() {
    let mut daemon = Daemon::new();
    daemon.pipeline("flowing", FLOWING);
    daemon.start();
    daemon.wait_rows("flowing.jsonl", 100);
    let mut last = 0;
    wait_until("three checkpoints are seen, one after the other", || {
        let exit = state(&daemon, &["inspect", "--json"]);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        let found = json(&exit);
        assert_eq!(found["daemon"], daemon.pid());
        let checkpoint = &found["pipelines"][0]["checkpoint"];
        let (number, counts) = (checkpoint["number"].as_u64().unwrap_or(0), &checkpoint["counts"]);
        assert!(number >= last, "{number} after {last}");
        assert_eq!(counts["source"]["rows_out"], counts["file"]["rows_out"], "of one moment");
        last = number;
        number > 5
    });
    let exit = state(&daemon, &["reset", "flowing", "--yes"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains(&format!("in use by process {}", daemon.pid())), "{}", exit.stderr);
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("flowing.jsonl"), "value");
    assert!(values.iter().copied().eq(0..values.len() as i64), "it was not disturbed");
    let exit = state(&daemon, &["export", "flwing"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("did you mean `flowing`?"), "{}", exit.stderr);
}

/// A file that is damaged as a whole: nothing starts, nothing is changed, and with the right file all goes on.
#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let mut daemon = Daemon::new();
    daemon.pipeline("flowing", FLOWING);
    daemon.start();
    daemon.wait_rows("flowing.jsonl", 200);
    daemon.kill();
    let file = daemon.folder().join("state/acequia.redb");
    let whole = fs::read(&file).unwrap();
    let flipped = {
        // Somewhere in the newest checkpoint, which the tree leads to.
        let text = b"\"source_type\":\"rate\"";
        let mut bytes = whole.clone();
        let places: Vec<usize> = (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| bytes[*at] ^= 1);
        bytes
    };
    let before = rows(&daemon.out("flowing.jsonl"));
    for (what, damaged) in
        [("flipped bits", flipped), ("half a file", whole[..whole.len() / 2].to_vec()), ("nothing", Vec::new())]
    {
        fs::write(&file, &damaged).unwrap();
        daemon.spawn(&[]);
        let exit = daemon.wait_exit();
        assert_eq!(exit.code, Some(1), "{what}: {}", exit.stderr);
        for part in ["acequia.redb is damaged", "put back a copy", "move this file away"] {
            assert!(exit.stderr.contains(part), "{what}: {part} in {}", exit.stderr);
        }
        assert_eq!(fs::read(&file).unwrap(), damaged, "{what}: it was changed");
        let inspect = state(&daemon, &["inspect"]);
        assert_eq!(inspect.code, Some(1));
        assert!(inspect.stderr.contains("is damaged"), "{what}: {}", inspect.stderr);
        assert_eq!(rows(&daemon.out("flowing.jsonl")), before, "{what}: a pipeline ran");
    }
    fs::write(&file, &whole).unwrap();
    daemon.start();
    daemon.wait_rows("flowing.jsonl", before + 100);
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("flowing.jsonl"), "value");
    assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
}

const CHECKPOINTS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("checkpoints");
const ABOUT: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("about");

/// Change one value in the file of a daemon that does not run, so that only its own checksum can tell.
fn tamper(
    daemon: &Daemon,
    table: redb::TableDefinition<'_, &'static str, &'static [u8]>,
    key: &str,
    by: impl FnOnce(&mut Vec<u8>),
) {
    let database = redb::Database::open(daemon.folder().join("state/acequia.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let mut value = table.get(key).unwrap().unwrap().value().to_vec();
        by(&mut value);
        table.insert(key, value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_damaged_entry_fails_its_pipeline_only_and_a_reset_mends_it() {
    let mut daemon = Daemon::new();
    daemon.pipeline("flowing", FLOWING);
    daemon.pipeline("hit", &FLOWING.replace("flowing.jsonl", "hit.jsonl"));
    daemon.start();
    daemon.wait_rows("flowing.jsonl", 100);
    daemon.wait_rows("hit.jsonl", 100);
    assert_eq!(daemon.stop().code, Some(0));
    tamper(&daemon, CHECKPOINTS, "hit", |value| value[40] ^= 4);
    let (hit, flowing) = (rows(&daemon.out("hit.jsonl")), rows(&daemon.out("flowing.jsonl")));

    daemon.start();
    let status = daemon.wait_state("hit", "RETRYING");
    let error = status["acequia"]["first_error"]["message"].as_str().unwrap();
    for part in
        ["checkpoint", "`hit`", "acequia.redb", "its checksum does not match", "acequia state reset hit --state"]
    {
        assert!(error.contains(part), "{part} in {error}");
    }
    daemon.wait_rows("flowing.jsonl", flowing + 100);
    let inspect = state(&daemon, &["inspect"]);
    assert_eq!(inspect.code, Some(1));
    assert!(inspect.stdout.contains("the checkpoint can't be used: its checksum does not match"), "{}", inspect.stdout);
    assert_eq!(rows(&daemon.out("hit.jsonl")), hit, "it did not start from its beginning");
    assert_eq!(daemon.stop().code, Some(0));

    let exit = state(&daemon, &["reset", "hit", "--yes"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(daemon.folder().join("state/backup/hit-damaged.json").exists());
    assert_eq!(state(&daemon, &["inspect"]).code, Some(0));
    daemon.start();
    daemon.wait_rows("hit.jsonl", hit + 100);
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("hit.jsonl"), "value");
    let again = values.len() - hit;
    assert!(values.iter().copied().eq((0..hit as i64).chain(0..again as i64)), "all of it again, from the start");
    let values = values_of(&daemon.out("flowing.jsonl"), "value");
    assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
}

#[test]
fn a_later_format_is_refused() {
    let mut daemon = Daemon::new();
    daemon.pipeline("even", EVEN);
    assert_eq!(daemon.once().code, Some(0));
    tamper(&daemon, ABOUT, "file", |value| *value = br#"{"format":3,"acequia":"9.1.0","new":[]}"#.to_vec());
    daemon.spawn(&[]);
    let exit = daemon.wait_exit();
    assert_eq!(exit.code, Some(1));
    for part in ["has format 3", "written by acequia 9.1.0", "run acequia 9.1.0 or later"] {
        assert!(exit.stderr.contains(part), "{part} in {}", exit.stderr);
    }
    let exit = state(&daemon, &["reset", "even", "--yes"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("has format 3"), "{}", exit.stderr);
}

/// The mark in the cluster, by which a start sees whether the last transaction was committed, is one of the transactions
/// of the state that is gone.
#[test]
fn after_a_reset_exactly_once_begins_anew() {
    let kafka = Kafka::shared();
    for id in ["", "transactional_id = \"DIR\"\n"] {
        let topic = kafka.topic("reset", 1);
        let mut daemon = Daemon::new();
        daemon.pipeline(
            "orders",
            &format!(
                "[source]\ntype = \"rate\"\nrows_per_second = \"max\"\nrows = 100\n[[sink]]\ntype = \"kafka\"\n\
                 brokers = [\"{}\"]\ntopic = \"{topic}\"\ndelivery = \"exactly_once\"\n{id}",
                kafka.address()
            ),
        );
        assert_eq!(daemon.once().code, Some(0));
        let exit = state(&daemon, &["reset", "orders", "--yes"]);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(exit.stdout.contains("writes to kafka exactly once"), "{}", exit.stdout);
        let exit = daemon.once();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        let values = kafka.values(&topic, &Consume::default());
        let value = |text: &String| serde_json::from_str::<Value>(text).unwrap()["value"].as_i64().unwrap();
        assert!(values.iter().map(value).eq((0..100).chain(0..100)), "all rows again, and each as often");
    }
}
