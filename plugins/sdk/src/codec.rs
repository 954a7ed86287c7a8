use crate::Error;

/// Writes a snapshot: small numbers take one byte, nothing has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing written yet.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Makes room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// A number, in one byte if it is below 128 and at most ten (LEB128).
    pub fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A number of either sign, in one byte if it is between -64 and 63 (zigzag).
    pub fn signed(&mut self, value: i64) {
        self.unsigned((value << 1 ^ value >> 63) as u64);
    }

    /// A number with a fraction, in eight bytes.
    pub fn float(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes, after their length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.unsigned(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Text, after its length.
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what a [`Writer`] wrote, in the same order. It trusts nothing: a snapshot may come from another version.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { left: bytes }
    }

    /// As [`Writer::unsigned`].
    ///
    /// # Errors
    /// The snapshot ends too early, or the number is over 64 bits.
    pub fn unsigned(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("the snapshot has a number of over 64 bits".into())
    }

    /// As [`Writer::signed`].
    ///
    /// # Errors
    /// As [`Reader::unsigned`].
    pub fn signed(&mut self) -> Result<i64, Error> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// As [`Writer::float`].
    ///
    /// # Errors
    /// The snapshot ends too early.
    pub fn float(&mut self) -> Result<f64, Error> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// As [`Writer::bytes`].
    ///
    /// # Errors
    /// The snapshot ends too early.
    pub fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.unsigned()?;
        let (value, left) =
            usize::try_from(len).ok().and_then(|len| self.left.split_at_checked(len)).ok_or_else(early)?;
        self.left = left;
        Ok(value)
    }

    /// As [`Writer::text`].
    ///
    /// # Errors
    /// The snapshot ends too early, or it is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|error| format!("the snapshot has text that is not UTF-8: {error}").into())
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (value, left) = self.left.split_first_chunk().ok_or_else(early)?;
        self.left = left;
        Ok(*value)
    }
}

fn early() -> Error {
    "the snapshot ends too early".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_small_as_they_can_be() {
        let mut out = Writer::new();
        out.unsigned(127);
        out.unsigned(300);
        out.signed(-1);
        // LEB128: 300 = 0b10_0101100; zigzag: -1 is 1.
        assert_eq!(out.finish(), [127, 0b1010_1100, 0b10, 1]);
    }

    #[test]
    fn what_goes_in_comes_out() {
        let numbers = [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX];
        let signed = [0, -1, 63, 64, i64::MIN, i64::MAX];
        let mut out = Writer::new();
        numbers.iter().for_each(|value| out.unsigned(*value));
        signed.iter().for_each(|value| out.signed(*value));
        out.float(-0.5);
        out.text("año");
        let bytes = out.finish();
        let mut from = Reader::new(&bytes);
        assert_eq!(numbers.map(|_| from.unsigned().unwrap()), numbers);
        assert_eq!(signed.map(|_| from.signed().unwrap()), signed);
        assert_eq!(from.float(), Ok(-0.5));
        assert_eq!(from.text(), Ok("año"));
        assert_eq!(from.left(), 0);
    }

    #[test]
    fn bad_bytes_are_errors() {
        assert!(Reader::new(&[]).unsigned().is_err());
        assert!(Reader::new(&[0x80]).unsigned().is_err());
        assert!(Reader::new(&[0xff; 11]).unsigned().is_err());
        assert!(Reader::new(&[5, 1, 2]).bytes().is_err());
        assert!(Reader::new(&[1, 0xff]).text().is_err());
        assert!(Reader::new(&[0; 7]).float().is_err());
        // 2^64 needs the second bit of the tenth byte.
        assert!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]).unsigned().is_err());
    }
}
