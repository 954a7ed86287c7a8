//! The `acequia` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    acequia::cli::main()
}
