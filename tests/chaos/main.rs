//! A campaign of faults: pipelines with known answers on real servers, while everything around them fails, by a seed.
//!
//! `make chaos SEED=7 MINUTES=10`. A seed fixes what happens and when (`--plan` prints it); the moment of a fault within the
//! stream is the machine's. When the time is up everything heals, the pipelines come to rest, and what the servers hold is
//! counted by clients that are not Acequia's. The page docs/guarantees.md says what has to hold.

// It fails as a test does; clippy only knows that of tests themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod count;
mod faults;
mod feed;
mod pipelines;
mod plan;
mod report;
mod slow;
mod truth;
mod world;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;

use plan::Plan;
use report::Report;
use world::{Servers, World};

/// Set in the process that has mounts of its own.
const INSIDE: &str = "ACEQUIA_CHAOS_INSIDE";

/// Attack pipelines on real servers, and count.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seeds, one campaign for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    seeds: Vec<u64>,
    /// How long faults are injected, all seeds together.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Print what would happen, and end.
    #[arg(long)]
    plan: bool,
    /// Rows a second into the topic that most pipelines read.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Beside it, a sink ten times slower than its source for as long, and its memory.
    #[arg(long)]
    slow_sink: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.plan {
        for &seed in &arguments.seeds {
            Plan::new(seed).take(20).for_each(|round| println!("seed {seed}: {round}"));
        }
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_none() {
        return enter();
    }
    let each = Duration::from_secs_f64(arguments.minutes * 60.0 / arguments.seeds.len().max(1) as f64);
    let slow = arguments.slow_sink.then(|| slow::start(Duration::from_secs_f64(arguments.minutes * 60.0)));
    let mut servers = Servers::start();
    let mut report = Report::default();
    for &seed in &arguments.seeds {
        println!("seed {seed}: {} s", each.as_secs());
        campaign(seed, each, arguments.rate, &mut servers, &mut report);
    }
    if let Some(slow) = slow {
        report.slow(slow.join().expect("the slow sink's thread"));
    }
    println!("{report}");
    if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Begin again with mounts of our own, so that small disks can be mounted, and are gone with us however we end.
fn enter() -> ExitCode {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let error = command
        .arg(std::env::current_exe().expect("this program"))
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    eprintln!("unshare (util-linux) does not start: {error}");
    ExitCode::FAILURE
}

fn campaign(seed: u64, time: Duration, rate: u64, servers: &mut Servers, report: &mut Report) {
    let mut world = World::new(seed, servers, rate);
    let begin = Instant::now();
    for round in Plan::new(seed) {
        if begin.elapsed() >= time {
            break;
        }
        let recovery = world.play(&round);
        report.round(&round, recovery);
        println!("{:5.0} s  {round}; well again after {:.1} s", begin.elapsed().as_secs_f64(), recovery.as_secs_f64());
    }
    let expected = world.finish();
    for count in world.counts(&expected) {
        println!("{count}");
        report.count(count);
    }
    report.daemon(world.exits(), world.peak_memory());
    report.clean &= world.clean();
}
