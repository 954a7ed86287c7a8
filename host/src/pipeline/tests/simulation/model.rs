//! What must be true whenever a checkpoint is stored, worked out from the journal in it alone.

use std::collections::BTreeMap;

use super::disk::{NAME, STAGE as STORE};
use super::schedule::Scene;
use super::sink::{Contents, Kind, Table, code};
use super::source::{STAGE as SOURCE, place};
use super::transform::{Entry, JOURNAL, Row, Version, Work, journal, numbers};
use crate::config::model::OnError;
use crate::pipeline::status::Counts;
use crate::state::Checkpoint;

/// What follows from a journal.
#[derive(Debug, Default)]
pub struct Expected {
    /// The rows of the source.
    pub read: Vec<u64>,
    /// How many rows are the journal's own.
    pub ticks: u64,
    /// What comes out of the chain.
    pub out: Vec<Row>,
    /// The letters of the transforms.
    pub dead: Vec<Row>,
    /// The transforms' states, by id.
    pub states: BTreeMap<&'static str, i64>,
    /// The last version.
    pub version: Option<usize>,
}

impl Expected {
    /// Go through the journal.
    pub fn of(entries: &[Entry], versions: &[Version]) -> Self {
        let mut expected = Expected::default();
        let mut works: &[Work] = &[];
        for entry in entries {
            let row = match entry {
                Entry::Start(version) => {
                    works = versions.get(*version).map_or(&[], |version| &version.works);
                    expected.version = Some(*version);
                    // A transform that is gone has lost its state; one that is new has none.
                    expected.states.retain(|id, _| works.iter().any(|work| work.id() == *id));
                    for work in works.iter().filter(|work| work.is_stateful()) {
                        expected.states.entry(work.id()).or_default();
                    }
                    continue;
                }
                Entry::Row(row) => {
                    expected.read.push(*row);
                    (i64::try_from(*row).unwrap(), 0)
                }
                Entry::Tick(value) => {
                    expected.ticks += 1;
                    (*value, 0)
                }
            };
            expected.pass(row, works);
        }
        expected
    }

    fn pass(&mut self, row: Row, works: &[Work]) {
        let mut rows = vec![row];
        for work in works {
            let mut next = Vec::new();
            for row in rows {
                let mut none = 0;
                let state = self.states.get_mut(work.id()).unwrap_or(&mut none);
                match work.row(state, row) {
                    Some(made) => next.extend(made),
                    None => self.dead.push((row.0, code(work.id()))),
                }
            }
            rows = next;
        }
        self.out.extend(rows);
    }

    /// The rows that a sink must have.
    pub fn rows_of(&self, table: &Table) -> Vec<Row> {
        self.out.iter().copied().filter(|row| !table.refuses(row.0)).collect()
    }

    /// The letters, if the source stands at `position`; in no order, since several stages send them.
    pub fn letters(&self, scene: &Scene, position: u64) -> Vec<Row> {
        let bad = (0..position).filter(|row| !scene.script.is_good(*row));
        let mut letters: Vec<Row> = bad.map(|row| (i64::try_from(row).unwrap(), code(SOURCE))).collect();
        letters.extend(&self.dead);
        for table in &scene.tables {
            letters.extend(self.out.iter().filter(|row| table.refuses(row.0)).map(|row| (row.0, code(&table.id))));
        }
        letters.sort_unstable();
        letters
    }
}

/// Whether `part` is in `whole` in this order, with others between.
fn is_within(part: &[Row], whole: &[Row]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|row| rest.any(|other| other == row))
}

/// What a checkpoint says, beside what is true.
pub struct Look<'a> {
    pub scene: &'a Scene,
    pub checkpoint: &'a Checkpoint,
    pub position: u64,
    pub expected: Expected,
}

impl<'a> Look<'a> {
    pub fn at(scene: &'a Scene, checkpoint: &'a Checkpoint) -> Self {
        let entries = checkpoint.snapshots.get(JOURNAL).map(|bytes| journal(bytes)).unwrap_or_default();
        let expected = Expected::of(&entries, &scene.versions());
        let position = place(&checkpoint.position).unwrap_or(0);
        Look { scene, checkpoint, position, expected }
    }

    fn wrong(&self, what: &str) {
        self.scene.world.wrong(format!("checkpoint {} at {}: {what}", self.checkpoint.number, self.position));
    }

    /// Invariant 2: position and snapshots are of one row.
    fn states(&self) {
        let good: Vec<u64> = (0..self.position).filter(|row| self.scene.script.is_good(*row)).collect();
        if self.expected.read != good {
            self.wrong(&format!("the transforms have seen {:?}", self.expected.read));
        }
        let mut found = BTreeMap::new();
        for (id, bytes) in &self.checkpoint.snapshots {
            if id != JOURNAL {
                found.insert(id.as_str(), numbers(bytes).first().copied().unwrap_or_default());
            }
        }
        if found != self.expected.states {
            self.wrong(&format!("states {found:?} and not {:?}", self.expected.states));
        }
        // Invariant 7.
        if let Some(version) = self.expected.version.filter(|version| self.scene.is_rejected(*version)) {
            self.wrong(&format!("version {version} runs, and it was rejected"));
        }
    }

    /// Invariants 1 and 2: what the sink has, and what the checkpoint says of it.
    fn sink(&self, table: &Table, beside: bool) {
        let contents = table.contents().clone();
        let rows = self.expected.rows_of(table);
        let state = self.checkpoint.sinks.get(&table.id).and_then(|sink| sink.state.as_u64());
        self.rows(table, &contents, &rows, state, beside);
    }

    fn rows(&self, table: &Table, contents: &Contents, rows: &[Row], state: Option<u64>, beside: bool) {
        let safe = contents.rows.get(..contents.durable).unwrap_or(&contents.rows);
        let (right, has) = match table.kind {
            Kind::Plain => (is_within(rows, safe), safe),
            Kind::Cut => {
                let length = state.and_then(|state| usize::try_from(state).ok()).unwrap_or(usize::MAX);
                let has = safe.get(..length).unwrap_or(&[]);
                (length <= safe.len() && has == rows, has)
            }
            Kind::TwoPhase => {
                // What is about to count; or, as it is opened, what counts.
                let has = if beside { safe } else { &contents.rows[..contents.visible] };
                let more = u64::from(has.len() > contents.visible);
                let sequence = state.unwrap_or(u64::MAX);
                let right = sequence >= contents.sequence + more && sequence <= contents.sequence + u64::from(beside);
                (right && has == rows, has)
            }
        };
        if !right {
            self.wrong(&format!("{} has {has:?} with state {state:?}, and should have {rows:?}", table.id));
        }
    }

    /// Invariant 3: every row that failed is a letter.
    fn letters(&self) {
        let Some(table) = &self.scene.letters else { return };
        let expected = self.expected.letters(self.scene, self.position);
        let contents = table.contents().clone();
        let mut safe = contents.rows.get(..contents.durable).unwrap_or(&contents.rows).to_vec();
        if table.kind == Kind::Cut {
            let state = self.checkpoint.sinks.get(&table.id).and_then(|sink| sink.state.as_u64()).unwrap_or(0);
            safe.truncate(usize::try_from(state).unwrap());
        }
        safe.sort_unstable();
        let right = match table.kind {
            Kind::Cut => safe == expected,
            _ => is_within(&expected, &safe),
        };
        if !right {
            self.wrong(&format!("the letters are {safe:?}, and should be {expected:?}"));
        }
    }

    /// Invariant 3: the counts.
    fn counts(&self) {
        let counts = &self.checkpoint.counts;
        for (stage, of) in counts {
            if of.rows_in + of.added != of.rows_out + of.dropped + of.dead {
                self.wrong(&format!("{stage} does not balance: {of:?}"));
            }
            if of.dead > 0 && self.scene.on_error() == OnError::Stop {
                self.wrong(&format!("{stage} went past a row that should have stopped it: {of:?}"));
            }
        }
        if counts.is_empty() && self.position == 0 && self.expected.read.is_empty() {
            // The very first one.
            return;
        }
        let check = |id: &str, right: Counts| {
            let found = counts.get(id).copied().unwrap_or_default();
            if found != right {
                self.wrong(&format!("{id} has counted {found:?}, and it was {right:?}"));
            }
        };
        let read = self.expected.read.len() as u64;
        let dead = self.position.saturating_sub(read);
        check(SOURCE, Counts { rows_in: self.position, rows_out: read, dead, ..Counts::default() });
        let added = self.expected.ticks;
        check(JOURNAL, Counts { rows_in: read, rows_out: read + added, added, ..Counts::default() });
        let rows_in = self.expected.out.len() as u64;
        for table in &self.scene.tables {
            let rows_out = self.expected.rows_of(table).len() as u64;
            check(&table.id, Counts { rows_in, rows_out, dead: rows_in - rows_out, ..Counts::default() });
        }
        if let Some(table) = &self.scene.letters {
            let rows = self.expected.letters(self.scene, self.position).len() as u64;
            check(&table.id, Counts { rows_in: rows, rows_out: rows, ..Counts::default() });
        }
    }

    /// Everything.
    pub fn all(&self, beside: bool) {
        self.states();
        for table in &self.scene.tables {
            self.sink(table, beside);
        }
        self.letters();
        self.counts();
    }
}

/// A checkpoint is about to be on disk.
pub fn check_save(scene: &Scene, checkpoint: &Checkpoint, beside: bool) {
    let look = Look::at(scene, checkpoint);
    look.all(beside);
    let last = scene.stored.last();
    let (number, position) =
        last.as_ref().map_or((0, 0), |last| (last.number, place(&last.position).unwrap_or(u64::MAX)));
    let back = scene.stored.previous().is_some_and(|previous| *previous == *checkpoint);
    let forward = checkpoint.number == number + 1 && look.position >= position;
    if !forward && !back {
        look.wrong(&format!("it follows {number} at {position}"));
    }
    // Invariant 1, for a sink in two phases: one that was stored and never came to count is given up first.
    if let Some(table) = scene.tables.iter().find(|table| !back && !counts(scene, table)) {
        look.wrong(&format!("{number} at {position} does not count yet in {}", table.id));
    }
}

/// Whether what the last stored checkpoint says of the sink has come to count.
fn counts(scene: &Scene, table: &Table) -> bool {
    let state = scene.stored.sink_state(&table.id).and_then(|state| state.as_u64());
    table.kind != Kind::TwoPhase || state.is_none_or(|state| state == table.contents().sequence)
}

/// The pipeline has stopped, or completed, in good order: what is stored is all that there is.
pub fn check_end(scene: &Scene) {
    let world = &scene.world;
    let Some(last) = scene.stored.last() else { return world.wrong("nothing was ever stored") };
    match scene.disk.load(NAME) {
        Ok(Some(loaded)) if loaded == *last => {}
        other => world.wrong(format!("{STORE} has {other:?}, and was given {last:?}")),
    }
    let look = Look::at(scene, &last);
    look.all(false);
    if let Some(rows) = scene.script.rows.filter(|rows| *rows != look.position) {
        look.wrong(&format!("it has completed, and there are {rows} rows"));
    }
    for table in scene.tables.iter().chain(&scene.letters) {
        let contents = table.contents().clone();
        if contents.durable != contents.rows.len() && table.kind != Kind::Plain {
            look.wrong(&format!("{} has rows that no checkpoint has: {contents:?}", table.id));
        }
        if table.kind == Kind::TwoPhase && contents.visible != contents.rows.len() {
            look.wrong(&format!("{} has rows that do not count: {contents:?}", table.id));
        }
        // All of the letters, and all of the rows, in the sinks that can have each once.
        let length = scene.stored.sink_state(&table.id).and_then(|state| state.as_u64());
        if table.kind == Kind::Cut && length != Some(contents.rows.len() as u64) {
            look.wrong(&format!("{} has {} rows, and the checkpoint says {length:?}", table.id, contents.rows.len()));
        }
    }
    let open = world.open();
    if !open.is_empty() {
        look.wrong(&format!("left open: {open:?}"));
    }
}
