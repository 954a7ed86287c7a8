//! Kafka, as a source and as a sink.

mod blocking;
mod client;
mod clock;
#[doc(hidden)]
pub mod fuzzing;
mod offsets;
mod sink;
mod source;

pub use client::{Mechanism, Properties, Property, Sasl, Tls};
pub use sink::{Compression, CreateTopic, Delivery, Headers, KafkaSink, ValueFormat};
pub use source::{KafkaSource, KeyFormat, Metadata, Start, Until};
