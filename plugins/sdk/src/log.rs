//! Lines for the host's log, which stamps each with the pipeline and the plugin. In a native test they go to stderr.

use std::fmt::Display;

use crate::bindings::acequia::plugin::log::Level;

/// Something is wrong and a person should look.
pub fn error(message: impl Display) {
    write(Level::Error, message);
}

/// Something is odd.
pub fn warn(message: impl Display) {
    write(Level::Warn, message);
}

/// Something worth knowing happened.
pub fn info(message: impl Display) {
    write(Level::Info, message);
}

/// For whoever looks for a mistake in the plugin.
pub fn debug(message: impl Display) {
    write(Level::Debug, message);
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: impl Display) {
    crate::bindings::acequia::plugin::log::log(level, &message.to_string());
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: impl Display) {
    eprintln!("{level:?}: {message}");
}
