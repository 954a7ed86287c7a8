//! One checkpoint, and how it lies on disk.

use std::collections::BTreeMap;

use acequia_connector_api::Position;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pipeline::status::Counts;

/// The first byte of every value in the store. Counts up when the layout changes.
const LAYOUT: u8 = 1;
/// Bytes of the BLAKE3 hash that are kept.
const SUM: usize = 16;

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

/// Frame bytes for the store: layout, sum, bytes.
pub(super) fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + SUM + bytes.len());
    sealed.push(LAYOUT);
    sealed.extend_from_slice(&blake3::hash(bytes).as_bytes()[..SUM]);
    sealed.extend_from_slice(bytes);
    sealed
}

/// The bytes that were sealed, or what is wrong with them.
pub(super) fn unseal(sealed: &[u8]) -> Result<&[u8], String> {
    let (layout, rest) = sealed.split_first().ok_or("it is empty")?;
    if *layout != LAYOUT {
        return Err(format!("it has layout {layout}, and this version of acequia reads layout {LAYOUT}"));
    }
    let (sum, bytes) = rest.split_at_checked(SUM).ok_or("it is cut short")?;
    if sum != &blake3::hash(bytes).as_bytes()[..SUM] {
        return Err("its checksum does not match".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        let sealed = seal(b"position");
        assert_eq!(unseal(&sealed), Ok(&b"position"[..]));
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(unseal(&damaged).is_err(), "a flipped bit in byte {place} went unseen");
            assert!(unseal(&sealed[..place]).is_err(), "cut to {place} bytes went unseen");
        }
    }
}
