//! Each shape as a plugin author meets it, run natively.

use acequia_plugin_sdk::testing::{self, failures, rows_of};
use acequia_plugin_sdk::{
    Aggregate, Batch, Bitmap, Bits, Column, ColumnType, Error, Failure, Field, Filter, Flat, FlatMap, Input, Map,
    NoConfig, Nullable, Output, Packed, Passes, Plan, Reader, Reads, Rows, Schema, Selection, State, Text, Tick,
    Timestamp, Transform, Values, Writer, export,
};

/// Keeps rows whose `name` is no longer than `most`; a null `most` fails the row.
struct Short;

impl Filter for Short {
    type Config = NoConfig;
    type Reads = (String, Option<i64>);

    fn configure(_: NoConfig, _: &Schema) -> Result<Self, Error> {
        Ok(Short)
    }

    fn reads(&self) -> [String; 2] {
        ["name".to_string(), "most".to_string()]
    }

    fn keep(&mut self, rows: &mut Rows, (names, most): (Text<'_>, Nullable<'_, &[i64]>)) -> Bitmap {
        Bitmap::from_fn(rows.len(), |row| match most.get(row) {
            Some(most) => names.get(row).len() as i64 <= most,
            None => {
                rows.fail(row, "no limit");
                true
            }
        })
    }
}

fn nullable_int64(name: &str, values: &[Option<i64>]) -> Column {
    Column {
        name: name.to_string(),
        values: Values::Int64(values.iter().map(|value| value.unwrap_or(-1)).collect()),
        valid: Some(Bitmap::of(values, Option::is_some).into_bytes()),
    }
}

#[test]
fn a_filter_reads_several_columns_and_fails_rows() {
    let mut plugin = testing::filter::<Short>("{}", &testing::any_schema()).unwrap();
    let inputs = [
        Input { name: "name".to_string(), kind: ColumnType::Text, nullable: false },
        Input { name: "most".to_string(), kind: ColumnType::Int64, nullable: true },
    ];
    assert_eq!(plugin.plan().reads, Reads::Columns(inputs.to_vec()));

    let mut batch = testing::batch(4).text("name", ["Ana", "Bo", "Chi", "Dídac"]);
    batch.columns.push(nullable_int64("most", &[Some(3), Some(1), None, Some(6)]));
    let output = plugin.apply(&batch).unwrap();
    assert_eq!(rows_of(&output, 4), [0, 3], "a row that failed is not kept, whatever its bit");
    assert_eq!(failures(&output), [(2, "no limit")]);
}

/// Adds `flag` back to front: its negation, null where `at` is before the epoch.
struct Negate;

impl Map for Negate {
    type Config = NoConfig;
    type Reads = (bool, Timestamp);
    type Adds = (Option<bool>, Vec<u8>);

    fn configure(_: NoConfig, _: &Schema) -> Result<Self, Error> {
        Ok(Negate)
    }

    fn reads(&self) -> [String; 2] {
        ["flag".to_string(), "at".to_string()]
    }

    fn adds(&self) -> [String; 2] {
        ["not".to_string(), "raw".to_string()]
    }

    fn map(&mut self, _: &mut Rows, (flags, at): (Bits<'_>, &[i64])) -> ((Bitmap, Bitmap), Packed) {
        let negated = flags.iter().map(|flag| !flag).collect();
        ((negated, Bitmap::of(at, |at| *at >= 0)), flags.iter().map(|flag| [u8::from(flag)]).collect())
    }
}

#[test]
fn a_map_adds_columns_with_nulls() {
    let mut plugin = testing::map::<Negate>("{}", &testing::any_schema()).unwrap();
    let field = |name: &str, kind, nullable| Field { name: name.to_string(), kind, nullable };
    assert_eq!(plugin.plan().adds, [field("not", ColumnType::Boolean, true), field("raw", ColumnType::Binary, false)]);

    let rows = |at: [i64; 3]| {
        testing::batch(3).with("flag", Values::Boolean(vec![0b101])).with("at", Values::Timestamp(at.to_vec()))
    };
    let output = plugin.apply(&rows([1, 2, -1])).unwrap();
    let raw = Packed { offsets: vec![0, 1, 2, 3], data: vec![1, 0, 1] };
    let expected = [
        Column { name: "not".to_string(), values: Values::Boolean(vec![0b010]), valid: Some(vec![0b011]) },
        Column { name: "raw".to_string(), values: Values::Binary(raw), valid: None },
    ];
    assert_eq!(output, Output::all(expected.to_vec()));
    let output = plugin.apply(&rows([0, 1, 2])).unwrap();
    assert_eq!(output.columns[0].valid, None, "no null, no bitmap");
}

/// Each row once for each of its letters.
struct Letters;

impl FlatMap for Letters {
    type Config = NoConfig;
    type Reads = Option<String>;
    type Adds = String;

    fn configure(_: NoConfig, _: &Schema) -> Result<Self, Error> {
        Ok(Letters)
    }

    fn reads(&self) -> [String; 1] {
        ["word".to_string()]
    }

    fn adds(&self) -> [String; 1] {
        ["letter".to_string()]
    }

    fn passes(&self) -> Passes {
        Passes::Except(self.reads().to_vec())
    }

    fn flat_map(&mut self, rows: &mut Rows, words: Nullable<'_, Text<'_>>) -> Flat<Packed> {
        let mut flat = Flat { from: Vec::new(), columns: Packed::new() };
        for row in 0..rows.len() {
            for letter in words.get(row).unwrap_or_default().chars() {
                flat.from.push(row as u32);
                flat.columns.push(letter.to_string());
            }
        }
        flat
    }
}

#[test]
fn a_flat_map_repeats_rows() {
    let mut plugin = testing::flat_map::<Letters>("{}", &testing::any_schema()).unwrap();
    assert_eq!(plugin.plan().passes, Passes::Except(vec!["word".to_string()]));
    let output =
        plugin.apply(&testing::batch(4).nullable_text("word", [Some("sí"), None, Some(""), Some("o")])).unwrap();
    assert_eq!(rows_of(&output, 4), [0, 0, 3]);
    assert_eq!(output.columns[0].texts(), ["s", "í", "o"]);
}

/// The sum of a column, said after each batch and at each tick.
#[derive(Default)]
struct Sum {
    sum: f64,
}

impl Aggregate for Sum {
    type Config = NoConfig;
    type Reads = f64;
    type Adds = f64;

    fn configure(_: NoConfig, _: &Schema) -> Result<Self, Error> {
        Ok(Sum::default())
    }

    fn reads(&self) -> [String; 1] {
        ["value".to_string()]
    }

    fn adds(&self) -> [String; 1] {
        ["sum".to_string()]
    }

    fn update(&mut self, _: &mut Rows, values: &[f64]) -> (u32, Vec<f64>) {
        self.sum += values.iter().sum::<f64>();
        (1, vec![self.sum])
    }
}

impl State for Sum {
    fn snapshot(&self, out: &mut Writer) {
        out.float(self.sum);
    }

    fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        self.sum = from.float()?;
        Ok(())
    }
}

impl Tick for Sum {
    fn every(&self) -> u64 {
        1000
    }

    fn tick(&mut self, _: i64) -> Result<Output, Error> {
        let column = Column { name: "sum".to_string(), values: Values::Float64(vec![self.sum]), valid: None };
        Ok(Output::fresh(1, vec![column]))
    }
}

export!(Sum as Aggregate + Tick);

#[test]
fn an_aggregate_goes_on_from_a_snapshot() {
    let mut plugin = testing::aggregate::<Sum>("{}", &testing::any_schema()).unwrap();
    assert_eq!(plugin.plan().passes, Passes::Only(Vec::new()));
    let output = plugin.apply(&testing::batch(2).float64("value", [1.5, 2.0])).unwrap();
    assert_eq!((output.rows, output.columns[0].float64s()), (Selection::Fresh(1), &[3.5][..]));

    let snapshot = plugin.snapshot().unwrap();
    let mut plugin = testing::aggregate::<Sum>("{}", &testing::any_schema()).unwrap();
    plugin.restore(&snapshot).unwrap();
    assert_eq!(plugin.tick(0).unwrap().columns[0].float64s(), [3.5]);
    let longer = [snapshot, vec![0]].concat();
    assert_eq!(plugin.restore(&longer), Err("the snapshot has 1 bytes more than were expected".into()));
}

#[test]
fn what_is_not_as_planned_is_refused() {
    let mut plugin = testing::filter::<Short>("{}", &testing::any_schema()).unwrap();
    let no_column = plugin.apply(&testing::batch(1).text("name", ["a"])).unwrap_err();
    assert_eq!(no_column.to_string(), "the test's batch has no column `most`");
    let wrong_type = plugin.apply(&testing::batch(1).int64("name", [1]).int64("most", [1])).unwrap_err();
    assert_eq!(wrong_type.to_string(), "column `name` is int64: the plugin wants text");
    let nulls = plugin.apply(&testing::batch(1).nullable_text("name", [None]).int64("most", [1])).unwrap_err();
    assert_eq!(nulls.to_string(), "column `name` has nulls, which the plan refuses");
    let short = plugin.apply(&testing::batch(2).text("name", ["a"]).int64("most", [1, 1])).unwrap_err();
    assert_eq!(short.to_string(), "column `name`: packed values whose offsets do not fit 2 rows");
}

/// Returns what its configuration says.
struct Says(fn() -> Output);

impl Transform for Says {
    type Config = Which;

    fn configure(config: Which, _: &Schema) -> Result<(Self, Plan), Error> {
        let word = Field { name: "word".to_string(), kind: ColumnType::Text, nullable: false };
        Ok((Says(BAD[config.which].0), Plan { adds: vec![word], ..Plan::pass() }))
    }

    fn apply(&mut self, _: Batch) -> Result<Output, Error> {
        Ok((self.0)())
    }
}

/// Place in [`BAD`].
#[derive(serde::Deserialize)]
struct Which {
    which: usize,
}

fn words(name: &str, words: &[&str]) -> Vec<Column> {
    vec![Column { name: name.to_string(), values: Values::Text(words.iter().collect()), valid: None }]
}

fn failed(rows: &[u32]) -> Vec<Failure> {
    rows.iter().map(|row| Failure { row: *row, message: String::new() }).collect()
}

type Bad = (fn() -> Output, &'static str);

/// Outputs for two rows that break the contract, and what the harness says of them.
const BAD: [Bad; 9] = [
    (|| Output::all(Vec::new()), "0 columns, planned 1"),
    (|| Output::all(words("wrd", &["a", "b"])), "column `wrd` text, planned `word` text"),
    (|| Output::all(words("word", &["a"])), "column `word`: packed values whose offsets do not fit 2 rows"),
    (|| Output::fresh(3, words("word", &["a", "b"])), "column `word`: packed values whose offsets do not fit 3 rows"),
    (
        || Output { rows: Selection::Kept(Vec::new()), ..Output::all(words("word", &["a", "b"])) },
        "a bitmap of 0 bytes for 2 rows",
    ),
    (
        || Output { rows: Selection::Kept(vec![1]), columns: words("word", &["a"]), failed: failed(&[0]) },
        "row 0 is both kept and failed",
    ),
    (
        || Output { rows: Selection::Some(vec![2]), ..Output::all(words("word", &["a"])) },
        "row 2 is in the output, but it failed or there is no such row",
    ),
    (|| Output { failed: failed(&[1, 1]), ..Output::all(words("word", &["a", "b"])) }, "failed rows [1, 1] of 2"),
    (
        || {
            let mut output = Output::all(words("word", &["a", "b"]));
            output.columns[0].valid = Some(vec![1]);
            output
        },
        "column `word` has nulls, planned without",
    ),
];

#[test]
fn an_output_that_breaks_the_contract_is_refused() {
    for (which, (_, message)) in BAD.iter().enumerate() {
        let config = format!(r#"{{ "which": {which} }}"#);
        let mut plugin = testing::transform::<Says>(&config, &testing::any_schema()).unwrap();
        assert_eq!(plugin.apply(&testing::batch(2)).unwrap_err().to_string(), *message);
    }
}
