//! The `rate` source: counts from 0, so many rows a second.
//!
//! A row is a pure function of the stored position and its `value`: `timestamp` is the start time plus
//! `value / rows_per_second`. A replay after a crash therefore brings the very same rows, whenever it happens.

mod config;
mod source;
mod timeline;

pub use config::{Rate, RateConfig};
pub use source::RateSource;
