//! A batch on which the guest fails costs only the rows that make it fail.

use std::ops::Range;

use acequia_connector_api::FailedRow;

use super::assemble::join;
use super::error::{Cause, Failure};
use super::prepare::Prepared;
use super::transform::PluginTransform;
use crate::pipeline::transform::{Applied, TransformError};

/// So many calls of one batch may fail; after that, what is left of a failing part fails as a whole. Finding one row
/// among 8192 takes 14.
const FAILURES: usize = 64;

/// How often the rows of a call that failed may still be halved, if that can help at all.
fn halvings(failure: &Failure) -> u32 {
    match failure.cause {
        Cause::Trapped => u32::MAX,
        // Half the rows need half the memory; but if that does not help soon, it will not.
        Cause::Size => 2,
        // Each try costs the whole time limit, or is bound to fail; and what a plugin refuses or answers wrongly it
        // does knowingly, or always.
        Cause::Time | Cause::NotGranted | Cause::Refused | Cause::Nonsense => 0,
    }
}

impl PluginTransform {
    /// Give the rows to the guest. If it fails on them, halve them until the rows that make it fail are found.
    ///
    /// The order of the rows is kept, and each is in exactly one call that succeeds, or failed: a guest with state counts
    /// no row twice, because its state is put back to before the call that failed.
    ///
    /// # Errors
    /// If there is state and no snapshot of it, or if the instance can't be replaced.
    pub(crate) async fn apply_bisecting(
        &mut self,
        input: Prepared,
        failed: Vec<FailedRow>,
    ) -> Result<Applied, TransformError> {
        let whole = 0..input.len();
        let mut before = if self.can_go_on() { self.take_snapshot().await? } else { None };
        let first = match self.call(&input).await? {
            Ok(output) => return Ok(output.finish(input, failed)),
            Err(failure) => failure,
        };
        let mut parts = Vec::new();
        let mut lost = Vec::new();
        let mut failures = 0;
        // Parts still to be done, the next one last; and how often they may be halved.
        let mut open: Vec<(Range<usize>, u32)> = Vec::new();
        let mut failure = Some((whole, u32::MAX, first));
        loop {
            if let Some((range, allowed, failure)) = failure.take() {
                let rows = input.describe(&range);
                if !self.can_go_on() {
                    return Err(self.lose(format!("{rows}: {}", failure.message)));
                }
                failures += 1;
                self.replace(&format!("{rows}: {}", failure.message), before.as_deref()).await?;
                let allowed = allowed.min(halvings(&failure));
                if range.len() > 1 && allowed > 0 && failures < FAILURES {
                    let middle = range.start + range.len() / 2;
                    open.push((middle..range.end, allowed - 1));
                    open.push((range.start..middle, allowed - 1));
                } else {
                    let message = format!("{}, {rows}: {}", self.place(), failure.message);
                    lost.extend(range.map(|row| (row, message.clone())));
                }
            }
            let Some((range, allowed)) = open.pop() else { break };
            match self.call(&input.slice(&range)).await? {
                Ok(output) => {
                    parts.push((range.start, output));
                    if !open.is_empty() {
                        before = self.take_snapshot().await?;
                    }
                }
                Err(error) => failure = Some((range, allowed, error)),
            }
        }
        let place = self.place();
        join(input, parts, lost, failed).map_err(|error| TransformError {
            message: format!("{place}: the parts of a batch don't fit together: {error}"),
            state_lost: true,
        })
    }
}
