use serde::de::DeserializeOwned;

use crate::columns::{BuiltColumns, Columns, Names, Views};
use crate::{Batch, Bitmap, Error, Output, Passes, Plan, Reader, Reads, Rows, Schema, Selection, Writer};

/// Keeps some rows and drops the others.
pub trait Filter: Sized {
    /// The `config` table of the pipeline.
    type Config: DeserializeOwned;
    /// The types of the columns that it reads.
    type Reads: Columns;

    /// Called once, before everything else. `schema` is what is known of the rows.
    ///
    /// # Errors
    /// Stop the pipeline's start: say which key is wrong and what would be right.
    fn configure(config: Self::Config, schema: &Schema) -> Result<Self, Error>;

    /// The names of the columns that it reads.
    fn reads(&self) -> Names<Self::Reads>;

    /// A bit for each row: 1 keeps it. Rows that were failed are dropped whatever their bit.
    fn keep(&mut self, rows: &mut Rows, columns: Views<'_, Self::Reads>) -> Bitmap;
}

/// Adds columns to rows, or replaces columns.
pub trait Map: Sized {
    /// The `config` table of the pipeline.
    type Config: DeserializeOwned;
    /// The types of the columns that it reads.
    type Reads: Columns;
    /// The types of the columns that it adds.
    type Adds: Columns;

    /// As [`Filter::configure`].
    ///
    /// # Errors
    /// As [`Filter::configure`].
    fn configure(config: Self::Config, schema: &Schema) -> Result<Self, Error>;

    /// The names of the columns that it reads.
    fn reads(&self) -> Names<Self::Reads>;

    /// The names of the columns that it adds. One that rows have already is replaced.
    fn adds(&self) -> Names<Self::Adds>;

    /// Which of the input's columns stay: all of them.
    fn passes(&self) -> Passes {
        Passes::Every
    }

    /// The added columns, with a value for each row, also for those that were failed.
    fn map(&mut self, rows: &mut Rows, columns: Views<'_, Self::Reads>) -> BuiltColumns<Self::Adds>;
}

/// What a [`FlatMap`] makes of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Flat<Built> {
    /// For each output row, the input row that it comes from. In any order, each as often as needed; none that was failed.
    pub from: Vec<u32>,
    /// The added columns, with a value for each output row.
    pub columns: Built,
}

/// Makes any number of rows of each row.
pub trait FlatMap: Sized {
    /// The `config` table of the pipeline.
    type Config: DeserializeOwned;
    /// The types of the columns that it reads.
    type Reads: Columns;
    /// The types of the columns that it adds.
    type Adds: Columns;

    /// As [`Filter::configure`].
    ///
    /// # Errors
    /// As [`Filter::configure`].
    fn configure(config: Self::Config, schema: &Schema) -> Result<Self, Error>;

    /// The names of the columns that it reads.
    fn reads(&self) -> Names<Self::Reads>;

    /// The names of the columns that it adds. One that rows have already is replaced.
    fn adds(&self) -> Names<Self::Adds>;

    /// Which of the input's columns stay: all of them.
    fn passes(&self) -> Passes {
        Passes::Every
    }

    /// The output rows.
    fn flat_map(&mut self, rows: &mut Rows, columns: Views<'_, Self::Reads>) -> Flat<BuiltColumns<Self::Adds>>;
}

/// Keeps a result up to date, and says after each batch what it has become. The output has only the added columns.
pub trait Aggregate: State + Sized {
    /// The `config` table of the pipeline.
    type Config: DeserializeOwned;
    /// The types of the columns that it reads.
    type Reads: Columns;
    /// The types of the output's columns.
    type Adds: Columns;

    /// As [`Filter::configure`].
    ///
    /// # Errors
    /// As [`Filter::configure`].
    fn configure(config: Self::Config, schema: &Schema) -> Result<Self, Error>;

    /// The names of the columns that it reads.
    fn reads(&self) -> Names<Self::Reads>;

    /// The names of the output's columns.
    fn adds(&self) -> Names<Self::Adds>;

    /// Takes rows in. The output: how many rows, and their columns. Nothing of a row that is failed may be taken in.
    fn update(&mut self, rows: &mut Rows, columns: Views<'_, Self::Reads>) -> (u32, BuiltColumns<Self::Adds>);
}

/// What every plugin is to the host. The other shapes are easier; this one can do all that the contract can.
pub trait Transform: Sized {
    /// The `config` table of the pipeline.
    type Config: DeserializeOwned;

    /// Called once, before everything else. `schema` is what is known of the rows.
    ///
    /// # Errors
    /// Stop the pipeline's start: say which key is wrong and what would be right.
    fn configure(config: Self::Config, schema: &Schema) -> Result<(Self, Plan), Error>;

    /// Called for each batch, with the columns that the plan reads.
    ///
    /// # Errors
    /// Fail the whole batch. For single rows use `failed` of the output.
    fn apply(&mut self, batch: Batch) -> Result<Output, Error>;
}

/// Something kept between batches. It is stored at every checkpoint, together with the source's position.
pub trait State {
    /// Writes all that is needed to go on. Begin with a version number: the next release may have to read it.
    fn snapshot(&self, out: &mut Writer);

    /// Called after `configure` and before the first batch with what `snapshot` wrote, perhaps long ago by an older version
    /// or under another configuration.
    ///
    /// # Errors
    /// It can't be understood. Bytes that are left over are an error too.
    fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), Error>;
}

/// Something to do as time passes, with or without rows.
pub trait Tick {
    /// Milliseconds between two calls.
    fn every(&self) -> u64;

    /// `now` in microseconds since the epoch, UTC. The output's rows are new ones: see [`Output::fresh`].
    ///
    /// # Errors
    /// Count as a failed call.
    fn tick(&mut self, now: i64) -> Result<Output, Error>;
}

impl Plan {
    /// Reads nothing, adds nothing, lets every column pass.
    pub fn pass() -> Plan {
        Plan {
            reads: Reads::Columns(Vec::new()),
            adds: Vec::new(),
            passes: Passes::Every,
            moves: Vec::new(),
            tick_every: None,
        }
    }
}

/// Each shape as a [`Transform`], under the name that `export!` is given.
#[doc(hidden)]
pub mod adapters {
    use super::*;

    pub struct Filter<P>(pub P);

    impl<P: super::Filter> super::Transform for Filter<P> {
        type Config = P::Config;

        fn configure(config: Self::Config, schema: &Schema) -> Result<(Self, Plan), Error> {
            let plugin = P::configure(config, schema)?;
            let plan = Plan { reads: Reads::Columns(P::Reads::inputs(plugin.reads())), ..Plan::pass() };
            Ok((Filter(plugin), plan))
        }

        fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
            let mut rows = Rows::new(batch.rows);
            let views = P::Reads::views(&batch.columns, rows.len())?;
            let mut kept = self.0.keep(&mut rows, views);
            if kept.len() != rows.len() {
                return Err(Error::new(format!("the filter gave {} bits for {} rows", kept.len(), rows.len())));
            }
            let failed = rows.finish()?;
            for failure in &failed {
                kept.set(failure.row as usize, false);
            }
            Ok(Output { rows: Selection::Kept(kept.into_bytes()), columns: Vec::new(), failed })
        }
    }

    pub struct Map<P> {
        plugin: P,
        adds: Vec<crate::Field>,
    }

    impl<P: super::Map> super::Transform for Map<P> {
        type Config = P::Config;

        fn configure(config: Self::Config, schema: &Schema) -> Result<(Self, Plan), Error> {
            let plugin = P::configure(config, schema)?;
            let adds = P::Adds::fields(plugin.adds());
            let plan = Plan {
                reads: Reads::Columns(P::Reads::inputs(plugin.reads())),
                adds: adds.clone(),
                passes: plugin.passes(),
                ..Plan::pass()
            };
            Ok((Map { plugin, adds }, plan))
        }

        fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
            let mut rows = Rows::new(batch.rows);
            let views = P::Reads::views(&batch.columns, rows.len())?;
            let built = self.plugin.map(&mut rows, views);
            Ok(Output { rows: Selection::All, columns: P::Adds::build(&self.adds, built), failed: rows.finish()? })
        }
    }

    pub struct FlatMap<P> {
        plugin: P,
        adds: Vec<crate::Field>,
    }

    impl<P: super::FlatMap> super::Transform for FlatMap<P> {
        type Config = P::Config;

        fn configure(config: Self::Config, schema: &Schema) -> Result<(Self, Plan), Error> {
            let plugin = P::configure(config, schema)?;
            let adds = P::Adds::fields(plugin.adds());
            let plan = Plan {
                reads: Reads::Columns(P::Reads::inputs(plugin.reads())),
                adds: adds.clone(),
                passes: plugin.passes(),
                ..Plan::pass()
            };
            Ok((FlatMap { plugin, adds }, plan))
        }

        fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
            let mut rows = Rows::new(batch.rows);
            let views = P::Reads::views(&batch.columns, rows.len())?;
            let flat = self.plugin.flat_map(&mut rows, views);
            let columns = P::Adds::build(&self.adds, flat.columns);
            Ok(Output { rows: Selection::Some(flat.from), columns, failed: rows.finish()? })
        }
    }

    pub struct Aggregate<P> {
        plugin: P,
        adds: Vec<crate::Field>,
    }

    impl<P: super::Aggregate> super::Transform for Aggregate<P> {
        type Config = P::Config;

        fn configure(config: Self::Config, schema: &Schema) -> Result<(Self, Plan), Error> {
            let plugin = P::configure(config, schema)?;
            let adds = P::Adds::fields(plugin.adds());
            let plan = Plan {
                reads: Reads::Columns(P::Reads::inputs(plugin.reads())),
                adds: adds.clone(),
                passes: Passes::Only(Vec::new()),
                ..Plan::pass()
            };
            Ok((Aggregate { plugin, adds }, plan))
        }

        fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
            let mut rows = Rows::new(batch.rows);
            let views = P::Reads::views(&batch.columns, rows.len())?;
            let (fresh, built) = self.plugin.update(&mut rows, views);
            let columns = P::Adds::build(&self.adds, built);
            Ok(Output { rows: Selection::Fresh(fresh), columns, failed: rows.finish()? })
        }
    }

    pub type Transform<P> = P;

    macro_rules! pass_on {
        ($($adapter:ident $field:tt),*) => {$(
            impl<P: State> State for $adapter<P> {
                fn snapshot(&self, out: &mut Writer) {
                    self.$field.snapshot(out);
                }

                fn restore(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
                    self.$field.restore(from)
                }
            }

            impl<P: Tick> Tick for $adapter<P> {
                fn every(&self) -> u64 {
                    self.$field.every()
                }

                fn tick(&mut self, now: i64) -> Result<Output, Error> {
                    self.$field.tick(now)
                }
            }
        )*};
    }

    pass_on!(Filter 0, Map plugin, FlatMap plugin, Aggregate plugin);
}
