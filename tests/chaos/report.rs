//! What is told at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::count::Count;
use crate::plan::Round;
use crate::slow::Slow;
use crate::world::Exits;

#[derive(Debug, Default)]
struct Kind {
    faults: u64,
    /// The longest until all was well, after a round that had it.
    longest: Duration,
    /// The same of rounds that had nothing else.
    alone: Option<Duration>,
}

/// The sum of all campaigns.
#[derive(Debug)]
pub struct Report {
    kinds: BTreeMap<String, Kind>,
    counts: BTreeMap<&'static str, Count>,
    exits: Exits,
    peak: u64,
    slow: Option<Slow>,
    /// Every pipeline got well each time and came to its end.
    pub clean: bool,
}

impl Default for Report {
    fn default() -> Self {
        Report {
            kinds: BTreeMap::new(),
            counts: BTreeMap::new(),
            exits: Exits::default(),
            peak: 0,
            slow: None,
            clean: true,
        }
    }
}

impl Report {
    pub fn round(&mut self, round: &Round, recovery: Duration) {
        for strike in &round.0 {
            let kind = self.kinds.entry(strike.fault.kind()).or_default();
            kind.faults += 1;
            kind.longest = kind.longest.max(recovery);
            if round.0.len() == 1 {
                kind.alone = kind.alone.max(Some(recovery));
            }
        }
    }

    pub fn count(&mut self, count: Count) {
        let sum =
            self.counts.entry(count.pipeline).or_insert_with(|| Count { pipeline: count.pipeline, ..Count::default() });
        for (sum, more) in [
            (&mut sum.read, count.read),
            (&mut sum.rows, count.rows),
            (&mut sum.lost, count.lost),
            (&mut sum.doubled, count.doubled),
            (&mut sum.disorder, count.disorder),
            (&mut sum.strange, count.strange),
            (&mut sum.letters, count.letters),
            (&mut sum.letters_lost, count.letters_lost),
            (&mut sum.letters_doubled, count.letters_doubled),
        ] {
            *sum += more;
        }
        self.clean &= count.holds();
    }

    pub fn daemon(&mut self, exits: &Exits, peak: u64) {
        self.exits.add(exits);
        self.peak = self.peak.max(peak);
    }

    pub fn slow(&mut self, slow: Slow) {
        self.clean &= slow.holds();
        self.slow = Some(slow);
    }

    /// Whether everything was as it has to be.
    pub fn holds(&self) -> bool {
        self.clean
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.kinds.values().map(|kind| kind.faults).sum();
        let longest = self.kinds.values().map(|kind| kind.longest).max().unwrap_or_default();
        writeln!(formatter, "\n| fault | times | well again after, s: at most | alone |\n|---|---|---|---|")?;
        for (name, kind) in &self.kinds {
            let alone = kind.alone.map_or_else(String::new, |alone| format!("{:.1}", alone.as_secs_f64()));
            writeln!(formatter, "| {name} | {} | {:.1} | {alone} |", kind.faults, kind.longest.as_secs_f64())?;
        }
        writeln!(formatter, "| all | {faults} | {:.1} | |", longest.as_secs_f64())?;
        writeln!(
            formatter,
            "\n| pipeline | rows read | rows to arrive | lost | doubled | out of order | strange | dead letters | lost | doubled |\n|---|---|---|---|---|---|---|---|---|---|"
        )?;
        for count in self.counts.values() {
            let Count {
                pipeline,
                read,
                rows,
                lost,
                doubled,
                disorder,
                strange,
                letters,
                letters_lost,
                letters_doubled,
            } = count;
            writeln!(
                formatter,
                "| {pipeline} | {read} | {rows} | {lost} | {doubled} | {disorder} | {strange} | {letters} | {letters_lost} | {letters_doubled} |"
            )?;
        }
        let read: u64 = self.counts.values().map(|count| count.read).sum();
        writeln!(formatter, "\n{read} rows read in all; {}; at most {} MiB of memory", self.exits, self.peak >> 20)?;
        if let Some(slow) = &self.slow {
            writeln!(formatter, "{slow}")?;
        }
        write!(formatter, "{}", if self.clean { "all of it holds" } else { "IT DOES NOT HOLD" })
    }
}
