//! The daemon: from directories of configurations to running pipelines.

mod board;
pub mod systemd;

pub use board::{Board, Pass, ReloadRequest};
