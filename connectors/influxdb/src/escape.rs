//! Names and values as line protocol writes them.
//!
//! The builder of the crate `influxdb-line-protocol` doubles every backslash in measurements, tags and field keys. InfluxDB
//! 2.8 keeps both (it knows the escapes of comma, equals sign and space only), so `C:\x` would become `C:\\x`. It also lets
//! line breaks through, which end the line there. So the escapes are written here, and the crate's parser proves them.

/// What a text is in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Measurement,
    /// A tag's key or value.
    Tag,
    Field,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Measurement => "measurement",
            Place::Tag => "tag",
            Place::Field => "field",
        }
    }
}

/// Write a measurement, a tag's key or value, or a field's key.
///
/// # Errors
/// Line protocol can't say it; what is wrong follows the text's name in the message.
pub(crate) fn push_name(place: Place, text: &str, into: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut backslashes = 0;
    if place == Place::Measurement && text.starts_with('#') {
        // The server takes the line for a comment and answers that all is well.
        return Err("begins with `#`, which makes the line a comment");
    }
    if !text.bytes().any(|byte| matches!(byte, b'\n' | b',' | b' ' | b'=' | b'\\')) {
        // Nearly all of them.
        into.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    for byte in text.bytes() {
        match byte {
            b'\n' => return Err("has a line break, which line protocol can't hold"),
            b'=' if place == Place::Measurement => {}
            b',' | b' ' | b'=' => {
                if backslashes % 2 == 1 && place != Place::Tag || backslashes > 0 && place == Place::Measurement {
                    return Err(
                        "has a backslash before a comma, a space or an equals sign, which line protocol can't hold",
                    );
                }
                into.push(b'\\');
            }
            _ => {}
        }
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
        into.push(byte);
    }
    if backslashes > 0 {
        return Err("ends in a backslash, which line protocol can't hold");
    }
    Ok(())
}

/// Write a string field's value.
pub(crate) fn push_string(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        let (before, after) = rest.split_at(at);
        into.extend_from_slice(before);
        into.push(b'\\');
        into.extend(after.first());
        rest = after.get(1..).unwrap_or_default();
    }
    into.extend_from_slice(rest);
    into.push(b'"');
}

/// Can a configured name be written, and does the server take it?
pub(crate) fn check_name(place: Place, name: &str) -> Result<(), String> {
    let kind = place.name();
    if name.is_empty() {
        return Err(format!("the name of a {kind} is empty"));
    }
    // The server drops a field `time` in silence if there are others.
    let reserved: &[&str] = match place {
        Place::Measurement => &[],
        Place::Tag => &["time", "_measurement", "_field"],
        Place::Field => &["time"],
    };
    if reserved.contains(&name) {
        return Err(format!(
            "a {kind} can't be named `{name}`: InfluxDB keeps that for itself; give it another name, \
                            as in `{kind}s = {{ other = \"{name}\" }}`"
        ));
    }
    push_name(place, name, &mut Vec::new()).map_err(|message| format!("the {kind} `{name}` {message}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;
    use influxdb_line_protocol::{FieldValue, parse_lines};
    use proptest::prelude::*;

    fn name(place: Place, text: &str) -> Result<Vec<u8>, &'static str> {
        let mut into = Vec::new();
        push_name(place, text, &mut into).map(|()| into)
    }

    /// Found out on InfluxDB 2.8.0, by writing each and reading it back.
    #[test]
    fn backslashes() {
        assert_eq!(name(Place::Tag, r"C:\x").unwrap(), br"C:\x");
        assert_eq!(name(Place::Tag, r"a\,b").unwrap(), br"a\\,b");
        assert_eq!(name(Place::Field, r"a\\,b").unwrap(), br"a\\\,b");
        assert!(name(Place::Field, r"a\,b").is_err());
        assert!(name(Place::Measurement, r"a\\ b").is_err());
        for place in [Place::Measurement, Place::Tag, Place::Field] {
            assert!(name(place, r"a\").is_err() && name(place, "a\nb").is_err());
        }
    }

    #[test]
    fn reserved_names() {
        insta::assert_snapshot!(check_name(Place::Field, "time").unwrap_err(), @"a field can't be named `time`: InfluxDB keeps that for itself; give it another name, as in `fields = { other = \"time\" }`");
        insta::assert_snapshot!(check_name(Place::Measurement, "#a").unwrap_err(), @"the measurement `#a` begins with `#`, which makes the line a comment");
        insta::assert_snapshot!(check_name(Place::Tag, "").unwrap_err(), @"the name of a tag is empty");
        assert!(check_name(Place::Tag, "_field").is_err() && check_name(Place::Field, "_field").is_ok());
    }

    proptest! {
        #[test]
        fn a_parser_reads_back_what_is_written(
            // The parser refuses a tab in a tag, which the server takes.
            measurement in r#"[a-z"][a-z,= "é]{0,8}"#,
            tag in r#"[a-z,= "é#]{1,8}"#,
            value in r#"[a-z,= "é]{1,8}"#,
            field in r#"[a-z,= "é]{1,8}"#,
            text in r#"[a-z,= "\\é\n\t]{0,12}"#,
        ) {
            let mut line = Vec::new();
            push_name(Place::Measurement, &measurement, &mut line).unwrap();
            line.push(b',');
            push_name(Place::Tag, &tag, &mut line).unwrap();
            line.push(b'=');
            push_name(Place::Tag, &value, &mut line).unwrap();
            line.push(b' ');
            push_name(Place::Field, &field, &mut line).unwrap();
            line.push(b'=');
            push_string(&text, &mut line);
            line.extend_from_slice(b" 7\n");
            let line = String::from_utf8(line).unwrap();
            let parsed: Vec<_> = parse_lines(&line).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(parsed[0].series.measurement.as_str(), measurement);
            prop_assert_eq!(parsed[0].tag_value(&tag).unwrap().as_str(), value);
            prop_assert_eq!(parsed[0].timestamp, Some(7));
            match parsed[0].field_value(&field) {
                Some(FieldValue::String(read)) => prop_assert_eq!(read.as_str(), text),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
