//! `acequia state ...`: look at checkpoints, copy them out, forget them.

mod export;
mod show;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::Output;
use crate::config::nearest;
use crate::pipeline::status::now_millis;
use crate::state::{Entry, Folder, Look, holder, look};

/// The verbs below `acequia state`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show what a state folder holds; a daemon may be running. Exit code 1 if something in it is damaged.
    Inspect(InspectArgs),
    /// Print all that is stored of one pipeline, as JSON; a daemon may be running.
    Export(ExportArgs),
    /// Forget the checkpoints of pipelines, so that they start anew. The daemon must be stopped. What is forgotten is
    /// written into the folder `backup` of the state folder first.
    Reset(ResetArgs),
}

/// Where the state is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The state folder [default: $STATE_DIRECTORY, else the user's state folder].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        super::run::state_folder_of_process(self.state.clone())
    }
}

/// Arguments of `acequia state inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Only this one.
    #[arg(value_name = "PIPELINE")]
    pipeline: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `acequia state export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Whose checkpoint.
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `acequia state reset`.
#[derive(Debug, clap::Args)]
pub struct ResetArgs {
    /// Whose checkpoints.
    #[arg(required = true, value_name = "PIPELINE")]
    pipelines: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// What the verbs need of the world.
pub(super) struct Desk<'a> {
    /// Milliseconds since the epoch.
    pub(super) now: u64,
    /// Asks whoever sits there; `None` if nobody does.
    pub(super) ask: &'a mut dyn FnMut(&str) -> Option<bool>,
}

pub(super) fn execute(verb: &Verb, output: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let mut ask = |question: &str| {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        let mut stderr = std::io::stderr();
        write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).ok()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    };
    run(verb, output, &mut Desk { now: now_millis(), ask: &mut ask })
}

pub(super) fn run(verb: &Verb, output: &mut Output<'_>, desk: &mut Desk<'_>) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Inspect(arguments) => inspect(arguments, output, desk),
        Verb::Export(arguments) => {
            let dir = arguments.place.folder()?;
            let found = look(&dir)?;
            let entry = find(&found, &arguments.pipeline, &dir)?;
            output.json(&export::of(entry))?;
            Ok(if is_damaged(entry) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Verb::Reset(arguments) => reset(arguments, output, desk),
    }
}

fn inspect(arguments: &InspectArgs, output: &mut Output<'_>, desk: &Desk<'_>) -> anyhow::Result<ExitCode> {
    let dir = arguments.place.folder()?;
    let mut found = look(&dir)?;
    if let Some(pipeline) = &arguments.pipeline {
        let entry = find(&found, pipeline, &dir)?.clone();
        found.entries = vec![entry];
    }
    let daemon = holder(&dir);
    if arguments.json {
        output.json(&show::json(&found, &dir, daemon.as_deref()))?;
    } else {
        let all = arguments.pipeline.is_some();
        output.text(&show::text(&found, &dir, daemon.as_deref(), desk.now, all))?;
    }
    Ok(if found.entries.iter().any(is_damaged) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_damaged(entry: &Entry) -> bool {
    entry.last.checkpoint.is_err() || entry.previous.as_ref().is_some_and(|previous| previous.checkpoint.is_err())
}

/// The entry of a pipeline, or an error that names the nearest.
fn find<'l>(found: &'l Look, pipeline: &str, dir: &Path) -> anyhow::Result<&'l Entry> {
    if let Some(entry) = found.entries.iter().find(|entry| entry.pipeline == pipeline) {
        return Ok(entry);
    }
    let near = nearest(pipeline, found.entries.iter().map(|entry| entry.pipeline.as_str()));
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`acequia state inspect --state {}` shows of which ones there is one", dir.display()),
    };
    bail!("there is no checkpoint of a pipeline `{pipeline}` in {}; {help}", dir.display())
}

fn reset(arguments: &ResetArgs, output: &mut Output<'_>, desk: &mut Desk<'_>) -> anyhow::Result<ExitCode> {
    let dir = arguments.place.folder()?;
    // Held until the end: no daemon may start in between.
    let folder = Folder::open(&dir)?;
    let found = folder.look()?;
    let mut entries = Vec::new();
    for pipeline in &arguments.pipelines {
        let entry = find(&found, pipeline, &dir)?;
        if !entries.iter().any(|known: &&Entry| known.pipeline == entry.pipeline) {
            entries.push(entry);
        }
    }
    let shown: Vec<String> = entries.iter().map(|entry| show::entry(entry, desk.now, false)).collect();
    output.text(&format!("this is forgotten:\n\n{}\n", shown.join("\n")))?;
    if !arguments.yes {
        match (desk.ask)(&format!("forget {}?", names(&entries))) {
            Some(true) => {}
            Some(false) => {
                output.text("nothing was changed\n")?;
                return Ok(ExitCode::FAILURE);
            }
            None => {
                bail!("nothing was changed: nobody is there to be asked; say `--yes` to forget {}", names(&entries))
            }
        }
    }
    for entry in &entries {
        let path = export::back_up(&dir, entry).with_context(|| {
            format!("nothing was forgotten: no copy of `{}` could be kept in {}", entry.pipeline, dir.display())
        })?;
        output.text(&format!("a copy of `{}` is in {}\n", entry.pipeline, path.display()))?;
    }
    let forgotten: Vec<&str> = entries.iter().map(|entry| entry.pipeline.as_str()).collect();
    folder.forget(&forgotten)?;
    output.text(&format!("forgotten: {}\n\n", names(&entries)))?;
    output.text(&show::afterwards(&entries))
}

fn names(entries: &[&Entry]) -> String {
    entries.iter().map(|entry| format!("`{}`", entry.pipeline)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
