//! What is run: a pipeline drawn from the seed, and the world that it lives in.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{BatchLimits, Span};

use super::super::memory::lock;
use super::disk::{NAME, Stored};
use super::sink::{Kind, Table, TableSpec};
use super::source::{Script, ScriptSpec};
use super::transform::{Version, Work, chain};
use super::world::World;
use crate::config::model::{DeliveryConfig, OnError, SinkStage, SourceStage};
use crate::pipeline::Setup;
use crate::state::simulated::Disk;

/// What can be told to the pipeline, and changes in the schedule.
struct Choices {
    versions: Vec<Version>,
    /// The versions that were refused.
    rejected: BTreeSet<usize>,
    on_error: OnError,
    in_flight: usize,
    interval: Duration,
}

/// The pipeline and everything around it that outlives its process.
pub struct Scene {
    pub world: Arc<World>,
    pub disk: Disk,
    pub stored: Arc<Stored>,
    pub script: Arc<Script>,
    pub tables: Vec<Arc<Table>>,
    pub letters: Option<Arc<Table>>,
    choices: Mutex<Choices>,
}

impl Scene {
    /// Drawn from the world's dice.
    pub fn draw(world: &Arc<World>) -> Arc<Self> {
        let on_error = match world.draw(0..10) {
            0 => OnError::Stop,
            1..3 => OnError::Skip,
            _ => OnError::DeadLetter,
        };
        let mut kinds: Vec<Kind> = (0..world.draw(1..=3)).map(|_| [Kind::Plain, Kind::Cut][world.draw(0..2)]).collect();
        if world.chance(50) {
            let place = world.draw(0..kinds.len());
            kinds[place] = Kind::TwoPhase;
        }
        let stored = Arc::new(Stored::new(kinds.contains(&Kind::TwoPhase)));
        let table = |id: String, kind, refuses, refuses_late| {
            Arc::new(Table {
                world: world.clone(),
                stored: stored.clone(),
                id,
                kind,
                refuses,
                refuses_late,
                contents: Mutex::default(),
            })
        };
        let some = |percent, number: u32| if world.chance(percent) { number } else { 0 };
        let ids = ["one", "two", "three"];
        let tables = kinds
            .into_iter()
            .zip(ids)
            .map(|(kind, id)| table(id.to_owned(), kind, some(25, 9).into(), some(25, 13).into()));
        let tables = tables.collect();
        let letters = (on_error == OnError::DeadLetter)
            .then(|| table("letters".to_owned(), [Kind::Plain, Kind::Cut][world.draw(0..2)], 0, 0));
        let script = Script {
            world: world.clone(),
            stored: stored.clone(),
            rows: world.chance(75).then(|| world.draw(20..60)),
            batch: world.draw(1..=6),
            pace: [0, 60, 300][world.draw(0..3)],
            bad: some(40, 8).into(),
            wants: some(30, 6),
            held: some(20, 2),
            state: Mutex::default(),
        };
        let choices = Choices {
            versions: vec![draw_version(world, false)],
            rejected: BTreeSet::new(),
            on_error,
            in_flight: world.draw(1..=4),
            interval: world.time(50..2000),
        };
        Arc::new(Scene {
            world: world.clone(),
            disk: Disk::new(),
            stored,
            script: Arc::new(script),
            tables,
            letters,
            choices: Mutex::new(choices),
        })
    }

    /// A configuration that has not been before; its number.
    pub fn draw_version(&self, broken: bool) -> usize {
        let version = draw_version(&self.world, broken);
        let mut choices = lock(&self.choices);
        choices.versions.push(version);
        choices.versions.len() - 1
    }

    pub fn versions(&self) -> Vec<Version> {
        lock(&self.choices).versions.clone()
    }

    /// The version was refused: it must never be seen to run.
    pub fn reject(&self, version: usize) {
        lock(&self.choices).rejected.insert(version);
    }

    pub fn is_rejected(&self, version: usize) -> bool {
        lock(&self.choices).rejected.contains(&version)
    }

    /// What was broken is mended.
    pub fn mend(&self, version: usize) {
        lock(&self.choices).versions[version].broken.store(false, Ordering::Relaxed);
    }

    pub fn on_error(&self) -> OnError {
        lock(&self.choices).on_error
    }

    /// Rows that fail do not stop it any more.
    pub fn skip(&self) {
        lock(&self.choices).on_error = OnError::Skip;
    }

    /// Something that is no transform is to be different.
    pub fn change(&self) {
        let (in_flight, interval) = (self.world.draw(1..=4), self.world.time(50..2000));
        let mut choices = lock(&self.choices);
        choices.in_flight = in_flight;
        choices.interval = interval;
    }

    /// The configuration with this version of the transforms.
    pub fn setup(&self, version: usize) -> Arc<Setup> {
        let stage = |table: &Arc<Table>| SinkStage {
            id: table.id.clone(),
            spec: Arc::new(TableSpec(table.clone())),
            place: 0..0,
            hash: String::new(),
        };
        let choices = lock(&self.choices);
        Arc::new(Setup {
            name: NAME.to_owned(),
            base: PathBuf::new(),
            hash: String::new(),
            source: SourceStage { spec: Arc::new(ScriptSpec(self.script.clone())), place: 0..0, hash: String::new() },
            projection: None,
            transforms: chain(&self.world, version, &choices.versions[version]),
            sinks: self.tables.iter().map(stage).collect(),
            on_error: choices.on_error,
            dead_letter: self.letters.as_ref().map(stage),
            delivery: DeliveryConfig {
                checkpoint_interval: Span(choices.interval),
                batch: BatchLimits::default(),
                in_flight: choices.in_flight,
                ..DeliveryConfig::default()
            },
            share: Default::default(),
        })
    }

    /// One line.
    pub fn describe(&self) -> String {
        let tables: Vec<String> = self
            .tables
            .iter()
            .chain(&self.letters)
            .map(|table| format!("{} {:?} (refuses {}, {})", table.id, table.kind, table.refuses, table.refuses_late))
            .collect();
        let script = &self.script;
        let choices = lock(&self.choices);
        format!(
            "rows {:?} in batches to {} each {} ms, bad {}, wants {}, held {}; sinks {}; on_error {:?}, in_flight {}, \
             interval {:?}, {:?}",
            script.rows,
            script.batch,
            script.pace,
            script.bad,
            script.wants,
            script.held,
            tables.join(", "),
            choices.on_error,
            choices.in_flight,
            choices.interval,
            choices.versions,
        )
    }
}

/// Some transforms, in some order.
fn draw_version(world: &World, broken: bool) -> Version {
    let mut works = Vec::new();
    for work in Work::ALL {
        if world.chance(if work == Work::Sum { 70 } else { 30 }) {
            works.insert(world.draw(0..=works.len()), work);
        }
    }
    let ticks = world.chance(20).then(|| world.time(100..900));
    Version { works, ticks, broken: Arc::new(broken.into()) }
}
