//! The `acequia` command.

use std::path::Path;
use std::process::ExitCode;

use acequia::cli::{self, Backend, RunOptions};
use acequia::config::plugins::PluginPath;
use acequia::config::{Diagnostic, PipelineConfig};

/// A build of the configuration alone: it checks files, and says so where more is asked of it.
struct ConfigurationOnly;

impl Backend for ConfigurationOnly {
    fn run(&self, _: RunOptions) -> anyhow::Result<ExitCode> {
        anyhow::bail!("this build has no daemon: it can only check configurations")
    }

    fn check_plugins(&self, _: &PipelineConfig, _: &PluginPath) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn inspect(&self, file: &Path) -> anyhow::Result<serde_json::Value> {
        anyhow::bail!("this build has no plugin host: it can't look into {}", file.display())
    }
}

fn main() -> ExitCode {
    cli::main(&ConfigurationOnly)
}
