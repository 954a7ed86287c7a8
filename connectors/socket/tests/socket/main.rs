//! The `socket` source against real sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what tests share is test code too")]

mod formats;
mod lifecycle;
mod lines;
mod listen;

use std::path::Path;
use std::time::Duration;

use acequia_connector_api::{
    Batch, BatchLimits, ConnectorError, Context, Event, FailedRow, Position, Source, SourceConfig, row_to_json,
};
use acequia_connector_socket::{SocketConfig, SocketSource};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than anything takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(text: &str) -> SocketConfig {
    let config: SocketConfig = toml::from_str(text).unwrap();
    config.check().unwrap();
    config
}

fn context(base: &Path, rows: usize) -> Context {
    let batch = BatchLimits { rows, ..BatchLimits::default() };
    Context {
        pipeline: "p".into(),
        stage: "source".into(),
        base: base.to_owned(),
        batch,
        tasks: 1,
        reads: None,
        share: Default::default(),
    }
}

async fn try_open(text: &str) -> Result<SocketSource, ConnectorError> {
    SocketSource::open(&config(text), &context(Path::new("."), 8192), None).await
}

async fn open(text: &str) -> SocketSource {
    try_open(text).await.unwrap()
}

async fn open_at(text: &str, position: &Position) -> SocketSource {
    SocketSource::open(&config(text), &context(Path::new("."), 8192), Some(position)).await.unwrap()
}

/// A server for the source to connect to.
async fn server() -> (TcpListener, String) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    (server, address)
}

/// A source that listens on a free port, and a first client.
async fn listening(keys: &str) -> (SocketSource, TcpStream) {
    let source = open(&format!("address = '127.0.0.1:0'\nlisten = true\n{keys}")).await;
    let client = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    (source, client)
}

/// A row: its JSON object, the other side's address, the line.
type Row = (Value, String, i64);

/// What came, in order.
#[derive(Debug, Default)]
struct Seen {
    rows: Vec<Row>,
    failed: Vec<FailedRow>,
}

impl Seen {
    fn add(&mut self, batch: Batch) {
        for row in 0..batch.len() {
            let (partition, line) = batch.origin.locate(row);
            self.rows.push((row_to_json(&batch.rows, row), partition.unwrap().to_string(), line.unwrap()));
        }
        self.failed.extend(batch.failed);
    }

    fn count(&self) -> usize {
        self.rows.len() + self.failed.len()
    }

    /// The column `value`.
    fn values(&self) -> Vec<&str> {
        self.rows.iter().map(|(row, _, _)| row["value"].as_str().unwrap()).collect()
    }
}

async fn next(source: &mut SocketSource) -> Result<Event, ConnectorError> {
    timeout(PATIENCE, source.next()).await.expect("nothing came")
}

async fn next_batch(source: &mut SocketSource) -> Batch {
    loop {
        match next(source).await {
            Ok(Event::Batch(batch)) => return batch,
            Ok(other) => panic!("a socket gives rows, not {other:?}"),
            // A pause between two connections.
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// Take batches until there are so many rows, failed ones counted.
async fn see(source: &mut SocketSource, rows: usize) -> Seen {
    let mut seen = Seen::default();
    while seen.count() < rows {
        seen.add(next_batch(source).await);
    }
    assert_eq!(seen.count(), rows, "{seen:?}");
    seen
}

/// The text of an error and of its cause.
fn report(error: &ConnectorError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}
