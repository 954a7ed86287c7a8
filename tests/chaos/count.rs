//! Counting what arrived against what was sent.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::feed::{PARTITIONS, is_poison, word};
use crate::pipelines::Names;
use crate::truth::{self, Tally};
use crate::world::Servers;

/// What a topic was fed, as it lies there.
pub struct Expected {
    pub numbers: Tally,
    pub readings: Tally,
}

/// One pipeline's rows.
#[derive(Clone, Debug, Default)]
pub struct Count {
    pub pipeline: &'static str,
    /// Rows that its source has read, each once.
    pub read: u64,
    /// Rows that had to arrive.
    pub rows: u64,
    pub lost: u64,
    pub doubled: u64,
    pub disorder: u64,
    /// Lines that are no rows, or rows that nobody sent.
    pub strange: u64,
    /// Rows in the dead letters.
    pub letters: u64,
    pub letters_lost: u64,
    pub letters_doubled: u64,
}

impl Count {
    pub fn holds(&self) -> bool {
        let Count { rows, lost, doubled, disorder, strange, letters_lost, letters_doubled, .. } = self;
        *rows > 0 && [lost, doubled, disorder, strange, letters_lost, letters_doubled].iter().all(|count| **count == 0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { pipeline, read, rows, lost, doubled, disorder, strange, letters, letters_lost, letters_doubled } =
            self;
        write!(
            formatter,
            "  {pipeline}: {read} read, {rows} to arrive, {lost} lost, {doubled} doubled, {disorder} out of order, {strange} strange; {letters} dead letters, {letters_lost} lost, {letters_doubled} doubled"
        )
    }
}

/// Every `n` for which `wanted` is true has to be there once.
fn compare(
    pipeline: &'static str,
    fed: &Tally,
    found: &Tally,
    letters: &Tally,
    wanted: impl Fn(u64) -> Wanted,
) -> Count {
    let mut count =
        Count { pipeline, disorder: found.disorder, strange: found.strange + letters.strange, ..Count::default() };
    for n in 0..fed.end().max(found.end()).max(letters.end()) {
        let sent = u64::from(fed.times(n));
        let (arrived, dead) = (u64::from(found.times(n)), u64::from(letters.times(n)));
        count.read += sent;
        count.letters += dead;
        match wanted(n) {
            _ if sent == 0 => count.strange += arrived + dead,
            Wanted::Row => {
                count.rows += 1;
                count.lost += u64::from(arrived == 0);
                count.doubled += arrived.saturating_sub(1);
                count.letters_doubled += dead;
            }
            Wanted::Letter => {
                count.letters_lost += u64::from(dead == 0);
                count.letters_doubled += dead.saturating_sub(1);
                count.strange += arrived;
            }
            // A row, or its letter, from the time when the plugin was another.
            Wanted::Either => {
                count.rows += 1;
                count.lost += u64::from(arrived + dead == 0);
                count.doubled += (arrived + dead).saturating_sub(1);
            }
            Wanted::Nothing => count.strange += arrived + dead,
            Wanted::LetterAtMost => {
                count.strange += arrived;
                count.letters_doubled += dead.saturating_sub(1);
            }
        }
    }
    count
}

enum Wanted {
    Row,
    Letter,
    /// It is dropped on purpose.
    Nothing,
    Either,
    LetterAtMost,
}

fn lines(path: &Path, mut take: impl FnMut(&[u8])) {
    let Ok(file) = File::open(path) else { return };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).expect("a file that was written") > 0 {
        take(&line);
        line.clear();
    }
}

/// The numbers in a file of JSON lines. A line that is no JSON is strange.
fn file(path: &Path, lanes: usize) -> Tally {
    let mut tally = Tally::new(lanes);
    lines(path, |line| match serde_json::from_slice::<serde::de::IgnoredAny>(line) {
        Ok(_) => tally.add_line(line),
        Err(_) => tally.strange += 1,
    });
    tally
}

/// The numbers of the rows in a file of dead letters.
fn dead(path: &Path) -> Tally {
    let mut tally = Tally::default();
    lines(path, |line| {
        let letter: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        tally.add_line(letter["row"].as_str().unwrap_or_default().as_bytes());
    });
    tally
}

/// Count everything, at rest. `folder` has `out/` and `dead/`.
pub fn all(servers: &Servers, names: &Names, folder: &Path, expected: &Expected) -> Vec<Count> {
    let Expected { numbers, readings } = expected;
    let lanes = usize::try_from(PARTITIONS).expect("a few");
    let letters = |name: &str| dead(&folder.join("dead").join(format!("{name}.jsonl")));
    let out = |name: &str, lanes| file(&folder.join("out").join(format!("{name}.jsonl")), lanes);
    let none = Tally::default();
    let good = |n: u64| if is_poison(n) { Wanted::Letter } else { Wanted::Row };
    let even_good = |n: u64| match n % 2 {
        _ if is_poison(n) => Wanted::Letter,
        0 => Wanted::Row,
        _ => Wanted::Nothing,
    };
    let evens = truth::tally(servers.kafka.address(), &names.evens, lanes);
    let mut counts =
        vec![
            compare("once", numbers, &evens, &letters("once"), even_good),
            compare("copy", numbers, &out("copy", lanes), &letters("copy"), good),
            words(servers, names, numbers, &letters("words")),
            table(servers, names, readings),
            points(servers, names, readings),
            compare("stops", readings, &out("stops", lanes), &none, |n| {
                if n % 2 == 0 { Wanted::Row } else { Wanted::Nothing }
            }),
            // An odd row is dropped, or its letter is one of a plugin that failed on all rows.
            compare("letters", readings, &out("letters", lanes), &letters("letters"), |n| {
                if n % 2 == 0 { Wanted::Either } else { Wanted::LetterAtMost }
            }),
        ];
    let ticks = out("ticks", 1);
    counts.push(compare("ticks", &whole(ticks.end()), &ticks, &none, |_| Wanted::Row));
    counts
}

/// All of `0..end`, once each.
fn whole(end: u64) -> Tally {
    let mut tally = Tally::default();
    (0..end).for_each(|n| tally.add(n));
    tally
}

/// The total of every word.
fn words(servers: &Servers, names: &Names, numbers: &Tally, letters: &Tally) -> Count {
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for n in (0..numbers.end()).filter(|n| !is_poison(*n)) {
        *totals.entry(word(n)).or_default() += u64::from(numbers.times(n));
    }
    let mut count = compare("words", numbers, &Tally::default(), letters, |n| {
        if is_poison(n) { Wanted::Letter } else { Wanted::Nothing }
    });
    let rows = servers.cassandra.query(&format!("SELECT word, count FROM {}.words", names.keyspace));
    count.rows = totals.values().sum();
    for row in rows {
        let (Some(word), Some(total)) = (row["word"].as_str(), row["count"].as_u64()) else {
            count.strange += 1;
            continue;
        };
        let expected = totals.remove(word).unwrap_or(0);
        count.lost += expected.saturating_sub(total);
        count.doubled += total.saturating_sub(expected);
    }
    count.lost += totals.values().sum::<u64>();
    count
}

/// A table and a bucket have one row for each key, so as many rows and the same sum say that each is there.
fn keyed(pipeline: &'static str, fed: &Tally, rows: u64, sum: u64) -> Count {
    let sent: Vec<u64> = (0..fed.end()).filter(|n| fed.times(*n) > 0).collect();
    let (expected, total) = (sent.len() as u64, sent.iter().sum::<u64>());
    Count {
        pipeline,
        read: expected,
        rows: expected,
        lost: expected.saturating_sub(rows),
        doubled: rows.saturating_sub(expected),
        strange: u64::from(rows == expected && sum != total),
        ..Count::default()
    }
}

fn table(servers: &Servers, names: &Names, readings: &Tally) -> Count {
    let rows =
        servers.cassandra.query(&format!("SELECT count(*) AS rows, sum(n) AS total FROM {}.readings", names.keyspace));
    let number = |name: &str| rows[0][name].as_u64().unwrap_or_default();
    keyed("table", readings, number("rows"), number("total"))
}

fn points(servers: &Servers, names: &Names, readings: &Tally) -> Count {
    let flux = |what: &str| {
        let rows = servers.influxdb.query(&format!(
            "from(bucket: {:?}) |> range(start: 2025-01-01T00:00:00Z, stop: 2030-01-01T00:00:00Z)
             |> filter(fn: (r) => r._measurement == \"readings\" and r._field == \"n\") |> group() |> {what}()",
            names.bucket
        ));
        rows.first().and_then(|row| row["_value"].as_u64()).unwrap_or_default()
    };
    keyed("points", readings, flux("count"), flux("sum"))
}
