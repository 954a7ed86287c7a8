//! Text to single values. Strict: no white space, no guess; what is not certain is refused.

use std::borrow::Cow;

use acequia_connector_api::days_from_civil;

/// 2^53: up to here a double holds every integer. What has been rounded to it may have been the next one.
pub(crate) const EXACT: i64 = 1 << 53;

/// `true` or `false`, in any case of letters.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A double. A whole number in digits must be one that a double holds exactly: `9007199254740993` (2^53 + 1) is refused. A
/// fraction is rounded, as everywhere. `NaN` and `Infinity` are taken, a number beyond the range of a double is not.
pub(crate) fn float64(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let digits = text.trim_start_matches(['+', '-']);
    let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole && value.abs() >= EXACT as f64 {
        // Rare: with a precision, Rust prints a double's exact value.
        return (format!("{:.0}", value.abs()) == digits.trim_start_matches('0')).then_some(value);
    }
    let overflowed = value.is_infinite() && digits.bytes().any(|byte| byte.is_ascii_digit());
    (!overflowed).then_some(value)
}

/// The integer that a double is, if it is one.
pub(crate) fn float_to_int64(value: f64) -> Option<i64> {
    // -2^63 and 2^63 are doubles; i64::MAX is not.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    (fits && value.fract() == 0.0).then_some(value as i64)
}

/// The double that an integer is, if it is one.
pub(crate) fn int64_to_float(value: i64) -> Option<f64> {
    let float = value as f64;
    (float_to_int64(float) == Some(value)).then_some(float)
}

/// The integer that a JSON number is: digits, or a fraction or exponent whose value is whole and exact.
pub(crate) fn json_int64(literal: &str) -> Option<i64> {
    literal.parse().ok().or_else(|| {
        let value: f64 =
            literal.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')).then(|| literal.parse().ok())??;
        (value.abs() < EXACT as f64).then(|| float_to_int64(value)).flatten()
    })
}

/// One JSON value, looked at from outside.
pub(crate) enum JsonValue<'a> {
    Null,
    Boolean(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    Nested,
}

impl<'a> JsonValue<'a> {
    /// `raw` must be one valid JSON value without white space around it. `None` if it is a string that has no UTF-8 (half a
    /// surrogate pair).
    pub(crate) fn of(raw: &'a str) -> Option<Self> {
        Some(match raw.as_bytes().first() {
            Some(b'"') => JsonValue::Text(json_string(raw)?),
            Some(b'{' | b'[') => JsonValue::Nested,
            Some(b't') => JsonValue::Boolean(true),
            Some(b'f') => JsonValue::Boolean(false),
            Some(b'n') | None => JsonValue::Null,
            Some(_) => JsonValue::Number(raw),
        })
    }
}

/// The content of a valid JSON string.
pub(crate) fn json_string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.get(1..raw.len().checked_sub(1)?)?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// How deep a JSON value may be nested; serde_json's own limit, so that whoever parses it later can.
const DEPTH: usize = 127;

/// Append a valid JSON value without white space between its tokens. False, and nothing appended, if it is nested too deeply.
pub(crate) fn compact_json(raw: &str, out: &mut String) -> bool {
    let before = out.len();
    let mut copied = 0;
    let mut depth = 0usize;
    let (mut in_string, mut escaped) = (false, false);
    for (index, byte) in raw.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH {
                    out.truncate(before);
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b' ' | b'\t' | b'\r' | b'\n' => {
                out.push_str(raw.get(copied..index).unwrap_or_default());
                copied = index + 1;
            }
            _ => {}
        }
    }
    out.push_str(raw.get(copied..).unwrap_or_default());
    true
}

/// A date and time as text to microseconds since the epoch, UTC.
///
/// `2020-04-13 12:09:37.768982`: ISO 8601 with `T` or a blank between date and time, up to nine digits of fraction
/// (those beyond the sixth are cut off), and `Z` or an offset `±hh:mm` or `±hhmm`; without one it is UTC. A date alone is its
/// midnight. A year beyond 9999 or before 0 has a sign, as [`acequia_connector_api::format_timestamp`] writes it. A leap
/// second (`:60`) is refused, since the count of microseconds has no place for it.
///
/// `None` if it is anything else, or does not fit.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let mut rest = Digits(text.as_bytes());
    let signed = matches!(rest.0.first(), Some(b'+' | b'-'));
    let sign = if rest.take(b'-') { -1 } else { i64::from(!signed || rest.take(b'+')) };
    let year_digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if year_digits < 4 || year_digits > if signed { 6 } else { 4 } {
        return None;
    }
    let year = sign * rest.number(year_digits)?;
    rest.expect(b'-')?;
    let month = rest.number(2)?;
    rest.expect(b'-')?;
    let day = rest.number(2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let mut micros = 0;
    if !rest.0.is_empty() {
        if !(rest.take(b'T') || rest.take(b' ') || rest.take(b't')) {
            return None;
        }
        micros = time_of_day(&mut rest)? - 60_000_000 * offset_minutes(&mut rest)?;
    }
    rest.0.is_empty().then_some(())?;
    // The first day of the range begins before it.
    let micros = i128::from(days_from_civil(year, month, day)) * 86_400_000_000 + i128::from(micros);
    i64::try_from(micros).ok()
}

fn time_of_day(rest: &mut Digits<'_>) -> Option<i64> {
    let hour = rest.number(2)?;
    rest.expect(b':')?;
    let minute = rest.number(2)?;
    rest.expect(b':')?;
    let second = rest.number(2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut fraction = 0;
    if rest.take(b'.') {
        let digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        fraction = rest.number(digits.min(6))?;
        for _ in digits..6 {
            fraction *= 10;
        }
        rest.number(digits.saturating_sub(6))?;
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

fn offset_minutes(rest: &mut Digits<'_>) -> Option<i64> {
    if rest.0.is_empty() || rest.take(b'Z') || rest.take(b'z') {
        return Some(0);
    }
    let sign = if rest.take(b'-') { -1 } else { i64::from(rest.take(b'+')) };
    if sign == 0 {
        return None;
    }
    let hours = rest.number(2)?;
    rest.take(b':');
    let minutes = rest.number(2)?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    /// Exactly that many digits.
    fn number(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acequia_connector_api::format_timestamp;

    #[test]
    fn timestamps() {
        // Python: datetime.fromisoformat(TEXT).replace(tzinfo=utc unless there is one).timestamp() * 1e6
        for (text, micros) in [
            ("2020-04-13 12:09:37.768982", 1_586_779_777_768_982),
            ("2020-04-13T12:09:37.768982", 1_586_779_777_768_982),
            ("2020-04-13T12:09:37.768982Z", 1_586_779_777_768_982),
            ("2020-04-13T14:09:37.768982+02:00", 1_586_779_777_768_982),
            ("2020-04-13T14:09:37.768982+0200", 1_586_779_777_768_982),
            ("2020-04-13 06:39:37.768982-05:30", 1_586_779_777_768_982),
            ("2020-04-13 12:09:37", 1_586_779_777_000_000),
            ("2020-04-13 12:09:37.7", 1_586_779_777_700_000),
            ("2020-04-13 12:09:37.768982999", 1_586_779_777_768_982),
            ("2020-04-13", 1_586_736_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2000-02-29 00:00:00", 951_782_400_000_000),
            ("0001-01-01 00:00:00", -62_135_596_800_000_000),
            ("9999-12-31 23:59:59.999999", 253_402_300_799_999_999),
        ] {
            assert_eq!(parse_timestamp(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "now",
            "2020",
            "2020-04-13 ",
            " 2020-04-13",
            "2020-4-13",
            "2020-04-31",
            "2019-02-29",
            "1900-02-29",
            "2020-13-01",
            "2020-00-01",
            "2020-01-00",
            "2020-04-13 12:09",
            "2020-04-13 24:00:00",
            "2020-04-13 12:60:00",
            "2020-04-13 12:09:60",
            "2020-04-13 12:09:37.",
            "2020-04-13 12:09:37.1234567890",
            "2020-04-13 12:09:37 UTC",
            "2020-04-13 12:09:37+2",
            "2020-04-13 12:09:37+24:00",
            "2020-04-13x12:09:37",
            "2020-04-13Z",
            "20200-04-13",
            "1586779777",
            "２０２０-04-13",
            "+999999-01-01 00:00:00",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_round_trip_over_the_whole_range() {
        for micros in [i64::MIN, i64::MIN + 1, -62_167_219_200_000_001, -1, 0, 253_402_300_800_000_000, i64::MAX] {
            assert_eq!(parse_timestamp(&format_timestamp(micros)), Some(micros), "{}", format_timestamp(micros));
        }
    }

    #[test]
    fn floats_are_exact_or_refused() {
        for (text, value) in [
            ("15.5", Some(15.5)),
            ("-1e3", Some(-1000.0)),
            (".5", Some(0.5)),
            ("9007199254740992", Some(9_007_199_254_740_992.0)),
            ("9007199254740993", None),
            ("-9007199254740993", None),
            ("100000000000000000000", Some(1e20)),
            ("100000000000000000001", None),
            ("1e400", None),
            ("-1e400", None),
            ("1e-400", Some(0.0)),
            ("Infinity", Some(f64::INFINITY)),
            ("", None),
            (" 1", None),
            ("1,5", None),
            ("0x10", None),
        ] {
            assert_eq!(float64(text), value, "{text}");
        }
        assert!(float64("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn integers_of_json() {
        for (text, value) in [
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("3.0", Some(3)),
            ("1e3", Some(1000)),
            ("3.5", None),
            ("9007199254740993.0", None),
            ("1e400", None),
        ] {
            assert_eq!(json_int64(text), value, "{text}");
        }
        assert_eq!(float_to_int64(9_223_372_036_854_775_808.0), None);
        assert_eq!(float_to_int64(-9_223_372_036_854_775_808.0), Some(i64::MIN));
        assert_eq!(float_to_int64(f64::NAN), None);
        assert_eq!(int64_to_float(i64::MAX), None);
        assert_eq!(int64_to_float(1 << 60), Some(1_152_921_504_606_846_976.0));
        assert_eq!(int64_to_float(EXACT + 1), None);
    }

    #[test]
    fn json_loses_its_white_space_outside_of_strings() {
        let mut out = String::from("x");
        assert!(compact_json("{ \"a b\\\" \" :\n[1,\t2 ] }", &mut out));
        assert_eq!(out, "x{\"a b\\\" \":[1,2]}");
        assert!(compact_json(&("[".repeat(127) + &"]".repeat(127)), &mut out));
        let before = out.len();
        assert!(!compact_json(&("[".repeat(128) + &"]".repeat(128)), &mut out));
        assert_eq!(out.len(), before);
    }
}
