//! The world outside the engine: its dice, its book of all that happened, its faults, and the moment at which the process
//! dies. All of it follows from the seed.

use std::collections::BTreeMap;
use std::fmt::{Arguments, Write};
use std::future::pending;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use acequia_connector_api::ConnectorError;
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::memory::lock;

/// More moments than any schedule has: one that gets here goes round in circles.
const POINTS: u64 = 100_000;

/// What a call does besides, or instead of, its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The engine is to ask again.
    Retryable,
    /// The engine is to go back to the checkpoint.
    Failed,
    Panic,
    /// It takes that long, then works.
    Slow(Duration),
}

struct Inner {
    dice: StdRng,
    book: String,
    wrong: Option<String>,
    points: u64,
    /// The process dies at this point.
    fatal: Option<u64>,
    dead: bool,
    /// How many calls in a thousand have a fault of themselves.
    rate: u32,
    /// What the next calls of a stage do, by stage and call.
    bursts: BTreeMap<(String, &'static str), (Fault, u32)>,
    /// What is open, and how many of it.
    open: BTreeMap<String, u32>,
}

/// The world.
pub struct World {
    inner: Mutex<Inner>,
    began: Instant,
    /// Something came that whoever drives the schedule must look at.
    news: Notify,
}

impl World {
    /// Must be called in the runtime of the schedule.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(World {
            inner: Mutex::new(Inner {
                dice: StdRng::seed_from_u64(seed),
                book: String::new(),
                wrong: None,
                points: 0,
                fatal: None,
                dead: false,
                rate: 0,
                bursts: BTreeMap::new(),
                open: BTreeMap::new(),
            }),
            began: Instant::now(),
            news: Notify::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// A number in the range.
    pub fn draw<T: SampleUniform, R: SampleRange<T>>(&self, range: R) -> T {
        self.inner().dice.random_range(range)
    }

    /// True that often in a hundred.
    pub fn chance(&self, percent: u32) -> bool {
        self.draw(0..100) < percent
    }

    /// A time in the range, of milliseconds.
    pub fn time(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    /// Write down what happened.
    pub fn note(&self, stage: &str, what: Arguments<'_>) {
        let at = self.began.elapsed().as_millis();
        let mut inner = self.inner();
        // Writing to a string can't fail.
        let _ = writeln!(inner.book, "{at:>7} {stage:<10} {what}");
    }

    /// Everything that happened, a line each.
    pub fn book(&self) -> String {
        self.inner().book.clone()
    }

    /// An invariant is broken. The first time counts.
    pub fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.note("WRONG", format_args!("{what}"));
        self.inner().wrong.get_or_insert(what);
        self.news.notify_one();
    }

    pub fn is_wrong(&self) -> Option<String> {
        self.inner().wrong.clone()
    }

    pub fn points(&self) -> u64 {
        self.inner().points
    }

    /// A moment at which the process may die. When it has, nothing that comes here ever returns.
    async fn point(&self) {
        let (dead, points) = {
            let mut inner = self.inner();
            inner.points += 1;
            if inner.fatal == Some(inner.points) {
                inner.dead = true;
                self.news.notify_one();
            }
            (inner.dead, inner.points)
        };
        if points == POINTS {
            self.wrong("it goes round in circles");
        }
        if dead || points >= POINTS {
            pending::<()>().await;
        }
    }

    /// The process dies at that many moments from here, if it is not brought to an end before.
    pub fn die_in(&self, points: u64) {
        let mut inner = self.inner();
        inner.fatal = Some(inner.points + points);
    }

    pub fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// There is a new process.
    pub fn live(&self) {
        let mut inner = self.inner();
        inner.fatal = None;
        inner.dead = false;
    }

    /// That much time, or less if there is something to look at.
    pub async fn sleep(&self, time: Duration) {
        tokio::select! {
            biased;
            () = self.news.notified() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// A moment, and then nothing, or a turn for others, or a little time.
    pub async fn pause(&self) {
        self.point().await;
        match self.draw(0..10) {
            0..4 => {}
            turns @ 4..8 => {
                for _ in 3..turns {
                    tokio::task::yield_now().await;
                }
            }
            _ => tokio::time::sleep(self.time(1..40)).await,
        }
    }

    /// How many calls in a thousand have a fault.
    pub fn faults(&self, rate: u32) {
        self.inner().rate = rate;
    }

    /// The next calls have this fault.
    pub fn burst(&self, stage: &str, call: &'static str, fault: Fault, times: u32) {
        self.inner().bursts.insert((stage.to_owned(), call), (fault, times));
    }

    /// No more faults.
    pub fn calm(&self) {
        let mut inner = self.inner();
        inner.rate = 0;
        inner.bursts.clear();
    }

    pub fn draw_fault(&self) -> Fault {
        match self.draw(0..20) {
            0..9 => Fault::Retryable,
            9..13 => Fault::Failed,
            13..16 => Fault::Panic,
            16..19 => Fault::Slow(self.time(20..3000)),
            _ => Fault::Slow(self.time(3000..16_000)),
        }
    }

    /// The fault of this call, if it has one.
    pub fn fault(&self, stage: &str, call: &'static str) -> Option<Fault> {
        let burst = {
            let mut inner = self.inner();
            let key = (stage.to_owned(), call);
            let burst = inner.bursts.get(&key).copied();
            match burst {
                Some((_, 0 | 1)) => drop(inner.bursts.remove(&key)),
                Some((fault, left)) => drop(inner.bursts.insert(key, (fault, left - 1))),
                None => {}
            }
            burst
        };
        let rate = self.inner().rate;
        match burst {
            Some((fault, _)) => Some(fault),
            None if rate > 0 && self.draw(0..1000) < rate => Some(self.draw_fault()),
            None => None,
        }
    }

    /// A call of a connector, a transform or the store begins. What comes back is for its end, if it does its work.
    pub async fn enter(&self, stage: &str, call: &'static str) -> Result<Leave, ConnectorError> {
        self.pause().await;
        match self.fault(stage, call) {
            None => Ok(Leave(None)),
            // It is done, and the caller does not know.
            Some(fault) if self.chance(30) => Ok(Leave(Some(fault))),
            Some(fault) => {
                self.note(stage, format_args!("{call}: {fault:?}"));
                strike(fault, stage, call).await?;
                self.point().await;
                Ok(Leave(None))
            }
        }
    }

    /// The call has done its work.
    pub async fn leave(&self, stage: &str, call: &'static str, leave: Leave) -> Result<(), ConnectorError> {
        self.pause().await;
        if let Some(fault) = leave.0 {
            self.note(stage, format_args!("{call}: {fault:?}, after it was done"));
            strike(fault, stage, call).await?;
            self.point().await;
        }
        Ok(())
    }

    /// What is open, and how many of it.
    pub fn open(&self) -> BTreeMap<String, u32> {
        self.inner().open.clone()
    }
}

/// How a call will end.
#[must_use]
pub struct Leave(Option<Fault>);

impl Leave {
    /// Whether the caller will ask again.
    pub fn again(&self) -> bool {
        self.0 == Some(Fault::Retryable)
    }
}

async fn strike(fault: Fault, stage: &str, call: &str) -> Result<(), ConnectorError> {
    match fault {
        Fault::Retryable => Err(ConnectorError::retryable(format!("{call} of {stage} does not work now"))),
        Fault::Failed => Err(ConnectorError::failed(format!("{call} of {stage} is broken"))),
        // Not `panic!`, which would write thousands of messages.
        Fault::Panic => resume_unwind(Box::new(format!("{call} of {stage} panics"))),
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
    }
}

/// Held by whatever is open.
pub struct Open(Arc<World>, String);

impl Open {
    pub fn new(world: &Arc<World>, stage: &str) -> Self {
        *world.inner().open.entry(stage.to_owned()).or_default() += 1;
        Open(world.clone(), stage.to_owned())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        let left = inner.open.get(&self.1).map_or(0, |count| count - 1);
        match left {
            0 => drop(inner.open.remove(&self.1)),
            left => drop(inner.open.insert(self.1.clone(), left)),
        }
    }
}
