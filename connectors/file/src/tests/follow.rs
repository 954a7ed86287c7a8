//! Following.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use acequia_connector_api::Demand;

use super::*;

const LOG: &str = "path = 'log'\nformat = 'text'\nfollow = true\npoll = '1ms'";
const LOGS: &str = "path = 'log*'\nformat = 'text'\nfollow = true\npoll = '1ms'";

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The values of the next rows, until there are so many.
async fn values(source: &mut dyn Source, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let mut random = Random(count as u64);
    while values.len() < count {
        let bounded = tokio::time::timeout(Duration::from_secs(20), next_with_cancels(source, &mut random));
        let batch = bounded.await.unwrap_or_else(|_| panic!("only {values:?} came")).expect("it does not end");
        assert!(batch.failed.is_empty(), "{:?}", batch.failed);
        values.extend((0..batch.len()).map(|row| row_to_json(&batch.rows, row)["value"].as_str().unwrap().to_owned()));
    }
    values
}

/// Let the source look around until it has nothing to bring: it must then be waiting.
async fn looks_in_vain(source: &mut dyn Source) {
    let waited = tokio::time::timeout(Duration::from_millis(30), source.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[tokio::test]
async fn a_growing_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let context = context(folder.path(), 100);
    // It need not be there yet.
    let mut source = open_source(&context, LOG, None).await;
    assert!(!source_config(LOG).finite());
    append(&log, "one\ntwo\nthr");
    assert_eq!(values(source.as_mut(), 2).await, ["one", "two"]);
    // Half a line waits for its line break, also over a restart.
    looks_in_vain(source.as_mut()).await;
    let position = source.position();
    append(&log, "ee\n");
    assert_eq!(values(source.as_mut(), 1).await, ["three"]);
    let mut resumed = open_source(&context, LOG, Some(&position)).await;
    assert_eq!(values(resumed.as_mut(), 1).await, ["three"]);
    assert_eq!(resumed.progress(), None);
}

#[tokio::test]
async fn a_batch_is_closed_when_its_wait_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut context = context(folder.path(), 3);
    append(&log, "1\n2\n3\n4\n");
    context.batch.wait = Span(Duration::from_millis(5));
    let mut source = open_source(&context, LOG, None).await;
    assert_eq!(next(source.as_mut()).await.unwrap().len(), 3);
    assert_eq!(next(source.as_mut()).await.unwrap().len(), 1);
}

/// With an hour to wait: rows are handed out when the stages behind have nothing to do, and not before.
#[tokio::test]
async fn rows_gather_only_while_others_are_on_their_way() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut context = context(folder.path(), 100);
    context.batch.wait = Span(Duration::from_secs(3600));
    let mut source = open_source(&context, LOG, None).await;
    let demand = Demand::new();
    source.set_demand(demand.clone());
    append(&log, "alone\n");
    assert_eq!(values(source.as_mut(), 1).await, ["alone"]);
    let pass = demand.pass();
    append(&log, "one\n");
    looks_in_vain(source.as_mut()).await;
    append(&log, "two\n");
    looks_in_vain(source.as_mut()).await;
    // Asked first, and told then that nothing is on its way any more.
    let (batch, ()) = tokio::join!(next(source.as_mut()), async { drop(pass) });
    assert_eq!(batch.unwrap().len(), 2);
}

#[tokio::test]
async fn rotation_by_renaming() {
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (folder.path().join("log"), folder.path().join("old"));
    let mut writer = File::create(&log).unwrap();
    writer.write_all(b"1\n").unwrap();
    let context = context(folder.path(), 100);
    let mut source = open_source(&context, LOG, None).await;
    assert_eq!(values(source.as_mut(), 1).await, ["1"]);
    fs::rename(&log, &old).unwrap();
    // The writer has not noticed yet, and there is no new file: its rows still come.
    writer.write_all(b"2\n").unwrap();
    assert_eq!(values(source.as_mut(), 1).await, ["2"]);
    // The new file waits until the old one is read to its end, a last line without a line break too.
    append(&log, "4\n");
    writer.write_all(b"3").unwrap();
    drop(writer);
    assert_eq!(values(source.as_mut(), 2).await, ["3", "4"]);
    append(&log, "5\n");
    assert_eq!(values(source.as_mut(), 1).await, ["5"]);
    assert_eq!(source.position().0.keys().collect::<Vec<_>>(), [log.to_str().unwrap()]);
}

#[tokio::test]
async fn rotation_by_cutting_short() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    append(&log, "first\nsecond\nhalf");
    let context = context(folder.path(), 100);
    let mut source = open_source(&context, LOG, None).await;
    assert_eq!(values(source.as_mut(), 2).await, ["first", "second"]);
    let before = source.position();
    File::create(&log).unwrap();
    append(&log, "new\n");
    assert_eq!(values(source.as_mut(), 1).await, ["new"]);
    // Cut short while nobody looked.
    let mut resumed = open_source(&context, LOG, Some(&before)).await;
    assert_eq!(values(resumed.as_mut(), 1).await, ["new"]);
    // Cut short and already longer than before, while nobody looked.
    append(&log, "and so on, past the old length\n");
    let mut resumed = open_source(&context, LOG, Some(&before)).await;
    assert_eq!(values(resumed.as_mut(), 2).await[0], "new");
}

#[tokio::test]
async fn rotation_while_the_pipeline_was_down() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    append(&log, "1\n");
    let context = context(folder.path(), 100);
    let mut source = open_source(&context, LOG, None).await;
    assert_eq!(values(source.as_mut(), 1).await, ["1"]);
    append(&log, "2\n");
    let position = source.position();
    drop(source);
    append(&log, "3\n");
    fs::rename(&log, folder.path().join("archived.1")).unwrap();
    append(&log, "4\n");
    let mut resumed = open_source(&context, LOG, Some(&position)).await;
    assert_eq!(values(resumed.as_mut(), 3).await, ["2", "3", "4"]);
    let mut again = open_source(&context, LOG, Some(&resumed.position())).await;
    append(&log, "5\n");
    assert_eq!(values(again.as_mut(), 1).await, ["5"]);
}

#[tokio::test]
async fn a_pattern_that_the_rotated_files_match_too() {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name);
    append(&name("log"), "b\n");
    append(&name("log.1"), "a\n");
    let context = context(folder.path(), 100);
    let mut source = open_source(&context, LOGS, None).await;
    assert_eq!(values(source.as_mut(), 2).await, ["b", "a"]);
    // The whole chain moves on by one, and nothing is read twice.
    append(&name("log"), "c\n");
    fs::rename(name("log.1"), name("log.2")).unwrap();
    fs::rename(name("log"), name("log.1")).unwrap();
    append(&name("log"), "d\n");
    let mut rows = values(source.as_mut(), 2).await;
    rows.sort();
    assert_eq!(rows, ["c", "d"]);
    append(&name("log.new"), "e\n");
    assert_eq!(values(source.as_mut(), 1).await, ["e"]);
    let position = source.position();
    let names = ["log", "log.1", "log.2", "log.new"].map(|file| name(file).display().to_string());
    assert_eq!(position.0.keys().cloned().collect::<Vec<_>>(), names);
    // The same while the pipeline is down.
    append(&name("log"), "f\n");
    fs::rename(name("log.2"), name("log.3")).unwrap();
    fs::rename(name("log.1"), name("log.2")).unwrap();
    fs::rename(name("log"), name("log.1")).unwrap();
    append(&name("log"), "g\n");
    let mut resumed = open_source(&context, LOGS, Some(&position)).await;
    let mut rows = values(resumed.as_mut(), 2).await;
    rows.sort();
    assert_eq!(rows, ["f", "g"]);
    looks_in_vain(resumed.as_mut()).await;
}

#[tokio::test]
async fn a_deleted_file_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    append(&log, "1\n");
    let context = context(folder.path(), 100);
    let mut source = open_source(&context, LOG, None).await;
    assert_eq!(values(source.as_mut(), 1).await, ["1"]);
    append(&log, "2");
    fs::remove_file(&log).unwrap();
    assert_eq!(values(source.as_mut(), 1).await, ["2"], "what it still had, read by its handle");
    append(&log, "3\n");
    assert_eq!(values(source.as_mut(), 1).await, ["3"]);
}

#[tokio::test]
async fn each_csv_file_has_its_own_header() {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name);
    append(&name("log1"), "value,a\nx1,1\n");
    append(&name("log2"), "b,value\n2,x2\n");
    let context = context(folder.path(), 100);
    let toml = "path = 'log*'\nformat = 'csv'\nfollow = true\npoll = '1ms'\nschema = { value = 'text' }";
    let mut source = open_source(&context, toml, None).await;
    let mut rows = values(source.as_mut(), 2).await;
    for n in 3..7 {
        append(&name("log1"), &format!("x{n}a,1\n"));
        append(&name("log2"), &format!("2,x{n}b\n"));
        rows.extend(values(source.as_mut(), 2).await);
        source = open_source(&context, toml, Some(&source.position())).await;
    }
    rows.sort();
    assert_eq!(rows, ["x1", "x2", "x3a", "x3b", "x4a", "x4b", "x5a", "x5b", "x6a", "x6b"]);
}
