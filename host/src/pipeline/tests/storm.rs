//! Everything at once: faults of every kind in every place, reloads good and bad, stops and crashes, by a seed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::memory::{Fault, Rig, Stage, Work, within};
use crate::pipeline::Pipeline;
use crate::pipeline::status::State;

const ROWS: u64 = 300;

/// One thing that goes wrong, or is done by a person.
async fn strike(random: &mut StdRng, rig: &mut Rig, pipeline: Pipeline) -> Pipeline {
    let fault = [Fault::Retryable, Fault::Failed, Fault::Panic][random.random_range(0..3)];
    let times = random.random_range(1..4);
    let table = [&rig.sinks[0], &rig.sinks[1], rig.letters.as_ref().unwrap()][random.random_range(0..3)].clone();
    match random.random_range(0..12) {
        0 => table.writes.add(fault, times),
        1 => table.flushes.add(fault, times),
        2 => table.commits.add(fault, 1),
        3 => table.opens.add(fault, 1),
        4 => rig.source.faults_at(rig.source.next() + random.random_range(0..9)).add(fault, times),
        5 => rig.source.opens.add(fault, 1),
        6 => rig.transforms[0].snapshots.add(fault, 1),
        7 => {
            rig.crash(pipeline).await;
            return rig.start();
        }
        8 => {
            within(Duration::from_secs(10), "stopping", pipeline.stop()).await;
            return rig.start();
        }
        kind => {
            let mut next = rig.clone();
            let works: &[(&str, Work)] = [
                &[("sum", Work::Sum)][..],
                &[("sum", Work::Sum), ("pass", Work::Fail(|_| false))],
                &[("first", Work::Fail(|_| false)), ("sum", Work::Sum)],
            ][random.random_range(0..3)];
            let stage = |(id, work): &(&str, Work)| Arc::new(Stage::new(id, *work, rig.probe.clone()));
            next.transforms = works.iter().map(stage).collect();
            let broken = random.random_range(0..3) == 0;
            if broken {
                next.transforms[0].starts.add(Fault::Failed, 1);
            }
            let setup = next.setup();
            let limit = Duration::from_secs(25);
            let taken = match kind {
                9 => within(limit, "the swap", pipeline.swap(setup)).await,
                _ => within(limit, "the replacement", pipeline.replace(setup)).await,
            };
            if taken.is_ok() {
                *rig = next;
            }
        }
    }
    pipeline
}

async fn weather(world: &Rig, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rig = world
        .beside(&format!("storm {seed}"), ROWS, 3)
        .source(|source| {
            source.pace = Some(Duration::from_millis(150));
            source.bad = (0..ROWS).step_by(11).collect();
        })
        .with("sum", Work::Sum)
        .sink(|sink| {
            sink.lossy = true;
            sink.refuses = |value| value % 17 == 0;
            sink.refuses_late = |value| value % 19 == 0;
        })
        .letters(|letters| letters.lossy = true)
        .and_sink_that("second", |second| second.flush_takes = Duration::from_millis(700));
    rig.fixed = false;
    let mut pipeline = rig.start();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
        for _ in 0..random.random_range(0..20) {
            tokio::task::yield_now().await;
        }
        pipeline = strike(&mut random, &mut rig, pipeline).await;
    }
    within(Duration::from_secs(590), "the end", rig.reaches(State::Completed)).await;
    within(Duration::from_secs(10), "stopping", pipeline.stop()).await;
    rig.check_counts().await;

    let good: Vec<i64> = (0..i64::try_from(ROWS).unwrap()).filter(|value| value % 11 != 0).collect();
    let mut sum = 0;
    let sums: Vec<(i64, i64)> = good
        .iter()
        .map(|value| {
            sum += value;
            (*value, sum)
        })
        .collect();
    let rows_of = |index: usize| -> Vec<(i64, i64)> {
        rig.sinks[index].values().into_iter().zip(rig.sinks[index].column("sum")).collect()
    };
    assert_eq!(rows_of(1), sums, "seed {seed}");
    let refused = |value: i64| value % 17 == 0 || value % 19 == 0;
    let first: Vec<(i64, i64)> = sums.into_iter().filter(|(value, _)| !refused(*value)).collect();
    assert_eq!(rows_of(0), first, "seed {seed}");
    let mut letters = rig.dead().column("offset");
    letters.sort_unstable();
    let expected: Vec<i64> =
        (0..i64::try_from(ROWS).unwrap()).filter(|value| value % 11 == 0 || refused(*value)).collect();
    assert_eq!(letters, expected, "seed {seed}");
    assert_eq!(rig.probe.alive(), 0, "nothing is left open");
}

// invariants 1, 2, 3, 4, 6 and 7
#[tokio::test(start_paused = true)]
async fn every_row_is_delivered_exactly_once_whatever_happens() {
    let world = Rig::new(0, 1);
    for first in (0..48).step_by(12) {
        join_all((first..first + 12).map(|seed| weather(&world, seed))).await;
    }
}
