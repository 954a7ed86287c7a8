//! The daemon, as a library: the binary, the benchmarks and the tests are built on it.

pub mod admin;
pub mod cli;
pub mod config;
pub mod connectors;
pub mod daemon;
pub mod pipeline;
pub mod plugin;
pub mod state;
