//! Kafka, as a source and as a sink.

mod client;
#[expect(dead_code, reason = "source and sink are not here yet")]
mod offsets;

pub use client::{Mechanism, Properties, Property, Sasl, Tls};
