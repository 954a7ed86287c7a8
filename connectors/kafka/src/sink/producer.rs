//! The producer: its configuration, its life, and the waiting for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use acequia_connector_api::{Batch, ConnectorError, Context};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::config::KafkaSink;
use super::ledger::{Delivered, Failure, Ledger, Parcel, tag};
use super::message::Message;
use super::reporter::Reporter;
use super::topics::{self, not_taken};
use crate::blocking::Apart;
use crate::client::{Properties, Property};
use crate::clock::Clock;

/// How long nothing may get through before that is said. Not longer: a pipeline that stops waits for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long nothing may get through although the brokers answer, before the producer is taken to be stuck.
const STUCK: Duration = Duration::from_secs(60);
/// How often a waiting writer looks by itself.
const LOOK: Duration = Duration::from_millis(50);
/// Memory for messages that are on their way, in KiB, unless the properties say otherwise.
const QUEUE: i64 = 64 << 10;
/// librdkafka's own default for the largest batch, in bytes.
const BATCH: usize = 1_000_000;

/// The producer of one sink.
pub(super) struct Producer {
    inner: Apart<ThreadedProducer<Delivered>>,
    pub(super) ledger: Arc<Ledger>,
    reporter: Reporter,
    /// Messages have the time of sending.
    own_time: bool,
    clock: Mutex<Clock>,
    /// Reaches the brokers, without anything that only a producer has.
    plain: ClientConfig,
    /// A batch of several messages is not larger than this.
    pub(super) batch_size: usize,
    /// A message is not larger than this.
    pub(super) message_max: usize,
}

/// Why a message was not taken.
pub(super) enum NotSent {
    /// The queue is full: wait for room.
    Full,
    /// This message can't be sent.
    Message(String),
    /// Nothing can be sent any more.
    Broken(ConnectorError),
}

impl Producer {
    /// `limit` is the topic's, if it is known; `transactional_id` makes it transactional.
    pub(super) fn new(
        config: &KafkaSink,
        context: &Context,
        plain: ClientConfig,
        reporter: Reporter,
        limit: Option<usize>,
        transactional_id: Option<&str>,
    ) -> Result<Self, ConnectorError> {
        let queue = whole(&config.properties, "queue.buffering.max.kbytes").unwrap_or(QUEUE);
        // A message that is larger than the queue would wait for room forever.
        let most = queue.saturating_mul(1024).clamp(1000, 1_000_000_000);
        let message_max = whole(&config.properties, "message.max.bytes").unwrap_or(most);
        let batch_size = limit.map_or(BATCH, |limit| limit.min(BATCH));
        let batch_size = whole(&config.properties, "batch.size").map_or(batch_size, to_usize);
        let numbers = [queue.to_string(), message_max.to_string(), batch_size.to_string()];
        let timeout = config.transaction_timeout.0.as_millis().to_string();
        let mut defaults = vec![
            ("enable.idempotence", "true"),
            // Keys land where Java's clients put them.
            ("partitioner", "murmur2_random"),
            ("compression.codec", config.compression.name()),
            ("queue.buffering.max.kbytes", &numbers[0]),
            ("message.max.bytes", &numbers[1]),
            ("batch.size", &numbers[2]),
            ("reconnect.backoff.max.ms", "2000"),
            // A leader that has moved while nothing was sent is found soon.
            ("topic.metadata.refresh.interval.ms", "10000"),
        ];
        match transactional_id {
            Some(id) => defaults.extend([("transactional.id", id), ("transaction.timeout.ms", &timeout)]),
            // The engine waits for the brokers, however long it takes.
            None => defaults.push(("message.timeout.ms", "0")),
        }
        let settings = config.client().config(context, &defaults)?;
        let ledger = Arc::new(Ledger::new(reporter.clone()));
        let inner =
            ThreadedProducer::from_config_and_context(&settings, Delivered(ledger.clone())).map_err(not_taken)?;
        let inner = Apart::new(inner);
        let own_time = config.timestamp.is_none();
        let clock = Mutex::new(Clock::new());
        Ok(Producer { inner, ledger, reporter, own_time, clock, plain, batch_size, message_max: to_usize(message_max) })
    }

    /// librdkafka's own handle, for calls that block.
    pub(super) fn handle(&self) -> Apart<ThreadedProducer<Delivered>> {
        self.inner.clone()
    }

    /// Hand a message to librdkafka. Does not block.
    pub(super) fn send(&self, message: &Message<'_>, parcel: Parcel, row: u32) -> Result<(), NotSent> {
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(message.topic, tag(parcel, row));
        record.key = message.key;
        record.payload = message.value;
        record.partition = message.partition;
        record.timestamp = message.timestamp;
        record.headers = message.headers.build();
        let Err((error, _)) = self.inner.send(record) else { return Ok(()) };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Err(NotSent::Full),
            Some(code) => match self.row_error(code, message.topic) {
                Some(reason) => Err(NotSent::Message(reason)),
                None => Err(NotSent::Broken(self.broken(&error))),
            },
            None => Err(NotSent::Broken(self.broken(&error))),
        }
    }

    /// Several rows that were handed over are open until they are settled: `count` of them.
    pub(super) fn open(&self, batch: Arc<Batch>, count: usize) -> Parcel {
        self.clock().observe();
        self.ledger.open(batch, count)
    }

    /// Wait until there may be room for another message.
    pub(super) async fn room(&self) -> Result<(), ConnectorError> {
        let (_, before) = self.ledger.counts();
        self.wait(|_, done| done != before).await
    }

    /// Wait until nothing is on its way any more.
    pub(super) async fn settled(&self) -> Result<(), ConnectorError> {
        self.wait(|outstanding, _| outstanding == 0).await
    }

    /// Wait for a condition on the numbers of messages that are on their way and done.
    ///
    /// # Errors
    /// Retryable, if nothing gets through for a while: the messages stay where they are.
    async fn wait(&self, until: impl Fn(usize, u64) -> bool) -> Result<(), ConnectorError> {
        let (_, mut seen) = self.ledger.counts();
        let mut last = Instant::now();
        loop {
            let (outstanding, done) = self.ledger.counts();
            if until(outstanding, done) {
                return Ok(());
            }
            self.clock().look()?;
            if done != seen {
                seen = done;
                last = Instant::now();
                self.reporter.clear();
            }
            if let Some((code, reason)) = self.inner.client().fatal_error() {
                return Err(fatal(code, &reason));
            }
            if last.elapsed() > PATIENCE {
                if self.ledger.stalled() > STUCK && topics::reach(&self.plain, &self.reporter).await.is_ok() {
                    return Err(ConnectorError::failed(format!(
                        "the brokers answer, but have taken nothing for {STUCK:?}; {outstanding} messages wait"
                    )));
                }
                return Err(self.reporter.unreachable(&format!("{outstanding} messages wait to be delivered")));
            }
            // In time or not: it looks again.
            let _ = tokio::time::timeout(LOOK, self.ledger.changed()).await;
        }
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a failed delivery means: a reason for the row, or an error for the whole sink.
    pub(super) fn judge(&self, failure: &Failure, topic: &str) -> Result<String, ConnectorError> {
        match self.row_error(failure.error, topic) {
            Some(reason) => Ok(reason),
            None => Err(self.broken(&KafkaError::MessageProduction(failure.error))),
        }
    }

    /// What a failed delivery means for a transaction.
    pub(super) fn void(&self, code: &RDKafkaErrorCode, topic: &str) -> ConnectorError {
        match self.row_error(*code, topic) {
            Some(reason) if self.inner.client().fatal_error().is_none() => {
                ConnectorError::failed(format!("the transaction is void, since {reason}"))
            }
            _ => self.broken(&KafkaError::MessageProduction(*code)),
        }
    }

    /// Why the brokers don't take a row, if it is about that row alone.
    fn row_error(&self, code: RDKafkaErrorCode, topic: &str) -> Option<String> {
        // The time of sending is no fault of the row: this machine's clock is wrong, for all rows and not for ever.
        if self.own_time && code == RDKafkaErrorCode::InvalidTimestamp { None } else { row_error(code, topic) }
    }

    fn broken(&self, error: &KafkaError) -> ConnectorError {
        match self.inner.client().fatal_error() {
            Some((code, reason)) => fatal(code, &reason),
            None => ConnectorError::failed(match error.rdkafka_error_code() {
                Some(code @ RDKafkaErrorCode::InvalidTimestamp) => format!(
                    "a message was not delivered: {code}: this machine's clock and the brokers' differ by more than \
                     `message.timestamp.before.max.ms` or `after.max.ms` allow"
                ),
                Some(code) => format!("a message was not delivered: {code}"),
                None => format!("a message was not delivered: {error}"),
            }),
        }
    }
}

/// An error after which a producer can't go on.
pub(super) fn fatal(code: RDKafkaErrorCode, reason: &str) -> ConnectorError {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    ConnectorError::failed(match code {
        Fenced | ProducerFenced | InvalidProducerEpoch => format!(
            "another producer has taken over the transactional id, or the transaction took longer than \
             `transaction_timeout`: {reason}"
        ),
        _ => format!("the producer can't go on: {reason}"),
    })
}

/// Why the brokers don't take a row, if it is about that row alone.
fn row_error(code: RDKafkaErrorCode, topic: &str) -> Option<String> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::MessageSizeTooLarge => format!("the message is larger than topic `{topic}` takes (`max.message.bytes`)"),
        Code::UnknownPartition => format!("topic `{topic}` does not have this partition"),
        Code::InvalidRecord => format!("topic `{topic}` does not take the message: {code}"),
        Code::InvalidTimestamp => format!("topic `{topic}` does not take the message's time: {code}"),
        _ => return None,
    })
}

fn whole(properties: &Properties, name: &str) -> Option<i64> {
    match properties.get(name)? {
        Property::Integer(number) => Some(*number),
        other => other.to_string().parse().ok(),
    }
}

fn to_usize(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}
