//! What of a source's rows is read at all, found from the sinks backwards through the transforms' plans.

use std::collections::BTreeSet;

use crate::config::PipelineConfig;
use crate::pipeline::Projection;
use crate::plugin::Plan;

/// What a sink reads; `None` is every column.
struct Reads {
    /// Of any rows.
    columns: Option<Vec<String>>,
    /// Of rows that carry what they were read from; `None`: it has no use for that.
    beside_record: Option<Vec<String>>,
}

/// What the source has to make columns of; `None` if that is everything, or the source can't do with less.
pub(super) fn projection(config: &PipelineConfig, plans: &[Plan]) -> Option<Projection> {
    let sinks = config
        .sinks
        .iter()
        .map(|sink| Reads { columns: sink.spec.reads(), beside_record: sink.spec.reads_beside_record() });
    if config.source.spec.projects() { needed(plans, sinks) } else { None }
}

fn needed(plans: &[Plan], sinks: impl Iterator<Item = Reads>) -> Option<Projection> {
    let passes = plans.iter().all(Plan::changes_nothing);
    let mut unchanged = false;
    let mut needs = Some(BTreeSet::new());
    for sink in sinks {
        let beside = sink.beside_record.filter(|_| passes);
        unchanged |= beside.is_some();
        needs = needs.zip(beside.or(sink.columns)).map(|(mut needs, reads)| {
            needs.extend(reads);
            needs
        });
    }
    let columns = plans.iter().rev().fold(needs, |needs, plan| before(plan, needs.as_ref()))?;
    Some(Projection { columns: columns.into_iter().collect(), unchanged })
}

/// What must be there before a transform, if `after` must be there behind it. `None` is every column.
fn before(plan: &Plan, after: Option<&BTreeSet<String>>) -> Option<BTreeSet<String>> {
    let mut needs: BTreeSet<String> = plan.reads_columns()?.map(str::to_owned).collect();
    match after {
        Some(after) => needs.extend(after.iter().flat_map(|name| plan.sources_of(name)).map(str::to_owned)),
        // Everything that comes out, which is known only if the plan says exactly what passes.
        None => needs.extend(plan.all_sources()?.map(str::to_owned)),
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use acequia_connector_api::{ColumnType, Field};

    use super::*;
    use crate::plugin::{Input, Move, Passes};

    fn reading(names: &[&str]) -> Plan {
        let input = |name: &&str| Input { name: (*name).to_owned(), kind: ColumnType::Int64, nullable: false };
        Plan {
            reads: Some(names.iter().map(input).collect()),
            adds: Vec::new(),
            passes: Passes::Every,
            moves: Vec::new(),
            tick_every: None,
        }
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A sink that writes every column, or a row as it was read.
    fn json() -> Reads {
        Reads { columns: None, beside_record: Some(Vec::new()) }
    }

    /// A sink that has columns for everything.
    fn table() -> Reads {
        Reads { columns: None, beside_record: None }
    }

    fn naming(names: &[&str]) -> Reads {
        Reads { columns: Some(list(names)), beside_record: None }
    }

    fn found(plans: &[Plan], sinks: impl IntoIterator<Item = Reads>) -> Option<(Vec<String>, bool)> {
        needed(plans, sinks.into_iter()).map(|projection| (projection.columns, projection.unchanged))
    }

    #[test]
    fn rows_that_nothing_changes_keep_their_text() {
        assert_eq!(found(&[], [json()]), Some((list(&[]), true)));
        assert_eq!(found(&[reading(&["value"])], [json()]), Some((list(&["value"]), true)));
        assert_eq!(found(&[reading(&["b"]), reading(&["a", "b"])], [json()]), Some((list(&["a", "b"]), true)));
        let nothing_left_out = Plan { passes: Passes::Except(Vec::new()), ..reading(&["value"]) };
        assert_eq!(found(&[nothing_left_out], [json()]), Some((list(&["value"]), true)));
        // A key is taken from a column.
        let kafka = Reads { beside_record: Some(list(&["k"])), ..json() };
        assert_eq!(found(&[reading(&["value"])], [json(), kafka]), Some((list(&["k", "value"]), true)));
        assert_eq!(found(&[reading(&["value"])], [json(), naming(&["x"])]), Some((list(&["value", "x"]), true)));
    }

    #[test]
    fn who_reads_everything_gets_everything() {
        assert_eq!(found(&[], [table()]), None);
        assert_eq!(found(&[reading(&["value"])], [json(), table()]), None);
        assert_eq!(found(&[Plan { reads: None, ..reading(&[]) }], [json()]), None);
        let sine = Plan { adds: vec![Field::new("sin", ColumnType::Float64, false)], ..reading(&["value"]) };
        assert_eq!(found(&[sine], [json()]), None);
        let without = Plan { passes: Passes::Except(list(&["x"])), ..reading(&[]) };
        assert_eq!(found(&[without], [json()]), None);
        let renamed = Move { source: "a".to_owned(), name: "b".to_owned(), kind: None };
        assert_eq!(found(&[Plan { moves: vec![renamed], ..reading(&[]) }], [json()]), None);
    }

    #[test]
    fn columns_are_followed_back_to_the_source() {
        let only = Plan { passes: Passes::Only(list(&["a", "b"])), ..reading(&["c"]) };
        assert_eq!(found(std::slice::from_ref(&only), [json()]), Some((list(&["a", "b", "c"]), false)));
        assert_eq!(found(&[reading(&["d"]), only.clone()], [table()]), Some((list(&["a", "b", "c", "d"]), false)));
        assert_eq!(found(&[only], [naming(&["a", "z"])]), Some((list(&["a", "c"]), false)));
        // What a transform adds comes from nowhere; what it renames has another name before it.
        let sine = Plan { adds: vec![Field::new("sin", ColumnType::Float64, false)], ..reading(&["value"]) };
        assert_eq!(found(&[sine], [naming(&["at"])]), Some((list(&["at", "value"]), false)));
        let renamed = Move { source: "a".to_owned(), name: "b".to_owned(), kind: None };
        let rename = Plan { moves: vec![renamed], ..reading(&[]) };
        assert_eq!(found(&[rename], [naming(&["b"])]), Some((list(&["a", "b"]), false)));
    }
}
