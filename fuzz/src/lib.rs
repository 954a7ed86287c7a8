//! What outsiders control, given at random: texts of configurations, what a plugin returns, rows in every format, answers of
//! servers, state files, requests.
//!
//! A target is a function from bytes to nothing that panics where a promise is broken. `make fuzz` lets libFuzzer look for
//! such bytes; `cargo test` runs what was found before: all files of `corpus/TARGET`, which together reach what the fuzzer has
//! reached, and of `crashes/TARGET`, each of which once broke something.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a target says what is wrong"
)]

mod cassandra;
mod config;
mod format;
mod influxdb;
mod kafka;
mod plugin;
mod rest;
mod rows;
mod state;

/// A target: its name, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("cassandra", cassandra::run),
    ("config", config::run),
    ("format", format::run),
    ("influxdb", influxdb::run),
    ("kafka", kafka::run),
    ("plugin", plugin::run),
    ("rest", rest::run),
    ("state", state::run),
];
