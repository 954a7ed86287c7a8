//! The daemon: TOML pipelines, WebAssembly transforms, hot reload.

/// Configuration.
pub mod config {
    pub mod model;
}
/// The rows' way from source to sinks.
pub mod pipeline {
    pub mod transform;
}
pub mod plugin;
