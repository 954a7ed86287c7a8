//! What happens when, by a seed alone.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::faults::{Broken, Fault, Folder, Target};

/// One fault, when it begins after the round's beginning, and how long it stays.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub at: Duration,
    pub fault: Fault,
    pub stays: Duration,
}

/// Some faults, some at once. After a round everything heals and has to get well again.
#[derive(Clone, Debug)]
pub struct Round(pub Vec<Strike>);

impl fmt::Display for Round {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, strike) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{} at {:.1}", strike.fault, strike.at.as_secs_f64())?;
            if !strike.stays.is_zero() {
                write!(formatter, " for {:.1}", strike.stays.as_secs_f64())?;
            }
        }
        Ok(())
    }
}

/// The rounds of a seed, without end.
pub struct Plan(StdRng);

impl Plan {
    pub fn new(seed: u64) -> Plan {
        Plan(StdRng::seed_from_u64(seed))
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let random = &mut self.0;
        // One alone tells how long that one takes to get over; several at once find what nobody has thought of.
        let faults = *[1, 3, 5, 8, 10, 12].choose(random).expect("some");
        let mut strikes: Vec<Strike> = Vec::new();
        let mut at = Duration::from_millis(random.random_range(0..1500));
        for _ in 0..faults {
            let fault = fault(random);
            let stays = stays(random, fault);
            // What is struck already (a server that is down) is not struck a second time at once.
            let free = strikes.iter().all(|other| {
                other.fault.victim() != fault.victim() || other.at + other.stays + Duration::from_millis(300) < at
            });
            if free {
                strikes.push(Strike { at, fault, stays });
            }
            at += Duration::from_millis(random.random_range(0..2500));
        }
        Some(Round(strikes))
    }
}

fn target(random: &mut StdRng) -> Target {
    // Kafka is in every pipeline; Cassandra takes half a minute to come up.
    *[Target::Kafka, Target::Kafka, Target::InfluxDb, Target::InfluxDb, Target::Cassandra].choose(random).expect("some")
}

fn fault(random: &mut StdRng) -> Fault {
    let target = target(random);
    match random.random_range(0..33) {
        0..4 => Fault::KillDaemon,
        4..6 => Fault::StopDaemon,
        6 => Fault::FreezeDaemon,
        // Seldom for the one that is slow to start.
        7 | 8 if target != Target::Cassandra || random.random_range(0..3) == 0 => Fault::StopServer(target),
        9 | 10 if target != Target::Cassandra || random.random_range(0..3) == 0 => Fault::KillServer(target),
        7..12 => Fault::FreezeServer(target),
        12 | 13 => Fault::Cut(target),
        14 | 15 => Fault::CutInFrame(target, random.random_range(1..100_000)),
        16 | 17 => Fault::Silence(target),
        18 => Fault::Slow(target, Duration::from_millis(random.random_range(5..300))),
        19 => Fault::Narrow(target, random.random_range(10_000..400_000)),
        20 => Fault::Close(target),
        21 => Fault::FillState,
        22 => Fault::FillLetters,
        23 => Fault::Trap,
        24 => Fault::Loop,
        25 => Fault::Spoil,
        26 | 27 => {
            Fault::Break(*[Broken::Syntax, Broken::Key, Broken::Plugin, Broken::Removed].choose(random).expect("some"))
        }
        28 | 29 => Fault::Change,
        30 => Fault::Forbid(
            *[Folder::State, Folder::Letters, Folder::Pipelines, Folder::Plugins, Folder::Out]
                .choose(random)
                .expect("some"),
        ),
        _ => Fault::MoveClock(random.random_range(-90_000..90_000)),
    }
}

fn stays(random: &mut StdRng, fault: Fault) -> Duration {
    let most = match fault {
        Fault::KillDaemon | Fault::StopDaemon | Fault::Cut(_) | Fault::CutInFrame(..) | Fault::Change => {
            return Duration::ZERO;
        }
        // Long enough for time-outs of both sides, now and then.
        Fault::FreezeServer(_) | Fault::StopServer(_) | Fault::Silence(_) if random.random_range(0..5) == 0 => 25_000,
        _ => 6_000,
    };
    Duration::from_millis(random.random_range(300..most))
}
