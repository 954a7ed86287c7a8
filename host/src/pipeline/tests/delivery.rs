//! Rows, barriers and backpressure when nothing goes wrong.

use std::time::Duration;

use super::memory::{Call, Rig, TICK, Work, within};
use crate::pipeline::status::State;

fn numbers(count: i64) -> Vec<i64> {
    (0..count).collect()
}

// invariants 1 and 3
#[tokio::test(start_paused = true)]
async fn every_row_arrives_once_and_in_order() {
    let rig = Rig::new(100, 7).with("sum", Work::Sum).and_sink("second");
    rig.run_to_the_end().await;
    for table in &rig.sinks {
        assert_eq!(table.values(), numbers(100));
        // 0, 0+1, 0+1+2, ...: n(n+1)/2
        assert_eq!(table.column("sum"), numbers(100).iter().map(|n| n * (n + 1) / 2).collect::<Vec<_>>());
        assert_eq!(table.visible(), 100, "the last checkpoint is told to the sink before it is closed");
    }
    assert_eq!(rig.stored_position().await, 100);
    assert_eq!(rig.status.facts().first_error, None);
}

// invariant 3
#[tokio::test(start_paused = true)]
async fn counts_balance_through_filters_repeats_and_failures() {
    let rig = Rig::new(30, 4)
        .source(|source| source.bad = vec![3, 8, 29])
        .with("even", Work::Even)
        .with("fail", Work::Fail(|value| value % 10 == 0))
        .with("twice", Work::Twice)
        .sink(|sink| {
            sink.refuses = |value| value == 12;
            sink.refuses_late = |value| value == 14;
        });
    rig.run_to_the_end().await;
    // Even and decoded: all even ones but 8; of those 0, 10, 20 fail; 12 and 14 are refused, twice each.
    let expected: Vec<i64> =
        (0..30).filter(|n| n % 2 == 0 && n % 10 != 0 && ![8, 12, 14].contains(n)).flat_map(|n| [n, n]).collect();
    assert_eq!(rig.out().values(), expected);
    assert_eq!(rig.dead().len(), 3 + 3 + 4);
    let counts = rig.status.counts();
    assert_eq!((counts["even"].rows_in, counts["even"].dropped), (27, 13), "27 decode, 13 of them odd");
    assert_eq!((counts["twice"].rows_in, counts["twice"].added), (11, 11));
    assert_eq!((counts["out"].rows_in, counts["out"].dead), (22, 4));
}

// invariant 1
#[tokio::test(start_paused = true)]
async fn a_position_is_stored_only_after_every_sink_has_confirmed() {
    let rig = Rig::new(50, 10).source(|source| source.pace = Some(TICK / 10)).and_sink("slow");
    let pipeline = rig.start();
    rig.reaches(State::Running).await;
    // From here on: opening flushes each sink once, to know its state.
    rig.sinks[1].flush_gate.shut();
    rig.delivers(50).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.sinks[1].len(), 50, "it has taken every row");
    assert!(rig.out().count(|call| *call == Call::Flush) > 1, "the other sink has confirmed");
    assert_eq!(rig.stored_position().await, 0, "but one has not, so nothing is stored");
    assert_eq!(rig.state(), State::Running);
    rig.sinks[1].flush_gate.open();
    rig.reaches(State::Completed).await;
    assert_eq!(rig.stored_position().await, 50);
    rig.stop(pipeline).await;
}

// invariant 1
#[tokio::test(start_paused = true)]
async fn the_source_is_told_of_every_position_once_it_is_on_disk() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    let pipeline = rig.start();
    rig.next_checkpoints(3).await;
    rig.stop(pipeline).await;
    let told = super::memory::lock(&rig.source.committed).clone();
    assert!(told.is_sorted() && told.len() >= 3, "{told:?}");
    assert_eq!(told.last(), Some(&rig.stored_position().await), "also of the last one");
}

// invariant 5
#[tokio::test(start_paused = true)]
async fn behind_a_blocked_sink_the_source_stops() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(1)).with("sum", Work::Sum);
    rig.out().write_gate.shut();
    let pipeline = rig.start();
    tokio::time::sleep(Duration::from_secs(100)).await;
    // With two batches in flight before each stage: one in the sink, two before it, one in the transforms, two before
    // them, one in the source.
    assert_eq!(rig.source.next(), 70);
    rig.out().write_gate.open();
    rig.delivers(200).await;
    rig.stop(pipeline).await;
    let position = i64::try_from(rig.stored_position().await).unwrap();
    assert_eq!(rig.out().values(), numbers(position));
}

// invariant 5
#[tokio::test(start_paused = true)]
async fn behind_blocked_dead_letters_the_source_stops() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(1)).with("fail", Work::Fail(|_| true));
    rig.dead().write_gate.shut();
    let pipeline = rig.start();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(rig.source.next(), 70);
    rig.dead().write_gate.open();
    rig.next_checkpoints(2).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.dead().len() as u64, rig.stored_position().await);
}

// invariant 5
#[tokio::test(start_paused = true)]
async fn a_slow_sink_does_not_make_barriers_pile_up() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(10));
    let pipeline = rig.start();
    rig.next_checkpoints(1).await;
    rig.out().flush_gate.shut();
    let before = rig.out().count(|call| *call == Call::Flush);
    tokio::time::sleep(TICK * 20).await;
    assert_eq!(rig.out().count(|call| *call == Call::Flush), before + 1, "one barrier is on its way, not twenty");
    rig.out().flush_gate.open();
    rig.next_checkpoints(2).await;
    rig.stop(pipeline).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_pipeline_stores_nothing() {
    let rig = Rig::new(0, 10).source(|source| {
        source.rows = None;
        source.pace = Some(Duration::from_secs(3600));
    });
    let pipeline = rig.start();
    tokio::time::sleep(Duration::from_secs(3590)).await;
    assert_eq!(rig.stored().await.unwrap().number, 1, "the one of its start");
    rig.delivers(10).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let number = rig.stored().await.unwrap().number;
    assert_eq!(rig.stored_position().await, 10);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.stored().await.unwrap().number, number, "a checkpoint is no reason for a checkpoint");
    rig.stop(pipeline).await;
}

// invariant 6: what the watchdog looks at
#[tokio::test(start_paused = true)]
async fn a_pipeline_comes_round_every_second_however_long_its_checkpoint_interval_is() {
    let mut rig = Rig::new(0, 10).endless(Duration::from_millis(100));
    rig.interval = Duration::from_secs(3600);
    let pipeline = rig.start();
    rig.delivers(10).await;
    rig.out().write_gate.shut();
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(rig.status.silent_for().unwrap() <= Duration::from_millis(1001));
    }
    assert_eq!(rig.stored().await.unwrap().number, 1, "no checkpoint was due");
    rig.out().write_gate.open();
    rig.stop(pipeline).await;
}

// Rows stand still for a snapshot: for a tenth of the time, however long one takes.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_takes_long_is_made_less_often() {
    for (takes, least, most) in [(50, 1000, 1100), (500, 5000, 6500)] {
        let rig = Rig::new(0, 10)
            .endless(Duration::from_millis(100))
            .with("large", Work::SlowSnapshot(Duration::from_millis(takes)));
        let pipeline = rig.start();
        rig.next_checkpoints(1).await;
        let begin = tokio::time::Instant::now();
        rig.next_checkpoints(10).await;
        let each = begin.elapsed().as_millis() / 10;
        assert!((least..=most).contains(&each), "one every {each} ms, if one takes {takes} ms");
        rig.stop(pipeline).await;
    }
}

// invariant 4
#[tokio::test(start_paused = true)]
async fn a_completed_pipeline_that_starts_again_does_nothing_more() {
    let rig = Rig::new(25, 10).with("sum", Work::Sum);
    rig.run_to_the_end().await;
    rig.run_to_the_end().await;
    assert_eq!(*super::memory::lock(&rig.source.opened_at), [0, 25]);
    assert_eq!(rig.out().values(), numbers(25));
}

#[tokio::test(start_paused = true)]
async fn a_source_without_rows_completes() {
    let rig = Rig::new(0, 10);
    rig.run_to_the_end().await;
    assert_eq!(rig.out().len(), 0);
}

// invariants 2 and 3
#[tokio::test(start_paused = true)]
async fn rows_of_a_tick_flow_through_the_transforms_after_it() {
    let mut rig = Rig::new(0, 1)
        .endless(Duration::from_secs(10_000))
        .with("before", Work::Sum)
        .with("tick", Work::Tick(Duration::from_secs(10)))
        .with("after", Work::Sum);
    let pipeline = rig.start();
    rig.delivers(5).await;
    rig.next_checkpoints(1).await;
    let ticks = rig.out().len();
    rig.crash(pipeline).await;
    // The count of ticks is state: it goes on after a crash.
    rig.fixed = false;
    let pipeline = rig.start();
    rig.delivers(ticks + 5).await;
    rig.stop(pipeline).await;
    let expected: Vec<i64> = (1..=i64::try_from(rig.out().len()).unwrap()).map(|tick| -tick).collect();
    assert_eq!(rig.out().values(), expected);
    assert_eq!(rig.out().column("seen"), expected.iter().map(|tick| -tick).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_takes_longer_than_its_interval_does_not_starve_the_rows() {
    let rig = Rig::new(100, 1).with("tick", Work::Tick(Duration::ZERO));
    let pipeline = rig.start();
    within(Duration::from_secs(60), "the end", rig.reaches(State::Completed)).await;
    rig.stop(pipeline).await;
    assert_eq!(rig.out().values().into_iter().filter(|value| *value >= 0).collect::<Vec<_>>(), numbers(100));
}

// invariant 5
#[tokio::test(start_paused = true)]
async fn twenty_sinks_are_one_pipeline() {
    let mut rig = Rig::new(100, 3);
    for sink in 0..19 {
        rig = rig.and_sink(&format!("sink {sink}"));
    }
    rig.run_to_the_end().await;
    for table in &rig.sinks {
        assert_eq!(table.values(), numbers(100), "{}", table.id);
    }
}
