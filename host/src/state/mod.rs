//! Checkpoints on disk: for each pipeline its source's position, its transforms' snapshots, its sinks' states and its
//! counts, all of one moment, written together or not at all (invariant 2).
//!
//! One file, `acequia.redb`, in the state folder; one thread writes it. Checkpoints that wait at the same time are
//! written in one transaction, so a thousand pipelines cost one `fsync`, not a thousand.

mod checkpoint;
mod error;
mod layout;
mod lock;
mod look;
#[cfg(test)]
pub(crate) mod simulated;
mod sound;
mod store;
mod writer;

pub use checkpoint::{Checkpoint, SinkState};
pub use error::StateError;
pub use lock::StateLock;
pub use look::{Entry, Folder, Look, Stored, holder, look};
pub use store::Store;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod power_tests;
