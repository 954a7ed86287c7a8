//! Running a command to its end.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::workspace;

/// A script of `tests/servers/`.
pub(super) fn script(name: &str) -> Command {
    Command::new(workspace().join("tests/servers").join(name))
}

/// Run it with this input: what it printed, or what it said on standard error.
pub(super) fn output(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, String> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{what}: {error}"))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // Beside reading: neither side may fill its pipe and wait for the other.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output()
    });
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
