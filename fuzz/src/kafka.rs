//! Headers of Kafka's messages: what any producer can write becomes JSON, and what a row says of headers is read or refused.

use acequia_connector_kafka::fuzzing::{headers_of_json, headers_to_json};
use arbitrary::{Result, Unstructured};

use crate::rows;

pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(headers) = headers_of_json(text)
    {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        check(&headers);
    }
    let _ = written(&mut Unstructured::new(data));
}

fn written(input: &mut Unstructured<'_>) -> Result<()> {
    let mut headers = Vec::new();
    while !input.is_empty() && headers.len() < 8 {
        let name = rows::bytes(input)?;
        let value = if input.arbitrary()? { Some(rows::bytes(input)?) } else { None };
        headers.push((name, value));
    }
    check(&headers);
    Ok(())
}

fn check(headers: &[(&[u8], Option<&[u8]>)]) {
    let json = headers_to_json(headers);
    let read = headers_of_json(&json).expect("the sink reads what the source writes");
    let want: Vec<_> = headers
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec)))
        .collect();
    assert_eq!(read, want);
}
