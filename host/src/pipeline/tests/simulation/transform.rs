//! Transforms whose sense is written down once, for the engine and for the model that it is held against.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acequia_connector_api::{Batch, FailedRow, Origin, RowSchema, Segment};
use async_trait::async_trait;

use super::super::memory::{ints, rows_of};
use super::world::{Open, World};
use crate::pipeline::TransformFactory;
use crate::pipeline::transform::{Applied, Transform, TransformError};

/// A row: `value` and `sum`.
pub type Row = (i64, i64);

/// The first transform of every chain: it writes down what passes it, and that is its state.
pub const JOURNAL: &str = "journal";
/// In the journal: a chain was started; the number of its version is subtracted.
const START: i64 = -1_000_000_000;
/// The first value of rows that a transform makes.
pub const FRESH: i64 = 1_000_000;

/// What a transform does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Sums `value` up in `sum`; that is its state.
    Sum,
    /// Keeps even values.
    Even,
    /// Gives every row twice.
    Twice,
    /// Some values are failed rows.
    Fail,
    /// Adds a row of its own after every fifth; how many it has seen is its state.
    Fresh,
}

impl Work {
    pub const ALL: [Work; 5] = [Work::Sum, Work::Even, Work::Twice, Work::Fail, Work::Fresh];

    pub fn id(self) -> &'static str {
        match self {
            Work::Sum => "sum",
            Work::Even => "even",
            Work::Twice => "twice",
            Work::Fail => "fail",
            Work::Fresh => "fresh",
        }
    }

    pub fn is_stateful(self) -> bool {
        matches!(self, Work::Sum | Work::Fresh)
    }

    /// What becomes of a row; `None` if it fails.
    pub fn row(self, state: &mut i64, (value, sum): Row) -> Option<Vec<Row>> {
        Some(match self {
            Work::Sum => {
                *state += value;
                vec![(value, *state)]
            }
            Work::Even if value % 2 == 0 => vec![(value, sum)],
            Work::Even => Vec::new(),
            Work::Twice => vec![(value, sum); 2],
            Work::Fail if value.rem_euclid(7) == 3 => return None,
            Work::Fail => vec![(value, sum)],
            Work::Fresh => {
                *state += 1;
                let own = (*state % 5 == 0).then_some((FRESH + *state, *state));
                [(value, sum)].into_iter().chain(own).collect()
            }
        })
    }
}

/// The transforms of one configuration.
#[derive(Clone, Debug)]
pub struct Version {
    pub works: Vec<Work>,
    /// How often the journal adds a row of its own.
    pub ticks: Option<Duration>,
    /// Its last transform does not start.
    pub broken: Arc<AtomicBool>,
}

/// An entry of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A chain of that version was started.
    Start(usize),
    /// A row of the source.
    Row(u64),
    /// A row of the journal's own.
    Tick(i64),
}

/// What a snapshot of the journal says.
pub fn journal(snapshot: &[u8]) -> Vec<Entry> {
    let entry = |number: i64| match u64::try_from(number) {
        Ok(row) => Entry::Row(row),
        Err(_) if number <= START => Entry::Start(usize::try_from(START - number).unwrap()),
        Err(_) => Entry::Tick(number),
    };
    numbers(snapshot).into_iter().map(entry).collect()
}

/// What a snapshot holds.
pub fn numbers(snapshot: &[u8]) -> Vec<i64> {
    snapshot.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Rows as a batch; each says that it came from where its value says.
pub fn to_batch(rows: &[Row]) -> Batch {
    let segment = |(start, (value, _)): (usize, &Row)| Segment { start, partition: "rows".into(), first: *value };
    let (values, sums) = rows.iter().copied().unzip();
    Batch::new(
        rows_of(&[("value", values), ("sum", sums)]),
        Origin::Segments(rows.iter().enumerate().map(segment).collect()),
    )
}

/// The rows of a batch.
pub fn from_batch(batch: &Batch) -> Vec<Row> {
    ints(&batch.rows, "value").into_iter().zip(ints(&batch.rows, "sum")).collect()
}

/// A transform as a configuration.
pub struct Stage {
    pub world: Arc<World>,
    pub number: usize,
    pub version: Version,
    /// Which of the works it is; `None`: the journal.
    pub work: Option<Work>,
}

/// The chain of a version.
pub fn chain(world: &Arc<World>, number: usize, version: &Version) -> Vec<Arc<dyn TransformFactory>> {
    let works = [None].into_iter().chain(version.works.iter().copied().map(Some));
    let stage = |work| Stage { world: world.clone(), number, version: version.clone(), work };
    works.map(|work| Arc::new(stage(work)) as Arc<dyn TransformFactory>).collect()
}

#[async_trait]
impl TransformFactory for Stage {
    fn id(&self) -> &str {
        self.work.map_or(JOURNAL, Work::id)
    }

    async fn start(&self, input: &RowSchema, snapshot: Option<&[u8]>) -> Result<Box<dyn Transform>, TransformError> {
        let (world, id) = (&self.world, self.id());
        let failed = |error: acequia_connector_api::ConnectorError| lost(&error, false);
        let leave = world.enter(id, "start").await.map_err(failed)?;
        let last = self.work == self.version.works.last().copied();
        if self.version.broken.load(Ordering::Relaxed) && last {
            world.note(id, format_args!("does not start in version {}", self.number));
            return Err(TransformError { message: "it is broken".to_owned(), state_lost: false });
        }
        let mut state = snapshot.map(numbers).unwrap_or_default();
        world.note(id, format_args!("starts in version {} from {} numbers", self.number, state.len()));
        if self.work.is_none() {
            let start = START - i64::try_from(self.number).unwrap();
            if state.last() != Some(&start) {
                state.push(start);
            }
        } else {
            state.resize(1, 0);
        }
        let open = Open::new(world, id);
        world.leave(id, "start", leave).await.map_err(failed)?;
        Ok(Box::new(Running {
            _open: open,
            world: world.clone(),
            id: id.to_owned(),
            work: self.work,
            ticks: self.version.ticks,
            schema: input.clone(),
            state,
        }))
    }
}

fn lost(error: &acequia_connector_api::ConnectorError, state_lost: bool) -> TransformError {
    TransformError { message: error.to_string(), state_lost }
}

struct Running {
    _open: Open,
    world: Arc<World>,
    id: String,
    work: Option<Work>,
    ticks: Option<Duration>,
    schema: RowSchema,
    state: Vec<i64>,
}

impl Running {
    fn work(&mut self, batch: &Batch) -> Applied {
        let rows = from_batch(batch);
        let Some(work) = self.work else {
            self.state.extend(rows.iter().map(|(value, _)| value));
            return Applied { batch: to_batch(&rows), dropped: 0, added: 0 };
        };
        let (mut out, mut failed) = (Vec::new(), Vec::<FailedRow>::new());
        let (mut dropped, mut added) = (0, 0);
        for (index, row) in rows.into_iter().enumerate() {
            match work.row(&mut self.state[0], row) {
                None => failed.push(batch.fail(index, "it is not liked")),
                Some(made) => {
                    dropped += u64::from(made.is_empty());
                    added += (made.len() as u64).saturating_sub(1);
                    out.extend(made);
                }
            }
        }
        let batch = Batch { failed, ..to_batch(&out) };
        Applied { batch, dropped, added }
    }
}

#[async_trait]
impl Transform for Running {
    async fn apply(&mut self, batch: Batch) -> Result<Applied, TransformError> {
        let world = self.world.clone();
        let lose = world.chance(50);
        let leave = world.enter(&self.id, "apply").await.map_err(|error| lost(&error, lose))?;
        let applied = self.work(&batch);
        world.leave(&self.id, "apply", leave).await.map_err(|error| lost(&error, lose))?;
        Ok(applied)
    }

    fn is_stateful(&self) -> bool {
        self.work.is_none_or(Work::is_stateful)
    }

    async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TransformError> {
        let leave = self.world.enter(&self.id, "snapshot").await.map_err(|error| lost(&error, true))?;
        let snapshot = self.state.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.world.leave(&self.id, "snapshot", leave).await.map_err(|error| lost(&error, true))?;
        Ok(self.is_stateful().then_some(snapshot))
    }

    fn tick_every(&self) -> Option<Duration> {
        self.ticks.filter(|_| self.work.is_none())
    }

    async fn tick(&mut self, _: i64) -> Result<Applied, TransformError> {
        let leave = self.world.enter(&self.id, "tick").await.map_err(|error| lost(&error, true))?;
        let before = self.state.iter().filter(|number| (START + 1..0).contains(*number)).count();
        let own = -1 - i64::try_from(before).unwrap();
        self.state.push(own);
        self.world.note(&self.id, format_args!("ticks: {own}"));
        self.world.leave(&self.id, "tick", leave).await.map_err(|error| lost(&error, true))?;
        Ok(Applied { batch: to_batch(&[(own, 0)]), dropped: 0, added: 1 })
    }

    fn schema(&self) -> &RowSchema {
        &self.schema
    }

    fn set_careful(&mut self, careful: bool) {
        if careful {
            self.world.note(&self.id, format_args!("is to be careful"));
        }
    }

    fn replaced(&self) -> u64 {
        0
    }
}
