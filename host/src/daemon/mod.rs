//! The daemon: from directories of configurations to running pipelines.

mod board;

pub use board::{Board, Pass, ReloadRequest};
