//! The daemon, as a library: the binary, the benchmarks and the tests are built on it.

pub mod admin;
pub mod config {
    //! TOML to pipelines.
    pub mod model;
}
pub mod daemon;
pub mod pipeline;
pub mod state;
