//! What a topic really holds, read by a client of our own making: what was fed is not taken on trust.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How often each number was seen, and whether they came in order.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    seen: Vec<u8>,
    last: Vec<Option<u64>>,
    /// Numbers that came after a larger one of their lane.
    pub disorder: u64,
    /// Lines without a number.
    pub strange: u64,
}

impl Tally {
    /// Rows `n` of one lane, `n % lanes`, have to come in order.
    pub fn new(lanes: usize) -> Tally {
        Tally { last: vec![None; lanes], ..Tally::default() }
    }

    pub fn add(&mut self, n: u64) {
        let at = usize::try_from(n).expect("a row's number");
        if at >= self.seen.len() {
            self.seen.resize(at + 1, 0);
        }
        self.seen[at] = self.seen[at].saturating_add(1);
        let lanes = self.last.len().max(1);
        if let Some(last) = self.last.get_mut(at % lanes) {
            if last.is_some_and(|last| last >= n) {
                self.disorder += 1;
            }
            *last = Some(n);
        }
    }

    /// A line of JSON, or what is left of one, that begins with its number.
    pub fn add_line(&mut self, line: &[u8]) {
        match number(line) {
            Some(n) => self.add(n),
            None => self.strange += 1,
        }
    }

    pub fn times(&self, n: u64) -> u8 {
        usize::try_from(n).ok().and_then(|at| self.seen.get(at)).copied().unwrap_or(0)
    }

    /// One more than the largest number seen.
    pub fn end(&self) -> u64 {
        self.seen.len() as u64
    }
}

/// The number in `"n":NUMBER` or `"value":NUMBER`.
pub fn number(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let at = text.find("\"n\":").map(|at| at + 4).or_else(|| text.find("\"value\":").map(|at| at + 8))?;
    let digits = text[at..].trim_start();
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Give every message of a topic to `take`, in the order of its partition; without what was not committed.
pub fn read(broker: &str, topic: &str, mut take: impl FnMut(&[u8])) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", "the-truth")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(60)).expect("the topic's partitions");
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let mut list = TopicPartitionList::new();
    for &partition in &partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("the partitions");
    let mut open = partitions.len();
    let mut last = Instant::now();
    while open > 0 {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => take(message.payload().unwrap_or_default()),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => eprintln!("reading {topic}: {error}"),
            None => {
                assert!(last.elapsed() < Duration::from_secs(120), "{topic} can't be read to its end");
                continue;
            }
        }
        last = Instant::now();
    }
}

/// A topic's numbers.
pub fn tally(broker: &str, topic: &str, lanes: usize) -> Tally {
    let mut tally = Tally::new(lanes);
    read(broker, topic, |message| tally.add_line(message));
    tally
}
