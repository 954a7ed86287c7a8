//! A sink that keeps its rows in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{
    Batch, CheckError, ConnectorError, Context, FailedRow, Flushed, Handoff, Sink, SinkSpec, row_to_json,
};
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use super::{Alive, Faults, Probe, ints, lock};

/// What was asked of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Open(Option<u64>),
    Write(Vec<i64>),
    Flush,
    Committed,
    Close,
}

/// Something that can be shut for a while.
#[derive(Debug)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Gate(watch::Sender::new(true))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub fn shut(&self) {
        self.0.send_replace(false);
    }

    pub(super) async fn pass(&self) {
        let mut open = self.0.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }
}

#[derive(Debug, Default)]
struct Rows {
    all: Vec<Value>,
    /// How many of them a crash of the target can't take.
    durable: usize,
    /// How many of them a transaction has made visible: those of the last checkpoint that the sink knows to be on disk.
    visible: usize,
}

/// A target: what is in it outlives the engine.
#[derive(Debug)]
pub struct Table {
    pub id: String,
    pub kind: &'static str,
    /// Its length is part of the checkpoint, and it is cut back to it when it is opened.
    pub truncating: bool,
    /// Rows that were written since the last flush are lost in a crash.
    pub lossy: bool,
    /// It can't go on with a transaction of a process that died: what was not committed is gone when it is opened.
    pub two_phase: bool,
    /// How long a flush takes.
    pub flush_takes: Duration,
    /// Rows that `write` refuses.
    pub refuses: fn(i64) -> bool,
    /// Rows that only `flush` refuses.
    pub refuses_late: fn(i64) -> bool,
    pub opens: Faults,
    pub writes: Faults,
    pub flushes: Faults,
    pub commits: Faults,
    pub closes: Faults,
    pub write_gate: Gate,
    pub flush_gate: Gate,
    pub probe: Arc<Probe>,
    /// What the source gave along with each commit.
    pub handed: Mutex<Vec<u64>>,
    calls: Mutex<Vec<Call>>,
    rows: Mutex<Rows>,
}

impl Table {
    pub fn new(id: &str, probe: Arc<Probe>) -> Self {
        Table {
            id: id.to_owned(),
            kind: "table",
            truncating: true,
            lossy: false,
            two_phase: false,
            flush_takes: Duration::ZERO,
            refuses: |_| false,
            refuses_late: |_| false,
            opens: Faults::default(),
            writes: Faults::default(),
            flushes: Faults::default(),
            commits: Faults::default(),
            closes: Faults::default(),
            write_gate: Gate::default(),
            flush_gate: Gate::default(),
            probe,
            handed: Mutex::default(),
            calls: Mutex::default(),
            rows: Mutex::default(),
        }
    }

    /// The rows, as they were written.
    pub fn rows(&self) -> Vec<Value> {
        lock(&self.rows).all.clone()
    }

    pub fn len(&self) -> usize {
        lock(&self.rows).all.len()
    }

    pub fn visible(&self) -> usize {
        lock(&self.rows).visible
    }

    /// One column of whole numbers, as it was written.
    pub fn column(&self, name: &str) -> Vec<i64> {
        lock(&self.rows).all.iter().map(|row| row[name].as_i64().unwrap()).collect()
    }

    pub fn values(&self) -> Vec<i64> {
        self.column("value")
    }

    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    pub fn count(&self, which: fn(&Call) -> bool) -> usize {
        lock(&self.calls).iter().filter(|call| which(call)).count()
    }

    /// What a crash does to it.
    pub fn crash(&self) {
        if self.lossy {
            let mut rows = lock(&self.rows);
            let durable = rows.durable;
            rows.all.truncate(durable);
        }
    }

    fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }
}

/// [`Table`] as a configuration.
#[derive(Clone, Debug)]
pub(super) struct TableSpec(pub(super) Arc<Table>);

#[async_trait]
impl SinkSpec for TableSpec {
    fn type_name(&self) -> &'static str {
        self.0.kind
    }

    fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        None
    }

    fn two_phase(&self) -> bool {
        self.0.two_phase
    }

    fn exclusive(&self, _: &Context) -> Vec<String> {
        Vec::new()
    }

    async fn open(&self, _: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        let table = self.0.clone();
        table.probe.point().await;
        let state = state.and_then(Value::as_u64);
        table.note(Call::Open(state));
        table.opens.strike(&format!("opening {}", table.id)).await?;
        let mut rolled_back = false;
        if table.two_phase {
            let mut rows = lock(&table.rows);
            let visible = rows.visible;
            rows.all.truncate(visible);
            rolled_back = state.is_some_and(|length| usize::try_from(length).unwrap() > visible);
            assert!(
                state.is_none_or(|length| usize::try_from(length).unwrap() >= visible),
                "what counts is no longer known"
            );
        } else if let Some(length) = state {
            let length = usize::try_from(length).unwrap();
            let mut rows = lock(&table.rows);
            assert!(rows.all.len() >= length, "{} had {length} rows at the checkpoint and lost some", table.id);
            rows.all.truncate(length);
            // A checkpoint that has this state is on disk, so its transaction counts, whether or not it was told.
            rows.visible = length;
        }
        let flushed = lock(&table.rows).visible;
        table.probe.point().await;
        Ok(Box::new(Writer { _alive: Alive::new(&table.probe), table, suspects: Vec::new(), flushed, rolled_back }))
    }
}

struct Writer {
    _alive: Alive,
    table: Arc<Table>,
    suspects: Vec<FailedRow>,
    flushed: usize,
    rolled_back: bool,
}

#[async_trait]
impl Sink for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        let table = &self.table;
        table.probe.point().await;
        let values = ints(&batch.rows, "value");
        table.note(Call::Write(values.clone()));
        table.write_gate.pass().await;
        table.writes.strike(&format!("writing to {}", table.id)).await?;
        if table.two_phase {
            let rows = lock(&table.rows);
            assert!(rows.visible == self.flushed, "{} was written to between a flush and its commit", table.id);
        }
        let mut failed = Vec::new();
        let mut good = Vec::new();
        for row in 0..batch.len() {
            let value = values.get(row).copied().unwrap_or_default();
            if (table.refuses)(value) {
                failed.push(batch.fail(row, "refused"));
            } else if (table.refuses_late)(value) {
                self.suspects.push(batch.fail(row, "refused late"));
            } else {
                good.push(row_to_json(&batch.rows, row));
            }
        }
        lock(&table.rows).all.extend(good);
        table.probe.point().await;
        Ok(failed)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        let table = &self.table;
        table.probe.point().await;
        table.note(Call::Flush);
        table.flush_gate.pass().await;
        if !table.flush_takes.is_zero() {
            tokio::time::sleep(table.flush_takes).await;
        }
        table.flushes.strike(&format!("flushing {}", table.id)).await?;
        let length = {
            let mut rows = lock(&table.rows);
            rows.durable = rows.all.len();
            rows.durable
        };
        self.flushed = length;
        table.probe.point().await;
        let state = table.truncating.then(|| length.into());
        Ok(Flushed { failed: std::mem::take(&mut self.suspects), state })
    }

    async fn committed(&mut self, handoff: Option<&Handoff>) -> Result<(), ConnectorError> {
        let table = &self.table;
        if let Some(next) = handoff.and_then(Handoff::get::<u64>) {
            lock(&table.handed).push(*next);
        }
        table.probe.point().await;
        table.note(Call::Committed);
        table.commits.strike(&format!("committing {}", table.id)).await?;
        lock(&table.rows).visible = self.flushed;
        // Here the process can die too: it counts, and nobody knows.
        table.probe.point().await;
        Ok(())
    }

    fn rolled_back(&self) -> bool {
        self.rolled_back
    }

    async fn close(&mut self) {
        self.table.note(Call::Close);
        // A fault of `close` can only be that it hangs.
        let _ = self.table.closes.strike("closing").await;
    }
}
