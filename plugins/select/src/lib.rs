//! Keeps, drops, renames and casts columns. All of it is said in the plan and done by the host: no value enters the plugin.

use std::collections::{BTreeMap, BTreeSet};

use acequia_plugin_sdk::{Batch, ColumnType, Error, Move, Output, Passes, Plan, Schema, Transform, export};
use serde::Deserialize;

/// The `config` table. Every name is that of an input column, but for the new names in `rename`. The columns that stay keep
/// their order.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Only these columns.
    pub keep: Option<Vec<String>>,
    /// All columns but these.
    pub drop: Option<Vec<String>>,
    /// Old name to new name.
    pub rename: BTreeMap<String, String>,
    /// Column to type. A row that can't be cast is a failed row.
    pub cast: BTreeMap<String, String>,
}

/// The plugin.
pub struct Select;

impl Transform for Select {
    type Config = Config;

    fn configure(config: Config, schema: &Schema) -> Result<(Self, Plan), Error> {
        let check =
            |key: &str, name: &String| schema.check(name).map_err(|error| Error::new(format!("`{key}`: {error}")));
        let passes = match (&config.keep, &config.drop) {
            (Some(_), Some(_)) => return Err("`keep` and `drop` exclude each other: remove one of them".into()),
            (Some(keep), None) if keep.is_empty() => return Err("`keep` must name a column".into()),
            (Some(keep), None) => {
                keep.iter().try_for_each(|name| check("keep", name))?;
                Passes::Only(keep.clone())
            }
            (None, Some(drop)) => {
                drop.iter().try_for_each(|name| check("drop", name))?;
                Passes::Except(drop.clone())
            }
            (None, None) => Passes::Every,
        };
        config.rename.keys().try_for_each(|name| check("rename", name))?;
        config.cast.keys().try_for_each(|name| check("cast", name))?;

        let moves = moves(&config, schema)?;
        names_differ(&config, schema)?;
        Ok((Select, Plan { passes, moves, ..Plan::pass() }))
    }

    fn apply(&mut self, _: Batch) -> Result<Output, Error> {
        Ok(Output::all(Vec::new()))
    }
}

/// The renamed and cast columns, in the order that the schema has them, then those that it does not know.
fn moves(config: &Config, schema: &Schema) -> Result<Vec<Move>, Error> {
    let stays = |name: &String| match (&config.keep, &config.drop) {
        (Some(keep), _) => keep.contains(name),
        (_, Some(drop)) => !drop.contains(name),
        _ => true,
    };
    let mut moves = Vec::new();
    for (key, source) in sources(config) {
        if !stays(source) {
            let left_out = if config.keep.is_some() { "not in `keep`" } else { "in `drop`" };
            return Err(Error::new(format!("`{key}`: the column `{source}` is {left_out}")));
        }
        if moves.iter().any(|done: &Move| done.source == *source) {
            continue; // renamed and cast: one move
        }
        let name = config.rename.get(source).unwrap_or(source).clone();
        if name.is_empty() {
            return Err(Error::new(format!("`rename`: the new name of `{source}` is empty")));
        }
        let kind = config.cast.get(source).map(|kind| ColumnType::parse(kind)).transpose();
        let kind = kind.map_err(|error| Error::new(format!("`cast`: `{source}`: {error}")))?;
        moves.push(Move { source: source.clone(), name, kind });
    }
    let place = |source: &str| schema.fields.iter().position(|field| field.name == source).unwrap_or(usize::MAX);
    moves.sort_by_key(|moved| place(&moved.source));
    Ok(moves)
}

fn sources(config: &Config) -> impl Iterator<Item = (&'static str, &String)> {
    let renamed = config.rename.keys().map(|name| ("rename", name));
    renamed.chain(config.cast.keys().map(|name| ("cast", name)))
}

/// That no two columns of the output have one name, as far as it is known which there are.
fn names_differ(config: &Config, schema: &Schema) -> Result<(), Error> {
    let known: BTreeSet<&String> = match &config.keep {
        Some(keep) => keep.iter().collect(),
        None => {
            let dropped = config.drop.as_deref().unwrap_or_default();
            let fields = schema.fields.iter().map(|field| &field.name).filter(|name| !dropped.contains(name));
            fields.chain(config.rename.keys()).collect()
        }
    };
    let mut names = BTreeSet::new();
    for source in known {
        let name = config.rename.get(source).unwrap_or(source);
        if !names.insert(name) {
            return Err(Error::new(format!("`rename`: two columns would have the name `{name}`")));
        }
    }
    Ok(())
}

export!(Select as Transform);

#[cfg(test)]
mod tests;
