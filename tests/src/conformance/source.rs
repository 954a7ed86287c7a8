//! What every source must do.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acequia_connector_api::{Batch, ConnectorError, Event, Position, Registry, Source, SourceSpec, row_to_json};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::random::poll_some;
use super::{Held, PATIENCE, QUICK, Random, context, resident, runtime, split};
use crate::{eventually, wait_until};

/// Where a row lies in its source, as [`acequia_connector_api::Origin::locate`] says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The part of the source; `None` if it can't be foretold.
    pub partition: Option<String>,
    /// The place there.
    pub offset: i64,
}

/// What a source reads from: a folder, a peer, a server. Rows are numbered from 0.
pub trait SourceWorld {
    /// The `[source]` table; asked for once the first rows are prepared.
    fn config(&self) -> toml::Table;

    /// Put these rows where the source reads, behind those that are there. [`text_of`] is what they hold besides their
    /// number, `more` its length. A finite source's world is asked once, before the source is opened.
    fn prepare(&mut self, numbers: Range<u64>, more: usize);

    /// Which row this is. Panics if it is not, to the last value, what `prepare` made of it.
    fn number(&self, row: &Value, more: usize) -> u64;

    /// Where that row lies; `None` if that can't be foretold.
    fn place(&self, number: u64) -> Option<Place>;

    /// Whether `prepare` made this row one that can't be decoded; then [`SourceWorld::place`] must know it.
    fn broken(&self, _number: u64) -> bool {
        false
    }

    /// Whether a row knows its partition and its place there. The rows of a table don't.
    fn located(&self) -> bool {
        true
    }

    /// Whether the rows of one partition come in the order of their numbers.
    fn ordered(&self) -> bool {
        true
    }

    /// Whether the rows after a position can be asked for again. A socket can't.
    fn replays(&self) -> bool {
        true
    }

    /// Whether the other side remembers what was confirmed, and begins there when no position is given (a consumer group).
    fn remembers(&self) -> bool {
        false
    }

    /// Rows and bytes of each that are far more than a source may hold: 64 MiB or more.
    fn backlog(&self) -> (u64, usize) {
        (64 << 10, 1 << 10)
    }

    /// For a source that does not replay: wait until it has taken over all that was prepared. False if that can't be seen.
    fn settle(&mut self) -> bool {
        false
    }

    /// How many bytes the source has taken so far, if that can be seen from outside.
    fn taken(&self) -> Option<u64> {
        None
    }

    /// The source is closed: panics if what it had is not free (a port, a path).
    fn assert_free(&self) {}
}

/// What a prepared row holds besides its number.
pub fn text_of(number: u64, more: usize) -> String {
    format!("{number} é😀 {}", "x".repeat(more))
}

/// A world in use.
struct Stage<'a> {
    runtime: &'a Runtime,
    world: Box<dyn SourceWorld>,
    spec: Arc<dyn SourceSpec>,
    total: u64,
    more: usize,
    places: HashMap<Place, u64>,
}

/// What has come so far.
#[derive(Clone, Debug, Default)]
struct Tally {
    times: BTreeMap<u64, usize>,
    latest: HashMap<String, u64>,
}

impl Tally {
    fn take(&mut self, stage: &Stage<'_>, batch: &Batch) {
        for row in 0..batch.len() {
            let number = stage.world.number(&row_to_json(&batch.rows, row), stage.more);
            *self.times.entry(number).or_default() += 1;
            if !stage.world.located() {
                continue;
            }
            let (partition, offset) = batch.origin.locate(row);
            let (Some(partition), Some(offset)) = (partition, offset) else {
                panic!("row {number} does not know where it comes from");
            };
            if let Some(place) = stage.world.place(number) {
                assert_eq!(place.offset, offset, "place of row {number}");
                assert!(place.partition.is_none_or(|name| *name == *partition), "row {number} is not from {partition}");
            }
            let before = self.latest.insert(partition.to_string(), number);
            if stage.world.ordered() {
                assert!(before.is_none_or(|before| before < number), "row {number} after {before:?} in {partition}");
            }
        }
        for failed in &batch.failed {
            let (Some(partition), Some(offset)) = (&failed.partition, failed.offset) else {
                panic!("a failed row does not know where it comes from: {failed:?}");
            };
            assert!(!failed.error.is_empty(), "a failed row without a reason: {failed:?}");
            let named = Place { partition: Some(partition.to_string()), offset };
            let unnamed = Place { partition: None, offset };
            let found = stage.places.get(&named).or_else(|| stage.places.get(&unnamed));
            let number = *found.unwrap_or_else(|| panic!("there is no row to fail at {named:?}: {failed:?}"));
            assert!(stage.world.broken(number), "row {number} is not broken, and yet {failed:?}");
            *self.times.entry(number).or_default() += 1;
        }
    }

    fn rows(&self) -> u64 {
        self.times.len() as u64
    }

    /// Every row once: none missing, none twice.
    fn assert_exact(&self, total: u64, what: &str) {
        let missing: Vec<_> = (0..total).filter(|number| !self.times.contains_key(number)).take(10).collect();
        let doubled: Vec<_> = self.times.iter().filter(|(_, times)| **times > 1).take(10).collect();
        let invented: Vec<_> = self.times.keys().filter(|number| **number >= total).take(10).collect();
        assert!(
            missing.is_empty() && doubled.is_empty() && invented.is_empty(),
            "{what}: of {total} rows missing {missing:?}, more than once {doubled:?}, invented {invented:?}"
        );
    }
}

impl Stage<'_> {
    fn prepare(&mut self, rows: u64) {
        let numbers = self.total..self.total + rows;
        self.world.prepare(numbers, self.more);
        self.count(rows);
    }

    fn count(&mut self, rows: u64) {
        let numbers = self.total..self.total + rows;
        self.total += rows;
        for number in numbers {
            if self.world.broken(number) {
                let place = self.world.place(number).expect("a broken row's place is known");
                self.places.insert(place, number);
            }
        }
    }

    fn open(&self, rows: usize, position: Option<&Position>) -> Box<dyn Source> {
        self.open_with(rows, 1 << 20, Duration::from_millis(20), position)
    }

    fn open_with(&self, rows: usize, bytes: u64, wait: Duration, position: Option<&Position>) -> Box<dyn Source> {
        self.try_open(rows, bytes, wait, position).unwrap_or_else(|error| panic!("open: {error}"))
    }

    fn try_open(
        &self,
        rows: usize,
        bytes: u64,
        wait: Duration,
        position: Option<&Position>,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        let context = context("source", rows, bytes, wait);
        let opening = async { tokio::time::timeout(PATIENCE, self.spec.open(&context, position)).await };
        self.runtime.block_on(opening).expect("open returns")
    }

    /// The next batch; `None` at the end.
    fn next(&self, source: &mut dyn Source) -> Option<Batch> {
        self.runtime.block_on(async {
            let start = Instant::now();
            loop {
                let event = tokio::time::timeout(PATIENCE, source.next()).await.expect("rows that are there come");
                match settled(source, event).await {
                    Some(done) => return done,
                    None => assert!(start.elapsed() < PATIENCE, "rows that are there come"),
                }
            }
        })
    }

    /// Ask for the next batch, and drop the question after some polls or some time. `None`: dropped. `more`: there are rows to
    /// come, so that a whole call ends.
    fn next_or_not(&self, source: &mut dyn Source, random: &mut Random, more: bool) -> Option<Option<Batch>> {
        self.runtime.block_on(async {
            let event = match random.below(5) {
                0 => tokio::time::timeout(Duration::from_micros(random.below(3000)), source.next()).await.ok(),
                // So that a source which needs a whole call for a batch gets on, too.
                1 if more => {
                    Some(tokio::time::timeout(PATIENCE, source.next()).await.expect("rows that are there come"))
                }
                _ => poll_some(random.below(5), source.next()).await,
            };
            settled(source, event?).await
        })
    }

    /// Everything that is still to come, and after that nothing.
    fn rest(&mut self, source: &mut dyn Source, tally: &mut Tally, what: &str) {
        if self.spec.finite() {
            while let Some(batch) = self.next(source) {
                tally.take(self, &batch);
            }
        } else {
            self.until_all(source, tally);
            // One row more: whatever came twice comes before it.
            self.prepare(1);
            self.until_all(source, tally);
        }
        tally.assert_exact(self.total, what);
    }

    fn until_all(&self, source: &mut dyn Source, tally: &mut Tally) {
        while tally.rows() < self.total {
            match self.next(source) {
                Some(batch) => tally.take(self, &batch),
                None => panic!("it has ended after {} of {} rows", tally.rows(), self.total),
            }
        }
    }

    /// Take some batches; false if there are not so many.
    fn some(&self, source: &mut dyn Source, batches: usize, tally: &mut Tally) -> bool {
        for _ in 0..batches {
            if !self.spec.finite() && tally.rows() == self.total {
                return false;
            }
            match self.next(source) {
                Some(batch) => tally.take(self, &batch),
                None => return false,
            }
        }
        true
    }

    fn close(&self, mut source: Box<dyn Source>) {
        let start = Instant::now();
        self.runtime.block_on(source.close());
        drop(source);
        assert!(start.elapsed() < QUICK, "close took {:?}", start.elapsed());
    }
}

/// What an event comes to: a batch, the end (`Some(None)`), or nothing yet.
async fn settled(source: &mut dyn Source, event: Result<Event, ConnectorError>) -> Option<Option<Batch>> {
    match event {
        Ok(Event::Batch(batch)) => Some(Some(batch)),
        Ok(Event::End) => Some(None),
        Ok(Event::Checkpoint) => {
            let position = source.position();
            source.committed(&position).await.unwrap_or_else(|error| panic!("committed: {error}"));
            None
        }
        Err(error) if error.is_retryable() => {
            tokio::time::sleep(Duration::from_millis(5)).await;
            None
        }
        Err(error) => panic!("next: {error}"),
    }
}

/// As the checkpoint keeps it.
fn stored(position: &Position) -> Position {
    let text = serde_json::to_string(position).expect("a position is JSON");
    let back: Position = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(back, *position, "a position that JSON changes: {text}");
    back
}

/// Judge a source; `world` makes a new world for it.
///
/// # Panics
/// If it does not do what a source must.
pub fn judge_source(registry: &Registry, world: &dyn Fn() -> Box<dyn SourceWorld>) {
    let runtime = runtime();
    // Some connectors start tasks when they are opened or dropped.
    let _entered = runtime.enter();
    let stage = |rows: u64, more: usize| {
        let mut world = world();
        world.prepare(0..rows, more);
        let (kind, table) = split(world.config());
        let table = toml::de::ValueDeserializer::parse(&table).expect("TOML");
        let parsed = registry.find_source(&kind).unwrap_or_else(|| panic!("no source `{kind}`")).parse(table);
        let spec = parsed.unwrap_or_else(|error| panic!("the world's table: {error}"));
        spec.check().unwrap_or_else(|error| panic!("the world's table: {error}"));
        let mut stage = Stage { runtime: &runtime, world, spec, total: 0, more, places: HashMap::new() };
        stage.count(rows);
        stage
    };
    let checks: [(&str, &dyn Fn()); 8] = [
        ("every row comes once, in order, and knows its place", &|| gives_every_row(stage(ROWS, 40))),
        ("it goes on at the position of any batch", &|| goes_on_anywhere(&|| stage(ROWS, 40))),
        ("a call of next that is dropped loses nothing", &|| survives_cancels(&|| stage(ROWS, 40))),
        ("a stop at any batch loses nothing", &|| stops_anywhere(&|| stage(ROWS, 40))),
        ("a batch has no more rows than asked for, and waits no longer than it must", &|| {
            fills_a_batch(&|rows| stage(rows, 200));
        }),
        ("a batch has no more bytes than asked for", &|| keeps_to_bytes(&|rows| stage(rows, 200))),
        ("nobody reads ahead without bound", &|| waits_for_its_reader(&stage)),
        ("close lets go of everything", &|| lets_go(&|| stage(ROWS, 40))),
    ];
    for (name, check) in checks {
        let start = Instant::now();
        eprintln!("- {name}");
        check();
        eprintln!("  {:.2} s", start.elapsed().as_secs_f64());
    }
}

const ROWS: u64 = 60;
const A_BATCH: usize = 7;

fn gives_every_row(mut stage: Stage<'_>) {
    let mut source = stage.open(A_BATCH, None);
    let mut tally = Tally::default();
    let mut done = 0;
    while stage.some(source.as_mut(), 1, &mut tally) {
        stored(&source.position());
        if let Some(progress) = source.progress() {
            assert!(progress.done >= done && progress.done <= progress.total, "{progress:?} after {done}");
            done = progress.done;
        }
    }
    if stage.spec.finite() {
        tally.assert_exact(stage.total, "read to the end");
        if let Some(progress) = source.progress() {
            assert_eq!(progress.done, progress.total, "progress at the end");
        }
    } else {
        stage.rest(source.as_mut(), &mut tally, "read to the end");
    }
    stage.close(source);
}

fn goes_on_anywhere<'a>(new: &dyn Fn() -> Stage<'a>) {
    let mut stage = new();
    if !stage.world.replays() {
        return;
    }
    let mut random = Random::new(1);
    for batches in 0.. {
        if batches > 0 && stage.world.remembers() {
            stage = new();
        }
        let mut tally = Tally::default();
        let mut source = stage.open(A_BATCH, None);
        if !stage.some(source.as_mut(), batches, &mut tally) {
            break;
        }
        // As at a barrier: the question for the next batch is dropped, and then the position is asked for.
        if batches % 2 == 1
            && let Some(Some(batch)) = stage.next_or_not(source.as_mut(), &mut random, tally.rows() < stage.total)
        {
            tally.take(&stage, &batch);
        }
        let position = stored(&source.position());
        let commits = batches % 3 == 1;
        if commits {
            let committed = stage.runtime.block_on(source.committed(&position));
            committed.unwrap_or_else(|error| panic!("committed: {error}"));
        }
        match batches % 2 {
            0 => stage.close(source),
            _ => drop(source),
        }
        let mut again = stage.open(A_BATCH, Some(&position));
        assert_eq!(stored(&again.position()), position, "a source that was opened at a position is there");
        stage.rest(again.as_mut(), &mut tally, &format!("opened again after {batches} batches, at {position:?}"));
        let end = stored(&again.position());
        stage.close(again);
        if stage.spec.finite() {
            let mut ended = stage.open(A_BATCH, Some(&end));
            let more = stage.next(ended.as_mut());
            assert!(more.is_none_or(|batch| batch.is_empty() && batch.failed.is_empty()), "rows after the end");
            stage.close(ended);
        }
        if commits {
            // The other side may remember: without a position it would now begin there.
            stage = new();
        }
    }
}

fn survives_cancels<'a>(new: &dyn Fn() -> Stage<'a>) {
    let mut stage = new();
    for seed in 0..4 {
        if seed > 0 && stage.world.remembers() {
            stage = new();
        }
        let mut random = Random::new(seed);
        let mut tally = Tally::default();
        let mut source = stage.open(A_BATCH, None);
        let start = Instant::now();
        while tally.rows() < stage.total {
            assert!(start.elapsed() < PATIENCE, "{} of {} rows have come", tally.rows(), stage.total);
            match stage.next_or_not(source.as_mut(), &mut random, true) {
                Some(Some(batch)) => tally.take(&stage, &batch),
                Some(None) => break,
                None => {}
            }
            if stage.world.replays() && random.below(20) == 0 {
                let position = stored(&source.position());
                drop(source);
                source = stage.open(A_BATCH, Some(&position));
            }
        }
        stage.rest(source.as_mut(), &mut tally, &format!("with calls of next that were dropped, seed {seed}"));
        stage.close(source);
        if !stage.world.replays() {
            return;
        }
    }
}

fn stops_anywhere<'a>(stage: &dyn Fn() -> Stage<'a>) {
    let mut world = stage();
    for batches in 0.. {
        if batches > 0 && world.world.remembers() {
            world = stage();
        }
        let mut tally = Tally::default();
        let mut source = world.open(A_BATCH, None);
        if !world.some(source.as_mut(), batches, &mut tally) {
            break;
        }
        let replays = world.world.replays();
        let settled = !replays && world.world.settle();
        let drains = source.stop();
        assert!(drains || replays, "a source that can't ask for rows again must hand out those that it has taken");
        if drains {
            while let Some(batch) = world.next(source.as_mut()) {
                tally.take(&world, &batch);
            }
        }
        let position = stored(&source.position());
        world.close(source);
        let what = format!("stopped after {batches} batches");
        if replays {
            let mut again = world.open(A_BATCH, Some(&position));
            world.rest(again.as_mut(), &mut tally, &what);
            world.close(again);
        } else {
            // Of what it had not yet taken nothing may come either: else there is a hole.
            tally.assert_exact(if settled { world.total } else { tally.rows() }, &what);
            world.world.assert_free();
            world = stage();
        }
    }
}

fn fills_a_batch<'a>(stage: &dyn Fn(u64) -> Stage<'a>) {
    let wait = Duration::from_secs(30);
    let world = stage(20);
    let mut source = world.open_with(10, 1 << 20, wait, None);
    let start = Instant::now();
    for _ in 0..2 {
        let batch = world.next(source.as_mut()).expect("a batch");
        assert_eq!(batch.len() + batch.failed.len(), 10, "rows of a batch that can be full");
    }
    assert!(start.elapsed() < wait / 2, "full batches don't wait: {:?}", start.elapsed());
    world.close(source);
    // Three rows don't fill it: they come when the wait is over, or at the end.
    let world = stage(3);
    let mut source = world.open_with(1000, 1 << 20, Duration::from_millis(50), None);
    let mut tally = Tally::default();
    while tally.rows() < 3 {
        tally.take(&world, &world.next(source.as_mut()).expect("a batch"));
    }
    world.close(source);
}

fn keeps_to_bytes<'a>(stage: &dyn Fn(u64) -> Stage<'a>) {
    let mut world = stage(ROWS);
    let mut source = world.open_with(1000, 1, Duration::from_millis(50), None);
    let mut tally = Tally::default();
    while tally.rows() < world.total {
        let batch = world.next(source.as_mut()).expect("a batch");
        assert!(
            batch.len() <= 1,
            "a row that is larger than a batch may be is one of its own, and not {}",
            batch.len()
        );
        tally.take(&world, &batch);
    }
    world.rest(source.as_mut(), &mut tally, "one row a batch");
    world.close(source);
}

fn waits_for_its_reader<'a>(stage: &dyn Fn(u64, usize) -> Stage<'a>) {
    /// What a source may hold beyond the batch in the caller's hands, generously.
    const MOST: u64 = 32 << 20;
    let world = stage(0, 0);
    let (rows, more) = world.world.backlog();
    drop(world);
    let mut world = stage(rows, more);
    let before = resident();
    let mut source = world.open_with(1000, 1 << 20, Duration::from_millis(20), None);
    let mut tally = Tally::default();
    assert!(world.some(source.as_mut(), 1, &mut tally));
    // Nobody asks for more: until everything stands still.
    let mut last = (world.world.taken(), resident() >> 20, Instant::now());
    wait_until("a source whose rows nobody takes stands still", || {
        let now = (world.world.taken(), resident() >> 20);
        if now != (last.0, last.1) {
            last = (now.0, now.1, Instant::now());
        }
        last.2.elapsed() > Duration::from_millis(300)
    });
    let grown = resident().saturating_sub(before);
    assert!(grown < MOST, "{} MiB are in memory though nobody takes rows", grown >> 20);
    if let Some(taken) = world.world.taken() {
        assert!(taken < MOST, "{} MiB were taken though nobody takes rows", taken >> 20);
    }
    world.rest(source.as_mut(), &mut tally, "a large backlog");
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 * MOST, "{} MiB of memory for a backlog that is read batch by batch", grown >> 20);
    world.close(source);
}

fn lets_go<'a>(stage: &dyn Fn() -> Stage<'a>) {
    let cycle = |close: bool| {
        let world = stage();
        let mut source = world.open(A_BATCH, None);
        assert!(world.some(source.as_mut(), 1, &mut Tally::default()));
        let position = stored(&source.position());
        let again = if close {
            world.close(source);
            world.world.assert_free();
            world.open(A_BATCH, Some(&position))
        } else {
            // Without a close it may take a moment: the engine tries to open it until it works.
            drop(source);
            let wait = Duration::from_millis(20);
            eventually("it can be opened again", || world.try_open(A_BATCH, 1 << 20, wait, Some(&position)).ok())
        };
        world.close(again);
        world.world.assert_free();
    };
    // What is made once for the whole process, the first time.
    cycle(true);
    cycle(false);
    let before = eventually("threads and descriptors stand still", || {
        let now = Held::now();
        std::thread::park_timeout(Duration::from_millis(100));
        (now == Held::now()).then_some(now)
    });
    for round in 0..6 {
        cycle(round % 2 == 0);
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
