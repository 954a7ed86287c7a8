//! Kafka, as a source and as a sink.

mod client;
#[expect(dead_code, reason = "the source is not here yet")]
mod offsets;
mod sink;

pub use client::{Mechanism, Properties, Property, Sasl, Tls};
pub use sink::{Compression, CreateTopic, Delivery, Headers, KafkaSink, ValueFormat};
