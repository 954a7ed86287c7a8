//! A batch made ready for the guest: the columns that it reads, cast to the types that it wants, without the rows for
//! which that is impossible.

use std::ops::Range;
use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, FailedRow, Origin};
use acequia_format::cast_column;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_schema::ArrowError;
use arrow_select::filter::{FilterBuilder, filter_record_batch};

use super::plan::{Layout, Read};
use super::to_guest::GuestColumn;

/// See the module.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) layout: Arc<Layout>,
    pub(crate) rows: RecordBatch,
    pub(crate) origin: Origin,
    /// One for each of `layout.reads`.
    pub(crate) reads: Vec<ArrayRef>,
    /// One for each of `layout.casts`.
    pub(crate) casts: Vec<ArrayRef>,
}

/// Rows that can't be given to the guest, each with the first thing that is wrong with it.
#[derive(Default)]
struct Unfit {
    errors: Vec<(usize, String)>,
}

impl Prepared {
    /// Cast, and take out what can't be: the second value.
    ///
    /// # Errors
    /// Arrow's, if the batch is not what its schema says.
    pub(crate) fn new(
        layout: Arc<Layout>,
        rows: RecordBatch,
        origin: Origin,
    ) -> Result<(Self, Vec<FailedRow>), ArrowError> {
        let mut unfit = Unfit::default();
        let mut reads = Vec::with_capacity(layout.reads.len());
        for read in &layout.reads {
            reads.push(unfit.read(read, &rows)?);
        }
        let mut casts = Vec::with_capacity(layout.casts.len());
        for moved in &layout.casts {
            casts.push(unfit.cast(rows.column(moved.index), &moved.name, moved.from, moved.to));
        }
        let prepared = Prepared { layout, rows, origin, reads, casts };
        if unfit.errors.is_empty() { Ok((prepared, Vec::new())) } else { prepared.without(unfit) }
    }

    fn without(self, mut unfit: Unfit) -> Result<(Self, Vec<FailedRow>), ArrowError> {
        unfit.errors.sort_by_key(|(row, _)| *row);
        unfit.errors.dedup_by_key(|(row, _)| *row);
        let Prepared { layout, rows, origin, reads, casts } = self;
        let mut mask = BooleanBufferBuilder::new(rows.num_rows());
        mask.append_n(rows.num_rows(), true);
        for (row, _) in &unfit.errors {
            mask.set_bit(*row, false);
        }
        let mask = mask.finish();
        let batch = Batch::new(rows, origin);
        let failed = unfit.errors.into_iter().map(|(row, error)| batch.fail(row, error)).collect();
        let predicate = BooleanArray::new(mask.clone(), None);
        let filter = FilterBuilder::new(&predicate).optimize().build();
        let keep = |columns: Vec<ArrayRef>| -> Result<Vec<_>, ArrowError> {
            columns.iter().map(|column| filter.filter(column)).collect()
        };
        let prepared = Prepared {
            layout,
            rows: filter_record_batch(&batch.rows, &predicate)?,
            origin: kept(batch.origin, mask),
            reads: keep(reads)?,
            casts: keep(casts)?,
        };
        Ok((prepared, failed))
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// What the guest reads of these rows. None if a column is not of its type, which is the host's fault.
    pub(crate) fn guest_columns<'a>(&'a self, reads: &'a [ArrayRef]) -> Option<Vec<GuestColumn<'a>>> {
        let columns = self.layout.reads.iter().zip(reads);
        columns.map(|(read, column)| GuestColumn::new(&read.name, read.kind, column)).collect()
    }

    /// Some of the rows.
    pub(crate) fn slice(&self, range: &Range<usize>) -> Prepared {
        let slice =
            |columns: &[ArrayRef]| columns.iter().map(|column| column.slice(range.start, range.len())).collect();
        Prepared {
            layout: self.layout.clone(),
            rows: self.rows.slice(range.start, range.len()),
            // Only the whole knows where its rows came from.
            origin: Origin::Unknown,
            reads: slice(&self.reads),
            casts: slice(&self.casts),
        }
    }

    /// These rows, failed.
    pub(crate) fn fail(&self, rows: impl Iterator<Item = (usize, String)>) -> Vec<FailedRow> {
        // Cheap: the columns are shared.
        let batch = Batch::new(self.rows.clone(), self.origin.clone());
        rows.map(|(row, error)| batch.fail(row, error)).collect()
    }

    /// `row 12 of people.json`, `rows 1 to 8192 of people.json`, for messages.
    pub(crate) fn describe(&self, range: &Range<usize>) -> String {
        let (first, last) = (range.start, range.end.saturating_sub(1));
        match (self.origin.locate(first), self.origin.locate(last)) {
            // A source with one part, such as `rate`.
            ((Some(partition), Some(place)), _) if first == last && partition.is_empty() => format!("row {place}"),
            ((Some(from), Some(first)), (Some(to), Some(last))) if from.is_empty() && to.is_empty() => {
                format!("rows {first} to {last}")
            }
            ((Some(partition), Some(place)), _) if first == last => format!("row {place} of {partition}"),
            ((Some(from), Some(first)), (Some(to), Some(last))) if from == to => {
                format!("rows {first} to {last} of {from}")
            }
            ((Some(from), Some(first)), (Some(to), Some(last))) => {
                format!("rows from {first} of {from} to {last} of {to}")
            }
            _ if first == last => format!("row {first} of the batch"),
            _ => format!("rows {first} to {last} of the batch"),
        }
    }
}

/// The origin of the rows whose bit is set.
pub(crate) fn kept(base: Origin, mask: BooleanBuffer) -> Origin {
    match base {
        Origin::Unknown => Origin::Unknown,
        base => Origin::Kept { base: Box::new(base), mask },
    }
}

impl Unfit {
    fn read(&mut self, read: &Read, rows: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let Some((index, from)) = read.from else {
            if !read.nullable {
                let message = format!("column `{}` is missing", read.name);
                self.errors.extend((0..rows.num_rows()).map(|row| (row, message.clone())));
            }
            return Ok(new_null_array(&read.kind.data_type(), rows.num_rows()));
        };
        let column = rows.columns().get(index).ok_or_else(|| {
            ArrowError::SchemaError(format!("the batch has no column {index}, where its schema has `{}`", read.name))
        })?;
        let values = self.cast(column, &read.name, from, read.kind);
        // The cast may make nulls too: of JSON's. Those that it could not cast are listed already, and the first error counts.
        if !read.nullable
            && let Some(nulls) = values.nulls()
            && nulls.null_count() > 0
        {
            let message = format!("column `{}` is null", read.name);
            self.errors.extend((0..values.len()).filter(|row| nulls.is_null(*row)).map(|row| (row, message.clone())));
        }
        Ok(values)
    }

    fn cast(&mut self, column: &ArrayRef, name: &str, from: ColumnType, to: ColumnType) -> ArrayRef {
        if from == to {
            return column.clone();
        }
        let cast = cast_column(column, from, to);
        self.errors.extend(cast.failed.into_iter().map(|(row, error)| (row, format!("column `{name}`: {error}"))));
        cast.values
    }
}

#[cfg(test)]
mod tests;
