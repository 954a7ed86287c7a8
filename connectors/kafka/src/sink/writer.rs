//! The running sink.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use acequia_connector_api::{Batch, ConnectorError, Context, FailedRow, Flushed, Handoff, Sink};
use async_trait::async_trait;
use serde_json::Value;

use super::config::KafkaSink;
use super::ledger::{Failure, Parcel};
use super::message::{Message, Messages, Shape};
use super::producer::{NotSent, Producer};
use super::reporter::Reporter;
use super::topics::{self, Facts, Topics};
use super::transactions::{self, Transactions};
use rdkafka::error::RDKafkaErrorCode;

/// Hands rows to librdkafka and counts them until they are delivered.
pub(super) struct Writer {
    shape: Shape,
    /// The topic of the configuration: what is wrong with it is wrong with the whole sink, not with a row.
    topic: Option<String>,
    clients: Option<Clients>,
    /// The batch that was taken in part when the last `write` failed.
    partial: Option<Partial>,
    /// Rows that the brokers refused since the last flush.
    failed: Vec<FailedRow>,
    /// Rows of batches that the brokers found too large; some of them may fit by themselves.
    singles: VecDeque<(Arc<Batch>, u32)>,
    /// The one of them that is on its way.
    single: Option<Parcel>,
    warned: HashSet<String>,
}

/// What is connected to the brokers. Taking it apart blocks.
struct Clients {
    topics: Topics,
    transactions: Option<Transactions>,
    producer: Producer,
    /// Bytes since nothing was on its way, to topics that take less than a batch of librdkafka.
    tight: usize,
}

impl Clients {
    /// Hand a message to librdkafka, or say why it can't be. `fixed` is the topic without which the sink can't go on.
    async fn hand_over(
        &mut self,
        message: &Message<'_>,
        parcel: Parcel,
        row: u32,
        fixed: Option<&str>,
    ) -> Result<Option<String>, ConnectorError> {
        let facts = match self.topics.look(message.topic).await? {
            Ok(facts) => facts,
            Err(reason) if fixed == Some(message.topic) => return Err(ConnectorError::failed(reason)),
            Err(reason) => return Ok(Some(reason)),
        };
        let size = message.size();
        if let Some(reason) = unfit(&facts, size, self.producer.message_max, message.key.is_some(), message.topic) {
            return Ok(Some(reason));
        }
        if let Some(partition) = message.partition
            && !self.topics.has_partition(message.topic, partition).await?
        {
            return Ok(Some(format!("topic `{}` has no partition {partition}", message.topic)));
        }
        if let Some(transactions) = &mut self.transactions {
            transactions.begin(message.topic).await?;
        }
        if facts.limit < self.producer.batch_size {
            // librdkafka would make batches that are too large for this topic.
            if self.tight > 0 && self.tight + size > facts.limit {
                self.producer.settled().await?;
                self.tight = 0;
            }
            self.tight += size;
        }
        loop {
            match self.producer.send(message, parcel, row) {
                Ok(()) => return Ok(None),
                Err(NotSent::Full) => self.producer.room().await?,
                Err(NotSent::Message(reason)) => return Ok(Some(reason)),
                Err(NotSent::Broken(error)) => return Err(error),
            }
        }
    }
}

/// A batch on its way into the producer.
struct Partial {
    batch: Arc<Batch>,
    messages: Messages,
    parcel: Parcel,
    next: usize,
    failed: Vec<FailedRow>,
}

impl Writer {
    pub(super) async fn open(
        config: &KafkaSink,
        context: &Context,
        state: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        let reporter = Reporter::new(&context.pipeline, &context.stage, &config.brokers);
        let settings = config.client().config(context, &[("reconnect.backoff.max.ms", "2000")])?;
        topics::reach(&settings, &reporter).await?;
        let mut topics = Topics::new(&settings, reporter.clone(), config.create)?;
        let mut limit = None;
        if let Some(topic) = &config.topic {
            let facts = topics.look(topic).await?.map_err(ConnectorError::failed)?;
            if facts.compacted && config.key.is_none() {
                return Err(ConnectorError::failed(format!(
                    "topic `{topic}` is compacted, so each message needs a key: name its column in `key`"
                )));
            }
            limit = Some(facts.limit);
        }
        let identity = config.transactional().then(|| transactions::identity(config, context, state));
        let id = identity.as_ref().map(|(id, _)| id.as_str());
        let producer = Producer::new(config, context, settings, reporter.clone(), limit, id)?;
        let transactions = match identity {
            Some(identity) => Some(Transactions::open(config, context, reporter, &producer, identity).await?),
            None => None,
        };
        Ok(Writer {
            shape: Shape::new(config),
            topic: config.topic.clone(),
            clients: Some(Clients { topics, transactions, producer, tight: 0 }),
            partial: None,
            failed: Vec::new(),
            singles: VecDeque::new(),
            single: None,
            warned: HashSet::new(),
        })
    }

    fn clients(&mut self) -> Result<&mut Clients, ConnectorError> {
        self.clients.as_mut().ok_or_else(closed)
    }

    /// Encode a batch. `None`: no row of it can be, and all of them failed.
    fn begin(&mut self, batch: &Batch) -> Result<Result<Partial, Vec<FailedRow>>, ConnectorError> {
        let messages = match self.shape.messages(&batch.rows) {
            Ok(messages) => messages,
            Err(error) => {
                let reason = error.to_string();
                return Ok(Err((0..batch.len()).map(|row| batch.fail(row, reason.clone())).collect()));
            }
        };
        for column in &messages.missing {
            if self.warned.insert(column.clone()) {
                tracing::warn!(column, "the rows do not have this column, which the sink uses: it is taken as null");
            }
        }
        let batch = Arc::new(Batch::new(batch.rows.clone(), batch.origin.clone()));
        let parcel = self.clients()?.producer.open(batch.clone(), batch.len());
        Ok(Ok(Partial { batch, messages, parcel, next: 0, failed: Vec::new() }))
    }

    /// Hand over the rows of a batch that are left.
    async fn enqueue(&mut self, partial: &mut Partial) -> Result<(), ConnectorError> {
        let clients = self.clients.as_mut().ok_or_else(closed)?;
        while partial.next < partial.batch.len() {
            let row = partial.next;
            let refused = match partial.messages.get(row) {
                Ok(message) => clients.hand_over(&message, partial.parcel, row as u32, self.topic.as_deref()).await?,
                Err(reason) => Some(reason),
            };
            if let Some(reason) = refused {
                partial.failed.push(partial.batch.fail(row, reason));
                clients.producer.ledger.forget(partial.parcel, 1);
            }
            partial.next += 1;
        }
        Ok(())
    }

    /// Take what was given up since the last time: rows that fail, and rows that are tried again by themselves.
    fn sort_failures(&mut self) -> Result<(), ConnectorError> {
        let single = self.single.take();
        let failures = self.clients()?.producer.ledger.failures();
        let exactly_once = self.clients()?.transactions.is_some();
        for failure in failures {
            let Failure { parcel, batch, row, error } = &failure;
            if exactly_once {
                // The whole transaction is void with it.
                let topic = self.topic_of(batch, *row);
                return Err(self.clients()?.producer.void(error, &topic));
            }
            if *error == RDKafkaErrorCode::MessageSizeTooLarge && single != Some(*parcel) {
                self.singles.push_back((batch.clone(), *row));
                continue;
            }
            let topic = self.topic_of(batch, *row);
            let unknown = matches!(
                error,
                RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed
            );
            let reason = if unknown && self.topic.as_ref() != Some(&topic) {
                format!("topic `{topic}` can't be written: {error}")
            } else {
                self.clients()?.producer.judge(&failure, &topic)?
            };
            self.failed.push(batch.fail(*row as usize, reason));
        }
        Ok(())
    }

    fn topic_of(&mut self, batch: &Batch, row: u32) -> String {
        let one = batch.rows.slice(row as usize, 1);
        let messages = self.shape.messages(&one).ok();
        let message = messages.as_ref().and_then(|messages| messages.get(0).ok());
        message.map(|message| message.topic.to_owned()).or_else(|| self.topic.clone()).unwrap_or_default()
    }

    /// Send one row by itself. Nothing else is on its way.
    fn send_single(&mut self, batch: Arc<Batch>, row: u32) -> Result<(), ConnectorError> {
        let one = batch.rows.slice(row as usize, 1);
        let messages = self.shape.messages(&one).map_err(|error| ConnectorError::failed(error.to_string()))?;
        let message = messages.get(0).map_err(ConnectorError::failed)?;
        let producer = &self.clients()?.producer;
        let parcel = producer.open(batch.clone(), 1);
        match producer.send(&message, parcel, row) {
            Ok(()) => self.single = Some(parcel),
            Err(NotSent::Full) => return Err(ConnectorError::failed("librdkafka's queue is full, though it is empty")),
            Err(NotSent::Broken(error)) => return Err(error),
            Err(NotSent::Message(reason)) => {
                producer.ledger.forget(parcel, 1);
                self.failed.push(batch.fail(row as usize, reason));
            }
        }
        Ok(())
    }
}

fn closed() -> ConnectorError {
    ConnectorError::failed("the sink is closed")
}

/// Why a topic won't take a message of that size.
fn unfit(facts: &Facts, size: usize, message_max: usize, has_key: bool, topic: &str) -> Option<String> {
    if size > facts.limit {
        return Some(format!(
            "the message has {size} bytes, but topic `{topic}` takes {} (`max.message.bytes`)",
            facts.limit
        ));
    }
    if size > message_max {
        return Some(format!("the message has {size} bytes, but `message.max.bytes` is {message_max}"));
    }
    if facts.compacted && !has_key {
        return Some(format!("topic `{topic}` is compacted, and the row has no key"));
    }
    None
}

#[async_trait]
impl Sink for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        let mut partial = match self.partial.take() {
            // The same batch again: the rest of it.
            Some(partial) => partial,
            None => match self.begin(batch)? {
                Ok(partial) => partial,
                Err(failed) => return Ok(failed),
            },
        };
        match self.enqueue(&mut partial).await {
            Ok(()) => Ok(partial.failed),
            Err(error) => {
                self.partial = Some(partial);
                Err(error)
            }
        }
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        loop {
            self.clients()?.producer.settled().await?;
            self.clients()?.tight = 0;
            self.sort_failures()?;
            match self.singles.pop_front() {
                Some((batch, row)) => self.send_single(batch, row)?,
                None => break,
            }
        }
        let state = self.clients()?.transactions.as_ref().and_then(Transactions::state);
        Ok(Flushed { failed: std::mem::take(&mut self.failed), state })
    }

    async fn committed(&mut self, handoff: Option<&Handoff>) -> Result<(), ConnectorError> {
        match &mut self.clients()?.transactions {
            Some(transactions) => transactions.commit(handoff).await,
            None => Ok(()),
        }
    }

    fn rolled_back(&self) -> bool {
        let transactions = self.clients.as_ref().and_then(|clients| clients.transactions.as_ref());
        transactions.is_some_and(Transactions::rolled_back)
    }

    async fn close(&mut self) {
        let mut clients = self.clients.take();
        if let Some(transactions) = clients.as_mut().and_then(|clients| clients.transactions.as_mut()) {
            transactions.abort().await;
        }
    }
}
