//! Write Acequia plugins in Rust.
//!
//! A plugin takes rows as typed columns, a batch at a time. Choose the shape that fits and implement its one trait:
//!
//! | shape | a row becomes | trait |
//! |---|---|---|
//! | filter | itself, or nothing | [`Filter`] |
//! | map | itself with more or other columns | [`Map`] |
//! | flat map | any number of rows | [`FlatMap`] |
//! | aggregate | part of a result that is kept between batches | [`Aggregate`] |
//! | anything | anything | [`Transform`], with [`State`] and [`Tick`] as needed |
//!
//! The type of a column is named by a Rust type: `i64`, `f64`, `bool`, [`Timestamp`], `String`, `Vec<u8>`, [`Json`]; an
//! `Option` around it lets nulls in. The host casts to that type before the call, and a row that can't be cast (or is null
//! without `Option`) does not reach the plugin: it is a failed row.
//!
//! ```
//! use acequia_plugin_sdk::{Bitmap, Error, Filter, Rows, Schema, export};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct AtLeast {
//!     column: String,
//!     minimum: f64,
//! }
//!
//! impl Filter for AtLeast {
//!     type Config = AtLeast;
//!     type Reads = f64;
//!
//!     fn configure(config: AtLeast, _: &Schema) -> Result<Self, Error> {
//!         Ok(config)
//!     }
//!
//!     fn reads(&self) -> [String; 1] {
//!         [self.column.clone()]
//!     }
//!
//!     fn keep(&mut self, _: &mut Rows, values: &[f64]) -> Bitmap {
//!         Bitmap::of(values, |value| *value >= self.minimum)
//!     }
//! }
//!
//! export!(AtLeast as Filter);
//! ```
//!
//! The crate is a `cdylib` built for `wasm32-unknown-unknown`. Built for the machine at hand it is plain Rust, and
//! [`testing`] runs it there: `cargo test` needs no WebAssembly.

mod bitmap;
mod codec;
mod columns;
mod config;
mod export;
mod rows;
mod shapes;
mod views;

pub mod log;
pub mod testing;

#[doc(hidden)]
pub mod bindings;

pub use bindings::acequia::plugin::types::{Batch, Column, ColumnType, Field, Packed, Schema, Values};
pub use bindings::exports::acequia::plugin::transform::{Failure, Input, Move, Output, Passes, Plan, Reads, Selection};
pub use bitmap::Bitmap;
pub use codec::{Reader, Writer};
pub use columns::{Built, BuiltColumns, Columns, Json, Names, Timestamp, Type, View, Views};
pub use config::{NoConfig, nearest, parse};
pub use rows::Rows;
pub use shapes::{Aggregate, Filter, Flat, FlatMap, Map, State, Tick, Transform};
pub use views::{Binary, Bits, Nullable, Text};

#[doc(hidden)]
pub mod __private {
    pub use crate::export::{Component, Instance};
    pub use crate::shapes::adapters;

    include!(concat!(env!("OUT_DIR"), "/worlds.rs"));
}

use std::fmt;

/// Why something can't be done, in words for the person who wrote the pipeline's configuration or sent the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Error(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Error(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Error(message.to_string())
    }
}

impl Schema {
    /// The column of that name, if it is known.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// That rows can have a column of this name: it is known, or the schema is open.
    ///
    /// # Errors
    /// Names the column that is nearest to it.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        if self.open || self.field(name).is_some() {
            return Ok(());
        }
        let names = self.fields.iter().map(|field| field.name.as_str());
        Err(match nearest(name, names.clone()) {
            Some(near) => format!("there is no column `{name}`; did you mean `{near}`?"),
            None => format!("there is no column `{name}`: the columns are {}", config::list(names)),
        }
        .into())
    }
}

impl ColumnType {
    /// Every type.
    pub const ALL: [ColumnType; 7] = [
        ColumnType::Boolean,
        ColumnType::Int64,
        ColumnType::Float64,
        ColumnType::Timestamp,
        ColumnType::Text,
        ColumnType::Binary,
        ColumnType::Json,
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Boolean => "boolean",
            ColumnType::Int64 => "int64",
            ColumnType::Float64 => "float64",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Text => "text",
            ColumnType::Binary => "binary",
            ColumnType::Json => "json",
        }
    }

    /// The type of that name.
    ///
    /// # Errors
    /// Lists the types.
    pub fn parse(name: &str) -> Result<ColumnType, Error> {
        ColumnType::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = ColumnType::ALL.map(ColumnType::name);
            match nearest(name, names) {
                Some(near) => format!("there is no type `{name}`; did you mean `{near}`?"),
                None => format!("there is no type `{name}`: the types are {}", config::list(names)),
            }
            .into()
        })
    }
}

impl Values {
    /// The type of these values.
    pub fn kind(&self) -> ColumnType {
        match self {
            Values::Boolean(_) => ColumnType::Boolean,
            Values::Int64(_) => ColumnType::Int64,
            Values::Float64(_) => ColumnType::Float64,
            Values::Timestamp(_) => ColumnType::Timestamp,
            Values::Text(_) => ColumnType::Text,
            Values::Binary(_) => ColumnType::Binary,
            Values::Json(_) => ColumnType::Json,
        }
    }
}

impl Packed {
    /// No values yet.
    pub fn new() -> Self {
        Packed { offsets: vec![0], data: Vec::new() }
    }

    /// No values yet, with room for so many of so many bytes in all.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Packed { offsets, data: Vec::with_capacity(bytes) }
    }

    /// How many values there are.
    #[expect(clippy::len_without_is_empty, reason = "a count of rows, not a container")]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Adds a value: text, or bytes.
    pub fn push(&mut self, value: impl AsRef<[u8]>) {
        self.data.extend_from_slice(value.as_ref());
        self.finish_value();
    }

    /// Ends a value whose bytes were appended to `data`.
    ///
    /// # Panics
    /// If the values are over 4 GiB: more than a plugin's memory.
    pub fn finish_value(&mut self) {
        let end = u32::try_from(self.data.len());
        #[expect(clippy::expect_used, reason = "a plugin's memory is at most 4 GiB")]
        self.offsets.push(end.expect("values of over 4 GiB in one column"));
    }
}

impl Default for Packed {
    fn default() -> Self {
        Packed::new()
    }
}

impl<V: AsRef<[u8]>> FromIterator<V> for Packed {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut packed = Packed::new();
        for value in values {
            packed.push(value);
        }
        packed
    }
}

impl Output {
    /// The input's rows as they are: with these columns, in the plan's order.
    pub fn all(columns: Vec<Column>) -> Self {
        Output { rows: Selection::All, columns, failed: Vec::new() }
    }

    /// New rows, made of these columns.
    pub fn fresh(rows: u32, columns: Vec<Column>) -> Self {
        Output { rows: Selection::Fresh(rows), columns, failed: Vec::new() }
    }
}
