//! From file to file through many crashes: position and state from the same checkpoint, as the engine stores them, and
//! every row arrives once (invariants 1, 2 and 4).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::*;

const ROWS: u64 = 400;

struct Checkpoint {
    position: Position,
    state: Value,
}

/// Run until the end or until chance says crash; true at the end.
async fn run(
    context: &Context,
    source: &str,
    sink: &str,
    stored: &mut Option<Checkpoint>,
    random: &mut Random,
) -> bool {
    let position = stored.as_ref().map(|stored| &stored.position);
    let mut source = open_source(context, source, position).await;
    let mut sink = open_sink(context, sink, stored.as_ref().map(|stored| &stored.state)).await;
    // A checkpoint before the first row, so that a crash before the second one cuts back to here.
    let state = sink.flush().await.unwrap().state.unwrap();
    *stored = Some(Checkpoint { position: source.position(), state });
    loop {
        let batch = next_with_cancels(source.as_mut(), random).await;
        if let Some(batch) = &batch {
            assert!(sink.write(batch).await.unwrap().is_empty());
        }
        let crash = random.below(5) == 0;
        if batch.is_none() || random.below(3) == 0 {
            let state = sink.flush().await.unwrap().state.unwrap();
            // The crash may come between the flush and the store.
            if !crash {
                *stored = Some(Checkpoint { position: source.position(), state });
            }
        }
        if crash {
            return false;
        }
        if batch.is_none() {
            return true;
        }
    }
}

/// What a crash may leave behind the last row that was written.
fn tear(path: &Path, random: &mut Random) {
    if let (0, true) = (random.below(2), path.exists()) {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"n\": 12, \"value").unwrap();
    }
}

async fn copy_through_crashes(input: &str, output: &str, rotate: bool, seed: u64) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name);
    let rows: String = (0..ROWS).map(|n| format!("{{\"n\":{n},\"value\":\"t{n}\"}}\n")).collect();
    fs::write(name("in.jsonl"), rows).unwrap();
    fs::write(name("in.csv"), "n,value\n".to_owned() + &(0..ROWS).map(|n| format!("{n},t{n}\n")).collect::<String>())
        .unwrap();
    let source = format!("path = '{input}'\nschema = {{ n = 'int64', value = 'text' }}");
    let sink = format!("path = '{output}'");
    let mut random = Random(seed);
    let (mut stored, mut crashes, mut rotations) = (None, 0, 0);
    loop {
        let context = context(folder.path(), 1 + random.below(9) as usize);
        if run(&context, &source, &sink, &mut stored, &mut random).await {
            break;
        }
        crashes += 1;
        if rotate && random.below(3) == 0 && name(output).exists() {
            rotations += 1;
            fs::rename(name(output), name(&format!("{rotations:03}-{output}"))).unwrap();
        } else if !output.ends_with("parquet") {
            tear(&name(output), &mut random);
        }
    }
    assert!(crashes > 3, "only {crashes} crashes");
    let pattern = format!("*{}", output.replace(".parquet", "-*.parquet"));
    let mut values: Vec<String> = Vec::new();
    for batch in
        all(open_source(&context(folder.path(), 1000), &format!("path = '{pattern}'"), None).await.as_mut()).await
    {
        assert!(batch.failed.is_empty(), "{:?}", batch.failed);
        values.extend((0..batch.len()).map(|row| row_to_json(&batch.rows, row)["value"].as_str().unwrap().to_owned()));
    }
    values
}

#[tokio::test]
async fn every_row_once_through_crashes() {
    let expected: Vec<String> = (0..ROWS).map(|n| format!("t{n}")).collect();
    for seed in 0..8 {
        for (input, output) in
            [("in.jsonl", "out.jsonl"), ("in.csv", "out.csv"), ("in.jsonl", "out.csv"), ("in.csv", "out.parquet")]
        {
            let values = copy_through_crashes(input, output, false, seed).await;
            assert_eq!(values, expected, "{input} to {output}, seed {seed}");
        }
    }
}

#[tokio::test]
async fn every_row_once_through_crashes_and_rotations() {
    let expected: Vec<String> = (0..ROWS).map(|n| format!("t{n}")).collect();
    for seed in 0..8 {
        for output in ["out.jsonl", "out.csv"] {
            let values = copy_through_crashes("in.jsonl", output, true, seed).await;
            assert_eq!(values, expected, "to {output}, seed {seed}");
        }
    }
}
