//! Dead letters.

use std::time::Duration;

use super::memory::{Call, Fault, Rig, TICK, Work, until};
use crate::pipeline::status::State;

// invariant 3
#[tokio::test(start_paused = true)]
async fn a_letter_names_pipeline_stage_place_and_error() {
    let rig = Rig::new(60, 3).with("even", Work::Even).with("fail", Work::Fail(|value| value == 30));
    rig.run_to_the_end().await;
    let rows = rig.dead().rows();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row["pipeline"], "p");
    assert_eq!(row["stage"], "fail");
    assert_eq!((&row["partition"], &row["offset"]), (&"numbers".into(), &30.into()));
    assert_eq!(row["error"], "it is not liked");
    assert_eq!(row["row"], "{\"value\":30}");
}

// invariants 1 and 3
#[tokio::test(start_paused = true)]
async fn no_position_is_stored_before_its_letters_are_safe() {
    let rig = Rig::new(30, 3).source(|source| source.pace = Some(TICK / 20));
    let rig = rig.with("fail", Work::Fail(|value| value == 7));
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    rig.dead().flush_gate.shut();
    rig.delivers(29).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.stored_position().await, 0);
    rig.dead().flush_gate.open();
    rig.reaches(State::Completed).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.dead().column("offset"), [7]);
}

// invariant 3: a barrier comes to the letters after every row that failed before it, in whatever stage
#[tokio::test(start_paused = true)]
async fn the_barrier_reaches_the_letters_last() {
    let rig = Rig::new(30, 3)
        .source(|source| {
            source.bad = vec![1];
            source.pace = Some(TICK / 20);
        })
        .with("fail", Work::Fail(|value| value == 7))
        .sink(|sink| sink.refuses = |value| value == 11)
        .and_sink("late");
    let late = &rig.sinks[1];
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    late.flush_gate.shut();
    rig.delivers(27).await;
    until("the flush of the second sink", || late.count(|call| *call == Call::Flush) == 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.dead().count(|call| *call == Call::Flush), 1, "that of its opening");
    late.flush_gate.open();
    rig.reaches(State::Completed).await;
    rig.stop(pipeline).await;
    let calls = rig.dead().calls();
    let last_write = calls.iter().rposition(|call| matches!(call, Call::Write(_))).unwrap();
    let flush = calls.iter().rposition(|call| *call == Call::Flush).unwrap();
    assert!(last_write < flush, "{calls:?}");
    assert_eq!(rig.dead().len(), 3);
}

// invariant 3
#[tokio::test(start_paused = true)]
async fn a_letter_that_can_not_be_written_stops_the_run_rather_than_vanish() {
    let rig =
        Rig::new(30, 3).with("fail", Work::Fail(|value| value == 7)).letters(|letters| letters.refuses = |_| true);
    let pipeline = rig.start();
    until("some restarts", || rig.status.facts().restarts >= 4).await;
    let error = rig.status.facts().first_error.unwrap().message;
    assert_eq!(error, "letters: a dead letter can't be written: refused");
    assert!(rig.stored_position().await <= 7, "no position past the row");
    rig.stop(pipeline).await;
    let late = Rig::new(30, 3).with("fail", Work::Fail(|value| value == 7));
    let late = late.letters(|letters| letters.refuses_late = |_| true);
    let pipeline = late.start();
    until("some restarts", || late.status.facts().restarts >= 4).await;
    assert!(late.stored_position().await <= 7, "no position past the row");
    late.stop(pipeline).await;
}

// invariants 3 and 6
#[tokio::test(start_paused = true)]
async fn letters_wait_for_their_sink_and_then_arrive() {
    let rig = Rig::new(300, 3).with("fail", Work::Fail(|value| value % 2 == 0));
    rig.dead().writes.add(Fault::Retryable, 6);
    rig.run_to_the_end().await;
    assert_eq!(rig.status.facts().restarts, 0);
    assert_eq!(rig.dead().len(), 150);
}

// invariant 3
#[tokio::test(start_paused = true)]
async fn letters_of_several_sinks_and_the_transforms_do_not_block_each_other() {
    let mut rig = Rig::new(600, 5)
        .source(|source| source.bad = (0..600).step_by(7).collect())
        .with("fail", Work::Fail(|value| value % 3 == 0))
        .sink(|sink| {
            sink.refuses = |_| true;
            sink.truncating = false;
        });
    rig.interval = Duration::from_millis(1);
    for sink in 0..3 {
        rig = rig.and_sink_that(&format!("sink {sink}"), |sink| sink.refuses_late = |value| value % 2 == 0);
    }
    let rig = rig.source(|source| source.pace = Some(Duration::from_micros(300)));
    rig.run_to_the_end().await;
    // By hand: 600 rows, 86 of them multiples of 7; of the other 514, 200 - 29 = 171 are multiples of 3; 343 come to the
    // sinks. Even ones among those: 300 - 43 - (100 - 15) = 172.
    assert_eq!(rig.dead().len(), 86 + 171 + 343 + 3 * 172);
}
