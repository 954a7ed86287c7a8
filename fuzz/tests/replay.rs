//! What the fuzzer has found once is run again, by a plain `cargo test` and without libFuzzer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use acequia_fuzz::TARGETS;

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

/// Run every file of `corpus/TARGET` and `crashes/TARGET`; a file on which the target fails is named.
fn replay(name: &str) {
    let (_, run) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let mut count = 0;
    for kind in ["corpus", "crashes"] {
        let Ok(entries) = std::fs::read_dir(folder(kind).join(name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            if let Err(panic) = std::panic::catch_unwind(|| run(&bytes)) {
                eprintln!("the target {name} fails on {}", path.display());
                std::panic::resume_unwind(panic);
            }
            count += 1;
        }
    }
    assert!(count > 0, "there is no corpus of {name}");
}

#[test]
fn cassandra() {
    replay("cassandra");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn format() {
    replay("format");
}

#[test]
fn influxdb() {
    replay("influxdb");
}

#[test]
fn kafka() {
    replay("kafka");
}

#[test]
fn plugin() {
    replay("plugin");
}

#[test]
fn rest() {
    replay("rest");
}

#[test]
fn state() {
    replay("state");
}

/// Nothing lies under a name that no target has, where no one would run it.
#[test]
fn every_folder_is_a_targets() {
    let known: BTreeSet<_> = TARGETS.into_iter().map(|(name, _)| name.to_owned()).collect();
    for kind in ["corpus", "crashes"] {
        let Ok(entries) = std::fs::read_dir(folder(kind)) else { continue };
        let found: BTreeSet<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        assert!(found.is_subset(&known), "{kind}: {found:?}");
    }
}
