//! What the end-to-end tests share: the daemon as a process of its own, folders of its own, and waiting on conditions.
//!
//! The tests run the daemon and the plugins that `make build` left in the target folder.

// A library for tests, which fail by panicking; clippy only knows that of tests themselves.
#![allow(clippy::expect_used, clippy::panic)]

mod account;
pub mod conformance;
mod daemon;
mod files;
mod proxy;
pub mod servers;
mod wait;

pub use account::{Account, Stage};
pub use daemon::{Admin, Daemon, Exit};
pub use files::{json_lines, rows, values_of};
pub use proxy::{Proxy, Weather};
pub use wait::{PATIENCE, eventually, eventually_or, wait_until};

use std::path::PathBuf;

/// The target folder: `$ACEQUIA_TEST_OUT`, else `$CARGO_TARGET_DIR`, else `target` of the workspace.
pub fn out_dir() -> PathBuf {
    let from_env = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from_env("ACEQUIA_TEST_OUT").or_else(|| from_env("CARGO_TARGET_DIR")).unwrap_or_else(|| workspace().join("target"))
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(PathBuf::from).unwrap_or(tests)
}

/// Run `acequia` with these arguments to its end.
///
/// # Panics
/// If it has not been built.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Exit {
    let output = std::process::Command::new(binary()).args(arguments).env("NO_COLOR", "1").output();
    let output = output.expect("acequia starts");
    Exit {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The daemon's binary.
///
/// # Panics
/// If it has not been built.
pub fn binary() -> PathBuf {
    built(out_dir().join("release/acequia"))
}

/// A bundled plugin.
///
/// # Panics
/// If it has not been built.
pub fn plugin(name: &str) -> PathBuf {
    built(out_dir().join(format!("plugins/{name}.wasm")))
}

/// A plugin of the tests that misbehaves.
///
/// # Panics
/// If it has not been built.
pub fn evil_plugin(name: &str) -> PathBuf {
    built(out_dir().join(format!("evil-plugins/{name}.wasm")))
}

fn built(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run `make build` first", path.display());
    path
}
