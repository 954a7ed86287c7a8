//! The suite that every connector passes: see `acequia_tests::conformance` for what is checked.
//!
//! A new connector needs a world (a few dozen lines in a module here) and an entry in the table; without one a test fails.
//! `ACEQUIA_CONFORMANCE_ONLY=socket` runs only the entries whose name has that in it.

mod cassandra;
mod console;
mod file;
mod file_sink;
mod influxdb;
mod kafka;
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
    /// Starts the server that it needs, if it needs one, and says by which variables its process finds it.
    server: fn() -> Vec<(&'static str, String)>,
}

impl<W: ?Sized> Entry<W> {
    fn name(&self) -> String {
        format!("{} {}", self.connector, self.variant)
    }

    fn on(self, server: fn() -> Vec<(&'static str, String)>) -> Self {
        Entry { server, ..self }
    }
}

fn source(
    connector: &'static str,
    variant: &'static str,
    world: fn() -> Box<dyn SourceWorld>,
) -> Entry<dyn SourceWorld> {
    Entry { connector, variant, world, server: Vec::new }
}

fn sink(connector: &'static str, variant: &'static str, world: fn() -> Box<dyn SinkWorld>) -> Entry<dyn SinkWorld> {
    Entry { connector, variant, world, server: Vec::new }
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
        source("influxdb", "once", || Box::new(influxdb::Points::new())).on(influxdb::server),
        source("cassandra", "table", || Box::new(cassandra::Table::new())).on(cassandra::server),
        source("kafka", "json", || Box::new(kafka::Records::new())).on(kafka::server),
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
        sink("cassandra", "table", || Box::new(cassandra::Written::new())).on(cassandra::server),
        sink("kafka", "at least once", || Box::new(kafka::Messages::new(false))).on(kafka::server),
        sink("kafka", "exactly once", || Box::new(kafka::Messages::new(true))).on(kafka::server),
        sink("influxdb", "points", || Box::new(influxdb::Bucket::new())).on(influxdb::server),
    ]
}

/// Judge the entries of one table, each in a process of its own. Those of connectors that this build leaves out are passed over.
fn judge<W: ?Sized>(test: &str, table: &[Entry<W>], is_registered: impl Fn(&str) -> bool, one: impl Fn(&Entry<W>)) {
    let only = std::env::var("ACEQUIA_CONFORMANCE_ONLY").unwrap_or_default();
    let here = table.iter().filter(|entry| is_registered(entry.connector)).map(Entry::name);
    let names: Vec<String> = here.filter(|name| name.contains(&only)).collect();
    let find = |name: &str| table.iter().find(|entry| entry.name() == name).expect("an entry of this name");
    let failures = alone(test, &names, 2, |name| (find(name).server)(), |name| one(find(name)));
    let report: Vec<String> = failures.iter().map(|(name, report)| format!("==== {name}\n{report}")).collect();
    assert!(report.is_empty(), "{} of {} entries failed\n{}", report.len(), names.len(), report.join("\n"));
}

#[test]
fn every_source_does_what_a_source_must() {
    let test = "conformance::every_source_does_what_a_source_must";
    let is_registered = |name: &str| registry().find_source(name).is_some();
    judge(test, &sources(), is_registered, |entry| judge_source(&registry(), &entry.world));
}

#[test]
fn every_sink_does_what_a_sink_must() {
    let test = "conformance::every_sink_does_what_a_sink_must";
    let is_registered = |name: &str| registry().find_sink(name).is_some();
    judge(test, &sinks(), is_registered, |entry| judge_sink(&registry(), &entry.world));
}

#[test]
fn every_registered_connector_is_judged() {
    let registry = registry();
    let judged: BTreeSet<_> = sources().iter().map(|entry| entry.connector).collect();
    let forgotten: Vec<_> =
        registry.sources().map(|kind| kind.info().name).filter(|name| !judged.contains(name)).collect();
    assert!(forgotten.is_empty(), "sources without an entry in the table of tests/e2e/conformance.rs: {forgotten:?}");
    let judged: BTreeSet<_> = sinks().iter().map(|entry| entry.connector).collect();
    let forgotten: Vec<_> =
        registry.sinks().map(|kind| kind.info().name).filter(|name| !judged.contains(name)).collect();
    assert!(forgotten.is_empty(), "sinks without an entry in the table of tests/e2e/conformance.rs: {forgotten:?}");
}
