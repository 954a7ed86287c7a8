//! Counts words and keeps the totals, as `explode(split(value, " "))` and `groupBy("word").count()` do in Spark.

mod cut;
mod words;

use std::ops::Range;

use acequia_plugin_sdk::{Aggregate, Error, Nullable, Packed, Reader, Rows, Schema, State, Text, Writer, export};
use serde::Deserialize;

use cut::{Cuts, Span};
use words::{Full, Limits, UNKNOWN, Words};

/// The `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The column with the text. A null has no words.
    pub column: String,
    /// Which totals the output has after each batch.
    pub mode: Mode,
    /// What stands between words.
    pub split: Split,
    /// Whether `The` and `the` are one word: `the`.
    pub lowercase: bool,
    /// The most words that are told apart. A row that would bring more is a failed row, and nothing of it is counted.
    /// A million words of eight letters and their snapshot fit the default memory limit of 64 MiB in update mode; for more,
    /// raise the pipeline's `limits.memory` too.
    pub max_words: usize,
    /// The most bytes that those words may have together; a row that would bring more fails likewise.
    pub max_bytes: usize,
}

/// Which totals the output has after each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One row for each word that was in the batch, in the order of its first occurrence there, with its new total.
    Update,
    /// One row for every word so far, in the order of its first occurrence.
    Complete,
}

/// What stands between words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Each single space, as in Spark's `split(value, " ")`. Nothing between two spaces, at the start or at the end is a
    /// word too, the empty one, and so is an empty line: Spark calls Java's `split` with the limit -1, which keeps trailing
    /// empty strings (Java's own default drops them).
    Space,
    /// Any Unicode white space, as much as there is: no word is empty.
    Whitespace,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            column: "value".to_string(),
            mode: Mode::Update,
            split: Split::Space,
            lowercase: false,
            max_words: 1_000_000,
            max_bytes: 16 << 20,
        }
    }
}

/// The plugin. Its output: `word` (text) and `count` (int64).
pub struct WordCount {
    config: Config,
    words: Words,
    /// The batch's words, in the order of their first occurrence.
    touched: Vec<u32>,
    work: Work,
}

/// The words of some rows on their way. Kept so that its memory is.
#[derive(Default)]
struct Work {
    cuts: Cuts,
    /// What [`Words::find_all`] has found.
    numbers: Vec<u32>,
    /// The rows in lower case.
    lowered: String,
    /// Where each of them starts in `lowered`, and where the last one ends.
    offsets: Vec<u32>,
}

/// How many rows are cut, then searched, then counted: so many that a loop is worth beginning, and so few that their words stay
/// in a processor's first caches.
const TOGETHER: usize = 128;
/// How many bytes they have, at most. A row that is longer is counted word by word, without memory for what it is cut into.
const LONG: usize = 32 << 10;

/// The version of the snapshot's layout.
const SNAPSHOT: u64 = 1;

impl Aggregate for WordCount {
    type Config = Config;
    type Reads = Option<String>;
    type Adds = (String, i64);

    fn configure(config: Config, _: &Schema) -> Result<Self, Error> {
        if config.max_words > u32::MAX as usize || config.max_bytes > u32::MAX as usize {
            return Err("`max_words` and `max_bytes` can be at most 4294967295".into());
        }
        Ok(WordCount { config, words: Words::default(), touched: Vec::new(), work: Work::default() })
    }

    fn reads(&self) -> [String; 1] {
        [self.config.column.clone()]
    }

    fn adds(&self) -> [String; 2] {
        ["word".to_string(), "count".to_string()]
    }

    fn update(&mut self, rows: &mut Rows, lines: Nullable<'_, Text<'_>>) -> (u32, (Packed, Vec<i64>)) {
        self.words.begin_batch();
        self.touched.clear();
        let mut work = std::mem::take(&mut self.work);
        let mut first = 0;
        while first < lines.values.len() {
            let last = first + together(&lines.values.offsets()[first..]);
            if last == first {
                if let Some(line) = lines.get(first)
                    && let Err(full) = self.count_long(line)
                {
                    rows.fail(first, self.explain(full));
                }
                first += 1;
                continue;
            }
            work.cut(&self.config, lines, first..last);
            let Work { cuts, numbers, lowered, .. } = &mut work;
            let text = if self.config.lowercase { lowered } else { lines.values.data() }.as_bytes();
            self.words.find_all(text, cuts.spans(), numbers);
            if numbers.contains(&UNKNOWN) {
                for row in first..last {
                    let words = cuts.row(row - first);
                    if let Err(full) = self.count(text, &cuts.spans()[words.clone()], &numbers[words]) {
                        rows.fail(row, self.explain(full));
                    }
                }
            } else {
                self.words.count(numbers, &mut self.touched);
            }
            first = last;
        }
        self.work = work;
        match self.config.mode {
            Mode::Update => self.totals(self.touched.iter().copied()),
            Mode::Complete => self.totals(0..self.words.len() as u32),
        }
    }
}

/// How many of the rows that start at these offsets are counted together; none if the first is a long one.
fn together(offsets: &[u32]) -> usize {
    let [first, ends @ ..] = offsets else { return 0 };
    ends.iter().take(TOGETHER).take_while(|end| (**end - first) as usize <= LONG).count()
}

impl Work {
    /// Cuts these rows into words, which are places in the column's text, or in `lowered`.
    fn cut(&mut self, config: &Config, lines: Nullable<'_, Text<'_>>, rows: Range<usize>) {
        let Work { cuts, lowered, offsets, .. } = self;
        let column = lines.values;
        let (text, offsets) = if config.lowercase {
            lowered.clear();
            offsets.clear();
            offsets.push(0);
            for row in rows.clone() {
                lowered.push_str(&column.get(row).to_lowercase());
                offsets.push(lowered.len() as u32);
            }
            (lowered.as_str(), offsets.as_slice())
        } else {
            (column.data(), &column.offsets()[rows.start..=rows.end])
        };
        match config.split {
            Split::Space => cuts.by_spaces(text.as_bytes(), offsets, |row| lines.is_null(rows.start + row)),
            Split::Whitespace => {
                cuts.clear();
                for (row, bounds) in rows.zip(offsets.windows(2)) {
                    let line = if lines.is_null(row) { "" } else { &text[bounds[0] as usize..bounds[1] as usize] };
                    cuts.push_row(line, bounds[0] as usize, line.split_whitespace());
                }
            }
        }
    }
}

impl WordCount {
    /// Counts all words of a line, or none. `numbers` says which of them were known before.
    #[inline(never)]
    fn count(&mut self, text: &[u8], words: &[Span], numbers: &[u32]) -> Result<(), Full> {
        let before = (self.words.len(), self.touched.len());
        let mut done = self.words.count(numbers, &mut self.touched);
        while let Some(word) = words.get(done) {
            match self.words.find_or_add(word.of(text), self.limits()) {
                Ok(word) => done += self.words.count(&[word], &mut self.touched),
                Err(full) => {
                    self.take_back(words[..done].iter().map(|word| word.of(text)), before);
                    return Err(full);
                }
            }
            done += self.words.count(&numbers[done..], &mut self.touched);
        }
        Ok(())
    }

    /// The same of a line that is too long to be cut at once.
    #[cold]
    fn count_long(&mut self, line: &str) -> Result<(), Full> {
        let lowered;
        let line = if self.config.lowercase {
            lowered = line.to_lowercase();
            &lowered
        } else {
            line
        };
        match self.config.split {
            Split::Space => self.count_words(line.split(' ')),
            Split::Whitespace => self.count_words(line.split_whitespace()),
        }
    }

    fn count_words<'a>(&mut self, words: impl Iterator<Item = &'a str> + Clone) -> Result<(), Full> {
        let before = (self.words.len(), self.touched.len());
        for (place, word) in words.clone().enumerate() {
            match self.words.find_or_add(word.as_bytes(), self.limits()) {
                Ok(word) => self.words.count(&[word], &mut self.touched),
                Err(full) => {
                    self.take_back(words.take(place).map(str::as_bytes), before);
                    return Err(full);
                }
            };
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits { words: self.config.max_words, bytes: self.config.max_bytes }
    }

    /// As if these words had not been counted, before which there were so many words, and so many of them touched.
    #[cold]
    fn take_back<'a>(&mut self, counted: impl Iterator<Item = &'a [u8]>, before: (usize, usize)) {
        for word in counted {
            if let Some(word) = self.words.find(word) {
                self.words.uncount(word);
            }
        }
        self.touched.drain(before.1..).for_each(|word| self.words.unsee(word));
        self.words.truncate(before.0);
    }

    fn explain(&self, full: Full) -> String {
        match full {
            Full::Words => format!(
                "the row has a new word, but {} words are counted already: raise `max_words`, or drop rare words first",
                self.config.max_words
            ),
            Full::Bytes => format!(
                "the row has new words for which there is no room in {} bytes: raise `max_bytes`, or drop long words first",
                self.config.max_bytes
            ),
        }
    }

    fn totals(&self, words: impl ExactSizeIterator<Item = u32> + Clone) -> (u32, (Packed, Vec<i64>)) {
        let bytes = words.clone().map(|word| self.words.word(word).len()).sum();
        let mut texts = Packed::with_capacity(words.len(), bytes);
        let mut counts = Vec::with_capacity(words.len());
        for word in words {
            texts.push(self.words.word(word));
            counts.push(self.words.total(word));
        }
        (counts.len() as u32, (texts, counts))
    }
}

impl State for WordCount {
    fn snapshot(&self, out: &mut Writer) {
        out.reserve(self.words.bytes() + 4 * self.words.len());
        out.unsigned(SNAPSHOT);
        out.unsigned(self.words.len() as u64);
        for word in 0..self.words.len() as u32 {
            out.bytes(self.words.word(word));
            out.unsigned(self.words.total(word) as u64);
        }
    }

    fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        let version = from.unsigned()?;
        if version != SNAPSHOT {
            return Err(Error::new(format!("the snapshot is of version {version}: this plugin reads {SNAPSHOT}")));
        }
        self.words = Words::default();
        for _ in 0..from.unsigned()? {
            let word = from.text()?;
            let total = i64::try_from(from.unsigned()?).ok().filter(|total| *total > 0);
            if total.is_none_or(|total| !self.words.restore(word.as_bytes(), total)) {
                return Err(Error::new(format!("the snapshot has no good total for the word `{word}`")));
            }
        }
        Ok(())
    }
}

export!(WordCount as Aggregate);

#[cfg(test)]
mod tests;
