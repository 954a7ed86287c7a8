/// One bit a row, in the layout of the contract: least significant bit first, the bits after the last row are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    len: usize,
}

impl Bitmap {
    /// One bit for each value, 1 where `keep` is true. `keep` should be free of side effects and of early exits: eight
    /// rows become a byte without a branch.
    pub fn of<T>(values: &[T], keep: impl Fn(&T) -> bool) -> Self {
        let (eights, rest) = values.as_chunks::<8>();
        let mut bytes = Vec::with_capacity(values.len().div_ceil(8));
        bytes.extend(eights.iter().map(|eight| pack(eight, &keep)));
        if !rest.is_empty() {
            bytes.push(pack(rest, &keep));
        }
        Bitmap { bytes, len: values.len() }
    }

    /// So many bits, the `i`th 1 where `keep(i)` is true.
    pub fn from_fn(len: usize, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut bitmap = Bitmap::none(len);
        for (at, byte) in bitmap.bytes.iter_mut().enumerate() {
            let first = at * 8;
            for bit in 0..(len - first).min(8) {
                *byte |= u8::from(keep(first + bit)) << bit;
            }
        }
        bitmap
    }

    /// So many zeros.
    pub fn none(len: usize) -> Self {
        Bitmap { bytes: vec![0; len.div_ceil(8)], len }
    }

    /// So many ones.
    pub fn all(len: usize) -> Self {
        let mut bytes = vec![0xff; len.div_ceil(8)];
        if let (Some(last), true) = (bytes.last_mut(), !len.is_multiple_of(8)) {
            *last = 0xff >> (8 - len % 8);
        }
        Bitmap { bytes, len }
    }

    /// From bytes in this layout.
    pub fn from_bytes(bytes: Vec<u8>, len: usize) -> Option<Self> {
        (bytes.len() == len.div_ceil(8)).then_some(Bitmap { bytes, len })
    }

    /// How many bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bits are 1.
    pub fn count(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Bit `row`; false past the end.
    pub fn get(&self, row: usize) -> bool {
        row < self.len && bit(&self.bytes, row)
    }

    /// Makes bit `row` 1 or 0; does nothing past the end.
    pub fn set(&mut self, row: usize, value: bool) {
        if row < self.len
            && let Some(byte) = self.bytes.get_mut(row / 8)
        {
            *byte = *byte & !(1 << (row % 8)) | u8::from(value) << (row % 8);
        }
    }

    /// Adds a bit.
    pub fn push(&mut self, value: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.len += 1;
        self.set(self.len - 1, value);
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl FromIterator<bool> for Bitmap {
    fn from_iter<I: IntoIterator<Item = bool>>(values: I) -> Self {
        let mut bitmap = Bitmap::default();
        for value in values {
            bitmap.push(value);
        }
        bitmap
    }
}

/// Up to eight rows into a byte.
#[inline(always)]
fn pack<T>(values: &[T], keep: &impl Fn(&T) -> bool) -> u8 {
    values.iter().enumerate().fold(0, |byte, (bit, value)| byte | u8::from(keep(value)) << bit)
}

/// Bit `row` of a bitmap; false past the end.
pub(crate) fn bit(bytes: &[u8], row: usize) -> bool {
    bytes.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_make_one_agrees_at_every_length() {
        for len in 0..70_usize {
            let values: Vec<usize> = (0..len).collect();
            let of = Bitmap::of(&values, |value| value % 3 == 1);
            assert_eq!(of, Bitmap::from_fn(len, |row| row % 3 == 1));
            assert_eq!(of, values.iter().map(|value| value % 3 == 1).collect());
            assert_eq!(of.count(), values.iter().filter(|value| *value % 3 == 1).count());
            assert_eq!(of.as_bytes().len(), len.div_ceil(8));
            assert!((0..len + 9).all(|row| of.get(row) == (row < len && row % 3 == 1)));
            assert_eq!(Bitmap::all(len), Bitmap::from_fn(len, |_| true));
            assert_eq!(Bitmap::all(len).count(), len);
        }
    }

    #[test]
    fn the_first_row_is_the_least_significant_bit() {
        // Rows 0, 2 and 9: 0b101 in the first byte, 0b10 in the second.
        assert_eq!(Bitmap::from_fn(10, |row| [0, 2, 9].contains(&row)).into_bytes(), [0b101, 0b10]);
    }

    #[test]
    fn set_clears_and_sets() {
        let mut bitmap = Bitmap::all(9);
        bitmap.set(8, false);
        bitmap.set(0, false);
        bitmap.set(0, true);
        bitmap.set(9, true);
        assert_eq!(bitmap.into_bytes(), [0xff, 0]);
    }
}
