//! Whether it would pay to send texts that come again and again as numbers into a table of them: what making that table costs,
//! beside what a plugin takes for the texts themselves.

use std::hint::black_box;
use std::sync::Arc;

use acequia::pipeline::transform::Transform;
use acequia::plugin::{Host, HostOptions};
use acequia_connector_api::RowSchema;
use anyhow::Result;
use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_cast::cast;
use arrow_schema::DataType;
use serde_json::json;

use crate::boundary;
use crate::cases::{self, Case};
use crate::daemon::Daemon;
use crate::measure::{Contestant, Spread, in_turns};
use crate::report::{Line, Section, Unit};

const ROWS: usize = 8192;
/// Letters of a text, and how many different ones there are.
const CASES: [(usize, usize); 4] = [(8, 10), (8, 1000), (57, 10), (57, 1000)];

pub(crate) fn measure(daemon: &Daemon, rounds: usize) -> Result<Section> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = Host::new(&HostOptions::default())?;
    let mut lines = Vec::new();
    for (letters, different) in CASES {
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| text(row, letters, different))));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let numbered = cast(&texts, &dictionary)?;
        let times = TimestampMicrosecondArray::from_iter_values(0..i64::try_from(ROWS)?).with_timezone("UTC");
        let rows = RecordBatch::try_from_iter([("value", texts.clone()), ("timestamp", Arc::new(times) as ArrayRef)])?;
        let schema = RowSchema::to_arrow(&RowSchema::from_arrow(rows.schema_ref()));
        let rows = RecordBatch::try_new(schema, rows.columns().to_vec())?;
        let case = Case { plugin: "word-count", config: json!({}), rows };
        let mut plugin = runtime.block_on(boundary::start(&host, &daemon.plugin(case.plugin), &case))?;
        let output = runtime.block_on(plugin.apply(boundary::batch(&case.rows)))?.batch.rows.schema();
        let mut native = cases::native(&case, output)?;
        let mut contestants: Vec<Contestant<'_>> = vec![
            Box::new(|count| {
                runtime.block_on(async {
                    for _ in 0..count {
                        black_box(plugin.apply(boundary::batch(&case.rows)).await?);
                    }
                    Ok(())
                })
            }),
            again(|| native(&case.rows)),
            again(|| Ok(cast(black_box(&texts), &dictionary)?)),
            again(|| Ok(cast(black_box(&numbered), &DataType::Utf8)?)),
            again(|| Ok(copied(black_box(&texts)))),
        ];
        let times = in_turns(&mut contestants, rounds)?;
        let figures = times.iter().map(|times| Some(Spread::of(times.iter().map(|time| time.cpu * 1e9 / ROWS as f64))));
        lines.push(Line { case: format!("{letters} letters, {different} texts"), figures: figures.collect() });
    }
    Ok(Section {
        name: "dictionary",
        about: format!(
            "Nanoseconds of processor time for a text, {ROWS} rows of one in each batch. Counting them by `word-count`, the crossing included; the same as native code; making a \
             dictionary of the column (`arrow_cast::cast`), and a column of texts of that; copying the column's bytes and offsets once, which is what crossing the boundary does. Median and \
             extremes of {rounds} rounds, in turns."
        ),
        of: "column",
        columns: vec![
            ("counted by the plugin", Unit::Nanos),
            ("counted natively", Unit::Nanos),
            ("made a dictionary", Unit::Nanos),
            ("made texts again", Unit::Nanos),
            ("copied", Unit::Nanos),
        ],
        lines,
    })
}

/// That, as often as it takes.
fn again<'a, T>(mut work: impl FnMut() -> Result<T> + 'a) -> Contestant<'a> {
    Box::new(move |count| {
        for _ in 0..count {
            black_box(work()?);
        }
        Ok(())
    })
}

/// One of `different` texts, without a pattern in their order.
fn text(row: usize, letters: usize, different: usize) -> String {
    // Two rounds of MurmurHash3's last step.
    let mut state = row as u64 + 1;
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        state = (state ^ state >> 33).wrapping_mul(factor);
    }
    format!("{:0>letters$}", (state >> 33) % different as u64)
}

fn copied(column: &ArrayRef) -> Vec<Vec<u8>> {
    column.to_data().buffers().iter().map(|buffer| buffer.as_slice().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_as_many_texts_as_it_says() {
        for (letters, different) in CASES {
            let texts: HashSet<String> = (0..ROWS).map(|row| text(row, letters, different)).collect();
            // One in a thousand may not have been drawn in so many rows.
            assert!(texts.len() >= different - different / 200, "{} of {different}", texts.len());
            assert!(texts.iter().all(|text| text.len() == letters));
        }
    }
}
