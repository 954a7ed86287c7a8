//! The command line: one file a verb.

mod backend;
pub mod connectors;
pub mod logging;
mod output;
pub mod plugin;
pub mod run;
pub mod state;
pub mod status;
pub mod validate;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use acequia_connector_api::Registry;
use clap::{Parser, Subcommand};

use crate::config;
use backend::{Backend, Daemon};

pub use logging::LogFormat;
pub use output::Output;

/// A Kafka Connect-style plugin host: TOML pipelines, WebAssembly transforms, hot reload.
#[derive(Debug, Parser)]
#[command(name = "acequia", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// How log lines look; by default `journald` under systemd, else `text`.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the pipelines of files or folders, and follow their changes.
    Run(run::Args),
    /// Check pipelines without starting anything. Exit code 1 if something is wrong.
    Validate(validate::Args),
    /// Print the JSON Schema of a pipeline's file, for editors.
    Schema,
    /// List the connectors of this build.
    Connectors(connectors::Args),
    /// Work with plugins.
    #[command(subcommand)]
    Plugin(plugin::Verb),
    /// Show the pipelines of a running daemon. Exit code 1 if one has failed or the daemon can't be reached.
    Status(status::Args),
    /// Look at checkpoints, copy them out, forget them.
    #[command(subcommand)]
    State(state::Verb),
    /// Print the reference of the configuration (docs/configuration.md).
    #[command(hide = true)]
    Reference,
}

/// The whole command: reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    let mut stdout = std::io::stdout();
    let mut stderr = std::io::stderr();
    let mut output = Output::of_process(&mut stdout, &mut stderr);
    execute(std::env::args_os(), &Daemon, &crate::connectors::registry(), &mut output)
}

/// As [`main`], with everything given.
fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    backend: &dyn Backend,
    registry: &Registry,
    output: &mut Output<'_>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, output),
    };
    let format = cli.log_format.unwrap_or_else(LogFormat::of_process);
    let done = match cli.verb {
        Verb::Run(arguments) => {
            if let Err(error) = logging::init(format) {
                return output.fail(&error);
            }
            arguments.into_options().and_then(|options| backend.run(options))
        }
        Verb::Validate(arguments) => validate::execute(&arguments, backend, registry, output),
        Verb::Schema => output.json(&config::schema_json(registry)),
        Verb::Connectors(arguments) => connectors::execute(&arguments, registry, output),
        Verb::Plugin(verb) => plugin::execute(&verb, backend, output),
        Verb::Status(arguments) => status::execute(&arguments, output),
        Verb::State(verb) => state::execute(&verb, output),
        Verb::Reference => output.text(&config::reference_markdown(registry)),
    };
    done.unwrap_or_else(|error| output.fail(&error))
}

/// Help and version go to standard output, mistakes to standard error with exit code 2.
fn usage(error: &clap::Error, output: &mut Output<'_>) -> ExitCode {
    let rendered = error.render();
    let colours = if error.use_stderr() { output.colours_err } else { output.colours_out };
    let text = if colours { rendered.ansi().to_string() } else { rendered.to_string() };
    let stream: &mut dyn Write = if error.use_stderr() { &mut *output.err } else { &mut *output.out };
    // There is nowhere left to say that it can't be said.
    let _ = stream.write_all(text.as_bytes());
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[cfg(test)]
mod tests;
