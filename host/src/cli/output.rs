//! Where a verb writes.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

/// Standard output and standard error, and whether they want colours.
pub struct Output<'w> {
    /// For what was asked for.
    pub out: &'w mut dyn Write,
    /// For everything else.
    pub err: &'w mut dyn Write,
    /// Whether `out` is a terminal that shows colours.
    pub colours_out: bool,
    /// Whether `err` is one.
    pub colours_err: bool,
}

impl<'w> Output<'w> {
    /// The streams of this process. No colours with `NO_COLOR` (no-color.org) or on a dumb terminal.
    pub fn of_process(out: &'w mut std::io::Stdout, err: &'w mut std::io::Stderr) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let (colours_out, colours_err) = (out.is_terminal() && !refused, err.is_terminal() && !refused);
        Output { out, err, colours_out, colours_err }
    }

    /// Write to standard output; a reader that went away (`| head`) is no error.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn text(&mut self, text: &str) -> anyhow::Result<ExitCode> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    /// Write JSON to standard output.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<ExitCode> {
        let text = serde_json::to_string_pretty(value)?;
        self.text(&format!("{text}\n"))
    }

    /// Say on standard error what went wrong, with its causes.
    pub fn fail(&mut self, error: &anyhow::Error) -> ExitCode {
        let title = if self.colours_err { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
        // There is nowhere left to say that it can't be said.
        let _ = writeln!(self.err, "{title}: {error:#}");
        ExitCode::FAILURE
    }
}

/// Columns of text, aligned; the last one is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
