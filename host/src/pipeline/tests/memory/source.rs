//! A source that counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{
    Batch, CheckError, ColumnType, ConnectorError, Context, Event, FailedRow, Field, Handoff, Origin, Position,
    RowSchema, Segment, Source, SourceSpec,
};
use async_trait::async_trait;

use super::{Alive, Faults, Probe, lock, rows_of};

/// Rows 0, 1, 2... in the column `value`; the position is the next one.
#[derive(Debug)]
pub struct Numbers {
    pub kind: &'static str,
    /// How many rows there are; `None`: no end.
    pub rows: Option<u64>,
    pub batch: u64,
    /// Time before each batch.
    pub pace: Option<Duration>,
    /// Rows that do not decode.
    pub bad: Vec<u64>,
    /// Rows that were taken from outside and can't be taken again: they are given after `stop`.
    pub held: Mutex<Vec<i64>>,
    /// It wants a checkpoint once it has given this row.
    pub wants: Mutex<Option<u64>>,
    pub opens: Faults,
    /// Faults before that row.
    pub faults: Mutex<BTreeMap<u64, Arc<Faults>>>,
    pub probe: Arc<Probe>,
    /// Where it was opened, each time.
    pub opened_at: Mutex<Vec<u64>>,
    /// The next row of whatever runs.
    pub next: AtomicU64,
    /// What it was told is on disk.
    pub committed: Mutex<Vec<u64>>,
    pub closed: AtomicU64,
}

impl Numbers {
    pub fn new(rows: Option<u64>, batch: u64, probe: Arc<Probe>) -> Self {
        Numbers {
            kind: "numbers",
            rows,
            batch,
            pace: None,
            bad: Vec::new(),
            held: Mutex::default(),
            wants: Mutex::default(),
            opens: Faults::default(),
            faults: Mutex::default(),
            probe,
            opened_at: Mutex::default(),
            next: AtomicU64::new(0),
            committed: Mutex::default(),
            closed: AtomicU64::new(0),
        }
    }

    /// The faults before row `row`.
    pub fn faults_at(&self, row: u64) -> Arc<Faults> {
        lock(&self.faults).entry(row).or_default().clone()
    }

    /// The next row of whatever runs.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    fn fields() -> RowSchema {
        RowSchema::closed(vec![Field::new("value", ColumnType::Int64, false)])
    }
}

/// [`Numbers`] as a configuration.
#[derive(Clone, Debug)]
pub(super) struct NumbersSpec(pub(super) Arc<Numbers>);

#[async_trait]
impl SourceSpec for NumbersSpec {
    fn type_name(&self) -> &'static str {
        self.0.kind
    }

    fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }

    fn schema(&self) -> RowSchema {
        Numbers::fields()
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
        self.0.probe.point().await;
        self.0.opens.strike("opening the source").await?;
        let next = position.and_then(Position::as_single).and_then(serde_json::Value::as_u64).unwrap_or(0);
        lock(&self.0.opened_at).push(next);
        self.0.next.store(next, Ordering::SeqCst);
        self.0.probe.point().await;
        Ok(Box::new(Running { _alive: Alive::new(&self.0.probe), script: self.0.clone(), next, stopping: false }))
    }
}

struct Running {
    _alive: Alive,
    script: Arc<Numbers>,
    next: u64,
    /// Only what is held is given any more.
    stopping: bool,
}

#[async_trait]
impl Source for Running {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        self.script.probe.point().await;
        if self.stopping {
            let held = std::mem::take(&mut *lock(&self.script.held));
            return Ok(match held.is_empty() {
                true => Event::End,
                false => Event::Batch(Batch::new(rows_of(&[("value", held)]), Origin::Unknown)),
            });
        }
        if lock(&self.script.wants).is_some_and(|row| row < self.next) {
            *lock(&self.script.wants) = None;
            return Ok(Event::Checkpoint);
        }
        if let Some(pace) = self.script.pace {
            tokio::time::sleep(pace).await;
        }
        let first = self.next;
        if self.script.rows.is_some_and(|rows| first >= rows) {
            return Ok(Event::End);
        }
        let faults = lock(&self.script.faults).get(&first).cloned();
        if let Some(faults) = faults {
            faults.strike(&format!("reading row {first}")).await?;
        }
        let next_fault = lock(&self.script.faults).range(first + 1..).next().map_or(u64::MAX, |(row, _)| *row);
        let end = (first + self.script.batch).min(self.script.rows.unwrap_or(u64::MAX)).min(next_fault);
        self.next = end;
        self.script.next.store(end, Ordering::SeqCst);
        Ok(Event::Batch(batch(first..end, &self.script.bad)))
    }

    fn position(&self) -> Position {
        Position::single(self.next.into())
    }

    fn handoff(&self) -> Option<Handoff> {
        Some(Handoff::new(self.next))
    }

    async fn committed(&mut self, position: &Position) -> Result<(), ConnectorError> {
        self.script.probe.point().await;
        lock(&self.script.committed).push(position.as_single().and_then(serde_json::Value::as_u64).unwrap());
        Ok(())
    }

    fn stop(&mut self) -> bool {
        self.stopping = !lock(&self.script.held).is_empty();
        self.stopping
    }

    async fn close(&mut self) {
        self.script.closed.fetch_add(1, Ordering::SeqCst);
    }
}

fn batch(range: std::ops::Range<u64>, bad: &[u64]) -> Batch {
    let (mut values, mut segments, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for row in range {
        let place = i64::try_from(row).unwrap();
        if bad.contains(&row) {
            failed.push(FailedRow {
                stage: String::new(),
                partition: Some("numbers".into()),
                offset: Some(place),
                error: "it does not decode".to_owned(),
                row: None,
            });
        } else {
            segments.push(Segment { start: values.len(), partition: "numbers".into(), first: place });
            values.push(place);
        }
    }
    Batch { rows: rows_of(&[("value", values)]), origin: Origin::Segments(segments.into()), failed }
}
