//! What a program can do that does nothing but read or write: the driver alone. Each is a process of its own, so that what it
//! uses can be told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use scylla::client::session_builder::SessionBuilder;
use scylla::value::CqlTimestamp;
use tokio::sync::Semaphore;

use super::rows::row;

/// Points in one request.
pub(super) const POINTS: u64 = 5_000;
/// Inserts in flight.
pub(super) const CONCURRENCY: usize = 256;

/// How long a consumer waits for messages.
const SILENCE: Duration = Duration::from_secs(30);

/// A loop around a driver.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bare {
    /// Consume a topic and count.
    Consume { broker: String, topic: String, group: String, rows: u64 },
    /// Insert rows.
    Insert { node: String, table: String, rows: u64 },
    /// Post points.
    Post { url: String, org: String, bucket: String, token: String, rows: u64 },
}

/// Run it.
pub(crate) fn run(bare: &Bare) -> Result<()> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime");
    match bare {
        Bare::Consume { broker, topic, group, rows } => consume(broker, topic, group, *rows),
        Bare::Insert { node, table, rows } => runtime()?.block_on(insert(node, table, *rows)),
        Bare::Post { url, org, bucket, token, rows } => runtime()?.block_on(post(url, org, bucket, token, *rows)),
    }
}

/// With what the connector tells librdkafka, or the comparison would be of settings.
fn consume(broker: &str, topic: &str, group: &str, rows: u64) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    consumer.subscribe(&[topic])?;
    let (mut count, mut bytes) = (0, 0);
    let mut heard = Instant::now();
    while count < rows {
        // It also returns for what is no message, such as a partition that was assigned.
        match consumer.poll(Duration::from_secs(1)) {
            Some(message) => {
                bytes += message?.payload_len();
                count += 1;
                if count.is_multiple_of(10_000) {
                    heard = Instant::now();
                }
            }
            None => ensure!(heard.elapsed() < SILENCE, "nothing came for {SILENCE:?} after {count} messages"),
        }
    }
    ensure!(bytes > 0, "the messages are empty");
    Ok(())
}

async fn insert(node: &str, table: &str, rows: u64) -> Result<()> {
    let session = Arc::new(SessionBuilder::new().known_node(node).build().await?);
    let statement = format!("INSERT INTO {table} (value, sensor, time, temperature, active) VALUES (?, ?, ?, ?, ?)");
    let statement = Arc::new(session.prepare(statement).await?);
    let room = Arc::new(Semaphore::new(CONCURRENCY));
    for value in 0..rows {
        let permit = room.clone().acquire_owned().await?;
        let (session, statement) = (session.clone(), statement.clone());
        tokio::spawn(async move {
            let row = row(value);
            let time = CqlTimestamp(i64::try_from(row.time / 1000).unwrap_or_default());
            let value = i64::try_from(row.value).unwrap_or_default();
            let result =
                session.execute_unpaged(&statement, (value, row.sensor, time, row.temperature, row.active)).await;
            if let Err(error) = result {
                eprintln!("an insert failed: {error}");
                std::process::exit(1);
            }
            drop(permit);
        });
    }
    // Once all permits are here, nothing is in flight.
    let _all = room.acquire_many(u32::try_from(CONCURRENCY)?).await?;
    Ok(())
}

async fn post(url: &str, org: &str, bucket: &str, token: &str, rows: u64) -> Result<()> {
    let client = reqwest::Client::new();
    let url = format!("{url}/api/v2/write?org={org}&bucket={bucket}&precision=us");
    let mut value = 0;
    while value < rows {
        let end = (value + POINTS).min(rows);
        let body: String = (value..end).map(|value| row(value).to_line("bare")).collect();
        let answer = client.post(&url).header("Authorization", format!("Token {token}")).body(body).send().await?;
        ensure!(answer.status() == 204, "the server says {}: {}", answer.status(), answer.text().await?);
        value = end;
    }
    Ok(())
}
