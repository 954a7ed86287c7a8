//! Rows whose keys are known go another way into the columns than others. What comes out must be the same.

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType};
use proptest::prelude::*;

use crate::{Decoder, Format, FormatOptions, Framer, SchemaConfig};

/// The rows with a line break in each, so that none is of the usual kind; or each by itself, without a framer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Framed,
    Unusual,
    Single,
}

fn read(options: &FormatOptions, reads: Option<&[String]>, rows: &[String], way: Way) -> Batch {
    let partition: Arc<str> = "file".into();
    let mut decoder = Decoder::new(options).reading(reads);
    let mut framer = Framer::new(options, 1 << 20);
    for row in rows {
        match way {
            Way::Framed => {
                framer.feed(format!("{row}\n").as_bytes(), &mut |frame| decoder.push_frame(&frame, &partition))
            }
            Way::Unusual => decoder.push(row.replacen('{', "{\n", 1).as_bytes(), &partition, 1),
            Way::Single => decoder.push(row.as_bytes(), &partition, 1),
        }
    }
    framer.finish(&mut |frame| decoder.push_frame(&frame, &partition));
    decoder.finish()
}

/// Rows of a few kinds, each kind with its keys in their order.
fn any_rows() -> impl Strategy<Value = Vec<String>> {
    let key = prop::sample::select(vec!["a", "b", "c", "a key that is longer than sixteen bytes", "\u{e9}"]);
    let value = prop::sample::select(vec![
        "1",
        "-7",
        "0",
        "2.5",
        "1e999",
        "null",
        "null",
        "true",
        "\"x\"",
        "\"7\"",
        "\"\"",
        "\"\\n\"",
        "[1]",
        "{\"a\":2}",
        "12345678901234567890",
        "\"\\ud800\"",
    ]);
    let kinds = prop::collection::vec(prop::collection::vec(key, 0..4), 1..3);
    let picks = prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(value, 4)), 0..24);
    (kinds, picks).prop_map(|(kinds, picks)| {
        let row = |(kind, values): (prop::sample::Index, Vec<&str>)| {
            let keys = kind.get(&kinds);
            let pairs: Vec<_> = keys.iter().zip(values).map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", pairs.join(","))
        };
        picks.into_iter().map(row).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn known_keys_change_nothing(
        rows in any_rows(),
        declared in prop::option::of(prop::sample::select(vec![ColumnType::Int64, ColumnType::Text, ColumnType::Json])),
        reads in prop::option::of(prop::sample::subsequence(vec!["a", "b", "z"], 0..3)),
    ) {
        let schema = declared.map(|kind| SchemaConfig(vec![("a".to_owned(), kind), ("c".to_owned(), ColumnType::Text)]));
        let options = FormatOptions { schema, ..FormatOptions::new(Format::Json) };
        let reads = reads.map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let unusual = read(&options, reads.as_deref(), &rows, Way::Unusual);
        for way in [Way::Framed, Way::Single] {
            let batch = read(&options, reads.as_deref(), &rows, way);
            prop_assert_eq!(&batch.rows, &unusual.rows, "{:?}", rows);
            prop_assert_eq!(batch.failed.len(), unusual.failed.len());
            for (one, other) in batch.failed.iter().zip(&unusual.failed) {
                prop_assert_eq!(&one.error, &other.error);
            }
        }
    }
}
