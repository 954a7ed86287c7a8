//! A checked answer and the batch it is for -> the output.

use std::sync::Arc;

use acequia_connector_api::{Batch, ByteSize, FailedRow, Origin};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::FilterBuilder;
use arrow_select::take::take;

use super::from_guest::{Answer, Rows};
use super::plan::Place;
use super::prepare::{Prepared, kept};
use crate::pipeline::transform::Applied;

/// The output for some rows.
#[derive(Debug)]
pub(crate) struct Assembled {
    rows: RecordBatch,
    from: From,
    dropped: usize,
    added: usize,
    /// By index among the rows that it is the output for.
    failed: Vec<(usize, String)>,
}

/// Which of the input rows the output's rows are.
#[derive(Debug)]
enum From {
    All,
    Kept(BooleanBuffer),
    Picked(Vec<u32>),
    Nowhere,
}

/// Where the rows of an aggregate have their columns.
#[derive(Debug)]
pub(crate) struct FreshLayout {
    pub(crate) schema: SchemaRef,
    pub(crate) slots: Vec<Place>,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssembleError {
    /// The rows that the plugin repeats, with all that passes by it.
    #[error("with the rows that it repeats, the output has more than {0} (raise limits.output if it needs more)")]
    TooLarge(ByteSize),
    /// See [`Assembled::new`].
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl FreshLayout {
    /// The rows of an aggregate.
    pub(crate) fn build(&self, columns: &[ArrayRef], count: usize) -> Result<RecordBatch, ArrowError> {
        let columns = self.slots.iter().filter_map(|slot| match slot {
            Place::Add(add) => columns.get(*add).cloned(),
            Place::Input(_) | Place::Cast(_) => None,
        });
        batch(&self.schema, columns.collect(), count)
    }
}

impl Assembled {
    /// The output of `answer` for `input`.
    ///
    /// # Errors
    /// If rows are repeated so often that the output is larger than `output_limit`. Arrow's, if the columns don't fit their
    /// schema: the checks before this leave no case that is known.
    pub(crate) fn new(
        input: &Prepared,
        answer: Answer,
        fresh: &FreshLayout,
        output_limit: ByteSize,
    ) -> Result<Self, AssembleError> {
        let Answer { rows, columns, failed } = answer;
        let length = input.len();
        match rows {
            Rows::All if failed.is_empty() => Ok(Self::unchanged(input, &columns)?),
            Rows::All => {
                let mut mask = BooleanBufferBuilder::new(length);
                mask.append_n(length, true);
                failed.iter().for_each(|(row, _)| mask.set_bit(*row, false));
                let mask = mask.finish();
                let filter = BooleanArray::new(mask.clone(), None);
                let columns = columns.iter().map(|column| arrow_select::filter::filter(column, &filter));
                let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
                let count = length - failed.len();
                Ok(Self::filtered(input, &columns, mask, count, failed)?)
            }
            Rows::Kept { count, .. } if count == length => Ok(Self::unchanged(input, &columns)?),
            Rows::Kept { mask, count } => Ok(Self::filtered(input, &columns, mask, count, failed)?),
            Rows::Picked { rows, used } => {
                if rows.len() > length {
                    check_size(input, &rows, output_limit)?;
                }
                let indices = UInt32Array::from(rows.clone());
                let take = |column: &ArrayRef| take(column, &indices, None);
                let output = build(input, &columns, rows.len(), take)?;
                let dropped = length - used - failed.len();
                Ok(Assembled { added: rows.len() - used, from: From::Picked(rows), rows: output, dropped, failed })
            }
            Rows::Fresh(count) => {
                let rows = fresh.build(&columns, count)?;
                Ok(Assembled { rows, from: From::Nowhere, dropped: length - failed.len(), added: count, failed })
            }
        }
    }

    fn unchanged(input: &Prepared, columns: &[ArrayRef]) -> Result<Self, ArrowError> {
        let rows = build(input, columns, input.len(), |column| Ok(column.clone()))?;
        Ok(Assembled { rows, from: From::All, dropped: 0, added: 0, failed: Vec::new() })
    }

    /// `columns` are filtered already.
    fn filtered(
        input: &Prepared,
        columns: &[ArrayRef],
        mask: BooleanBuffer,
        count: usize,
        failed: Vec<(usize, String)>,
    ) -> Result<Self, ArrowError> {
        let predicate = BooleanArray::new(mask, None);
        let builder = FilterBuilder::new(&predicate);
        // Worth it if there is more than one column to filter.
        let from_input = input.layout.slots.iter().filter(|slot| !matches!(slot, Place::Add(_))).count();
        let filter = if from_input > 1 { builder.optimize().build() } else { builder.build() };
        let rows = build(input, columns, count, |column| filter.filter(column))?;
        let dropped = input.len() - count - failed.len();
        Ok(Assembled { rows, from: From::Kept(predicate.values().clone()), dropped, added: 0, failed })
    }

    /// As the engine wants it, with the failed rows of before.
    pub(crate) fn finish(self, input: Prepared, mut failed: Vec<FailedRow>) -> Applied {
        if !self.failed.is_empty() {
            failed.extend(input.fail(self.failed.into_iter()));
        }
        let origin = match self.from {
            From::All => input.origin,
            From::Kept(mask) => kept(input.origin, mask),
            From::Picked(rows) => Origin::Picked { base: Box::new(input.origin), rows: rows.into() },
            From::Nowhere => Origin::Unknown,
        };
        let batch = Batch { rows: self.rows, origin, failed };
        Applied { batch, dropped: self.dropped as u64, added: self.added as u64 }
    }

    /// The indices of its rows in the whole of which its input is a part.
    fn indices(&self, start: usize) -> Option<Vec<u32>> {
        let shift = |row: usize| u32::try_from(start + row).ok();
        match &self.from {
            From::All => (0..self.rows.num_rows()).map(shift).collect(),
            From::Kept(mask) => mask.set_indices().map(shift).collect(),
            From::Picked(rows) => rows.iter().map(|row| shift(*row as usize)).collect(),
            From::Nowhere if self.rows.num_rows() == 0 => Some(Vec::new()),
            From::Nowhere => None,
        }
    }
}

/// A batch that was given to the guest in parts, because rows in it made it fail.
///
/// # Errors
/// Arrow's, if the guest returned fresh rows for one part and picked ones for another, and these differ in their columns.
pub(crate) fn join(
    input: Prepared,
    parts: Vec<(usize, Assembled)>,
    failed_whole: Vec<(usize, String)>,
    mut failed: Vec<FailedRow>,
) -> Result<Applied, ArrowError> {
    let schema = parts.first().map_or_else(|| input.layout.output.clone(), |(_, part)| part.rows.schema());
    let rows = concat_batches(&schema, parts.iter().map(|(_, part)| &part.rows))?;
    let indices = parts.iter().map(|(start, part)| part.indices(*start)).collect::<Option<Vec<_>>>();
    let mut own: Vec<(usize, String)> = failed_whole;
    let (mut dropped, mut added) = (0, 0);
    for (start, part) in parts {
        own.extend(part.failed.into_iter().map(|(row, error)| (start + row, error)));
        dropped += part.dropped as u64;
        added += part.added as u64;
    }
    own.sort_by_key(|(row, _)| *row);
    failed.extend(input.fail(own.into_iter()));
    let origin = match indices {
        Some(indices) => Origin::Picked { base: Box::new(input.origin), rows: indices.concat().into() },
        None => Origin::Unknown,
    };
    Ok(Applied { batch: Batch { rows, origin, failed }, dropped, added })
}

/// A few bytes of indices can repeat a long row a million times: count before anything is copied. The values of Arrow's
/// text are at most 2 GiB in any case.
fn check_size(input: &Prepared, rows: &[u32], limit: ByteSize) -> Result<(), AssembleError> {
    let limit_of_arrow = i32::MAX as u64;
    let mut total: u64 = 0;
    for slot in &input.layout.slots {
        let column = match slot {
            Place::Input(index) => input.rows.columns().get(*index),
            Place::Cast(index) => input.casts.get(*index),
            Place::Add(_) => None,
        };
        let Some(column) = column else { continue };
        let offsets = match column.data_type() {
            DataType::Utf8 => column.as_string_opt::<i32>().map(|text| text.value_offsets()),
            DataType::Binary => column.as_binary_opt::<i32>().map(|binary| binary.value_offsets()),
            _ => None,
        };
        let bytes = match offsets {
            Some(offsets) => rows.iter().map(|row| length_of(offsets, *row as usize) + 4).sum(),
            None => rows.len() as u64 * 8,
        };
        total = total.saturating_add(bytes);
        if total > limit.0 || bytes > limit_of_arrow {
            return Err(AssembleError::TooLarge(limit));
        }
    }
    Ok(())
}

fn length_of(offsets: &[i32], row: usize) -> u64 {
    match offsets.get(row..row + 2) {
        Some([start, end]) => u64::from(end.abs_diff(*start)),
        _ => 0,
    }
}

fn build(
    input: &Prepared,
    adds: &[ArrayRef],
    length: usize,
    select: impl Fn(&ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    let layout = &input.layout;
    let missing = |what: &str| ArrowError::SchemaError(format!("a column of the {what} is missing"));
    let columns = layout.slots.iter().map(|slot| match slot {
        Place::Input(index) => select(input.rows.columns().get(*index).ok_or_else(|| missing("batch"))?),
        Place::Cast(index) => select(input.casts.get(*index).ok_or_else(|| missing("casts"))?),
        Place::Add(index) => adds.get(*index).cloned().ok_or_else(|| missing("answer")),
    });
    batch(&layout.output, columns.collect::<Result<_, _>>()?, length)
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, length: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(length));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests;
