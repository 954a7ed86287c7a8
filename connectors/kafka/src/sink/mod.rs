//! Kafka as a sink.

mod config;
mod headers;
mod ledger;
mod message;
mod producer;
mod reporter;
mod topics;
mod transactions;
mod wire;
mod writer;

pub use config::{Compression, CreateTopic, Delivery, Headers, KafkaSink, ValueFormat};
pub(crate) use headers::HeaderList;
