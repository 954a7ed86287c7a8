//! What is found out before a source is opened: are the brokers there, do they let us in, do the topics exist.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use acequia_connector_api::ConnectorError;
use rdkafka::consumer::Consumer;
use rdkafka::metadata::Metadata;

use super::config::{KafkaSource, whole};
use super::member::{Bounded, Consuming};

/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one attempt takes, at most: between two of them errors are looked at.
const ATTEMPT: Duration = Duration::from_millis(500);

/// The cluster's topics and how many partitions each has. Blocks.
///
/// # Errors
/// If no broker answers, or none lets us in.
pub(super) fn topics(consumer: &Consuming) -> Result<HashMap<String, i32>, ConnectorError> {
    let events = consumer.context();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match consumer.fetch_metadata(None, ATTEMPT) {
            Ok(metadata) => {
                events.shared.all_is_well();
                return Ok(counts(&metadata));
            }
            Err(error) => error,
        };
        // Errors of connections come with a poll. Before a topic is subscribed to, nothing else does.
        for _ in 0..32 {
            let _ = consumer.poll(Duration::ZERO);
        }
        let refused = events.shared.problem.borrow().clone();
        if let Some(problem) = refused {
            return Err(ConnectorError::retryable(problem.message).because(problem.cause));
        }
        if events.shared.is_closing() || Instant::now() >= deadline {
            let cause = events.cause().unwrap_or_else(|| error.to_string());
            let message = format!("can't reach the Kafka brokers {}", events.brokers);
            return Err(ConnectorError::retryable(message).because(cause));
        }
    }
}

fn counts(metadata: &Metadata) -> HashMap<String, i32> {
    metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
        .collect()
}

/// Of all topics those that the configuration means.
///
/// # Errors
/// If one that it names does not exist.
pub(super) fn select(config: &KafkaSource, all: HashMap<String, i32>) -> Result<HashMap<String, i32>, ConnectorError> {
    if let Some(topic) = config.topics.iter().find(|topic| !all.contains_key(*topic)) {
        return Err(ConnectorError::retryable(format!(
            "topic `{topic}` does not exist on the Kafka brokers {}, or the user may not read it: create it, or name another",
            config.brokers.join(", ")
        )));
    }
    let pattern = match &config.pattern {
        Some(pattern) => Some(
            regex::Regex::new(&whole(pattern))
                .map_err(|error| ConnectorError::failed("the pattern is not a regular expression").because(error))?,
        ),
        None => None,
    };
    let is_meant = |topic: &str| match &pattern {
        Some(pattern) => pattern.is_match(topic) && !topic.starts_with("__"),
        None => config.topics.iter().any(|name| name == topic),
    };
    Ok(all.into_iter().filter(|(topic, _)| is_meant(topic)).collect())
}

/// Share the partitions out to consumers, for reading up to their ends as they are now. Each consumer has partitions of
/// one topic only; a single topic is shared among `tasks`. Blocks.
///
/// # Errors
/// If the brokers do not answer.
pub(super) fn bounded(
    consumer: &Consuming,
    topics: &HashMap<String, i32>,
    tasks: usize,
) -> Result<Vec<Bounded>, ConnectorError> {
    let mut shares = Vec::new();
    for (topic, &count) in topics {
        let mut partitions = Bounded::new();
        for number in 0..count {
            let (low, high) = consumer.fetch_watermarks(topic, number, PATIENCE).map_err(|error| {
                ConnectorError::retryable(format!("can't find out where {topic}/{number} ends")).because(error)
            })?;
            if high > low {
                partitions.push((topic.clone(), number, high));
            }
        }
        let among = if topics.len() == 1 { tasks.max(1) } else { 1 };
        let size = partitions.len().div_ceil(among).max(1);
        shares.extend(partitions.chunks(size).map(<[_]>::to_vec));
    }
    Ok(shares)
}
