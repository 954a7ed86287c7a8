//! The source of rows one after the other: JSON, CSV, text, raw.
//!
//! A finite source has one file open at a time, in the order of their names. A following one has all of them open and
//! reads them by turns. Reading is plain and blocking, a chunk at a time: a local file answers at once, and between two
//! chunks other pipelines get the thread. Of a large file of JSON lines pieces are decoded on all cores ([`crate::ahead`]).

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use acequia_connector_api::{ConnectorError, Context, Demand, Event, Position, Progress, Share, Source, step_aside};
use acequia_format::{Decoder, Format, FormatOptions};
use async_trait::async_trait;

use crate::ahead::Ahead;
use crate::building::Building;
use crate::config::FileSource;
use crate::entry::Entries;
use crate::errors::could_not;
use crate::listing::Listing;
use crate::open::{list_or_fail, open_listed};
use crate::tail::{Entry, Tail};

/// How much is read at once. In tests so little that every record meets the border of a chunk.
const CHUNK: usize = if cfg!(test) { 7 } else { 1 << 18 };

pub(crate) struct Reader {
    pub(crate) listing: Listing,
    pub(crate) options: FormatOptions,
    pub(crate) max_record: usize,
    pub(crate) follow: bool,
    pub(crate) poll: Duration,
    /// Finite: files that are not yet begun.
    todo: VecDeque<PathBuf>,
    pub(crate) tails: Vec<Tail>,
    /// Following: whose turn it is.
    turn: usize,
    /// When the names are looked at again.
    pub(crate) next_scan: Instant,
    /// Following: files that match and can't be opened.
    pub(crate) left_out: HashSet<PathBuf>,
    /// What the stored position knows of files that are not yet open.
    pub(crate) entries: Entries<Entry>,
    pub(crate) building: Building,
    position: Position,
    chunk: Vec<u8>,
    /// Finite: pieces of the open file that are decoded beside each other.
    ahead: Option<Ahead>,
    /// On how many cores.
    cores: usize,
    share: Share,
    demand: Demand,
    /// Bytes of the files that are finished, and of all.
    done: u64,
    total: u64,
}

enum Step {
    /// There may be more at once.
    Read,
    /// Every followed file is at its end.
    Idle,
    /// A finite source is at its end.
    End,
}

impl Reader {
    pub(crate) fn open(
        config: &FileSource,
        options: FormatOptions,
        context: &Context,
        position: Option<&Position>,
    ) -> Result<Self, ConnectorError> {
        let listing = Listing::new(&context.base, &config.path);
        let mut position = position.cloned().unwrap_or_default();
        let (entries, todo, total) = if config.follow {
            if let Listing::One(path) = &listing
                && path.exists()
            {
                open_listed(path)?;
            }
            (Entries::all(&position, Entry::mark), VecDeque::new(), 0)
        } else {
            let (files, total) = list_or_fail(&listing)?;
            let entries = Entries::new(&mut position, &files, Entry::mark);
            (entries, files.into_iter().map(|(path, _)| path).collect(), total)
        };
        let cores = if options.format == Format::Json && !config.follow { cores() } else { 1 };
        let (format, reads) = (options.clone(), context.reads.clone());
        let make = move || Decoder::new(&format).reading(reads.as_deref());
        let building = Building::new(make, context.batch, &position);
        let mut reader = Reader {
            listing,
            options,
            max_record: config.max_record.as_usize(),
            follow: config.follow,
            poll: config.poll.0,
            todo,
            tails: Vec::new(),
            turn: 0,
            next_scan: Instant::now(),
            left_out: HashSet::new(),
            entries,
            building,
            position,
            chunk: vec![0; CHUNK],
            ahead: None,
            cores,
            share: context.share.clone(),
            demand: Demand::default(),
            done: 0,
            total,
        };
        if config.follow {
            reader.resume_renamed()?;
            reader.scan()?;
        }
        Ok(reader)
    }

    /// Open a file where the stored position left it, or at its start.
    pub(crate) fn open_tail(&mut self, path: PathBuf) -> Result<Tail, ConnectorError> {
        let (file, id) = open_listed(&path)?;
        let found = self.entries.take(&path, id, &file).map_err(|error| could_not("read", &path, error))?;
        let moved = found.as_ref().map(|found| &found.path).filter(|old| **old != path).cloned();
        let entry = found.map(|found| found.entry);
        let changed = entry.as_ref().is_some_and(|entry| entry.mark().id != id) || moved.is_some();
        let tail = Tail::new(path, file, id, entry, &self.options, self.max_record);
        // A file that has the old name now has, or gets, an entry of its own under it.
        if let Some(old) = moved.filter(|old| !old.exists()) {
            self.building.forget(&old.to_string_lossy());
        }
        if changed {
            self.building.note(&tail);
        }
        Ok(tail)
    }

    /// Do a bit: one chunk, or one file opened or finished. Everything that it takes is in `self` when it returns, so
    /// that nothing depends on the future that called it.
    fn step(&mut self) -> Result<Step, ConnectorError> {
        if self.follow {
            if Instant::now() >= self.next_scan {
                self.scan()?;
            }
            return self.step_following();
        }
        if self.tails.is_empty() {
            let Some(path) = self.todo.front().cloned() else {
                if self.building.is_empty() {
                    return Ok(Step::End);
                }
                self.building.close();
                return Ok(Step::Read);
            };
            let tail = self.open_tail(path)?;
            self.todo.pop_front();
            self.tails.push(tail);
        }
        if let Some(tail) = self.tails.first()
            && let Some(ahead) = Ahead::begin(tail, &self.building, self.cores, &self.share)
        {
            self.building.close();
            // What the next batch would have brought, if there is none in work: the pieces' batches know nothing of it.
            self.building.settle(&mut self.position);
            self.ahead = Some(ahead);
            return Ok(Step::Read);
        }
        if !self.read_chunk(0)? {
            let mut tail = self.tails.remove(0);
            self.building.take(&mut tail, None);
            self.done += tail.read;
        }
        Ok(Step::Read)
    }

    /// Take the next piece of a file that is read ahead, and see to it that the others are in work meanwhile. False: the file is
    /// not, or not any more. Cancel safe.
    async fn step_ahead(&mut self) -> Result<bool, ConnectorError> {
        let (Some(ahead), Some(tail)) = (&mut self.ahead, self.tails.first_mut()) else { return Ok(false) };
        ahead.fill(tail, &self.building)?;
        ahead.take(tail, &mut self.building).await?;
        if ahead.is_done() {
            self.ahead = None;
            tail.go_on_alone();
            self.building.note(tail);
        }
        Ok(true)
    }

    fn step_following(&mut self) -> Result<Step, ConnectorError> {
        for _ in 0..self.tails.len() {
            let index = self.turn % self.tails.len();
            self.turn = index + 1;
            if self.read_chunk(index)? || self.is_cut(index)? {
                return Ok(Step::Read);
            }
            if self.is_left(index) {
                let mut tail = self.tails.remove(index);
                self.building.take(&mut tail, None);
                self.building.forget(&tail.partition);
                // Its successor waits for this.
                self.next_scan = Instant::now();
                return Ok(Step::Read);
            }
        }
        Ok(Step::Idle)
    }

    /// Read on in a file; false if there is no more for now.
    fn read_chunk(&mut self, index: usize) -> Result<bool, ConnectorError> {
        let Some(tail) = self.tails.get_mut(index) else { return Ok(false) };
        let read = tail.read(&mut self.chunk).map_err(|error| could_not("read", &tail.path, error))?;
        let bytes = self.chunk.get(..read).unwrap_or_default();
        if !bytes.is_empty() {
            self.building.take(tail, Some(bytes));
        }
        Ok(read > 0)
    }

    fn is_cut(&mut self, index: usize) -> Result<bool, ConnectorError> {
        let Some(tail) = self.tails.get_mut(index) else { return Ok(false) };
        let cut = tail.restart_if_cut();
        let cut = cut.map_err(|error| could_not("look at", &tail.path, error))?;
        if cut {
            self.building.note(tail);
        }
        Ok(cut)
    }

    /// Whether the file was rotated away and its writer has left it.
    fn is_left(&self, index: usize) -> bool {
        let rotated = self.tails.get(index).and_then(|tail| tail.rotated);
        rotated.is_some_and(|since| since.elapsed() >= crate::follow::grace(self.poll))
    }
}

/// How many cores there are to decode on: those that the pipelines run on.
fn cores() -> usize {
    tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
}

#[async_trait]
impl Source for Reader {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        loop {
            if let Some(batch) = self.building.pop(&mut self.position) {
                if let (Some(ahead), Some(tail)) = (&mut self.ahead, self.tails.first()) {
                    // While this one is written. An error comes again.
                    let _ = ahead.fill(tail, &self.building);
                }
                return Ok(Event::Batch(batch));
            }
            if self.step_ahead().await? {
                continue;
            }
            let is_due = self.follow && self.building.remaining().is_some_and(|remaining| remaining.is_zero());
            if is_due {
                self.building.close();
                continue;
            }
            match self.step() {
                Ok(Step::Read) => step_aside().await,
                Ok(Step::Idle) => {
                    self.building.settle(&mut self.position);
                    let remaining = self.building.remaining().unwrap_or(self.poll);
                    let waits = !self.building.is_empty();
                    if waits && self.demand.is_idle() {
                        self.building.close();
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(remaining.min(self.poll)) => {}
                        () = self.demand.idle(), if waits => {}
                    }
                }
                Ok(Step::End) => {
                    self.building.settle(&mut self.position);
                    return Ok(Event::End);
                }
                // First the rows that came before the error. It comes again.
                Err(_) if !self.building.is_empty() => self.building.close(),
                Err(error) => return Err(error),
            }
        }
    }

    fn set_demand(&mut self, demand: Demand) {
        self.demand = demand;
    }

    fn position(&self) -> Position {
        self.position.clone()
    }

    fn progress(&self) -> Option<Progress> {
        if self.follow {
            return None;
        }
        let done = self.done + self.tails.iter().map(|tail| tail.read).sum::<u64>();
        // A file may have grown since it was listed.
        Some(Progress { done, total: self.total.max(done), unit: "bytes" })
    }
}
