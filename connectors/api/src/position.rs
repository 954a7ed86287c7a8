//! Where a source stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// For each part of a source (a file, a Kafka partition) where to go on. The engine stores it as it is; only the source
/// reads it. A source with one part uses the empty name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub BTreeMap<String, Value>);

impl Position {
    /// The position of a source with one part.
    pub fn single(value: Value) -> Self {
        Position(BTreeMap::from([(String::new(), value)]))
    }

    /// The value of a source with one part.
    pub fn as_single(&self) -> Option<&Value> {
        self.0.get("")
    }
}
