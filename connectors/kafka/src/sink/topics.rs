//! What the cluster knows of a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acequia_connector_api::ConnectorError;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;

use super::config::CreateTopic;
use super::ledger::{Delivered, Ledger};
use super::reporter::Reporter;
use crate::blocking::{Apart, blocking};

/// How long the brokers may take for an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked why they do not answer.
const GLANCE: Duration = Duration::from_millis(250);
/// How long a topic that was just created may take to be seen everywhere.
const APPEAR: Duration = Duration::from_secs(3);
/// How long it is believed that a topic or a partition is not there.
const MISSING: Duration = Duration::from_secs(10);
/// What clients take as the largest message unless they know better.
const USUAL: usize = 1_000_000;

/// A topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Number of partitions.
    pub(super) partitions: i32,
    /// The largest batch that it takes, in bytes, compressed if it is.
    pub(super) limit: usize,
    /// Only the last message of each key stays: every message needs a key.
    pub(super) compacted: bool,
}

/// Asks the cluster for topics and remembers the answers.
pub(super) struct Topics {
    admin: Arc<Apart<AdminClient<Reporter>>>,
    reporter: Reporter,
    create: Option<CreateTopic>,
    known: HashMap<String, (Result<Facts, String>, Instant)>,
}

impl Topics {
    /// `config` reaches the brokers.
    pub(super) fn new(
        config: &ClientConfig,
        reporter: Reporter,
        create: Option<CreateTopic>,
    ) -> Result<Self, ConnectorError> {
        let admin = config.create_with_context(reporter.clone()).map_err(not_taken)?;
        Ok(Topics { admin: Arc::new(Apart::new(admin)), reporter, create, known: HashMap::new() })
    }

    /// What is known of a topic, or why nothing can be written to it.
    ///
    /// # Errors
    /// If the brokers can't be asked.
    pub(super) async fn look(&mut self, topic: &str) -> Result<Result<Facts, String>, ConnectorError> {
        match self.known.get(topic) {
            Some((Ok(facts), _)) => Ok(Ok(*facts)),
            Some((Err(reason), at)) if at.elapsed() < MISSING => Ok(Err(reason.clone())),
            _ => {
                let answer = self.ask(topic).await?;
                self.known.insert(topic.to_owned(), (answer.clone(), Instant::now()));
                Ok(answer)
            }
        }
    }

    /// Whether the topic has that partition. A topic can get more.
    pub(super) async fn has_partition(&mut self, topic: &str, partition: i32) -> Result<bool, ConnectorError> {
        if let Some((Ok(facts), at)) = self.known.get(topic) {
            if partition < facts.partitions {
                return Ok(true);
            }
            if at.elapsed() < MISSING {
                return Ok(false);
            }
            self.known.remove(topic);
        }
        Ok(self.look(topic).await?.is_ok_and(|facts| partition < facts.partitions))
    }

    async fn ask(&self, topic: &str) -> Result<Result<Facts, String>, ConnectorError> {
        if let Err(reason) = check_name(topic) {
            return Ok(Err(reason));
        }
        let mut created = false;
        let start = Instant::now();
        let partitions = loop {
            match self.partitions(topic).await? {
                Ok(partitions) => break partitions,
                Err(code) if is_missing(code) => {
                    if let (Some(create), false) = (self.create, created) {
                        self.create(topic, create).await?;
                        created = true;
                    }
                    if start.elapsed() > APPEAR {
                        return Ok(Err(format!("topic `{topic}` is not there: create it, or set `create`")));
                    }
                    // The brokers may be creating it, because we asked for it.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    return Ok(Err(format!("the user may not write to topic `{topic}`")));
                }
                Err(code) => return Ok(Err(format!("topic `{topic}` can't be written: {code}"))),
            }
        };
        let (limit, compacted) = self.settings(topic).await?;
        Ok(Ok(Facts { partitions, limit, compacted }))
    }

    async fn partitions(&self, topic: &str) -> Result<Result<i32, RDKafkaErrorCode>, ConnectorError> {
        let (admin, name) = (self.admin.clone(), topic.to_owned());
        let metadata = blocking(move || admin.inner().fetch_metadata(Some(&name), ANSWER)).await?;
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(error) => match error.rdkafka_error_code() {
                Some(code) if is_missing(code) => return Ok(Err(code)),
                _ => return Err(self.reporter.unreachable(&error.to_string())),
            },
        };
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
        };
        match found.error() {
            Some(error) if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(Err(error.into())),
            _ => match i32::try_from(found.partitions().len()) {
                Ok(0) | Err(_) => Ok(Err(RDKafkaErrorCode::UnknownTopicOrPartition)),
                Ok(partitions) => Ok(Ok(partitions)),
            },
        }
    }

    /// The largest batch, and whether the topic is compacted. A user who may write need not be allowed to see that.
    async fn settings(&self, topic: &str) -> Result<(usize, bool), ConnectorError> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let resources = [ResourceSpecifier::Topic(topic)];
        let described = self.admin.describe_configs(&resources, &options).await;
        let described = described.map_err(|error| self.reporter.unreachable(&error.to_string()))?;
        match described.into_iter().next() {
            Some(Ok(resource)) => {
                let value = |name: &str| resource.get(name).and_then(|entry| entry.value.as_deref());
                let limit = value("max.message.bytes").and_then(|value| value.parse().ok()).unwrap_or(USUAL);
                let compacted = value("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
                Ok((limit, compacted))
            }
            answer => {
                let error = answer.and_then(Result::err).map_or_else(String::new, |code| code.to_string());
                tracing::warn!(
                    topic,
                    error,
                    "the topic's settings can't be read; messages over {USUAL} bytes will fail"
                );
                Ok((USUAL, false))
            }
        }
    }

    async fn create(&self, topic: &str, create: CreateTopic) -> Result<(), ConnectorError> {
        let partitions = create.partitions.map_or(-1, i32::from);
        let replication = create.replication.map_or(-1, i32::from);
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        let answer = self.admin.create_topics(&[new], &options).await;
        let answer = answer.map_err(|error| self.reporter.unreachable(&error.to_string()))?;
        match answer.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                Err(ConnectorError::failed(format!("topic `{topic}` is not there and can't be created: {code}")))
            }
            _ => {
                tracing::info!(topic, "the topic was created");
                Ok(())
            }
        }
    }
}

/// Some broker answers, or an error that says why none does.
pub(super) async fn reach(settings: &ClientConfig, reporter: &Reporter) -> Result<(), ConnectorError> {
    let (settings, by) = (settings.clone(), reporter.clone());
    let reached = blocking(move || {
        // A client of its own, since those of the admin interface do not tell why they can't connect.
        let client = BaseProducer::from_config_and_context(&settings, Delivered(Arc::new(Ledger::new(by.clone()))))?;
        let start = Instant::now();
        while start.elapsed() < ANSWER && !by.refused() {
            if client.client().fetch_cluster_id(GLANCE).is_some() {
                return Ok(true);
            }
            client.poll(Duration::ZERO);
        }
        Ok(false)
    });
    match reached.await?.map_err(not_taken)? {
        true => {
            reporter.clear();
            Ok(())
        }
        false => Err(reporter.unreachable("no answer in time")),
    }
}

fn is_missing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, UnknownTopic, UnknownTopicOrPartition};
    matches!(code, UnknownTopic | UnknownTopicOrPartition | LeaderNotAvailable)
}

/// The rules for the name of a topic.
pub(super) fn check_name(topic: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topic.is_empty() || topic.len() > 249 || matches!(topic, "." | "..") || !topic.bytes().all(legal) {
        let shown: String = topic.chars().take(260).collect();
        return Err(format!(
            "`{shown}` is no name of a topic: it has 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_`, `-`"
        ));
    }
    Ok(())
}

/// What librdkafka says about a configuration.
pub(super) fn not_taken(error: KafkaError) -> ConnectorError {
    match error {
        KafkaError::ClientConfig(_, reason, property, value) => {
            ConnectorError::failed(format!("librdkafka does not take `{property} = {value}`: {reason}"))
        }
        KafkaError::ClientCreation(reason) => {
            ConnectorError::failed(format!("librdkafka does not take the configuration: {reason}"))
        }
        other => ConnectorError::failed("librdkafka does not take the configuration").because(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics() {
        for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
