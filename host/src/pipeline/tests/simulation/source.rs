//! A source that counts, and looks where it is opened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{
    Batch, CheckError, ColumnType, ConnectorError, Context, Event, FailedRow, Field, Handoff, Position, RowSchema,
    Source, SourceSpec,
};
use async_trait::async_trait;

use super::super::memory::lock;
use super::disk::Stored;
use super::transform::to_batch;
use super::world::{Open, World};

pub const STAGE: &str = "source";

/// Rows 0, 1, 2... in the column `value`, beside the column `sum` for a transform; the position is the next one.
pub struct Script {
    pub world: Arc<World>,
    pub stored: Arc<Stored>,
    /// How many rows there are; `None`: no end.
    pub rows: Option<u64>,
    /// The most rows in a batch.
    pub batch: u64,
    /// The most time before a batch, in milliseconds.
    pub pace: u64,
    /// Every so many rows one does not decode; 0: none.
    pub bad: u64,
    /// It wants a checkpoint after so many batches in a hundred.
    pub wants: u32,
    /// How many more batches it gives after it was told to stop.
    pub held: u32,
    pub state: Mutex<State>,
}

/// What is known of it outside the engine.
#[derive(Default)]
pub struct State {
    /// The next row of whatever runs.
    pub next: u64,
    /// What it was last told is stored.
    pub told: u64,
}

impl Script {
    /// Whether the row decodes.
    pub fn is_good(&self, row: u64) -> bool {
        self.bad == 0 || row % self.bad != self.bad - 1
    }

    pub fn next(&self) -> u64 {
        lock(&self.state).next
    }
}

/// What is known of every row, from the source to the sinks.
pub fn fields() -> RowSchema {
    let field = |name| Field::new(name, ColumnType::Int64, false);
    RowSchema::closed(vec![field("value"), field("sum")])
}

/// The number in a position.
pub fn place(position: &Position) -> Option<u64> {
    position.as_single().and_then(serde_json::Value::as_u64)
}

/// [`Script`] as a configuration.
#[derive(Clone)]
pub struct ScriptSpec(pub Arc<Script>);

impl std::fmt::Debug for ScriptSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ScriptSpec")
    }
}

#[async_trait]
impl SourceSpec for ScriptSpec {
    fn type_name(&self) -> &'static str {
        "script"
    }

    fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }

    fn schema(&self) -> RowSchema {
        fields()
    }

    fn exclusive(&self) -> Vec<String> {
        Vec::new()
    }

    fn partitioned(&self) -> bool {
        false
    }

    fn finite(&self) -> bool {
        self.0.rows.is_some()
    }

    async fn open(&self, _: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        let script = self.0.clone();
        let world = &script.world;
        let leave = world.enter(STAGE, "open").await?;
        let next = position.and_then(place).unwrap_or(0);
        world.note(STAGE, format_args!("opens at {next}"));
        // Invariant 4: what comes before the last stored position is not read again; invariant 2: what comes after is.
        let stored = script.stored.position();
        if position.map(place) != stored.map(Some) {
            world.wrong(format!("the source is opened at {position:?}, and the checkpoint says {stored:?}"));
        }
        if world.open().contains_key(STAGE) {
            world.wrong("the source is opened while it is open");
        }
        *lock(&script.state) = State { next, told: 0 };
        let open = Open::new(world, STAGE);
        world.leave(STAGE, "open", leave).await?;
        Ok(Box::new(Running { _open: open, held: script.held, script, next, asks: false, stopping: false }))
    }
}

struct Running {
    _open: Open,
    script: Arc<Script>,
    next: u64,
    /// The next event is a wish for a checkpoint.
    asks: bool,
    stopping: bool,
    held: u32,
}

impl Running {
    fn take(&mut self, rows: u64) -> Batch {
        let end = (self.next + rows).min(self.script.rows.unwrap_or(u64::MAX));
        let (mut values, mut failed) = (Vec::new(), Vec::new());
        for row in self.next..end {
            let place = i64::try_from(row).unwrap();
            if self.script.is_good(row) {
                values.push((place, 0));
            } else {
                failed.push(FailedRow {
                    stage: String::new(),
                    partition: Some("rows".into()),
                    offset: Some(place),
                    error: "it does not decode".to_owned(),
                    row: None,
                });
            }
        }
        self.script.world.note(STAGE, format_args!("gives {}..{end}", self.next));
        self.next = end;
        lock(&self.script.state).next = end;
        Batch { failed, ..to_batch(&values) }
    }
}

#[async_trait]
impl Source for Running {
    /// Cancel safe: nothing is taken before the last wait, and nothing waits after that.
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        let script = self.script.clone();
        let world = &script.world;
        // A fault after the work would lose rows, which no source may do.
        let leave = world.enter(STAGE, "next").await?;
        world.leave(STAGE, "next", leave).await?;
        if self.script.pace > 0 && !self.stopping {
            tokio::time::sleep(world.time(0..self.script.pace)).await;
        }
        if std::mem::take(&mut self.asks) {
            world.note(STAGE, format_args!("asks for a checkpoint"));
            return Ok(Event::Checkpoint);
        }
        let over = self.script.rows.is_some_and(|rows| self.next >= rows);
        if over || (self.stopping && self.held == 0) {
            world.note(STAGE, format_args!("ends"));
            return Ok(Event::End);
        }
        if self.stopping {
            self.held -= 1;
        }
        self.asks = world.chance(script.wants);
        let rows = world.draw(1..=script.batch);
        Ok(Event::Batch(self.take(rows)))
    }

    fn position(&self) -> Position {
        Position::single(self.next.into())
    }

    fn handoff(&self) -> Option<Handoff> {
        Some(Handoff::new(self.next))
    }

    async fn committed(&mut self, position: &Position) -> Result<(), ConnectorError> {
        let world = &self.script.world;
        let told = place(position).unwrap_or(u64::MAX);
        world.note(STAGE, format_args!("is told of {told}"));
        // Invariant 1: only what is stored, and counts everywhere, is confirmed; and in order.
        if !self.script.stored.is_final(told) {
            world.wrong(format!("the source is told that {told} is stored and counts, and it does not"));
        }
        let before = std::mem::replace(&mut lock(&self.script.state).told, told);
        if told < before {
            world.wrong(format!("the source is told of {told} after {before}"));
        }
        let leave = world.enter(STAGE, "committed").await?;
        world.leave(STAGE, "committed", leave).await
    }

    fn stop(&mut self) -> bool {
        self.stopping = self.held > 0;
        self.stopping
    }

    async fn close(&mut self) {
        self.script.world.note(STAGE, format_args!("closes"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.script.world.pause().await;
    }
}
