//! A state folder for people, and for programs.

use std::collections::BTreeSet;
use std::path::Path;

use acequia_connector_api::format_timestamp;
use serde_json::{Value, json};

use crate::cli::output::table;
use crate::state::{Checkpoint, Entry, Look, Stored};

/// So many parts of a position are shown where all pipelines are.
const PARTS: usize = 10;

/// Everything, for people. `all`: also of a long position each part.
pub(super) fn text(found: &Look, dir: &Path, daemon: Option<&str>, now: u64, all: bool) -> String {
    let by = found.acequia.as_ref().map(|version| format!(", written by acequia {}", plain(version)));
    let size = size(found.bytes);
    let head = [
        ["folder".to_owned(), dir.display().to_string()],
        ["file".to_owned(), format!("{}, {size}, format {}{}", file_name(found), found.format, by.unwrap_or_default())],
        [
            "daemon".to_owned(),
            daemon.map_or("none has the folder".to_owned(), |holder| format!("process {holder} has the folder")),
        ],
    ];
    let mut text = table(&head.map(Vec::from));
    if found.entries.is_empty() {
        text.push_str("\nno checkpoints\n");
    }
    for one in &found.entries {
        text.push('\n');
        text.push_str(&entry(one, now, all));
    }
    text
}

fn file_name(found: &Look) -> String {
    found.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// One pipeline.
pub(super) fn entry(entry: &Entry, now: u64, all: bool) -> String {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push(vec![format!("  {key}"), plain(&value)]);
    match &entry.last.checkpoint {
        Err(error) => row("damaged", format!("the checkpoint can't be used: {error}")),
        Ok(checkpoint) => {
            row("checkpoint", number_and_age(checkpoint, now));
            row("source", checkpoint.source_type.clone());
            let parts = &checkpoint.position.0;
            let shown = if all { parts.len() } else { PARTS };
            for (part, value) in parts.iter().take(shown) {
                row("position", if part.is_empty() { value.to_string() } else { format!("{part}: {value}") });
            }
            if parts.len() > shown {
                row("", format!("and {} more", parts.len() - shown));
            }
            for (stage, counts) in &checkpoint.counts {
                row(
                    &format!("rows {}", plain(stage)),
                    format!(
                        "in {}, out {}, dropped {}, added {}, dead {}",
                        counts.rows_in, counts.rows_out, counts.dropped, counts.added, counts.dead
                    ),
                );
            }
            for (transform, bytes) in &checkpoint.snapshots {
                row(&format!("snapshot {}", plain(transform)), size(bytes.len() as u64));
            }
            for (sink, state) in &checkpoint.sinks {
                row(&format!("sink {}", plain(sink)), format!("{}: {}", state.sink_type, state.state));
            }
        }
    }
    match entry.previous.as_ref().map(|previous| &previous.checkpoint) {
        None => {}
        Some(Ok(previous)) => row("before it", number_and_age(previous, now)),
        Some(Err(error)) => row("damaged", format!("the checkpoint before it can't be used: {error}")),
    }
    format!("{}\n{}", plain(&entry.pipeline), table(&rows))
}

fn number_and_age(checkpoint: &Checkpoint, now: u64) -> String {
    let time = format_timestamp(i64::try_from(checkpoint.at).unwrap_or(i64::MAX / 1000).saturating_mul(1000));
    format!("{}, {} ({time})", checkpoint.number, age(now, checkpoint.at))
}

fn age(now: u64, at: u64) -> String {
    let Some(seconds) = now.checked_sub(at).map(|millis| millis / 1000) else { return "in the future".to_owned() };
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Without control characters: it goes to a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// Everything, for programs.
pub(super) fn json(found: &Look, dir: &Path, daemon: Option<&str>) -> Value {
    let pipelines: Vec<Value> = found
        .entries
        .iter()
        .map(|entry| {
            json!({
                "pipeline": entry.pipeline,
                "checkpoint": entry.last.checkpoint.as_ref().ok().map(facts),
                "previous": entry.previous.as_ref().and_then(|it| it.checkpoint.as_ref().ok()).map(|it| it.number),
                "damaged": damage(&entry.last).or_else(|| entry.previous.as_ref().and_then(damage)),
                "bytes": entry.last.bytes(),
            })
        })
        .collect();
    json!({
        "folder": dir,
        "file": found.file,
        "bytes": found.bytes,
        "format": found.format,
        "acequia": found.acequia,
        // A number, unless someone wrote something else into the lock's file.
        "daemon": daemon.map(|holder| holder.parse::<u32>().map_or_else(|_| json!(holder), Value::from)),
        "pipelines": pipelines,
    })
}

fn damage(stored: &Stored) -> Option<&String> {
    stored.checkpoint.as_ref().err()
}

/// A checkpoint, of each snapshot its length.
fn facts(checkpoint: &Checkpoint) -> Value {
    let mut value = json!(checkpoint);
    let sizes = checkpoint.snapshots.iter().map(|(transform, bytes)| (transform.clone(), bytes.len().into()));
    value["snapshots"] = Value::Object(sizes.collect());
    value
}

/// What a reset does not reach, and what to do about it.
pub(super) fn afterwards(entries: &[&Entry]) -> String {
    let mut text = String::from(
        "At the next start these pipelines begin where a new one does. What the sinks have stays there: what is read again is \
         written again.\n",
    );
    for entry in entries {
        let stored = [Some(&entry.last), entry.previous.as_ref()];
        let known = stored.into_iter().flatten().find_map(|stored| stored.checkpoint.as_ref().ok());
        let Some(checkpoint) = known else {
            text.push_str(&format!(
                "\n`{0}`: what it read can't be told. If its source is kafka, the offsets of its consumer group stay in the cluster.\n",
                plain(&entry.pipeline)
            ));
            continue;
        };
        if checkpoint.source_type == "kafka" {
            let topics: BTreeSet<&str> =
                checkpoint.position.0.keys().filter_map(|part| Some(part.rsplit_once('/')?.0)).collect();
            let topics: String = topics.iter().map(|topic| format!(" --topic {}", plain(topic))).collect();
            text.push_str(&format!(
                "\n`{0}` reads from kafka: the offsets of its consumer group stay in the cluster, and it goes on from those. To \
                 rewind them too, before it starts again:\n  kafka-consumer-groups --bootstrap-server HOST:PORT --group \
                 acequia-{0}{topics} --reset-offsets --to-earliest --execute\n(`acequia-{0}` is the group unless the file names \
                 another.)\n",
                plain(&entry.pipeline)
            ));
        }
        for (sink, state) in &checkpoint.sinks {
            let Some(id) = state.state.get("transactional_id").and_then(Value::as_str) else { continue };
            text.push_str(&format!(
                "\n`{}` writes to kafka exactly once, in the sink `{}`: it starts with the transactions of a new process. Should \
                 one of the last run still be open (`{}`), the cluster ends it when its time is up, a minute by default, and until \
                 then readers of committed records wait.\n",
                plain(&entry.pipeline),
                plain(sink),
                plain(id)
            ));
        }
    }
    text
}
