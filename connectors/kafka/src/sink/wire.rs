//! How large a message is on the wire.

/// What a batch of records has before its first record: the format with magic 2, KIP-98.
const BATCH: usize = 61;

/// Size in bytes of a batch that holds only this message, not compressed: what a topic's `max.message.bytes` is about.
/// `headers` are the lengths of keys and values.
pub(super) fn size(
    key: Option<usize>,
    value: Option<usize>,
    headers: impl ExactSizeIterator<Item = (usize, Option<usize>)>,
) -> usize {
    // Attributes, and the differences in time and offset to the batch's first record: a byte each for that one.
    let mut body = 3 + field(key) + field(value) + varint(headers.len());
    for (name, value) in headers {
        body += field(Some(name)) + field(value);
    }
    BATCH + varint(body) + body
}

/// A length and what is that long; the length of nothing is -1.
fn field(length: Option<usize>) -> usize {
    length.map_or(1, |length| varint(length) + length)
}

/// Bytes of a number that is not negative, in zigzag coding, seven bits a byte.
fn varint(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()) as usize + 1;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_bytes_as_protobuf_says() {
        for (number, bytes) in [(0, 1), (1, 1), (63, 1), (64, 2), (8191, 2), (8192, 3), (1_048_575, 3), (1_048_576, 4)]
        {
            assert_eq!(varint(number), bytes, "{number}");
        }
    }

    #[test]
    fn a_message_has_its_size() {
        let none = std::iter::empty::<(usize, Option<usize>)>;
        // Length, attributes, two differences, key and value of length -1, no headers.
        assert_eq!(size(None, None, none()), 61 + 1 + 6);
        assert_eq!(size(Some(3), Some(100), none()), 61 + 2 + 3 + 4 + 102 + 1);
        assert_eq!(size(None, Some(0), [(1, Some(2)), (1, None)].into_iter()), 61 + 1 + 3 + 1 + 1 + 1 + 5 + 3);
    }
}
