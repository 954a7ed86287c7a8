//! A pipeline's entry as JSON. The shape is documented in docs/state.md; its number counts up when it changes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use acequia_connector_api::base64;
use serde_json::{Value, json};

use crate::state::{Checkpoint, Entry, Stored};

/// The shape of what [`of`] makes.
const SHAPE: u32 = 1;

/// Everything that is stored of a pipeline.
pub(super) fn of(entry: &Entry) -> Value {
    json!({
        "export": SHAPE,
        "acequia": env!("CARGO_PKG_VERSION"),
        "pipeline": entry.pipeline,
        "checkpoint": stored(&entry.last),
        "previous": entry.previous.as_ref().map(stored),
    })
}

fn stored(stored: &Stored) -> Value {
    match &stored.checkpoint {
        Ok(checkpoint) => {
            let mut value = json!(checkpoint);
            value["snapshots"] = snapshots(checkpoint);
            value
        }
        // As it lies there: whoever knows more may get something out of it.
        Err(error) => {
            let (head, snapshots) = stored.raw();
            let snapshots: serde_json::Map<_, _> =
                snapshots.iter().map(|(transform, bytes)| (transform.clone(), base64(bytes).into())).collect();
            json!({ "damaged": error, "raw": { "head": base64(head), "snapshots": snapshots } })
        }
    }
}

fn snapshots(checkpoint: &Checkpoint) -> Value {
    let all = checkpoint.snapshots.iter().map(|(transform, bytes)| (transform.clone(), base64(bytes).into()));
    Value::Object(all.collect())
}

/// Write the entry into the folder `backup`, to stay; where.
pub(super) fn back_up(dir: &Path, entry: &Entry) -> io::Result<PathBuf> {
    let folder = dir.join("backup");
    std::fs::create_dir_all(&folder)?;
    // A pipeline's name is that of a file; here it comes from one that may be damaged.
    let plain = |letter: char| if letter == '/' || letter.is_control() { '_' } else { letter };
    let name: String = entry.pipeline.chars().map(plain).collect();
    let number = entry.last.checkpoint.as_ref().map_or("damaged".to_owned(), |last| last.number.to_string());
    let text = serde_json::to_string_pretty(&of(entry))?;
    for copy in 1_u32.. {
        let again = if copy == 1 { String::new() } else { format!("-{copy}") };
        let path = folder.join(format!("{name}-{number}{again}.json"));
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            file => file?,
        };
        writeln!(file, "{text}")?;
        file.sync_all()?;
        File::open(&folder)?.sync_all()?;
        File::open(dir)?.sync_all()?;
        return Ok(path);
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
