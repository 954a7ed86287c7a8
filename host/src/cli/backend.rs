//! What the verbs need of the rest of the daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use acequia_connector_api::Cores;
use anyhow::Context as _;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::config::{Diagnostics, PipelineConfig};
use crate::daemon::{self, Builder, Loaded, RunOptions};
use crate::plugin::{Host, HostOptions};

/// The parts of the daemon that the verbs call. Tests have others.
pub trait Backend {
    /// Run pipelines until a signal, or until all finite ones have ended.
    ///
    /// # Errors
    /// If the daemon can't start at all.
    fn run(&self, options: RunOptions) -> anyhow::Result<ExitCode>;

    /// What checks the plugins of pipelines, with these folders before the usual ones.
    ///
    /// # Errors
    /// If this machine can't run WebAssembly.
    fn checker(&self, plugins: &[PathBuf]) -> anyhow::Result<Box<dyn PlanCheck>>;

    /// What a plugin's file says of itself, as a JSON object.
    ///
    /// # Errors
    /// If it can't be read or is not a plugin.
    fn inspect(&self, file: &Path) -> anyhow::Result<Value>;
}

/// Compiles plugins and asks them for their plans.
pub trait PlanCheck {
    /// Find and compile the plugins of a pipeline, let each check its configuration against what is known of the rows,
    /// and check the columns from end to end.
    ///
    /// # Errors
    /// What is wrong, with places in the file.
    fn check(&mut self, config: &PipelineConfig) -> Result<(), Diagnostics>;
}

/// The daemon itself.
pub struct Daemon;

impl Backend for Daemon {
    fn run(&self, options: RunOptions) -> anyhow::Result<ExitCode> {
        daemon::keep_tight();
        let (runtime, cores) = daemon::runtime()?;
        runtime.block_on(async {
            let shutdown = daemon::shutdown_signal()?;
            daemon::run(options, cores, shutdown).await
        })
    }

    fn checker(&self, plugins: &[PathBuf]) -> anyhow::Result<Box<dyn PlanCheck>> {
        let runtime = Runtime::new().context("no threads can be started")?;
        Ok(Box::new(Checker {
            runtime,
            builder: RunOptions::builder(plugins, None, Cores::default())?,
            loaded: Loaded::new(),
        }))
    }

    fn inspect(&self, file: &Path) -> anyhow::Result<Value> {
        let host = Host::new(&HostOptions::default()).context("the plugin host can't start")?;
        let plugin = host.load(file)?;
        Ok(serde_json::to_value(plugin.inspect())?)
    }
}

struct Checker {
    runtime: Runtime,
    builder: Builder,
    /// One compilation a plugin, however many pipelines use it.
    loaded: Loaded,
}

impl PlanCheck for Checker {
    fn check(&mut self, config: &PipelineConfig) -> Result<(), Diagnostics> {
        self.runtime.block_on(self.builder.build(config, None, &mut self.loaded)).map(drop)
    }
}
