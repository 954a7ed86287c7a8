//! A strict reader of the text exposition format: it refuses what Prometheus would let pass but its linter would not.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// Every series with its value.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    series: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix('\n').ok_or("the last line must end with a line feed")?;
        let mut metrics = Metrics::default();
        let mut seen = BTreeSet::new();
        // The metric that the samples belong to, and its type as soon as it is known.
        let mut family: Option<(String, Option<String>)> = None;
        for line in body.split('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
                check_name(name)?;
                if help.is_empty() || !seen.insert(name.to_owned()) {
                    return Err(format!("empty or second help: {line}"));
                }
                unescape(help, "\\n")?;
                family = Some((name.to_owned(), None));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
                match &mut family {
                    Some((current, slot @ None)) if current == name => *slot = Some(kind.to_owned()),
                    _ => return Err(format!("the type must come once, right after its help: {line}")),
                }
                match (kind, name.ends_with("_total")) {
                    ("counter", true) | ("gauge", false) => {}
                    _ => return Err(format!("type and name do not go together: {line}")),
                }
            } else {
                let Some((current, Some(kind))) = &family else { return Err(format!("sample without type: {line}")) };
                let (name, labels, value) = sample(line)?;
                if &name != current {
                    return Err(format!("sample among those of {current}: {line}"));
                }
                if kind == "counter" && !(value.is_finite() && value >= 0.0) {
                    return Err(format!("a counter can't be {value}: {line}"));
                }
                if metrics.series.insert((name, labels), value).is_some() {
                    return Err(format!("the series is there twice: {line}"));
                }
            }
        }
        Ok(metrics)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits =
        |(index, byte): (usize, u8)| byte.is_ascii_alphabetic() || byte == b'_' || (index > 0 && byte.is_ascii_digit());
    if name.is_empty() || !name.bytes().enumerate().all(fits) {
        return Err(format!("bad name: {name:?}"));
    }
    Ok(())
}

/// `name{label="value",...} 1.5`, with exactly that spacing.
fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or_else(|| format!("no value: {line}"))?;
    let (name, mut rest) = line.split_at(end);
    check_name(name)?;
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or_else(|| format!("bad label: {line}"))?;
            check_name(label)?;
            let close = closing_quote(after).ok_or_else(|| format!("open quote: {line}"))?;
            if labels.insert(label.to_owned(), unescape(&after[..close], "\\n\"")?).is_some() {
                return Err(format!("the label is there twice: {line}"));
            }
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or_else(|| format!("open brace: {line}"))?;
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| format!("no value: {line}"))?;
    let value = value.parse().map_err(|_| format!("not a number: {line}"))?;
    Ok((name.to_owned(), labels, value))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index),
            _ => {}
        }
    }
    None
}

/// `allowed` are the characters that may follow a backslash.
fn unescape(text: &str, allowed: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') if allowed.contains('n') => plain.push('\n'),
            Some(escaped) if escaped != 'n' && allowed.contains(escaped) => plain.push(escaped),
            other => return Err(format!("bad escape {other:?} in {text:?}")),
        }
    }
    Ok(plain)
}

#[test]
fn refuses_what_is_not_the_format() {
    let head = "# HELP a_total h\n# TYPE a_total counter\n";
    assert!(Metrics::parse(&format!("{head}a_total{{x=\"1\"}} 1\na_total{{x=\"2\"}} 1\n")).is_ok());
    for (wrong, bad) in [
        ("no line feed at the end", format!("{head}a_total 1")),
        ("the same series twice", format!("{head}a_total 1\na_total 1\n")),
        ("a foreign sample", format!("{head}b_total 1\n")),
        ("no type", "# HELP a_total h\na_total 1\n".to_owned()),
        ("no help", "# TYPE a_total counter\na_total 1\n".to_owned()),
        ("two heads", format!("{head}{head}a_total 1\n")),
        ("a counter by another name", "# HELP a h\n# TYPE a counter\na 1\n".to_owned()),
        ("a negative counter", format!("{head}a_total -1\n")),
        ("an open quote", format!("{head}a_total{{x=\"1}} 1\n")),
        ("an unknown escape", format!("{head}a_total{{x=\"\\t\"}} 1\n")),
        ("no number", format!("{head}a_total x\n")),
        ("an empty line", format!("{head}\na_total 1\n")),
    ] {
        assert!(Metrics::parse(&bad).is_err(), "{wrong}");
    }
}
