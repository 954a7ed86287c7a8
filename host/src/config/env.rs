//! `${NAME}` in the strings of a configuration.
//!
//! It is done on values that have been parsed already: whatever a variable holds, it can't become TOML, and places in
//! the file stay what they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, SourceText};

/// Where `${NAME}` is looked up.
#[derive(Clone, Debug)]
pub enum Env {
    /// The environment of this process.
    Process,
    /// Nowhere: what has no default is taken as set to something unknown, and checks that hang on it are left out.
    None,
    /// Here.
    Fixed(BTreeMap<String, String>),
}

enum Found {
    Text(String),
    NotUnicode,
    Unset,
}

impl Env {
    fn get(&self, name: &str) -> Found {
        match self {
            Env::Process => match std::env::var(name) {
                Ok(text) => Found::Text(text),
                Err(std::env::VarError::NotPresent) => Found::Unset,
                Err(std::env::VarError::NotUnicode(_)) => Found::NotUnicode,
            },
            Env::None => Found::Unset,
            Env::Fixed(map) => map.get(name).map_or(Found::Unset, |text| Found::Text(text.clone())),
        }
    }
}

/// A string in which something was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interpolated {
    /// As it is written in the file.
    pub written: String,
    /// What became of it. With [`Env::None`], unknown variables stand for their own names.
    pub value: String,
    /// The same, with `1` for each unknown variable: may pass where a number is wanted.
    pub numeric: String,
    /// Whether the whole string is one `${NAME}`: then it may also stand for a number or a boolean.
    pub whole: bool,
    /// Variables that are not known.
    pub unknown: Vec<String>,
}

/// What is wrong with a string.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    /// The part of the string that is meant.
    part: String,
    message: String,
    /// The message without what may be part of a secret.
    covered: String,
    help: Option<String>,
}

/// The replaced strings, by the place where their value starts in the file.
pub(super) type Replacements = BTreeMap<usize, Interpolated>;

/// Look up the variables of every string in the table.
pub(super) fn collect(
    table: &DeTable<'_>,
    env: &Env,
    source: &SourceText,
    diagnostics: &mut Vec<Diagnostic>,
) -> Replacements {
    let mut replacements = Replacements::new();
    let mut waiting: Vec<&Spanned<DeValue<'_>>> = table.values().collect();
    while let Some(value) = waiting.pop() {
        match value.get_ref() {
            DeValue::String(text) => match interpolate(text, env) {
                Ok(None) => {}
                Ok(Some(replaced)) => {
                    replacements.insert(value.span().start, replaced);
                }
                Err(fault) => {
                    // The caret goes under the variable, if it can be found in the text as it is written.
                    let span = value.span();
                    let raw = source.shown().get(span.clone()).unwrap_or_default();
                    let (span, message) = match raw.find(&fault.part) {
                        Some(at) => (span.start + at..span.start + at + fault.part.len(), fault.message),
                        // It is covered, or written with escapes: then the message must not show it either.
                        None => (span, fault.covered),
                    };
                    diagnostics.push(source.at(span, message).maybe_help(fault.help));
                    // Nothing more is said against a value that is not known.
                    let unknown = Interpolated {
                        written: text.to_string(),
                        value: text.to_string(),
                        numeric: "1".to_owned(),
                        whole: true,
                        unknown: vec![fault.part],
                    };
                    replacements.insert(value.span().start, unknown);
                }
            },
            DeValue::Array(array) => waiting.extend(array.iter()),
            DeValue::Table(table) => waiting.extend(table.values()),
            _ => {}
        }
    }
    replacements
}

/// Put the replaced strings into the table.
pub(super) fn apply<'i>(table: &mut DeTable<'i>, replacements: &'i Replacements) {
    if replacements.is_empty() {
        return;
    }
    let mut waiting: Vec<&mut Spanned<DeValue<'i>>> = table.into_iter().map(|(_, value)| value).collect();
    while let Some(value) = waiting.pop() {
        let start = value.span().start;
        match value.get_mut() {
            DeValue::String(text) => {
                if let Some(replaced) = replacements.get(&start) {
                    *text = Cow::Borrowed(&replaced.value);
                }
            }
            DeValue::Array(array) => waiting.extend(array.iter_mut()),
            DeValue::Table(table) => waiting.extend(table.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
}

/// Replace `${NAME}`, `${NAME:-default}` and `$$`. `None`: there is nothing to replace.
fn interpolate(text: &str, env: &Env) -> Result<Option<Interpolated>, Fault> {
    if !text.contains("${") && !text.contains("$$") {
        return Ok(None);
    }
    let mut result = Interpolated {
        written: text.to_owned(),
        value: String::with_capacity(text.len()),
        numeric: String::with_capacity(text.len()),
        whole: false,
        unknown: Vec::new(),
    };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (plain, tail) = rest.split_at(at);
        result.push(plain);
        if let Some(tail) = tail.strip_prefix("$$") {
            result.push("$");
            rest = tail;
        } else if let Some(inside) = tail.strip_prefix("${") {
            let Some(end) = inside.find('}') else {
                return Err(Fault {
                    part: tail.to_owned(),
                    message: "`${` without a closing `}`".to_owned(),
                    covered: "`${` without a closing `}`".to_owned(),
                    help: Some("a dollar that is meant as such is written `$$`".to_owned()),
                });
            };
            let (content, after) = inside.split_at(end);
            result.variable(content, env)?;
            rest = after.strip_prefix('}').unwrap_or(after);
            result.whole = plain.is_empty() && rest.is_empty() && content.len() + 3 == text.len();
        } else {
            result.push("$");
            rest = tail.strip_prefix('$').unwrap_or(tail);
        }
    }
    result.push(rest);
    Ok(Some(result))
}

impl Interpolated {
    fn push(&mut self, text: &str) {
        self.value.push_str(text);
        self.numeric.push_str(text);
    }

    fn variable(&mut self, content: &str, env: &Env) -> Result<(), Fault> {
        let (name, default) = match content.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (content, None),
        };
        let part = format!("${{{content}}}");
        let legal = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !legal {
            return Err(Fault {
                part,
                message: format!("`{name}` can't be the name of an environment variable"),
                covered: "what stands in `${}` can't be the name of an environment variable".to_owned(),
                help: Some("write `${NAME}` or `${NAME:-default}`; a dollar that is meant as such is `$$`".to_owned()),
            });
        }
        match (env.get(name), default) {
            // As in the shell, `:-` also stands in for a variable that is set to nothing.
            (Found::Text(text), Some(default)) if text.is_empty() => self.push(default),
            (Found::Text(text), _) => self.push(&text),
            (Found::NotUnicode, _) => {
                let message = format!("the environment variable `{name}` does not hold valid UTF-8");
                return Err(Fault { part, covered: message.clone(), message, help: None });
            }
            (Found::Unset, Some(default)) => self.push(default),
            (Found::Unset, None) if matches!(env, Env::None) => {
                self.value.push_str(name);
                self.numeric.push('1');
                self.unknown.push(name.to_owned());
            }
            (Found::Unset, None) => {
                return Err(Fault {
                    part,
                    message: format!("the environment variable `{name}` is not set"),
                    covered: format!("the environment variable `{name}` is not set"),
                    help: Some(format!("set it, or give a default: `${{{name}:-default}}`")),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env::Fixed(BTreeMap::from([("A".to_owned(), "1\"\n[x]".to_owned()), ("EMPTY".to_owned(), String::new())]))
    }

    fn value(text: &str) -> Option<String> {
        interpolate(text, &env()).unwrap().map(|replaced| replaced.value)
    }

    #[test]
    fn replaces() {
        for (text, want) in [
            ("${A}", "1\"\n[x]"),
            ("a${A}b${A}", "a1\"\n[x]b1\"\n[x]"),
            ("${B:-x y}", "x y"),
            ("${B:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("$$${B:-$}$$", "$$$"),
            ("$${A}", "${A}"),
            ("${B:-a:-b}", "a:-b"),
        ] {
            assert_eq!(value(text).as_deref(), Some(want), "{text}");
        }
        for text in ["", "a", "$", "^x$", "$1"] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn only_one_variable_and_nothing_else_is_the_whole() {
        for (text, whole) in [("${A}", true), ("${B:-2}", true), ("${A}${A}", false), (" ${A}", false), ("$$", false)] {
            assert_eq!(interpolate(text, &env()).unwrap().unwrap().whole, whole, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, want) in [
            ("${B}", "the environment variable `B` is not set"),
            ("${B", "`${` without a closing `}`"),
            ("${}", "`` can't be the name of an environment variable"),
            ("${a-b}", "`a-b` can't be the name of an environment variable"),
            ("${1}", "`1` can't be the name of an environment variable"),
        ] {
            assert_eq!(interpolate(text, &env()).unwrap_err().message, want, "{text}");
        }
    }

    #[test]
    fn without_an_environment_the_names_stand_in() {
        let replaced = interpolate("${HOST}:${PORT:-9042}", &Env::None).unwrap().unwrap();
        assert_eq!((replaced.value.as_str(), replaced.numeric.as_str()), ("HOST:9042", "1:9042"));
        assert_eq!(replaced.unknown, ["HOST"]);
    }
}
