//! Kafka, as a source and as a sink.

mod client;

pub use client::{Mechanism, Properties, Property, Sasl, Tls};
