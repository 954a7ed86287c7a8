//! Transforms that need no plugin.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{Batch, ColumnType, FailedRow, Field, Origin, RowSchema};
use arrow_array::UInt32Array;
use async_trait::async_trait;

use super::{Alive, Faults, Gate, Probe, ints, lock, rows_of};
use crate::pipeline::TransformFactory;
use crate::pipeline::transform::{Applied, Transform, TransformError};

/// What a transform does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Adds the columns `sum`, of all values so far, and `seen`, how many those are; that is its state.
    Sum,
    /// Keeps even values.
    Even,
    /// Gives every row twice.
    Twice,
    /// These values are failed rows.
    Fail(fn(i64) -> bool),
    /// Traps on that value, as often as [`Stage::traps`] says. With `lost` its state is lost by it; once careful, only the
    /// row fails.
    Trap { at: i64, lost: bool },
    /// Passes rows on, and makes one of its own every so often: its value is -1 less the number of ticks before.
    Tick(Duration),
    /// Passes rows on; a snapshot takes so long.
    SlowSnapshot(Duration),
}

/// A transform as a configuration.
#[derive(Debug)]
pub struct Stage {
    pub id: String,
    pub work: Work,
    pub starts: Faults,
    pub start_gate: Gate,
    pub apply_gate: Gate,
    pub snapshots: Faults,
    pub traps: AtomicU32,
    pub probe: Arc<Probe>,
    /// What `set_careful` said.
    pub careful: Mutex<Vec<bool>>,
    /// How often it was started.
    pub started: AtomicU32,
}

impl Stage {
    pub fn new(id: &str, work: Work, probe: Arc<Probe>) -> Self {
        Stage {
            id: id.to_owned(),
            work,
            starts: Faults::default(),
            start_gate: Gate::default(),
            apply_gate: Gate::default(),
            snapshots: Faults::default(),
            traps: AtomicU32::new(0),
            probe,
            careful: Mutex::default(),
            started: AtomicU32::new(0),
        }
    }
}

/// [`Stage`] as the engine wants it.
pub(super) struct StageFactory(pub(super) Arc<Stage>);

#[async_trait]
impl TransformFactory for StageFactory {
    fn id(&self) -> &str {
        &self.0.id
    }

    async fn start(&self, input: &RowSchema, snapshot: Option<&[u8]>) -> Result<Box<dyn Transform>, TransformError> {
        let stage = &self.0;
        stage.probe.point().await;
        stage.start_gate.pass().await;
        let failed = |error: acequia_connector_api::ConnectorError| error_of(error.to_string(), false);
        stage.starts.strike(&format!("starting {}", stage.id)).await.map_err(failed)?;
        stage.started.fetch_add(1, Ordering::SeqCst);
        let mut schema = input.clone();
        if let Work::Sum = stage.work {
            schema.fields.push(Field::new("sum", ColumnType::Int64, false));
            schema.fields.push(Field::new("seen", ColumnType::Int64, false));
        }
        let [sum, seen] = match snapshot {
            Some(bytes) => [0, 8].map(|at| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())),
            None => [0, 0],
        };
        Ok(Box::new(Running {
            _alive: Alive::new(&stage.probe),
            stage: stage.clone(),
            schema,
            sum,
            seen,
            careful: false,
        }))
    }
}

struct Running {
    _alive: Alive,
    stage: Arc<Stage>,
    schema: RowSchema,
    sum: i64,
    seen: i64,
    careful: bool,
}

fn error_of(message: String, state_lost: bool) -> TransformError {
    TransformError { message, state_lost }
}

/// The rows of the batch that are picked, in that order.
fn pick(batch: &Batch, rows: &[usize]) -> Batch {
    let rows: Vec<u32> = rows.iter().map(|row| u32::try_from(*row).unwrap()).collect();
    let picked = arrow_select::take::take_record_batch(&batch.rows, &UInt32Array::from(rows.clone())).unwrap();
    Batch::new(picked, Origin::Picked { base: Box::new(batch.origin.clone()), rows: rows.into() })
}

/// All rows but those that fail.
fn without(batch: &Batch, fails: impl Fn(i64) -> bool) -> Applied {
    let values = ints(&batch.rows, "value");
    let (failing, good): (Vec<usize>, Vec<usize>) = (0..values.len()).partition(|row| fails(values[*row]));
    let failed: Vec<FailedRow> = failing.into_iter().map(|row| batch.fail(row, "it is not liked")).collect();
    let mut batch = pick(batch, &good);
    batch.failed = failed;
    Applied { batch, dropped: 0, added: 0 }
}

impl Running {
    fn sum(&mut self, batch: &Batch) -> Batch {
        let values = ints(&batch.rows, "value");
        let (mut sums, mut seen) = (Vec::new(), Vec::new());
        for value in &values {
            self.sum += value;
            self.seen += 1;
            sums.push(self.sum);
            seen.push(self.seen);
        }
        Batch::new(rows_of(&[("value", values), ("sum", sums), ("seen", seen)]), batch.origin.clone())
    }

    fn trap(&mut self, batch: Batch, at: i64, lost: bool) -> Result<Applied, TransformError> {
        let traps = &self.stage.traps;
        let met = ints(&batch.rows, "value").contains(&at);
        if !met || traps.load(Ordering::SeqCst) == 0 {
            return Ok(Applied { batch, dropped: 0, added: 0 });
        }
        if lost && self.careful {
            return Ok(without(&batch, |value| value == at));
        }
        traps.fetch_sub(1, Ordering::SeqCst);
        Err(error_of(format!("trap on value {at}"), lost))
    }
}

#[async_trait]
impl Transform for Running {
    async fn apply(&mut self, batch: Batch) -> Result<Applied, TransformError> {
        self.stage.probe.point().await;
        self.stage.apply_gate.pass().await;
        let applied = match self.stage.work {
            Work::Sum => Applied { batch: self.sum(&batch), dropped: 0, added: 0 },
            Work::Even => {
                let values = ints(&batch.rows, "value");
                let even: Vec<usize> = (0..values.len()).filter(|row| values[*row] % 2 == 0).collect();
                Applied { dropped: (values.len() - even.len()) as u64, batch: pick(&batch, &even), added: 0 }
            }
            Work::Twice => {
                let rows: Vec<usize> = (0..batch.len()).flat_map(|row| [row, row]).collect();
                Applied { added: batch.len() as u64, batch: pick(&batch, &rows), dropped: 0 }
            }
            Work::Fail(fails) => without(&batch, fails),
            Work::Trap { at, lost } => self.trap(batch, at, lost)?,
            Work::Tick(_) | Work::SlowSnapshot(_) => Applied { batch, dropped: 0, added: 0 },
        };
        self.stage.probe.point().await;
        Ok(applied)
    }

    fn is_stateful(&self) -> bool {
        matches!(self.stage.work, Work::Sum | Work::Tick(_) | Work::SlowSnapshot(_))
    }

    async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TransformError> {
        self.stage.probe.point().await;
        if let Work::SlowSnapshot(long) = self.stage.work {
            tokio::time::sleep(long).await;
        }
        let struck = self.stage.snapshots.strike(&format!("snapshot of {}", self.stage.id)).await;
        if let Err(error) = struck {
            (self.sum, self.seen) = (0, 0);
            return Err(error_of(error.to_string(), true));
        }
        Ok(self.is_stateful().then(|| [self.sum.to_le_bytes(), self.seen.to_le_bytes()].concat()))
    }

    fn tick_every(&self) -> Option<Duration> {
        match self.stage.work {
            Work::Tick(every) => Some(every),
            _ => None,
        }
    }

    async fn tick(&mut self, _: i64) -> Result<Applied, TransformError> {
        self.stage.probe.point().await;
        self.stage.apply_gate.pass().await;
        self.seen += 1;
        let batch = Batch::new(rows_of(&[("value", vec![-self.seen])]), Origin::Unknown);
        Ok(Applied { batch, dropped: 0, added: 1 })
    }

    fn schema(&self) -> &RowSchema {
        &self.schema
    }

    fn set_careful(&mut self, careful: bool) {
        self.careful = careful;
        lock(&self.stage.careful).push(careful);
    }

    fn replaced(&self) -> u64 {
        0
    }
}
