//! The verbs on a real folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use acequia_connector_api::Position;
use redb::ReadableTable;
use serde_json::{Value, json};

use super::*;
use crate::pipeline::status::Counts;
use crate::state::{Checkpoint, SinkState, StateLock, Store};

const NOW: u64 = 1_790_000_000_000;

fn even() -> Checkpoint {
    let counts = |rows_in, rows_out, dropped| Counts { rows_in, rows_out, dropped, ..Counts::default() };
    Checkpoint {
        number: 42,
        at: NOW - 200_000,
        source_type: "rate".to_owned(),
        position: Position::single(1000.into()),
        sinks: [("file".to_owned(), SinkState { sink_type: "file".to_owned(), state: json!({ "offset": 7 }) })].into(),
        counts: [
            ("source".to_owned(), counts(1000, 1000, 0)),
            ("even-filter".to_owned(), counts(1000, 500, 500)),
            ("file".to_owned(), counts(500, 500, 0)),
        ]
        .into(),
        snapshots: BTreeMap::from([("word-count".to_owned(), vec![7; 3000])]),
    }
}

fn kafka(number: u64) -> Checkpoint {
    let offsets = (0..12).map(|partition| (format!("orders/{partition}"), Value::from(100 + partition)));
    let state = json!({ "transactional_id": "acequia-orders-0", "sequence": 7, "marker": "out" });
    Checkpoint {
        number,
        at: NOW - 5_000_000,
        source_type: "kafka".to_owned(),
        position: Position(offsets.collect()),
        sinks: [("kafka".to_owned(), SinkState { sink_type: "kafka".to_owned(), state })].into(),
        ..Checkpoint::default()
    }
}

/// Two pipelines, one with the checkpoint before.
async fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save("even", Arc::new(even())).await.unwrap();
    store.save_beside("orders", Arc::new(kafka(8))).await.unwrap();
    store.save_beside("orders", Arc::new(kafka(9))).await.unwrap();
    drop(store);
    // The store's thread lets go of the file soon.
    while let Err(error) = Folder::open(dir.path()) {
        assert!(error.to_string().contains("already open"), "{error}");
        tokio::task::yield_now().await;
    }
    dir
}

#[derive(Debug)]
struct Seen {
    good: bool,
    out: String,
    error: String,
    asked: Vec<String>,
}

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

/// With the folder's path as `FOLDER` in what is seen.
fn acequia_state(dir: &Path, arguments: &[&str], answer: Option<bool>) -> Seen {
    let path = dir.display().to_string();
    let line = [&["state"], arguments, &["--state", path.as_str()]].concat();
    let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = Output { out: &mut out, err: &mut err, colours_out: false, colours_err: false };
    let mut asked = Vec::new();
    let mut ask = |question: &str| {
        asked.push(question.to_owned());
        answer
    };
    let done = run(&line.verb, &mut output, &mut Desk { now: NOW, ask: &mut ask });
    let tidy = |text: String| text.replace(&path, "FOLDER").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let error = done.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
    let good = done.is_ok_and(|code| format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS));
    Seen { good, out: tidy(String::from_utf8(out).unwrap()), error: tidy(error), asked }
}

/// Make the checkpoint of `even` one that is not what was written.
fn damage(dir: &Path) {
    const CHECKPOINTS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("checkpoints");
    let database = redb::Database::open(dir.join("acequia.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(CHECKPOINTS).unwrap();
        let mut sealed = table.get("even").unwrap().unwrap().value().to_vec();
        sealed[30] ^= 1;
        table.insert("even", sealed.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn inspect_shows_everything() {
    let dir = folder().await;
    let seen = acequia_state(dir.path(), &["inspect"], None);
    assert!(seen.good, "{seen:?}");
    insta::assert_snapshot!("inspect", seen.out);
    let seen = acequia_state(dir.path(), &["inspect", "orders", "--json"], None);
    assert!(seen.good, "{seen:?}");
    let found: Value = serde_json::from_str(&seen.out).unwrap();
    assert_eq!(found["pipelines"].as_array().unwrap().len(), 1);
    assert_eq!((&found["pipelines"][0]["previous"], &found["daemon"]), (&json!(8), &Value::Null));
    assert_eq!(found["pipelines"][0]["checkpoint"]["position"]["orders/11"], 111);
    let seen = acequia_state(dir.path(), &["inspect", "orders"], None);
    assert!(seen.out.contains("orders/11: 111") && !seen.out.contains("even"), "{}", seen.out);
}

#[tokio::test]
async fn inspect_names_what_is_damaged_and_export_gives_it_as_it_lies() {
    let dir = folder().await;
    damage(dir.path());
    let seen = acequia_state(dir.path(), &["inspect"], None);
    assert!(!seen.good && seen.error.is_empty(), "{seen:?}");
    insta::assert_snapshot!("inspect_damaged", seen.out);
    assert!(acequia_state(dir.path(), &["inspect", "orders"], None).good, "the other one is sound");
    let seen = acequia_state(dir.path(), &["export", "even"], None);
    assert!(!seen.good);
    let export: Value = serde_json::from_str(&seen.out).unwrap();
    assert_eq!(export["checkpoint"]["damaged"], "its checksum does not match");
    let raw = export["checkpoint"]["raw"]["head"].as_str().unwrap();
    let raw = acequia_connector_api::from_base64(raw).unwrap();
    assert!(String::from_utf8_lossy(&raw).contains("\"source_type\":\"rate\""));
}

#[tokio::test]
async fn export_has_everything() {
    let dir = folder().await;
    let seen = acequia_state(dir.path(), &["export", "even"], None);
    assert!(seen.good, "{seen:?}");
    let export: Value = serde_json::from_str(&seen.out).unwrap();
    assert_eq!((&export["export"], &export["pipeline"]), (&json!(1), &json!("even")));
    let snapshot = export["checkpoint"]["snapshots"]["word-count"].as_str().unwrap();
    assert_eq!(acequia_connector_api::from_base64(snapshot), Some(vec![7; 3000]));
    let mut checkpoint: Checkpoint = serde_json::from_value(export["checkpoint"].clone()).unwrap();
    checkpoint.snapshots = even().snapshots;
    assert_eq!(checkpoint, even());
    let orders: Value = serde_json::from_str(&acequia_state(dir.path(), &["export", "orders"], None).out).unwrap();
    assert_eq!((&orders["checkpoint"]["number"], &orders["previous"]["number"]), (&json!(9), &json!(8)));
}

#[tokio::test]
async fn reset_asks_keeps_a_copy_and_forgets() {
    let dir = folder().await;
    let export = acequia_state(dir.path(), &["export", "even"], None).out;
    let seen = acequia_state(dir.path(), &["reset", "even", "orders"], None);
    assert!(!seen.good && seen.error.contains("say `--yes` to forget `even`, `orders`"), "{seen:?}");
    let seen = acequia_state(dir.path(), &["reset", "even"], Some(false));
    assert!(!seen.good && seen.out.ends_with("nothing was changed\n"), "{seen:?}");
    assert_eq!(seen.asked, ["forget `even`?"]);
    assert!(!dir.path().join("backup").exists());
    assert!(acequia_state(dir.path(), &["inspect"], None).out.contains("even"));

    let seen = acequia_state(dir.path(), &["reset", "even", "orders", "even"], Some(true));
    assert!(seen.good, "{seen:?}");
    insta::assert_snapshot!("reset", seen.out);
    let backup = std::fs::read_to_string(dir.path().join("backup/even-42.json")).unwrap();
    assert_eq!(backup.replace(env!("CARGO_PKG_VERSION"), "VERSION"), export);
    let seen = acequia_state(dir.path(), &["inspect"], None);
    assert!(seen.good && seen.out.ends_with("no checkpoints\n"), "{seen:?}");
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load("orders").await.unwrap(), None);
    assert_eq!(store.load_previous("orders").await.unwrap(), None);
}

#[tokio::test]
async fn reset_mends_what_is_damaged_and_no_copy_is_written_over() {
    let dir = folder().await;
    for copy in ["even-damaged.json", "even-damaged-2.json"] {
        damage(dir.path());
        let store = Store::open(dir.path()).unwrap();
        let error = store.load("even").await.unwrap_err().to_string();
        assert!(error.contains("acequia state reset even"), "{error}");
        assert_eq!(store.load("orders").await.unwrap().unwrap().number, 9, "the other one is sound");
        drop(store);
        let seen = loop {
            let seen = acequia_state(dir.path(), &["reset", "even", "--yes"], None);
            if !seen.error.contains("already open") {
                break seen;
            }
            tokio::task::yield_now().await;
        };
        assert!(seen.good && seen.asked.is_empty(), "{seen:?}");
        assert!(dir.path().join("backup").join(copy).exists(), "{copy}");
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load("even").await.unwrap(), None);
        store.save("even", Arc::new(even())).await.unwrap();
        drop(store);
        while Folder::open(dir.path()).is_err() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn while_a_daemon_has_the_folder() {
    let dir = folder().await;
    let lock = StateLock::take(dir.path()).unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save("late", Arc::new(even())).await.unwrap();
    let holder = format!("process {} has the folder", std::process::id());
    let seen = acequia_state(dir.path(), &["inspect"], None);
    assert!(seen.good && seen.out.contains(&holder) && seen.out.contains("\nlate\n"), "{seen:?}");
    let seen = acequia_state(dir.path(), &["reset", "even", "--yes"], None);
    assert!(!seen.good && seen.error.contains(&format!("in use by process {}", std::process::id())), "{seen:?}");
    assert_eq!(store.load("even").await.unwrap().unwrap(), even());
    drop((lock, store));
}

#[tokio::test]
async fn names_that_are_not_there() {
    let dir = folder().await;
    for verb in ["inspect", "export", "reset"] {
        let seen = acequia_state(dir.path(), &[verb, "evn"], Some(true));
        assert!(!seen.good && seen.error.contains("did you mean `even`?"), "{verb}: {seen:?}");
    }
    let seen = acequia_state(dir.path(), &["reset", "even", "nobody"], Some(true));
    assert!(!seen.good && seen.error.contains("`acequia state inspect --state FOLDER` shows"), "{seen:?}");
    assert!(acequia_state(dir.path(), &["inspect", "even"], None).good, "all or nothing");
    let none = dir.path().join("none");
    for verb in [&["inspect"][..], &["export", "even"], &["reset", "even"]] {
        let seen = acequia_state(&none, verb, Some(true));
        assert!(!seen.good && seen.error.contains("there is no state in"), "{seen:?}");
    }
    assert!(!none.exists(), "nothing is made by looking");
}
