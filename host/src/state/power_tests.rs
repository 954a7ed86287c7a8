//! The power fails at any moment: what was confirmed is there, or what came after it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use acequia_connector_api::Position;
use rand::rngs::StdRng;

use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

use super::layout::{self, Entry};
use super::*;

/// What a disk is told.
#[derive(Clone, Debug)]
enum Told {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
    /// Not for the disk: from here on, this checkpoint is confirmed.
    Confirmed(u64),
}

/// A disk that takes everything down.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<(Vec<u8>, Vec<Told>)>>);

impl Recorder {
    fn state(&self) -> std::sync::MutexGuard<'_, (Vec<u8>, Vec<Told>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.state().0[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.0.resize(usize::try_from(len).unwrap(), 0);
        state.1.push(Told::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state().1.push(Told::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let at = usize::try_from(offset).unwrap();
        state.0[at..at + data.len()].copy_from_slice(data);
        state.1.push(Told::Write(offset, data.to_vec()));
        Ok(())
    }
}

const PIPELINES: [&str; 4] = ["a", "b", "c", "d"];

fn checkpoint(number: u64) -> Checkpoint {
    let snapshots = [("sum".to_owned(), vec![u8::try_from(number).unwrap(); 5000])].into();
    Checkpoint { number, position: Position::single(number.into()), snapshots, ..Checkpoint::default() }
}

fn apply(disk: &mut Vec<u8>, told: &Told) {
    match told {
        Told::Write(offset, data) => {
            let at = usize::try_from(*offset).unwrap();
            // A write may reach the disk before the file's new length does.
            disk.resize(disk.len().max(at + data.len()), 0);
            disk[at..at + data.len()].copy_from_slice(data);
        }
        Told::Length(length) => disk.resize(usize::try_from(*length).unwrap(), 0),
        Told::Sync | Told::Confirmed(_) => {}
    }
}

/// A disk writes sectors, each whole or not at all, in any order until a sync. Lengths are the file system's, which keeps their order.
fn sectors(told: &[Told]) -> Vec<Told> {
    let split = |told: &Told| match told {
        Told::Write(offset, data) => {
            let first = usize::try_from(512 - offset % 512).unwrap().min(data.len());
            let (head, rest) = data.split_at(first);
            let mut parts = vec![Told::Write(*offset, head.to_vec())];
            let chunks = rest.chunks(512).enumerate();
            parts.extend(chunks.map(|(at, part)| Told::Write(offset + (first + at * 512) as u64, part.to_vec())));
            parts
        }
        told => vec![told.clone()],
    };
    told.iter().flat_map(split).collect()
}

/// The number of the checkpoint that all pipelines have.
fn found(dir: &std::path::Path, disk: &[u8], what: &str) -> u64 {
    std::fs::write(dir.join(store::FILE), disk).unwrap();
    let look = look(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let numbers: Vec<u64> = look
        .entries
        .iter()
        .map(|entry| {
            let found = entry.last.checkpoint.as_ref().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(*found, checkpoint(found.number), "{what}");
            found.number
        })
        .collect();
    match numbers.as_slice() {
        [] => 0,
        [first, rest @ ..] => {
            assert!(
                numbers.len() == PIPELINES.len() && rest.iter().all(|number| number == first),
                "{what}: {numbers:?}"
            );
            *first
        }
    }
}

fn record(seed: u64) -> (Vec<u8>, Vec<Told>) {
    let mut random = StdRng::seed_from_u64(seed);
    let recorder = Recorder::default();
    let open = || sound::builder().create_with_backend(recorder.clone()).unwrap();
    let mut database = open();
    layout::make_tables(&database).unwrap();
    // The file gets its name only when it is made and on disk.
    drop(database);
    let begun = recorder.state().0.clone();
    recorder.state().1.clear();
    database = open();
    for number in 1..=7 {
        let checkpoint = checkpoint(number);
        let beside = random.random();
        let all = PIPELINES.iter().map(|pipeline| Entry { pipeline, checkpoint: &checkpoint, beside });
        layout::save(&database, all, &mut Default::default()).unwrap();
        recorder.state().1.push(Told::Confirmed(number));
        if number == 4 {
            drop(database);
            database = open();
        }
    }
    drop(database);
    let log = recorder.state().1.clone();
    (begun, log)
}

// invariants 1 and 2
#[test]
fn after_a_power_cut_the_last_confirmed_checkpoint_is_there_or_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (begun, log) = record(seed);
    let (mut cuts, mut later) = (0, 0);
    // What is on disk for good, and what was written since.
    let (mut safe, mut loose, mut confirmed) = (begun, Vec::new(), 0);
    for (moment, told) in log.iter().enumerate() {
        match told {
            Told::Sync => loose.drain(..).for_each(|told| apply(&mut safe, &told)),
            Told::Confirmed(number) => confirmed = *number,
            told => loose.push(told.clone()),
        }
        let parts = sectors(&loose);
        for chance in [0.0, 1.0, 0.5, random.random(), random.random()] {
            if chance > 0.0 && parts.is_empty() {
                continue;
            }
            let mut disk = safe.clone();
            parts
                .iter()
                .filter(|part| matches!(part, Told::Length(_)) || random.random_bool(chance))
                .for_each(|part| apply(&mut disk, part));
            let what = format!("seed {seed}, moment {moment} of {}, {confirmed} confirmed, {chance}", log.len());
            let number = found(dir.path(), &disk, &what);
            assert!((confirmed..=confirmed + 1).contains(&number), "{what}: found {number}");
            cuts += 1;
            later += u32::from(number > confirmed);
            // The daemon starts on it, writes, and is read again.
            if cuts % 16 == 0 {
                drop(Folder::open(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}")));
                let disk = std::fs::read(dir.path().join(store::FILE)).unwrap();
                assert_eq!(found(dir.path(), &disk, &what), number, "{what}: after it was opened");
            }
        }
    }
    assert_eq!(confirmed, 7);
    println!("{cuts} power cuts in {} steps; {later} had a later checkpoint than the confirmed one", log.len());
    assert!(cuts > 200 && later > 0, "{cuts} {later}");
}
