//! The contract in `wit/plugin.wit` as Rust types, generated once for all plugins.

#![allow(missing_docs, clippy::all, reason = "generated; what has a comment in the contract has it here too")]

wit_bindgen::generate!({
    world: "stateful-ticking-plugin",
    path: "../../wit",
    pub_export_macro: true,
    default_bindings_module: "acequia_plugin_sdk::bindings",
    additional_derives: [PartialEq],
});
