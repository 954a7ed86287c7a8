//! What the source gives to the sink of the same pipeline, so that offsets and rows are committed as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

/// Where the source stands at a barrier, as a consumer group has it. It is what the source's
/// [`handoff`](acequia_connector_api::Source::handoff) holds.
pub(crate) struct ConsumerOffsets {
    /// The brokers that the source reads from, as they are configured: offsets can be part of a transaction of the same
    /// cluster only.
    pub(crate) brokers: Vec<String>,
    /// One for each consumer of the source; those without a partition are left out.
    pub(crate) groups: Vec<GroupOffsets>,
    claimed: Arc<AtomicBool>,
}

/// The offsets of one member of a group.
pub(crate) struct GroupOffsets {
    /// Who commits.
    pub(crate) metadata: ConsumerGroupMetadata,
    /// The next offset of each partition that the member has.
    pub(crate) offsets: TopicPartitionList,
}

impl ConsumerOffsets {
    pub(crate) fn new(brokers: Vec<String>, groups: Vec<GroupOffsets>, claimed: Arc<AtomicBool>) -> Self {
        ConsumerOffsets { brokers, groups, claimed }
    }

    /// A sink that commits these offsets in its transactions says so here, at the first barrier. From then on the source
    /// commits none itself: a late commit of its own would undo that of a transaction.
    pub(crate) fn claim(&self) {
        self.claimed.store(true, Ordering::Release);
    }
}
