//! What a page says is held by a test: the test is there.

use acequia_tests::workspace;
use regex::Regex;

/// A file of the checkout.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether that file has a test of that name, and not only a function.
pub fn is_test(path: &str, name: &str) -> bool {
    let text = read(path);
    let marks = ["#[test]", "#[tokio::test"];
    let test = |at: usize| {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = text[..line].lines().rev();
        let mut attributes = before.take_while(|line| line.trim_start().starts_with("#["));
        attributes.any(|line| marks.iter().any(|mark| line.trim_start().starts_with(mark)))
    };
    text.match_indices(&format!("fn {name}(")).any(|(at, _)| test(at))
}

/// The tests that a text of `docs/` links to: name and path.
pub fn tests(text: &str) -> Vec<(String, String)> {
    let link = Regex::new(r"\[`([a-z0-9_]+)`\]\(\.\./([^)]+\.rs)\)").unwrap();
    link.captures_iter(text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// Those of them that are not there.
pub fn missing(text: &str) -> Vec<String> {
    let gone = tests(text).into_iter().filter(|(name, path)| !is_test(path, name));
    gone.map(|(name, path)| format!("there is no test `{name}` in {path}")).collect()
}

/// The tables' rows, without their headers, each as its cells, under the heading that they stand under.
pub fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    let (mut heading, mut rows, mut in_table) = (String::new(), Vec::new(), false);
    for line in read(page).lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
        if !line.starts_with('|') {
            in_table = false;
        } else if line.starts_with("|---") {
            in_table = true;
        } else if in_table {
            let cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
            rows.push((heading.clone(), cells.collect()));
        }
    }
    rows
}

#[test]
fn a_function_is_no_test() {
    assert!(is_test("tests/e2e/docs/held.rs", "a_function_is_no_test"));
    assert!(!is_test("tests/e2e/docs/held.rs", "is_test") && !is_test("tests/e2e/docs/held.rs", "nothing"));
}
