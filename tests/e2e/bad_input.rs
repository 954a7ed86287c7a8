//! What people and other programs get wrong. Each mistake is a clear error or a dead letter with its place, and everything
//! that is right goes on.

mod config;
mod data;
mod errors;
mod folders;
mod full;
mod secrets;

use std::path::Path;
use std::process::{Command, Output};

use acequia_tests::{Daemon, binary, out_dir};

/// `acequia validate` on a path, as a person at a terminal without colours has it.
fn validate(path: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .arg("validate")
        .arg("--plugins")
        .arg(out_dir().join("plugins"))
        .args(arguments)
        .arg(path)
        .env("NO_COLOR", "1")
        .env_remove("ACEQUIA_PLUGINS")
        .output()
        .expect("the binary runs")
}

/// Without the paths of this run.
fn steady(daemon: &Daemon, text: &str) -> String {
    let text = text.replace(&daemon.folder().display().to_string(), "[folder]");
    let out = out_dir();
    let out = std::path::absolute(&out).unwrap_or(out);
    let text = text.replace(&out.display().to_string(), "[target]");
    // Folders that plugins are looked for in may be named twice, in two spellings.
    text.replace("  [target]/release/plugins\n", "")
}
