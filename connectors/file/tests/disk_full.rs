//! A disk that is full in the middle of a row, by way of the limit on the size of a file: the kernel writes as much as
//! fits and refuses the rest. The limit holds for the whole process, so this test has one for itself.

use std::sync::Arc;

use acequia_connector_api::{Batch, BatchLimits, Context, Origin, SinkConfig};
use acequia_connector_file::FileSink;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn a_full_disk_neither_doubles_nor_halves_a_row() {
    // SAFETY: no handler is installed, the signal is only ignored, so that the write returns an error instead.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let unlimited = getrlimit(Resource::Fsize);
    let limit = |bytes: Option<u64>| {
        let current = bytes.or(unlimited.current);
        setrlimit(Resource::Fsize, Rlimit { current, ..unlimited }).unwrap();
    };
    let batch = |first: i64, end: i64| {
        let column = Arc::new(Int64Array::from_iter_values(first..end)) as ArrayRef;
        Batch::new(RecordBatch::try_from_iter([("n", column)]).unwrap(), Origin::Unknown)
    };
    let folder = tempfile::tempdir().unwrap();
    let context = Context {
        pipeline: "test".into(),
        stage: "sink".into(),
        base: folder.path().into(),
        batch: BatchLimits::default(),
        tasks: 1,
        reads: None,
        share: Default::default(),
    };
    // Where the disk is full, and what is left of the CSV file then.
    for (bytes, whole) in [(1, 0), (100, 0), (103, 101), (205, 200)] {
        for name in ["rows.csv", "rows.jsonl"] {
            let path = folder.path().join(name);
            let config: FileSink = toml::from_str(&format!("path = '{name}'\nappend = false")).unwrap();
            let mut sink = config.open(&context, None).await.unwrap();
            let batches = [batch(10, 43), batch(43, 76), batch(76, 99)];
            limit(Some(bytes));
            let mut written = 0;
            let error = loop {
                match sink.write(&batches[written]).await {
                    Ok(failed) => assert!(failed.is_empty()),
                    Err(error) => break error,
                }
                written += 1;
            };
            assert!(error.is_retryable(), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            let length = std::fs::metadata(&path).unwrap().len();
            if name == "rows.csv" {
                // `n` and 33 rows of two digits, each with its line break, are 101 bytes; the next 33 rows are 99.
                assert_eq!(length, whole, "cut back to whole batches");
            }
            assert!(sink.write(&batches[written]).await.is_err(), "still full");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
            limit(None);
            for batch in &batches[written..] {
                assert!(sink.write(batch).await.unwrap().is_empty());
            }
            sink.flush().await.unwrap();
            let expected: String = match name {
                "rows.csv" => "n\n".to_owned() + &(10..99).map(|n| format!("{n}\n")).collect::<String>(),
                _ => (10..99).map(|n| format!("{{\"n\":{n}}}\n")).collect(),
            };
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "{name} at {bytes}");
        }
    }
}
