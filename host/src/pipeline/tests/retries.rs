//! Errors that go away by themselves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::memory::{Call, Fault, Rig, TICK, lock, until};
use crate::pipeline::status::State;

fn numbers(count: i64) -> Vec<i64> {
    (0..count).collect()
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn opening_is_tried_again_until_it_works_and_the_first_error_stays_visible() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    rig.source.opens.add(Fault::Failed, 3);
    rig.out().opens.add(Fault::Retryable, 2);
    let began = Instant::now();
    let pipeline = rig.start();
    rig.reaches(State::Retrying).await;
    let first = rig.status.facts().first_error.unwrap();
    assert_eq!(first.message, "out: opening out does not work now");
    until("the source's error", || rig.status.facts().last_error.unwrap().message.starts_with("source")).await;
    assert_eq!(rig.status.facts().first_error.unwrap().message, first.message, "the first one stays");
    rig.reaches(State::Running).await;
    // Five waits of 100, 200, 400, 800, 1600 ms, each at least half of that.
    assert!((1550..=3200).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    until("the first error to be history", || rig.status.facts().first_error.is_none()).await;
    assert!(rig.status.facts().last_error.is_some());
    assert_eq!(rig.status.facts().restarts, 5);
    rig.stop(pipeline).await;
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn an_open_that_never_returns_does_not_keep_a_pipeline_from_being_stopped() {
    let rig = Rig::new(10, 10);
    rig.source.opens.add(Fault::Hang, 1);
    let pipeline = rig.start();
    until("the source to be opened", || rig.out().count(|call| matches!(call, Call::Open(_))) == 1).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.state(), State::Stopped);
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn an_open_that_panics_is_an_error_like_any_other() {
    let rig = Rig::new(10, 10).with("even", super::memory::Work::Even);
    rig.source.opens.add(Fault::Panic, 1);
    rig.out().opens.add(Fault::Panic, 1);
    rig.transforms[0].starts.add(Fault::Panic, 1);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().values(), [0, 2, 4, 6, 8]);
    assert_eq!(rig.status.facts().restarts, 3);
    assert!(rig.status.facts().last_error.unwrap().message.contains("as the test wants it"));
}

// invariants 1 and 6
#[tokio::test(start_paused = true)]
async fn a_sink_is_given_the_same_batch_until_it_takes_it() {
    let rig = Rig::new(30, 10);
    let pipeline = {
        rig.out().writes.add(Fault::Retryable, 4);
        rig.start()
    };
    until("the third try", || rig.out().count(|call| matches!(call, Call::Write(_))) == 3).await;
    assert_eq!(rig.state(), State::Retrying);
    let facts = rig.status.facts();
    assert_eq!(facts.first_error.unwrap().message, "out: writing to out does not work now");
    rig.reaches(State::Completed).await;
    let writes: Vec<Call> = rig.out().calls().into_iter().filter(|call| matches!(call, Call::Write(_))).collect();
    let batch = |first: i64| Call::Write((first..first + 10).collect());
    assert_eq!(writes, [batch(0), batch(0), batch(0), batch(0), batch(0), batch(10), batch(20)]);
    assert_eq!(rig.status.facts().restarts, 0, "no restart was needed");
    assert_eq!(rig.status.facts().first_error, None);
    assert_eq!(rig.status.stage("out").troubles().0, 4);
    rig.stop(pipeline).await;
}

// invariant 1
#[tokio::test(start_paused = true)]
async fn a_flush_is_repeated_until_it_works_and_nothing_is_stored_before() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    let pipeline = rig.start();
    rig.next_checkpoints(1).await;
    let position = rig.stored_position().await;
    rig.out().flushes.forever(Some(Fault::Retryable));
    rig.reaches(State::Retrying).await;
    tokio::time::sleep(TICK * 100).await;
    assert_eq!(rig.stored_position().await, position);
    rig.out().flushes.forever(None);
    rig.next_checkpoints(1).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.out().values(), numbers(i64::try_from(rig.stored_position().await).unwrap()));
    assert_eq!(rig.status.facts().restarts, 0);
}

// invariant 1: a sink of two phases must hear of every checkpoint, also if it was in the middle of something
#[tokio::test(start_paused = true)]
async fn a_sink_that_retries_a_write_hears_of_the_checkpoint_afterwards() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    let rig = rig.and_sink_that("slow", |slow| slow.flush_takes = TICK * 3);
    let pipeline = rig.start();
    rig.next_checkpoints(1).await;
    let flushes = rig.out().count(|call| *call == Call::Flush);
    until("the next flush", || rig.out().count(|call| *call == Call::Flush) > flushes).await;
    rig.out().writes.forever(Some(Fault::Retryable));
    let told = rig.out().count(|call| *call == Call::Committed);
    rig.next_checkpoints(1).await;
    assert_eq!(rig.state(), State::Retrying);
    assert_eq!(rig.out().count(|call| *call == Call::Committed), told, "it is in the middle of a write");
    let position = rig.stored_position().await;
    rig.out().writes.forever(None);
    until("the news", || rig.out().count(|call| *call == Call::Committed) == told + 1).await;
    assert_eq!(rig.out().visible() as u64, position);
    rig.stop(pipeline).await;
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn a_source_is_asked_again_and_loses_nothing() {
    let rig = Rig::new(40, 10);
    rig.source.faults_at(15).add(Fault::Retryable, 5);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().values(), numbers(40));
    assert_eq!(*lock(&rig.source.opened_at), [0], "it was not opened anew");
    assert_eq!(rig.status.stage("source").troubles().0, 5);
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn barriers_pass_while_the_source_waits_to_be_asked_again() {
    let rig = Rig::new(0, 10).source(|source| source.rows = None);
    rig.source.faults_at(20).forever(Some(Fault::Retryable));
    let pipeline = rig.start();
    until("both batches on disk", || rig.checkpoint() >= 2).await;
    assert_eq!(rig.stored_position().await, 20);
    assert_eq!(rig.state(), State::Retrying);
    let told = || lock(&rig.source.committed).last().copied();
    until("the source to be told of it while it waits", || told() == Some(20)).await;
    let tries = rig.status.stage("source").troubles().0;
    tokio::time::sleep(Duration::from_secs(300)).await;
    // At least 15 s between tries once the wait has grown to 30 s.
    assert!(rig.status.stage("source").troubles().0 - tries <= 25, "it waits as long as it should");
    rig.stop(pipeline).await;
    assert_eq!(rig.source.closed.load(Ordering::SeqCst), 1, "and it is closed in the end");
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn a_wait_is_not_cut_short_by_a_barrier() {
    let rig = Rig::new(0, 10)
        .source(|source| source.rows = None)
        .with("tick", super::memory::Work::Tick(Duration::from_millis(300)));
    rig.source.faults_at(0).forever(Some(Fault::Retryable));
    let pipeline = rig.start();
    // Ticks make rows, so there is a barrier every second.
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Eight tries for waits of 100 ms to 12.8 s, which add up to at least 12.75 s and at most 25.5 s; then one each 15 s
    // to 30 s.
    let tries = rig.status.stage("source").troubles().0;
    assert!((19..=50).contains(&tries), "{tries}");
    pipeline.stop().await;
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn while_one_sink_still_fails_another_that_recovers_does_not_make_it_look_well() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100)).and_sink("second");
    let pipeline = rig.start();
    rig.next_checkpoints(1).await;
    rig.sinks[1].writes.forever(Some(Fault::Retryable));
    rig.reaches(State::Retrying).await;
    rig.out().writes.add(Fault::Retryable, 1);
    until("the first to have recovered", || rig.status.stage("out").troubles().0 == 1).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(rig.state(), State::Retrying);
    assert!(rig.status.facts().first_error.is_some());
    rig.sinks[1].writes.forever(None);
    rig.reaches(State::Running).await;
    rig.stop(pipeline).await;
}

// invariant 6
#[tokio::test(start_paused = true)]
async fn the_first_error_stays_visible_while_every_flush_breaks_the_run() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    let pipeline = rig.start();
    rig.next_checkpoints(1).await;
    rig.out().writes.add(Fault::Failed, 1);
    until("the first error", || rig.status.facts().first_error.is_some()).await;
    let first = rig.status.facts().first_error.unwrap().message;
    assert_eq!(first, "out: writing to out is broken");
    // From here on it opens, runs for an interval, and fails at the flush: it never works.
    until("the run to be open again", || rig.out().count(|call| matches!(call, Call::Open(_))) == 2).await;
    rig.reaches(State::Running).await;
    rig.out().flushes.forever(Some(Fault::Retryable));
    for _ in 0..100 {
        tokio::time::sleep(TICK).await;
        assert_eq!(rig.status.facts().first_error.map(|error| error.message).as_ref(), Some(&first));
    }
    rig.out().flushes.forever(None);
    until("the first error to be history", || rig.status.facts().first_error.is_none()).await;
    rig.stop(pipeline).await;
}
