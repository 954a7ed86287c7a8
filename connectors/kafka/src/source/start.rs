//! Where reading a partition begins.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::config::Start;
use super::partition::partition_name;
use super::state::{Begin, Shared};

/// How long the brokers may take to answer one question.
const ANSWER: Duration = Duration::from_secs(10);

/// What decides where a partition begins of which nothing is known.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) pipeline: String,
    pub(super) from: From,
    /// How many partitions each topic had when the source was opened. Those that have come since are read from their
    /// beginning: all that they hold is newer than the start.
    pub(super) partitions: HashMap<String, i32>,
    /// The topics that must exist.
    pub(super) topics: Vec<String>,
}

/// [`Start`], resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Earliest,
    Latest,
    /// Milliseconds since the epoch.
    Time(i64),
}

impl From {
    pub(super) fn of(start: &Start) -> From {
        match start {
            Start::Earliest => From::Earliest,
            Start::Latest => From::Latest,
            // Checked with the configuration. The first record of this time or later: so the millisecond is rounded up.
            Start::Timestamp(text) => {
                let micros = acequia_format::parse_timestamp(text).unwrap_or(0);
                From::Time(micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) > 0))
            }
        }
    }
}

/// Find where to begin with each of these partitions. Blocks.
///
/// # Errors
/// If the brokers do not answer.
pub(super) fn resolve<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    shared: &Shared,
    plan: &Plan,
    partitions: &[(String, i32)],
) -> Result<Vec<Begin>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, number) in partitions {
        list.add_partition(topic, *number);
    }
    let committed = consumer.committed_offsets(list, ANSWER)?;
    let mut begins = Vec::with_capacity(partitions.len());
    for (topic, number) in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, *number, ANSWER)?;
        let committed = match committed.find_partition(topic, *number).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        let known = Known { checkpoint: shared.known(&partition_name(topic, *number)), group: committed };
        let offset = match known.choose(low, high) {
            Choice::At(offset) => offset,
            Choice::Instead { wanted, offset } => {
                tracing::warn!(
                    pipeline = plan.pipeline,
                    topic,
                    partition = number,
                    wanted,
                    first = low,
                    end = high,
                    offset,
                    "{}",
                    if wanted < low {
                        "records that were not yet read are gone from Kafka; going on with the oldest that is left"
                    } else {
                        "the checkpoint is beyond the end of the partition: was the topic made anew? going on before it"
                    }
                );
                offset
            }
            Choice::Unknown => {
                let older =
                    plan.partitions.get(topic).is_some_and(|count| number < count) && !shared.knows_topic(topic);
                match plan.from {
                    From::Latest if older => high,
                    From::Time(millis) if older => first_since(consumer, topic, *number, millis)?.unwrap_or(high),
                    _ => low,
                }
            }
        };
        begins.push(Begin { topic: topic.clone(), number: *number, offset, committed: committed.unwrap_or(-1) });
    }
    Ok(begins)
}

fn first_since<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    number: i32,
    millis: i64,
) -> Result<Option<i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, number, Offset::Offset(millis.max(0)))?;
    let found = consumer.offsets_for_times(list, ANSWER)?;
    Ok(match found.find_partition(topic, number).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    })
}

/// What is known of a partition before it is read.
#[derive(Clone, Copy, Debug)]
struct Known {
    checkpoint: Option<i64>,
    group: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    At(i64),
    /// Not where it should be: that does not exist.
    Instead {
        wanted: i64,
        offset: i64,
    },
    Unknown,
}

impl Known {
    /// The later of both; what lies beyond the partition does not count.
    fn choose(self, low: i64, high: i64) -> Choice {
        let Some(wanted) = self.checkpoint.max(self.group) else { return Choice::Unknown };
        if (low..=high).contains(&wanted) {
            return Choice::At(wanted);
        }
        if wanted < low {
            return Choice::Instead { wanted, offset: low };
        }
        let within = [self.checkpoint, self.group].into_iter().flatten().filter(|offset| *offset <= high).max();
        Choice::Instead { wanted, offset: within.map_or(low, |offset| offset.max(low)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_checkpoint_and_group() {
        let choose = |checkpoint, group| Known { checkpoint, group }.choose(10, 20);
        assert_eq!(choose(None, None), Choice::Unknown);
        assert_eq!(choose(Some(12), None), Choice::At(12));
        assert_eq!(choose(Some(12), Some(15)), Choice::At(15));
        assert_eq!(choose(Some(20), Some(15)), Choice::At(20));
        assert_eq!(choose(Some(9), Some(3)), Choice::Instead { wanted: 9, offset: 10 });
        assert_eq!(choose(Some(21), Some(15)), Choice::Instead { wanted: 21, offset: 15 });
        assert_eq!(choose(Some(21), Some(3)), Choice::Instead { wanted: 21, offset: 10 });
        assert_eq!(choose(None, Some(30)), Choice::Instead { wanted: 30, offset: 10 });
    }

    #[test]
    fn a_time_within_a_millisecond_begins_with_the_next() {
        let from = |text: &str| From::of(&Start::Timestamp(text.to_owned()));
        assert_eq!(from("1970-01-01T00:00:01Z"), From::Time(1000));
        assert_eq!(from("1970-01-01T00:00:01.000001Z"), From::Time(1001));
    }
}
