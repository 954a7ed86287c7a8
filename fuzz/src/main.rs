//! What libFuzzer drives: `ACEQUIA_FUZZ_TARGET` names the target. `make fuzz` builds and runs it.

#![no_main]
#![allow(clippy::print_stderr, reason = "libFuzzer too reports there")]

use std::sync::OnceLock;

use acequia_fuzz::{TARGETS, Target};
// The library brings libFuzzer's `main`, which calls the two functions below.
use libfuzzer_sys as _;

fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("ACEQUIA_FUZZ_TARGET").unwrap_or_default();
        TARGETS.into_iter().find(|(known, _)| *known == name).unwrap_or_else(|| {
            let known = TARGETS.map(|(name, _)| name).join(", ");
            eprintln!("ACEQUIA_FUZZ_TARGET is {name:?}: give one of {known}");
            std::process::exit(2)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn rust_fuzzer_initialize() -> i32 {
    target();
    0
}

/// A panic unwinds to libFuzzer's wrapper, which ends the process: only one of the target itself is a find, not one in a
/// thread that the product watches over.
#[unsafe(no_mangle)]
extern "Rust" fn rust_fuzzer_test_input(bytes: &[u8]) -> i32 {
    (target().1)(bytes);
    0
}
