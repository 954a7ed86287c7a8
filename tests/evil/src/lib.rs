//! A plugin that misbehaves in the way that `mode` names, so that the tests can see the host stand it.
//!
//! It reads an integer column, `column = "value"`. `value` is the number at which `poison` and `fail-row` strike, `size` how
//! many bytes `huge-output` returns in each row.

use std::hint::black_box;

use acequia_plugin_sdk::{
    Batch, Bitmap, Column, ColumnType, Error, Failure, Field, Input, Output, Packed, Plan, Reads, Schema, Selection,
    Transform, Values, export,
};
use serde::Deserialize;

mod random {
    #![allow(missing_docs, reason = "generated")]

    wit_bindgen::generate!({
        inline: "
            package acequia:evil;

            world randomness {
                import wasi:random/random@0.2.12;
            }
        ",
        path: "../../wit/deps/wasi-random",
        generate_all,
    });
}

/// What it does wrong. All but those of `configure` do it in `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    // `configure`
    /// Returns an error.
    ConfigureFails,
    /// Panics.
    ConfigurePanics,
    /// Never returns.
    ConfigureLoops,
    /// Plans to read a column that does not exist.
    PlanUnknownColumn,
    /// Plans to add two columns of one name.
    PlanDuplicate,
    /// Plans ticks without exporting `tick`.
    PlanTick,

    // the guest itself
    /// Never returns.
    Loop,
    /// Allocates without end.
    MemoryBomb,
    /// Keeps `size` bytes more with each batch, and does nothing else wrong.
    Leak,
    /// Calls itself without end, until the host's stack is used up.
    Recursion,
    /// Calls itself without end with much on its own stack, until that is used up.
    LargeFrames,
    /// Executes `unreachable`.
    Trap,
    /// Panics with a message.
    Panic,
    /// Calls an import that it needs a grant for.
    Ungranted,
    /// Traps in a batch that has `value`; lets others pass. For the host's search of the row.
    Poison,
    /// Returns an error.
    ApplyError,
    /// Fails the rows that have `value`; lets others pass.
    FailRow,
    /// Fails every row.
    FailAll,

    // the rows that it returns
    /// A row index past the end.
    RowIndex,
    /// A bitmap that is too short.
    KeptLength,
    /// A bitmap that is too long.
    KeptLong,
    /// A bitmap with bits after the last row.
    KeptTail,
    /// A row both kept and failed.
    KeptFailed,
    /// A row failed twice.
    FailedTwice,
    /// A failed row past the end.
    FailedOutOfRange,
    /// More fresh rows than values.
    FreshMismatch,
    /// So many fresh rows that no one could have them.
    FreshHuge,

    // the columns that it returns; they are named `word`, text
    /// A column with a value too many.
    WrongLength,
    /// Offsets past the end of the data.
    Offsets,
    /// Offsets that decrease.
    OffsetsDecreasing,
    /// Offsets that do not start at 0.
    OffsetsStart,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// Text in which a character is cut in two by an offset.
    CutCharacter,
    /// `size` bytes in each row.
    HugeOutput,
    /// A column that is not planned, in place of the one that is.
    BadName,
    /// A column of another type.
    WrongType,
    /// No column.
    MissingColumn,
    /// A column too many.
    ExtraColumn,
    /// Nulls in a column that was planned without.
    Nulls,
    /// A validity bitmap that is too short.
    ValidLength,
    /// A JSON column with text that is not JSON.
    InvalidJson,
}

/// The `config` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    #[serde(default = "value")]
    column: String,
    #[serde(default)]
    value: i64,
    #[serde(default = "size")]
    size: usize,
}

fn value() -> String {
    "value".to_string()
}

fn size() -> usize {
    1 << 20
}

/// The plugin.
pub struct Evil {
    config: Config,
}

impl Transform for Evil {
    type Config = Config;

    fn configure(config: Config, _: &Schema) -> Result<(Self, Plan), Error> {
        let reads = |name: &str| Input { name: name.to_string(), kind: ColumnType::Int64, nullable: false };
        let adds = |kind| Field { name: "word".to_string(), kind, nullable: false };
        let mut plan = Plan { reads: Reads::Columns(vec![reads(&config.column)]), ..Plan::pass() };
        match config.mode {
            Mode::ConfigureFails => return Err("evil: `mode` says that the configuration is wrong".into()),
            Mode::ConfigurePanics => panic_now(),
            Mode::ConfigureLoops => loop_forever(),
            Mode::PlanUnknownColumn => plan.reads = Reads::Columns(vec![reads("no-such-column")]),
            Mode::PlanDuplicate => plan.adds = vec![adds(ColumnType::Text), adds(ColumnType::Int64)],
            Mode::PlanTick => plan.tick_every = Some(10),
            Mode::InvalidJson => plan.adds = vec![adds(ColumnType::Json)],
            Mode::ValidLength => plan.adds = vec![Field { nullable: true, ..adds(ColumnType::Text) }],
            Mode::WrongLength
            | Mode::Offsets
            | Mode::OffsetsDecreasing
            | Mode::OffsetsStart
            | Mode::InvalidUtf8
            | Mode::CutCharacter
            | Mode::HugeOutput
            | Mode::BadName
            | Mode::WrongType
            | Mode::MissingColumn
            | Mode::ExtraColumn
            | Mode::Nulls
            | Mode::FreshMismatch
            | Mode::FreshHuge => plan.adds = vec![adds(ColumnType::Text)],
            _ => {}
        }
        Ok((Evil { config }, plan))
    }

    fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
        let rows = batch.rows;
        let values = match batch.columns.first() {
            Some(Column { values: Values::Int64(values), .. }) => values.as_slice(),
            _ => &[],
        };
        let strikes: Vec<u32> = (0..rows).filter(|row| values.get(*row as usize) == Some(&self.config.value)).collect();
        match self.config.mode {
            Mode::Loop => loop_forever(),
            Mode::MemoryBomb => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1_u8; 1 << 20]);
                    black_box(&mut hoard);
                }
            }
            Mode::Recursion => {
                black_box(recurse(black_box(0)));
            }
            Mode::LargeFrames => {
                black_box(recurse_with_frames(black_box(0)));
            }
            Mode::Leak => {
                black_box(vec![1_u8; self.config.size].leak());
                return Ok(Output::all(Vec::new()));
            }
            Mode::Trap => std::process::abort(),
            Mode::Panic => panic_now(),
            Mode::Ungranted => {
                black_box(random::wasi::random::random::get_random_bytes(16));
            }
            Mode::Poison if !strikes.is_empty() => std::process::abort(),
            Mode::ApplyError => return Err("evil: this batch is not to my taste".into()),
            Mode::FailRow => return Ok(failing(rows, &strikes)),
            Mode::FailAll => return Ok(failing(rows, &(0..rows).collect::<Vec<_>>())),
            _ => {}
        }
        Ok(self.bad_rows(rows).unwrap_or_else(|| Output::all(self.bad_columns(rows as usize))))
    }
}

impl Evil {
    fn bad_rows(&self, rows: u32) -> Option<Output> {
        let all = Bitmap::all(rows as usize).into_bytes();
        let kept = |bytes| Output { rows: Selection::Kept(bytes), ..Output::all(Vec::new()) };
        Some(match self.config.mode {
            Mode::RowIndex => Output { rows: Selection::Some(vec![0, rows]), ..Output::all(Vec::new()) },
            Mode::KeptLength => kept(all.split_last().map(|(_, short)| short.to_vec()).unwrap_or_default()),
            Mode::KeptLong => kept([all, vec![0]].concat()),
            Mode::KeptTail => kept(vec![0xff; all.len()]),
            Mode::KeptFailed => Output { failed: vec![failure(0)], ..kept(all) },
            Mode::FailedTwice => Output { failed: vec![failure(0), failure(0)], ..Output::all(Vec::new()) },
            Mode::FailedOutOfRange => Output { failed: vec![failure(rows)], ..Output::all(Vec::new()) },
            Mode::FreshMismatch => Output::fresh(rows + 1, vec![good(rows as usize)]),
            Mode::FreshHuge => Output::fresh(u32::MAX, vec![good(rows as usize)]),
            _ => return None,
        })
    }

    fn bad_columns(&self, rows: usize) -> Vec<Column> {
        let mut column = good(rows);
        let Values::Text(packed) = &mut column.values else { return Vec::new() };
        match self.config.mode {
            Mode::WrongLength => packed.push("one too many"),
            Mode::Offsets => {
                if let Some(last) = packed.offsets.last_mut() {
                    *last += 1_000_000;
                }
            }
            Mode::OffsetsDecreasing => {
                if let Some(first) = packed.offsets.first_mut() {
                    *first = 0;
                }
                packed.offsets.reverse();
                packed.offsets.rotate_right(1);
            }
            Mode::OffsetsStart => packed.offsets.iter_mut().for_each(|offset| *offset = (*offset).max(1)),
            Mode::InvalidUtf8 => packed.data.iter_mut().for_each(|byte| *byte = 0xff),
            Mode::CutCharacter => {
                // "ñ" is two bytes: one for row 0, one for row 1.
                packed.data = "ñ".repeat(rows).into_bytes();
                packed.data.truncate(packed.offsets.last().map_or(0, |end| *end as usize));
            }
            Mode::HugeOutput => *packed = (0..rows).map(|_| vec![b'x'; self.config.size]).collect(),
            Mode::BadName => column.name = "not-planned".to_string(),
            Mode::WrongType => column.values = Values::Int64(vec![0; rows]),
            Mode::MissingColumn => return Vec::new(),
            Mode::ExtraColumn => return vec![good(rows), good(rows)],
            Mode::Nulls => column.valid = Some(Bitmap::none(rows).into_bytes()),
            Mode::ValidLength => column.valid = Some(Vec::new()),
            Mode::InvalidJson => column.values = Values::Json((0..rows).map(|_| "{ not json").collect()),
            _ => return Vec::new(),
        }
        vec![column]
    }
}

/// A column as planned: a letter in each row.
fn good(rows: usize) -> Column {
    let letters: Packed = (0..rows).map(|_| "x").collect();
    Column { name: "word".to_string(), values: Values::Text(letters), valid: None }
}

fn failure(row: u32) -> Failure {
    Failure { row, message: "evil: I do not like this row".to_string() }
}

/// Keeps all rows but these.
fn failing(rows: u32, failed: &[u32]) -> Output {
    let kept = Bitmap::from_fn(rows as usize, |row| failed.binary_search(&(row as u32)).is_err());
    Output {
        rows: Selection::Kept(kept.into_bytes()),
        columns: Vec::new(),
        failed: failed.iter().map(|row| failure(*row)).collect(),
    }
}

#[expect(clippy::panic, reason = "what it is for")]
fn panic_now() -> ! {
    panic!("evil: I panic, and this is why")
}

fn loop_forever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Not a tail call, so that it can't be made a loop.
#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + depth
}

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse_with_frames(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse_with_frames(black_box(depth + 1)) + black_box(frame)[(depth % 64) as usize]
}

export!(Evil as Transform);
