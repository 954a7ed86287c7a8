//! One run of a query: a task that asks, and gives batches.

use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{Batch, BatchLimits, ConnectorError, format_timestamp};
use acequia_format::SchemaConfig;
use reqwest::Response;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::answer::{Refusal, short, success};
use crate::server::Server;
use crate::table::{MARK, Records, Tables};

/// A record longer than this is no record.
const RECORD: usize = 64 << 20;

/// What is asked, and how the answer is read.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) server: Server,
    pub(crate) text: Arc<str>,
    pub(crate) schema: Option<SchemaConfig>,
    pub(crate) limits: BatchLimits,
}

/// The time that a run is about, in microseconds. `now()` is its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: i64,
    pub(crate) stop: i64,
    pub(crate) every: Option<Duration>,
}

/// How much of an answer was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// So many rows.
    pub(crate) rows: u64,
    /// All their bytes in one number.
    pub(crate) mark: u64,
}

impl Given {
    pub(crate) const NOTHING: Given = Given { rows: 0, mark: MARK };
}

/// What a run brings.
#[derive(Debug)]
pub(crate) enum Part {
    Batch(Batch, Given),
    /// The rows that were given before are not the first of this answer.
    Changed,
    End,
    Error(ConnectorError),
}

impl Query {
    /// Ask, leave out what was given, and send the rest.
    pub(crate) async fn run(self, window: Window, given: Given, parts: mpsc::Sender<Part>) {
        let last = match self.read(window, given, &parts).await {
            Ok(last) => last,
            Err(error) => Part::Error(error),
        };
        // If no one listens the pipeline has stopped.
        let _ = parts.send(last).await;
    }

    async fn read(&self, window: Window, given: Given, parts: &mpsc::Sender<Part>) -> Result<Part, ConnectorError> {
        let mut response = self.ask(window).await?;
        let partition: Arc<str> = format_timestamp(window.start).into();
        let mut tables = Tables::new(self.schema.clone(), partition, self.limits.rows, self.limits.bytes);
        let mut records = Records::new();
        loop {
            // While rows wait for others, only so long.
            let chunk = if tables.is_empty() {
                response.chunk().await
            } else {
                match tokio::time::timeout(self.limits.wait.0, response.chunk()).await {
                    Ok(chunk) => chunk,
                    Err(_) => {
                        if let Some(batch) = tables.finish()
                            && !send(parts, batch, &tables).await
                        {
                            return Ok(Part::End);
                        }
                        continue;
                    }
                }
            };
            let chunk = chunk.map_err(|error| self.server.unreachable(error))?;
            let mut bytes = chunk.as_deref().unwrap_or_default();
            loop {
                let record = if chunk.is_some() { records.next(&mut bytes) } else { records.finish() };
                let Some(record) = record else { break };
                let before = tables.given;
                let batch = tables.push(record, given.rows).map_err(|message| {
                    ConnectorError::retryable(format!("InfluxDB can't go on with the query: {}", short(&message)))
                })?;
                if before < given.rows && tables.given == given.rows && tables.mark != given.mark {
                    return Ok(Part::Changed);
                }
                if let Some(batch) = batch
                    && !send(parts, batch, &tables).await
                {
                    return Ok(Part::End);
                }
            }
            if records.pending() > RECORD {
                return Err(ConnectorError::failed("InfluxDB answers with a record of more than 64MiB"));
            }
            if chunk.is_none() {
                break;
            }
        }
        if tables.given < given.rows {
            return Ok(Part::Changed);
        }
        if let Some(batch) = tables.finish() {
            send(parts, batch, &tables).await;
        }
        Ok(Part::End)
    }

    async fn ask(&self, window: Window) -> Result<Response, ConnectorError> {
        let body = self.body(window).to_string();
        let request = self.server.post("/api/v2/query", &[])?;
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/csv").body(body);
        let response = request.send().await.map_err(|error| self.server.unreachable(error))?;
        success(&self.server, None, response).await.map_err(|refusal| match refusal {
            Refusal::Later(error) => error,
            Refusal::Lines { message, .. } | Refusal::TooLarge(message) => {
                ConnectorError::retryable(format!("InfluxDB can't run the query: {}", short(&message)))
            }
        })
    }

    /// The variables are given beside the query, as InfluxDB's own page does it: text before the query would have to stand
    /// behind its imports.
    fn body(&self, window: Window) -> Value {
        let time = |name: &str, micros: i64| {
            property(name, json!({ "type": "DateTimeLiteral", "value": format_timestamp(micros) }))
        };
        let mut variables = vec![time("timeRangeStart", window.start), time("timeRangeStop", window.stop)];
        if let Some(every) = window.every {
            let micros = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
            let values = json!([{ "magnitude": micros, "unit": "us" }]);
            variables.push(property("windowPeriod", json!({ "type": "DurationLiteral", "values": values })));
        }
        let assignment = json!({
            "type": "VariableAssignment",
            "id": { "type": "Identifier", "name": "v" },
            "init": { "type": "ObjectExpression", "properties": variables },
        });
        json!({
            "type": "flux",
            "query": &*self.text,
            "now": format_timestamp(window.stop),
            "dialect": {
                "header": true,
                "delimiter": ",",
                "annotations": ["datatype", "group", "default"],
                "commentPrefix": "#",
                "dateTimeFormat": "RFC3339Nano",
            },
            "extern": {
                "type": "File",
                "package": null,
                "imports": [],
                "body": [{ "type": "OptionStatement", "assignment": assignment }],
            },
        })
    }
}

fn property(name: &str, value: Value) -> Value {
    json!({ "type": "Property", "key": { "type": "Identifier", "name": name }, "value": value })
}

/// False if no one listens any more.
async fn send(parts: &mpsc::Sender<Part>, batch: Batch, tables: &Tables) -> bool {
    parts.send(Part::Batch(batch, Given { rows: tables.given, mark: tables.mark })).await.is_ok()
}
