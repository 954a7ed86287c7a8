//! Reading what a pipeline wrote.

use std::path::Path;

use serde_json::Value;

/// The lines of a file of JSON lines; none if the file does not exist. A half line at the end (the daemon is writing) is
/// left out.
///
/// # Panics
/// If a whole line is not JSON: a file sink must never leave one.
pub fn json_lines(path: &Path) -> Vec<Value> {
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{} holds a line that is no JSON: {line}: {error}", path.display()),
        })
        .collect()
}

/// How many whole lines a file has.
pub fn rows(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// One integer column of a file of JSON lines.
///
/// # Panics
/// If a row does not have it.
pub fn values_of(path: &Path, column: &str) -> Vec<i64> {
    json_lines(path)
        .iter()
        .map(|row| row[column].as_i64().unwrap_or_else(|| panic!("no integer `{column}` in {row}")))
        .collect()
}
