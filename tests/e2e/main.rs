//! End-to-end tests: the daemon as its users run it.

// Helpers of tests fail by panicking too; clippy only knows that of the tests themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod course;
mod crash;
mod docs;
mod editors;
mod many;
mod quickstart;
mod reloads;
