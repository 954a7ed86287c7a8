//! Covers what looks like a secret in a file's text before a diagnostic shows it.
//!
//! Diagnostics go to the log and over REST, with the line they are about. A secret that was written into the file itself
//! must not go with it, also when its key is misspelt and no type says that it is one.

use std::borrow::Cow;

use strsim::damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const WORDS: [&str; 7] = ["password", "passwd", "secret", "token", "credential", "api_key", "apikey"];

/// The text with the strings under keys that name a secret covered by as many asterisks. `${NAME}` stays.
pub(super) fn mask_secrets(text: &str) -> Cow<'_, str> {
    let (tree, _) = DeTable::parse_recoverable(text);
    let mut spans = Vec::new();
    collect(tree.get_ref(), &mut spans);
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        for byte in bytes.get_mut(span).unwrap_or_default() {
            // Line breaks stay, so that places stay.
            if !matches!(byte, b'\n' | b'\r' | b'"' | b'\'') {
                *byte = b'*';
            }
        }
    }
    // Whole values were replaced, so whole characters were: this can't fail, and if it did, nothing is shown.
    String::from_utf8(bytes).map_or_else(|_| Cow::Owned("*".repeat(text.len())), Cow::Owned)
}

fn collect(table: &DeTable<'_>, spans: &mut Vec<std::ops::Range<usize>>) {
    for (key, value) in table {
        if names_secret(key.get_ref()) {
            collect_strings(value, spans);
        } else {
            collect_tables(value, spans);
        }
    }
}

fn collect_tables(value: &Spanned<DeValue<'_>>, spans: &mut Vec<std::ops::Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => collect(table, spans),
        DeValue::Array(array) => array.iter().for_each(|value| collect_tables(value, spans)),
        _ => {}
    }
}

fn collect_strings(value: &Spanned<DeValue<'_>>, spans: &mut Vec<std::ops::Range<usize>>) {
    match value.get_ref() {
        DeValue::String(text) if is_variable(text) => {}
        DeValue::String(_) => spans.push(value.span()),
        DeValue::Array(array) => array.iter().for_each(|value| collect_strings(value, spans)),
        // `{ env = "NAME" }` says where the secret is, and is none.
        DeValue::Table(table) => collect(table, spans),
        _ => {}
    }
}

/// `${NAME}` and nothing else. A default, as in `${NAME:-secret}`, is a secret.
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn names_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    WORDS.iter().any(|word| key.contains(word) || damerau_levenshtein(&key, word) == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_secrets_and_only_them() {
        let text = "token = \"hünter\"\ntokn = 'abc'\ntopic = \"t\"\nx = { sasl.password = \"p\" }\n";
        // ü is two bytes.
        let want = "token = \"*******\"\ntokn = '***'\ntopic = \"t\"\nx = { sasl.password = \"*\" }\n";
        assert_eq!(mask_secrets(text), want);
        for open in ["token = { env = \"NAME\" }", "token = \"${NAME}\"", "key = \"column\""] {
            assert_eq!(mask_secrets(open), open);
        }
    }

    #[test]
    fn covers_what_stands_around_a_variable() {
        for (text, want) in [
            ("token = \"${NAME:-abc}\"", "token = \"************\""),
            ("token = \"${A}abc${B}\"", "token = \"***********\""),
            ("token = \"${a-b}\"", "token = \"******\""),
        ] {
            assert_eq!(mask_secrets(text), want);
        }
    }

    #[test]
    fn covers_secrets_beside_syntax_errors() {
        assert_eq!(mask_secrets("token = \"abc\"\nx = = 1\n"), "token = \"***\"\nx = = 1\n");
    }
}
