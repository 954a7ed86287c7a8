//! End-to-end tests: the daemon as its users run it.

mod bad_input;
mod evil;
mod quickstart;
