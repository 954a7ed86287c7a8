//! What the source, its threads and the rebalance callback share: which partitions there are, how far each has been
//! handed out, and how far that is confirmed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use acequia_connector_api::Position;
use rdkafka::TopicPartitionList;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::pace::Pace;
use super::partition::{Partition, partition_name};

/// The key of what has been learnt of the columns, in the position. No partition has this name.
const LEARNT: &str = "";

/// Why nothing comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) cause: String,
}

/// Shared by everyone who has a part in one source.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// A checkpoint stands, or the source closes.
    changed: Condvar,
    /// There is something for the source to say: see [`Shared::take_failure`] and [`Shared::take_wanted`].
    pub(super) wake: Notify,
    /// The latest problem only: a queue of them would still tell of an old one when all is well again.
    pub(super) problem: watch::Sender<Option<Problem>>,
    pub(super) pace: Pace,
    /// Set by a sink that commits the offsets in its transactions.
    pub(super) claimed: Arc<AtomicBool>,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The next offset of each partition that was ever read: all before it has been handed to the engine.
    given: BTreeMap<Arc<str>, i64>,
    /// The same in the last checkpoint.
    confirmed: HashMap<Arc<str>, i64>,
    owned: HashMap<Arc<str>, Owned>,
    learnt: Option<Value>,
    wanted: bool,
    failure: Option<String>,
    commit_error: Option<String>,
    /// A commit was refused or has failed, and has not been asked for again.
    to_repeat: bool,
    /// How far a source with an end is.
    done: u64,
    total: Option<u64>,
}

#[derive(Debug)]
struct Owned {
    partition: Arc<Partition>,
    member: usize,
    /// What the group has, as far as is known; -1 for nothing.
    committed: i64,
    /// What was last asked to be committed. The answer may be long in coming: while the group rebalances, and no.
    requested: i64,
}

/// A partition that is assigned, and where reading it begins.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) offset: i64,
    /// What the group has; -1 for nothing.
    pub(super) committed: i64,
}

/// For each member, what it should commit to its group.
pub(super) type Commits = BTreeMap<usize, TopicPartitionList>;

/// How the wait for a checkpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Confirmed,
    TooLong,
    Closing,
}

impl Shared {
    pub(super) fn new(position: Option<&Position>) -> Self {
        let mut state = State::default();
        for (name, value) in position.iter().flat_map(|position| &position.0) {
            if name == LEARNT {
                state.learnt = Some(value.clone());
            } else if let Some(offset) = value.as_i64() {
                let name: Arc<str> = name.as_str().into();
                state.given.insert(name.clone(), offset);
                state.confirmed.insert(name, offset);
            }
        }
        Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake: Notify::new(),
            problem: watch::Sender::new(None),
            pace: Pace::default(),
            claimed: Arc::default(),
            closing: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        let guard = self.lock();
        self.closing.store(true, Ordering::Release);
        drop(guard);
        self.changed.notify_all();
    }

    pub(super) fn position(&self) -> Position {
        let state = self.lock();
        let mut position: BTreeMap<String, Value> =
            state.given.iter().map(|(name, offset)| (name.to_string(), (*offset).into())).collect();
        if let Some(learnt) = &state.learnt {
            position.insert(LEARNT.to_owned(), learnt.clone());
        }
        Position(position)
    }

    pub(super) fn learnt(&self) -> Option<Value> {
        self.lock().learnt.clone()
    }

    /// The offset that the position has for a partition.
    pub(super) fn known(&self, name: &str) -> Option<i64> {
        self.lock().given.get(name).copied()
    }

    /// Whether the position has any partition of a topic.
    pub(super) fn knows_topic(&self, topic: &str) -> bool {
        let prefix = format!("{topic}/");
        self.lock().given.keys().any(|name| name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')))
    }

    /// Partitions have come to a member. What the position says of them is now where their reading begins.
    pub(super) fn assign(&self, member: usize, partitions: &[Begin]) {
        let mut state = self.lock();
        for begin in partitions {
            let partition = Arc::new(Partition::new(&begin.topic, begin.number));
            let name = partition.name.clone();
            // It may have been lost and come back, with rows on their way that no checkpoint has confirmed: then it goes on
            // behind them, and what is confirmed stays what it was. Else all before is someone's who has confirmed it.
            if state.given.insert(name.clone(), begin.offset) != Some(begin.offset) {
                state.confirmed.insert(name.clone(), begin.offset);
            } else {
                state.confirmed.entry(name.clone()).or_insert(begin.offset);
            }
            if let Some(before) = state
                .owned
                .insert(name, Owned { partition, member, committed: begin.committed, requested: begin.committed })
            {
                before.partition.gone.store(true, Ordering::Release);
            }
        }
    }

    /// A partition that the member has.
    pub(super) fn find(&self, member: usize, topic: &str, number: i32) -> Option<Arc<Partition>> {
        let name = partition_name(topic, number);
        let state = self.lock();
        let owned = state.owned.get(name.as_str()).filter(|owned| owned.member == member)?;
        (!owned.partition.is_gone()).then(|| owned.partition.clone())
    }

    /// No more rows that others than this member have read of these are handed out. (A member that has lost its partitions
    /// learns of it later than the one who gets them.)
    pub(super) fn seize(&self, member: usize, names: &[String]) {
        let state = self.lock();
        for name in names {
            if let Some(owned) = state.owned.get(name.as_str()).filter(|owned| owned.member != member) {
                owned.partition.gone.store(true, Ordering::Release);
            }
        }
    }

    /// No more rows of these are handed out. Returns whether all that were are in a checkpoint.
    pub(super) fn hold(&self, member: usize, names: &[String]) -> bool {
        let state = self.lock();
        for name in names {
            if let Some(owned) = state.owned.get(name.as_str()).filter(|owned| owned.member == member) {
                owned.partition.gone.store(true, Ordering::Release);
            }
        }
        state.all_confirmed(member, names)
    }

    /// Ask for a checkpoint, and wait until it covers what was handed out of these partitions.
    pub(super) fn wait_for_checkpoint(&self, member: usize, names: &[String], most: Duration) -> Waited {
        let deadline = Instant::now() + most;
        let mut state = self.lock();
        state.wanted = true;
        self.wake.notify_one();
        loop {
            if state.all_confirmed(member, names) {
                return Waited::Confirmed;
            }
            if self.is_closing() {
                return Waited::Closing;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TooLong;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// These partitions are no longer the member's.
    pub(super) fn release(&self, member: usize, names: &[String]) {
        let mut state = self.lock();
        for name in names {
            if state.owned.get(name.as_str()).is_some_and(|owned| owned.member == member) {
                state.owned.remove(name.as_str());
            }
        }
    }

    /// Rows are about to be handed out, up to an offset in each of these partitions. False, and nothing happens, if one
    /// of them is gone: its rows must come out first.
    pub(super) fn give(&self, marks: &[(Arc<Partition>, i64)], learnt: Option<&Value>) -> bool {
        let mut state = self.lock();
        if marks.iter().any(|(partition, _)| partition.is_gone()) {
            return false;
        }
        for (partition, next) in marks {
            if let Some(given) = state.given.insert(partition.name.clone(), *next) {
                state.done += u64::try_from(next.saturating_sub(given)).unwrap_or(0);
            }
        }
        if let Some(learnt) = learnt {
            state.learnt = Some(learnt.clone());
        }
        true
    }

    /// A checkpoint stands. Returns for each member what it should commit to its group.
    pub(super) fn confirm(&self, position: &Position) -> Commits {
        let mut guard = self.lock();
        let state = &mut *guard;
        for (name, value) in &position.0 {
            let name = name.as_str();
            // A partition may have come, and begun elsewhere, since this checkpoint was begun: then it says nothing of it.
            if let (Some(offset), Some(place), Some(&given)) =
                (value.as_i64(), state.confirmed.get_mut(name), state.given.get(name))
                && (*place..=given).contains(&offset)
            {
                *place = offset;
            }
        }
        let commits = self.commits(state);
        drop(guard);
        self.changed.notify_all();
        commits
    }

    /// What was confirmed and not committed, because the group said no (it does while it rebalances) or did not answer.
    /// The next checkpoint commits it, but if nothing comes any more there is none.
    pub(super) fn repeat_commits(&self) -> Commits {
        let mut state = self.lock();
        if !std::mem::take(&mut state.to_repeat) {
            return Commits::new();
        }
        self.commits(&mut state)
    }

    fn commits(&self, state: &mut State) -> Commits {
        let mut commits = Commits::new();
        if self.claimed.load(Ordering::Acquire) {
            return commits;
        }
        for (name, owned) in &mut state.owned {
            // What is being taken away is committed by the one who waits for it.
            if !owned.partition.is_gone()
                && let Some(&confirmed) = state.confirmed.get(name)
                && owned.requested != confirmed
            {
                owned.requested = confirmed;
                add(commits.entry(owned.member).or_default(), &owned.partition, confirmed);
            }
        }
        commits
    }

    /// What is confirmed of these and not yet in the group; nothing if a sink commits the offsets itself.
    pub(super) fn uncommitted(&self, member: usize, names: &[String]) -> Option<TopicPartitionList> {
        if self.claimed.load(Ordering::Acquire) {
            return None;
        }
        let state = self.lock();
        let mut list = TopicPartitionList::new();
        for name in names {
            if let (Some(owned), Some(&confirmed)) =
                (state.owned.get(name.as_str()), state.confirmed.get(name.as_str()))
                && owned.member == member
                && owned.committed != confirmed
            {
                add(&mut list, &owned.partition, confirmed);
            }
        }
        (list.count() > 0).then_some(list)
    }

    /// The group has answered. What was refused is to be committed again.
    pub(super) fn committed(&self, list: &TopicPartitionList, error: Option<String>) {
        let mut state = self.lock();
        for element in list.elements() {
            let name = partition_name(element.topic(), element.partition());
            let Some(owned) = state.owned.get_mut(name.as_str()) else { continue };
            match element.offset().to_raw() {
                Some(offset) if error.is_none() && element.error().is_ok() => owned.committed = offset,
                _ => {
                    owned.requested = owned.committed;
                    state.to_repeat = true;
                }
            }
        }
        if error.is_some() {
            state.commit_error = error;
        }
    }

    /// These are to be committed again, and no one needs to know.
    pub(super) fn refused(&self, list: &TopicPartitionList) {
        let mut state = self.lock();
        for element in list.elements() {
            let name = partition_name(element.topic(), element.partition());
            if let Some(owned) = state.owned.get_mut(name.as_str()) {
                owned.requested = owned.committed;
                state.to_repeat = true;
            }
        }
    }

    pub(super) fn take_commit_error(&self) -> Option<String> {
        self.lock().commit_error.take()
    }

    /// The next offset of every partition that a member has, those included that it is about to lose.
    pub(super) fn offsets_of(&self, member: usize) -> TopicPartitionList {
        let state = self.lock();
        let mut list = TopicPartitionList::new();
        for (name, owned) in state.owned.iter().filter(|(_, owned)| owned.member == member) {
            if let Some(&next) = state.given.get(name) {
                add(&mut list, &owned.partition, next);
            }
        }
        list
    }

    /// Ask for a checkpoint.
    pub(super) fn want_checkpoint(&self) {
        self.lock().wanted = true;
        self.wake.notify_one();
    }

    pub(super) fn take_wanted(&self) -> bool {
        std::mem::take(&mut self.lock().wanted)
    }

    /// The source can't go on. The first reason stays.
    pub(super) fn fail(&self, reason: String) {
        self.lock().failure.get_or_insert(reason);
        self.wake.notify_one();
    }

    pub(super) fn take_failure(&self) -> Option<String> {
        self.lock().failure.take()
    }

    pub(super) fn trouble(&self, message: String, cause: String) {
        let problem = Some(Problem { message, cause });
        self.problem.send_if_modified(|current| {
            let new = *current != problem;
            *current = problem;
            new
        });
    }

    pub(super) fn all_is_well(&self) {
        self.problem.send_if_modified(|problem| problem.take().is_some());
    }

    /// So many records are to be read, in all; or some more.
    pub(super) fn expect(&self, records: u64) {
        let mut state = self.lock();
        state.total = Some(state.total.unwrap_or(0) + records);
    }

    /// Done and total, of a source with an end.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let state = self.lock();
        state.total.map(|total| (state.done.min(total), total))
    }

    /// Offsets may have gaps, at the end too.
    pub(super) fn finish_progress(&self) {
        let mut state = self.lock();
        state.done = state.total.unwrap_or(0);
    }
}

impl State {
    fn all_confirmed(&self, member: usize, names: &[String]) -> bool {
        names.iter().all(|name| {
            let name = name.as_str();
            let owned = self.owned.get(name).is_some_and(|owned| owned.member == member);
            !owned || self.given.get(name) == self.confirmed.get(name)
        })
    }
}

fn add(list: &mut TopicPartitionList, partition: &Partition, offset: i64) {
    // Refused only for an offset that is none, which no record has.
    let _ = list.add_partition_offset(&partition.topic, partition.number, rdkafka::Offset::Offset(offset));
}

#[cfg(test)]
mod tests;
