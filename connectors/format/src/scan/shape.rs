//! What the rows before had in front of their values. Rows of one stream tend to have the same keys in the same order, written
//! in the same way: then a key need not be read, only compared.

use std::sync::atomic::{AtomicU64, Ordering};

/// A key longer than this, with what stands around it, is read anew each time.
const LONGEST: usize = 128;
/// So are those behind so many others.
const MOST: usize = 1024;

/// Numbers that no two shapes have in common.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The leads of a row, place by place.
#[derive(Debug)]
pub(super) struct Shape {
    leads: Vec<Lead>,
    id: ShapeId,
}

/// The keys of some row, in its order: two rows with the same id have the same key in each place that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShapeId(u64);

/// What stands in front of a value, from behind the one before it: `{"a":`, or `, "b": `.
#[derive(Debug)]
struct Lead {
    bytes: Vec<u8>,
    /// Where the key is in them, without its quotes.
    key: (usize, usize),
    /// The last row had something else here.
    missed: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { leads: Vec::new(), id: ShapeId::new() }
    }
}

impl ShapeId {
    fn new() -> Self {
        ShapeId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Shape {
    pub(super) fn id(&self) -> ShapeId {
        self.id
    }

    /// How many places are known.
    pub(super) fn len(&self) -> usize {
        self.leads.len()
    }

    /// If `bytes` begin with what the rows before had in this place: how long that is, and where the key is in it.
    #[inline]
    pub(super) fn find(&mut self, place: usize, bytes: &[u8]) -> Option<(usize, (usize, usize))> {
        let lead = self.leads.get_mut(place)?;
        if !begins_with(bytes, &lead.bytes) {
            return None;
        }
        lead.missed = false;
        Some((lead.bytes.len(), lead.key))
    }

    /// A row has this in this place. Of two kinds of rows that take turns the one is remembered, and not each in its turn.
    pub(super) fn note(&mut self, place: usize, bytes: &[u8], key: (usize, usize)) {
        if bytes.len() > LONGEST || place >= MOST {
            return;
        }
        let known = self.leads.len();
        match self.leads.get_mut(place) {
            Some(lead) if !lead.missed => {
                lead.missed = true;
                return;
            }
            Some(lead) => {
                bytes.clone_into(&mut lead.bytes);
                (lead.key, lead.missed) = (key, false);
            }
            None if place == known => {
                self.leads.push(Lead { bytes: bytes.to_vec(), key, missed: false });
            }
            None => return,
        }
        self.id = ShapeId::new();
    }
}

/// `bytes.starts_with(lead)`, without a call for the usual lengths.
#[inline]
fn begins_with(bytes: &[u8], lead: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..lead.len()) else { return false };
    if lead.len() > 16 {
        return bytes == lead;
    }
    let eights = |bytes: &[u8]| Some((*bytes.first_chunk::<8>()?, *bytes.last_chunk::<8>()?));
    let fours = |bytes: &[u8]| Some((*bytes.first_chunk::<4>()?, *bytes.last_chunk::<4>()?));
    match (eights(lead), fours(lead)) {
        (Some(edges), _) => eights(bytes) == Some(edges),
        (None, Some(edges)) => fours(bytes) == Some(edges),
        (None, None) => bytes == lead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_with_what_it_begins_with() {
        for length in 0..40 {
            let lead: Vec<u8> = (0..length).collect();
            assert!(begins_with(&lead, &lead));
            assert!(begins_with(&[&lead[..], b"more"].concat(), &lead));
            for place in 0..lead.len() {
                assert!(!begins_with(&lead[..place], &lead), "{place} of {length} bytes");
                let mut other = lead.clone();
                other[place] ^= 0x80;
                assert!(!begins_with(&other, &lead), "the byte at {place} of {length}");
            }
        }
    }

    #[test]
    fn what_comes_twice_in_a_row_is_remembered() {
        let mut shape = Shape::default();
        let first = shape.id();
        shape.note(0, b"{\"a\":", (2, 3));
        let known = shape.id();
        assert_ne!(first, known);
        assert_eq!(shape.find(0, b"{\"a\":1}"), Some((5, (2, 3))));
        assert_eq!((shape.find(0, b"{\"b\":1}"), shape.find(1, b",\"b\":1}")), (None, None));
        shape.note(0, b"{\"b\":", (2, 3));
        assert_eq!((shape.id(), shape.find(0, b"{\"a\":1}")), (known, Some((5, (2, 3)))), "one row in between");
        shape.note(0, b"{\"b\":", (2, 3));
        shape.note(0, b"{\"b\":", (2, 3));
        assert_ne!(shape.id(), known);
        assert_eq!(shape.find(0, b"{\"b\":1}"), Some((5, (2, 3))));
        shape.note(2, b",\"d\":", (2, 3));
        assert_eq!(shape.len(), 1, "there is nothing in the place before it");
        shape.note(1, &[b' '; LONGEST + 1], (2, 3));
        assert_eq!(shape.len(), 1);
        assert_ne!(Shape::default().id(), Shape::default().id());
    }
}
