//! The process dies, at every moment at which it touches the outside, and comes back.

use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::memory::{Rig, TICK, Work, until};
use crate::pipeline::status::State;

/// Run the pipeline to its end with a crash at moment `at`; false if it ended before.
async fn with_a_crash(rig: &Rig, at: u64) -> bool {
    rig.probe.die_at(at);
    let pipeline = rig.start();
    until("the end or the crash", || rig.probe.is_dead() || rig.state() == State::Completed).await;
    let died = rig.probe.is_dead();
    rig.crash(pipeline).await;
    rig.run_to_the_end().await;
    died
}

/// With a crash at moment `first`, and then one at every moment.
async fn at_every_moment_after(first: u64, rig: impl Fn(&str) -> Rig, check: impl Fn(&Rig, u64)) {
    let runs = (1..40).map(|at| {
        let rig = rig(&format!("p{at}"));
        async move {
            rig.probe.die_at(first);
            let pipeline = rig.start();
            until("the end or the crash", || rig.probe.is_dead() || rig.state() == State::Completed).await;
            rig.crash(pipeline).await;
            with_a_crash(&rig, at).await;
            (at, rig)
        }
    });
    for (at, rig) in join_all(runs).await {
        check(&rig, at);
    }
}

/// With a crash at every moment; each in a pipeline of its own, some at the same time (they share the store's thread).
async fn at_every_moment(rig: impl Fn(&str) -> Rig, check: impl Fn(&Rig, u64)) {
    const TOGETHER: u64 = 16;
    for first in (1..).step_by(TOGETHER as usize) {
        let runs = (first..first + TOGETHER).map(|at| {
            let rig = rig(&format!("p{at}"));
            async move { (at, with_a_crash(&rig, at).await, rig) }
        });
        let mut ended = false;
        for (at, died, rig) in join_all(runs).await {
            check(&rig, at);
            ended |= !died;
        }
        if ended {
            assert!(first > 20, "a run has more moments than {first}");
            return;
        }
    }
}

fn sums(count: i64) -> Vec<i64> {
    (0..count).map(|n| n * (n + 1) / 2).collect()
}

// invariants 2, 3 and 4
#[tokio::test(start_paused = true)]
async fn state_position_and_a_transactional_sink_agree_after_a_crash_at_any_moment() {
    let world = Rig::new(0, 1);
    let rig = |name: &str| {
        let rig = world.beside(name, 12, 2).source(|source| source.pace = Some(TICK * 2 / 3));
        rig.with("sum", Work::Sum)
    };
    at_every_moment(rig, |rig, at| {
        assert_eq!(rig.out().values(), (0..12).collect::<Vec<_>>(), "crash at moment {at}");
        assert_eq!(rig.out().column("sum"), sums(12), "crash at moment {at}");
        assert_eq!(rig.out().visible(), 12, "crash at moment {at}");
    })
    .await;
}

/// A transaction that the process did not come to commit is gone: the checkpoint that it belongs to does not count, the one
/// before it does.
// invariants 1, 2 and 4
#[tokio::test(start_paused = true)]
async fn a_sink_in_two_phases_has_each_row_once_after_a_crash_at_any_moment() {
    let world = Rig::new(0, 1);
    let rig = |name: &str| {
        let rig = world.beside(name, 12, 2).source(|source| source.pace = Some(TICK * 2 / 3));
        rig.with("sum", Work::Sum)
            .sink(|sink| {
                sink.two_phase = true;
                sink.lossy = true;
            })
            .and_sink("second")
    };
    at_every_moment(rig, |rig, at| {
        assert_eq!(rig.out().values(), (0..12).collect::<Vec<_>>(), "crash at moment {at}");
        assert_eq!(rig.out().column("sum"), sums(12), "crash at moment {at}");
        assert_eq!(rig.out().visible(), 12, "crash at moment {at}");
        assert_eq!(rig.sinks[1].values(), (0..12).collect::<Vec<_>>(), "crash at moment {at}");
        assert_eq!(rig.sinks[1].column("sum"), sums(12), "crash at moment {at}");
    })
    .await;
}

/// The same with two crashes: the second one while the pipeline goes back to the checkpoint before, or soon after.
// invariants 1, 2 and 4
#[tokio::test(start_paused = true)]
async fn a_sink_in_two_phases_has_each_row_once_after_two_crashes() {
    let world = Rig::new(0, 1);
    for first in (8..60).step_by(3) {
        let rig = |name: &str| {
            let rig = world.beside(&format!("{name}-{first}"), 8, 2).source(|source| source.pace = Some(TICK * 2 / 3));
            rig.with("sum", Work::Sum).sink(|sink| {
                sink.two_phase = true;
                sink.lossy = true;
            })
        };
        at_every_moment_after(first, rig, |rig, at| {
            assert_eq!(rig.out().values(), (0..8).collect::<Vec<_>>(), "crashes at moments {first} and {at}");
            assert_eq!(rig.out().column("sum"), sums(8), "crashes at moments {first} and {at}");
            assert_eq!(rig.out().visible(), 8, "crashes at moments {first} and {at}");
        })
        .await;
    }
}

// invariants 1, 2, 3 and 4
#[tokio::test(start_paused = true)]
async fn two_sinks_and_the_dead_letters_agree_after_a_crash_at_any_moment() {
    let world = Rig::new(0, 1);
    let rig = |name: &str| {
        let rig = world.beside(name, 16, 2).source(|source| {
            source.pace = Some(TICK * 2 / 3);
            source.bad = vec![1, 9];
        });
        rig.with("fail", Work::Fail(|value| value % 5 == 0))
            .with("sum", Work::Sum)
            .with("twice", Work::Twice)
            .sink(|sink| {
                sink.lossy = true;
                sink.refuses = |value| value == 4;
                sink.refuses_late = |value| value == 11;
            })
            .letters(|letters| letters.lossy = true)
            // While it flushes, more rows come to the others, and to the dead letters.
            .and_sink_that("second", |second| second.flush_takes = TICK * 3 / 2)
    };
    at_every_moment(rig, |rig, at| {
        // Of 0..16 without 1 and 9, 0, 5, 10 and 15 fail; the sum is of the rest, each row then comes twice.
        let good = [2, 3, 4, 6, 7, 8, 11, 12, 13, 14];
        let twice = |values: &[i64]| values.iter().flat_map(|value| [*value, *value]).collect::<Vec<_>>();
        assert_eq!(rig.sinks[1].values(), twice(&good), "crash at moment {at}");
        assert_eq!(rig.sinks[1].column("sum"), twice(&[2, 5, 9, 15, 22, 30, 41, 53, 66, 80]), "crash at moment {at}");
        let first: Vec<i64> = good.into_iter().filter(|value| ![4, 11].contains(value)).collect();
        assert_eq!(rig.out().values(), twice(&first), "crash at moment {at}");
        // Each letter exactly once too: 2 of the source, 4 of the transform, 2 twice of the sink.
        let mut offsets = rig.dead().column("offset");
        offsets.sort_unstable();
        assert_eq!(offsets, [0, 1, 4, 4, 5, 9, 10, 11, 11, 15], "crash at moment {at}");
    })
    .await;
}

// invariants 1 and 4
#[tokio::test(start_paused = true)]
async fn a_sink_that_loses_what_was_not_flushed_misses_nothing_after_a_crash_at_any_moment() {
    let world = Rig::new(0, 1);
    let rig = |name: &str| {
        let rig = world.beside(name, 12, 2).source(|source| source.pace = Some(TICK * 2 / 3));
        rig.with("sum", Work::Sum).sink(|sink| {
            sink.truncating = false;
            sink.lossy = true;
        })
    };
    at_every_moment(rig, |rig, at| {
        let mut rows: Vec<(i64, i64)> = rig.out().values().into_iter().zip(rig.out().column("sum")).collect();
        // What is repeated is the same: the sum of a row is that of its first time.
        assert!(rows.len() <= 12 + 4, "crash at moment {at}: at most an interval comes twice, not {rows:?}");
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows, (0..12).zip(sums(12)).collect::<Vec<_>>(), "crash at moment {at}");
    })
    .await;
}

// invariants 2, 3 and 4
#[tokio::test(start_paused = true)]
async fn crash_after_crash_at_random_moments_ends_with_exact_sums() {
    let world = Rig::new(0, 1);
    let seeds = (0..25).map(|seed| {
        let world = &world;
        async move {
            let mut random = StdRng::seed_from_u64(seed);
            let rig = world
                .beside(&format!("seed{seed}"), 200, 5)
                .source(|source| {
                    source.pace = Some(Duration::from_millis(200));
                    source.bad = (0..200).step_by(13).collect();
                })
                .with("sum", Work::Sum)
                .with("even", Work::Even)
                .sink(|sink| sink.lossy = true)
                .and_sink("second");
            for _ in 0..20 {
                rig.probe.die_at(random.random_range(1..120));
                rig.status.enter(State::Starting);
                let pipeline = rig.start();
                until("the end or the crash", || rig.probe.is_dead() || rig.state() == State::Completed).await;
                rig.crash(pipeline).await;
            }
            rig.run_to_the_end().await;
            let mut expected = Vec::new();
            let mut sum = 0;
            for value in (0..200).filter(|value| value % 13 != 0) {
                sum += value;
                if value % 2 == 0 {
                    expected.push((value, sum));
                }
            }
            for table in &rig.sinks {
                let rows: Vec<(i64, i64)> = table.values().into_iter().zip(table.column("sum")).collect();
                assert_eq!(rows, expected, "seed {seed}");
            }
            assert_eq!(rig.dead().column("offset"), (0..200).step_by(13).collect::<Vec<_>>(), "seed {seed}");
        }
    });
    join_all(seeds).await;
}

// invariants 2 and 4: ended between any two steps of the runtime, not only when a connector is called
#[tokio::test(start_paused = true)]
async fn ended_between_any_two_steps_of_the_runtime() {
    let world = Rig::new(0, 1);
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let rig = world
            .beside(&format!("seed{seed}"), 40, 2)
            .source(|source| source.pace = Some(Duration::from_millis(300)))
            .with("sum", Work::Sum);
        for _ in 0..4 {
            let pipeline = rig.start();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..4000))).await;
            for _ in 0..random.random_range(0..30) {
                tokio::task::yield_now().await;
            }
            rig.crash(pipeline).await;
        }
        rig.run_to_the_end().await;
        assert_eq!(rig.out().values(), (0..40).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(rig.out().column("sum"), sums(40), "seed {seed}");
    }
}

// invariant 4
#[tokio::test(start_paused = true)]
async fn replays_are_bounded_by_the_checkpoint_interval() {
    let rig = Rig::new(0, 10).endless(Duration::from_millis(10)).sink(|sink| sink.truncating = false);
    let mut pipeline = rig.start();
    for crashes in 1..10u32 {
        rig.next_checkpoints(3).await;
        tokio::time::sleep(Duration::from_millis(u64::from(crashes) * 97)).await;
        let read = rig.source.next();
        rig.crash(pipeline).await;
        pipeline = rig.start();
        until("the restart", || super::memory::lock(&rig.source.opened_at).len() as u32 == crashes + 1).await;
        let again = read - super::memory::lock(&rig.source.opened_at).last().unwrap();
        // 100 batches of 10 a second.
        assert!(again <= 1010, "{again} rows are read again");
    }
    let read = rig.source.next();
    until("new rows", || rig.source.next() > read + 2000).await;
    rig.stop(pipeline).await;
    let mut values = rig.out().values();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values, (0..i64::try_from(rig.stored_position().await).unwrap()).collect::<Vec<_>>());
}
