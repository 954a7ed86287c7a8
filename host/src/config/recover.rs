//! Parses one table into a type, and goes on after an error, so that a person sees all of them at once.
//!
//! serde stops at the first error. Here the key at fault is then taken out and the table is parsed again, until it is
//! right or the rest can't be told. Where the value at fault came from `${NAME}`, it is first tried as the number or
//! boolean that its text spells.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::diagnostic::{Diagnostic, SourceText};
use super::env::{Interpolated, Replacements};
use super::nearest::{did_you_mean, list, nearest};
use super::shape::Shape;
use super::tree;

/// More errors than this in one table help nobody.
const MOST_ERRORS: usize = 20;

/// Keys that people look for in the wrong table.
const ELSEWHERE: [(&str, &str); 8] = [
    ("checkpoint_interval", "[delivery]"),
    ("tasks", "[delivery]"),
    ("batch", "[delivery]"),
    ("in_flight", "[delivery]"),
    ("on_error", "[errors]"),
    ("dead_letter", "[errors]"),
    ("limits", "[[transform]]"),
    ("grants", "[[transform]]"),
];

/// What is known while a file is parsed.
pub(super) struct Parser<'i> {
    pub source: SourceText,
    pub replacements: &'i Replacements,
    pub diagnostics: Vec<Diagnostic>,
}

/// A table to be parsed.
pub(super) struct Section<'s, 'i> {
    /// As a person calls it: `[source]`.
    pub title: &'s str,
    /// The table.
    pub table: DeTable<'i>,
    /// Its header.
    pub place: Range<usize>,
    /// Its schema, made only if something is wrong.
    pub shape: &'s dyn Fn() -> Shape,
    /// Keys that have been taken out of the table and are right there.
    pub taken: &'s [&'s str],
}

struct Attempt<'s, 'i> {
    section: Section<'s, 'i>,
    failed: bool,
    removed: Vec<String>,
    /// How many stand-ins were tried for the value that starts there.
    tried: BTreeMap<usize, usize>,
}

impl<'i> Parser<'i> {
    /// Something is wrong at `span`.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Whether the value, or one in it, hangs on a variable that is not known.
    pub fn is_unknown(&self, value: &Spanned<DeValue<'_>>) -> bool {
        match value.get_ref() {
            DeValue::Table(table) => table.values().any(|value| self.is_unknown(value)),
            DeValue::Array(array) => array.iter().any(|value| self.is_unknown(value)),
            _ => self.replacements.get(&value.span().start).is_some_and(|replaced| !replaced.unknown.is_empty()),
        }
    }

    /// Report that nothing can be said of a value without its variable, unless it is reported already that there is no
    /// such variable.
    pub fn report_unknown(&mut self, key: &str, span: &Range<usize>) {
        let inside =
            |diagnostic: &Diagnostic| diagnostic.place.as_ref().is_some_and(|place| span.contains(&place.span.start));
        if !self.diagnostics.iter().any(inside) {
            let diagnostic = self
                .source
                .at(span.clone(), format!("`{key}` can't be checked without the environment"))
                .label("no value that could stand in is known")
                .help("give it a default: `${NAME:-default}`");
            self.report(diagnostic);
        }
    }

    /// Parse the table. `None`: it is wrong, and that has been reported.
    pub fn parse<T>(
        &mut self,
        section: Section<'_, 'i>,
        parse: impl Fn(ValueDeserializer<'i>) -> Result<T, toml::de::Error>,
    ) -> Option<T> {
        let mut attempt = Attempt { section, failed: false, removed: Vec::new(), tried: BTreeMap::new() };
        let before = self.diagnostics.len();
        loop {
            let table = DeValue::Table(attempt.section.table.clone());
            let table = Spanned::new(attempt.section.place.clone(), table);
            let error = match parse(ValueDeserializer::from(table)) {
                Ok(value) => return (!attempt.failed).then_some(value),
                Err(error) => error,
            };
            if !self.recover(&mut attempt, &error) || self.diagnostics.len() - before >= MOST_ERRORS {
                return None;
            }
        }
    }

    /// Report the error, or mend the value. False: the rest of the table can't be told.
    fn recover(&mut self, attempt: &mut Attempt<'_, 'i>, error: &toml::de::Error) -> bool {
        let span = error.span().unwrap_or_else(|| attempt.section.place.clone());
        let fault = Fault::of(error.message());
        if let Some(replaced) = self.replacements.get(&span.start)
            && stand_in(attempt, &span, replaced, &fault)
        {
            return true;
        }
        let located = tree::locate(&attempt.section.table, &span);
        if let Fault::Missing { key } = &fault {
            self.report_missing(attempt, key, &span, located.map(|located| located.path));
            return false;
        }
        let first_failure = !std::mem::replace(&mut attempt.failed, true);
        let Some(path) = located.map(|located| located.path) else {
            // The same error would come again and again.
            if first_failure || attempt.removed.is_empty() {
                let diagnostic = self.source.at(span, format!("{}: {}", attempt.section.title, error.message()));
                self.report(diagnostic);
            }
            return false;
        };
        let key = path.last().map(String::as_str).unwrap_or_default();
        if self.replacements.get(&span.start).is_some_and(|replaced| !replaced.unknown.is_empty()) {
            self.report_unknown(key, &span);
        } else {
            let diagnostic = self.describe(&attempt.section, &fault, span, &path);
            self.report(diagnostic);
        }
        attempt.removed.push(key.to_owned());
        if let Fault::UnknownKey { name, known } = &fault {
            // What it was most likely meant to be is not reported as missing as well.
            attempt.removed.extend(nearest(name, known.iter().map(String::as_str)).map(str::to_owned));
        }
        tree::remove(&mut attempt.section.table, &path);
        true
    }

    fn report_missing(&mut self, attempt: &Attempt<'_, 'i>, key: &str, span: &Range<usize>, path: Option<Vec<String>>) {
        let shape = (attempt.section.shape)();
        let path = path.unwrap_or_default();
        let at_top = path.is_empty();
        let mut missing: Vec<&str> = Vec::new();
        if at_top {
            missing = shape.required();
            missing.retain(|required| !attempt.section.table.contains_key(*required));
        }
        if !missing.contains(&key) {
            missing.push(key);
        }
        missing.retain(|key| !attempt.removed.iter().any(|removed| removed == key));
        for key in missing {
            let title = if at_top { attempt.section.title.to_owned() } else { format!("`{}`", path.join(".")) };
            let mut full = path.clone();
            full.push(key.to_owned());
            let help = shape.key(&full).and_then(|schema| shape.summary(schema)).map(|text| format!("`{key}`: {text}"));
            let diagnostic = self
                .source
                .at(span.clone(), format!("missing key `{key}` in {title}"))
                .label(format!("`{key}` must be given here"))
                .maybe_help(help);
            self.report(diagnostic);
        }
    }

    fn describe(&self, section: &Section<'_, 'i>, fault: &Fault, span: Range<usize>, path: &[String]) -> Diagnostic {
        let key = path.last().map(String::as_str).unwrap_or_default();
        let at = |message: String| self.source.at(span.clone(), message);
        let shape = (section.shape)();
        let about = shape.key(path).and_then(|schema| shape.summary(schema)).map(|text| format!("`{key}`: {text}"));
        match fault {
            Fault::UnknownKey { name, known } => {
                let title = match path {
                    [_] => section.title.to_owned(),
                    [above @ .., _] => format!("`{}`", above.join(".")),
                    [] => section.title.to_owned(),
                };
                let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
                if path.len() == 1 {
                    known.splice(0..0, section.taken.iter().copied());
                }
                let near = did_you_mean(name, known.iter().copied());
                let elsewhere = ELSEWHERE.iter().find(|(key, _)| key == name);
                let help = match (near, elsewhere) {
                    (_, Some((key, table))) => Some(format!("`{key}` belongs in `{table}`")),
                    (near, None) => near,
                };
                let known =
                    if known.is_empty() { "it has no keys".to_owned() } else { format!("known keys: {}", list(known)) };
                at(format!("unknown key `{name}` in {title}")).label("unknown key").maybe_help(help).help(known)
            }
            Fault::UnknownValue { name, known } => {
                let name = self.as_written(&span, name);
                let known = known.iter().map(String::as_str);
                at(format!("unknown value `{name}` for `{key}`"))
                    .label(format!("expected one of {}", list(known.clone())))
                    .maybe_help(did_you_mean(&name, known))
                    .maybe_help(about)
            }
            Fault::Wrong { kind, found, expected } => {
                let found = self.as_written(&span, found);
                at(format!("wrong {kind} for `{key}`"))
                    .label(format!("expected {expected}, found {found}"))
                    .maybe_help(about)
            }
            Fault::NoVariant => {
                let wanted = shape.key(path).map(|schema| shape.type_name(schema)).unwrap_or_default();
                let wanted = match wanted.as_str() {
                    "secret" => "`{ env = \"NAME\" }`, `{ file = \"PATH\" }` or a string".to_owned(),
                    "" | "any" | "table" => "another form of value".to_owned(),
                    wanted => wanted.to_owned(),
                };
                at(format!("wrong value for `{key}`")).label(format!("expected {wanted}")).maybe_help(about)
            }
            Fault::Missing { key } => at(format!("missing key `{key}`")),
            Fault::Other(message) => {
                let message = self.as_written(&span, message);
                at(format!("wrong value for `{key}`")).label(message).maybe_help(about)
            }
        }
    }

    /// The message with what a variable held replaced by the variable's name: it may be secret.
    fn as_written(&self, span: &Range<usize>, message: &str) -> String {
        match self.replacements.get(&span.start) {
            Some(replaced) if !replaced.value.is_empty() => {
                let quoted = |text: &str| format!("{text:?}");
                message
                    .replace(&quoted(&replaced.value), &quoted(&replaced.written))
                    .replace(&replaced.value, &replaced.written)
            }
            _ => message.to_owned(),
        }
    }
}

/// Try another reading of a value that came from a variable. False: there is none left.
fn stand_in<'i>(attempt: &mut Attempt<'_, 'i>, span: &Range<usize>, replaced: &'i Interpolated, fault: &Fault) -> bool {
    let Some(value) = tree::value_at(&mut attempt.section.table, span) else { return false };
    let tried = attempt.tried.entry(span.start).or_insert(0);
    let known = replaced.unknown.is_empty();
    loop {
        let next = match (known, *tried) {
            (true, 0) if replaced.whole => scalar(&replaced.value),
            (true, _) => return false,
            (false, 0) => Some(DeValue::String(Cow::Borrowed(replaced.numeric.as_str()))),
            (false, 1) if replaced.whole => scalar("1"),
            (false, 2) if replaced.whole => scalar("1.0"),
            (false, 3) if replaced.whole => scalar("true"),
            (false, 4) if replaced.whole => Some(DeValue::String(Cow::Borrowed("1s"))),
            (false, 5) if replaced.whole => match fault {
                Fault::UnknownValue { known, .. } => {
                    known.first().map(|name| DeValue::String(Cow::Owned(name.clone())))
                }
                _ => None,
            },
            (false, 6..) => return false,
            (false, _) => None,
        };
        *tried += 1;
        if let Some(next) = next {
            *value.get_mut() = next;
            return true;
        }
    }
}

/// The number or boolean that the text spells in TOML.
fn scalar(text: &str) -> Option<DeValue<'_>> {
    match DeValue::parse(text.trim()).ok()?.into_inner() {
        value @ (DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => Some(value),
        _ => None,
    }
}

/// What serde's message says.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    UnknownKey { name: String, known: Vec<String> },
    UnknownValue { name: String, known: Vec<String> },
    Missing { key: String },
    Wrong { kind: &'static str, found: String, expected: String },
    NoVariant,
    Other(String),
}

impl Fault {
    fn of(message: &str) -> Fault {
        let message = message.trim_end();
        if let Some(rest) = message.strip_prefix("unknown field `")
            && let Some((name, known)) = rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are "))
        {
            return Fault::UnknownKey { name: name.to_owned(), known: backticked(known) };
        }
        if let Some(rest) = message.strip_prefix("unknown variant `")
            && let Some((name, known)) = rest.split_once("`, expected ").or_else(|| rest.split_once("`, there are "))
        {
            return Fault::UnknownValue { name: name.to_owned(), known: backticked(known) };
        }
        if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return Fault::Missing { key: key.to_owned() };
        }
        for (start, kind) in [("invalid type: ", "type"), ("invalid value: ", "value"), ("invalid length ", "length")] {
            if let Some((found, expected)) =
                message.strip_prefix(start).and_then(|rest| rest.rsplit_once(", expected "))
            {
                return Fault::Wrong { kind, found: found_in_words(found), expected: expected_in_words(expected) };
            }
        }
        if message.starts_with("data did not match any variant") {
            return Fault::NoVariant;
        }
        Fault::Other(message.to_owned())
    }
}

/// The names between backticks.
fn backticked(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// serde's words for what it found, in TOML's own.
fn found_in_words(found: &str) -> String {
    let bare = found.replace('`', "");
    match bare.split_once(' ') {
        Some(("integer", number)) => format!("the integer {number}"),
        Some(("floating", number)) => format!("the float {}", number.trim_start_matches("point ")),
        Some(("boolean", value)) => format!("the boolean {value}"),
        Some(("string", text)) => format!("the string {text}"),
        _ => match bare.as_str() {
            "map" => "a table".to_owned(),
            "sequence" => "an array".to_owned(),
            _ => found.to_owned(),
        },
    }
}

/// serde's words for what it expected, in TOML's own.
fn expected_in_words(expected: &str) -> String {
    let signed = |bits: u32| format!("an integer of {bits} bits");
    let unsigned = |most: u64| format!("an integer from 0 to {most}");
    match expected {
        "i64" | "isize" => "an integer".to_owned(),
        "u64" | "usize" => "an integer, 0 or more".to_owned(),
        "i8" => signed(8),
        "i16" => signed(16),
        "i32" => signed(32),
        "u8" => unsigned(u8::MAX.into()),
        "u16" => unsigned(u16::MAX.into()),
        "u32" => unsigned(u32::MAX.into()),
        "a nonzero u64" | "a nonzero usize" | "a nonzero u32" | "a nonzero u16" | "a nonzero u8" => {
            "an integer, 1 or more".to_owned()
        }
        "f32" | "f64" => "a number".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        "path string" => "a path".to_owned(),
        "any value" => "a value".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("enum ") => "a string".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Example {
        #[serde(default)]
        number: u64,
        #[serde(default)]
        kind: Kind,
        path: String,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        One,
        Two,
    }

    /// These are serde's own messages: a new version that words them in another way fails here.
    #[test]
    fn understands_serde() {
        let fault = |text: &str| Fault::of(toml::from_str::<Example>(text).unwrap_err().message());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            fault("nmber = 1"),
            Fault::UnknownKey { name: "nmber".into(), known: names(&["number", "kind", "path"]) }
        );
        assert_eq!(fault("kind = \"x\""), Fault::UnknownValue { name: "x".into(), known: names(&["one", "two"]) });
        assert_eq!(fault(""), Fault::Missing { key: "path".into() });
        let wrong =
            |kind, found: &str, expected: &str| Fault::Wrong { kind, found: found.into(), expected: expected.into() };
        assert_eq!(fault("number = \"x\""), wrong("type", "the string \"x\"", "an integer, 0 or more"));
        assert_eq!(fault("number = -1"), wrong("value", "the integer -1", "an integer, 0 or more"));
        assert_eq!(fault("number = 1.5"), wrong("type", "the float 1.5", "an integer, 0 or more"));
        assert_eq!(fault("path = []"), wrong("type", "an array", "a string"));
        assert_eq!(fault("path = {}"), wrong("type", "a table", "a string"));
        assert_eq!(fault("path = true"), wrong("type", "the boolean true", "a string"));
    }
}
