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
mod tests {
    use serde_json::json;

    use super::*;

    fn position(entries: &[(&str, i64)]) -> Position {
        Position(entries.iter().map(|(name, offset)| ((*name).to_owned(), (*offset).into())).collect())
    }

    fn begin(number: i32, offset: i64, committed: i64) -> Begin {
        Begin { topic: "t".to_owned(), number, offset, committed }
    }

    fn offsets(list: &TopicPartitionList) -> Vec<(i32, i64)> {
        let offset =
            |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| element.offset().to_raw().unwrap();
        list.elements().iter().map(|element| (element.partition(), offset(element))).collect()
    }

    fn give(shared: &Shared, number: i32, next: i64) -> bool {
        let partition = shared.find(0, "t", number).unwrap();
        shared.give(&[(partition, next)], None)
    }

    #[test]
    fn what_is_not_assigned_stays_in_the_position() {
        let shared = Shared::new(Some(&position(&[("t/0", 5), ("u/1", 7)])));
        shared.assign(0, &[begin(0, 6, 6)]);
        assert_eq!(shared.position(), position(&[("t/0", 6), ("u/1", 7)]));
        assert!(give(&shared, 0, 9));
        assert_eq!(shared.position(), position(&[("t/0", 9), ("u/1", 7)]));
        assert!(shared.knows_topic("u") && !shared.knows_topic("v"));
    }

    /// The campaign of faults lost rows here: they were committed to the group although the pipeline was about to fail with
    /// them on their way, and the next run began behind them.
    #[test]
    fn rows_on_their_way_are_not_confirmed_by_a_partition_that_was_lost_and_comes_back() {
        let shared = Shared::new(None);
        shared.assign(0, &[begin(0, 0, -1)]);
        assert!(give(&shared, 0, 9));
        assert_eq!(offsets(&shared.confirm(&position(&[("t/0", 5)]))[&0]), [(0, 5)]);
        shared.assign(0, &[begin(0, 9, 5)]);
        assert_eq!(shared.position(), position(&[("t/0", 9)]));
        assert!(shared.confirm(&position(&[("t/0", 5)])).is_empty(), "what is behind 5 is not confirmed");
        assert_eq!(offsets(&shared.confirm(&position(&[("t/0", 9)]))[&0]), [(0, 9)]);
    }

    #[test]
    fn what_has_been_learnt_is_in_the_position() {
        let shared = Shared::new(None);
        shared.give(&[], Some(&json!({ "columns": [["a", "int64"]] })));
        let again = Shared::new(Some(&shared.position()));
        assert_eq!(again.learnt(), Some(json!({ "columns": [["a", "int64"]] })));
        assert_eq!(again.position(), shared.position());
    }

    // invariant 1
    #[test]
    fn the_group_gets_what_is_confirmed_and_no_more() {
        let shared = Shared::new(None);
        shared.assign(0, &[begin(0, 0, -1), begin(1, 4, 4)]);
        assert!(give(&shared, 0, 10));
        let first = shared.position();
        assert!(give(&shared, 0, 20));
        let commits = shared.confirm(&first);
        assert_eq!(offsets(&commits[&0]), [(0, 10)], "t/1 is there already, the second batch is not confirmed");
        assert!(shared.confirm(&first).is_empty(), "once is enough");
        let failed = commits[&0].clone();
        shared.committed(&failed, Some("no".to_owned()));
        assert_eq!(offsets(&shared.confirm(&first)[&0]), [(0, 10)], "but it must succeed");
        shared.refused(&failed);
        assert_eq!(offsets(&shared.repeat_commits()[&0]), [(0, 10)], "also if no checkpoint comes any more");
        assert!(shared.repeat_commits().is_empty(), "the answer is on its way");
        let names = ["t/0".to_owned(), "t/1".to_owned()];
        assert_eq!(offsets(&shared.uncommitted(0, &names).unwrap()), [(0, 10)], "no answer yet");
        shared.committed(&failed, None);
        assert!(shared.uncommitted(0, &names).is_none());
        shared.claimed.store(true, Ordering::Release);
        assert!(shared.confirm(&shared.position()).is_empty(), "a sink does it");
    }

    #[test]
    fn a_partition_goes_once_it_is_confirmed() {
        let shared = Arc::new(Shared::new(None));
        let names = ["t/0".to_owned()];
        shared.assign(0, &[begin(0, 0, -1)]);
        assert!(give(&shared, 0, 10));
        let partition = shared.find(0, "t", 0).unwrap();
        assert!(!shared.hold(0, &names));
        assert!(!shared.give(&[(partition, 20)], None), "nothing more is handed out");
        assert_eq!(shared.wait_for_checkpoint(0, &names, Duration::ZERO), Waited::TooLong);
        assert!(shared.take_wanted());
        let waiting = {
            let (shared, names) = (shared.clone(), names.clone());
            std::thread::spawn(move || shared.wait_for_checkpoint(0, &names, Duration::from_secs(60)))
        };
        assert!(shared.confirm(&position(&[("t/0", 10)])).is_empty(), "who waits commits it");
        assert_eq!(waiting.join().unwrap(), Waited::Confirmed);
        assert_eq!(offsets(&shared.uncommitted(0, &names).unwrap()), [(0, 10)]);
        shared.release(0, &names);
        assert!(shared.find(0, "t", 0).is_none());
        assert_eq!(shared.position(), position(&[("t/0", 10)]));
    }

    #[test]
    fn an_old_checkpoint_says_nothing_of_a_partition_that_has_come_since() {
        let shared = Shared::new(Some(&position(&[("t/0", 50)])));
        shared.assign(0, &[begin(0, 100, 100)]);
        assert!(shared.confirm(&position(&[("t/0", 50)])).is_empty(), "another member was at 100");
        shared.assign(0, &[begin(0, 0, 100)]);
        assert_eq!(offsets(&shared.confirm(&position(&[("t/0", 100)]))[&0]), [(0, 0)], "the topic was made anew");
    }

    #[test]
    fn a_member_that_learns_late_of_its_loss_harms_no_one() {
        let shared = Shared::new(None);
        let names = ["t/0".to_owned()];
        shared.assign(0, &[begin(0, 0, -1)]);
        assert!(give(&shared, 0, 10));
        let old = shared.find(0, "t", 0).unwrap();
        shared.seize(1, &names);
        shared.assign(1, &[begin(0, 10, -1)]);
        assert!(old.is_gone() && shared.find(0, "t", 0).is_none());
        assert!(shared.hold(0, &names), "it is not this member's");
        shared.release(0, &names);
        assert!(!shared.find(1, "t", 0).unwrap().is_gone());
    }

    #[test]
    fn closing_ends_the_wait() {
        let shared = Arc::new(Shared::new(None));
        shared.assign(0, &[begin(0, 0, -1)]);
        assert!(give(&shared, 0, 10));
        let waiting = {
            let shared = shared.clone();
            std::thread::spawn(move || shared.wait_for_checkpoint(0, &["t/0".to_owned()], Duration::from_secs(60)))
        };
        shared.close();
        assert_eq!(waiting.join().unwrap(), Waited::Closing);
    }
}
