//! One checkpoint, and how it lies on disk.

use std::collections::BTreeMap;

use acequia_connector_api::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pipeline::status::Counts;

/// The first byte of every value in the store. Counts up when the layout changes.
const LAYOUT: u8 = 2;
/// As the builds before format 2 wrote it: the sum is of the bytes alone.
const LAYOUT_1: u8 = 1;
/// Bytes of the BLAKE3 hash that are kept.
const SUM: usize = 16;

/// What is kept of a BLAKE3 hash.
pub(super) type Sum = [u8; SUM];

/// All that a pipeline needs to go on from one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Counts up from 1.
    pub number: u64,
    /// When, milliseconds since the epoch.
    pub at: u64,
    /// The source's `type`: a position of another type is not used.
    pub source_type: String,
    /// Where the source stands.
    pub position: Position,
    /// By sink id: its state and the hash of its table.
    pub sinks: BTreeMap<String, SinkState>,
    /// By stage id.
    pub counts: BTreeMap<String, Counts>,
    /// By transform id: the plugin's own bytes. Stored beside the rest, in the same transaction.
    #[serde(skip)]
    pub snapshots: BTreeMap<String, Vec<u8>>,
}

/// What a sink wants to be told when it is opened again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkState {
    /// The sink's `type`.
    pub sink_type: String,
    /// Its own words.
    pub state: Value,
}

/// What a value is, besides its bytes: part of its sum, so that it is not taken for the value of another name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner<'a> {
    /// The checkpoint of a pipeline, with these snapshots: sealed, by transform, in the order of the table. One that is
    /// lost, or of another moment, is found too.
    Head(&'a str, &'a [(String, Vec<u8>)]),
    /// The snapshot of a pipeline's transform.
    Snapshot(&'a str, &'a str),
}

impl Owner<'_> {
    fn sum(self, bytes: &[u8]) -> Sum {
        let mut hasher = blake3::Hasher::new();
        // With its length, so that no two lists of parts look the same.
        let mut part = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        match self {
            Owner::Head(pipeline, snapshots) => {
                part(b"checkpoint");
                part(pipeline.as_bytes());
                for (transform, sealed) in snapshots {
                    part(transform.as_bytes());
                    part(sealed.get(..=SUM).unwrap_or(sealed));
                }
            }
            Owner::Snapshot(pipeline, transform) => {
                part(b"snapshot");
                part(pipeline.as_bytes());
                part(transform.as_bytes());
            }
        }
        part(bytes);
        kept(&hasher.finalize())
    }
}

/// The first bytes of a hash.
pub(super) fn kept(hash: &blake3::Hash) -> Sum {
    let mut sum = [0; SUM];
    sum.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    sum
}

/// Frame bytes for the store: layout, sum, bytes.
pub(super) fn seal(owner: Owner<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + SUM + bytes.len());
    sealed.push(LAYOUT);
    sealed.extend_from_slice(&owner.sum(bytes));
    sealed.extend_from_slice(bytes);
    sealed
}

/// The sum that a sealed value says to have.
pub(super) fn sum_of(sealed: &[u8]) -> Option<Sum> {
    sealed.get(1..=SUM)?.try_into().ok()
}

/// Whether it was written by a build before format 2.
pub(super) fn is_old(sealed: &[u8]) -> bool {
    sealed.first() == Some(&LAYOUT_1)
}

/// The bytes that were sealed, or what is wrong with them.
pub(super) fn unseal<'b>(owner: Owner<'_>, sealed: &'b [u8]) -> Result<&'b [u8], String> {
    let (layout, rest) = sealed.split_first().ok_or("it is empty")?;
    let (sum, bytes) = rest.split_at_checked(SUM).ok_or("it is cut short")?;
    let right = match *layout {
        LAYOUT => owner.sum(bytes),
        LAYOUT_1 => kept(&blake3::hash(bytes)),
        layout => return Err(format!("it has layout {layout}, which this version of acequia can't read")),
    };
    if sum != right {
        return Err("its checksum does not match".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        let snapshots = [("count".to_owned(), seal(Owner::Snapshot("a", "count"), b"7"))];
        let owner = Owner::Head("a", &snapshots);
        let sealed = seal(owner, b"position");
        assert_eq!(unseal(owner, &sealed), Ok(&b"position"[..]));
        for place in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[place] ^= 1 << bit;
                assert!(unseal(owner, &damaged).is_err(), "flipped bit {bit} in byte {place} went unseen");
            }
            assert!(unseal(owner, &sealed[..place]).is_err(), "cut to {place} bytes went unseen");
        }
    }

    #[test]
    fn a_value_of_another_name_or_moment_is_not_taken() {
        let one = [("count".to_owned(), seal(Owner::Snapshot("a", "count"), b"1"))];
        let two = [("count".to_owned(), seal(Owner::Snapshot("a", "count"), b"2"))];
        let head = seal(Owner::Head("a", &one), b"position");
        assert!(unseal(Owner::Head("a", &one), &head).is_ok());
        assert!(unseal(Owner::Head("b", &one), &head).is_err());
        assert!(unseal(Owner::Head("a", &two), &head).is_err());
        assert!(unseal(Owner::Head("a", &[]), &head).is_err());
        let sealed = &one[0].1;
        assert!(unseal(Owner::Snapshot("a", "count"), sealed).is_ok());
        assert!(unseal(Owner::Snapshot("a", "other"), sealed).is_err());
        assert!(unseal(Owner::Snapshot("b", "count"), sealed).is_err());
    }

    #[test]
    fn what_earlier_builds_wrote_is_read() {
        let mut sealed = vec![LAYOUT_1];
        sealed.extend_from_slice(&kept(&blake3::hash(b"position")));
        sealed.extend_from_slice(b"position");
        assert_eq!(unseal(Owner::Head("a", &[]), &sealed), Ok(&b"position"[..]));
        sealed[3] ^= 1;
        assert!(unseal(Owner::Head("a", &[]), &sealed).is_err());
    }
}
