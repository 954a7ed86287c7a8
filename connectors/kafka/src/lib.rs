//! Kafka, as a source and as a sink.

mod client;
mod sink;

pub use client::{Mechanism, Properties, Property, Sasl, Tls};
pub use sink::{Compression, CreateTopic, Delivery, Headers, KafkaSink, ValueFormat};
