//! When the rows are in a file that another process writes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::daemon::Running;

/// How often the file is looked at: seldom enough to cost nothing beside what is measured.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long a file may stay as it is.
const SILENCE: Duration = Duration::from_secs(60);

/// Seconds since the start of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// When the first rows were seen.
    pub(super) first: f64,
    /// When the last row was written, as the file's time says.
    pub(super) last: f64,
}

/// Wait until the file has so many lines. They are counted only when the file no longer grows.
pub(super) fn wait(running: &Running, began: SystemTime, file: &Path, lines: u64) -> Result<Arrival> {
    let since = |time: SystemTime| time.duration_since(began).unwrap_or_default().as_secs_f64();
    let (mut size, mut counted, mut found, mut first) = (0, 0, 0, None);
    let mut grew = Instant::now();
    loop {
        std::thread::sleep(INTERVAL);
        let now = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if now > 0 && first.is_none() {
            first = Some(since(SystemTime::now()));
        }
        if now != size {
            (size, grew) = (now, Instant::now());
            continue;
        }
        if size > counted {
            found += count(file, counted, size)?;
            counted = size;
        }
        ensure!(found <= lines, "{found} lines were written, not {lines}");
        if found == lines {
            let last = std::fs::metadata(file)?.modified()?;
            return Ok(Arrival { first: first.unwrap_or_default(), last: since(last) });
        }
        ensure!(grew.elapsed() < SILENCE, "only {found} of {lines} lines were written: {}", running.said());
        ensure!(running.runs()?, "it ended with {found} of {lines} lines written: {}", running.said());
    }
}

/// Line breaks between two places of a file.
fn count(path: &Path, from: u64, to: u64) -> Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
    file.seek(SeekFrom::Start(from))?;
    let (mut buffer, mut left, mut lines) = (vec![0; 1 << 18], to - from, 0);
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left)?);
        let read = file.read(&mut buffer[..room])?;
        ensure!(read > 0, "{} has become shorter", path.display());
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        left -= read as u64;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_between_two_places() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "one\ntwo\nthree\nfou").unwrap();
        assert_eq!(count(&path, 0, 17).unwrap(), 3);
        assert_eq!(count(&path, 4, 9).unwrap(), 1);
        assert!(count(&path, 4, 99).is_err());
    }
}
