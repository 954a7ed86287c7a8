//! What every sink must do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acequia_connector_api::{Batch, FailedRow, Registry, Sink, SinkSpec, row_to_json};
use arrow_array::RecordBatch;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::random::poll_some;
use super::rows::{PARTITION, batch, rows, with_column, with_other_type, without_column};
use super::{Held, PATIENCE, QUICK, Random, context, resident, runtime, split};
use crate::eventually;

/// What a sink writes to, and an independent client that reads it.
pub trait SinkWorld {
    /// The `[[sink]]` table. The rows that it is given are those of [`super::rows`].
    fn config(&self) -> toml::Table;

    /// What is there now: each row in whatever form the client has it, in any order. Not through the connector.
    fn arrived(&mut self) -> Vec<Value>;

    /// How a row ([`row_to_json`]) must look among those.
    fn seen(&self, row: &Value) -> Value;

    /// The number (`n`) of a row that has arrived; `None` if it can't be told.
    fn number(&self, arrived: &Value) -> Option<u64>;

    /// The same rows, but this one is such that the sink can't ever write it. `None` if there is no such row.
    fn spoil(&self, _rows: &RecordBatch, _row: usize) -> Option<RecordBatch> {
        None
    }

    /// Whether rows that come again after a crash are there once (a file is cut back, a key is the same), or may be twice.
    fn once(&self) -> bool {
        true
    }

    /// Told after each flush what its state is.
    fn flushed(&mut self, _state: Option<&Value>) {}

    /// How many rows the larger tests write: fewer for a slow target.
    fn many(&self) -> u64 {
        200
    }

    /// Bytes that a sink may hold of rows that are not yet flushed.
    fn most_memory(&self) -> u64 {
        96 << 20
    }
}

/// A world in use, as the engine uses a sink.
struct Stage<'a> {
    runtime: &'a Runtime,
    world: Box<dyn SinkWorld>,
    spec: Arc<dyn SinkSpec>,
    sink: Option<Box<dyn Sink>>,
    failed: Vec<FailedRow>,
}

impl Stage<'_> {
    fn open(&mut self, state: Option<&Value>) {
        let context = context("sink 1", 8192, 8 << 20, Duration::from_millis(20));
        let opening = async { tokio::time::timeout(PATIENCE, self.spec.open(&context, state)).await };
        let opened = self.runtime.block_on(opening).expect("open returns");
        self.sink = Some(opened.unwrap_or_else(|error| panic!("open: {error}")));
        self.failed.clear();
    }

    fn sink(&mut self) -> (&mut dyn Sink, &Runtime) {
        (self.sink.as_mut().expect("the sink is open").as_mut(), self.runtime)
    }

    /// As the engine does: again with the same batch, as long as the error says so.
    fn write(&mut self, batch: &Batch) {
        let (sink, runtime) = self.sink();
        let failed = runtime.block_on(async {
            let start = Instant::now();
            loop {
                match tokio::time::timeout(PATIENCE, sink.write(batch)).await.expect("write returns") {
                    Ok(failed) => return failed,
                    Err(error) if error.is_retryable() && start.elapsed() < PATIENCE => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => panic!("write: {error}"),
                }
            }
        });
        self.failed.extend(failed);
    }

    fn write_rows(&mut self, numbers: std::ops::Range<u64>) {
        self.write(&batch(numbers.start, rows(numbers, 20)));
    }

    /// Flush, and what the checkpoint keeps of it. The checkpoint is stored before this returns.
    fn flush(&mut self) -> Option<Value> {
        let state = self.flush_only();
        let (sink, runtime) = self.sink();
        let committed = runtime.block_on(async { tokio::time::timeout(PATIENCE, sink.committed(None)).await });
        committed.expect("committed returns").unwrap_or_else(|error| panic!("committed: {error}"));
        state
    }

    fn flush_only(&mut self) -> Option<Value> {
        let (sink, runtime) = self.sink();
        let flushed = runtime.block_on(async {
            let start = Instant::now();
            loop {
                match tokio::time::timeout(PATIENCE, sink.flush()).await.expect("flush returns") {
                    Ok(flushed) => return flushed,
                    Err(error) if error.is_retryable() && start.elapsed() < PATIENCE => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => panic!("flush: {error}"),
                }
            }
        });
        self.failed.extend(flushed.failed);
        self.world.flushed(flushed.state.as_ref());
        let text = serde_json::to_string(&flushed.state).expect("a state is JSON");
        let stored: Option<Value> = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(stored, flushed.state, "a state that JSON changes: {text}");
        stored
    }

    /// As by a crash.
    fn crash(&mut self) {
        self.sink = None;
    }

    fn close(&mut self) {
        let start = Instant::now();
        let (sink, runtime) = self.sink();
        runtime.block_on(sink.close());
        self.sink = None;
        assert!(start.elapsed() < QUICK, "close took {:?}", start.elapsed());
    }

    /// These rows are there, as often as the sink promises, and nothing else.
    fn assert_arrived(&mut self, wanted: &[RecordBatch], what: &str) {
        let mut counts = BTreeMap::<String, (usize, usize)>::new();
        for rows in wanted {
            for row in 0..rows.num_rows() {
                let seen = self.world.seen(&row_to_json(rows, row)).to_string();
                counts.entry(seen).or_default().0 += 1;
            }
        }
        for row in self.world.arrived() {
            counts.entry(row.to_string()).or_default().1 += 1;
        }
        let once = self.world.once();
        let right = |wanted: usize, found: usize| {
            if once { wanted == found } else { found >= wanted && (wanted > 0 || found == 0) }
        };
        let wrong: Vec<_> = counts.iter().filter(|(_, (wanted, found))| !right(*wanted, *found)).take(10).collect();
        assert!(wrong.is_empty(), "{what}: rows that should be there, and are, so often: {wrong:#?}");
    }

    /// Each of these numbers has arrived or is a failed row, and never both.
    fn assert_accounted(&mut self, total: u64, what: &str) {
        let arrived = self.world.arrived();
        let mut failed: Vec<u64> = self.failed.iter().map(number_of).collect();
        failed.sort_unstable();
        let numbers: Option<Vec<u64>> = arrived.iter().map(|row| self.world.number(row)).collect();
        let Some(mut numbers) = numbers else {
            assert_eq!((arrived.len() + failed.len()) as u64, total, "{what}: rows that arrived or failed");
            return;
        };
        if !self.world.once() {
            numbers.sort_unstable();
            numbers.dedup();
        }
        numbers.extend(failed);
        numbers.sort_unstable();
        assert_eq!(numbers, (0..total).collect::<Vec<_>>(), "{what}: {:?}", self.failed.first());
    }
}

/// The number of a failed row, which must say all that a dead letter says.
fn number_of(failed: &FailedRow) -> u64 {
    assert_eq!(failed.partition.as_deref(), Some(PARTITION), "{failed:?}");
    assert!(!failed.error.is_empty() && failed.row.is_some(), "{failed:?}");
    failed.offset.and_then(|offset| u64::try_from(offset).ok()).unwrap_or_else(|| panic!("no place: {failed:?}"))
}

/// Judge a sink; `world` makes a new world for it.
///
/// # Panics
/// If it does not do what a sink must.
pub fn judge_sink(registry: &Registry, world: &dyn Fn() -> Box<dyn SinkWorld>) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let stage = || {
        let world = world();
        let (kind, table) = split(world.config());
        let table = toml::de::ValueDeserializer::parse(&table).expect("TOML");
        let parsed = registry.find_sink(&kind).unwrap_or_else(|| panic!("no sink `{kind}`")).parse(table);
        let spec = parsed.unwrap_or_else(|error| panic!("the world's table: {error}"));
        spec.check().unwrap_or_else(|error| panic!("the world's table: {error}"));
        Stage { runtime: &runtime, world, spec, sink: None, failed: Vec::new() }
    };
    let checks: [(&str, &dyn Fn()); 9] = [
        ("rows of every type arrive as they are", &|| every_type_arrives(stage())),
        ("what was flushed is there, whatever becomes of the sink", &|| flushed_is_there(stage())),
        ("batches without rows are no rows", &|| nothing_is_nothing(stage())),
        ("no row is lost when the columns change", &|| columns_change(&stage)),
        ("a row that can't be written costs only itself", &|| one_bad_row(stage())),
        ("after a crash it goes on at any flush", &|| goes_on_after_a_crash(&stage)),
        ("flushes, commits and closes in any order do no harm", &|| any_order(stage())),
        ("it does not hoard rows", &|| does_not_hoard(stage())),
        ("close lets go of everything", &|| lets_go(&stage)),
    ];
    for (name, check) in checks {
        let start = Instant::now();
        eprintln!("- {name}");
        check();
        eprintln!("  {:.2} s", start.elapsed().as_secs_f64());
    }
}

fn every_type_arrives(mut stage: Stage<'_>) {
    let many = stage.world.many();
    stage.open(None);
    stage.write_rows(0..many / 2);
    stage.write_rows(many / 2..many);
    stage.flush();
    assert_eq!(stage.failed, [], "rows that any sink of these columns can write");
    stage.assert_arrived(&[rows(0..many, 20)], "after a flush");
    stage.close();
    stage.assert_arrived(&[rows(0..many, 20)], "after close");
}

fn flushed_is_there(mut stage: Stage<'_>) {
    stage.open(None);
    for flush in 0..5 {
        stage.write_rows(flush * 10..flush * 10 + 10);
        stage.flush();
        stage.assert_arrived(&[rows(0..flush * 10 + 10, 20)], "right after a flush");
    }
    stage.crash();
    stage.assert_arrived(&[rows(0..50, 20)], "dropped without close");
}

fn nothing_is_nothing(mut stage: Stage<'_>) {
    stage.open(None);
    let some = rows(0..5, 20);
    let failed = batch(5, rows(5..6, 20)).fail(0, "it failed before it came here");
    let only_failed = Batch::of_failures(vec![failed.clone()]);
    for (round, before) in [0, 5].into_iter().enumerate() {
        stage.write(&batch(0, some.slice(0, 0)));
        stage.write(&only_failed);
        stage.flush();
        stage.assert_arrived(&[rows(0..before, 20)], "batches without rows");
        if round == 0 {
            // Failed rows beside others are the engine's, too.
            let mut mixed = batch(0, some.clone());
            mixed.failed.push(failed.clone());
            stage.write(&mixed);
            stage.flush();
        }
    }
    assert_eq!(stage.failed, [], "rows that failed before are the engine's");
    stage.assert_arrived(&[some], "rows beside failed ones");
    stage.close();
}

fn columns_change<'a>(stage: &dyn Fn() -> Stage<'a>) {
    for flush_between in [true, false] {
        let mut stage = stage();
        stage.open(None);
        let part = |number: u64| rows(number * 10..number * 10 + 10, 20);
        let reversed = part(5).project(&[6, 5, 4, 3, 2, 1, 0]).expect("the same columns");
        let changes = [
            part(0),
            with_column(&part(1), "extra"),
            part(2),
            without_column(&part(3), "t"),
            with_other_type(&part(4)),
            reversed,
            part(6),
        ];
        for (number, rows) in changes.into_iter().enumerate() {
            stage.write(&batch(number as u64 * 10, rows));
            if flush_between {
                stage.flush();
            }
        }
        stage.flush();
        stage.assert_accounted(70, "columns added, gone, of another type, in another order");
        // What it can write it does: at least the rows that are as the first ones were.
        let failed: Vec<u64> = stage.failed.iter().map(number_of).collect();
        let usual: Vec<_> = failed.iter().filter(|n| matches!(**n / 10, 0 | 2 | 5 | 6)).collect();
        assert!(usual.is_empty(), "rows with the usual columns failed: {usual:?}");
        stage.close();
    }
}

fn one_bad_row(mut stage: Stage<'_>) {
    stage.open(None);
    let good = rows(0..10, 20);
    stage.write(&batch(0, good.clone()));
    let after = rows(10..20, 20);
    let bad = stage.world.spoil(&after, 4);
    let Some(bad) = bad else { return stage.close() };
    stage.write(&batch(10, bad));
    stage.write_rows(20..30);
    stage.flush();
    assert_eq!(stage.failed.iter().map(number_of).collect::<Vec<_>>(), [14], "{:?}", stage.failed);
    stage.assert_arrived(&[good, after.slice(0, 4), after.slice(5, 5), rows(20..30, 20)], "beside a bad row");
    stage.close();
}

fn goes_on_after_a_crash<'a>(stage: &dyn Fn() -> Stage<'a>) {
    let mut random = Random::new(3);
    let mut stage = stage();
    stage.open(None);
    let mut state = stage.flush();
    let mut done = 0;
    for round in 0..10u64 {
        // What is lost: rows after the flush whose state is stored.
        let lost = random.below(25) + 1;
        stage.write_rows(done..done + lost);
        match round % 5 {
            0 => {}
            // A flush whose checkpoint was never stored.
            1 => drop(stage.flush_only()),
            // In the middle of a call.
            2 => {
                let more = batch(done + lost, rows(done + lost..done + lost + 5, 20));
                let (sink, runtime) = stage.sink();
                runtime.block_on(poll_some(random.below(3), sink.write(&more)));
            }
            3 => {
                let (sink, runtime) = stage.sink();
                runtime.block_on(poll_some(random.below(3), sink.flush()));
            }
            // Let go without a flush, as when another stage fails.
            _ => stage.close(),
        }
        stage.crash();
        stage.open(state.as_ref());
        // The source goes on at the stored position: with the rows that were lost, in other batches than before.
        let next = done + lost + 5;
        let cut = done + random.below(next - done);
        stage.write_rows(done..cut);
        stage.write_rows(cut..next);
        state = stage.flush();
        done = next;
        assert_eq!(stage.failed, []);
        stage.assert_arrived(&[rows(0..done, 20)], &format!("after crash {round}"));
    }
    if stage.spec.two_phase() {
        // Stored, but the process ended before the commit: the sink says which it was, and the engine goes back if need be.
        stage.write_rows(done..done + 10);
        let second = stage.flush_only();
        stage.crash();
        stage.open(second.as_ref());
        if stage.sink().0.rolled_back() {
            stage.crash();
            stage.open(state.as_ref());
            stage.write_rows(done..done + 10);
        }
        stage.flush();
        stage.assert_arrived(&[rows(0..done + 10, 20)], "a crash between checkpoint and commit");
    }
    stage.close();
}

fn any_order(mut stage: Stage<'_>) {
    stage.open(None);
    stage.flush();
    stage.flush();
    stage.close();
    stage.assert_arrived(&[], "flushes without rows");
    stage.open(None);
    stage.write_rows(0..10);
    stage.flush();
    let state = stage.flush();
    stage.close();
    stage.assert_arrived(&[rows(0..10, 20)], "two flushes");
    stage.open(state.as_ref());
    let again = stage.flush();
    stage.close();
    stage.open(again.as_ref());
    stage.write_rows(10..20);
    stage.flush();
    stage.close();
    stage.assert_arrived(&[rows(0..20, 20)], "opened three times");
}

fn does_not_hoard(mut stage: Stage<'_>) {
    let (many, most) = (stage.world.many(), stage.world.most_memory());
    // About 128 MiB for the usual 200.
    let large = rows(0..1000, 1000);
    stage.open(None);
    stage.write(&batch(0, large.slice(0, 10)));
    let before = resident();
    let mut peak = before;
    for _ in 0..many * 6 / 10 {
        stage.write(&batch(0, large.clone()));
        peak = peak.max(resident());
    }
    let grown = (peak - before) >> 20;
    assert!(grown < most >> 20, "{grown} MiB of rows that are not flushed are in memory");
    stage.crash();
}

fn lets_go<'a>(stage: &dyn Fn() -> Stage<'a>) {
    let cycle = |round: u64| {
        let mut stage = stage();
        stage.open(None);
        stage.write_rows(0..10);
        let state = stage.flush();
        match round % 3 {
            0 => stage.close(),
            1 => stage.crash(),
            _ => {
                stage.write_rows(10..20);
                stage.close();
            }
        }
        stage.open(state.as_ref());
        stage.close();
    };
    // What is made once for the whole process, the first time.
    cycle(0);
    cycle(1);
    let before = eventually("threads and descriptors stand still", || {
        let now = Held::now();
        std::thread::park_timeout(Duration::from_millis(100));
        (now == Held::now()).then_some(now)
    });
    for round in 0..6 {
        cycle(round);
    }
    let start = Instant::now();
    loop {
        let now = Held::now();
        if now.is_within(&before) {
            return;
        }
        assert!(start.elapsed() < QUICK, "held before: {before:#?}\nafter six times open and close: {now:#?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
