//! Files as a source and as a sink: JSON, CSV, text, raw bytes and Parquet.
//!
//! [`FileSource`] reads one file, or all that match a pattern, once or following what is added. [`FileSink`] writes each
//! row exactly once: the file's length is part of the checkpoint.

mod ahead;
mod building;
mod config;
mod entry;
mod errors;
mod follow;
mod identity;
mod listing;
mod open;
mod parquet_sink;
mod parquet_source;
mod rows;
mod sink;
mod source;
mod tail;
#[cfg(test)]
mod tests;

pub use config::{FileFormat, FileSink, FileSource};
