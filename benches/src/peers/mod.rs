//! The same jobs on the same rows, by Acequia and by what people use today. `benches/peers/README.md` says how each is set up.

mod arrival;
mod files;
mod installed;
mod kafka;
mod spark;
pub(crate) mod tree;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::daemon::Daemon;
use crate::measure::Spread;
use crate::report::{Line, Section, Unit};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    /// Kafka -> even-filter -> file, beside Kafka Connect and Bento.
    Kafka,
    /// rate -> even-filter -> blackhole, beside Spark.
    Rate,
    /// rate -> triangle-wave -> blackhole, beside Spark with functions in Python.
    Triangle,
    /// file -> even-filter -> file, beside jq and polars.
    File,
}

impl Job {
    /// How many rows take some seconds.
    fn rows(self) -> u64 {
        match self {
            Job::Kafka => 1_000_000,
            Job::Rate => 2_000_000_000,
            Job::Triangle => 100_000_000,
            Job::File => 3_000_000,
        }
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Rows that were read.
    rows: f64,
    /// Seconds from the start of the process.
    wall: f64,
    /// Rows a second, without the start.
    steady: f64,
    /// Seconds of processor time.
    cpu: f64,
    /// The most memory at once, in bytes.
    peak: f64,
    /// Rows that came out; each contestant has looked at them.
    written: u64,
}

/// One side of a comparison; it is given the number of the round.
struct Contestant<'a> {
    name: &'static str,
    run: Box<dyn Fn(usize) -> Result<Figures> + 'a>,
}

/// All rounds of a job. Acequia is the first.
struct Comparison {
    name: &'static str,
    about: String,
    results: Vec<(&'static str, Vec<Figures>)>,
}

/// Let each have its turn; one round more than is counted, since in the first the server and the caches are cold.
fn in_turns(contestants: Vec<Contestant<'_>>, rounds: usize) -> Result<Vec<(&'static str, Vec<Figures>)>> {
    let mut results: Vec<_> = contestants.iter().map(|contestant| (contestant.name, Vec::new())).collect();
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            let (Some(contestant), Some((_, all))) = (contestants.get(index), results.get_mut(index)) else { continue };
            let figures = (contestant.run)(round).with_context(|| contestant.name.to_owned())?;
            if round > 0 {
                all.push(figures);
            }
        }
    }
    Ok(results)
}

pub(crate) fn measure(daemon: &Daemon, job: Job, rows: Option<u64>, rounds: usize) -> Result<Section> {
    let rows = rows.unwrap_or_else(|| job.rows());
    let comparison = match job {
        Job::Kafka => kafka::compare(daemon, rows, rounds),
        Job::Rate => spark::even(daemon, rows, rounds),
        Job::Triangle => spark::triangle(daemon, rows, rounds),
        Job::File => files::compare(daemon, rows, rounds),
    };
    Ok(comparison?.section(rounds))
}

impl Comparison {
    /// An error if another number of rows came out of a run than should have.
    fn expect(&self, rows: impl Fn(&Figures) -> u64) -> Result<()> {
        for (name, all) in &self.results {
            for figures in all {
                let (found, expected) = (figures.written, rows(figures));
                ensure!(found == expected, "{name}: {found} rows came out, not {expected}");
            }
        }
        Ok(())
    }

    fn section(self, rounds: usize) -> Section {
        let ours = self.results.first().map(|(_, all)| all.clone()).unwrap_or_default();
        let line = |(name, all): &(&'static str, Vec<Figures>)| {
            let spread = |value: &dyn Fn(&Figures) -> f64| Some(Spread::of(all.iter().map(value)));
            let ratio = |value: &dyn Fn(&Figures) -> f64| {
                Some(Spread::of(ours.iter().zip(all).map(|(ours, theirs)| value(ours) / value(theirs))))
            };
            Line {
                case: (*name).to_owned(),
                figures: vec![
                    spread(&|figures| figures.rows / figures.wall / 1e6),
                    spread(&|figures| figures.steady / 1e6),
                    spread(&|figures| figures.cpu * 1e9 / figures.rows),
                    spread(&|figures| figures.peak / f64::from(1 << 20)),
                    ratio(&|figures| figures.rows / figures.wall),
                    ratio(&|figures| figures.steady),
                    ratio(&|figures| figures.cpu / figures.rows),
                    ratio(&|figures| figures.peak),
                    spread(&|figures| figures.written as f64 / 1e6),
                ],
            }
        };
        Section {
            name: self.name,
            about: format!(
                "{} Processor time and memory are those of all processes of the contestant. The ratios are Acequia's figure divided by \
                 the line's, of the same round. Median and extremes of {rounds} rounds, in turns.",
                self.about
            ),
            of: "process",
            columns: vec![
                ("rows", Unit::MillionsPerSecond),
                ("without the start", Unit::MillionsPerSecond),
                ("processor time a row", Unit::Nanos),
                ("peak memory", Unit::Mebibytes),
                ("Acequia's rows a second to its", Unit::Ratio),
                ("of those without the start", Unit::Ratio),
                ("processor time", Unit::Ratio),
                ("memory", Unit::Ratio),
                ("rows out, checked", Unit::Millions),
            ],
            lines: self.results.iter().map(line).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rows: f64, wall: f64) -> Figures {
        Figures { rows, wall, steady: rows / (wall - 1.0), cpu: wall, peak: 1e6, written: 1 }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_for_each_row() {
        let results = vec![
            ("a", vec![figures(100.0, 2.0), figures(100.0, 3.0)]),
            ("b", vec![figures(10.0, 4.0), figures(10.0, 6.0)]),
        ];
        let section = Comparison { name: "n", about: String::new(), results }.section(2);
        let figures = &section.lines[1].figures;
        let all = |median: f64| Some(Spread { median, min: median, max: median });
        // 50 and 33.3 rows a second beside 2.5 and 1.67; 0.02 and 0.03 seconds a row beside 0.4 and 0.6.
        assert_eq!(figures[4].map(|ratio| ratio.median.round()), Some(20.0));
        assert_eq!(figures[6].map(|ratio| (ratio.median * 100.0).round()), Some(5.0));
        assert_eq!(figures[7], all(1.0));
    }

    #[test]
    fn every_round_counts_but_the_first() {
        let contestants =
            ["a", "b"].map(|name| Contestant { name, run: Box::new(|round| Ok(figures(round as f64, 2.0))) });
        let results = in_turns(contestants.into(), 2).unwrap();
        for (_, all) in results {
            assert_eq!(all.iter().map(|figures| figures.rows).collect::<Vec<_>>(), [1.0, 2.0]);
        }
    }

    #[test]
    fn another_number_of_rows_is_an_error() {
        let comparison = Comparison { name: "n", about: String::new(), results: vec![("a", vec![figures(1.0, 2.0)])] };
        assert!(comparison.expect(|_| 1).is_ok());
        assert!(comparison.expect(|_| 2).is_err());
    }
}
