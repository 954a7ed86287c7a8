//! The `console` sink: rows on standard output, as a table for people or as JSON for programs.

mod config;
mod output;
mod sink;
mod table;

pub use config::{ConsoleConfig, ConsoleFormat};
pub use output::Output;
pub use sink::ConsoleSink;
