//! Kafka, as a source and as a sink.

mod client;
#[allow(dead_code, reason = "for a sink that commits offsets in its transactions")]
mod offsets;
mod source;

pub use client::{Mechanism, Properties, Property, Sasl, Tls};
pub use source::{KafkaSource, KeyFormat, Metadata, Start, Until};
