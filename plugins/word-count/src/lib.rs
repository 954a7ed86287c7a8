//! Counts words and keeps the totals, as `explode(split(value, " "))` and `groupBy("word").count()` do in Spark.

mod words;

use acequia_plugin_sdk::{Aggregate, Error, Nullable, Packed, Reader, Rows, Schema, State, Text, Writer, export};
use serde::Deserialize;

use words::{Full, Limits, Spaces, Words};

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
}

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
        Ok(WordCount { config, words: Words::default(), touched: Vec::new() })
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
        for (row, line) in lines.values.iter().enumerate() {
            if !lines.is_null(row)
                && let Err(full) = self.count(line)
            {
                rows.fail(row, self.explain(full));
            }
        }
        match self.config.mode {
            Mode::Update => self.totals(self.touched.iter().copied()),
            Mode::Complete => self.totals(0..self.words.len() as u32),
        }
    }
}

impl WordCount {
    /// Counts all words of a line, or none.
    fn count(&mut self, line: &str) -> Result<(), Full> {
        let lowered;
        let line = if self.config.lowercase {
            lowered = line.to_lowercase();
            &lowered
        } else {
            line
        };
        match self.config.split {
            // Byte by byte is enough: no other character has the byte of a space in it.
            Split::Space => self.count_words(Spaces::new(line.as_bytes())),
            Split::Whitespace => self.count_words(line.split_whitespace().map(str::as_bytes)),
        }
    }

    fn count_words<'a>(&mut self, line: impl Iterator<Item = &'a [u8]> + Clone) -> Result<(), Full> {
        let limits = Limits { words: self.config.max_words, bytes: self.config.max_bytes };
        let before = (self.words.len(), self.touched.len());
        for (place, word) in line.clone().enumerate() {
            let word = match self.words.find_or_add(word, limits) {
                Ok(word) => word,
                Err(full) => {
                    self.take_back(line.take(place), before);
                    return Err(full);
                }
            };
            if self.words.count(word) {
                self.touched.push(word);
            }
        }
        Ok(())
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
