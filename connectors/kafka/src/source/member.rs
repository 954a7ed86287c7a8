//! The thread that polls one consumer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use acequia_connector_api::BatchLimits;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::chunk::{Chunk, Wanted};
use super::messages::{Incoming, Message, Signal};
use super::partition::{Partition, partition_name};
use super::rebalance::{Events, partitions_of};
use super::state::Begin;
use crate::blocking::close;

pub(super) type Consuming = BaseConsumer<Events>;

/// How long the thread waits for something to come: as long as the source's end may go unseen.
const POLL: Duration = Duration::from_millis(50);
/// Where nothing else is to be done records do not wait for others, but under load they do for so long: many small batches
/// would take more time of the processor than the same rows in few.
const GATHER: Duration = Duration::from_millis(5);
/// How soon it is seen that a partition's messages go astray.
const COLLECT: Duration = Duration::from_millis(200);
/// How long the thread waits for room before it has the partitions paused. Pausing throws away what was read ahead, so it
/// is not for the usual short waits.
const SHORT: Duration = Duration::from_secs(2);
/// While there is trouble, and nothing comes: how often the brokers are asked whether it is over.
const ASK: Duration = Duration::from_secs(1);

/// The partitions of a consumer that reads to their ends, each with its end.
pub(super) type Bounded = Vec<(String, i32, i64)>;

/// What the source keeps of a consumer. The consumer itself belongs to its thread.
pub(super) struct Member {
    pub(super) consumer: Weak<Consuming>,
    /// Has the thread look around.
    pub(super) signal: Arc<Signal>,
    /// Resolves when the thread has ended.
    pub(super) ended: oneshot::Receiver<()>,
}

pub(super) struct Poller {
    /// Dropped before the consumer.
    incoming: Incoming,
    consumer: Arc<Consuming>,
    chunks: mpsc::Sender<Chunk>,
    limits: BatchLimits,
    wanted: Wanted,
    runtime: Handle,
    bounded: Option<Bounded>,
    chunk: Chunk,
    /// When the chunk's first record came.
    since: Option<Instant>,
    /// When the last one was handed over.
    handed: Instant,
    /// For each partition of the chunk where it ends.
    ends: Vec<i64>,
    /// The topic, the number and the index of the partition of the last record.
    turn: Option<(usize, i32, usize)>,
    /// [`Events::changes`] when a record was last taken.
    changes: u64,
    /// Counts the polls that brought one.
    polls: u64,
    /// The chunk's partitions before this one are of a time before partitions came or went.
    first: usize,
    /// Partitions with an end that is not reached.
    open: usize,
    /// All of them are at their end.
    finished: bool,
    last_heard: Instant,
}

/// Start the thread.
pub(super) fn start(
    mut consumer: Consuming,
    chunks: mpsc::Sender<Chunk>,
    limits: BatchLimits,
    wanted: Wanted,
    bounded: Option<Bounded>,
) -> std::io::Result<Member> {
    let inbox = consumer.context().inbox.clone();
    let signal = inbox.signal.clone();
    let incoming = Incoming::open(&mut consumer, inbox);
    let consumer = Arc::new(consumer);
    let weak = Arc::downgrade(&consumer);
    let (end, ended) = oneshot::channel();
    let poller = Poller {
        incoming,
        consumer,
        chunks,
        limits,
        wanted,
        runtime: Handle::current(),
        bounded,
        chunk: Chunk::default(),
        since: None,
        handed: Instant::now(),
        ends: Vec::new(),
        turn: None,
        changes: 0,
        polls: 0,
        first: 0,
        open: 0,
        finished: false,
        last_heard: Instant::now(),
    };
    std::thread::Builder::new().name("kafka-source".to_owned()).spawn(move || {
        poller.run();
        drop(end);
    })?;
    Ok(Member { consumer: weak, signal, ended })
}

impl Poller {
    fn events(&self) -> &Events {
        self.consumer.context()
    }

    fn run(mut self) {
        let consumer = self.consumer.clone();
        let begun = self.bounded.take().is_none_or(|bounded| self.begin_bounded(bounded));
        if begun {
            self.read(&consumer);
        } else {
            self.wait_for_close(&consumer);
        }
        // Takes it out of the group.
        close(&consumer);
    }

    fn read(&mut self, consumer: &Consuming) {
        let mut collected = Instant::now();
        while !self.events().shared.is_closing() {
            let got = self.poll(consumer);
            if collected.elapsed() >= COLLECT {
                self.collect_again(consumer);
                collected = Instant::now();
            }
            // So long rows gather.
            let gather = GATHER.saturating_sub(self.handed.elapsed());
            // What has come together stays together.
            if self.is_due(!got && gather.is_zero()) && !self.hand_over() {
                return;
            }
            if self.finished {
                self.finish();
                return self.wait_for_close(consumer);
            }
            if !got {
                self.ask_in_trouble();
                let due = self.since.map(|since| {
                    let late = self.limits.wait.0.saturating_sub(since.elapsed());
                    // If others are on their way by then, the end of that is told.
                    if gather.is_zero() { late } else { late.min(gather) }
                });
                self.incoming.wait(due.unwrap_or(POLL).min(POLL));
            }
        }
    }

    /// librdkafka forgets where a partition's messages go when it stops fetching them, which it may do only after the
    /// partition has been assigned anew (`rd_kafka_toppar_fetch_stop`, run by another thread). They would wait in its own queue
    /// for ever.
    fn collect_again(&self, consumer: &Consuming) {
        if let Ok(partitions) = consumer.assignment() {
            self.events().inbox.collect(consumer, &partitions_of(&partitions));
        }
    }

    fn wait_for_close(&self, consumer: &Consuming) {
        while !self.events().shared.is_closing() && !self.chunks.is_closed() {
            self.serve(consumer);
            self.incoming.wait(POLL);
        }
    }

    /// Take the messages that have come, as many as have room in the chunk, and then all else that has come. Returns whether
    /// there were messages.
    ///
    /// In this order: what was taken before partitions come or go is in the chunk by then.
    fn poll(&mut self, consumer: &Consuming) -> bool {
        let rows = self.limits.rows.max(1).saturating_sub(self.chunk.len());
        let bytes = self.limits.bytes.as_usize().saturating_sub(self.chunk.bytes());
        let messages = self.incoming.take(rows, bytes);
        self.polls = self.polls.wrapping_add(u64::from(!messages.is_empty()));
        for message in &messages {
            match message.error() {
                None => self.take(message),
                Some(RDKafkaErrorCode::PartitionEOF) => self.reached_end(message.partition()),
                Some(code @ RDKafkaErrorCode::Fatal) => self.note(&KafkaError::MessageConsumptionFatal(code)),
                Some(_) => {}
            }
        }
        self.serve(consumer);
        !messages.is_empty()
    }

    /// See to what is no message. It may run the rebalance callback.
    fn serve(&self, consumer: &Consuming) {
        loop {
            match consumer.poll(Duration::ZERO) {
                // Messages do not come here. Were it ever not so, none must be lost.
                Some(Ok(message)) => {
                    let name = partition_name(message.topic(), message.partition());
                    self.events().shared.fail(format!("a message of {name} came astray"));
                }
                Some(Err(error)) => self.note(&error),
                // Also what a callback got is nothing.
                None => {}
            }
            if !self.incoming.has_events() {
                return;
            }
        }
    }

    fn note(&self, error: &KafkaError) {
        // The callback has it, with its reason.
        if let KafkaError::MessageConsumptionFatal(code) = error {
            self.events().shared.fail(format!("the consumer can't go on: {code}"));
        }
    }

    fn take(&mut self, message: &Message) {
        let changes = self.events().changes.load(Ordering::Acquire);
        if changes != self.changes {
            // A partition that went and came back is another one.
            self.changes = changes;
            self.first = self.chunk.partitions.len();
            self.turn = None;
        }
        let Some(index) = self.index_of(message) else { return };
        let (Some((partition, _)), Some(&end)) = (self.chunk.partitions.get(index), self.ends.get(index)) else {
            return;
        };
        if !partition.take(message.offset(), self.polls, changes) {
            return;
        }
        if message.offset() < end {
            if self.chunk.is_empty() {
                self.since = Some(Instant::now());
            }
            self.chunk.push(index, message, self.wanted);
        }
        if message.offset().saturating_add(1) >= end {
            self.close_partition(index);
        }
        if self.chunk.len() <= 1 {
            self.last_heard = Instant::now();
            if self.events().shared.problem.borrow().is_some() {
                self.events().shared.all_is_well();
            }
        }
    }

    /// Which of the chunk's partitions a message is of; none if it is no longer this member's.
    fn index_of(&mut self, message: &Message) -> Option<usize> {
        let (id, number) = (message.topic_id(), message.partition());
        if let Some((_, _, index)) = self.turn.filter(|turn| (turn.0, turn.1) == (id, number)) {
            return Some(index);
        }
        let topic = message.topic();
        let is = |partition: &Partition| partition.number == number && partition.topic == topic;
        let found = self.chunk.partitions.iter().skip(self.first).position(|(partition, _)| is(partition));
        let index = match found {
            Some(index) => self.first + index,
            None => {
                let events = self.consumer.context();
                let partition = events.shared.find(events.member, topic, number)?;
                // Nothing of it is in the chunk yet; a repeat must not take back what has been handed out.
                let next = partition.next().max(message.offset());
                self.chunk.partitions.push((partition, next));
                self.ends.push(i64::MAX);
                self.chunk.partitions.len() - 1
            }
        };
        self.turn = Some((id, number, index));
        Some(index)
    }

    /// Whether the chunk is full, or has waited long enough: no time at all where there is nothing else to be done.
    fn is_due(&self, gathered: bool) -> bool {
        let rows = self.chunk.len();
        let full = rows >= self.limits.rows.max(1) || self.chunk.bytes() >= self.limits.bytes.as_usize();
        let is_late = || self.since.is_some_and(|since| since.elapsed() >= self.limits.wait.0);
        let is_alone = || gathered && self.events().shared.pace.is_idle();
        full || (rows > 0 && (is_late() || is_alone()))
    }

    /// Pass the chunk on, and begin another. False if no one takes it.
    fn hand_over(&mut self) -> bool {
        let mut next = Chunk::like(&self.chunk);
        if self.open > 0 {
            // A consumer with an end keeps its partitions: they never change.
            next.partitions.clone_from(&self.chunk.partitions);
        } else {
            self.ends.clear();
            self.first = 0;
            self.turn = None;
        }
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.since = None;
        self.handed = Instant::now();
        self.events().shared.pace.leaves();
        match self.chunks.try_send(chunk) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(chunk)) => self.wait_for_room(chunk),
        }
    }

    /// The pipeline is slower than Kafka. After a while the partitions are paused and the consumer is polled again, or the
    /// group would take it for dead (`max.poll.interval.ms`), and a rebalance would have to wait for it.
    fn wait_for_room(&mut self, chunk: Chunk) -> bool {
        let blocked = Instant::now();
        let mut paused = None;
        let chunks = self.chunks.clone();
        loop {
            match self.runtime.block_on(async { timeout(POLL, chunks.reserve()).await }) {
                Ok(Ok(permit)) => {
                    permit.send(chunk);
                    self.resume(paused.as_ref());
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) if self.events().shared.is_closing() => return false,
                Err(_) if blocked.elapsed() < SHORT => {}
                Err(_) => {
                    let consumer = self.consumer.clone();
                    let changes = self.events().changes.load(Ordering::Acquire);
                    if paused.as_ref().is_none_or(|(_, when)| *when != changes)
                        && let Ok(partitions) = consumer.assignment()
                        && consumer.pause(&partitions).is_ok()
                    {
                        paused = Some((partitions, changes));
                    }
                    // What was in the queue already is taken, but not without bound.
                    if self.chunk.len() < self.limits.rows {
                        self.poll(&consumer);
                    } else {
                        self.serve(&consumer);
                    }
                }
            }
        }
    }

    fn resume(&self, paused: Option<&(TopicPartitionList, u64)>) {
        // What came with a rebalance meanwhile may have been paused too.
        if paused.is_some()
            && let Ok(partitions) = self.consumer.assignment()
            && let Err(error) = self.consumer.resume(&partitions)
        {
            self.events().shared.fail(format!("the partitions can't be read on after a pause: {error}"));
        }
    }

    /// Nothing came. If that is for trouble, find out whether it is over.
    fn ask_in_trouble(&mut self) {
        let shared = &self.events().shared;
        if shared.problem.borrow().is_none() || self.last_heard.elapsed() < ASK {
            return;
        }
        self.last_heard = Instant::now();
        let Ok(metadata) = self.consumer.client().fetch_metadata(None, ASK) else { return };
        let there = |topic: &String| metadata.topics().iter().any(|it| it.name() == topic && it.error().is_none());
        if self.events().plan.topics.iter().all(there) {
            self.events().shared.all_is_well();
        }
    }

    /// Take the partitions without the group's help. False if that fails; the source knows.
    fn begin_bounded(&mut self, bounded: Bounded) -> bool {
        let consumer = self.consumer.clone();
        let events: &Events = consumer.context();
        let partitions: Vec<_> = bounded.iter().map(|(topic, number, _)| (topic.clone(), *number)).collect();
        let Some(begins) = events.begin(&consumer, &partitions) else { return false };
        events.shared.assign(events.member, &begins);
        let mut list = TopicPartitionList::new();
        for (begin, (topic, number, end)) in begins.iter().zip(&bounded) {
            let &Begin { offset, .. } = begin;
            if offset >= *end {
                continue;
            }
            events.shared.expect(u64::try_from(end - offset).unwrap_or(0));
            let Some(partition) = events.shared.find(events.member, topic, *number) else { continue };
            // An offset that is none has been refused above.
            let _ = list.add_partition_offset(topic, *number, rdkafka::Offset::Offset(offset));
            self.chunk.partitions.push((partition, offset));
            self.ends.push(*end);
        }
        self.open = self.ends.len();
        if self.open == 0 {
            self.finish();
            return false;
        }
        events.inbox.collect(&consumer, &partitions);
        if let Err(error) = consumer.assign(&list) {
            events.shared.fail(format!("the partitions can't be read: {error}"));
            return false;
        }
        true
    }

    /// librdkafka does not say of which topic; a consumer with an end has only one.
    fn reached_end(&mut self, number: i32) {
        if self.open > 0
            && let Some(index) = self.chunk.partitions.iter().position(|(partition, _)| partition.number == number)
        {
            self.close_partition(index);
        }
    }

    /// Nothing more is taken of a partition whose end is reached.
    fn close_partition(&mut self, index: usize) {
        if let Some(end) = self.ends.get_mut(index).filter(|end| **end > i64::MIN) {
            *end = i64::MIN;
            self.open = self.open.saturating_sub(1);
            self.finished = self.open == 0;
        }
    }

    fn finish(&mut self) {
        self.chunk.last = true;
        let _ = self.consumer.unassign();
        self.hand_over();
    }
}
