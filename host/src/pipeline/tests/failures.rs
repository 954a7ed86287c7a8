//! Errors that end a run: the pipeline goes back to its checkpoint by itself.

use std::time::Duration;

use super::memory::{Call, Fault, Rig, TICK, Work, lock, until};
use crate::config::model::OnError;
use crate::pipeline::status::State;

fn numbers(count: i64) -> Vec<i64> {
    (0..count).collect()
}

// invariants 1, 2 and 6
#[tokio::test(start_paused = true)]
async fn whatever_fails_or_panics_the_rows_are_delivered_exactly_once() {
    for fault in [Fault::Failed, Fault::Panic] {
        let world = Rig::new(0, 1);
        let rig = |place: &str| {
            let rig = world.beside(&format!("{place} {fault:?}"), 60, 3);
            rig.source(|source| source.pace = Some(Duration::from_millis(200))).with("sum", Work::Sum).and_sink("b")
        };
        type Break = fn(&Rig, Fault);
        let breaks: [(&str, Break); 5] = [
            ("source", |rig, fault| rig.source.faults_at(33).add(fault, 2)),
            ("write", |rig, fault| rig.out().writes.add(fault, 2)),
            ("flush", |rig, fault| rig.sinks[1].flushes.add(fault, 2)),
            ("committed", |rig, fault| rig.sinks[1].commits.add(fault, 2)),
            ("snapshot", |rig, fault| rig.transforms[0].snapshots.add(fault, 2)),
        ];
        for (place, fail) in breaks {
            let rig = rig(place);
            let pipeline = rig.start();
            rig.delivers(20).await;
            fail(&rig, fault);
            rig.reaches(State::Completed).await;
            rig.stop(pipeline).await;
            for table in &rig.sinks {
                assert_eq!(table.values(), numbers(60), "{place} {fault:?}");
                assert_eq!(table.column("sum").last(), Some(&(59 * 60 / 2)), "{place} {fault:?}");
                assert_eq!(table.visible(), 60, "{place} {fault:?}");
            }
            assert_eq!(rig.status.facts().restarts, 2, "{place} {fault:?}");
            let error = rig.status.facts().last_error.unwrap().message;
            let cause = if fault == Fault::Failed { "is broken" } else { "as the test wants it" };
            assert!(error.contains(cause), "not a neighbour's error, but the cause: {error}");
        }
    }
}

// invariant 1
#[tokio::test(start_paused = true)]
async fn a_last_commit_that_fails_is_not_taken_for_completion() {
    let rig = Rig::new(20, 10);
    // The one of the end: all rows fit between two intervals.
    rig.out().commits.add(Fault::Failed, 1);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().visible(), 20);
    assert_eq!(rig.status.facts().restarts, 1, "it went back to the checkpoint, which says to the sink that it counts");
    assert_eq!(rig.out().values(), numbers(20));
}

// invariant 1
#[tokio::test(start_paused = true)]
async fn a_last_commit_that_fails_on_a_stop_is_seen() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    let pipeline = rig.start();
    rig.next_checkpoints(1).await;
    rig.out().commits.forever(Some(Fault::Failed));
    rig.stop(pipeline).await;
    assert_eq!(rig.state(), State::Stopped);
    assert_eq!(rig.status.facts().last_error.unwrap().message, "out: committing out is broken");
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn a_sink_that_never_closes_does_not_keep_the_end_from_coming() {
    let rig = Rig::new(20, 10);
    rig.out().closes.forever(Some(Fault::Hang));
    rig.run_to_the_end().await;
    assert_eq!((rig.status.facts().restarts, rig.out().visible()), (0, 20));
}

#[tokio::test(start_paused = true)]
async fn stages_are_closed_also_after_a_failure() {
    let rig = Rig::new(60, 3).source(|source| source.pace = Some(Duration::from_millis(200))).and_sink("b");
    let pipeline = rig.start();
    rig.delivers(20).await;
    rig.out().writes.add(Fault::Failed, 1);
    rig.reaches(State::Completed).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.sinks[1].count(|call| *call == Call::Close), 2);
    assert_eq!(rig.source.closed.load(std::sync::atomic::Ordering::SeqCst), 2);
}

// invariant 3
#[tokio::test(start_paused = true)]
async fn on_error_stop_stops_before_the_row_and_stays_so() {
    let rig = Rig::new(60, 3).with("fail", Work::Fail(|value| value == 31)).on_error(OnError::Stop);
    let pipeline = rig.start();
    rig.reaches(State::Stopped).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.state(), State::Stopped);
    assert_eq!(lock(&rig.source.opened_at).len(), 1);
    let error = rig.status.facts().first_error.unwrap().message;
    assert!(error.contains("numbers, row 31: it is not liked") && error.contains("on_error"), "{error}");
    assert!(rig.stored_position().await <= 31 && !rig.out().values().contains(&31));
    // A new configuration sets it going again.
    let mended = Rig { transforms: Vec::new(), fixed: false, ..rig.clone() };
    pipeline.replace(mended.setup()).await.unwrap();
    mended.reaches(State::Completed).await;
    mended.stop(pipeline).await;
    assert_eq!(rig.out().values(), numbers(60));
}

// invariant 3
#[tokio::test(start_paused = true)]
async fn on_error_stop_holds_for_rows_that_do_not_decode_and_rows_that_are_refused() {
    let decode = Rig::new(60, 3).source(|source| source.bad = vec![31]).on_error(OnError::Stop);
    let write = Rig::new(60, 3).sink(|sink| sink.refuses = |value| value == 31).on_error(OnError::Stop);
    let flush = Rig::new(60, 3).sink(|sink| sink.refuses_late = |value| value == 31).on_error(OnError::Stop);
    for (rig, stage) in [(decode, "source"), (write, "out"), (flush, "out")] {
        let pipeline = rig.start();
        rig.reaches(State::Stopped).await;
        let error = rig.status.facts().first_error.unwrap().message;
        assert!(error.starts_with(&format!("{stage}: numbers, row 31: ")), "{error}");
        assert!(rig.stored_position().await <= 31);
        rig.stop(pipeline).await;
    }
}

// invariant 3
#[tokio::test(start_paused = true)]
async fn on_error_skip_drops_the_row_and_counts_it() {
    let rig = Rig::new(60, 3)
        .source(|source| source.bad = vec![2])
        .with("fail", Work::Fail(|value| value == 31))
        .sink(|sink| {
            sink.refuses = |value| value == 33;
            sink.refuses_late = |value| value == 34;
        })
        .on_error(OnError::Skip);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().values(), (0..60).filter(|n| ![2, 31, 33, 34].contains(n)).collect::<Vec<_>>());
    let counts = rig.status.counts();
    assert_eq!((counts["source"].dead, counts["fail"].dead, counts["out"].dead), (1, 1, 2));
}

// invariants 2 and 3
#[tokio::test(start_paused = true)]
async fn a_trap_that_loses_state_goes_on_carefully_from_the_checkpoint_and_costs_one_row() {
    let rig = Rig::new(0, 3)
        .endless(Duration::from_millis(200))
        .with("sum", Work::Sum)
        .with("trap", Work::Trap { at: 31, lost: true });
    let trap = &rig.transforms[1];
    trap.traps.store(1000, std::sync::atomic::Ordering::SeqCst);
    let pipeline = rig.start();
    until("the careful run", || lock(&trap.careful).contains(&true)).await;
    rig.next_checkpoints(1).await;
    assert_eq!(lock(&trap.careful).last(), Some(&true));
    rig.next_checkpoints(2).await;
    assert_eq!(*lock(&trap.careful), [false, true, false], "it is careful until two checkpoints are stored");
    rig.stop(pipeline).await;
    let position = i64::try_from(rig.stored_position().await).unwrap();
    assert_eq!(rig.out().values(), (0..position).filter(|value| *value != 31).collect::<Vec<_>>());
    assert_eq!(rig.out().column("sum").last(), Some(&(position * (position - 1) / 2)));
    assert_eq!(rig.dead().column("offset"), [31]);
    assert_eq!(rig.status.facts().restarts, 1);
}

// invariants 2 and 6
#[tokio::test(start_paused = true)]
async fn state_that_is_lost_again_and_again_waits_longer_each_time() {
    let rig = Rig::new(60, 3).with("sum", Work::Sum);
    let pipeline = rig.start();
    rig.reaches(State::Completed).await;
    rig.stop(pipeline).await;
    let rig = Rig::new(60, 3).with("sum", Work::Sum);
    rig.transforms[0].snapshots.forever(Some(Fault::Failed));
    let pipeline = rig.start();
    tokio::time::sleep(Duration::from_secs(300)).await;
    let restarts = rig.status.facts().restarts;
    assert!((10..40).contains(&restarts), "{restarts} restarts in five minutes");
    rig.transforms[0].snapshots.forever(None);
    rig.reaches(State::Completed).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.out().column("sum").last(), Some(&(59 * 60 / 2)));
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn a_trap_that_no_retry_helps_is_tried_with_longer_and_longer_waits() {
    let rig = Rig::new(60, 3).with("trap", Work::Trap { at: 31, lost: false });
    rig.transforms[0].traps.store(5, std::sync::atomic::Ordering::SeqCst);
    rig.run_to_the_end().await;
    assert_eq!(rig.status.facts().restarts, 5);
    assert_eq!(rig.out().values(), numbers(60));
    assert!(!lock(&rig.transforms[0].careful).contains(&true));
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn one_pipeline_that_fails_for_ever_does_not_touch_its_neighbour() {
    let broken = Rig::new(60, 3);
    broken.out().writes.forever(Some(Fault::Panic));
    let well = broken.beside("well", 60, 3).source(|source| source.pace = Some(TICK / 4));
    let (one, other) = (broken.start(), well.start());
    well.reaches(State::Completed).await;
    assert_eq!(well.out().values(), numbers(60));
    assert_eq!(well.status.facts().last_error, None);
    well.stop(other).await;
    broken.stop(one).await;
}
