//! TOML's own errors, for people.

use super::diagnostic::{Diagnostic, SourceText};

/// TOML's own errors, one a line: what follows on the same line is mostly a consequence.
pub(super) fn syntax_errors(source: &SourceText, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for error in errors.iter().take(10) {
        let span = error.span().unwrap_or(0..0);
        let found = source.shown().get(span.start..).and_then(|rest| rest.chars().next());
        let (label, help) = match (error.message(), found) {
            (_, Some(letter)) if letter.is_control() && !matches!(letter, '\n' | '\r' | '\t') => {
                (format!("a control character (U+{:04X})", u32::from(letter)), None)
            }
            // By far the most frequent of all.
            (message, _) if message.starts_with("string values must be quoted") => {
                ("a string must be quoted".to_owned(), Some("write `key = \"value\"`"))
            }
            (message, _) if message.starts_with("duplicate key") => {
                ("given before".to_owned(), Some("each key and each `[table]` can be given once"))
            }
            (message, None | Some('\n' | '\r')) if message.contains("string, expected") => {
                ("the string is not closed on this line".to_owned(), None)
            }
            (message, _) => (message.to_owned(), None),
        };
        let diagnostic = source.at(span, "not valid TOML").label(label).maybe_help(help.map(str::to_owned));
        let line = |diagnostic: &Diagnostic| diagnostic.place.as_ref().map(|place| place.line);
        if !diagnostics.iter().any(|earlier| line(earlier) == line(&diagnostic)) {
            diagnostics.push(diagnostic);
        }
    }
    diagnostics
}
