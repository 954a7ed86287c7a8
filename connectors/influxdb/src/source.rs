//! The source: one query after the other.
//!
//! How a row is given exactly once (invariants 1 and 2): the position is the window and how many rows of its answer were
//! given. A restart asks the same query about the same window, with the same `now()`, and leaves out so many rows. Flux
//! promises no order, and points may have been written since, so the position also has a sum over the bytes of these rows. If
//! the new answer begins with other rows, all of it is given: rows come twice then, but none is missing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acequia_connector_api::{ConnectorError, Context, Event, Position, Share, Source};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::query::{Given, Part, Query, Window};
use crate::source_config::InfluxSource;

/// Batches that are ready while the pipeline is busy.
const READY: usize = 2;

/// What the checkpoint holds. Times are microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct At {
    /// The window that is asked about.
    start: i64,
    stop: i64,
    /// Rows of its answer that were given.
    rows: u64,
    /// The sum over their bytes.
    mark: u64,
    /// All of them.
    done: bool,
}

pub(crate) struct InfluxReader {
    query: Query,
    every: Option<Duration>,
    delay: Duration,
    at: At,
    /// The answer that is being read.
    parts: Option<mpsc::Receiver<Part>>,
    tasks: JoinSet<()>,
    share: Share,
}

impl InfluxReader {
    pub(crate) fn open(
        config: &InfluxSource,
        context: &Context,
        position: Option<&Position>,
    ) -> Result<Self, ConnectorError> {
        let keys = config.keys();
        let server = keys.server(&keys.ini(context)?, context)?;
        let text = match (&config.query, &config.query_file) {
            (Some(query), _) => query.clone(),
            (None, Some(path)) => {
                let path = context.path(path);
                std::fs::read_to_string(&path).map_err(|error| {
                    ConnectorError::failed(format!("the query's file {} can't be read", path.display())).because(error)
                })?
            }
            (None, None) => return Err(ConnectorError::failed("give `query` or `query_file`")),
        };
        let every = config.every.map(|every| every.0);
        let stored = match position.and_then(Position::as_single) {
            Some(value) => Some(At::deserialize(value).map_err(|error| {
                ConnectorError::failed("the stored position is not one of an InfluxDB source").because(error)
            })?),
            None => None,
        };
        let at = stored.unwrap_or_else(|| {
            let now = now();
            let (start, stop) = match every {
                Some(every) => {
                    let start = config.first().unwrap_or(now.saturating_sub(micros(every)));
                    (start, start.saturating_add(micros(every)))
                }
                None => (config.first().unwrap_or(0), now),
            };
            At::window(start, stop)
        });
        Ok(InfluxReader {
            query: Query { server, text: Arc::from(text), schema: config.schema.clone(), limits: context.batch },
            every,
            delay: config.delay.map_or(Duration::ZERO, |delay| delay.0),
            at,
            parts: None,
            tasks: JoinSet::new(),
            share: context.share.clone(),
        })
    }

    /// Ask about the window, from where the position is.
    fn ask(&mut self) -> mpsc::Receiver<Part> {
        let (sender, receiver) = mpsc::channel(READY);
        let window = Window { start: self.at.start, stop: self.at.stop, every: self.every };
        let given = Given { rows: self.at.rows, mark: self.at.mark };
        self.tasks.abort_all();
        self.tasks.spawn(self.share.meter_source(self.query.clone().run(window, given, sender)));
        while self.tasks.try_join_next().is_some() {}
        receiver
    }
}

impl At {
    fn window(start: i64, stop: i64) -> Self {
        let Given { rows, mark } = Given::NOTHING;
        At { start, stop, rows, mark, done: false }
    }
}

#[async_trait]
impl Source for InfluxReader {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        loop {
            if self.at.done {
                let Some(every) = self.every else {
                    return Ok(Event::End);
                };
                self.at = At::window(self.at.stop, self.at.stop.saturating_add(micros(every)));
            }
            if self.parts.is_none() {
                if self.every.is_some() {
                    let due = self.at.stop.saturating_add(micros(self.delay));
                    let wait = u64::try_from(due.saturating_sub(now())).unwrap_or(0);
                    tokio::time::sleep(Duration::from_micros(wait)).await;
                }
                self.parts = Some(self.ask());
            }
            let Some(parts) = &mut self.parts else { continue };
            match parts.recv().await {
                Some(Part::Batch(batch, given)) => {
                    self.at.rows = given.rows;
                    self.at.mark = given.mark;
                    return Ok(Event::Batch(batch));
                }
                Some(Part::Changed) => {
                    tracing::warn!(
                        rows = self.at.rows,
                        "the query has another answer than before the restart; all of it is read again"
                    );
                    self.at = At::window(self.at.start, self.at.stop);
                    self.parts = None;
                }
                Some(Part::End) => {
                    self.at.done = true;
                    self.parts = None;
                }
                Some(Part::Error(error)) => {
                    self.parts = None;
                    return Err(error);
                }
                None => {
                    self.parts = None;
                    return Err(ConnectorError::failed("the task that reads from InfluxDB ended"));
                }
            }
        }
    }

    fn position(&self) -> Position {
        // It has numbers only, which JSON always holds.
        Position::single(serde_json::to_value(self.at).unwrap_or(Value::Null))
    }

    async fn close(&mut self) {
        self.parts = None;
        self.tasks.shutdown().await;
    }
}

/// Microseconds since the epoch.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}
