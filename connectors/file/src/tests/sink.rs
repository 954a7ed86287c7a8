//! Writing: each row once, whatever happens.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use acequia_connector_api::{ColumnType, Origin, SinkConfig};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::*;

/// Rows `first..first + count` with columns `n` and `value`.
pub(crate) fn numbers(first: i64, count: i64) -> Batch {
    let n = Int64Array::from_iter_values(first..first + count);
    let text = StringArray::from_iter_values((first..first + count).map(|n| format!("t{n}")));
    let columns = [("n", Arc::new(n) as ArrayRef), ("value", Arc::new(text) as ArrayRef)];
    Batch::new(RecordBatch::try_from_iter(columns).unwrap(), Origin::run("test".into(), first))
}

async fn write(sink: &mut dyn Sink, batch: &Batch) {
    assert_eq!(sink.write(batch).await.unwrap(), []);
}

async fn flush(sink: &mut dyn Sink) -> Value {
    let flushed = sink.flush().await.unwrap();
    assert_eq!(flushed.failed, []);
    // By way of text, as the engine stores it.
    serde_json::from_str(&flushed.state.unwrap().to_string()).unwrap()
}

fn content(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let rows = numbers(0, 5);
    let full: Vec<String> = (0..5).map(|n| format!(r#"{{"n":{n},"value":"t{n}"}}"#)).collect();
    let value: Vec<String> = (0..5).map(|n| format!(r#"{{"value":"t{n}"}}"#)).collect();
    for (path, keys, schema, expected) in [
        ("new/folder/a.jsonl", "", "", &full),
        ("a.csv", "csv = { delimiter = ';' }", "schema = { n = 'int64', value = 'text' }", &full),
        ("b.csv", "csv = { header = false }", "", &full),
        ("a.txt", "format = 'text'", "", &value),
        ("a.parquet", "", "", &full),
    ] {
        let context = context(folder.path(), 3);
        let mut sink = open_sink(&context, &format!("path = '{path}'\n{keys}"), None).await;
        write(sink.as_mut(), &rows).await;
        flush(sink.as_mut()).await;
        let path = path.replace(".parquet", "-*.parquet");
        let keys = if path == "b.csv" {
            "csv = { header = false, columns = ['n', 'value'] }\nschema = { n = 'int64', value = 'text' }"
        } else {
            keys
        };
        let read = read(folder.path(), 3, &format!("path = '{path}'\n{keys}\n{schema}")).await;
        let read: Vec<_> = read.iter().map(|row| row.split_once(": ").unwrap().1).collect();
        assert_eq!(&read, expected, "{path}");
    }
    let mut raw = open_sink(&context(folder.path(), 3), "path = 'raw'\nformat = 'raw'\nvalue = 'value'", None).await;
    write(raw.as_mut(), &rows).await;
    flush(raw.as_mut()).await;
    assert_eq!(content(folder.path(), "raw"), "t0t1t2t3t4", "bytes as they are");
}

#[tokio::test]
async fn a_restart_cuts_back_to_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    for (name, expected) in
        [("a.jsonl", "{\"n\":0,\"value\":\"t0\"}\n{\"n\":1,\"value\":\"t1\"}\n"), ("a.csv", "n,value\n0,t0\n1,t1\n")]
    {
        let toml = format!("path = '{name}'");
        // The state of a sink that has written nothing yet cuts back to nothing.
        let mut sink = open_sink(&context, &toml, None).await;
        let empty = flush(sink.as_mut()).await;
        write(sink.as_mut(), &numbers(7, 3)).await;
        let mut sink = open_sink(&context, &toml, Some(&empty)).await;
        assert_eq!(content(folder.path(), name), "");

        write(sink.as_mut(), &numbers(0, 1)).await;
        let state = flush(sink.as_mut()).await;
        // Unconfirmed rows, a half row, and a crash.
        write(sink.as_mut(), &numbers(1, 20)).await;
        drop(sink);
        let torn = fs::read(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name), &torn[..torn.len() - 4]).unwrap();
        let mut sink = open_sink(&context, &toml, Some(&state)).await;
        write(sink.as_mut(), &numbers(1, 1)).await;
        let state = flush(sink.as_mut()).await;
        assert_eq!(content(folder.path(), name), expected);
        // Twice from the same state is the same.
        drop(open_sink(&context, &toml, Some(&state)).await);
        assert_eq!(content(folder.path(), name), expected);
    }
}

#[tokio::test]
async fn confirmed_rows_that_are_gone_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let mut sink = open_sink(&context, "path = 'a.jsonl'", None).await;
    write(sink.as_mut(), &numbers(0, 3)).await;
    let state = flush(sink.as_mut()).await;
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("a.jsonl")).unwrap();
    file.set_len(10).unwrap();
    let opened = sink_config("path = 'a.jsonl'").open(&context, Some(&state)).await;
    let Err(error) = opened else { panic!("it was opened") };
    let error = error.to_string().replace(&folder.path().display().to_string(), "DIR");
    assert_eq!(
        error,
        "`DIR/a.jsonl` has 10 bytes, but 63 at the last checkpoint: rows that were confirmed are gone from it; put the file \
         back, or rename or delete it to begin a new one"
    );
    assert_eq!(content(folder.path(), "a.jsonl").len(), 10, "it is left as it is");
    // Deleting it is the way out.
    fs::remove_file(folder.path().join("a.jsonl")).unwrap();
    let mut sink = open_sink(&context, "path = 'a.jsonl'", Some(&state)).await;
    write(sink.as_mut(), &numbers(3, 1)).await;
    flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a.jsonl"), "{\"n\":3,\"value\":\"t3\"}\n");
}

#[tokio::test]
async fn a_file_that_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let row = "{\"n\":1,\"value\":\"t1\"}\n";
    for (before, keys, after) in [
        ("{\"n\":0}\n", "", format!("{{\"n\":0}}\n{row}")),
        // The half row of some other program ends, so that ours does not run into it.
        ("{\"n\":0", "", format!("{{\"n\":0\n{row}")),
        ("old\n", "append = false", row.to_owned()),
    ] {
        fs::write(folder.path().join("a.jsonl"), before).unwrap();
        let mut sink = open_sink(&context, &format!("path = 'a.jsonl'\n{keys}"), None).await;
        write(sink.as_mut(), &numbers(1, 1)).await;
        flush(sink.as_mut()).await;
        assert_eq!(content(folder.path(), "a.jsonl"), after);
    }
    // Another path's state says nothing of this one.
    let mut sink = open_sink(&context, "path = 'b.jsonl'", None).await;
    let state = flush(sink.as_mut()).await;
    fs::write(folder.path().join("a.jsonl"), "kept\n").unwrap();
    open_sink(&context, "path = 'a.jsonl'", Some(&state)).await;
    assert_eq!(content(folder.path(), "a.jsonl"), "kept\n");
}

#[tokio::test]
async fn a_csv_file_keeps_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    fs::write(folder.path().join("a.csv"), "value,n,more\nt0,0,x\n").unwrap();
    let mut sink = open_sink(&context, "path = 'a.csv'", None).await;
    write(sink.as_mut(), &numbers(1, 1)).await;
    let state = flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a.csv"), "value,n,more\nt0,0,x\nt1,1,\n");
    let mut sink = open_sink(&context, "path = 'a.csv'", Some(&state)).await;
    let extra: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None]));
    let n: ArrayRef = Arc::new(Int64Array::from(vec![2, 3]));
    let rows = RecordBatch::try_from_iter_with_nullable([("extra", extra, true), ("n", n, false)]).unwrap();
    let failed = sink.write(&Batch::new(rows, Origin::run("t".into(), 1))).await.unwrap();
    assert_eq!(failed.iter().map(|row| row.offset).collect::<Vec<_>>(), [Some(1)]);
    assert!(failed[0].error.contains("extra"), "{}", failed[0].error);
    flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a.csv"), "value,n,more\nt0,0,x\nt1,1,\n,3,\n");
}

#[tokio::test]
async fn a_renamed_file_is_begun_anew_at_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let name = |name: &str| folder.path().join(name);
    let mut sink = open_sink(&context, "path = 'a.csv'", None).await;
    write(sink.as_mut(), &numbers(0, 1)).await;
    let before = flush(sink.as_mut()).await;
    fs::rename(name("a.csv"), name("a.csv.1")).unwrap();
    write(sink.as_mut(), &numbers(1, 1)).await;
    let state = flush(sink.as_mut()).await;
    write(sink.as_mut(), &numbers(2, 1)).await;
    flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a.csv.1"), "n,value\n0,t0\n1,t1\n");
    assert_eq!(content(folder.path(), "a.csv"), "n,value\n2,t2\n");
    // A crash after the flush, and one before its checkpoint was stored: each row is in one file, once.
    drop(open_sink(&context, "path = 'a.csv'", Some(&state)).await);
    assert_eq!(content(folder.path(), "a.csv"), "");
    let mut sink = open_sink(&context, "path = 'a.csv'", Some(&before)).await;
    assert_eq!(content(folder.path(), "a.csv.1"), "n,value\n0,t0\n");
    write(sink.as_mut(), &numbers(1, 2)).await;
    flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a.csv"), "n,value\n1,t1\n2,t2\n");
}

#[tokio::test]
async fn a_deleted_file_is_begun_anew_with_what_was_not_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let mut sink = open_sink(&context, "path = 'out/a.csv'", None).await;
    write(sink.as_mut(), &numbers(0, 1)).await;
    flush(sink.as_mut()).await;
    write(sink.as_mut(), &numbers(1, 1)).await;
    fs::remove_dir_all(folder.path().join("out")).unwrap();
    write(sink.as_mut(), &numbers(2, 1)).await;
    let state = flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "out/a.csv"), "n,value\n1,t1\n2,t2\n");
    write(sink.as_mut(), &numbers(3, 1)).await;
    open_sink(&context, "path = 'out/a.csv'", Some(&state)).await;
    assert_eq!(content(folder.path(), "out/a.csv"), "n,value\n1,t1\n2,t2\n");
}

#[tokio::test]
async fn a_file_that_another_program_cuts_short_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let mut sink = open_sink(&context, "path = 'a.csv'", None).await;
    write(sink.as_mut(), &numbers(0, 5)).await;
    flush(sink.as_mut()).await;
    fs::File::create(folder.path().join("a.csv")).unwrap();
    write(sink.as_mut(), &numbers(5, 1)).await;
    let state = flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a.csv"), "n,value\n5,t5\n");
    drop(open_sink(&context, "path = 'a.csv'", Some(&state)).await);
    assert_eq!(content(folder.path(), "a.csv"), "n,value\n5,t5\n");
}

#[tokio::test]
async fn rows_that_do_not_fit_fail_and_the_rest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let mut sink = open_sink(&context, "path = 'a'\nformat = 'text'\nvalue = 'none'", None).await;
    let failed = sink.write(&numbers(0, 2)).await.unwrap();
    assert_eq!(failed.iter().map(|row| row.offset).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert!(failed[0].error.contains("none"), "{}", failed[0].error);
    flush(sink.as_mut()).await;
    assert_eq!(content(folder.path(), "a"), "");
}

#[tokio::test]
async fn one_file_has_one_name() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let own = |toml: &str| sink_config(toml).exclusive(&context);
    let path = folder.path().join("out/a.jsonl").display().to_string();
    for spelling in ["out/a.jsonl", "./out/b/../a.jsonl", &path] {
        assert_eq!(own(&format!("path = '{spelling}'")), std::slice::from_ref(&path));
    }
    assert_eq!(sink_config("path = 'a'\nformat = 'raw'\nvalue = 'v'").reads(), Some(vec!["v".into()]));
    assert_eq!(sink_config("path = 'a'").reads(), None);
}

#[tokio::test]
async fn a_target_that_is_no_regular_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 3);
    let opened = sink_config("path = '/dev/null'").open(&context, None).await;
    let Err(error) = opened else { panic!("it was opened") };
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

/// The types of a batch's columns.
pub(crate) fn types(batch: &Batch) -> Vec<Option<ColumnType>> {
    batch.rows.schema().fields().iter().map(|field| acequia_connector_api::column_type_of(field)).collect()
}
