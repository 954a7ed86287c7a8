//! Told to stop: at the start, in the middle, at the end, while something fails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::memory::{Call, Fault, Rig, Work, lock, until};
use crate::pipeline::status::State;

fn numbers(count: u64) -> Vec<i64> {
    (0..i64::try_from(count).unwrap()).collect()
}

// invariants 1 and 4
#[tokio::test(start_paused = true)]
async fn stopped_at_any_moment_and_started_again_it_delivers_every_row_once() {
    let world = Rig::new(0, 1);
    for millis in 0..150 {
        let rig = world
            .beside(&format!("p{millis}"), 50, 2)
            .source(|source| source.pace = Some(Duration::from_millis(100)))
            .with("sum", Work::Sum);
        let pipeline = rig.start();
        for _ in 0..millis % 7 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(millis * 20)).await;
        rig.stop(pipeline).await;
        if rig.stored().await.is_some() {
            assert_eq!(rig.out().values(), numbers(rig.stored_position().await), "all that was read, after {millis}");
        }
        rig.run_to_the_end().await;
        assert_eq!(rig.out().values(), numbers(50), "stopped after {millis}");
        assert_eq!(rig.out().column("sum").last(), Some(&(49 * 50 / 2)));
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_before_it_has_begun() {
    let rig = Rig::new(50, 2);
    rig.stop(rig.start()).await;
    assert_eq!(rig.state(), State::Stopped);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().values(), numbers(50));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_let_go_of_drains_and_ends() {
    let rig = Rig::new(0, 2).endless(Duration::from_millis(100));
    let pipeline = rig.start();
    rig.delivers(7).await;
    drop(pipeline);
    rig.reaches(State::Stopped).await;
    assert_eq!(rig.out().values(), numbers(rig.stored_position().await));
}

// rows that can't be read again go out before the end
#[tokio::test(start_paused = true)]
async fn rows_that_the_source_holds_go_out_before_the_end() {
    let rig = Rig::new(0, 2).endless(Duration::from_secs(1000));
    lock(&rig.source.held).extend([70, 71]);
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    pipeline.stop().await;
    assert_eq!(rig.out().values(), [70, 71]);
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_source_holds_go_out_also_while_it_waits_to_be_asked_again() {
    let rig = Rig::new(0, 2).source(|source| source.rows = None);
    lock(&rig.source.held).extend([70, 71]);
    rig.source.faults_at(0).forever(Some(Fault::Retryable));
    let pipeline = rig.start();
    until("a long wait", || rig.status.stage("source").troubles().0 == 9).await;
    pipeline.stop().await;
    assert_eq!(rig.out().values(), [70, 71]);
    assert_eq!(rig.source.closed.load(Ordering::SeqCst), 1);
}

// invariant 4: what could not be delivered in time is read again
#[tokio::test(start_paused = true)]
async fn while_a_sink_retries_for_ever_a_stop_ends_within_the_limit_and_loses_nothing() {
    type Break = fn(&Rig, Option<Fault>);
    let breaks: [(&str, Break); 4] = [
        ("write", |rig, fault| rig.out().writes.forever(fault)),
        ("flush", |rig, fault| rig.out().flushes.forever(fault)),
        ("letters' write", |rig, fault| rig.dead().writes.forever(fault)),
        ("letters' flush", |rig, fault| rig.dead().flushes.forever(fault)),
    ];
    for (place, fail) in breaks {
        for fault in [Fault::Retryable, Fault::Hang] {
            let rig = Rig::new(0, 2)
                .endless(Duration::from_millis(10))
                .with("sum", Work::Sum)
                .with("fail", Work::Fail(|value| value % 2 == 0));
            let pipeline = rig.start();
            rig.next_checkpoints(2).await;
            fail(&rig, Some(fault));
            tokio::time::sleep(Duration::from_secs(120)).await;
            let began = Instant::now();
            rig.stop(pipeline).await;
            assert!(began.elapsed() < Duration::from_secs(9), "{place} {fault:?}: {:?}", began.elapsed());
            assert_eq!(rig.state(), State::Stopped);
            fail(&rig, None);
            let pipeline = rig.start();
            rig.next_checkpoints(2).await;
            rig.stop(pipeline).await;
            let position = rig.stored_position().await;
            let odd: Vec<i64> = numbers(position).into_iter().filter(|value| value % 2 == 1).collect();
            assert_eq!(rig.out().values(), odd, "{place} {fault:?}");
            assert_eq!(rig.dead().len() + odd.len(), usize::try_from(position).unwrap(), "{place} {fault:?}");
        }
    }
}

// invariant 6: a run that fails while it is being stopped must not live on
#[tokio::test(start_paused = true)]
async fn a_failure_while_it_is_being_stopped_ends_it_all_the_same() {
    for fault in [Fault::Failed, Fault::Panic] {
        let rig = Rig::new(0, 2).endless(Duration::from_millis(100)).with("sum", Work::Sum);
        let pipeline = rig.start();
        rig.next_checkpoints(1).await;
        rig.out().flushes.forever(Some(fault));
        rig.stop(pipeline).await;
        assert_eq!(rig.state(), State::Stopped);
        assert!(rig.status.facts().last_error.unwrap().message.contains("flushing out"));
        rig.out().flushes.forever(None);
        let pipeline = rig.start();
        rig.next_checkpoints(1).await;
        rig.stop(pipeline).await;
        assert_eq!(rig.out().values(), numbers(rig.stored_position().await));
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_while_it_waits_to_try_again() {
    let rig = Rig::new(50, 2);
    rig.source.opens.forever(Some(Fault::Failed));
    let pipeline = rig.start();
    until("a long wait", || rig.status.facts().restarts == 10).await;
    let began = Instant::now();
    rig.stop(pipeline).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn sinks_and_source_are_closed_at_the_end_and_the_checkpoint_is_told_before() {
    let rig = Rig::new(0, 2).endless(Duration::from_millis(100));
    let pipeline = rig.start();
    rig.delivers(5).await;
    rig.stop(pipeline).await;
    let calls = rig.out().calls();
    assert_eq!(calls[calls.len() - 3..], [Call::Flush, Call::Committed, Call::Close]);
    assert_eq!(rig.source.closed.load(Ordering::SeqCst), 1);
}
