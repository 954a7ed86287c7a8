//! `docs/guarantees.md`: each promise is held by a test that is there, and each connector has its promise.

use acequia::connectors::registry;

use super::held;

const PAGE: &str = "docs/guarantees.md";

/// What is no promise of ours, but the sum of the others, or a server's own.
const WITHOUT_TESTS: [&str; 2] = ["In one table", "What the servers themselves promise"];

#[test]
fn every_promise_is_held_by_a_test() {
    let mut wrong = held::missing(&held::read(PAGE));
    let rows = held::rows(PAGE);
    for (heading, cells) in rows.iter().filter(|(heading, _)| !WITHOUT_TESTS.contains(&heading.as_str())) {
        let tests = cells.last().map(|cell| held::tests(cell)).unwrap_or_default();
        if tests.is_empty() {
            wrong.push(format!("{heading}: nothing holds `{}`", cells.join(" | ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(rows.len() > 40, "{} rows", rows.len());
}

#[test]
fn every_connector_has_its_promise() {
    let rows = held::rows(PAGE);
    let told = |heading: &str, name: &str| {
        let mut cells = rows.iter().filter(|(of, _)| of == heading).filter_map(|(_, cells)| cells.first());
        cells.any(|cell| cell.contains(&format!("`{name}`")))
    };
    for source in registry().sources().map(|kind| kind.info().name) {
        assert!(told("What a source does after a crash", source), "the source `{source}` is missing");
        assert!(told("In one table", source), "the source `{source}` is not in the first table");
    }
    let first = held::read(PAGE).lines().find(|line| line.starts_with("| | `file`")).unwrap_or_default().to_owned();
    for sink in registry().sinks().map(|kind| kind.info().name) {
        assert!(told("What a sink does with rows that come again", sink), "the sink `{sink}` is missing");
        assert!(first.contains(&format!("`{sink}`")), "the sink `{sink}` is not in the first table");
    }
}
