//! How cost grows with the work: more pipelines, wider rows, longer rows, more state. Each as a table and as a plot.

mod pipelines;
mod rows;
mod words;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::daemon::{Daemon, Usage};
use crate::measure::Spread;
use crate::plot::{Curve, Plot};
use crate::report::{Line, Section};

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Pipelines in one daemon, 1 to 1,000.
    Pipelines,
    /// Columns of a row, 1 to 200.
    Columns,
    /// Bytes of a row, 10 to 100,000.
    Bytes,
    /// Distinct words that are counted, 1 to 10,000,000.
    Words,
}

/// A table and its picture.
struct Growth {
    section: Section,
    file: &'static str,
    plot: Plot,
}

/// Measure one, or all; the plots go into that folder, if there is one.
pub(crate) fn measure(
    daemon: &Daemon,
    what: Option<What>,
    rounds: usize,
    plots: Option<&Path>,
) -> Result<Vec<Section>> {
    let chosen = what.map_or_else(|| What::value_variants().to_vec(), |what| vec![what]);
    let mut sections = Vec::new();
    for what in chosen {
        let growth = match what {
            What::Pipelines => pipelines::measure(daemon, rounds).context("the pipelines")?,
            What::Columns => rows::columns(daemon, rounds).context("the columns")?,
            What::Bytes => rows::bytes(daemon, rounds).context("the bytes of a row")?,
            What::Words => words::measure(daemon, rounds).context("the words")?,
        };
        if let Some(folder) = plots {
            std::fs::create_dir_all(folder)?;
            let file = folder.join(growth.file);
            std::fs::write(&file, growth.plot.to_svg())
                .with_context(|| format!("{} can't be written", file.display()))?;
        }
        sections.push(growth.section);
    }
    Ok(sections)
}

/// Something of a size, run once a round in turns with the other sizes, so that noise meets all alike. Returns what each
/// used, in each round.
fn in_turns<S>(sizes: &[S], rounds: usize, mut run: impl FnMut(&S) -> Result<Usage>) -> Result<Vec<Vec<Usage>>> {
    let mut usages: Vec<Vec<Usage>> = sizes.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..sizes.len() {
            let index = (round + turn) % sizes.len();
            let (Some(size), Some(usages)) = (sizes.get(index), usages.get_mut(index)) else { continue };
            usages.push(run(size)?);
        }
    }
    Ok(usages)
}

fn spread(usages: &[Usage], value: impl Fn(&Usage) -> f64) -> Option<Spread> {
    Some(Spread::of(usages.iter().map(value)))
}

/// A curve of the medians of a column of the table, over the sizes.
fn curve(name: impl Into<String>, sizes: &[f64], lines: &[Line], column: usize) -> Curve {
    let median = |line: &Line| Some(line.figures.get(column).copied()??.median);
    let points = sizes.iter().zip(lines).filter_map(|(size, line)| Some((*size, median(line)?)));
    Curve { name: name.into(), points: points.collect() }
}

/// `1,000` is easier to read than 1000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 100, 1000, 12_345_678].map(grouped), ["0", "100", "1,000", "12,345,678"]);
    }
}
