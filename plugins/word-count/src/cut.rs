//! Texts to words: where each starts and ends. Done for many rows at once, in loops that do one thing each.

use std::ops::Range;

/// Where a word is in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[inline(always)]
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// The words of some rows, in order.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// All of them, as places in one text; what is behind `len` is left over from before.
    spans: Vec<Span>,
    len: usize,
    /// For each row where its words end in `spans`.
    ends: Vec<usize>,
    /// Where a space is; left over from before as well.
    spaces: Vec<u32>,
}

impl Cuts {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.ends.clear();
    }

    /// The words of all rows.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans[..self.len]
    }

    /// Which of them are the words of a row.
    pub(crate) fn row(&self, row: usize) -> Range<usize> {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[row]
    }

    /// Rows that follow each other: what stands between single spaces, as `row.split(' ')` has it. `offsets` says where each
    /// starts in `text` and where the last one ends; of a row that is none (`is_null`) there are no words.
    #[inline(never)]
    pub(crate) fn by_spaces(&mut self, text: &[u8], offsets: &[u32], is_null: impl Fn(usize) -> bool) {
        self.clear();
        let [first, .., last] = *offsets else { return };
        let most = (last - first) as usize;
        if self.spaces.len() < most {
            self.spaces.resize(most, 0);
        }
        let spaces = find_spaces(&text[..last as usize], first, &mut self.spaces);
        let spaces = &self.spaces[..spaces];
        let most = spaces.len() + offsets.len();
        if self.spans.len() < most {
            self.spans.resize(most, Span { start: 0, end: 0 });
        }
        let mut taken = 0;
        for (row, bounds) in offsets.windows(2).enumerate() {
            let (words, spaces) = between(spaces.get(taken..).unwrap_or_default(), bounds, &mut self.spans[self.len..]);
            taken += spaces;
            if !is_null(row) {
                self.len += words;
            }
            self.ends.push(self.len);
        }
    }

    /// The next row, which is a part of `text` from `start` on: what stands between white space.
    pub(crate) fn push_row<'a>(&mut self, text: &'a str, start: usize, words: impl Iterator<Item = &'a str>) {
        for word in words {
            let at = (start + word.as_ptr() as usize - text.as_ptr() as usize) as u32;
            self.spans.truncate(self.len);
            self.spans.push(Span { start: at, end: at + word.len() as u32 });
            self.len += 1;
        }
        self.ends.push(self.len);
    }
}

/// The words of a row, which starts and ends at `bounds`, go to `spans`. Of `spaces` the first ones are in the row, if any is.
/// Returns how many words there are, and how many spaces.
#[inline(always)]
fn between(spaces: &[u32], bounds: &[u32], spans: &mut [Span]) -> (usize, usize) {
    let [mut start, end] = *bounds else { return (0, 0) };
    let mut words = 0;
    for (space, span) in spaces.iter().zip(spans.iter_mut()) {
        if *space >= end {
            break;
        }
        *span = Span { start, end: *space };
        start = *space + 1;
        words += 1;
    }
    spans[words] = Span { start, end };
    (words + 1, words)
}

/// The places of the spaces of a text, from `start` on. Byte by byte is enough: no other character has the byte of a space in
/// it. Returns how many there are; `places` has room for as many as there are bytes.
#[inline(never)]
fn find_spaces(text: &[u8], start: u32, places: &mut [u32]) -> usize {
    let (blocks, rest) = text[start as usize..].as_chunks::<16>();
    let (mut place, mut count) = (start, 0);
    for block in blocks {
        let mut found = spaces(block);
        while found != 0 {
            places[count] = place + found.trailing_zeros();
            count += 1;
            found &= found - 1;
        }
        place += 16;
    }
    for byte in rest {
        if *byte == b' ' {
            places[count] = place;
            count += 1;
        }
        place += 1;
    }
    count
}

/// A bit for each byte that is a space, the first byte's lowest.
#[cfg(target_feature = "simd128")]
#[inline(always)]
fn spaces(block: &[u8; 16]) -> u32 {
    use std::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_splat, u64x2};
    let (eights, _) = block.as_chunks::<8>();
    let block = u64x2(u64::from_le_bytes(eights[0]), u64::from_le_bytes(eights[1]));
    u32::from(u8x16_bitmask(u8x16_eq(block, u8x16_splat(b' '))))
}

/// A bit for each byte that is a space, the first byte's lowest.
#[cfg(not(target_feature = "simd128"))]
#[inline(always)]
fn spaces(block: &[u8; 16]) -> u32 {
    let (eights, _) = block.as_chunks::<8>();
    let bits = |eight: [u8; 8]| {
        const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
        // A byte is 0 where there was a space, and adding 0x7f sets the highest bit of every other.
        let zeros = u64::from_le_bytes(eight) ^ u64::from_ne_bytes([b' '; 8]);
        let highest = !(((zeros & LOW) + LOW) | zeros | LOW);
        // Each highest bit goes to a place of its own in the highest byte.
        ((highest >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    };
    bits(eights[0]) | bits(eights[1]) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(rows: &[&[u8]]) -> Vec<Vec<Vec<u8>>> {
        // Behind something else, as a later part of a column is.
        let mut text = b"before ".to_vec();
        let mut offsets = vec![text.len() as u32];
        for row in rows {
            text.extend_from_slice(row);
            offsets.push(text.len() as u32);
        }
        text.extend_from_slice(b" and after");
        let mut cuts = Cuts::default();
        cuts.by_spaces(&text, &offsets, |_| false);
        let words = |row| cuts.spans()[cuts.row(row)].iter().map(|span| span.of(&text).to_vec()).collect();
        (0..rows.len()).map(words).collect()
    }

    #[test]
    fn splits_as_the_standard_library_does() {
        let split = |row: &[u8]| row.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
        // Every line of up to 10 bytes that are a space or not, and what a space must not be taken for: 0x21 differs in its
        // lowest bit (a borrow would mark it after a space), 0xa0 in its highest, 0x00 in the only bit that it has.
        for other in [b'a', b'!', 0xa0, 0] {
            for length in 0..=10 {
                for bits in 0..1 << length {
                    let line: Vec<u8> =
                        (0..length).map(|place| if bits >> place & 1 == 1 { b' ' } else { other }).collect();
                    // Twice, so that it is in two places of a block.
                    assert_eq!(cut(&[&line, b"x y", &line]), [split(&line), split(b"x y"), split(&line)], "{line:?}");
                }
            }
        }
        let long = b"abcdefghijklmnopqrstuvwxyz  abcdefg hijklmnop ".repeat(3);
        assert_eq!(cut(&[&long]), [split(&long)]);
        assert_eq!(cut(&[]), [] as [Vec<Vec<u8>>; 0]);
    }

    #[test]
    fn a_row_that_is_none_has_no_words() {
        let mut cuts = Cuts::default();
        cuts.by_spaces(b"a bc d", &[0, 2, 5, 6], |row| row == 1);
        assert_eq!([cuts.row(0), cuts.row(1), cuts.row(2)], [0..2, 2..2, 2..3]);
        assert_eq!(cuts.spans()[2].of(b"a bc d"), b"d");
    }

    #[test]
    fn rows_one_by_one() {
        let (one, two) = ("a  b", " c ");
        let mut cuts = Cuts::default();
        cuts.push_row(one, 0, one.split_whitespace());
        cuts.push_row(two, one.len(), two.split_whitespace());
        let text = [one, two].concat();
        let words: Vec<_> = cuts.spans().iter().map(|span| span.of(text.as_bytes())).collect();
        assert_eq!(words, [b"a", b"b", b"c"]);
        assert_eq!([cuts.row(0), cuts.row(1)], [0..2, 2..3]);
    }
}
