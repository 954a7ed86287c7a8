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
