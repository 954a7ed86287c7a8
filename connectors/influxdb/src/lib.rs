//! The `influxdb` connectors: points of InfluxDB 2.

mod answer;
mod chunk;
mod config;
mod deliver;
mod encode;
mod escape;
mod ini;
mod server;
mod sink;

pub use config::{InfluxSink, Names, PostLimits, Precision};
pub use server::Tls;
