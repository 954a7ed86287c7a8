//! A plugin that acts on time, for the tests: it swallows its rows, and at every tick says in one row how many came since
//! the last (`rows`) and when that was (`now`). `mode` makes it misbehave.

use acequia_plugin_sdk::{
    Batch, Column, ColumnType, Error, Field, Output, Passes, Plan, Schema, Selection, Tick, Transform, Values, export,
};
use serde::Deserialize;

/// What it does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: it counts.
    #[default]
    Count,
    /// Returns an error.
    Fails,
    /// Traps.
    Traps,
    /// Never returns.
    Loops,
    /// Returns rows that are not `fresh`.
    NotFresh,
}

/// The `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    /// Milliseconds.
    every: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config { mode: Mode::Count, every: 10 }
    }
}

/// The plugin.
pub struct Ticker {
    config: Config,
    rows: i64,
}

impl Transform for Ticker {
    type Config = Config;

    fn configure(config: Config, _: &Schema) -> Result<(Self, Plan), Error> {
        let field = |name: &str, kind| Field { name: name.to_string(), kind, nullable: false };
        let adds = vec![field("rows", ColumnType::Int64), field("now", ColumnType::Timestamp)];
        Ok((Ticker { config, rows: 0 }, Plan { adds, passes: Passes::Only(Vec::new()), ..Plan::pass() }))
    }

    fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
        self.rows += i64::from(batch.rows);
        Ok(Output::fresh(0, columns(&[], &[])))
    }
}

impl Tick for Ticker {
    fn every(&self) -> u64 {
        self.config.every
    }

    fn tick(&mut self, now: i64) -> Result<Output, Error> {
        match self.config.mode {
            Mode::Count => {}
            Mode::Fails => return Err("evil: not now".into()),
            Mode::Traps => std::process::abort(),
            Mode::Loops => loop {
                std::hint::black_box(());
            },
            Mode::NotFresh => {
                return Ok(Output { rows: Selection::Some(vec![0]), ..Output::fresh(1, columns(&[0], &[now])) });
            }
        }
        let rows = std::mem::take(&mut self.rows);
        Ok(Output::fresh(1, columns(&[rows], &[now])))
    }
}

fn columns(rows: &[i64], now: &[i64]) -> Vec<Column> {
    let column = |name: &str, values| Column { name: name.to_string(), values, valid: None };
    vec![column("rows", Values::Int64(rows.to_vec())), column("now", Values::Timestamp(now.to_vec()))]
}

export!(Ticker as Transform + Tick);
