//! End-to-end tests: the daemon as its users run it.

// Helpers of tests fail by panicking too; clippy only knows that of the tests themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod bad_input;
mod cassandra;
mod cli;
mod conformance;
mod counts;
mod course;
mod crash;
mod daemon;
mod docs;
mod editors;
mod evil;
mod full;
mod guarantees;
mod influxdb;
mod isolation;
mod kafka_sink;
mod kafka_source;
mod many;
mod once;
mod others;
mod quickstart;
mod real;
mod reloads;
mod servers;
mod state;
mod systemd;
mod unchanged;
