//! A plugin's plan: what it reads, what it adds, what passes by it. Checked against what is known of the rows, and laid
//! out for the columns that a batch really has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{ColumnType, Field, RowSchema, column_type_of};
use acequia_format::can_cast;
use arrow_schema::{Schema, SchemaRef};

use super::bindings::transform;
use super::instance::from_guest_type;

/// A column that the guest reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) kind: ColumnType,
    pub(crate) nullable: bool,
}

/// An input column that the output has under another name or as another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) kind: Option<ColumnType>,
}

/// Which input columns are in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    Every,
    Only(Vec<String>),
    Except(Vec<String>),
}

/// `transform.plan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// None: every column, as it is.
    pub(crate) reads: Option<Vec<Input>>,
    pub(crate) adds: Vec<Field>,
    pub(crate) passes: Passes,
    pub(crate) moves: Vec<Move>,
    pub(crate) tick_every: Option<Duration>,
}

/// Where a column of the output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The input column of that index.
    Pass(usize),
    /// The input column of the first index, moved by `moves` of the second.
    Move(usize, usize),
    /// The column of that index in `adds`.
    Add(usize),
}

impl From<transform::Plan> for Plan {
    fn from(plan: transform::Plan) -> Self {
        let reads = match plan.reads {
            transform::Reads::Every => None,
            transform::Reads::Columns(inputs) => Some(
                inputs
                    .into_iter()
                    .map(|input| Input {
                        name: input.name,
                        kind: from_guest_type(input.kind),
                        nullable: input.nullable,
                    })
                    .collect(),
            ),
        };
        let adds =
            plan.adds.into_iter().map(|field| Field::new(field.name, from_guest_type(field.kind), field.nullable));
        let passes = match plan.passes {
            transform::Passes::Every => Passes::Every,
            transform::Passes::Only(names) => Passes::Only(names),
            transform::Passes::Except(names) => Passes::Except(names),
        };
        let moves = plan.moves.into_iter().map(|moved| Move {
            source: moved.source,
            name: moved.name,
            kind: moved.kind.map(from_guest_type),
        });
        Plan {
            reads,
            adds: adds.collect(),
            passes,
            moves: moves.collect(),
            tick_every: plan.tick_every.map(Duration::from_millis),
        }
    }
}

impl Plan {
    /// Whether the plan holds together and fits the rows.
    ///
    /// # Errors
    /// Says which column is wrong, and which there are.
    pub(crate) fn check(&self, input: &RowSchema, ticking: bool) -> Result<(), String> {
        let reads = self.reads.as_deref().unwrap_or_default();
        no_twins(reads.iter().map(|read| read.name.as_str()), "the plugin reads `{}` twice")?;
        no_twins(self.adds.iter().map(|field| field.name.as_str()), "the plugin adds `{}` twice")?;
        if self.adds.iter().any(|field| field.name.is_empty()) || self.moves.iter().any(|moved| moved.name.is_empty()) {
            return Err("the plugin wants a column without a name: give it one in its config".to_owned());
        }
        if !input.open {
            let passes = match &self.passes {
                Passes::Every => &[][..],
                Passes::Only(names) | Passes::Except(names) => names,
            };
            let names = reads.iter().map(|read| &read.name).chain(passes);
            for name in names.chain(self.moves.iter().map(|moved| &moved.source)) {
                if input.field(name).is_none() {
                    return Err(no_such_column(name, input.fields.iter().map(|field| field.name.as_str())));
                }
            }
        }
        let casts = reads.iter().map(|read| (&read.name, read.kind));
        let casts = casts.chain(self.moves.iter().filter_map(|moved| Some((&moved.source, moved.kind?))));
        for (name, kind) in casts {
            if let Some(field) = input.field(name)
                && !can_cast(field.kind, kind)
            {
                return Err(format!(
                    "column `{name}` is {}, and no such value can be cast to {kind}, as the plugin wants it",
                    field.kind
                ));
            }
        }
        match self.tick_every {
            Some(_) if !ticking => {
                return Err("the plugin wants to be called in time, but does not export `tick`".to_owned());
            }
            Some(Duration::ZERO) => return Err("the plugin wants to be called every 0 ms: at least 1".to_owned()),
            _ => {}
        }
        self.arrange(input.fields.iter().map(|field| field.name.as_str())).map(|_| ())
    }

    /// The columns of the output, for an input with these columns: each input column at its place, moved or replaced
    /// there, and new columns behind.
    ///
    /// # Errors
    /// If two columns would have the same name.
    pub(crate) fn arrange<'a>(&'a self, input: impl Iterator<Item = &'a str>) -> Result<Vec<Slot>, String> {
        let mut slots = Vec::new();
        let mut names = Vec::new();
        let mut added = vec![false; self.adds.len()];
        for (index, name) in input.enumerate() {
            let before = slots.len();
            for (number, moved) in self.moves.iter().enumerate().filter(|(_, moved)| moved.source == name) {
                slots.push(Slot::Move(index, number));
                names.push(moved.name.as_str());
            }
            if slots.len() > before {
                continue;
            }
            if let Some(add) = self.adds.iter().position(|field| field.name == name)
                && let Some(added) = added.get_mut(add)
            {
                *added = true;
                slots.push(Slot::Add(add));
                names.push(name);
                continue;
            }
            if self.passes(name) {
                slots.push(Slot::Pass(index));
                names.push(name);
            }
        }
        for (add, field) in self.adds.iter().enumerate() {
            if !added.get(add).copied().unwrap_or(false) {
                slots.push(Slot::Add(add));
                names.push(&field.name);
            }
        }
        no_twins(names.into_iter(), "two columns of the output would have the name `{}`: rename or drop one")?;
        Ok(slots)
    }

    fn passes(&self, name: &str) -> bool {
        match &self.passes {
            Passes::Every => true,
            Passes::Only(names) => names.iter().any(|only| only == name),
            Passes::Except(names) => !names.iter().any(|except| except == name),
        }
    }

    /// Whether each row that comes out is one that came in, as it was.
    pub(crate) fn changes_nothing(&self) -> bool {
        let every = match &self.passes {
            Passes::Every => true,
            Passes::Except(names) => names.is_empty(),
            Passes::Only(_) => false,
        };
        every && self.adds.is_empty() && self.moves.is_empty()
    }

    /// The columns that the guest reads; `None`: every column.
    pub(crate) fn reads_columns(&self) -> Option<impl Iterator<Item = &str>> {
        Some(self.reads.as_ref()?.iter().map(|read| read.name.as_str()))
    }

    /// The input columns that can be in the output under this name. One that the guest adds may replace one of the input.
    pub(crate) fn sources_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let moved = self.moves.iter().filter(move |moved| moved.name == name).map(|moved| moved.source.as_str());
        moved.chain(self.passes(name).then_some(name))
    }

    /// The input columns that the output is made from; `None`: it can't be told which.
    pub(crate) fn all_sources(&self) -> Option<impl Iterator<Item = &str>> {
        let Passes::Only(names) = &self.passes else { return None };
        Some(names.iter().map(String::as_str).chain(self.moves.iter().map(|moved| moved.source.as_str())))
    }

    /// What is known of the output's rows.
    ///
    /// # Errors
    /// See [`Plan::arrange`].
    pub(crate) fn output(&self, input: &RowSchema) -> Result<RowSchema, String> {
        let slots = self.arrange(input.fields.iter().map(|field| field.name.as_str()))?;
        let fields = slots.iter().filter_map(|slot| match slot {
            Slot::Pass(index) => input.fields.get(*index).cloned(),
            Slot::Move(index, number) => {
                let (field, moved) = (input.fields.get(*index)?, self.moves.get(*number)?);
                Some(Field::new(&moved.name, moved.kind.unwrap_or(field.kind), field.nullable))
            }
            Slot::Add(add) => self.adds.get(*add).cloned(),
        });
        let is_unknown = |name: &String| input.field(name).is_none();
        // Of an open input more may pass than is listed, unless the plan says exactly what passes.
        let more_may_pass = match &self.passes {
            Passes::Every | Passes::Except(_) => true,
            Passes::Only(names) => names.iter().any(is_unknown),
        };
        let open = input.open && (more_may_pass || self.moves.iter().any(|moved| is_unknown(&moved.source)));
        Ok(RowSchema { fields: fields.collect(), open })
    }
}

fn no_twins<'a>(names: impl Iterator<Item = &'a str>, message: &str) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(message.replace("{}", name));
        }
    }
    Ok(())
}

/// ``there is no column `valeu` (did you mean `value`?); there are: `value`, `timestamp` ``
pub(crate) fn no_such_column<'a>(name: &str, there: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = there.clone().map(|other| (strsim::damerau_levenshtein(name, other), other)).min();
    let mut message = format!("there is no column `{name}`");
    if let Some((distance, other)) = near
        && distance <= name.chars().count().max(3) / 3 + 1
    {
        message.push_str(&format!(" (did you mean `{other}`?)"));
    }
    let names: Vec<String> = there.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        message.push_str("; the rows have no columns at all");
    } else {
        message.push_str(&format!("; there are: {}", names.join(", ")));
    }
    message
}

/// A plan laid out for the columns that a batch has.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The schema that it was made for.
    pub(crate) input: SchemaRef,
    /// What the guest reads, in order.
    pub(crate) reads: Vec<Read>,
    /// Input columns that are cast before they are moved, in order.
    pub(crate) casts: Vec<MoveCast>,
    /// The output's columns.
    pub(crate) slots: Vec<Place>,
    /// The output's schema.
    pub(crate) output: SchemaRef,
}

/// A column that the guest reads.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) name: String,
    /// Index and type in the batch; None: the batch does not have it.
    pub(crate) from: Option<(usize, ColumnType)>,
    pub(crate) kind: ColumnType,
    pub(crate) nullable: bool,
}

/// A column that is cast before it is moved.
#[derive(Debug)]
pub(crate) struct MoveCast {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) from: ColumnType,
    pub(crate) to: ColumnType,
}

/// Where a column of the output is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the batch.
    Input(usize),
    /// Among the casts.
    Cast(usize),
    /// Among those that the guest returned.
    Add(usize),
}

impl Layout {
    /// Lay a plan out.
    ///
    /// # Errors
    /// If two columns of the output would have the same name.
    pub(crate) fn new(plan: &Plan, input: &SchemaRef) -> Result<Self, String> {
        let kind_of = |index: usize| column_type_of(input.field(index)).unwrap_or(ColumnType::Text);
        let find = |name: &str| input.index_of(name).ok();
        let reads = match &plan.reads {
            Some(reads) => reads
                .iter()
                .map(|read| Read {
                    name: read.name.clone(),
                    from: find(&read.name).map(|index| (index, kind_of(index))),
                    kind: read.kind,
                    nullable: read.nullable,
                })
                .collect(),
            None => (0..input.fields().len())
                .map(|index| Read {
                    name: input.field(index).name().clone(),
                    from: Some((index, kind_of(index))),
                    kind: kind_of(index),
                    nullable: true,
                })
                .collect(),
        };
        let mut casts = Vec::new();
        let mut fields = Vec::new();
        let mut slots = Vec::new();
        for slot in plan.arrange(input.fields().iter().map(|field| field.name().as_str()))? {
            match slot {
                Slot::Pass(index) => {
                    fields.push(input.field(index).clone());
                    slots.push(Place::Input(index));
                }
                Slot::Move(index, number) => {
                    let Some(moved) = plan.moves.get(number) else { continue };
                    let (from, nullable) = (kind_of(index), input.field(index).is_nullable());
                    let to = moved.kind.unwrap_or(from);
                    fields.push(to.arrow_field(&moved.name, nullable));
                    if to == from {
                        slots.push(Place::Input(index));
                    } else {
                        slots.push(Place::Cast(casts.len()));
                        casts.push(MoveCast { index, name: input.field(index).name().clone(), from, to });
                    }
                }
                Slot::Add(add) => {
                    let Some(field) = plan.adds.get(add) else { continue };
                    fields.push(field.kind.arrow_field(&field.name, field.nullable));
                    slots.push(Place::Add(add));
                }
            }
        }
        Ok(Layout { input: input.clone(), reads, casts, slots, output: Arc::new(Schema::new(fields)) })
    }

    /// The same with the added columns only: the rows of an aggregate.
    pub(crate) fn fresh(&self) -> (SchemaRef, Vec<Place>) {
        let of_fresh = |place: &Place| matches!(place, Place::Add(_));
        let fields: Vec<_> = self.output.fields().iter().zip(&self.slots).filter(|(_, slot)| of_fresh(slot)).collect();
        let schema = Schema::new(fields.into_iter().map(|(field, _)| field.clone()).collect::<Vec<_>>());
        (Arc::new(schema), self.slots.iter().copied().filter(|slot| of_fresh(slot)).collect())
    }
}

#[cfg(test)]
mod tests;
