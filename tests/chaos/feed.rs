//! Rows into Kafka, each with its number, for as long as the campaign lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Partitions of a topic that is fed.
pub const PARTITIONS: u64 = 4;
/// One row in so many is poison.
const POISON: u64 = 100;
/// How many words there are.
pub const WORDS: u64 = 500;

/// Row `n` of a topic as text.
pub type Row = fn(u64) -> String;

/// Whether row `n` of the topic `numbers` does not decode.
pub fn is_poison(n: u64) -> bool {
    // Not every hundredth: those would all be even.
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 < (1 << 32) / POISON
}

/// The word of a row.
pub fn word(n: u64) -> String {
    format!("w{}", n.wrapping_mul(0x2545_F491_4F6C_DD1D) % WORDS)
}

/// Numbers, one in a hundred cut off.
pub fn number(n: u64) -> String {
    if is_poison(n) {
        return format!("{{\"n\":{n},\"w\":\"cut off");
    }
    format!("{{\"n\":{n},\"w\":\"{}\"}}", word(n))
}

/// Readings, all good, a millisecond apart from each other.
pub fn reading(n: u64) -> String {
    let (seconds, millis) = (n / 1000, n % 1000);
    let (day, hour, minute, second) = (1 + seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{{\"n\":{n},\"t\":\"2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z\",\"v\":\"reading {n}\"}}"
    )
}

/// A thread that feeds a topic.
pub struct Feed {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Feed {
    /// `rate` rows a second. The broker may come and go.
    pub fn start(broker: &str, topic: &str, rate: u64, row: Row) -> Feed {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", broker)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "20")
            .set("reconnect.backoff.max.ms", "500")
            .set("log_level", "0")
            .create()
            .expect("a producer");
        let end = Arc::new(AtomicBool::new(false));
        let (ends, topic) = (end.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut n = 0;
            let mut due = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                // A hundredth of a second at a time. What an outage delayed is not caught up in one go.
                for _ in 0..rate / 100 {
                    send(&producer, &topic, n, &row(n), &ends);
                    n += 1;
                }
                producer.poll(Duration::ZERO);
                due = (due + Duration::from_millis(10)).max(Instant::now() - Duration::from_secs(1));
                if let Some(left) = due.checked_duration_since(Instant::now()) {
                    std::thread::sleep(left);
                }
            }
            producer.flush(Duration::from_secs(120)).expect("every row is delivered");
            assert!(producer.client().fatal_error().is_none(), "{:?}", producer.client().fatal_error());
            n
        });
        Feed { end, thread: Some(thread) }
    }

    /// Stop, and wait until every row is delivered: how many there were.
    pub fn finish(&mut self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it was not finished before");
        thread.join().expect("the feed")
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn send(producer: &BaseProducer, topic: &str, n: u64, row: &str, end: &AtomicBool) {
    let partition = i32::try_from(n % PARTITIONS).expect("a partition");
    let mut record = BaseRecord::<(), str>::to(topic).partition(partition).payload(row);
    let begin = Instant::now();
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => panic!("row {n} can't be sent: {error}"),
        }
        // The broker is back before the campaign ends.
        assert!(!end.load(Ordering::Relaxed) || begin.elapsed() < Duration::from_secs(120), "the feed is stuck");
    }
}
