//! The plugin host: WebAssembly components as [`Transform`](crate::pipeline::transform::Transform)s.
//!
//! The contract is `wit/plugin.wit`. The way of a plugin:
//!
//! 1. [`Host::load`] reads a `.wasm`, looks its contract version and its imports up, and compiles it, or takes the compiled code
//!    from the cache on disk (`cache`). All plugins with the same content share one compiled component.
//! 2. [`Plugin::start`] makes an instance in a store of its own (`instance`), configures it, checks its plan against
//!    what is known of the rows (`plan`), restores its snapshot, and returns a [`PluginTransform`].
//! 3. For each batch, the transform gives the guest the columns that the plan names, cast to the types that it wants
//!    (`prepare`, `to_guest`); what comes back is checked as the untrusted data it is (`from_guest`), and only
//!    then used (`assemble`).
//!
//! What keeps a guest from doing harm:
//!
//! - **Time.** Every call has its own deadline (`limits`). One thread counts epochs, ten milliseconds each; at
//!   each epoch a running guest yields to the executor, so that an endless loop never holds a thread, and it is ended
//!   once the call has used up its time. Time during which other tasks run is not the guest's.
//! - **Memory.** Linear memory is limited when it grows; the host's copy of an answer by wasmtime's hostcall fuel, before
//!   it is made.
//! - **Reach.** WASI is linked, but without directories, environment, sockets or input; clocks and randomness end the call
//!   with a message that says which grant is missing (`linker`).
//! - **Failure.** An instance that failed in any way is never entered again: a new one takes its place. Rows that make a
//!   guest trap are found by bisecting the batch (`retry`); the other rows go on.

mod assemble;
mod bindings;
mod cache;
mod capture;
mod component;
mod engine;
mod error;
mod from_guest;
#[doc(hidden)]
pub mod fuzzing;
mod instance;
mod limits;
mod linker;
mod plan;
mod prepare;
mod retry;
mod ticker;
mod to_guest;
mod transform;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use component::{Plugin, PluginInfo};
pub use engine::{Host, HostOptions};
pub use error::{PluginError, PluginErrorKind};
pub(crate) use plan::Plan;
#[cfg(test)]
pub(crate) use plan::{Input, Move, Passes};
pub use transform::{PluginTransform, StartOptions};

/// The contract that this host speaks; it takes plugins of the same minor version.
pub const CONTRACT_VERSION: &str = "0.1.0";
