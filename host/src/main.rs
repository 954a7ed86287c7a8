//! The `acequia` command.

use std::path::Path;
use std::process::ExitCode;

use acequia::cli::{self, Backend};
use acequia::config::plugins::PluginPath;
use acequia::config::{Diagnostic, PipelineConfig};
use acequia::plugin::{Host, HostOptions};
use acequia::{connectors, daemon};
use anyhow::Context;

/// The whole host behind the command line.
struct Whole;

impl Backend for Whole {
    fn run(&self, options: cli::RunOptions) -> anyhow::Result<ExitCode> {
        let options = daemon::RunOptions {
            state: options.state_folder()?,
            paths: options.paths,
            plugins: options.plugins,
            listen: options.listen.map(|address| address.to_string()),
            once: options.once,
        };
        runtime()?.block_on(async {
            let shutdown = daemon::shutdown_signal()?;
            daemon::run(options, shutdown).await
        })
    }

    fn check_plugins(&self, config: &PipelineConfig, plugins: &PluginPath) -> Vec<Diagnostic> {
        let check = || -> anyhow::Result<Vec<Diagnostic>> {
            let host = Host::new(&HostOptions::default())?;
            let builder = daemon::Builder { registry: connectors::registry(), plugins: plugins.clone(), host };
            let built = runtime()?.block_on(builder.build(config, None, &mut daemon::Loaded::new()));
            Ok(built.err().map(|problems| problems.0).unwrap_or_default())
        };
        check().unwrap_or_else(|error| vec![Diagnostic::of_file(&config.path, format!("{error:#}"))])
    }

    fn inspect(&self, file: &Path) -> anyhow::Result<serde_json::Value> {
        let plugin = Host::new(&HostOptions::default())?.load(file)?;
        serde_json::to_value(plugin.inspect()).context("what the plugin says of itself is no JSON")
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads can be started")
}

fn main() -> ExitCode {
    cli::main(&Whole)
}
