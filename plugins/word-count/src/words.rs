use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Words and their totals. A word is a number, counted up from 0 in the order of first occurrence; its letters are in one
/// arena. About 26 bytes a word beside its letters, and nothing is allocated for an occurrence.
#[derive(Default)]
pub(crate) struct Words {
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    letters: Letters,
    totals: Vec<i64>,
    /// The batch in which the word occurred last.
    seen: Vec<u32>,
    batch: u32,
}

/// Which limit a new word would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Words,
    Bytes,
}

#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub words: usize,
    pub bytes: usize,
}

#[derive(Default)]
struct Letters {
    arena: Vec<u8>,
    ends: Vec<u32>,
}

impl Letters {
    fn get(&self, word: u32) -> &[u8] {
        let word = word as usize;
        let start = if word == 0 { 0 } else { self.ends[word - 1] };
        &self.arena[start as usize..self.ends[word] as usize]
    }

    fn push(&mut self, word: &[u8]) {
        self.arena.extend_from_slice(word);
        self.ends.push(self.arena.len() as u32); // at most `max_bytes`, a u32
    }
}

impl Words {
    pub(crate) fn len(&self) -> usize {
        self.totals.len()
    }

    /// The length of all words together.
    pub(crate) fn bytes(&self) -> usize {
        self.letters.arena.len()
    }

    pub(crate) fn word(&self, word: u32) -> &[u8] {
        self.letters.get(word)
    }

    pub(crate) fn total(&self, word: u32) -> i64 {
        self.totals[word as usize]
    }

    /// From here on, [`Words::count`] says once for each word that it occurs.
    pub(crate) fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            // Once in four billion batches: no word may look as if it had been seen in one of the new round.
            self.seen.fill(0);
            self.batch = 1;
        }
    }

    /// The number of a word, which is new or not. A new one has the total 0 until it is counted.
    pub(crate) fn find_or_add(&mut self, word: &[u8], limits: Limits) -> Result<u32, Full> {
        let Words { hasher, table, letters, .. } = self;
        let hash = hasher.hash_one(word);
        let entry =
            table.entry(hash, |other| letters.get(*other) == word, |other| hasher.hash_one(letters.get(*other)));
        match entry {
            Entry::Occupied(entry) => Ok(*entry.get()),
            Entry::Vacant(_) if self.totals.len() >= limits.words => Err(Full::Words),
            Entry::Vacant(_) if letters.arena.len() + word.len() > limits.bytes => Err(Full::Bytes),
            Entry::Vacant(entry) => {
                let new = self.totals.len() as u32;
                entry.insert(new);
                letters.push(word);
                self.totals.push(0);
                self.seen.push(0);
                Ok(new)
            }
        }
    }

    /// Counts an occurrence. True: the first of this batch.
    pub(crate) fn count(&mut self, word: u32) -> bool {
        self.totals[word as usize] += 1;
        std::mem::replace(&mut self.seen[word as usize], self.batch) != self.batch
    }

    /// Forgets the words that were added last.
    pub(crate) fn truncate(&mut self, len: usize) {
        for word in len as u32..self.totals.len() as u32 {
            let hash = self.hasher.hash_one(self.letters.get(word));
            if let Ok(entry) = self.table.find_entry(hash, |other| *other == word) {
                entry.remove();
            }
        }
        self.letters.ends.truncate(len);
        self.letters.arena.truncate(self.letters.ends.last().map_or(0, |end| *end as usize));
        self.totals.truncate(len);
        self.seen.truncate(len);
    }

    /// Adds a word with its total. False: it is there already, or there is no room at all.
    pub(crate) fn restore(&mut self, word: &[u8], total: i64) -> bool {
        let before = self.len();
        let all = Limits { words: u32::MAX as usize, bytes: u32::MAX as usize };
        match self.find_or_add(word, all) {
            Ok(new) if new as usize == before => {
                self.totals[before] = total;
                true
            }
            _ => false,
        }
    }
}
