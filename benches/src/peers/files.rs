//! JSON lines, the even ones into another file: jq and polars.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::installed::Installed;
use super::{Comparison, Contestant, Figures};
use crate::daemon::{Daemon, Usage, start};
use crate::files::{line, write_input};

pub(super) fn compare(daemon: &Daemon, rows: u64, rounds: usize) -> Result<Comparison> {
    let installed = Installed::find()?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let folder = folder.path();
    let input = folder.join("in.jsonl");
    let size = write_input(&input, rows)?;
    let begin = |name: &str| {
        let output = folder.join(format!("{name}.out"));
        let _ = std::fs::remove_file(&output);
        output
    };
    let figures = |usage: Usage, output: &Path| -> Result<Figures> {
        let written = check(output)?;
        ensure!(written == rows.div_ceil(2), "{written} rows were written, not {}", rows.div_ceil(2));
        let Usage { wall, cpu, peak } = usage;
        Ok(Figures { rows: rows as f64, wall, steady: rows as f64 / wall, cpu, peak, written })
    };
    let contestants = vec![
        Contestant {
            name: "Acequia: even-filter",
            run: Box::new(|_| {
                let (output, state) = (begin("acequia"), folder.join("state"));
                let text = "[source]\ntype = \"file\"\npath = \"in.jsonl\"\n\n[[transform]]\nplugin = \"even-filter\"\n\n\
                            [[sink]]\ntype = \"file\"\npath = \"acequia.out\"\n";
                let pipeline = folder.join("lines.toml");
                std::fs::write(&pipeline, text)?;
                let _ = std::fs::remove_file(state.join("acequia.redb"));
                figures(daemon.run(&pipeline, &state, &["--once"], false)?.wait()?, &output)
            }),
        },
        Contestant {
            name: "jq -c 'select(.value % 2 == 0)'",
            run: Box::new(|_| {
                let output = begin("jq");
                // The file itself is its standard output: a pipe would have to be emptied beside it.
                let mut command = Command::new("sh");
                command.args(["-c", r#"exec "$0" -c "$1" "$2" >"$3""#]).arg(installed.path("jq")?);
                command.arg("select(.value % 2 == 0)").arg(&input).arg(&output);
                figures(start(command, folder.join("jq.log"))?.wait()?, &output)
            }),
        },
        Contestant {
            name: "polars: scan, filter, sink",
            run: Box::new(|_| {
                let output = begin("polars");
                let mut command = installed.command("polars")?;
                command.arg(installed.script("polars/even.py")).arg(&input).arg(&output);
                figures(start(command, folder.join("polars.log"))?.wait()?, &output)
            }),
        },
    ];
    super::in_turns(contestants, rounds).map(|results| Comparison {
        name: "peers: file",
        about: format!(
            "{rows} JSON lines ({:.1} MB) of a number, a name and a time, the even ones into another file; all cores. From start to end of the process.",
            size as f64 / 1e6
        ),
        results,
    })
}

/// How many lines are in a file; an error if they are not the even ones of the input, to the letter.
fn check(path: &Path) -> Result<u64> {
    let (mut rows, mut text) = (0, Vec::new());
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    while file.read_until(b'\n', &mut text)? > 0 {
        let found = text.strip_suffix(b"\n").unwrap_or(&text);
        ensure!(found == line(rows * 2).as_bytes(), "line {rows} is {}", String::from_utf8_lossy(found));
        text.clear();
        rows += 1;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        std::fs::write(&path, format!("{}\n{}\n", line(0), line(2))).unwrap();
        assert_eq!(check(&path).unwrap(), 2);
        std::fs::write(&path, format!("{}\n{}\n", line(0), line(3))).unwrap();
        assert!(check(&path).is_err());
    }
}
