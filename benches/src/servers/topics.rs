//! Topics: filled with rows, and counted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::rows;

/// How long nothing may come while a topic is counted.
const SILENCE: Duration = Duration::from_secs(30);

/// Write so many rows to partition 0.
pub(crate) fn fill(broker: &str, topic: &str, rows: u64) -> Result<()> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("linger.ms", "20")
        .create_with_context(rdkafka::producer::DefaultProducerContext)?;
    for value in 0..rows {
        let json = rows::row(value).to_json();
        while let Err((error, _)) = producer.send(BaseRecord::<(), str>::to(topic).partition(0).payload(&json)) {
            ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), "{error}");
            producer.flush(Duration::from_secs(1)).or_else(|error| match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::OperationTimedOut) => Ok(()),
                _ => Err(error),
            })?;
        }
    }
    Ok(producer.flush(Duration::from_secs(60))?)
}

/// How many messages partition 0 has for who reads what is committed.
pub(super) fn committed(broker: &str, topic: &str) -> Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", "counter")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&place)?;
    let mut count = 0;
    loop {
        let message = consumer.poll(SILENCE).with_context(|| format!("nothing came for {SILENCE:?}"))?;
        match message {
            Ok(_) => count += 1,
            Err(KafkaError::PartitionEOF(_)) => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}
