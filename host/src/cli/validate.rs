//! `acequia validate`

use std::path::PathBuf;
use std::process::ExitCode;

use acequia_connector_api::Registry;
use serde::Serialize;

use super::Output;
use super::backend::{Backend, PlanCheck};
use crate::config::{self, Diagnostic, Diagnostics, Env, PipelineConfig};

/// Arguments of `acequia validate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, or folders whose `*.toml` are taken.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Look at no environment variable: what hangs on one without a default is not checked.
    #[arg(long)]
    no_env: bool,
    /// A folder to look for plugins in first; may be given more than once.
    #[arg(long, value_name = "DIR")]
    plugins: Vec<PathBuf>,
    /// Print JSON: an array with one object a file.
    #[arg(long)]
    json: bool,
}

/// What became of one file.
#[derive(Serialize)]
struct Verdict {
    file: PathBuf,
    ok: bool,
    diagnostics: Vec<Diagnostic>,
}

pub(super) fn execute(
    arguments: &Args,
    backend: &dyn Backend,
    registry: &Registry,
    output: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    let env = if arguments.no_env { Env::None } else { Env::Process };
    let mut checker = backend.checker(&arguments.plugins)?;
    let found = config::discover(&arguments.paths);
    let mut verdicts: Vec<Verdict> = Vec::new();
    for problem in found.problems {
        verdicts.push(Verdict { file: problem.file.clone(), ok: false, diagnostics: vec![problem] });
    }
    let mut configs = Vec::new();
    for file in found.files {
        let mut diagnostics = Vec::new();
        match config::load(&file.path, registry, &env) {
            Ok(config) => {
                diagnostics = check_plan(checker.as_mut(), &config);
                configs.push(config);
            }
            Err(wrong) => diagnostics.extend(wrong.0),
        }
        verdicts.push(Verdict { file: file.path, ok: diagnostics.is_empty(), diagnostics });
    }
    let configs: Vec<&PipelineConfig> = configs.iter().collect();
    for (config, conflict) in config::conflicts(&configs) {
        if let Some(verdict) = verdicts.iter_mut().find(|verdict| verdict.file == config.path) {
            verdict.ok = false;
            verdict.diagnostics.push(conflict);
        }
    }
    if verdicts.is_empty() {
        anyhow::bail!("there is no pipeline (*.toml) in the folders given");
    }
    let all_ok = verdicts.iter().all(|verdict| verdict.ok);
    if arguments.json {
        output.json(&verdicts)?;
    } else {
        report(&verdicts, output)?;
    }
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with the plugins and the columns; without the environment, only what does not hang on it.
fn check_plan(checker: &mut dyn PlanCheck, config: &PipelineConfig) -> Vec<Diagnostic> {
    let Err(Diagnostics(mut diagnostics)) = checker.check(config) else { return Vec::new() };
    // A transform whose table hangs on a variable may say anything, and so may all behind it, whose columns it makes.
    if let Some(first) = config.transforms.iter().position(|stage| stage.unresolved) {
        let known = config.transforms.iter().enumerate().flat_map(|(index, stage)| {
            let all = [stage.place.clone(), stage.plugin_place.clone()].into_iter();
            let all = all.chain(stage.config_places.values().cloned());
            all.filter(move |place| index < first || (*place == stage.plugin_place && !stage.unresolved))
        });
        let known: Vec<_> = known.collect();
        diagnostics.retain(|diagnostic| match &diagnostic.place {
            Some(place) => known.contains(&place.span),
            None => true,
        });
    }
    diagnostics
}

fn report(verdicts: &[Verdict], output: &mut Output<'_>) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut right = String::new();
    for verdict in verdicts {
        if verdict.ok {
            right.push_str(&format!("ok {}\n", verdict.file.display()));
        }
        wrong.extend(verdict.diagnostics.iter().cloned());
    }
    output.text(&right)?;
    if !wrong.is_empty() {
        writeln!(output.err, "{}", Diagnostics(wrong).render(output.colours_err))?;
    }
    Ok(())
}
