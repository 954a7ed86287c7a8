//! What librdkafka tells a consumer: partitions that come and go, errors, log lines.
//!
//! All of it runs in the thread that polls. While a partition is taken away the thread waits here for a checkpoint;
//! librdkafka's own threads keep the membership alive meanwhile.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::commit;
use super::messages::Inbox;
use super::partition::partition_name;
use super::start::{self, Plan};
use super::state::{Begin, Shared, Waited};

/// How often the brokers are asked for where to begin.
const ATTEMPTS: u32 = 3;
/// This many lines of librdkafka's of one level are logged within [`LOG_WINDOW`].
const LOG_LINES: u32 = 10;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// One consumer's view of its source.
pub(super) struct Events {
    pub(super) member: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) plan: Arc<Plan>,
    /// The brokers, for messages.
    pub(super) brokers: String,
    /// How long a partition that is to go may wait for its checkpoint.
    pub(super) patience: Duration,
    /// Counts the times that partitions came or went.
    pub(super) changes: AtomicU64,
    /// Where the messages of its partitions go.
    pub(super) inbox: Arc<Inbox>,
    /// What the last connection died of; `all brokers are down` alone helps no one.
    cause: Mutex<Option<Cause>>,
    lines: Mutex<[(Option<Instant>, u32); 8]>,
    suppressed: AtomicU32,
}

/// Why a connection failed.
#[derive(Clone, Debug)]
struct Cause {
    /// The broker is there and does not let us in.
    refused: bool,
    reason: String,
}

impl Events {
    pub(super) fn new(
        member: usize,
        shared: Arc<Shared>,
        plan: Arc<Plan>,
        brokers: String,
        patience: Duration,
    ) -> Self {
        Events {
            member,
            shared,
            plan,
            brokers,
            patience,
            changes: AtomicU64::new(0),
            inbox: Arc::default(),
            cause: Mutex::default(),
            lines: Mutex::default(),
            suppressed: AtomicU32::new(0),
        }
    }

    /// Find where to begin; the source fails if that can't be found out.
    pub(super) fn begin(&self, consumer: &BaseConsumer<Self>, partitions: &[(String, i32)]) -> Option<Vec<Begin>> {
        let mut attempt = 1;
        loop {
            match start::resolve(consumer, &self.shared, &self.plan, partitions) {
                Ok(begins) => return Some(begins),
                Err(_) if self.shared.is_closing() => return None,
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    let names: Vec<_> =
                        partitions.iter().map(|(topic, number)| partition_name(topic, *number)).collect();
                    self.shared.fail(format!("can't find out where to begin with {}: {error}", names.join(", ")));
                    return None;
                }
            }
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let partitions = partitions_of(list);
        let names = names_of(&partitions);
        self.shared.seize(self.member, &names);
        self.inbox.collect(consumer, &partitions);
        // Without a beginning they are assigned all the same, or the group would wait for this member; what comes of them is
        // ignored, and the source is about to start again.
        let Some(begins) = self.begin(consumer, &partitions) else { return };
        for begin in &begins {
            if let Err(error) = list.set_partition_offset(&begin.topic, begin.number, Offset::Offset(begin.offset)) {
                self.shared.fail(format!("can't begin with {}/{}: {error}", begin.topic, begin.number));
                return;
            }
        }
        self.shared.assign(self.member, &begins);
        if !begins.is_empty() {
            tracing::info!(pipeline = self.plan.pipeline, partitions = names.join(", "), "partitions assigned");
            // Where it began must not be forgotten if the next row is long in coming.
            self.shared.want_checkpoint();
        }
        self.shared.all_is_well();
    }

    /// Rows that were handed out of these partitions are confirmed, and the group knows, before they go.
    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        let names = names_of(&partitions);
        let confirmed = self.shared.hold(self.member, &names);
        let lost = consumer.assignment_lost();
        if !names.is_empty() && !self.shared.is_closing() {
            tracing::info!(pipeline = self.plan.pipeline, partitions = names.join(", "), lost, "partitions revoked");
        }
        if !confirmed && lost {
            self.shared.fail(format!(
                "{} were taken away before what was read of them was confirmed: the consumer was not heard of for too long",
                names.join(", ")
            ));
        } else if !confirmed {
            match self.shared.wait_for_checkpoint(self.member, &names, self.patience) {
                Waited::Confirmed | Waited::Closing => {}
                Waited::TooLong => self.shared.fail(format!(
                    "{} had to go to another member of the group, and the sinks did not confirm what was read of them within {:?}",
                    names.join(", "), self.patience
                )),
            }
        }
        if !lost
            && let Some(offsets) = self.shared.uncommitted(self.member, &names)
            && let Err(error) = commit::wait(consumer, &offsets)
        {
            tracing::warn!(pipeline = self.plan.pipeline, partitions = names.join(", "), error = %error,
                "the offsets of revoked partitions could not be committed: their next reader may read some rows again");
        }
        self.shared.release(self.member, &names);
        // librdkafka keeps a partition paused that goes meanwhile: if it came back, nothing of it would ever be read. What is
        // not paused is not touched.
        if let Err(error) = consumer.resume(list) {
            tracing::warn!(pipeline = self.plan.pipeline, partitions = names.join(", "), error = %error,
                "partitions that are revoked could not be resumed");
        }
    }

    pub(super) fn is_rate_limited(&self, level: RDKafkaLogLevel) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, count)) = lines.get_mut(level as usize) else { return false };
        if since.is_none_or(|since| since.elapsed() > LOG_WINDOW) {
            (*since, *count) = (Some(Instant::now()), 0);
        }
        *count += 1;
        *count > LOG_LINES
    }

    fn remember(&self, refused: bool, reason: &str) {
        let cause = Cause { refused, reason: reason.to_owned() };
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    /// Why the brokers can't be reached, as far as is known: what, and why.
    pub(super) fn trouble(&self, otherwise: &str) -> (String, String) {
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match cause {
            Some(Cause { refused: true, reason }) => {
                (format!("the Kafka brokers {} refuse the user", self.brokers), reason)
            }
            Some(Cause { reason, .. }) => (format!("can't reach the Kafka brokers {}", self.brokers), reason),
            None => (format!("can't reach the Kafka brokers {}", self.brokers), otherwise.to_owned()),
        }
    }
}

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

fn names_of(partitions: &[(String, i32)]) -> Vec<String> {
    partitions.iter().map(|(topic, number)| partition_name(topic, *number)).collect()
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if self.is_rate_limited(level) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        let pipeline = &self.plan.pipeline;
        match level {
            // A connection that failed. If no other broker is left the source says so itself.
            _ if facility == "FAIL" => tracing::info!(pipeline, facility, suppressed, "librdkafka: {message}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(pipeline, facility, suppressed, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(pipeline, facility, suppressed, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(pipeline, facility, suppressed, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        match code {
            RDKafkaErrorCode::PartitionEOF => {}
            RDKafkaErrorCode::AllBrokersDown => {
                let (message, cause) = self.trouble(reason);
                self.shared.trouble(message, cause);
            }
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                self.remember(true, reason);
                let (message, cause) = self.trouble(reason);
                self.shared.trouble(message, cause);
            }
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::OperationTimedOut => self.remember(false, reason),
            RDKafkaErrorCode::Fatal => self.shared.fail(format!("the consumer can't go on: {reason}")),
            _ => self.shared.trouble("the Kafka brokers report an error".to_owned(), reason.to_owned()),
        }
    }
}

impl ConsumerContext for Events {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(consumer, list);
            if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) }
        } else {
            self.revoked(consumer, list);
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        self.changes.fetch_add(1, Ordering::Release);
        if let Err(error) = result {
            self.shared.fail(format!("the partitions could not be taken over: {error}"));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Ok(()) => self.shared.committed(offsets, None),
            // An answer to the generation before. The next checkpoint commits them in the new one.
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration,
            )) => self.shared.refused(offsets),
            Err(error) => self.shared.committed(offsets, Some(error.to_string())),
        }
    }
}
