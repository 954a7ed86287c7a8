/// Words and their totals. A word is a number, counted up from 0 in the order of first occurrence; its letters are in one
/// arena. About 28 bytes a word beside its letters, and nothing is allocated for an occurrence.
pub(crate) struct Words {
    /// A hash table with open addressing: the number of a word plus 1, or 0 where there is none. A word is at the place that
    /// its hash says, or, if there is another, at the next one that was free. At most half of it is taken.
    slots: Vec<u32>,
    letters: Vec<u8>,
    /// Where the letters of each word end, behind a 0.
    ends: Vec<u32>,
    totals: Vec<i64>,
    /// The batch in which the word occurred last; 0 is none.
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

impl Default for Words {
    fn default() -> Self {
        Words { slots: vec![0; 16], letters: Vec::new(), ends: vec![0], totals: Vec::new(), seen: Vec::new(), batch: 0 }
    }
}

impl Words {
    pub(crate) fn len(&self) -> usize {
        self.totals.len()
    }

    /// The length of all words together.
    pub(crate) fn bytes(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn word(&self, word: u32) -> &[u8] {
        let word = word as usize;
        &self.letters[self.ends[word] as usize..self.ends[word + 1] as usize]
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

    /// The number of a word, if it is known.
    pub(crate) fn find(&self, word: &[u8]) -> Option<u32> {
        self.search(word).checked_sub(1)
    }

    /// What the slot of a word has: its number plus 1, or 0 if it is new. It has few arguments, a plain result, and nothing
    /// unusual inlined, so that all of it fits a processor's registers: WebAssembly is compiled with less care for that.
    #[inline(never)]
    fn search(&self, word: &[u8]) -> u32 {
        let edges = Edges::of(word);
        let mut slot = self.first_slot(word, edges);
        loop {
            let number = self.slots[slot];
            if number == 0 || is_same(self.word(number - 1), word, edges) {
                return number;
            }
            slot = self.next_slot(slot);
        }
    }

    fn first_slot(&self, word: &[u8], edges: Edges) -> usize {
        let hash = if word.len() <= SHORT { edges.hash(word.len()) } else { hash_long(word) };
        hash as usize & (self.slots.len() - 1)
    }

    fn next_slot(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// The first slot for which `is_it` is true of what it has, from where the word's hash says.
    fn slot(&self, word: &[u8], is_it: impl Fn(u32) -> bool) -> usize {
        let mut slot = self.first_slot(word, Edges::of(word));
        while !is_it(self.slots[slot]) {
            slot = self.next_slot(slot);
        }
        slot
    }

    /// The number of a word, which is new or not. A new one has the total 0 until it is counted.
    pub(crate) fn find_or_add(&mut self, word: &[u8], limits: Limits) -> Result<u32, Full> {
        match self.search(word) {
            0 => self.add(word, limits),
            number => Ok(number - 1),
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
        self.totals.push(0);
        self.seen.push(0);
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

    /// Counts an occurrence. True: the first of this batch.
    pub(crate) fn count(&mut self, word: u32) -> bool {
        self.totals[word as usize] += 1;
        std::mem::replace(&mut self.seen[word as usize], self.batch) != self.batch
    }

    /// Takes an occurrence back that was counted in this batch.
    pub(crate) fn uncount(&mut self, word: u32) {
        self.totals[word as usize] -= 1;
    }

    /// As if the word had not occurred in this batch.
    pub(crate) fn unsee(&mut self, word: u32) {
        self.seen[word as usize] = 0;
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
    one.len() == other.len() && Edges::of(one) == edges && (one.len() <= SHORT || one == other)
}

/// What stands between single spaces, as `line.split(|byte| *byte == b' ')` has it, eight bytes at a time.
#[derive(Clone)]
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
    !(((zeros & LOW) + LOW) | zeros | LOW)
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
