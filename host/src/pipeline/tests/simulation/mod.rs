//! The engine in a simulated world: thousands of schedules of rows, barriers, faults, reloads, stops and crashes, each drawn
//! from a seed, and each the same whenever it is run. `docs/invariants.md` says what is in it, and which mistakes it finds.
//!
//! For the same seed to be the same schedule, nothing in the engine may depend on anything but the order in which its tasks
//! are woken: each `select!` is `biased`, no map is gone through in the order of its hashes, the jitter of its waits comes from
//! `dice` here, and the store answers on the same runtime (`state::simulated`). The wall clock is in letters and checkpoints,
//! and nothing follows from it.

mod disk;
mod model;
mod person;
mod schedule;
mod sink;
mod source;
mod transform;
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::memory::lock;
use crate::pipeline::backoff::dice;
use person::Person;
use schedule::Scene;
use world::World;

/// Runs this seed alone, and prints all that happens.
const SEED: &str = "ACEQUIA_SIMULATION_SEED";
/// How many schedules to run.
const COUNT: &str = "ACEQUIA_SIMULATION_COUNT";
const DEFAULT_COUNT: u64 = 5_000;

/// What became of a schedule.
struct Run {
    wrong: Option<String>,
    /// Everything that happened.
    book: String,
    points: u64,
}

fn simulate(seed: u64) -> Run {
    // What a schedule does is in its book; a log of thousands of them says nothing.
    let _silence = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    dice::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed);
        Person::new(&Scene::draw(&world)).run().await;
        Run { wrong: world.is_wrong(), book: world.book(), points: world.points() }
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Run the seeds in all the threads that there are room for; the first that breaks an invariant.
fn run_all(count: u64) -> (Option<(u64, Run)>, u64) {
    let (next, points) = (AtomicU64::new(0), AtomicU64::new(0));
    let broken: Mutex<BTreeMap<u64, Run>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count || !lock(&broken).is_empty() {
                return;
            }
            let run = simulate(seed);
            points.fetch_add(run.points, Ordering::Relaxed);
            if run.wrong.is_some() {
                lock(&broken).insert(seed, run);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    let broken = broken.into_inner().unwrap().into_iter().next();
    (broken, points.into_inner())
}

// invariants 1, 2, 3, 4, 6 and 7
#[test]
fn every_schedule_keeps_every_invariant() {
    if let Some(seed) = number(SEED) {
        let run = simulate(seed);
        println!("{}", run.book);
        assert_eq!(run.wrong, None, "seed {seed}");
        return;
    }
    let count = number(COUNT).unwrap_or(DEFAULT_COUNT);
    let began = Instant::now();
    let (broken, points) = run_all(count);
    let took = began.elapsed().as_secs_f64();
    if let Some((seed, Run { wrong, book, .. })) = broken {
        panic!(
            "schedule {seed} of {count} breaks an invariant: {}\n\nall that happened (ms, stage, what):\n{book}\n\
             run it alone with {SEED}={seed} cargo test -p acequia --lib every_schedule",
            wrong.unwrap_or_default()
        );
    }
    println!(
        "{count} schedules, {points} moments, in {took:.1} s: {:.0} schedules a minute",
        count as f64 * 60.0 / took
    );
}

/// Without this, no seed would be worth anything.
#[test]
fn a_seed_is_the_same_schedule_every_time() {
    for seed in 0..100 {
        let [one, other] = [simulate(seed), simulate(seed)].map(|run| run.book);
        let hash = |book: &str| blake3::hash(book.as_bytes());
        if hash(&one) != hash(&other) {
            let line = one.lines().zip(other.lines()).position(|(one, other)| one != other).unwrap_or(0);
            panic!("seed {seed} differs at line {line}: {:?} {:?}", one.lines().nth(line), other.lines().nth(line));
        }
    }
}
