//! The running source.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{
    Batch, ConnectorError, Context, Demand, Event, Handoff, Origin, Position, Progress, Segment, Source,
};
use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::chunk::{Chunk, Wanted};
use super::commit;
use super::config::{KafkaSource, Metadata};
use super::connect;
use super::member::{self, Bounded, Consuming, Member};
use super::partition::Partition;
use super::rebalance::Events;
use super::rows::{Decoded, Rows, Shape};
use super::start::{From as StartFrom, Plan};
use super::state::{Commits, Problem, Shared};
use crate::blocking::{Apart, blocking};
use crate::clock::Clock;
use crate::offsets::{ConsumerOffsets, GroupOffsets};

/// How often the clock is looked at when nothing comes.
const GLANCE: Duration = Duration::from_secs(1);
/// The longest wait for the checkpoint that covers a partition which is to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long closing waits for the consumers to leave their group; the engine gives it a second.
const CLOSE: Duration = Duration::from_millis(900);
/// Bytes of one fetch: librdkafka takes no less than its `message.max.bytes`, and no more than this by itself.
const FETCH_LEAST: u64 = 1_000_000;
const FETCH_MOST: u64 = 50 << 20;
/// What librdkafka takes of one partition at once by itself.
const FETCH_PARTITION: u64 = 1 << 20;
/// librdkafka's default of `max.poll.interval.ms`.
const POLL_INTERVAL: u64 = 300_000;

/// Records of Kafka topics as batches.
pub(super) struct Reader {
    shared: Arc<Shared>,
    members: Vec<Member>,
    batches: mpsc::Receiver<Decoded>,
    /// A batch of which rows have to come out first, or which is about to be handed out.
    held: Option<Decoded>,
    /// One was handed out, and the engine has not asked for another since.
    gave: bool,
    /// Nobody has told the members' threads that there is nothing on its way any more.
    busy: bool,
    problem: watch::Receiver<Option<Problem>>,
    /// The problem that the engine knows of.
    told: Option<Problem>,
    decoders: JoinSet<()>,
    brokers: Vec<String>,
    clock: Clock,
    /// Consumers that are not yet at their end; none of them ever is unless the source has one.
    open: usize,
}

impl Reader {
    pub(super) async fn open(
        config: &KafkaSource,
        context: &Context,
        position: Option<&Position>,
    ) -> Result<Self, ConnectorError> {
        let shared = Arc::new(Shared::new(position));
        // If this is dropped half-way, what has been started by then ends.
        let guard = CloseOnDrop(shared.clone());
        let client = client_config(config, context)?;
        let brokers = config.brokers.join(", ");
        let patience = patience(&client);
        let plan = Plan {
            pipeline: context.pipeline.clone(),
            from: StartFrom::of(&config.start),
            partitions: Default::default(),
            topics: config.topics.clone(),
        };
        let make = {
            let (shared, brokers) = (shared.clone(), brokers.clone());
            move |member: usize, plan: &Plan, client: &ClientConfig| {
                let mut client = client.clone();
                // A static member's name is its own.
                if let Some(name) = client.get("group.instance.id").map(|name| format!("{name}-{member}")) {
                    client.set("group.instance.id", name);
                }
                let events = Events::new(member, shared.clone(), Arc::new(plan.clone()), brokers.clone(), patience);
                Consuming::from_config_and_context(&client, events)
                    .map_err(|error| ConnectorError::failed("the Kafka consumer can't be set up").because(error))
            }
        };
        let tasks = context.tasks.max(1);
        let (topics, shares) = {
            let (config, plan, client, make) = (config.clone(), plan.clone(), client.clone(), make.clone());
            blocking(move || {
                // It takes its time to close.
                let consumer = Apart::new(make(0, &plan, &client)?);
                let topics = connect::select(&config, connect::topics(&consumer)?)?;
                let shares = match config.until {
                    Some(_) => Some(connect::bounded(&consumer, &topics, tasks)?),
                    None => None,
                };
                Ok((topics, shares))
            })
            .await??
        };
        let plan = Plan { partitions: topics, ..plan };
        let shares: Vec<Option<Bounded>> = match shares {
            Some(shares) => shares.into_iter().map(Some).collect(),
            None => vec![None; tasks],
        };
        let subscription = config.subscription();
        let wanted = Wanted {
            key: config.metadata.contains(&Metadata::Key),
            headers: config.metadata.contains(&Metadata::Headers),
        };
        let shape = Arc::new(Shape {
            options: config.format_options(),
            metadata: config.metadata.clone(),
            key_format: config.key_format,
            reads: context.reads.clone(),
        });
        let learnt = Arc::new(Mutex::new(shared.learnt()));
        let (decoded, batches) = mpsc::channel(1);
        let mut members = Vec::new();
        let mut decoders = JoinSet::new();
        if config.until.is_some() {
            shared.expect(0);
        }
        for (index, share) in shares.into_iter().enumerate() {
            let consumer = make(index, &plan, &client)?;
            if share.is_none() {
                let names: Vec<_> = subscription.iter().map(String::as_str).collect();
                consumer
                    .subscribe(&names)
                    .map_err(|error| ConnectorError::failed("the topics can't be subscribed to").because(error))?;
            }
            let (chunks, input) = mpsc::channel(1);
            let member = member::start(consumer, chunks, context.batch, wanted, share)
                .map_err(|error| ConnectorError::retryable("can't start a thread").because(error))?;
            members.push(member);
            let rows = Rows::new(shape.clone(), learnt.clone());
            decoders.spawn(context.share.meter_source(decode(rows, input, decoded.clone())));
        }
        std::mem::forget(guard);
        Ok(Reader {
            problem: shared.problem.subscribe(),
            shared,
            open: members.len(),
            members,
            batches,
            held: None,
            gave: false,
            busy: false,
            told: None,
            decoders,
            brokers: config.brokers.clone(),
            clock: Clock::new(),
        })
    }

    /// The held batch, or what is left of it when partitions have been taken away meanwhile.
    fn give(&mut self) -> Option<Batch> {
        let mut decoded = self.held.take()?;
        while !self.shared.give(&decoded.marks, decoded.learnt.as_ref()) {
            decoded.marks.retain(|(partition, _)| {
                let gone = partition.is_gone();
                if gone {
                    leave_out(&mut decoded.batch, partition);
                }
                !gone
            });
        }
        if decoded.last {
            self.open = self.open.saturating_sub(1);
        }
        if decoded.batch.is_empty() && decoded.batch.failed.is_empty() {
            self.has_left();
            return None;
        }
        self.gave = true;
        Some(decoded.batch)
    }

    /// What was handed out is on its way behind, or there was nothing to be handed out.
    fn has_left(&mut self) {
        self.shared.pace.has_left();
        self.busy = true;
    }

    /// Ask the group to take these; the answer comes to the member's thread.
    fn commit(&self, commits: Commits) {
        for (member, offsets) in commits {
            let Some(consumer) = self.members.get(member).and_then(|member| member.consumer.upgrade()) else {
                continue;
            };
            if let Err(error) = commit::ask(&consumer, &offsets) {
                self.shared.committed(&offsets, Some(error.to_string()));
            }
        }
    }

    fn leave(&mut self) {
        self.shared.close();
        for member in &self.members {
            member.signal.raise();
        }
        self.batches.close();
        self.decoders.abort_all();
    }
}

/// Ends what has been started if opening fails.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn decode(mut rows: Rows, mut input: mpsc::Receiver<Chunk>, output: mpsc::Sender<Decoded>) {
    while let Some(chunk) = input.recv().await {
        if output.send(rows.decode(chunk)).await.is_err() {
            return;
        }
    }
}

fn client_config(config: &KafkaSource, context: &Context) -> Result<ClientConfig, ConnectorError> {
    let group = config.group(context);
    let read_ahead = (config.read_ahead.0 / 1024).to_string();
    // The brokers send a batch that is larger all the same, if it is the first one.
    let fetch = config.read_ahead.0.clamp(FETCH_LEAST, FETCH_MOST).to_string();
    let share = config.read_ahead.0.clamp(FETCH_LEAST, FETCH_PARTITION).to_string();
    let mut defaults = vec![
        ("group.id", group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("allow.auto.create.topics", "false"),
        ("enable.partition.eof", if config.until.is_some() { "true" } else { "false" }),
        // A consumer that keeps up would otherwise sleep for a second whenever its queue has been full.
        ("fetch.queue.backoff.ms", "2"),
        // A daemon that was killed is back sooner than after the 45 s that are the default: its partitions wait until then.
        ("session.timeout.ms", "10000"),
        // A rebalance takes two of these; offsets can't be committed meanwhile.
        ("heartbeat.interval.ms", "1000"),
        ("queued.min.messages", "1000000"),
        ("queued.max.messages.kbytes", &read_ahead),
        // A queue below its limit gets one fetch more. By itself librdkafka takes up to 50 MiB at once, from each broker.
        ("fetch.max.bytes", &fetch),
        ("fetch.message.max.bytes", &share),
    ];
    if config.pattern.is_some() {
        // Kafka's own topics.
        defaults.push(("topic.blacklist", "^__"));
    }
    // The newer protocol has its own, on the brokers.
    if !config.properties.contains_key("group.protocol") {
        defaults.push(("partition.assignment.strategy", "cooperative-sticky"));
    }
    config.client().config(context, &defaults)
}

/// How long a partition may be kept for its checkpoint: not so long that the group takes the consumer for dead.
fn patience(client: &ClientConfig) -> Duration {
    let interval = client.get("max.poll.interval.ms").and_then(|text| text.parse().ok()).unwrap_or(POLL_INTERVAL);
    PATIENCE.min(Duration::from_millis(interval / 2))
}

/// Take the rows of a partition out of a batch.
fn leave_out(batch: &mut Batch, partition: &Partition) {
    let Origin::Segments(segments) = &batch.origin else { return };
    let rows = batch.rows.num_rows();
    let mut keep = vec![true; rows];
    for (index, segment) in segments.iter().enumerate() {
        if Arc::ptr_eq(&segment.partition, &partition.name) {
            let end = segments.get(index + 1).map_or(rows, |next| next.start);
            if let Some(range) = keep.get_mut(segment.start..end) {
                range.fill(false);
            }
        }
    }
    batch.failed.retain(|row| row.partition.as_ref().is_none_or(|name| !Arc::ptr_eq(name, &partition.name)));
    if keep.contains(&false) {
        let mask = BooleanArray::from(keep);
        // The mask is as long as the batch. Were it ever not so, no row must go out.
        batch.rows =
            filter_record_batch(&batch.rows, &mask).unwrap_or_else(|_| RecordBatch::new_empty(batch.rows.schema()));
        batch.origin = kept(segments, mask);
    }
}

/// The origin of what is left: plain segments again, since more partitions may have to go.
fn kept(segments: &[Segment], mask: BooleanArray) -> Origin {
    let mut left = Vec::new();
    let mut start = 0;
    for (index, segment) in segments.iter().enumerate() {
        let end = segments.get(index + 1).map_or(mask.len(), |next| next.start);
        if segment.start < end && mask.value(segment.start) {
            left.push(Segment { start, ..segment.clone() });
            start += end - segment.start;
        }
    }
    Origin::Segments(left.into())
}

#[async_trait]
impl Source for Reader {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        loop {
            if std::mem::take(&mut self.gave) {
                self.has_left();
            }
            self.clock.look()?;
            if let Some(reason) = self.shared.take_failure() {
                return Err(ConnectorError::failed(reason));
            }
            if self.shared.take_wanted() {
                return Ok(Event::Checkpoint);
            }
            if let Some(batch) = self.give() {
                return Ok(Event::Batch(batch));
            }
            if self.open == 0 {
                self.shared.finish_progress();
                return Ok(Event::End);
            }
            tokio::select! {
                biased;
                decoded = self.batches.recv() => match decoded {
                    Some(decoded) => self.held = Some(decoded),
                    None => return Err(ConnectorError::failed("the threads that read from Kafka have ended")),
                },
                () = self.shared.wake.notified() => {}
                // Rows may have come meanwhile, and wait for more.
                () = self.shared.pace.idle_behind(), if self.busy => {
                    self.busy = false;
                    self.members.iter().for_each(|member| member.signal.raise());
                }
                // Also when nothing comes: that may be why.
                () = tokio::time::sleep(GLANCE) => self.commit(self.shared.repeat_commits()),
                Ok(()) = self.problem.changed() => {
                    let problem = self.problem.borrow_and_update().clone();
                    match problem {
                        // Once is enough: who is told waits before he asks again, longer each time.
                        Some(problem) => {
                            if self.told.as_ref() != Some(&problem) {
                                self.told = Some(problem.clone());
                                return Err(ConnectorError::retryable(problem.message).because(problem.cause));
                            }
                        }
                        // A batch without rows: it is over, even if nothing comes for a while.
                        None => {
                            if self.told.take().is_some() {
                                self.busy = true;
                                return Ok(Event::Batch(Batch::of_failures(Vec::new())));
                            }
                        }
                    }
                }
            }
        }
    }

    fn set_demand(&mut self, demand: Demand) {
        self.shared.pace.set_demand(demand);
    }

    fn position(&self) -> Position {
        self.shared.position()
    }

    fn handoff(&self) -> Option<Handoff> {
        let groups = self.members.iter().enumerate().filter_map(|(index, member)| {
            let offsets = self.shared.offsets_of(index);
            if offsets.count() == 0 {
                return None;
            }
            let metadata = member.consumer.upgrade()?.group_metadata()?;
            Some(GroupOffsets { metadata, offsets })
        });
        let groups = groups.collect();
        Some(Handoff::new(ConsumerOffsets::new(self.brokers.clone(), groups, self.shared.claimed.clone())))
    }

    async fn committed(&mut self, position: &Position) -> Result<(), ConnectorError> {
        self.commit(self.shared.confirm(position));
        match self.shared.take_commit_error() {
            Some(error) => {
                Err(ConnectorError::retryable("offsets could not be committed to the consumer group").because(error))
            }
            None => Ok(()),
        }
    }

    fn progress(&self) -> Option<Progress> {
        self.shared.progress().map(|(done, total)| Progress { done, total, unit: "rows" })
    }

    async fn close(&mut self) {
        self.leave();
        let members = std::mem::take(&mut self.members);
        let all = futures::future::join_all(members.into_iter().map(|member| member.ended));
        // Who is late goes on leaving the group by itself.
        let _ = timeout(CLOSE, all).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use acequia_connector_api::FailedRow;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn rows_of_a_partition_that_went_come_out() {
        let (one, two) = (Partition::new("t", 1), Partition::new("t", 2));
        // The same partition, when it has come back.
        let one_again = Partition::new("t", 1);
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..7));
        let segments = [(0, &one, 10), (2, &two, 5), (4, &one, 12), (5, &one_again, 3)];
        let segments =
            segments.map(|(start, partition, first)| Segment { start, partition: partition.name.clone(), first });
        let failed = [&one, &two].map(|partition| FailedRow {
            stage: String::new(),
            partition: Some(partition.name.clone()),
            offset: Some(1),
            error: "bad".to_owned(),
            row: None,
        });
        let mut batch = Batch {
            rows: RecordBatch::try_from_iter([("value", column)]).unwrap(),
            origin: Origin::Segments(segments.into()),
            failed: failed.to_vec(),
        };
        let values = |batch: &Batch| batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        leave_out(&mut batch, &one);
        assert_eq!(values(&batch), [2, 3, 5, 6]);
        assert_eq!(batch.failed, failed[1..]);
        assert_eq!(batch.origin.locate(1), (Some("t/2".into()), Some(6)));
        assert_eq!(batch.origin.locate(3), (Some("t/1".into()), Some(4)));
        leave_out(&mut batch, &two);
        assert_eq!(values(&batch), [5, 6]);
        assert_eq!(batch.origin.locate(0), (Some("t/1".into()), Some(3)));
    }
}
