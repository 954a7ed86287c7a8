//! One pipeline and its outside world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{BatchLimits, Span};
use tempfile::TempDir;

use super::sink::TableSpec;
use super::source::NumbersSpec;
use super::transform::StageFactory;
use super::{Numbers, Probe, Stage, Table, Work, until, within};
use crate::config::model::{DeliveryConfig, OnError, SinkStage, SourceStage};
use crate::pipeline::status::{Counts, PipelineStatus, State};
use crate::pipeline::{Pipeline, Setup, TransformFactory};
use crate::state::{Checkpoint, Store};

/// The checkpoint interval of every rig.
pub const TICK: Duration = Duration::from_secs(1);

/// A pipeline's setup in parts that the test can get at, and what outlives a crash. A clone is the same world: make it,
/// change a part, and it is the next configuration.
#[derive(Clone)]
pub struct Rig {
    pub name: String,
    pub store: Store,
    pub probe: Arc<Probe>,
    pub source: Arc<Numbers>,
    pub transforms: Vec<Arc<Stage>>,
    pub sinks: Vec<Arc<Table>>,
    pub letters: Option<Arc<Table>>,
    pub on_error: OnError,
    pub interval: Duration,
    /// The same stages from the first row to the last: their counts must follow from each other.
    pub fixed: bool,
    pub status: Arc<PipelineStatus>,
    pub dir: Arc<TempDir>,
}

impl Rig {
    /// `rows` numbers in batches of `batch` to one table, without transforms; failed rows go to a table of their own.
    pub fn new(rows: u64, batch: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Rig::in_world(store, Arc::new(dir), "p", rows, batch)
    }

    /// Another pipeline with the same store.
    pub fn beside(&self, name: &str, rows: u64, batch: u64) -> Self {
        Rig::in_world(self.store.clone(), self.dir.clone(), name, rows, batch)
    }

    fn in_world(store: Store, dir: Arc<TempDir>, name: &str, rows: u64, batch: u64) -> Self {
        let probe = Arc::new(Probe::default());
        Rig {
            name: name.to_owned(),
            store,
            source: Arc::new(Numbers::new(Some(rows), batch, probe.clone())),
            transforms: Vec::new(),
            sinks: vec![Arc::new(Table::new("out", probe.clone()))],
            letters: Some(Arc::new(Table::new("letters", probe.clone()))),
            on_error: OnError::DeadLetter,
            interval: TICK,
            fixed: true,
            status: Arc::new(PipelineStatus::new(name)),
            probe,
            dir,
        }
    }

    /// Change the source, which nothing else uses yet.
    pub fn source(mut self, change: impl FnOnce(&mut Numbers)) -> Self {
        change(Arc::get_mut(&mut self.source).unwrap());
        self
    }

    /// One batch every `pace`, without end.
    pub fn endless(self, pace: Duration) -> Self {
        self.source(|source| {
            source.rows = None;
            source.pace = Some(pace);
        })
    }

    /// Add a transform.
    pub fn with(mut self, id: &str, work: Work) -> Self {
        self.transforms.push(Arc::new(Stage::new(id, work, self.probe.clone())));
        self
    }

    /// Change the first sink, which nothing else uses yet.
    pub fn sink(mut self, change: impl FnOnce(&mut Table)) -> Self {
        change(Arc::get_mut(&mut self.sinks[0]).unwrap());
        self
    }

    /// Change the dead letters' sink, which nothing else uses yet.
    pub fn letters(mut self, change: impl FnOnce(&mut Table)) -> Self {
        change(self.letters.as_mut().and_then(Arc::get_mut).unwrap());
        self
    }

    /// Add a sink.
    pub fn and_sink(self, id: &str) -> Self {
        self.and_sink_that(id, |_| {})
    }

    /// Add a sink that is not like the others.
    pub fn and_sink_that(mut self, id: &str, change: impl FnOnce(&mut Table)) -> Self {
        let mut table = Table::new(id, self.probe.clone());
        change(&mut table);
        self.sinks.push(Arc::new(table));
        self
    }

    /// Choose what happens to failed rows.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        if on_error != OnError::DeadLetter {
            self.letters = None;
        }
        self
    }

    pub fn out(&self) -> &Table {
        &self.sinks[0]
    }

    pub fn dead(&self) -> &Table {
        self.letters.as_ref().unwrap()
    }

    pub fn setup(&self) -> Arc<Setup> {
        let stage = |table: &Arc<Table>| SinkStage {
            id: table.id.clone(),
            spec: Arc::new(TableSpec(table.clone())),
            place: 0..0,
            hash: String::new(),
        };
        Arc::new(Setup {
            name: self.name.clone(),
            base: self.dir.path().to_owned(),
            hash: String::new(),
            source: SourceStage { spec: Arc::new(NumbersSpec(self.source.clone())), place: 0..0, hash: String::new() },
            projection: None,
            transforms: self
                .transforms
                .iter()
                .map(|stage| Arc::new(StageFactory(stage.clone())) as Arc<dyn TransformFactory>)
                .collect(),
            sinks: self.sinks.iter().map(stage).collect(),
            on_error: self.on_error,
            dead_letter: self.letters.as_ref().map(stage),
            delivery: DeliveryConfig {
                checkpoint_interval: Span(self.interval),
                batch: BatchLimits::default(),
                in_flight: 2,
                ..DeliveryConfig::default()
            },
            share: Default::default(),
        })
    }

    pub fn start(&self) -> Pipeline {
        Pipeline::start(self.setup(), self.store.clone(), self.status.clone())
    }

    pub fn state(&self) -> State {
        self.status.facts().state
    }

    pub async fn reaches(&self, state: State) {
        until(&format!("state {}", state.name()), || self.state() == state).await;
    }

    pub async fn delivers(&self, rows: usize) {
        until(&format!("{rows} rows in {}", self.out().id), || self.out().len() >= rows).await;
    }

    /// How many checkpoints there have been.
    pub fn checkpoint(&self) -> u64 {
        self.status.facts().checkpoint.number
    }

    pub async fn next_checkpoints(&self, more: u64) {
        let before = self.checkpoint();
        until("a checkpoint", || self.checkpoint() >= before + more).await;
    }

    /// Start it, wait until it has completed, stop it.
    pub async fn run_to_the_end(&self) {
        // It may have completed before.
        self.status.enter(State::Starting);
        let pipeline = self.start();
        self.reaches(State::Completed).await;
        self.stop(pipeline).await;
    }

    /// Stop it, which must not take long.
    pub async fn stop(&self, pipeline: Pipeline) {
        within(Duration::from_secs(10), "stopping", pipeline.stop()).await;
        self.check_counts().await;
    }

    /// The process dies: whatever runs never runs again, and the targets keep what a crash leaves of them.
    pub async fn crash(&self, pipeline: Pipeline) {
        pipeline.task.abort();
        assert!(pipeline.task.await.unwrap_err().is_cancelled());
        // The stages were ended with it; they are dropped when the runtime comes to them.
        until("the end of every stage", || self.probe.alive() == 0).await;
        for table in self.sinks.iter().chain(&self.letters) {
            table.crash();
        }
        self.probe.live();
        self.check_counts().await;
    }

    pub async fn stored(&self) -> Option<Checkpoint> {
        self.store.load(&self.name).await.unwrap()
    }

    /// Where the last stored checkpoint says that the source stands.
    pub async fn stored_position(&self) -> u64 {
        self.stored().await.and_then(|checkpoint| checkpoint.position.as_single()?.as_u64()).unwrap_or(0)
    }

    /// Invariant 3 in the last stored checkpoint: every stage's own balance; with rows that only flow, also from one
    /// stage to the next, the position, and that every dead row is a letter.
    pub async fn check_counts(&self) {
        let Some(checkpoint) = self.stored().await else { return };
        let counts = &checkpoint.counts;
        for (stage, counts) in counts {
            assert_balance(stage, *counts);
        }
        if !self.fixed {
            return;
        }
        let of = |id: &str| counts.get(id).copied().unwrap_or_default();
        assert_eq!(checkpoint.position.as_single().unwrap().as_u64(), Some(of("source").rows_in), "{counts:?}");
        let mut flow = of("source").rows_out;
        for stage in &self.transforms {
            assert_eq!(of(&stage.id).rows_in, flow, "into {}: {counts:?}", stage.id);
            flow = of(&stage.id).rows_out;
        }
        for sink in &self.sinks {
            assert_eq!(of(&sink.id).rows_in, flow, "into {}: {counts:?}", sink.id);
        }
        if let Some(letters) = &self.letters {
            let dead: u64 = dead_of(counts, &letters.id);
            assert_eq!(of(&letters.id).rows_out, dead, "letters at a checkpoint: {counts:?}");
        }
    }
}

pub fn assert_balance(stage: &str, counts: Counts) {
    assert_eq!(counts.rows_in + counts.added, counts.rows_out + counts.dropped + counts.dead, "{stage}: {counts:?}");
}

fn dead_of(counts: &BTreeMap<String, Counts>, letters: &str) -> u64 {
    counts.iter().filter(|(id, _)| id.as_str() != letters).map(|(_, counts)| counts.dead).sum()
}
