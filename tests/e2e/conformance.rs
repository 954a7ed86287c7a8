//! The suite that every connector passes: see `acequia_tests::conformance` for what is checked.
//!
//! A new connector needs a world (a few dozen lines in a module here) and an entry in the table; without one a test fails.
//! `ACEQUIA_CONFORMANCE_ONLY=socket` runs only the entries whose name has that in it.

mod console;
mod file;
mod file_sink;
mod rate;
mod socket;

use std::collections::BTreeSet;

use acequia::connectors::registry;
use acequia_tests::conformance::{SinkWorld, SourceWorld, alone, judge_sink, judge_source};

/// A connector in one of its ways to work: its `type`, what sets this entry apart, and how its world is made.
struct Entry<W: ?Sized> {
    connector: &'static str,
    variant: &'static str,
    world: fn() -> Box<W>,
}

impl<W: ?Sized> Entry<W> {
    fn name(&self) -> String {
        format!("{} {}", self.connector, self.variant)
    }
}

fn source(
    connector: &'static str,
    variant: &'static str,
    world: fn() -> Box<dyn SourceWorld>,
) -> Entry<dyn SourceWorld> {
    Entry { connector, variant, world }
}

fn sink(connector: &'static str, variant: &'static str, world: fn() -> Box<dyn SinkWorld>) -> Entry<dyn SinkWorld> {
    Entry { connector, variant, world }
}

fn sources() -> Vec<Entry<dyn SourceWorld>> {
    vec![
        source("rate", "max", || Box::new(rate::Rate::new("max"))),
        source("rate", "steady", || Box::new(rate::Rate::new("20000"))),
        source("file", "json lines", || Box::new(file::Files::new(file::Form::Lines))),
        source("file", "json array", || Box::new(file::Files::new(file::Form::Array))),
        source("file", "csv", || Box::new(file::Files::new(file::Form::Csv))),
        source("file", "text", || Box::new(file::Files::new(file::Form::Text))),
        source("file", "parquet", || Box::new(file::Files::new(file::Form::Parquet))),
        source("file", "three files", || Box::new(file::Files::new(file::Form::Lines).several(3))),
        source("file", "follow", || Box::new(file::Files::new(file::Form::Lines).followed())),
        source("file", "follow csv", || Box::new(file::Files::new(file::Form::Csv).followed())),
        source("file", "follow three files", || Box::new(file::Files::new(file::Form::Text).several(3).followed())),
        source("socket", "connects", || Box::new(socket::Peer::that_listens())),
        source("socket", "listens", || Box::new(socket::Peer::that_connects())),
        source("socket", "listens on a path", || Box::new(socket::Peer::that_connects_to_a_path())),
    ]
}

fn sinks() -> Vec<Entry<dyn SinkWorld>> {
    vec![
        sink("blackhole", "", || Box::new(console::Count::default())),
        sink("console", "json", || Box::new(console::Console::new("json"))),
        sink("console", "table", || Box::new(console::Console::new("table"))),
        sink("file", "json", || Box::new(file_sink::Written::new("json"))),
        sink("file", "csv", || Box::new(file_sink::Written::new("csv"))),
        sink("file", "text", || Box::new(file_sink::Written::new("text"))),
        sink("file", "parquet", || Box::new(file_sink::Written::new("parquet"))),
    ]
}

/// Judge the entries of one table, each in a process of its own.
fn judge<W: ?Sized>(test: &str, table: &[Entry<W>], judge_one: impl Fn(&Entry<W>)) {
    let only = std::env::var("ACEQUIA_CONFORMANCE_ONLY").unwrap_or_default();
    let names: Vec<String> = table.iter().map(Entry::name).filter(|name| name.contains(&only)).collect();
    let failures = alone(test, &names, 2, |name| {
        judge_one(table.iter().find(|entry| entry.name() == name).expect("an entry of this name"));
    });
    let report: Vec<String> = failures.iter().map(|(name, report)| format!("==== {name}\n{report}")).collect();
    assert!(report.is_empty(), "{} of {} entries failed\n{}", report.len(), names.len(), report.join("\n"));
}

#[test]
fn every_source_does_what_a_source_must() {
    judge("conformance::every_source_does_what_a_source_must", &sources(), |entry| {
        judge_source(&registry(), &entry.world);
    });
}

#[test]
fn every_sink_does_what_a_sink_must() {
    judge("conformance::every_sink_does_what_a_sink_must", &sinks(), |entry| judge_sink(&registry(), &entry.world));
}

#[test]
fn every_registered_connector_is_judged() {
    let registry = registry();
    let registered: BTreeSet<_> = registry.sources().map(|kind| kind.info().name).collect();
    let judged: BTreeSet<_> = sources().iter().map(|entry| entry.connector).collect();
    assert_eq!(judged, registered, "sources in the table of the conformance suite, and sources that are registered");
    let registered: BTreeSet<_> = registry.sinks().map(|kind| kind.info().name).collect();
    let judged: BTreeSet<_> = sinks().iter().map(|entry| entry.connector).collect();
    assert_eq!(judged, registered, "sinks in the table of the conformance suite, and sinks that are registered");
}
