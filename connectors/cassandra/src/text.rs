//! Cassandra's types that have no column type of their own, as text: `date`, `time`, `duration`, `inet`, `uuid`, `varint`
//! and `decimal`. Reading and writing are each other's inverse.

use std::fmt::Write;
use std::net::IpAddr;

use acequia_connector_api::{civil_from_days, days_from_civil};
use num_bigint::BigInt;

/// Nanoseconds of a day.
pub(crate) const DAY_NANOS: i64 = 86_400_000_000_000;

/// `2020-04-13` to days since the epoch. The year has at least four digits and may have a sign.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, text.get(1..)?),
        b'+' => (1, text.get(1..)?),
        _ => (1, text),
    };
    let mut parts = digits.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(4..=7).contains(&year.len()) || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let (year, month, day) = (sign * number(year)?, number(month)?, number(day)?);
    let days = days_from_civil(year, month, day);
    // A day that there is comes back as it was.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Days since the epoch to `2020-04-13`.
pub(crate) fn format_date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    let sign = match year {
        0..=9999 => "",
        ..0 => "-",
        _ => "+",
    };
    format!("{sign}{:04}-{month:02}-{day:02}", year.unsigned_abs())
}

/// `12:09:37.768982` to nanoseconds since midnight; up to nine digits of fraction.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':');
    let mut part = |limit: i64| -> Option<i64> {
        let text = parts.next()?;
        let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| text.parse().ok())?.filter(|number| *number < limit)
    };
    let seconds = part(24)? * 3600 + part(60)? * 60 + part(60)?;
    if parts.next().is_some() {
        return None;
    }
    let nanos = match fraction {
        None => 0,
        Some(digits) => {
            if !(1..=9).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            digits.parse::<i64>().ok()? * 10_i64.pow(9 - u32::try_from(digits.len()).ok()?)
        }
    };
    Some(seconds * 1_000_000_000 + nanos)
}

/// Nanoseconds since midnight to `12:09:37.768982000`, as Cassandra writes it.
pub(crate) fn format_time(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    format!("{:02}:{:02}:{:02}.{fraction:09}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Cassandra's `duration`: three numbers of one sign, since a month has no fixed length, nor has a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Duration {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) nanos: i64,
}

/// The units of Cassandra's own form, from large to small: name, months, days and nanoseconds of one.
const UNITS: [(&str, i64, i64, i64); 11] = [
    ("y", 12, 0, 0),
    ("mo", 1, 0, 0),
    ("w", 0, 7, 0),
    ("d", 0, 1, 0),
    ("h", 0, 0, 3_600_000_000_000),
    ("m", 0, 0, 60_000_000_000),
    ("s", 0, 0, 1_000_000_000),
    ("ms", 0, 0, 1_000_000),
    ("us", 0, 0, 1000),
    ("µs", 0, 0, 1000),
    ("ns", 0, 0, 1),
];

/// `1mo2d3h4m5s` as Cassandra writes it, or ISO 8601's `P1Y2M3DT4H5M6S` and `P3W`; a minus sign in front negates all.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let iso = rest.strip_prefix('P');
    let mut rest = iso.unwrap_or(rest);
    let mut time = false;
    let (mut months, mut days, mut nanos) = (0i64, 0i64, 0i64);
    let mut any = false;
    while !rest.is_empty() {
        if iso.is_some() && !time && rest.starts_with('T') {
            (time, rest) = (true, rest.get(1..)?);
            any = false;
            continue;
        }
        let end = rest.find(|character: char| !character.is_ascii_digit())?;
        let number: i64 = rest.get(..end)?.parse().ok()?;
        rest = rest.get(end..)?;
        let end = rest.find(|character: char| character.is_ascii_digit() || character == 'T').unwrap_or(rest.len());
        let mut name = rest.get(..end)?.to_ascii_lowercase();
        rest = rest.get(end..)?;
        if iso.is_some() {
            name = match (name.as_str(), time) {
                ("m", false) => "mo".to_owned(),
                ("y" | "w" | "d", false) | ("h" | "m" | "s", true) => name,
                _ => return None,
            };
        }
        let (_, of_months, of_days, of_nanos) = UNITS.iter().find(|(unit, ..)| *unit == name)?;
        months = months.checked_add(number.checked_mul(*of_months)?)?;
        days = days.checked_add(number.checked_mul(*of_days)?)?;
        nanos = nanos.checked_add(number.checked_mul(*of_nanos)?)?;
        any = true;
    }
    let narrow = |number: i64| i32::try_from(sign * number).ok();
    any.then_some(Duration { months: narrow(months)?, days: narrow(days)?, nanos: sign * nanos })
}

/// `1mo2d3h`, as [`parse_duration`] reads it; no length at all is `0s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut text = String::new();
    if duration.months < 0 || duration.days < 0 || duration.nanos < 0 {
        text.push('-');
    }
    let mut months = u64::from(duration.months.unsigned_abs());
    let mut days = u64::from(duration.days.unsigned_abs());
    let mut nanos = duration.nanos.unsigned_abs();
    for (name, of_months, of_days, of_nanos) in UNITS {
        let (left, size) = match (of_months, of_days, of_nanos) {
            (size @ 1.., _, _) => (&mut months, size),
            (_, size @ 1.., _) => (&mut days, size),
            (_, _, size) => (&mut nanos, size),
        };
        let size = size.unsigned_abs();
        // Cassandra writes days, not weeks.
        if *left >= size && name != "w" {
            let _ = write!(text, "{}{name}", *left / size);
            *left %= size;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// An IP address, four or sixteen bytes.
pub(crate) fn format_inet(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

/// A number as text to its digits and its scale: the value is `digits * 10^-scale`. `1.50` keeps its zero (scale 2).
pub(crate) fn parse_decimal(text: &str) -> Option<(BigInt, i32)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let unsigned = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(unsigned) || !digits(fraction) || unsigned.len() + fraction.len() == 0 {
        return None;
    }
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    let number = BigInt::parse_bytes(format!("{whole}{fraction}").as_bytes(), 10)?;
    Some((number, scale))
}

/// Digits and scale to a number as text, in full up to a few zeros, else with an exponent.
pub(crate) fn format_decimal(number: &BigInt, scale: i32) -> String {
    let digits = number.magnitude().to_string();
    let sign = if number.sign() == num_bigint::Sign::Minus { "-" } else { "" };
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) if scale < digits.len() => {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Ok(scale) if scale - digits.len() < 32 => format!("{sign}0.{}{digits}", "0".repeat(scale - digits.len())),
        _ => format!("{sign}{digits}E{}", -i64::from(scale)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates() {
        // Python: (datetime.date(2020, 4, 13) - datetime.date(1970, 1, 1)).days
        assert_eq!(parse_date("2020-04-13"), Some(18_365));
        assert_eq!(parse_date("1969-12-31"), Some(-1));
        for bad in ["2020-4-13", "2021-02-29", "2020-13-01", "2020-04-13T00:00:00", "20-04-13", "", "-", "2020-04"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("12:09:37.768982"), Some(43_777_768_982_000));
        assert_eq!(format_time(43_777_768_982_000), "12:09:37.768982000");
        for bad in ["24:00:00", "12:60:00", "12:00", "1:00:00", "12:00:00.", "12:00:00.1234567890", "12:00:00:00"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        let expected = Duration { months: 14, days: 3, nanos: 14_706_000_000_000 };
        assert_eq!(parse_duration("P1Y2M3DT4H5M6S"), Some(expected));
        assert_eq!(parse_duration("1y2mo3d4h5m6s"), Some(expected));
        assert_eq!(format_duration(expected), "1y2mo3d4h5m6s");
        assert_eq!(parse_duration("-1w"), Some(Duration { months: 0, days: -7, nanos: 0 }));
        for bad in ["", "P", "PT", "1", "1x", "P1H", "PT1D", "1mo2", "9999999999y", "1d ", "--1d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn decimals() {
        assert_eq!(parse_decimal("1.50"), Some((150.into(), 2)));
        assert_eq!(parse_decimal("-0.05"), Some(((-5).into(), 2)));
        assert_eq!(parse_decimal("1e3"), Some((1.into(), -3)));
        assert_eq!(format_decimal(&1.into(), -3), "1E3");
        assert_eq!(format_decimal(&(-5).into(), 2), "-0.05");
        assert_eq!(format_decimal(&5.into(), 100), "5E-100");
        for bad in ["", ".", "-", "1.2.3", "abc", "1e", "NaN", "1_000", "--1", "1e99999999999"] {
            assert_eq!(parse_decimal(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_is_read_as_it_was_written(
            days in -2_147_483_648_i64..2_147_483_648,
            nanos in 0..DAY_NANOS,
            number: i128,
            scale in -50_i32..200,
            negative: bool,
            (months, of_days, of_nanos) in (0..i32::MAX, 0..i32::MAX, 0..i64::MAX),
        ) {
            prop_assert_eq!(parse_date(&format_date(days)), Some(days));
            prop_assert_eq!(parse_time(&format_time(nanos)), Some(nanos));
            let decimal = (BigInt::from(number), scale);
            prop_assert_eq!(parse_decimal(&format_decimal(&decimal.0, scale)), Some(decimal));
            let sign = if negative { -1 } else { 1 };
            let duration =
                Duration { months: sign * months, days: sign * of_days, nanos: i64::from(sign) * of_nanos };
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = (parse_date(&text), parse_time(&text), parse_duration(&text), parse_decimal(&text));
        }
    }
}
