//! The `kafka` source: the records of one or more topics, as a member of a consumer group.
//!
//! A thread for each task takes messages from librdkafka ([`messages`]) and copies them into chunks ([`member`]); a task beside it decodes a chunk
//! to a batch ([`rows`]); the source ([`reader`]) hands the batches out and keeps the position. What the three share, and
//! what happens when partitions come and go, is in [`state`] and [`rebalance`].
//!
//! # Delivery
//! Offsets get to the group only after the sinks have confirmed the rows before them. A partition is let go only once
//! what was read of it is in a checkpoint; where that is not possible, the pipeline starts again from its last one.
//!
//! # Memory
//! For each task: what librdkafka reads ahead (`read_ahead`), and at most four batches.

mod chunk;
mod commit;
mod config;
mod connect;
mod member;
mod messages;
mod pace;
mod partition;
mod reader;
mod rebalance;
mod rows;
mod start;
mod state;

pub(crate) use chunk::headers_to_json;
pub use config::{KafkaSource, KeyFormat, Metadata, Start, Until};
