//! The way in for the fuzz targets, and no part of the interface: headers to JSON and back.

/// Names and values, in order.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// What the source makes of a message's headers.
pub fn headers_to_json(headers: &[(&[u8], Option<&[u8]>)]) -> String {
    crate::source::headers_to_json(headers)
}

/// What the sink makes of a row's.
///
/// # Errors
/// If they are no headers.
pub fn headers_of_json(json: &str) -> Result<Headers, String> {
    crate::sink::HeaderList::parse(json).map(|list| list.0)
}
