//! A file that is decoded on several cores, beside the same file read by one.

use std::fs;

use acequia_connector_api::{Position, Source};
use proptest::prelude::*;

use super::*;

const CONFIG: &str = "path = 'rows.jsonl'";

/// What comes out, and every position on the way with the number of rows before it.
async fn rows_and_positions(source: &mut dyn Source) -> (Vec<String>, Vec<(usize, Position)>) {
    let (mut rows, mut positions) = (Vec::new(), Vec::new());
    while let Some(batch) = next(source).await {
        rows.extend(shown(&batch));
        positions.push((rows.len(), source.position()));
    }
    positions.push((rows.len(), source.position()));
    (rows, positions)
}

fn on_cores<T>(cores: usize, work: impl Future<Output = T>) -> T {
    let mut runtime = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if cores > 1 {
        runtime.worker_threads(cores);
    }
    runtime.enable_all().build().unwrap().block_on(work)
}

/// A file of so many rows in a folder of its own.
fn rows_of(rows: usize, row: impl Fn(usize) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..rows).map(|number| row(number) + "\n").collect();
    fs::write(folder.path().join("rows.jsonl"), text).unwrap();
    folder
}

fn number(number: usize) -> String {
    format!("{{\"n\":{number}}}")
}

fn read_on(cores: usize, folder: &Path, rows: usize) -> (Vec<String>, Vec<(usize, Position)>) {
    on_cores(cores, async {
        let context = context(folder, rows);
        rows_and_positions(open_source(&context, CONFIG, None).await.as_mut()).await
    })
}

/// Rows without what depends on where a batch ends: a type that is widened later in it, a column that comes later in it.
fn without_types(rows: &[String]) -> Vec<String> {
    let plain = |row: &String| {
        ["\"", ".0", ",s:null", ",m:null", "n:null,"].iter().fold(row.clone(), |row, part| row.replace(part, ""))
    };
    rows.iter().map(plain).collect()
}

#[test]
fn the_rows_and_their_lines_are_those_of_one_reader() {
    let folder = rows_of(500, |row| format!("{{\"n\":{row},\"s\":\"text {row}\"}}"));
    let (alone, _) = read_on(1, folder.path(), 7);
    assert_eq!(alone.len(), 500);
    assert_eq!(alone[499], "500: {\"n\":499,\"s\":\"text 499\"}");
    for cores in 2..4 {
        assert_eq!(read_on(cores, folder.path(), 7).0, alone);
    }
}

// invariant 2
#[test]
fn every_position_goes_on_where_it_was_taken() {
    let folder = rows_of(120, number);
    let (rows, positions) = read_on(3, folder.path(), 4);
    assert!(positions.len() > 30);
    for (cores, (before, position)) in positions.iter().enumerate().map(|(index, at)| (1 + index % 3, at)) {
        let rest = on_cores(cores, async {
            let context = context(folder.path(), 4);
            rows_and_positions(open_source(&context, CONFIG, Some(position)).await.as_mut()).await.0
        });
        assert_eq!(rest, rows[*before..], "{position:?}");
    }
}

#[test]
fn a_read_that_is_given_up_takes_nothing_along() {
    let folder = rows_of(300, number);
    let (alone, _) = read_on(1, folder.path(), 5);
    let rows = on_cores(2, async {
        let (context, mut random) = (context(folder.path(), 5), Random(7));
        let mut source = open_source(&context, CONFIG, None).await;
        let mut rows = Vec::new();
        while let Some(batch) = next_with_cancels(source.as_mut(), &mut random).await {
            rows.extend(shown(&batch));
        }
        rows
    });
    assert_eq!(rows, alone);
}

/// Text of which most is one row a line, and some is not.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => (0u32..2000).prop_map(|n| format!("{{\"n\":{n}}}\n")),
        4 => "[a-z ]{0,60}".prop_map(|s| format!("{{\"n\":1,\"s\":\"{s}\"}}\n")),
        1 => Just("{\"n\":2.5}\n".to_owned()),
        1 => Just("{\"n\":\"x\"}\n".to_owned()),
        1 => Just("{\"n\":3,\"m\":true}\r\n".to_owned()),
        1 => Just("{\n  \"n\": 4,\n  \"s\": \"two lines\"\n}\n".to_owned()),
        1 => Just("[{\"n\":5},\n{\"n\":6},\n{\"n\":7}]\n".to_owned()),
        1 => Just("\n\n \n".to_owned()),
        1 => Just("{\"n\":8} {\"n\":9}\n".to_owned()),
        1 => Just("{\"n\":\n".to_owned()),
        1 => Just("not JSON\n".to_owned()),
    ];
    (prop::collection::vec(piece, 0..60), any::<bool>()).prop_map(|(pieces, cut)| {
        let mut text = pieces.concat();
        if cut {
            text.pop();
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // invariant 2
    #[test]
    fn whatever_is_in_the_file_the_rows_are_those_of_one_reader(text in any_text(), cores in 2usize..4) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rows.jsonl"), &text).unwrap();
        let alone = read_on(1, folder.path(), 3);
        let (rows, positions) = read_on(cores, folder.path(), 3);
        // Failed rows stand behind the rows of their batch.
        let sorted = |rows: &[String]| {
            let mut rows = without_types(rows);
            rows.sort();
            rows
        };
        prop_assert_eq!(sorted(&rows), sorted(&alone.0));
        prop_assert_eq!(positions.last().map(|(_, at)| at), alone.1.last().map(|(_, at)| at));
    }
}
