//! What was measured, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::measure::Spread;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Nanos,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Millions a second.
    MillionsPerSecond,
    /// So many, of something without a unit.
    Count,
    /// Microseconds.
    Micros,
    /// Mebibytes.
    Mebibytes,
    /// Millions of things.
    Millions,
    /// One figure divided by another.
    Ratio,
}

impl Unit {
    fn symbol(self) -> &'static str {
        match self {
            Unit::Nanos => "ns",
            Unit::Millis => "ms",
            Unit::Seconds => "s",
            Unit::MillionsPerSecond => "M/s",
            Unit::Count => "number",
            Unit::Micros => "µs",
            Unit::Mebibytes => "MiB",
            Unit::Millions => "M",
            Unit::Ratio => "x",
        }
    }

    /// Three digits, as far as they mean anything.
    fn format(value: f64) -> String {
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        format!("{value:.digits$}")
    }
}

/// One table.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its name: the subcommand.
    pub(crate) name: &'static str,
    /// What is measured, in a sentence or two.
    pub(crate) about: String,
    /// What the lines are.
    pub(crate) of: &'static str,
    /// The figures of a line.
    pub(crate) columns: Vec<(&'static str, Unit)>,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

/// One line of a table.
#[derive(Debug)]
pub(crate) struct Line {
    /// What was measured.
    pub(crate) case: String,
    /// A figure for each column; none where it makes no sense.
    pub(crate) figures: Vec<Option<Spread>>,
}

impl Section {
    pub(crate) fn to_json(&self) -> Value {
        let line = |line: &Line| {
            let figures = self.columns.iter().zip(&line.figures).filter_map(|((name, unit), figure)| {
                let Spread { median, min, max } = (*figure)?;
                let value = json!({ "unit": unit.symbol(), "median": median, "min": min, "max": max });
                Some(((*name).to_owned(), value))
            });
            json!({ "case": line.case, "figures": figures.collect::<serde_json::Map<_, _>>() })
        };
        json!({ "section": self.name, "about": self.about, "lines": self.lines.iter().map(line).collect::<Vec<_>>() })
    }
}

/// A figure as `median (min - max)`.
fn cell(figure: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = figure else { return "-".to_owned() };
    let (middle, low, high) = (Unit::format(median), Unit::format(min), Unit::format(max));
    if low == high { middle } else { format!("{middle} ({low} - {high})") }
}

/// A Markdown table.
impl fmt::Display for Section {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = self.columns.iter().map(|(name, unit)| format!("{name}, {}", unit.symbol()));
        let mut table = vec![std::iter::once(self.of.to_owned()).chain(heads).collect::<Vec<_>>()];
        for line in &self.lines {
            table.push(std::iter::once(line.case.clone()).chain(line.figures.iter().map(|one| cell(*one))).collect());
        }
        let width = |column: usize| table.iter().filter_map(|line| line.get(column)).map(String::len).max();
        let widths: Vec<usize> = (0..=self.columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        writeln!(formatter, "## {}\n\n{}\n", self.name, self.about)?;
        for (number, line) in table.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                write!(formatter, "| {cell:width$} ")?;
            }
            writeln!(formatter, "|")?;
            if number == 0 {
                for (place, width) in widths.iter().enumerate() {
                    write!(formatter, "|{}{}", "-".repeat(width + 1), if place == 0 { "-" } else { ":" })?;
                }
                writeln!(formatter, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let spread = |median: f64| Some(Spread { median, min: median, max: median * 2.0 });
        Section {
            name: "boundary",
            about: "Something.".to_owned(),
            of: "plugin, rows",
            columns: vec![("wasm", Unit::Nanos), ("ratio", Unit::Ratio)],
            lines: vec![
                Line { case: "even-filter, 8192".to_owned(), figures: vec![spread(1.234), spread(56.78)] },
                Line { case: "select, 1".to_owned(), figures: vec![spread(1234.5), None] },
            ],
        }
    }

    #[test]
    fn a_table() {
        let expected = "\
## boundary

Something.

| plugin, rows      | wasm, ns           | ratio, x         |
|-------------------|-------------------:|-----------------:|
| even-filter, 8192 | 1.23 (1.23 - 2.47) | 56.8 (56.8 - 114) |
| select, 1         | 1234 (1234 - 2469) | -                |
";
        let is = section().to_string();
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('-', "");
        assert_eq!(squeezed(&is), squeezed(expected), "{is}");
    }

    #[test]
    fn as_json() {
        let json = section().to_json();
        assert_eq!(json["lines"][0]["figures"]["wasm"]["median"], 1.234);
        assert_eq!(json["lines"][0]["figures"]["wasm"]["unit"], "ns");
        assert!(json["lines"][1]["figures"].get("ratio").is_none());
    }
}
