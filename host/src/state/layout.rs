//! What lies in the file: its tables, and how they are read and written. The numbers are in docs/state.md.

use std::collections::BTreeMap;

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Owner, Sum, is_old, kept, seal, sum_of, unseal};
use super::error::Failure;

/// The format of the file as a whole. Counts up when an older version of acequia could not read it any more, or would read
/// it wrongly. 1: without [`ABOUT`], as the builds before it had a number.
pub(super) const FORMAT: u32 = 2;

/// Pipeline -> sealed JSON of everything but the snapshots.
const CHECKPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checkpoints");
/// Pipeline and transform -> the sealed snapshot.
const SNAPSHOTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("snapshots");
/// [`ABOUT_KEY`] -> JSON of [`About`].
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const ABOUT_KEY: &str = "file";

/// What the file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// [`FORMAT`] of the version that wrote it.
    pub(super) format: u32,
    /// That version.
    pub(super) acequia: String,
    /// How many entries [`CHECKPOINTS`] has.
    entries: u64,
    /// The sums of their names, all in one by exclusive or, in hex: an entry that is lost must not pass for a pipeline that never
    /// ran.
    names: String,
}

impl Default for About {
    fn default() -> Self {
        About { format: FORMAT, acequia: env!("CARGO_PKG_VERSION").to_owned(), entries: 0, names: hex([0; 16]) }
    }
}

impl About {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut about = About::default();
        let mut all = 0;
        for name in names {
            about.entries += 1;
            all ^= name_sum(name);
        }
        about.names = hex(all.to_be_bytes());
        about
    }

    /// A name has come, or is gone.
    fn turn(&mut self, name: &str, there: bool) {
        let all = u128::from_str_radix(&self.names, 16).unwrap_or_default() ^ name_sum(name);
        self.names = hex(all.to_be_bytes());
        self.entries = if there { self.entries + 1 } else { self.entries.saturating_sub(1) };
    }
}

fn name_sum(name: &str) -> u128 {
    u128::from_be_bytes(kept(&blake3::hash(name.as_bytes())))
}

fn hex(bytes: Sum) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name under which a pipeline's replaced checkpoint is kept: no file has such a name.
pub(super) fn previous(pipeline: &str) -> String {
    format!("{pipeline}{PREVIOUS}")
}

const PREVIOUS: &str = "\0previous";

/// The pipeline of an entry. What is kept as the previous one was sealed as the pipeline's own.
pub(super) fn owner(name: &str) -> &str {
    name.strip_suffix(PREVIOUS).unwrap_or(name)
}

/// By entry: the sum of its checkpoint.
pub(super) type Sums = BTreeMap<String, Sum>;

/// Make the tables that every other function here takes to be there.
pub(super) fn make_tables(database: &Database) -> Result<(), Failure> {
    let transaction = begin_write(database)?;
    transaction.open_table(CHECKPOINTS)?;
    transaction.open_table(SNAPSHOTS)?;
    transaction.open_table(ABOUT)?.insert(ABOUT_KEY, to_json(&About::default())?.as_slice())?;
    transaction.commit()?;
    Ok(())
}

/// What a file says of itself (nothing: it has format 1), and its entries; checked against each other.
pub(super) fn survey(database: &Database) -> Result<(Option<About>, Sums), Failure> {
    let transaction = database.begin_read()?;
    let about = about_of(&transaction)?;
    let mut sums = Sums::new();
    let mut old = true;
    for entry in open(&transaction, CHECKPOINTS)?.iter()? {
        let (name, sealed) = entry?;
        old &= is_old(sealed.value());
        // One that is too short has none, and is found damaged when it is read.
        sums.insert(name.value().to_owned(), sum_of(sealed.value()).unwrap_or_default());
    }
    match &about {
        Some(about) => {
            let found = About::of(sums.keys().map(String::as_str));
            if (about.entries, &about.names) != (found.entries, &found.names) {
                return Err(Failure::Corrupt(format!(
                    "it should have {} entries, and has {} or others",
                    about.entries, found.entries
                )));
            }
        }
        None if !old => return Err(Failure::Corrupt("it does not say which format it has".to_owned())),
        None => {}
    }
    // So that it is known to be there.
    open(&transaction, SNAPSHOTS)?.len()?;
    Ok((about, sums))
}

fn about_of(transaction: &ReadTransaction) -> Result<Option<About>, Failure> {
    let table = match transaction.open_table(ABOUT) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(text) = table.get(ABOUT_KEY)? else { return Ok(None) };
    // A later version may say other things of itself, but these two.
    let says: serde_json::Value = serde_json::from_slice(text.value()).unwrap_or_default();
    let format = says["format"]
        .as_u64()
        .ok_or_else(|| Failure::Corrupt("what it says of its format can't be read".to_owned()))?;
    if format > u64::from(FORMAT) {
        let by = says["acequia"].as_str().unwrap_or("of a later version").to_owned();
        return Err(Failure::Newer { format, by });
    }
    serde_json::from_value(says).map(Some).map_err(|error| Failure::Corrupt(format!("what it says of itself: {error}")))
}

/// [`survey`], and a file of an earlier format or version gets this one's numbers.
pub(super) fn adopt(database: &Database) -> Result<Sums, Failure> {
    let (about, sums) = survey(database)?;
    let wanted = About::of(sums.keys().map(String::as_str));
    if about.as_ref() != Some(&wanted) {
        let transaction = begin_write(database)?;
        transaction.open_table(ABOUT)?.insert(ABOUT_KEY, to_json(&wanted)?.as_slice())?;
        transaction.commit()?;
    }
    Ok(sums)
}

/// Open a table that must be there.
fn open<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<redb::ReadOnlyTable<K, V>, Failure> {
    transaction.open_table(table).map_err(|error| match error {
        TableError::Storage(error) => Failure::from(error),
        error => Failure::Corrupt(format!("it is a redb file, but not one of acequia: {error}")),
    })
}

/// With two phases, the slot that the header names is always whole: else the database would take a damaged commit for one
/// that a crash cut short, and go back to the one before it without a word.
fn begin_write(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// A checkpoint as it lies there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) head: Vec<u8>,
    pub(super) snapshots: Vec<(String, Vec<u8>)>,
}

impl Sealed {
    fn new(pipeline: &str, checkpoint: &Checkpoint) -> Result<Self, Failure> {
        let snapshots: Vec<_> = checkpoint
            .snapshots
            .iter()
            .map(|(transform, bytes)| (transform.clone(), seal(Owner::Snapshot(pipeline, transform), bytes)))
            .collect();
        let head = seal(Owner::Head(pipeline, &snapshots), &to_json(checkpoint)?);
        Ok(Sealed { head, snapshots })
    }

    /// The checkpoint, or what is wrong with it.
    pub(super) fn open(&self, pipeline: &str) -> Result<Checkpoint, String> {
        let mut snapshots = BTreeMap::new();
        for (transform, sealed) in &self.snapshots {
            let bytes = unseal(Owner::Snapshot(pipeline, transform), sealed)
                .map_err(|error| format!("the snapshot of transform `{transform}`: {error}"))?;
            snapshots.insert(transform.clone(), bytes.to_vec());
        }
        let head = unseal(Owner::Head(pipeline, &self.snapshots), &self.head)?;
        let checkpoint: Checkpoint = serde_json::from_slice(head).map_err(|error| error.to_string())?;
        Ok(Checkpoint { snapshots, ..checkpoint })
    }

    pub(super) fn bytes(&self) -> u64 {
        let all = self.snapshots.iter().map(|(_, sealed)| sealed.len()).sum::<usize>() + self.head.len();
        all as u64
    }
}

pub(super) fn read(database: &Database, name: &str) -> Result<Option<Sealed>, Failure> {
    let transaction = database.begin_read()?;
    let Some(head) = open(&transaction, CHECKPOINTS)?.get(name)?.map(|value| value.value().to_vec()) else {
        return Ok(None);
    };
    Ok(Some(Sealed { head, snapshots: snapshots_of(&open(&transaction, SNAPSHOTS)?, name)? }))
}

/// The sealed snapshots of a pipeline, by transform.
fn snapshots_of(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    name: &str,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut snapshots = Vec::new();
    for entry in table.range((name, "")..)? {
        let (key, value) = entry?;
        let (owner, transform) = key.value();
        if owner != name {
            break;
        }
        snapshots.push((transform.to_owned(), value.value().to_vec()));
    }
    Ok(snapshots)
}

/// The transforms that have a snapshot there. Their bytes, which may be many, are not copied.
fn transforms_of(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    name: &str,
) -> Result<Vec<String>, Failure> {
    let mut transforms = Vec::new();
    for entry in table.range((name, "")..)? {
        let (key, _) = entry?;
        let (owner, transform) = key.value();
        if owner != name {
            break;
        }
        transforms.push(transform.to_owned());
    }
    Ok(transforms)
}

/// The tables, open to be changed.
struct Change<'t> {
    heads: Table<'t, &'static str, &'static [u8]>,
    snapshots: Table<'t, (&'static str, &'static str), &'static [u8]>,
    about: Table<'t, &'static str, &'static [u8]>,
}

impl<'t> Change<'t> {
    fn new(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        Ok(Change {
            heads: transaction.open_table(CHECKPOINTS)?,
            snapshots: transaction.open_table(SNAPSHOTS)?,
            about: transaction.open_table(ABOUT)?,
        })
    }

    fn get(&self, name: &str) -> Result<Option<Sealed>, Failure> {
        let Some(head) = self.heads.get(name)?.map(|value| value.value().to_vec()) else { return Ok(None) };
        Ok(Some(Sealed { head, snapshots: snapshots_of(&self.snapshots, name)? }))
    }

    /// Make this all that is stored under the name.
    fn put(&mut self, name: &str, sealed: Option<&Sealed>) -> Result<(), Failure> {
        let was = match sealed {
            Some(sealed) => self.heads.insert(name, sealed.head.as_slice())?.is_some(),
            None => self.heads.remove(name)?.is_some(),
        };
        let kept = sealed.map(|sealed| sealed.snapshots.as_slice()).unwrap_or_default();
        for transform in transforms_of(&self.snapshots, name)? {
            if !kept.iter().any(|(kept, _)| *kept == transform) {
                self.snapshots.remove((name, transform.as_str()))?;
            }
        }
        for (transform, bytes) in kept {
            self.snapshots.insert((name, transform.as_str()), bytes.as_slice())?;
        }
        if was != sealed.is_some() {
            let mut about = self.about.get(ABOUT_KEY)?.and_then(|text| serde_json::from_slice(text.value()).ok());
            let about: &mut About = about.get_or_insert_default();
            about.turn(name, sealed.is_some());
            self.about.insert(ABOUT_KEY, to_json(about)?.as_slice())?;
        }
        Ok(())
    }
}

/// Something to store.
pub(super) struct Entry<'a> {
    pub(super) pipeline: &'a str,
    pub(super) checkpoint: &'a Checkpoint,
    /// Keep the checkpoint that it replaces.
    pub(super) beside: bool,
}

/// Store checkpoints in one transaction. In `sums`, also after an error: what becomes of each entry, `None` if it is gone.
pub(super) fn save<'a>(
    database: &Database,
    entries: impl Iterator<Item = Entry<'a>>,
    sums: &mut BTreeMap<String, Option<Sum>>,
) -> Result<(), Failure> {
    let transaction = begin_write(database)?;
    {
        let mut change = Change::new(&transaction)?;
        let mut put = |change: &mut Change<'_>, name: &str, sealed: Option<&Sealed>| {
            sums.insert(name.to_owned(), sealed.and_then(|sealed| sum_of(&sealed.head)));
            change.put(name, sealed)
        };
        for Entry { pipeline, checkpoint, beside } in entries {
            if beside {
                let before = change.get(pipeline)?;
                put(&mut change, &previous(pipeline), before.as_ref())?;
            }
            put(&mut change, pipeline, Some(&Sealed::new(pipeline, checkpoint)?))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Forget all that is stored of these pipelines, in one transaction.
pub(super) fn remove<'a>(database: &Database, pipelines: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let transaction = begin_write(database)?;
    {
        let mut change = Change::new(&transaction)?;
        for pipeline in pipelines {
            change.put(pipeline, None)?;
            change.put(&previous(pipeline), None)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    // The types serialise without fail: strings, numbers, and maps with string keys.
    serde_json::to_vec(value).map_err(|error| std::io::Error::other(error).into())
}
