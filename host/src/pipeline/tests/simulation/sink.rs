//! Sinks of three kinds: at least once, effectively once and exactly once.

use std::sync::{Arc, Mutex, MutexGuard};

use acequia_connector_api::{Batch, CheckError, ConnectorError, Context, FailedRow, Flushed, Handoff, Sink, SinkSpec};
use arrow_array::cast::AsArray;
use async_trait::async_trait;
use serde_json::Value;

use super::super::memory::{ints, lock};
use super::disk::Stored;
use super::transform::{Row, from_batch};
use super::world::{Open, World};

/// What a target does about rows that come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing; and what was not flushed may be gone when the process or the connection is.
    Plain,
    /// Its length is in the checkpoint, and it is cut back to it when it is opened.
    Cut,
    /// What it is given counts only once it is committed, after the checkpoint is stored.
    TwoPhase,
}

/// A target: what is in it outlives the process.
pub struct Table {
    pub world: Arc<World>,
    pub stored: Arc<Stored>,
    pub id: String,
    pub kind: Kind,
    /// Every so many values it refuses one as it is written; 0: none.
    pub refuses: i64,
    /// Every so many values it refuses one as it is flushed; 0: none.
    pub refuses_late: i64,
    pub contents: Mutex<Contents>,
}

/// What is in a target.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub rows: Vec<Row>,
    /// How many of them are safe.
    pub durable: usize,
    /// How many of them count (in two phases).
    pub visible: usize,
    /// The number of the last transaction that was committed.
    pub sequence: u64,
}

impl Table {
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.contents)
    }

    pub fn refuses_early(&self, value: i64) -> bool {
        self.refuses > 0 && value.rem_euclid(self.refuses) == 1
    }

    pub fn refuses(&self, value: i64) -> bool {
        self.refuses_early(value) || (self.refuses_late > 0 && value.rem_euclid(self.refuses_late) == 2)
    }

    /// The process or the connection has gone: what was not flushed is there, or in part, or not.
    pub fn let_go(&self) {
        if self.kind != Kind::TwoPhase {
            let (durable, rows) = {
                let contents = self.contents();
                (contents.durable, contents.rows.len())
            };
            if durable < rows {
                let kept = self.world.draw(durable..=rows);
                self.world.note(&self.id, format_args!("keeps {kept} of {rows} rows, of which {durable} are safe"));
                self.contents().rows.truncate(kept);
            }
        }
    }
}

/// The number by which a letter says where it comes from: the stage's name, hashed (FNV-1a).
pub fn code(stage: &str) -> i64 {
    let hash = stage
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i64::from_le_bytes(hash.to_le_bytes())
}

/// A letter as a row: its place, and the code of its stage.
fn letters(batch: &Batch) -> Option<Vec<Row>> {
    let stages = batch.rows.column_by_name("stage")?.as_string_opt::<i32>()?;
    Some(ints(&batch.rows, "offset").into_iter().zip(stages.iter().map(|stage| code(stage.unwrap_or("")))).collect())
}

/// [`Table`] as a configuration.
#[derive(Clone)]
pub struct TableSpec(pub Arc<Table>);

impl std::fmt::Debug for TableSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TableSpec({})", self.0.id)
    }
}

#[async_trait]
impl SinkSpec for TableSpec {
    fn type_name(&self) -> &'static str {
        "table"
    }

    fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        None
    }

    fn two_phase(&self) -> bool {
        self.0.kind == Kind::TwoPhase
    }

    fn exclusive(&self, _: &Context) -> Vec<String> {
        Vec::new()
    }

    async fn open(&self, _: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        let table = self.0.clone();
        let world = &table.world;
        let leave = world.enter(&table.id, "open").await?;
        world.note(&table.id, format_args!("opens with {state:?}"));
        // Invariant 2: the state is of the checkpoint that the run starts from.
        let stored = table.stored.sink_state(&table.id);
        if stored.as_ref() != state {
            world.wrong(format!("{} is opened with {state:?}, and the checkpoint says {stored:?}", table.id));
        }
        if world.open().contains_key(&table.id) {
            world.wrong(format!("{} is opened while it is open", table.id));
        }
        let number = state.and_then(Value::as_u64);
        let rolled_back = table.reopen(number);
        let flushed = table.contents().rows.len();
        let open = Open::new(world, &table.id);
        world.leave(&table.id, "open", leave).await?;
        Ok(Box::new(Writer { _open: open, table, suspects: Vec::new(), flushed, written: false, rolled_back }))
    }
}

impl Table {
    /// Go on from the state. True if it says that something counts that does not.
    fn reopen(&self, state: Option<u64>) -> bool {
        let mut contents = self.contents();
        let known = state.unwrap_or(0);
        match self.kind {
            Kind::Plain => {}
            Kind::Cut => {
                let length = usize::try_from(known).unwrap();
                if contents.rows.len() < length {
                    let rows = contents.rows.len();
                    drop(contents);
                    self.world.wrong(format!("{} had {length} rows at the checkpoint and has {rows}", self.id));
                    return false;
                }
                contents.rows.truncate(length);
                contents.durable = length;
            }
            Kind::TwoPhase => {
                let visible = contents.visible;
                contents.rows.truncate(visible);
                contents.durable = visible;
                let sequence = contents.sequence;
                drop(contents);
                if known < sequence || known > sequence + 1 {
                    self.world.wrong(format!("{} has committed {sequence}, and the checkpoint says {known}", self.id));
                }
                return known > sequence;
            }
        }
        false
    }
}

struct Writer {
    _open: Open,
    table: Arc<Table>,
    suspects: Vec<FailedRow>,
    /// How many rows there were at the last flush.
    flushed: usize,
    /// Something was written that is not committed.
    written: bool,
    rolled_back: bool,
}

#[async_trait]
impl Sink for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        let table = self.table.clone();
        let world = &table.world;
        let leave = world.enter(&table.id, "write").await?;
        let waits = {
            let contents = table.contents();
            table.kind == Kind::TwoPhase && contents.durable != contents.visible
        };
        if waits {
            world.wrong(format!("{} is written to between a flush and its commit", table.id));
        }
        let (mut failed, mut suspects, mut good) = (Vec::new(), Vec::new(), Vec::new());
        let rows = letters(batch).unwrap_or_else(|| from_batch(batch));
        for (index, row) in rows.into_iter().enumerate() {
            if table.refuses_early(row.0) {
                failed.push(batch.fail(index, "refused"));
            } else if table.refuses(row.0) {
                suspects.push(batch.fail(index, "refused late"));
            } else {
                good.push(row);
            }
        }
        world.note(&table.id, format_args!("takes {good:?}, refuses {} and {}", failed.len(), suspects.len()));
        if leave.again() {
            // The same batch comes again, so nothing is kept of it.
            world.leave(&table.id, "write", leave).await?;
        } else {
            self.suspects.extend(suspects);
            self.written = true;
            table.contents().rows.extend(good);
            world.leave(&table.id, "write", leave).await?;
        }
        Ok(failed)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        let table = self.table.clone();
        let world = &table.world;
        let leave = world.enter(&table.id, "flush").await?;
        let state = {
            let mut contents = table.contents();
            contents.durable = contents.rows.len();
            self.flushed = contents.durable;
            match table.kind {
                Kind::Plain => None,
                Kind::Cut => Some(contents.durable.into()),
                Kind::TwoPhase => Some((contents.sequence + u64::from(self.written)).into()),
            }
        };
        world.note(&table.id, format_args!("is flushed: {state:?}"));
        world.leave(&table.id, "flush", leave).await?;
        Ok(Flushed { failed: std::mem::take(&mut self.suspects), state })
    }

    async fn committed(&mut self, handoff: Option<&Handoff>) -> Result<(), ConnectorError> {
        let table = self.table.clone();
        let world = &table.world;
        let leave = world.enter(&table.id, "committed").await?;
        world.note(&table.id, format_args!("is told of a checkpoint"));
        if table.kind == Kind::TwoPhase {
            self.count(handoff.and_then(Handoff::get::<u64>).copied());
        }
        world.leave(&table.id, "committed", leave).await
    }

    fn rolled_back(&self) -> bool {
        self.rolled_back
    }

    async fn close(&mut self) {
        self.table.world.note(&self.table.id, format_args!("closes"));
        self.table.world.pause().await;
    }
}

impl Writer {
    /// The second phase.
    fn count(&mut self, handed: Option<u64>) {
        let table = &self.table;
        let stored = table.stored.position();
        // Invariant 1: what comes to count is stored, rows and position alike.
        if handed.is_none() || handed != stored {
            table.world.wrong(format!("{} commits position {handed:?}, and the checkpoint says {stored:?}", table.id));
        }
        let sequence = {
            let mut contents = table.contents();
            contents.visible = self.flushed;
            contents.sequence += u64::from(std::mem::take(&mut self.written));
            contents.sequence
        };
        let state = table.stored.sink_state(&table.id).and_then(|state| state.as_u64());
        if state != Some(sequence) {
            table.world.wrong(format!("{} commits {sequence}, and the checkpoint says {state:?}", table.id));
        }
        table.stored.hand(handed.unwrap_or(0));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.table.let_go();
    }
}
