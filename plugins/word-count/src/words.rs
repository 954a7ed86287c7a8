use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Words and their totals. A word is a number, counted up from 0 in the order of first occurrence; its letters are in one
/// arena. About 26 bytes a word beside its letters, and nothing is allocated for an occurrence.
#[derive(Default)]
pub(crate) struct Words {
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    letters: Vec<u8>,
    entries: Vec<Entry>,
    batch: u32,
}

struct Entry {
    total: i64,
    /// The batch in which the word occurred last; 0 is none.
    seen: u32,
    /// Where its letters end. They begin where those of the word before end.
    end: u32,
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

impl Words {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The length of all words together.
    pub(crate) fn bytes(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn word(&self, word: u32) -> &[u8] {
        word_in(&self.entries, &self.letters, word)
    }

    pub(crate) fn total(&self, word: u32) -> i64 {
        self.entries[word as usize].total
    }

    /// From here on, [`Words::count`] says once for each word that it occurs.
    pub(crate) fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            // Once in four billion batches: no word may look as if it had been seen in one of the new round.
            self.entries.iter_mut().for_each(|entry| entry.seen = 0);
            self.batch = 1;
        }
    }

    /// The number of a word, if it is known.
    pub(crate) fn find(&self, word: &[u8]) -> Option<u32> {
        self.find_hashed(hash(&self.hasher, word), word)
    }

    fn find_hashed(&self, hash: u64, word: &[u8]) -> Option<u32> {
        self.table.find(hash, |other| is_same(self.word(*other), word)).copied()
    }

    /// The number of a word, which is new or not. A new one has the total 0 until it is counted.
    pub(crate) fn find_or_add(&mut self, word: &[u8], limits: Limits) -> Result<u32, Full> {
        let hash = hash(&self.hasher, word);
        match self.find_hashed(hash, word) {
            Some(found) => Ok(found),
            None => self.add(hash, word, limits),
        }
    }

    /// A new word. Not inlined, so that the usual way, which only finds, stays small.
    #[inline(never)]
    fn add(&mut self, hash_of_word: u64, word: &[u8], limits: Limits) -> Result<u32, Full> {
        if self.entries.len() >= limits.words {
            return Err(Full::Words);
        }
        if self.letters.len() + word.len() > limits.bytes {
            return Err(Full::Bytes);
        }
        let new = self.entries.len() as u32;
        let Words { hasher, table, letters, entries, .. } = self;
        table.insert_unique(hash_of_word, new, |other| hash(hasher, word_in(entries, letters, *other)));
        letters.extend_from_slice(word);
        entries.push(Entry { total: 0, seen: 0, end: letters.len() as u32 }); // at most `max_bytes`, a u32
        Ok(new)
    }

    /// Counts an occurrence. True: the first of this batch.
    pub(crate) fn count(&mut self, word: u32) -> bool {
        let entry = &mut self.entries[word as usize];
        entry.total += 1;
        std::mem::replace(&mut entry.seen, self.batch) != self.batch
    }

    /// Takes an occurrence back that was counted in this batch.
    pub(crate) fn uncount(&mut self, word: u32) {
        self.entries[word as usize].total -= 1;
    }

    /// As if the word had not occurred in this batch.
    pub(crate) fn unsee(&mut self, word: u32) {
        self.entries[word as usize].seen = 0;
    }

    /// Forgets the words that were added last.
    pub(crate) fn truncate(&mut self, len: usize) {
        for word in len as u32..self.entries.len() as u32 {
            let hash = hash(&self.hasher, self.word(word));
            if let Ok(entry) = self.table.find_entry(hash, |other| *other == word) {
                entry.remove();
            }
        }
        self.entries.truncate(len);
        self.letters.truncate(self.entries.last().map_or(0, |last| last.end as usize));
    }

    /// Adds a word with its total. False: it is there already, or there is no room at all.
    pub(crate) fn restore(&mut self, word: &[u8], total: i64) -> bool {
        let before = self.len();
        let all = Limits { words: u32::MAX as usize, bytes: u32::MAX as usize };
        match self.find_or_add(word, all) {
            Ok(new) if new as usize == before => {
                self.entries[before].total = total;
                true
            }
            _ => false,
        }
    }
}

fn word_in<'a>(entries: &[Entry], letters: &'a [u8], word: u32) -> &'a [u8] {
    let word = word as usize;
    let start = if word == 0 { 0 } else { entries[word - 1].end };
    &letters[start as usize..entries[word].end as usize]
}

/// Without the length, which a slice's own `Hash` adds for what may follow it: nothing does.
fn hash(hasher: &DefaultHashBuilder, word: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(word);
    hasher.finish()
}

/// `one == other`, for short words: those take less time than the call of a function that compares memory, most of all in
/// WebAssembly, where it goes byte by byte.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        0..4 => one.iter().eq(other),
        // The first bytes and the last, which overlap.
        4..=8 => one.first_chunk::<4>() == other.first_chunk() && one.last_chunk::<4>() == other.last_chunk(),
        9..=16 => one.first_chunk::<8>() == other.first_chunk() && one.last_chunk::<8>() == other.last_chunk(),
        _ => one == other,
    }
}

/// What stands between single spaces, as `line.split(|byte| *byte == b' ')` has it, eight bytes at a time.
pub(crate) struct Spaces<'a> {
    line: &'a [u8],
    /// Where the next word starts. None after the last.
    start: Option<usize>,
    /// Where the bytes start that `found` is of.
    place: usize,
    /// The highest bit of a byte is set where a space is.
    found: u64,
}

impl<'a> Spaces<'a> {
    pub(crate) fn new(line: &'a [u8]) -> Self {
        Spaces { line, start: Some(0), place: 0, found: spaces(line) }
    }
}

impl<'a> Iterator for Spaces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.start?;
        while self.found == 0 {
            self.place += 8;
            if self.place >= self.line.len() {
                self.start = None;
                return Some(&self.line[start..]);
            }
            self.found = spaces(&self.line[self.place..]);
        }
        let end = self.place + self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        self.start = Some(end + 1);
        Some(&self.line[start..end])
    }
}

/// The spaces among the first eight bytes: the highest bit of each byte that is one, the first byte in the lowest bits.
fn spaces(bytes: &[u8]) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let eight = match bytes.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => bytes.iter().rev().fold(0, |eight, byte| eight << 8 | u64::from(*byte)),
    };
    // A byte is 0 where there was a space, and adding 0x7f sets the highest bit of every other.
    let zeros = eight ^ u64::from_ne_bytes([b' '; 8]);
    !((zeros & LOW) + LOW | zeros | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_the_standard_library_does() {
        // Every line of up to 10 bytes that are a space or not, and what a space must not be taken for: 0x21 differs in its
        // lowest bit (a borrow would mark it after a space), 0xa0 in its highest, 0x00 in the only bit that it has.
        for other in [b'a', b'!', 0xa0, 0] {
            for length in 0..=10 {
                for bits in 0..1 << length {
                    let line: Vec<u8> =
                        (0..length).map(|place| if bits >> place & 1 == 1 { b' ' } else { other }).collect();
                    let words: Vec<&[u8]> = Spaces::new(&line).collect();
                    let expected: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
                    assert_eq!(words, expected, "{line:?}");
                }
            }
        }
        let long = b"abcdefghijklmnopqrstuvwxyz  abcdefg hijklmnop ".repeat(3);
        assert!(Spaces::new(&long).eq(long.split(|byte| *byte == b' ')));
    }

    #[test]
    fn words_are_the_same_or_differ_in_any_byte() {
        for length in 0..40 {
            let word: Vec<u8> = (0..length).collect();
            assert!(is_same(&word, &word.clone()));
            assert!(!is_same(&word, &[&word[..], b"x"].concat()));
            for place in 0..word.len() {
                let mut other = word.clone();
                other[place] ^= 0x80;
                assert!(!is_same(&word, &other), "{length} bytes, the one at {place} differs");
            }
        }
    }
}
