//! A plugin with state, for the tests: it adds to each row the column `count`, the number of rows so far, this one included.
//! A row that was counted twice, or a count that was lost, shows at once. `mode` makes it misbehave.

use acequia_plugin_sdk::{
    Batch, Column, ColumnType, Error, Field, Input, Output, Plan, Reader, Reads, Schema, State, Transform, Values,
    Writer, export,
};
use serde::Deserialize;

/// What it does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: it counts.
    #[default]
    Count,
    /// Traps in a batch that has `value`, after it has counted the rows before it.
    Poison,
    /// Refuses every snapshot.
    RestoreFails,
    /// Traps when it gets a snapshot.
    RestoreTraps,
    /// Traps when it is asked for a snapshot.
    SnapshotTraps,
    /// Never returns from `snapshot`.
    SnapshotLoops,
    /// A snapshot of `size` bytes.
    SnapshotHuge,
}

/// The `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    column: String,
    value: i64,
    size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { mode: Mode::Count, column: "value".to_string(), value: 0, size: 256 << 20 }
    }
}

/// The plugin.
pub struct Counter {
    config: Config,
    count: i64,
}

impl Transform for Counter {
    type Config = Config;

    fn configure(config: Config, _: &Schema) -> Result<(Self, Plan), Error> {
        let input = Input { name: config.column.clone(), kind: ColumnType::Int64, nullable: false };
        let field = Field { name: "count".to_string(), kind: ColumnType::Int64, nullable: false };
        let plan = Plan { reads: Reads::Columns(vec![input]), adds: vec![field], ..Plan::pass() };
        Ok((Counter { config, count: 0 }, plan))
    }

    fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
        let Some(Column { values: Values::Int64(values), .. }) = batch.columns.first() else {
            return Err("the planned column is not there".into());
        };
        let mut counts = Vec::with_capacity(values.len());
        for value in values {
            if self.config.mode == Mode::Poison && *value == self.config.value {
                std::process::abort();
            }
            self.count += 1;
            counts.push(self.count);
        }
        let column = Column { name: "count".to_string(), values: Values::Int64(counts), valid: None };
        Ok(Output::all(vec![column]))
    }
}

impl State for Counter {
    fn snapshot(&self, out: &mut Writer) {
        match self.config.mode {
            Mode::SnapshotTraps => std::process::abort(),
            Mode::SnapshotLoops => loop {
                std::hint::black_box(());
            },
            Mode::SnapshotHuge => out.bytes(&vec![0; self.config.size]),
            _ => out.signed(self.count),
        }
    }

    fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        match self.config.mode {
            Mode::RestoreFails => return Err("evil: I can't make anything of this snapshot".into()),
            Mode::RestoreTraps => std::process::abort(),
            _ => {}
        }
        self.count = from.signed()?;
        Ok(())
    }
}

export!(Counter as Transform + State);
