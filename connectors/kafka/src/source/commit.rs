//! Offsets to the consumer group.

use rdkafka::TopicPartitionList;
use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{IsError, KafkaError, KafkaResult, RDKafkaErrorCode};

/// How often a commit that waits is tried while the group rebalances.
const ATTEMPTS: u32 = 3;

/// Ask the group to take these offsets. The answer comes to the context's `commit_callback`, when the consumer is polled.
///
/// rdkafka's own `CommitMode::Async` says nothing of where the answer is to go, and librdkafka then gives it to nobody: a
/// commit that a rebalance refuses would be taken for done.
pub(super) fn ask<C: ConsumerContext>(consumer: &BaseConsumer<C>, offsets: &TopicPartitionList) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    // SAFETY: the consumer and the list are alive. librdkafka copies the list, and keeps the queue for the answer.
    let code = unsafe {
        let queue = bindings::rd_kafka_queue_get_consumer(client);
        if queue.is_null() {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup));
        }
        let code = bindings::rd_kafka_commit_queue(client, offsets.ptr(), queue, None, std::ptr::null_mut());
        bindings::rd_kafka_queue_destroy(queue);
        code
    };
    if code.is_error() { Err(KafkaError::ConsumerCommit(code.into())) } else { Ok(()) }
}

/// Commit, and wait for the answer. It may be no if it has to wait for a rebalance that is under way.
pub(super) fn wait<C: ConsumerContext>(consumer: &BaseConsumer<C>, offsets: &TopicPartitionList) -> KafkaResult<()> {
    let mut result = consumer.commit(offsets, CommitMode::Sync);
    for _ in 1..ATTEMPTS {
        match result {
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration,
            )) => result = consumer.commit(offsets, CommitMode::Sync),
            _ => break,
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use rdkafka::mocking::MockCluster;
    use rdkafka::{ClientConfig, ClientContext, Offset};

    use super::*;

    #[derive(Default)]
    struct Answers(Mutex<Vec<(bool, Option<i64>)>>);

    impl ClientContext for Answers {}

    impl ConsumerContext for Answers {
        fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
            let offset = offsets.find_partition("t", 0).and_then(|element| element.offset().to_raw());
            self.0.lock().unwrap().push((result.is_ok(), offset));
        }
    }

    /// Against librdkafka's own broker, which is enough for who gets the answer.
    #[test]
    fn the_answer_comes() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let consumer: BaseConsumer<Answers> = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "g")
            .set("enable.auto.commit", "false")
            .create_with_context(Answers::default())
            .unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, Offset::Offset(7)).unwrap();
        consumer.assign(&offsets).unwrap();
        ask(&consumer, &offsets).unwrap();
        let begin = Instant::now();
        while consumer.context().0.lock().unwrap().is_empty() && begin.elapsed() < Duration::from_secs(60) {
            let _ = consumer.poll(Duration::from_millis(20));
        }
        assert_eq!(*consumer.context().0.lock().unwrap(), [(true, Some(7))]);
        wait(&consumer, &offsets).unwrap();
    }
}
