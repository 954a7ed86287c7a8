//! Finite reading.

use std::fs;
use std::path::Path;

use acequia_connector_api::{ColumnType, SinkConfig, SourceConfig, column_type_of};

use super::*;
use crate::FileFormat;

/// The course's `people.json`: one array over many lines, one person without an age.
const PEOPLE: &str = r#"[
  {
    "name": "Michael"
  },
  {
    "name": "Andy",
    "age": 30
  },
  { "name": "Justin", "age": 19 }
]
"#;

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(name), content).unwrap();
}

#[test]
fn the_examples_are_right() {
    toml::from_str::<toml::Table>(FileSource::EXAMPLE).unwrap();
    for (example, key) in [(FileSource::EXAMPLE, "source"), (FileSink::EXAMPLE, "sink")] {
        let mut table: toml::Table = toml::from_str(example).unwrap();
        assert_eq!(table.remove("type"), Some("file".into()), "{key}");
        let table = toml::to_string(&table).unwrap();
        match key {
            "source" => source_config(&table).check().unwrap(),
            _ => sink_config(&table).check().unwrap(),
        }
    }
}

#[test]
fn a_wrong_configuration_names_its_key() {
    let source = |toml: &str| {
        let error = toml::from_str::<FileSource>(toml).unwrap().check().unwrap_err();
        format!("{}: {error}", error.key)
    };
    let sink = |toml: &str| {
        let error = toml::from_str::<FileSink>(toml).unwrap().check().unwrap_err();
        format!("{}: {error}", error.key)
    };
    let errors = [
        source("path = ''"),
        source("path = 'a['"),
        source("path = 'a'\nmax_record = 0"),
        source("path = 'a'\npoll = '0ms'"),
        source("path = 'a.parquet'\nfollow = true"),
        source("path = 'a'\nformat = 'text'\nschema = { x = 'text' }"),
        sink("path = ''"),
        sink("path = 'out/'"),
        sink("path = 'a'\nvalue = 'x'"),
        sink("path = 'a.csv'\ncsv = { delimiter = '\"' }"),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    path: is empty; name a file, such as "people.json"
    path: is not a pattern that can be read: Pattern syntax error near position 1: invalid range pattern
    max_record: must be at least 1 byte; the default is "16MiB"
    poll: must be longer than nothing; the default is "250ms"
    follow: can't be used with Parquet: such a file can only be read once it is complete
    schema.x: format text has only the column `value`: declare its type, or use json or csv
    path: is empty; name a file, such as "out.jsonl"
    path: names a folder; name a file in it
    value: is only for the formats "text" and "raw"; the others write every column
    csv.quote: is the same as `csv.delimiter`: take another character
    "#);
    assert!(toml::from_str::<FileSource>("path = 'a'\nfolow = true").is_err());
}

#[test]
fn the_name_tells_the_format() {
    for (path, format) in [
        ("a.csv", FileFormat::Csv),
        ("a.parquet", FileFormat::Parquet),
        ("a.jsonl", FileFormat::Json),
        ("a.txt", FileFormat::Json),
        ("*.csv", FileFormat::Csv),
    ] {
        assert_eq!(source_config(&format!("path = '{path}'")).format(), format, "{path}");
        assert_eq!(sink_config(&format!("path = '{path}'")).format(), format, "{path}");
    }
    assert_eq!(source_config("path = 'a.csv'\nformat = 'text'").format(), FileFormat::Text);
}

#[tokio::test]
async fn people_over_many_lines() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "people.json", PEOPLE);
    let context = context(folder.path(), 100);
    let mut source = open_source(&context, "path = 'people.json'", None).await;
    let batches = all(source.as_mut()).await;
    let [batch] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!(
        shown(batch),
        [r#"2: {"name":"Michael","age":null}"#, r#"5: {"name":"Andy","age":30}"#, r#"9: {"name":"Justin","age":19}"#]
    );
    assert_eq!(column_type_of(batch.rows.schema().field(1)), Some(ColumnType::Int64));
    // The same file as one object over many lines.
    write(folder.path(), "one.json", "{\n  \"name\": \"Ann\",\n  \"age\": 7\n}");
    assert_eq!(read(folder.path(), 9, "path = 'one.json'").await, [r#"1: {"name":"Ann","age":7}"#]);
}

#[tokio::test]
async fn every_format_goes_on_after_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lines: String = (0..10).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let array = format!("[{}]", (0..10).map(|n| format!("{{\"n\":\n{n}}}")).collect::<Vec<_>>().join(",\r\n"));
    let csv: String = format!("n,t\n{}", (0..10).map(|n| format!("{n},\"a\nb{n}\"\n")).collect::<String>());
    let text: String = (0..10).map(|n| format!("line {n}\r\n")).collect();
    write(folder, "lines.jsonl", lines);
    write(folder, "array.json", array);
    write(folder, "rows.csv", csv);
    write(folder, "text", format!("\u{feff}{text}last"));
    for toml in [
        "path = 'lines.jsonl'",
        "path = 'array.json'",
        "path = 'array.json'\nschema = { n = 'float64' }",
        "path = 'rows.csv'",
        "path = 'rows.csv'\nschema = { n = 'int64' }",
        "path = 'text'\nformat = 'text'",
        "path = 'text'\nformat = 'raw'",
        "path = '*[ts]*'\nformat = 'text'",
    ] {
        let whole = read(folder, 1000, toml).await;
        assert!(whole.len() >= 10, "{toml}: {whole:?}");
        for rows in [1, 3, 4] {
            let context = context(folder, rows);
            let mut source = open_source(&context, toml, None).await;
            let mut seen = Vec::new();
            let mut random = Random(rows as u64);
            while let Some(batch) = next_with_cancels(source.as_mut(), &mut random).await {
                assert!(batch.len() <= rows);
                seen.extend(shown(&batch));
                // By way of text, as the engine stores it.
                let stored = serde_json::to_string(&source.position()).unwrap();
                let stored = serde_json::from_str(&stored).unwrap();
                let mut resumed = open_source(&context, toml, Some(&stored)).await;
                let rest = shown_all(&all(resumed.as_mut()).await);
                assert_eq!(seen.iter().chain(&rest).cloned().collect::<Vec<_>>(), whole, "{toml}, {rows} rows");
            }
            assert_eq!(seen, whole, "{toml}, {rows} rows");
            let progress = source.progress().unwrap();
            assert_eq!(progress.done, progress.total);
            // At the end there is nothing more, also after a restart.
            let mut again = open_source(&context, toml, Some(&source.position())).await;
            assert!(all(again.as_mut()).await.is_empty(), "{toml}");
        }
    }
}

#[tokio::test]
async fn what_was_inferred_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.json", "{\"a\": 1, \"b\": 2.5}\n{\"a\": null}\n");
    let context = context(folder.path(), 1);
    let mut source = open_source(&context, "path = 'a.json'", None).await;
    next(source.as_mut()).await.unwrap();
    let mut resumed = open_source(&context, "path = 'a.json'", Some(&source.position())).await;
    let batch = next(resumed.as_mut()).await.unwrap();
    assert_eq!(shown(&batch), [r#"2: {"a":null,"b":null}"#]);
    assert_eq!(column_type_of(batch.rows.schema().field(1)), Some(ColumnType::Float64));
}

#[tokio::test]
async fn broken_json_at_row_3_of_10_loses_only_that_row() {
    let folder = tempfile::tempdir().unwrap();
    let row = |n: i32| if n == 3 { "{\"n\": }".to_owned() } else { format!("{{\"n\": {n}}}") };
    write(folder.path(), "lines.jsonl", (1..=10).map(|n| row(n) + "\n").collect::<String>());
    write(folder.path(), "array.json", format!("[\n{}\n]", (1..=10).map(row).collect::<Vec<_>>().join(",\n")));
    for (path, line) in [("lines.jsonl", 3), ("array.json", 4)] {
        let context = context(folder.path(), 4);
        let batches = all(open_source(&context, &format!("path = '{path}'"), None).await.as_mut()).await;
        let rows: usize = batches.iter().map(Batch::len).sum();
        let failed: Vec<_> = batches.iter().flat_map(|batch| &batch.failed).collect();
        assert_eq!(rows, 9, "{path}");
        let [failed] = &failed[..] else { panic!("{failed:?}") };
        assert_eq!(failed.offset, Some(line), "{path}");
        assert_eq!(failed.partition.as_deref(), folder.path().join(path).to_str());
        assert_eq!(failed.row.as_deref(), Some("{\"n\": }"));
    }
}

#[tokio::test]
async fn bad_bytes_lose_only_their_own_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = b"\xEF\xBB\xBFfirst\r\nnul \0 here\n\xFF\xFE\n".to_vec();
    bytes.extend(vec![b'x'; 10_000]);
    bytes.extend(b"\n\nlast");
    write(folder.path(), "log", bytes);
    let batches = read(folder.path(), 3, "path = 'log'\nformat = 'text'\nmax_record = '1kB'").await;
    let places: Vec<_> = batches.iter().map(|row| row.get(..18).unwrap_or(row)).collect();
    assert_eq!(
        places,
        [
            r#"1: {"value":"first"#,
            r#"2: {"value":"nul \"#,
            "3! not valid UTF-8",
            r#"5: {"value":""}"#,
            r#"6: {"value":"last""#,
            "4! a line of 10000",
        ]
    );
    // Raw takes any byte; only the length is bounded.
    let raw = read(folder.path(), 100, "path = 'log'\nformat = 'raw'\nmax_record = '1kB'").await;
    assert_eq!(raw.iter().filter(|row| row.contains('!')).count(), 1);
    assert_eq!(raw[2], r#"3: {"value":"//4="}"#);
}

#[tokio::test]
async fn an_empty_file_has_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("e.json", ""), ("e.csv", ""), ("h.csv", "a,b\n"), ("e.txt", ""), ("a.json", " [ ] \n")] {
        write(folder.path(), name, content);
        assert!(read(folder.path(), 10, &format!("path = '{name}'")).await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn files_come_in_the_order_of_their_names_and_share_batches() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.csv", "n,b\n3,x\n4,y\n");
    write(folder.path(), "a.csv", "b,n\nu,1\nv,2");
    write(folder.path(), "c.txt", "not read");
    let context = context(folder.path(), 3);
    let mut source = open_source(&context, "path = '*.csv'\nschema = { b = 'text', n = 'int64' }", None).await;
    let first = next(source.as_mut()).await.unwrap();
    assert_eq!(shown(&first), [r#"2: {"b":"u","n":1}"#, r#"3: {"b":"v","n":2}"#, r#"2: {"b":"x","n":3}"#]);
    assert_eq!(first.origin.locate(2).0.as_deref(), folder.path().join("b.csv").to_str());
    let position = source.position();
    let mut resumed =
        open_source(&context, "path = '*.csv'\nschema = { b = 'text', n = 'int64' }", Some(&position)).await;
    assert_eq!(shown_all(&all(resumed.as_mut()).await), [r#"3: {"b":"y","n":4}"#]);
}

#[tokio::test]
async fn a_restart_reads_what_was_added_and_what_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "grown", "1\n2\n");
    write(folder.path(), "replaced", "old\n");
    write(folder.path(), "renamed", "same\n");
    write(folder.path(), "deleted", "gone\n");
    let context = context(folder.path(), 10);
    let toml = "path = '*'\nformat = 'text'";
    let mut source = open_source(&context, toml, None).await;
    assert_eq!(all(source.as_mut()).await.len(), 1);
    let position = source.position();

    fs::write(folder.path().join("grown"), "1\n2\n3\n").unwrap();
    write(folder.path(), "replaced", "completely new\n");
    fs::rename(folder.path().join("renamed"), folder.path().join("s")).unwrap();
    fs::remove_file(folder.path().join("deleted")).unwrap();
    let mut resumed = open_source(&context, toml, Some(&position)).await;
    assert_eq!(shown_all(&all(resumed.as_mut()).await), [r#"3: {"value":"3"}"#, r#"1: {"value":"completely new"}"#]);
    let names: Vec<_> = resumed.position().0.into_keys().filter(|name| !name.is_empty()).collect();
    let expected = ["grown", "replaced", "s"].map(|name| folder.path().join(name).display().to_string());
    assert_eq!(names, expected, "the position keeps no deleted file");
    let mut again = open_source(&context, toml, Some(&resumed.position())).await;
    assert!(all(again.as_mut()).await.is_empty());
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let mut errors = Vec::new();
    for toml in ["path = 'none.json'", "path = 'data-*.json'", "path = 'folder'"] {
        let opened = source_config(toml).open(&context(folder.path(), 1), None).await;
        let Err(error) = opened else { panic!("{toml} was opened") };
        errors.push(error.to_string().replace(&folder.path().display().to_string(), "DIR"));
    }
    let followed = source_config("path = 'folder'\nfollow = true").open(&context(folder.path(), 1), None).await;
    assert!(followed.is_err(), "a folder is not followed in vain");
    assert_eq!(
        errors,
        [
            "there is no file `DIR/none.json`",
            "no file matches the pattern `DIR/data-*.json`",
            "`DIR/folder` is a folder; for the files in it write `DIR/folder/*`",
        ]
    );
}

#[tokio::test]
async fn a_file_that_vanishes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        write(folder.path(), name, format!("{name}1\n{name}2\n{name}3\n"));
    }
    let context = context(folder.path(), 2);
    let mut source = open_source(&context, "path = '[abc]'\nformat = 'text'", None).await;
    next(source.as_mut()).await.unwrap();
    // In the middle: it is read to its end. Before it was opened: an error that says so, after all earlier rows.
    fs::remove_file(folder.path().join("a")).unwrap();
    fs::remove_file(folder.path().join("b")).unwrap();
    assert_eq!(shown(&next(source.as_mut()).await.unwrap()), [r#"3: {"value":"a3"}"#]);
    for _ in 0..2 {
        let error = source.next().await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("/b` is gone since the source was opened"), "{error}");
    }
    // It comes back, and all goes on.
    write(folder.path(), "b", "b1\n");
    assert_eq!(shown_all(&all(source.as_mut()).await).len(), 4);
}
