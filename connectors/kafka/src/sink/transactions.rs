//! Exactly once: a transaction for each checkpoint, and a mark by which a restart sees whether the last one was committed.
//!
//! The transactions are numbered. The number of the last one is in the sink's state, so in the checkpoint, before it is
//! committed; and it is committed with it, as the offset of a consumer group of the transactional id's name. A restart
//! first makes the cluster end the transaction of the process before (`init_transactions`), then compares the two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use acequia_connector_api::{ConnectorError, Context, Handoff};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::KafkaSink;
use super::ledger::Delivered;
use super::producer::{Producer, fatal};
use super::reporter::Reporter;
use super::topics::{ANSWER, not_taken};
use crate::blocking::{Apart, blocking};
use crate::offsets::ConsumerOffsets;

/// How long the cluster may take to end the transaction of a process that was killed.
const INIT: Duration = Duration::from_secs(60);
/// How long an abort may take; the cluster does it by itself if need be.
const ABORT: Duration = Duration::from_millis(800);

/// What is stored in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Under which name the transactions run.
    transactional_id: String,
    /// The number of the last transaction that the checkpoint covers; 0 is none.
    sequence: i64,
    /// The topic on whose partition 0 the number is committed.
    marker: Option<String>,
}

/// The transactions of one sink.
pub(super) struct Transactions {
    id: String,
    settings: ClientConfig,
    reporter: Reporter,
    handle: Apart<ThreadedProducer<Delivered>>,
    group: Arc<ConsumerGroupMetadata>,
    /// The brokers by which the cluster can be known.
    brokers: Vec<String>,
    marker: Option<String>,
    /// The number of the last transaction that was committed.
    sequence: i64,
    rolled_back: bool,
    /// A transaction is under way.
    begun: bool,
    /// It has messages.
    written: bool,
    /// Its number is in it.
    marked: bool,
    /// The source's offsets are in it.
    handed: bool,
}

/// The name of the transactions, and the state that goes with it.
pub(super) fn identity(config: &KafkaSink, context: &Context, state: Option<&Value>) -> (String, Option<State>) {
    let state = state.and_then(|state| serde_json::from_value::<State>(state.clone()).ok());
    let id = match (&config.transactional_id, &state) {
        (Some(id), _) => id.clone(),
        (None, Some(state)) => state.transactional_id.clone(),
        (None, None) => format!("acequia-{}-{:016x}", context.pipeline, rand::random::<u64>()),
    };
    let known = state.filter(|state| state.transactional_id == id);
    (id, known)
}

impl Transactions {
    /// End what an earlier process left behind, and find out what came of it.
    pub(super) async fn open(
        config: &KafkaSink,
        context: &Context,
        reporter: Reporter,
        producer: &Producer,
        identity: (String, Option<State>),
    ) -> Result<Self, ConnectorError> {
        let (id, state) = identity;
        let handle = producer.handle();
        init(&handle, &reporter).await?;
        let defaults = [("group.id", id.as_str()), ("enable.auto.commit", "false")];
        let settings = config.client().config(context, &defaults)?;
        let marker = state.as_ref().and_then(|state| state.marker.clone()).or_else(|| config.topic.clone());
        let (asked, helper, by) = (marker.clone(), settings.clone(), reporter.clone());
        let (group, found) = blocking(move || read_marker(&helper, &by, asked.as_deref())).await??;
        let (sequence, rolled_back) = match resolve(state.as_ref().map(|state| state.sequence), found) {
            Ok(resolved) => resolved,
            Err(reason) => {
                return Err(ConnectorError::failed(format!(
                    "it can't be told whether the last transaction of `{id}` was committed: {reason}; look at the end \
                     of the topic, and to go on from the last checkpoint as it is give the sink another \
                     `transactional_id`"
                )));
            }
        };
        let transactions = Transactions {
            id,
            settings,
            reporter,
            handle,
            group: Arc::new(group),
            brokers: config.brokers.clone(),
            marker,
            sequence,
            rolled_back,
            begun: false,
            written: false,
            marked: false,
            handed: false,
        };
        if !rolled_back {
            // Also renews it: the cluster forgets the offsets of a group that commits nothing for a week.
            transactions.mark().await?;
        }
        Ok(transactions)
    }

    pub(super) fn rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// Where it stands, once what was written is committed.
    pub(super) fn state(&self) -> Option<Value> {
        let sequence = self.sequence + i64::from(self.written);
        let state = State { transactional_id: self.id.clone(), sequence, marker: self.marker.clone() };
        serde_json::to_value(state).ok()
    }

    /// Before each message to `topic`, which is there.
    pub(super) async fn begin(&mut self, topic: &str) -> Result<(), ConnectorError> {
        if self.written {
            return Ok(());
        }
        if self.marker.is_none() {
            self.marker = Some(topic.to_owned());
            if let Err(error) = self.mark().await {
                self.marker = None;
                return Err(error);
            }
        }
        self.start().await?;
        self.written = true;
        Ok(())
    }

    async fn start(&mut self) -> Result<(), ConnectorError> {
        if !self.begun {
            let handle = self.handle.clone();
            let begun = blocking(move || handle.begin_transaction()).await?;
            begun.map_err(|error| self.judge(&error))?;
            self.begun = true;
        }
        Ok(())
    }

    /// Everything written is acknowledged, and the checkpoint is on disk.
    pub(super) async fn commit(&mut self, handoff: Option<&Handoff>) -> Result<(), ConnectorError> {
        let handoff = handoff.filter(|handoff| self.is_of_cluster(handoff));
        if handoff.is_some() {
            self.start().await?;
        }
        if !self.begun {
            return Ok(());
        }
        if self.written && !self.marked {
            let offsets = self.marks(self.sequence + 1)?;
            let (handle, group) = (self.handle.clone(), self.group.clone());
            let sent = blocking(move || handle.send_offsets_to_transaction(&offsets, &group, ANSWER)).await?;
            self.settle(sent).await?;
            self.marked = true;
        }
        if let (Some(handoff), false) = (handoff, self.handed) {
            let (handle, handoff) = (self.handle.clone(), handoff.clone());
            let sent = blocking(move || {
                let groups = handoff.get::<ConsumerOffsets>().map(|given| given.groups.as_slice()).unwrap_or_default();
                groups.iter().filter(|member| member.offsets.count() > 0).try_for_each(|member| {
                    handle.send_offsets_to_transaction(&member.offsets, &member.metadata, ANSWER)
                })
            });
            self.settle(sent.await?).await?;
            self.handed = true;
        }
        let handle = self.handle.clone();
        let committed = blocking(move || handle.commit_transaction(ANSWER)).await?;
        self.settle(committed).await?;
        self.sequence += i64::from(self.written);
        (self.begun, self.written, self.marked, self.handed) = (false, false, false, false);
        Ok(())
    }

    /// Whether the source's offsets are of this cluster, so that they can be part of the transaction. If so the source is
    /// told that it need not commit them.
    fn is_of_cluster(&self, handoff: &Handoff) -> bool {
        let Some(given) = handoff.get::<ConsumerOffsets>() else { return false };
        let same = given.brokers.iter().any(|broker| self.brokers.contains(broker));
        if same {
            given.claim();
        }
        same && given.groups.iter().any(|member| member.offsets.count() > 0)
    }

    async fn settle(&mut self, result: Result<(), KafkaError>) -> Result<(), ConnectorError> {
        let Err(error) = result else { return Ok(()) };
        if matches!(&error, KafkaError::Transaction(error) if error.txn_requires_abort()) {
            self.abort().await;
        }
        Err(self.judge(&error))
    }

    /// Drop the transaction that is under way, if there is time: else the cluster does.
    pub(super) async fn abort(&mut self) {
        if std::mem::take(&mut self.begun) {
            let handle = self.handle.clone();
            if let Ok(Err(error)) = blocking(move || handle.abort_transaction(ABORT)).await {
                tracing::debug!(id = self.id, %error, "the transaction is left to the cluster to abort");
            }
        }
    }

    fn judge(&self, error: &KafkaError) -> ConnectorError {
        if let Some((code, reason)) = self.handle.client().fatal_error() {
            return fatal(code, &reason);
        }
        match error {
            KafkaError::Transaction(error) if error.is_retriable() => self.reporter.unreachable(&error.string()),
            KafkaError::Transaction(error) => {
                ConnectorError::failed(format!("the transaction failed: {}", error.string()))
            }
            KafkaError::Flush(_) => self.reporter.unreachable("messages wait to be delivered"),
            error => ConnectorError::failed(format!("the transaction failed: {error}")),
        }
    }

    fn marks(&self, sequence: i64) -> Result<TopicPartitionList, ConnectorError> {
        let mut offsets = TopicPartitionList::new();
        if let Some(topic) = &self.marker {
            offsets.add_partition_offset(topic, 0, Offset::Offset(sequence)).map_err(|error| {
                ConnectorError::failed(format!("the transaction's number can't be written: {error}"))
            })?;
        }
        Ok(offsets)
    }

    /// Commit the number of the last transaction by itself, so that a number is always there to be read.
    async fn mark(&self) -> Result<(), ConnectorError> {
        if self.marker.is_none() {
            return Ok(());
        }
        let offsets = self.marks(self.sequence)?;
        let (settings, reporter) = (self.settings.clone(), self.reporter.clone());
        let committed = blocking(move || {
            let consumer = Apart::new(settings.create_with_context::<_, BaseConsumer<Reporter>>(reporter)?);
            consumer.commit(&offsets, CommitMode::Sync)
        });
        committed.await?.map_err(|error| group_error(&self.reporter, &self.id, &error))
    }
}

/// Make the cluster end the transaction of the process before, if there is one.
async fn init(handle: &Apart<ThreadedProducer<Delivered>>, reporter: &Reporter) -> Result<(), ConnectorError> {
    let start = Instant::now();
    loop {
        let own = handle.clone();
        let Err(error) = blocking(move || own.init_transactions(ANSWER)).await? else { return Ok(()) };
        if let Some((code, reason)) = handle.client().fatal_error() {
            return Err(fatal(code, &reason));
        }
        match &error {
            KafkaError::Transaction(error) if error.is_retriable() => {
                if start.elapsed() > INIT {
                    return Err(reporter.unreachable(&error.string()));
                }
            }
            KafkaError::Transaction(error) => {
                return Err(ConnectorError::failed(format!("transactions can't be used: {}", error.string())));
            }
            error => return Err(ConnectorError::failed(format!("transactions can't be used: {error}"))),
        }
    }
}

/// The number of the last transaction that was committed. Blocks.
fn read_marker(
    settings: &ClientConfig,
    reporter: &Reporter,
    topic: Option<&str>,
) -> Result<(ConsumerGroupMetadata, Option<i64>), ConnectorError> {
    let id = settings.get("group.id").unwrap_or_default().to_owned();
    let consumer: BaseConsumer<Reporter> = settings.create_with_context(reporter.clone()).map_err(not_taken)?;
    let consumer = Apart::new(consumer);
    let group = consumer.group_metadata().ok_or_else(|| ConnectorError::failed("librdkafka has no consumer group"))?;
    let Some(topic) = topic else { return Ok((group, None)) };
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, 0);
    let found = consumer.committed_offsets(asked, ANSWER * 2).map_err(|error| group_error(reporter, &id, &error))?;
    let found = found.find_partition(topic, 0);
    if let Some(Err(error)) = found.as_ref().map(|found| found.error()) {
        return Err(group_error(reporter, &id, &error));
    }
    Ok((group, found.and_then(|found| found.offset().to_raw()).filter(|offset| *offset >= 0)))
}

fn group_error(reporter: &Reporter, id: &str, error: &KafkaError) -> ConnectorError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => ConnectorError::failed(format!(
            "the user may not use the consumer group `{id}`, in which transactions are marked"
        )),
        Some(code) => reporter.unreachable(&format!("the consumer group `{id}`: {code}")),
        None => reporter.unreachable(&error.to_string()),
    }
}

/// The number to go on from, and whether the last transaction of the checkpoint was rolled back. `saved` is the
/// checkpoint's number, `found` the cluster's.
fn resolve(saved: Option<i64>, found: Option<i64>) -> Result<(i64, bool), String> {
    match (saved, found) {
        // A new state, or a new name: whatever was before is over.
        (None, found) => Ok((found.unwrap_or(0), false)),
        (Some(saved), Some(found)) if found == saved => Ok((saved, false)),
        (Some(saved), Some(found)) if found + 1 == saved => Ok((saved, true)),
        (Some(0), None) => Ok((0, false)),
        (Some(saved), Some(found)) => {
            Err(format!("the checkpoint is of transaction {saved}, but the cluster's last is {found}"))
        }
        (Some(_), None) => {
            Err("the cluster has forgotten it, since the topic was made anew or nothing was written for \
                                longer than `offsets.retention.minutes`"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_sees_what_was_committed() {
        assert_eq!(resolve(None, None), Ok((0, false)));
        assert_eq!(resolve(None, Some(7)), Ok((7, false)));
        assert_eq!(resolve(Some(0), None), Ok((0, false)));
        assert_eq!(resolve(Some(7), Some(7)), Ok((7, false)));
        assert_eq!(resolve(Some(7), Some(6)), Ok((7, true)));
        assert_eq!(resolve(Some(1), Some(0)), Ok((1, true)));
        for (saved, found) in [(7, Some(5)), (7, Some(8)), (7, None), (1, None)] {
            assert!(resolve(Some(saved), found).is_err(), "{saved} {found:?}");
        }
    }

    #[test]
    fn a_name_is_kept_unless_another_is_given() {
        let mut config: KafkaSink =
            toml::from_str("brokers = [\"127.0.0.1:9092\"]\ntopic = \"t\"\ndelivery = \"exactly_once\"").unwrap();
        let context = Context {
            pipeline: "p".to_owned(),
            stage: "sink".to_owned(),
            base: "/".into(),
            batch: acequia_connector_api::BatchLimits::default(),
            tasks: 1,
            reads: None,
            share: Default::default(),
        };
        let (made, none) = identity(&config, &context, None);
        assert!(made.starts_with("acequia-p-") && none.is_none());
        let state = State { transactional_id: made.clone(), sequence: 3, marker: Some("t".to_owned()) };
        let stored = serde_json::to_value(&state).unwrap();
        assert_eq!(identity(&config, &context, Some(&stored)), (made, Some(state)));
        config.transactional_id = Some("mine".to_owned());
        assert_eq!(identity(&config, &context, Some(&stored)), ("mine".to_owned(), None));
    }
}
