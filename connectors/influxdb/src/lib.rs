//! The `influxdb` connectors: points of InfluxDB 2, written by line protocol and read by Flux.

mod answer;
mod chunk;
mod config;
mod deliver;
mod encode;
mod escape;
#[doc(hidden)]
pub mod fuzzing;
mod ini;
mod query;
mod server;
mod sink;
mod source;
mod source_config;
mod table;

pub use config::{InfluxSink, Names, PostLimits, Precision};
pub use server::Tls;
pub use source_config::InfluxSource;
