//! End-to-end tests: the daemon as its users run it.

mod course;
mod crash;
mod editors;
mod many;
mod quickstart;
mod reloads;
