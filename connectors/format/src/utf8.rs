//! Bytes to text, many at a time: the standard library looks at eight or sixteen at once, this at sixty-four.

/// As much of the bytes, from their start, as is UTF-8.
pub(crate) fn prefix(bytes: &[u8]) -> &str {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_library_has_it() {
        let long = "grüß dich, 世界 \u{1f30d} ".repeat(20);
        for cut in 0..long.len() {
            let bytes = &long.as_bytes()[..cut];
            let valid = str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
            assert_eq!(prefix(bytes).len(), valid);
        }
        assert_eq!(prefix(b"latin \xfc, and more"), "latin ");
        assert_eq!(prefix(b"\xff"), "");
    }
}
