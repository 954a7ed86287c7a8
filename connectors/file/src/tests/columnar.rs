//! Parquet both ways.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use acequia_connector_api::{ColumnType, Origin};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow_array::{TimestampMicrosecondArray, new_null_array};
use arrow_schema::Schema;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::sink::{numbers, types};
use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Rows `0..count` in row groups of three.
fn write_groups(path: &Path, count: i64) {
    let rows = numbers(0, count).rows;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn every_type_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 10);
    let columns: Vec<(ColumnType, ArrayRef)> = vec![
        (ColumnType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None]))),
        (ColumnType::Int64, Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX)]))),
        (ColumnType::Float64, Arc::new(Float64Array::from(vec![Some(0.1), None]))),
        (ColumnType::Timestamp, Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None]).with_timezone("UTC"))),
        (ColumnType::Text, Arc::new(StringArray::from(vec![Some("ä"), Some("")]))),
        (ColumnType::Binary, Arc::new(BinaryArray::from(vec![Some(&b"\0\xFF"[..]), None]))),
        (ColumnType::Json, Arc::new(StringArray::from(vec![Some("[1]"), Some("{\"a\":null}")]))),
    ];
    let fields: Vec<_> = columns.iter().map(|(kind, _)| kind.arrow_field(kind.name(), true)).collect();
    let (kinds, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let batch = Batch::new(rows, Origin::Unknown);
    let mut sink = open_sink(&context, "path = 'a.parquet'", None).await;
    assert_eq!(sink.write(&batch).await.unwrap(), []);
    sink.flush().await.unwrap();
    let mut source = open_source(&context, "path = 'a-00001.parquet'", None).await;
    let back = next(source.as_mut()).await.unwrap();
    assert_eq!(types(&back), kinds.into_iter().map(Some).collect::<Vec<_>>());
    for row in 0..2 {
        assert_eq!(row_to_json(&back.rows, row), row_to_json(&batch.rows, row));
    }
    assert_eq!(back.origin.locate(1).1, Some(2));
}

#[tokio::test]
async fn reading_goes_on_after_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    write_groups(&folder.path().join("a.parquet"), 10);
    write_groups(&folder.path().join("b.parquet"), 4);
    let toml = "path = '*.parquet'";
    let whole = read(folder.path(), 100, toml).await;
    assert_eq!(whole.len(), 14);
    assert_eq!(whole[9], r#"10: {"n":9,"value":"t9"}"#);
    for rows in [1, 2, 3, 5] {
        let context = context(folder.path(), rows);
        let mut source = open_source(&context, toml, None).await;
        let mut seen = Vec::new();
        let mut random = Random(rows as u64);
        while let Some(batch) = next_with_cancels(source.as_mut(), &mut random).await {
            assert!(batch.len() <= rows);
            seen.extend(shown(&batch));
            let mut resumed = open_source(&context, toml, Some(&source.position())).await;
            let rest = shown_all(&all(resumed.as_mut()).await);
            assert_eq!(seen.iter().chain(&rest).cloned().collect::<Vec<_>>(), whole, "{rows} rows");
        }
        assert_eq!(seen, whole);
        let progress = source.progress().unwrap();
        assert_eq!(progress.done, progress.total);
    }
    // A small limit of bytes makes small batches.
    let mut context = context(folder.path(), 100);
    context.batch.bytes = ByteSize(1);
    let mut source = open_source(&context, toml, None).await;
    assert_eq!(next(source.as_mut()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_declared_schema_is_authoritative() {
    let folder = tempfile::tempdir().unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("1.5"), Some("x"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("value", text, true)]).unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let toml = "path = 'a.parquet'\nschema = { more = 'int64', value = 'float64' }";
    let rows = read(folder.path(), 10, toml).await;
    assert_eq!(rows[..2], [r#"1: {"more":null,"value":1.5}"#, r#"3: {"more":null,"value":null}"#]);
    assert!(rows[2].starts_with("2! column `value`: "), "{}", rows[2]);
    assert_eq!(source_config(toml).schema().fields.len(), 2);
}

#[tokio::test]
async fn a_value_beyond_the_types_fails_its_row_alone() {
    let folder = tempfile::tempdir().unwrap();
    let big: ArrayRef = Arc::new(UInt64Array::from(vec![1, u64::MAX, 3]));
    let nulls = new_null_array(&arrow_schema::DataType::Utf8, 3);
    let rows = RecordBatch::try_from_iter_with_nullable([("big", big, false), ("t", nulls, true)]).unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let context = context(folder.path(), 10);
    let batch = next(open_source(&context, "path = 'a.parquet'", None).await.as_mut()).await.unwrap();
    assert_eq!(shown(&batch)[..2], [r#"1: {"big":1,"t":null}"#, r#"3: {"big":3,"t":null}"#]);
    let [failed] = &batch.failed[..] else { panic!("{:?}", batch.failed) };
    assert_eq!(failed.offset, Some(2));
    assert_eq!(failed.row.as_deref(), Some("big=18446744073709551615, t=null"));
}

#[tokio::test]
async fn a_file_that_is_no_parquet_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.parquet"), "not at all").unwrap();
    let mut source = open_source(&context(folder.path(), 1), "path = 'a.parquet'", None).await;
    let error = source.next().await.unwrap_err();
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("a.parquet"), "{error}");
}

#[tokio::test]
async fn files_beyond_the_checkpoint_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path(), 100);
    let toml = "path = 'a.parquet'";
    let mut sink = open_sink(&context, toml, None).await;
    sink.write(&numbers(0, 2)).await.unwrap();
    let state = sink.flush().await.unwrap().state.unwrap();
    // A flush without rows makes no file.
    assert_eq!(sink.flush().await.unwrap().state, Some(state.clone()));
    // Another schema begins another file by itself.
    sink.write(&numbers(2, 1)).await.unwrap();
    let narrow = Batch::new(numbers(3, 1).rows.project(&[0]).unwrap(), Origin::Unknown);
    sink.write(&narrow).await.unwrap();
    sink.flush().await.unwrap();
    sink.write(&numbers(4, 1)).await.unwrap();
    assert_eq!(
        names(folder.path()),
        [".a-00004.parquet.part", "a-00001.parquet", "a-00002.parquet", "a-00003.parquet"]
    );
    // A crash: dropped without `close`.
    drop(sink);
    let mut sink = open_sink(&context, toml, Some(&state)).await;
    assert_eq!(names(folder.path()), ["a-00001.parquet"]);
    sink.write(&numbers(2, 3)).await.unwrap();
    sink.flush().await.unwrap();
    let rows = read(folder.path(), 100, "path = 'a-*.parquet'").await;
    assert_eq!(rows.len(), 5);
    // An ordered stop leaves nothing half, and a first start appends.
    sink.write(&numbers(5, 1)).await.unwrap();
    sink.close().await;
    let mut sink = open_sink(&context, toml, None).await;
    sink.write(&numbers(5, 1)).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(names(folder.path()), ["a-00001.parquet", "a-00002.parquet", "a-00003.parquet"]);
    drop(open_sink(&context, "path = 'a.parquet'\nappend = false", None).await);
    assert!(names(folder.path()).is_empty());
}
