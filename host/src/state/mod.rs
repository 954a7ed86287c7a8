//! Checkpoints on disk: for each pipeline its source's position, its transforms' snapshots, its sinks' states and its
//! counts, all of one moment, written together or not at all (invariant 2).
//!
//! One file, `acequia.redb`, in the state folder; one thread writes it. Checkpoints that wait at the same time are
//! written in one transaction, so a thousand pipelines cost one `fsync`, not a thousand.

mod checkpoint;
mod lock;
#[cfg(test)]
pub(crate) mod simulated;
mod store;
mod writer;

pub use checkpoint::{Checkpoint, SinkState};
pub use lock::StateLock;
pub use store::{StateError, Store};
