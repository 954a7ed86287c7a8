//! Runs a plugin natively: configured and called as the host does it, and what it returns held to the contract.
//!
//! ```
//! use acequia_plugin_sdk::{Output, testing};
//! # use acequia_plugin_sdk::{Bitmap, Error, Filter, NoConfig, Rows, Schema};
//! # struct Positive;
//! # impl Filter for Positive {
//! #     type Config = NoConfig;
//! #     type Reads = i64;
//! #     fn configure(_: NoConfig, _: &Schema) -> Result<Self, Error> { Ok(Positive) }
//! #     fn reads(&self) -> [String; 1] { ["value".to_string()] }
//! #     fn keep(&mut self, _: &mut Rows, values: &[i64]) -> Bitmap { Bitmap::of(values, |value| *value > 0) }
//! # }
//!
//! let mut plugin = testing::filter::<Positive>("{}", &testing::any_schema()).unwrap();
//! let output = plugin.apply(&testing::batch(3).int64("value", [5, -1, 7])).unwrap();
//! assert_eq!(testing::rows_of(&output, 3), [0, 2]);
//! ```

use crate::bitmap::bit;
use crate::export::Instance;
use crate::shapes::adapters;
use crate::{
    Aggregate, Batch, Bitmap, Column, ColumnType, Error, Field, Filter, FlatMap, Map, Output, Packed, Plan, Reads,
    Schema, Selection, State, Tick, Transform, Values,
};

/// A configured plugin.
pub struct Runner<P> {
    instance: Instance<P>,
    plan: Plan,
}

/// Configures a [`Filter`] with a JSON object.
///
/// # Errors
/// The configuration's.
pub fn filter<P: Filter>(config: &str, schema: &Schema) -> Result<Runner<adapters::Filter<P>>, Error> {
    Runner::new(config, schema)
}

/// Configures a [`Map`] with a JSON object.
///
/// # Errors
/// The configuration's.
pub fn map<P: Map>(config: &str, schema: &Schema) -> Result<Runner<adapters::Map<P>>, Error> {
    Runner::new(config, schema)
}

/// Configures a [`FlatMap`] with a JSON object.
///
/// # Errors
/// The configuration's.
pub fn flat_map<P: FlatMap>(config: &str, schema: &Schema) -> Result<Runner<adapters::FlatMap<P>>, Error> {
    Runner::new(config, schema)
}

/// Configures an [`Aggregate`] with a JSON object.
///
/// # Errors
/// The configuration's.
pub fn aggregate<P: Aggregate>(config: &str, schema: &Schema) -> Result<Runner<adapters::Aggregate<P>>, Error> {
    Runner::new(config, schema)
}

/// Configures a [`Transform`] with a JSON object.
///
/// # Errors
/// The configuration's.
pub fn transform<P: Transform>(config: &str, schema: &Schema) -> Result<Runner<P>, Error> {
    Runner::new(config, schema)
}

impl<P: Transform> Runner<P> {
    fn new(config: &str, schema: &Schema) -> Result<Self, Error> {
        let instance = Instance::new();
        let plan = instance.configure(config, schema)?;
        Ok(Runner { instance, plan })
    }

    /// What the plugin said of itself.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Applies it to rows, of which it gets the columns that it asked for.
    ///
    /// # Errors
    /// The plugin's, and what the host would say of rows or of an output that are not as the contract says.
    pub fn apply(&mut self, batch: &Batch) -> Result<Output, Error> {
        let output = self.instance.apply(self.project(batch)?)?;
        check(&self.plan, &output, batch.rows as usize)?;
        Ok(output)
    }

    /// Its state.
    ///
    /// # Errors
    /// None once it is configured.
    pub fn snapshot(&self) -> Result<Vec<u8>, Error>
    where
        P: State,
    {
        self.instance.snapshot()
    }

    /// Gives it a state.
    ///
    /// # Errors
    /// The plugin's, and bytes left over.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), Error>
    where
        P: State,
    {
        self.instance.restore(snapshot)
    }

    /// Time has passed: `now` in microseconds since the epoch.
    ///
    /// # Errors
    /// The plugin's.
    pub fn tick(&mut self, now: i64) -> Result<Output, Error>
    where
        P: Tick,
    {
        self.instance.tick(now)
    }

    fn project(&self, batch: &Batch) -> Result<Batch, Error> {
        let Reads::Columns(inputs) = &self.plan.reads else { return Ok(batch.clone()) };
        let mut columns = Vec::new();
        for input in inputs {
            let column = batch.columns.iter().find(|column| column.name == input.name);
            let Some(column) = column else {
                return Err(Error::new(format!("the test's batch has no column `{}`", input.name)));
            };
            if column.values.kind() != input.kind {
                let (is, wanted) = (column.values.kind().name(), input.kind.name());
                return Err(Error::new(format!("column `{}` is {is}: the plugin wants {wanted}", input.name)));
            }
            columns.push(column.clone());
        }
        Ok(Batch { rows: batch.rows, columns })
    }
}

/// Which input rows are in the output, in its order; empty for rows that come from none.
pub fn rows_of(output: &Output, rows: u32) -> Vec<u32> {
    match &output.rows {
        Selection::All => (0..rows).collect(),
        Selection::Kept(kept) => (0..rows).filter(|row| bit(kept, *row as usize)).collect(),
        Selection::Some(from) => from.clone(),
        Selection::Fresh(_) => Vec::new(),
    }
}

/// The rows that failed, with their messages.
pub fn failures(output: &Output) -> Vec<(u32, &str)> {
    output.failed.iter().map(|failure| (failure.row, failure.message.as_str())).collect()
}

/// A schema of which nothing is known: rows may bring any column.
pub fn any_schema() -> Schema {
    Schema { fields: Vec::new(), open: true }
}

/// A schema of exactly these columns, none nullable.
pub fn schema(fields: &[(&str, ColumnType)]) -> Schema {
    let field = |(name, kind): &(&str, ColumnType)| Field { name: name.to_string(), kind: *kind, nullable: false };
    Schema { fields: fields.iter().map(field).collect(), open: false }
}

/// So many rows, without columns yet.
pub fn batch(rows: u32) -> Batch {
    Batch { rows, columns: Vec::new() }
}

impl Batch {
    /// With another column.
    pub fn with(mut self, name: &str, values: Values) -> Self {
        self.columns.push(Column { name: name.to_string(), values, valid: None });
        self
    }

    /// With another column of integers.
    pub fn int64(self, name: &str, values: impl IntoIterator<Item = i64>) -> Self {
        self.with(name, Values::Int64(values.into_iter().collect()))
    }

    /// With another column of doubles.
    pub fn float64(self, name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        self.with(name, Values::Float64(values.into_iter().collect()))
    }

    /// With another column of text.
    pub fn text<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.with(name, Values::Text(values.into_iter().collect()))
    }

    /// With another column of text in which values are missing.
    pub fn nullable_text<'a>(mut self, name: &str, values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        let valid = Bitmap::of(&values, Option::is_some);
        let packed: Packed = values.iter().map(|value| value.unwrap_or_default()).collect();
        self.columns.push(Column {
            name: name.to_string(),
            values: Values::Text(packed),
            valid: Some(valid.into_bytes()),
        });
        self
    }
}

impl Column {
    /// The values of a column of integers or timestamps; empty for another type.
    pub fn int64s(&self) -> &[i64] {
        match &self.values {
            Values::Int64(values) | Values::Timestamp(values) => values,
            _ => &[],
        }
    }

    /// The values of a column of doubles; empty for another type.
    pub fn float64s(&self) -> &[f64] {
        match &self.values {
            Values::Float64(values) => values,
            _ => &[],
        }
    }

    /// The values of a column of text or JSON, a null as an empty text; empty for another type.
    pub fn texts(&self) -> Vec<&str> {
        match &self.values {
            Values::Text(packed) | Values::Json(packed) => {
                crate::Text::new(packed, packed.len()).map(|text| text.iter().collect()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

/// What the host checks of an output.
fn check(plan: &Plan, output: &Output, rows: usize) -> Result<(), Error> {
    let failed: Vec<usize> = output.failed.iter().map(|failure| failure.row as usize).collect();
    if !failed.is_sorted_by(|a, b| a < b) || failed.last().is_some_and(|row| *row >= rows) {
        return Err(Error::new(format!("failed rows {failed:?} of {rows}")));
    }
    let out = match &output.rows {
        Selection::All => rows,
        Selection::Fresh(fresh) => *fresh as usize,
        Selection::Kept(kept) => {
            let Some(kept) = Bitmap::from_bytes(kept.clone(), rows) else {
                return Err(Error::new(format!("a bitmap of {} bytes for {rows} rows", kept.len())));
            };
            if let Some(row) = failed.iter().find(|row| kept.get(**row)) {
                return Err(Error::new(format!("row {row} is both kept and failed")));
            }
            (0..rows).filter(|row| kept.get(*row)).count()
        }
        Selection::Some(from) => {
            if let Some(row) = from.iter().find(|row| **row as usize >= rows || failed.contains(&(**row as usize))) {
                return Err(Error::new(format!("row {row} is in the output, but it failed or there is no such row")));
            }
            from.len()
        }
    };
    if output.columns.len() != plan.adds.len() {
        return Err(Error::new(format!("{} columns, planned {}", output.columns.len(), plan.adds.len())));
    }
    for (column, field) in output.columns.iter().zip(&plan.adds) {
        check_column(column, field, out)?;
    }
    Ok(())
}

fn check_column(column: &Column, field: &Field, rows: usize) -> Result<(), Error> {
    let is = column.values.kind();
    if column.name != field.name || is != field.kind {
        let (name, kind) = (&column.name, is.name());
        return Err(Error::new(format!("column `{name}` {kind}, planned `{}` {}", field.name, field.kind.name())));
    }
    let checked = match &column.values {
        Values::Boolean(bytes) => crate::Bits::new(bytes, rows).map(drop),
        Values::Int64(values) | Values::Timestamp(values) => check_len(values, rows),
        Values::Float64(values) => check_len(values, rows),
        Values::Text(packed) | Values::Json(packed) => crate::Text::new(packed, rows).map(drop),
        Values::Binary(packed) => crate::Binary::new(packed, rows).map(drop),
    };
    checked.map_err(|error| Error::new(format!("column `{}`: {error}", column.name)))?;
    match &column.valid {
        Some(_) if !field.nullable => Err(Error::new(format!("column `{}` has nulls, planned without", column.name))),
        Some(valid) => crate::Bits::new(valid, rows).map(drop),
        None => Ok(()),
    }
}

fn check_len<T>(values: &[T], rows: usize) -> Result<(), Error> {
    if values.len() == rows { Ok(()) } else { Err(Error::new(format!("{} values for {rows} rows", values.len()))) }
}
