//! Checkpoints that a source asks for, and sinks that commit in a second phase.

use std::time::Duration;

use super::memory::{Call, Fault, Rig, TICK, Work, lock, until, within};
use crate::pipeline::status::State;

// invariant 1
#[tokio::test(start_paused = true)]
async fn a_source_gets_a_checkpoint_when_it_asks_for_one() {
    let mut rig = Rig::new(0, 5).endless(TICK / 10);
    // Without being asked there is none for a day.
    rig.interval = Duration::from_secs(86_400);
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    rig.delivers(20).await;
    let before = rig.checkpoint();
    let asked = rig.source.next();
    *lock(&rig.source.wants) = Some(asked);
    until("the checkpoint that was asked for", || rig.checkpoint() > before).await;
    until("the source hears of it", || !lock(&rig.source.committed).is_empty()).await;
    let committed = *lock(&rig.source.committed).last().unwrap();
    assert!(committed > asked, "it covers what was given before it was asked for: {committed} > {asked}");
    assert!(rig.out().values().len() as u64 >= committed, "and that is in the sink");
    rig.stop(pipeline).await;
}

// invariant 1
#[tokio::test(start_paused = true)]
async fn a_wish_for_a_checkpoint_waits_for_the_one_under_way() {
    let rig = Rig::new(0, 5).endless(TICK / 10).sink(|sink| sink.flush_takes = TICK * 3);
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    rig.next_checkpoints(1).await;
    let asked = rig.source.next();
    *lock(&rig.source.wants) = Some(asked);
    until("a checkpoint that covers it", || lock(&rig.source.committed).last().is_some_and(|next| *next > asked)).await;
    rig.stop(pipeline).await;
}

/// The order of a two-phase commit: flush, store, commit; then the source and the other sinks are told; and the next rows
/// are written only then.
// invariants 1 and 4
#[tokio::test(start_paused = true)]
async fn the_source_is_told_after_the_second_phase() {
    let rig = Rig::new(0, 5).endless(TICK / 10).sink(|sink| sink.two_phase = true).and_sink("second");
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    rig.next_checkpoints(2).await;
    rig.out().commits.forever(Some(Fault::Retryable));
    let (number, told) = (rig.checkpoint(), lock(&rig.source.committed).len());
    until("a checkpoint is stored", || rig.checkpoint() > number).await;
    let written = rig.out().len();
    tokio::time::sleep(TICK * 20).await;
    assert_eq!(lock(&rig.source.committed).len(), told, "the source is not told of what does not count yet");
    assert_eq!(rig.out().len(), written, "nothing is written between a flush and its commit");
    assert_eq!(rig.checkpoint(), number + 1, "and there is no other checkpoint");
    assert!(rig.status.facts().first_error.is_some(), "the trouble is seen");
    rig.out().commits.forever(None);
    rig.next_checkpoints(2).await;
    let handed = lock(&rig.out().handed).clone();
    let committed = lock(&rig.source.committed).clone();
    assert!(committed.iter().all(|next| handed.contains(next)), "each was committed with what the source gave along");
    let calls: Vec<Call> = rig.out().calls();
    for pair in calls.windows(2) {
        if pair[0] == Call::Flush && pair[1] != Call::Committed {
            assert_eq!(
                pair[1],
                Call::Write(vec![0, 1, 2, 3, 4]),
                "only the flush that opens it has no commit: {pair:?}"
            );
        }
    }
    rig.stop(pipeline).await;
    assert_eq!(rig.out().visible(), rig.out().len(), "what was stopped in good order counts");
}

/// A commit that fails for good fails the run; what was not committed is written again.
// invariants 1, 2 and 4
#[tokio::test(start_paused = true)]
async fn a_failed_commit_goes_back_to_the_checkpoint_before() {
    for fault in [1, 2, 4] {
        let rig = Rig::new(40, 2)
            .source(|source| source.pace = Some(TICK / 4))
            .with("sum", Work::Sum)
            .sink(|sink| sink.two_phase = true);
        let pipeline = rig.start();
        rig.reaches(State::Running).await;
        rig.next_checkpoints(1).await;
        rig.out().commits.add(Fault::Failed, fault);
        within(TICK * 600, "the end", async { rig.reaches(State::Completed).await }).await;
        assert_eq!(rig.out().values(), (0..40).collect::<Vec<_>>());
        assert_eq!(rig.out().column("sum"), (0..40).map(|n| n * (n + 1) / 2).collect::<Vec<_>>());
        assert_eq!(rig.out().visible(), 40);
        rig.stop(pipeline).await;
    }
}

/// A reload and a stop end though the commit does not come through; nothing is lost.
// invariants 4 and 7
#[tokio::test(start_paused = true)]
async fn a_stop_ends_while_a_commit_is_retried() {
    let rig = Rig::new(30, 2).source(|source| source.pace = Some(TICK / 4)).sink(|sink| sink.two_phase = true);
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    rig.next_checkpoints(1).await;
    rig.out().commits.forever(Some(Fault::Retryable));
    let number = rig.checkpoint();
    until("a checkpoint is stored", || rig.checkpoint() > number).await;
    within(Duration::from_secs(30), "the stop", pipeline.stop()).await;
    rig.out().commits.forever(None);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().values(), (0..30).collect::<Vec<_>>());
    assert_eq!(rig.out().visible(), 30);
}
