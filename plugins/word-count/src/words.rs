use crate::cut::Span;

/// Words and their totals. A word is a number, counted up from 0 in the order of first occurrence; its letters are in one
/// arena. About 28 bytes a word beside its letters, and nothing is allocated for an occurrence.
pub(crate) struct Words {
    /// A hash table with open addressing: the number of a word plus 1, or 0 where there is none. A word is at the place that
    /// its hash says, or, if there is another, at the next one that was free. At most half of it is taken.
    slots: Vec<u32>,
    letters: Vec<u8>,
    /// Where the letters of each word end, behind a 0.
    ends: Vec<u32>,
    tallies: Vec<Tally>,
    batch: u32,
}

/// How often a word has occurred. Without the four bytes that a total would be aligned with.
#[derive(Clone, Copy, Default)]
#[repr(C, packed(4))]
struct Tally {
    total: i64,
    /// The batch in which it occurred last; 0 is none.
    seen: u32,
}

/// No word has this number, or would have: there are fewer.
pub(crate) const UNKNOWN: u32 = u32::MAX;

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

impl Default for Words {
    fn default() -> Self {
        Words { slots: vec![0; 16], letters: Vec::new(), ends: vec![0], tallies: Vec::new(), batch: 0 }
    }
}

impl Words {
    pub(crate) fn len(&self) -> usize {
        self.tallies.len()
    }

    /// The length of all words together.
    pub(crate) fn bytes(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn word(&self, word: u32) -> &[u8] {
        self.table().word(word)
    }

    pub(crate) fn total(&self, word: u32) -> i64 {
        self.tallies[word as usize].total
    }

    /// From here on, [`Words::count`] says once for each word that it occurs.
    pub(crate) fn begin_batch(&mut self) {
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            // Once in four billion batches: no word may look as if it had been seen in one of the new round.
            self.tallies.iter_mut().for_each(|tally| tally.seen = 0);
            self.batch = 1;
        }
    }

    /// The number of a word, if it is known.
    #[inline(never)]
    pub(crate) fn find(&self, word: &[u8]) -> Option<u32> {
        Some(self.table().search(word)).filter(|word| *word != UNKNOWN)
    }

    /// The number of each word of a text, or [`UNKNOWN`]. A loop with nothing around it, so that what it needs fits a
    /// processor's registers: WebAssembly is compiled with less care for that.
    #[inline(never)]
    pub(crate) fn find_all(&self, text: &[u8], spans: &[Span], numbers: &mut Vec<u32>) {
        let table = self.table();
        numbers.clear();
        numbers.extend(spans.iter().map(|span| table.search(span.of(text))));
    }

    #[inline(always)]
    fn table(&self) -> Table<'_> {
        Table { slots: &self.slots, letters: &self.letters, ends: &self.ends }
    }

    /// The first slot for which `is_it` is true of what it has, from where the word's hash says.
    fn slot(&self, word: &[u8], is_it: impl Fn(u32) -> bool) -> usize {
        let mut slot = self.table().first_slot(word, Edges::of(word));
        while !is_it(self.slots[slot]) {
            slot = self.table().next_slot(slot);
        }
        slot
    }

    /// The number of a word, which is new or not. A new one has the total 0 until it is counted.
    pub(crate) fn find_or_add(&mut self, word: &[u8], limits: Limits) -> Result<u32, Full> {
        match self.find(word) {
            Some(number) => Ok(number),
            None => self.add(word, limits),
        }
    }

    /// A new word.
    #[inline(never)]
    fn add(&mut self, word: &[u8], limits: Limits) -> Result<u32, Full> {
        if self.len() >= limits.words {
            return Err(Full::Words);
        }
        if self.letters.len() + word.len() > limits.bytes {
            return Err(Full::Bytes);
        }
        let new = self.len() as u32;
        let slot = self.slot(word, |number| number == 0);
        self.slots[slot] = new + 1;
        self.letters.extend_from_slice(word);
        self.ends.push(self.letters.len() as u32); // at most `max_bytes`, a u32
        self.tallies.push(Tally::default());
        if self.len() > self.slots.len() / 2 {
            self.grow();
        }
        Ok(new)
    }

    fn grow(&mut self) {
        let slots = 2 * self.slots.len();
        // Before there are new ones: they can be found again, and memory is scarce.
        self.slots = Vec::new();
        self.slots = vec![0; slots];
        for word in 0..self.len() as u32 {
            let slot = self.slot(self.word(word), |number| number == 0);
            self.slots[slot] = word + 1;
        }
    }

    /// Counts an occurrence of each word, up to the first that is not known. Returns how many. Words that had not occurred in
    /// this batch before go to `touched`.
    #[inline(never)]
    pub(crate) fn count(&mut self, words: &[u32], touched: &mut Vec<u32>) -> usize {
        let (tallies, batch) = (self.tallies.as_mut_slice(), self.batch);
        for (place, word) in words.iter().enumerate() {
            let Some(tally) = tallies.get_mut(*word as usize) else { return place };
            tally.total += 1;
            if tally.seen != batch {
                tally.seen = batch;
                touched.push(*word);
            }
        }
        words.len()
    }

    /// Takes an occurrence back that was counted in this batch.
    pub(crate) fn uncount(&mut self, word: u32) {
        self.tallies[word as usize].total -= 1;
    }

    /// As if the word had not occurred in this batch.
    pub(crate) fn unsee(&mut self, word: u32) {
        self.tallies[word as usize].seen = 0;
    }

    /// Forgets the words that were added last.
    pub(crate) fn truncate(&mut self, len: usize) {
        // The last one first: no other word was put behind it for want of its slot.
        for word in (len as u32..self.len() as u32).rev() {
            let slot = self.slot(self.word(word), |number| number == word + 1);
            self.slots[slot] = 0;
        }
        self.ends.truncate(len + 1);
        self.letters.truncate(self.ends[len] as usize);
        self.tallies.truncate(len);
    }

    /// Adds a word with its total. False: it is there already, or there is no room at all.
    pub(crate) fn restore(&mut self, word: &[u8], total: i64) -> bool {
        let before = self.len();
        let all = Limits { words: u32::MAX as usize, bytes: u32::MAX as usize };
        match self.find_or_add(word, all) {
            Ok(new) if new as usize == before => {
                self.tallies[before].total = total;
                true
            }
            _ => false,
        }
    }
}

/// What a search looks at.
#[derive(Clone, Copy)]
struct Table<'a> {
    slots: &'a [u32],
    letters: &'a [u8],
    ends: &'a [u32],
}

impl<'a> Table<'a> {
    #[inline(always)]
    fn word(self, word: u32) -> &'a [u8] {
        let word = word as usize;
        &self.letters[self.ends[word] as usize..self.ends[word + 1] as usize]
    }

    /// The number of a word, or [`UNKNOWN`].
    #[inline(always)]
    fn search(self, word: &[u8]) -> u32 {
        let edges = Edges::of(word);
        let mut slot = self.first_slot(word, edges);
        loop {
            let number = self.slots[slot].wrapping_sub(1);
            if number == UNKNOWN || is_same(self.word(number), word, edges) {
                return number;
            }
            slot = self.next_slot(slot);
        }
    }

    #[inline(always)]
    fn first_slot(self, word: &[u8], edges: Edges) -> usize {
        let hash = if word.len() <= SHORT { edges.hash(word.len()) } else { hash_long(word) };
        hash as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn next_slot(self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

/// A word of at most so many bytes is nothing but its edges.
const SHORT: usize = 16;

/// The first and the last bytes of a word, which overlap in a short one. Two short words of one length are the same if their
/// edges are. They save the call of a function that compares memory, which goes byte by byte in WebAssembly.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Edges(u64, u64);

impl Edges {
    #[inline(always)]
    fn of(word: &[u8]) -> Self {
        if let (Some(first), Some(last)) = (word.first_chunk(), word.last_chunk()) {
            Edges(u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (word.first_chunk(), word.last_chunk()) {
            Edges(u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
        } else {
            let at = |place: usize| word.get(place).copied().map_or(0, u64::from);
            Edges(at(0) | at(1) << 8, at(2))
        }
    }

    /// Nothing here is random: a plugin has no source of it unless its pipeline grants one.
    #[inline(always)]
    fn hash(self, length: usize) -> u64 {
        mix(mix(length as u64, self.0), self.1)
    }
}

/// The golden ratio's bits: a product spreads each bit over those above it, and the shift brings these down.
fn mix(hash: u64, more: u64) -> u64 {
    let product = (hash ^ more).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[inline(never)]
fn hash_long(word: &[u8]) -> u64 {
    let (eights, _) = word.as_chunks();
    let start = Edges::of(word).hash(word.len());
    eights.iter().fold(start, |hash, eight| mix(hash, u64::from_le_bytes(*eight)))
}

/// `one == other`, of which the edges are known.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8], edges: Edges) -> bool {
    one.len() == other.len() && Edges::of(one) == edges && (one.len() <= SHORT || is_same_long(one, other))
}

/// The same for words of one length whose edges are the same, eight bytes at a time.
#[inline(never)]
fn is_same_long(one: &[u8], other: &[u8]) -> bool {
    let number = |eight: &[u8; 8]| u64::from_le_bytes(*eight);
    let (one, other) = (one.as_chunks().0, other.as_chunks().0);
    one.iter().map(number).eq(other.iter().map(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_forgotten_leave_the_others_to_be_found() {
        let mut words = Words::default();
        let limits = Limits { words: 3000, bytes: 1 << 20 };
        let name = |number: u32| format!("w{number}").into_bytes();
        for kept in 1..=2000 {
            assert_eq!(words.find_or_add(&name(kept), limits), Ok(kept - 1));
            // Some that come and go, also while the table grows.
            (0..kept % 40).for_each(|more| {
                words.find_or_add(&name(10_000 + more), limits).unwrap();
            });
            words.truncate(kept as usize);
            assert_eq!(words.find(&name(10_000)), None);
        }
        assert!((1..=2000).all(|kept| words.find(&name(kept)) == Some(kept - 1)));
        assert_eq!((words.len(), words.find(b"w0"), words.find(b"")), (2000, None, None));
    }

    #[test]
    fn words_are_the_same_or_differ_in_any_byte() {
        let same = |one: &[u8], other: &[u8]| is_same(one, other, Edges::of(other));
        for length in 0..40 {
            let word: Vec<u8> = (0..length).collect();
            assert!(same(&word, &word));
            assert!(!same(&word, &[&word[..], b"x"].concat()));
            for place in 0..word.len() {
                let mut other = word.clone();
                other[place] ^= 0x80;
                assert!(!same(&word, &other), "{length} bytes, the one at {place} differs");
            }
        }
    }
}
