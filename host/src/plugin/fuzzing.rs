//! The way in for the fuzz targets, and no part of the interface: what a guest could return, without a guest.

use std::sync::Arc;

use acequia_connector_api::{Batch, ByteSize, RowSchema};

pub use super::bindings::{transform, types};

use super::assemble::{Assembled, FreshLayout};
use super::from_guest;
use super::plan::{Layout, Plan};
use super::prepare::Prepared;
use crate::pipeline::transform::Applied;

/// A plan that was checked, as [`super::PluginTransform`] keeps it.
#[derive(Debug)]
pub struct Checked {
    plan: Plan,
    fresh: FreshLayout,
    /// What is known of the output.
    pub output: RowSchema,
}

/// Check a plan from `configure`.
///
/// # Errors
/// As at a plugin's start.
pub fn check(plan: transform::Plan, input: &RowSchema, ticking: bool) -> Result<Checked, String> {
    let plan = Plan::from(plan);
    plan.check(input, ticking)?;
    let output = plan.output(input)?;
    let (schema, slots) = Layout::new(&plan, &input.to_arrow())?.fresh();
    Ok(Checked { plan, fresh: FreshLayout { schema, slots }, output })
}

/// What becomes of a batch for which `apply` returned `output`.
///
/// # Errors
/// As in a pipeline: the plan does not fit the batch's columns, or the answer breaks the contract.
pub fn apply(checked: &Checked, batch: Batch, output: transform::Output, limit: ByteSize) -> Result<Applied, String> {
    let layout = Arc::new(Layout::new(&checked.plan, &batch.rows.schema())?);
    let (input, failed) = Prepared::new(layout, batch.rows, batch.origin).map_err(|error| error.to_string())?;
    let columns = input.guest_columns(&input.reads).ok_or("the batch can't be laid out")?;
    let params: Vec<_> = columns.iter().map(super::to_guest::GuestColumn::as_param).collect();
    drop(params);
    let answer = from_guest::check(output, &checked.plan.adds, input.len())?;
    let assembled = Assembled::new(&input, answer, &checked.fresh, limit).map_err(|error| error.to_string())?;
    drop(columns);
    Ok(assembled.finish(input, failed))
}
