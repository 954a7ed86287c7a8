//! The host's side of `wit/plugin.wit`, made by wasmtime's macro. One world has all exports; `state` and `tick` are
//! looked up one by one, because a plugin need not have them.

#![allow(missing_docs, clippy::all, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "stateful-ticking-plugin",
    // What goes to the guest is borrowed from Arrow's buffers: the only copy is the one into its memory.
    ownership: Borrowing { duplicate_if_necessary: true },
    exports: { default: async },
});

pub use self::acequia::plugin::{log, types};
pub use exports::acequia::plugin::{state, tick, transform};
