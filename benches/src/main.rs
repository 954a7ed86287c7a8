//! `make bench`: what Acequia costs on this machine. A program to be run and read, not a test: nothing here passes or fails
//! by a time.
//!
//! Machines are shared and noisy. So whatever is compared is measured in turns, many times in one run; what is shown is the
//! median with the extremes, processor time beside wall time, and how far apart two measurements of the same thing are.
//! `docs/benchmarks.md` says how to read the tables.

mod boundary;
mod cases;
mod daemon;
mod dictionary;
mod engine;
mod files;
mod growth;
mod instances;
mod latency;
mod machine;
mod measure;
mod memory;
mod metrics;
mod peers;
mod pipeline;
mod plot;
mod report;
mod servers;
mod share;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum as _};

use daemon::Daemon;
use report::Section;
use servers::Target;

/// Measure what Acequia costs on this machine. Without a section: all but `engine`, `instances`, `dictionary`, `share`, `growth` and `peers`.
#[derive(Debug, Parser)]
#[command(name = "acequia-bench", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    section: Option<Which>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// How often each thing is measured [default: what suits the section].
    #[arg(long, global = true, value_name = "N")]
    rounds: Option<usize>,
    /// The daemon [default: `acequia` beside this program].
    #[arg(long, global = true, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// The bundled plugins [default: `../plugins` beside this program].
    #[arg(long, global = true, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// The processor that the daemon is kept on where one core is measured.
    #[arg(long, global = true, value_name = "NUMBER", default_value_t = 0)]
    cpu: usize,
}

#[derive(Clone, Debug, Subcommand)]
enum Which {
    /// A batch through a plugin, beside the same logic in native code.
    Boundary {
        /// Only these plugins [default: all that are measured].
        only: Vec<String>,
    },
    /// Rows a second of whole pipelines, in a daemon on one core.
    Pipeline {
        /// Rows for each run of a pipeline; a hundredth of it where the transform is slow.
        #[arg(long, default_value_t = 1_000_000_000)]
        rows: u64,
    },
    /// Time from the start of the process to the first row out.
    Start,
    /// From a line on a socket to its row in Cassandra, and how batches grow with the load. Starts a Cassandra of its own.
    Latency {
        /// Lines whose way is timed.
        #[arg(long, default_value_t = 600)]
        lines: usize,
    },
    /// How cost grows with the work: pipelines, columns, bytes of a row, distinct words. Not among those that run without a
    /// section.
    Growth {
        /// What grows [default: everything in turn].
        what: Option<growth::What>,
        /// Write each curve there, as SVG.
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
    },
    /// Resident memory of a daemon with 1, 3, 100 and 1,000 pipelines, and with three on servers that it starts.
    Memory,
    /// JSON lines from file to file.
    File {
        /// Lines of the input.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
    },
    /// Kafka -> even-filter -> file, beside a consumer that only counts, and -> Kafka with and without transactions. Starts a
    /// Kafka of its own.
    Kafka {
        /// Messages in the topic.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
    },
    /// Kafka -> Cassandra, beside a loop around the driver. Starts servers of its own.
    Cassandra {
        /// Messages in the topic.
        #[arg(long, default_value_t = 200_000)]
        rows: u64,
    },
    /// Kafka -> InfluxDB, beside posts of 5,000 points. Starts servers of its own.
    Influxdb {
        /// Messages in the topic.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
    },
    /// The same jobs by what people use today; `make bench-peers` installs that.
    Peers {
        /// What to do [default: all of it].
        jobs: Vec<peers::Job>,
        /// Rows of the input [default: what suits the job].
        #[arg(long)]
        rows: Option<u64>,
    },
    /// A program below a process that counts what it and its children use.
    #[command(hide = true)]
    Tree(peers::tree::Tree),
    /// A loop around a driver and nothing else: what the sections above compare with.
    #[command(hide = true)]
    Bare {
        #[command(subcommand)]
        which: servers::bare::Bare,
    },
    /// What the engine's settings cost: epochs, and calls on a stack of their own.
    Engine {
        /// Builds of `even-filter` to compare [default: the bundled one].
        builds: Vec<PathBuf>,
    },
    /// How pipelines that all have more to do than they can share the cores.
    Share,
    /// Whether columns of texts that come again and again would pay as dictionaries.
    Dictionary,
    /// Until a plugin is ready: compiling it, loading it compiled, making an instance, with and without a pool.
    Instances,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acequia-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Which::Bare { which }) = &arguments.section {
        return servers::bare::run(which);
    }
    if let Some(Which::Tree(tree)) = &arguments.section {
        return peers::tree::run(tree);
    }
    let daemon = Daemon::find(arguments.daemon.as_deref(), arguments.plugins.as_deref(), arguments.cpu)?;
    let all = [
        Which::Boundary { only: Vec::new() },
        Which::Pipeline { rows: 1_000_000_000 },
        Which::Start,
        Which::Latency { lines: 600 },
        Which::Memory,
        Which::File { rows: 1_000_000 },
        Which::Kafka { rows: 1_000_000 },
        Which::Cassandra { rows: 200_000 },
        Which::Influxdb { rows: 1_000_000 },
    ];
    let chosen = match &arguments.section {
        // Each is a table.
        Some(Which::Peers { jobs, rows }) => {
            let jobs = if jobs.is_empty() { peers::Job::value_variants() } else { jobs };
            jobs.iter().map(|job| Which::Peers { jobs: vec![*job], rows: *rows }).collect()
        }
        Some(which) => vec![which.clone()],
        None => all.to_vec(),
    };
    let machine = machine::describe();
    if !arguments.json {
        println!("{machine}\n");
    }
    let mut sections = Vec::new();
    for which in chosen {
        for section in measure(&which, arguments, &daemon)? {
            if !arguments.json {
                println!("{section}");
            }
            sections.push(section);
        }
    }
    if arguments.json {
        let sections: Vec<_> = sections.iter().map(Section::to_json).collect();
        println!("{}", serde_json::json!({ "machine": machine.to_json(), "sections": sections }));
    } else {
        println!("load average at the end: {}", machine::load_average());
    }
    Ok(())
}

fn measure(which: &Which, arguments: &Arguments, daemon: &Daemon) -> Result<Vec<Section>> {
    let rounds = |usual: usize| arguments.rounds.unwrap_or(usual).max(1);
    let section = match which {
        Which::Growth { what, plots } => {
            return growth::measure(daemon, *what, rounds(3), plots.as_deref()).context("the growth");
        }
        Which::Latency { lines } => return latency::measure(daemon, *lines, rounds(3)).context("the latency"),
        Which::Boundary { only } => boundary::measure(daemon, only, rounds(15)).context("the boundary"),
        Which::Pipeline { rows } => pipeline::measure(daemon, *rows, rounds(5)).context("the pipelines"),
        Which::Start => start::measure(daemon, rounds(20)).context("the start"),
        Which::Memory => memory::measure(daemon, rounds(3)).context("the memory"),
        Which::File { rows } => files::measure(daemon, *rows, rounds(5)).context("the files"),
        Which::Kafka { rows } => servers::measure(daemon, Target::File, *rows, rounds(5)).context("kafka"),
        Which::Cassandra { rows } => servers::measure(daemon, Target::Cassandra, *rows, rounds(3)).context("cassandra"),
        Which::Influxdb { rows } => servers::measure(daemon, Target::InfluxDb, *rows, rounds(3)).context("influxdb"),
        Which::Peers { jobs, rows } => {
            let [job] = jobs[..] else { anyhow::bail!("a table is of one job") };
            peers::measure(daemon, job, *rows, rounds(5)).context("the peers")
        }
        Which::Bare { .. } | Which::Tree(_) => anyhow::bail!("what counts is no section"),
        Which::Engine { builds } => engine::measure(daemon, builds, rounds(15)).context("the engine"),
        Which::Share => share::measure(daemon, rounds(3)).context("the shares"),
        Which::Dictionary => dictionary::measure(daemon, rounds(15)).context("the dictionaries"),
        Which::Instances => instances::measure(daemon, rounds(15)).context("the instances"),
    };
    Ok(vec![section?])
}
