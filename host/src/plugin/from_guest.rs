//! What the guest returned -> Arrow columns. It is untrusted data: nothing is used before all of it is checked. The memory
//! is the copy that wasmtime made, taken over as Arrow's.

use std::sync::Arc;

use acequia_connector_api::{ColumnType, Field};
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use serde::de::IgnoredAny;

use super::bindings::transform::{Failure, Output, Selection};
use super::bindings::types::{ColumnResult, PackedResult, ValuesResult};

/// A checked answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rows: Rows,
    /// The columns of `plan.adds`, each as long as the output.
    pub(crate) columns: Vec<ArrayRef>,
    /// Input rows that failed, each once, in order.
    pub(crate) failed: Vec<(usize, String)>,
}

/// Where the rows of the output come from.
#[derive(Debug)]
pub(crate) enum Rows {
    /// The input's.
    All,
    /// Those whose bit is set, of which there are `count`.
    Kept { mask: BooleanBuffer, count: usize },
    /// These, in this order. `used` is the number of different ones.
    Picked { rows: Vec<u32>, used: usize },
    /// New ones.
    Fresh(usize),
}

/// Check an answer for a batch of `input` rows.
///
/// # Errors
/// Says what in it breaks the contract.
pub(crate) fn check(output: Output, adds: &[Field], input: usize) -> Result<Answer, String> {
    let mut failed = check_failed(output.failed, input)?;
    let (rows, length) = check_rows(output.rows, input, &failed)?;
    if matches!(rows, Rows::Fresh(1..)) && adds.is_empty() {
        return Err(format!("{length} fresh rows, which have only added columns, and the plan adds none"));
    }
    if output.columns.len() != adds.len() {
        return Err(format!("{} columns, where the plan adds {}", output.columns.len(), adds.len()));
    }
    let columns = output.columns.into_iter().zip(adds).map(|(column, field)| check_column(column, field, length));
    let columns = columns.collect::<Result<_, _>>()?;
    failed.sort_unstable_by_key(|(row, _)| *row);
    Ok(Answer { rows, columns, failed })
}

fn check_failed(failed: Vec<Failure>, input: usize) -> Result<Vec<(usize, String)>, String> {
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    let mut seen = vec![false; input];
    let mut checked = Vec::with_capacity(failed.len());
    for failure in failed {
        let row = failure.row as usize;
        match seen.get_mut(row) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(format!("row {row} is listed as failed twice")),
            None => return Err(format!("row {row} is listed as failed, but the batch has {input} rows")),
        }
        checked.push((row, failure.message));
    }
    Ok(checked)
}

fn check_rows(rows: Selection, input: usize, failed: &[(usize, String)]) -> Result<(Rows, usize), String> {
    match rows {
        Selection::All => Ok((Rows::All, input)),
        Selection::Fresh(count) => Ok((Rows::Fresh(count as usize), count as usize)),
        Selection::Kept(bits) => {
            if bits.len() != input.div_ceil(8) {
                return Err(format!("`kept` has {} bytes: {input} rows need {}", bits.len(), input.div_ceil(8)));
            }
            let mask = BooleanBuffer::new(Buffer::from(bits), 0, input);
            if let Some((row, _)) = failed.iter().find(|(row, _)| mask.value(*row)) {
                return Err(format!("row {row} is listed as failed, and kept"));
            }
            let count = mask.count_set_bits();
            Ok((Rows::Kept { mask, count }, count))
        }
        Selection::Some(rows) => {
            // The largest first: this loop has no branches, and the next may then index without fear.
            let largest = rows.iter().copied().max().map_or(0, |largest| largest as usize);
            if !rows.is_empty() && largest >= input {
                return Err(format!("row {largest} is in `some`, but the batch has {input} rows"));
            }
            let mut picked = vec![false; input];
            for row in &rows {
                if let Some(picked) = picked.get_mut(*row as usize) {
                    *picked = true;
                }
            }
            if let Some((row, _)) = failed.iter().find(|(row, _)| picked.get(*row).copied().unwrap_or(false)) {
                return Err(format!("row {row} is listed as failed, and in `some`"));
            }
            let used = picked.iter().filter(|picked| **picked).count();
            let length = rows.len();
            Ok((Rows::Picked { rows, used }, length))
        }
    }
}

fn check_column(column: ColumnResult, field: &Field, length: usize) -> Result<ArrayRef, String> {
    let ColumnResult { name, values, valid } = column;
    if name != field.name {
        return Err(format!("column `{}` stands where the plan adds `{}`", shortened(&name), field.name));
    }
    let context = |message: String| format!("column `{name}`: {message}");
    let nulls = check_valid(valid, length).map_err(context)?;
    if !field.nullable
        && let Some(nulls) = &nulls
    {
        let row = (0..length).find(|row| nulls.is_null(*row)).unwrap_or(0);
        return Err(context(format!("row {row} is null, but the plan says that it is not nullable")));
    }
    let kind = kind_of(&values);
    if kind != field.kind {
        return Err(context(format!("its type is {kind}, but the plan says {}", field.kind)));
    }
    to_array(values, nulls, length).map_err(context)
}

/// The bitmap; none if no row is null.
fn check_valid(valid: Option<Vec<u8>>, length: usize) -> Result<Option<NullBuffer>, String> {
    let Some(bits) = valid else { return Ok(None) };
    if bits.len() != length.div_ceil(8) {
        return Err(format!("its validity has {} bytes: {length} rows need {}", bits.len(), length.div_ceil(8)));
    }
    let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from(bits), 0, length));
    Ok((nulls.null_count() > 0).then_some(nulls))
}

fn kind_of(values: &ValuesResult) -> ColumnType {
    match values {
        ValuesResult::Boolean(_) => ColumnType::Boolean,
        ValuesResult::Int64(_) => ColumnType::Int64,
        ValuesResult::Float64(_) => ColumnType::Float64,
        ValuesResult::Timestamp(_) => ColumnType::Timestamp,
        ValuesResult::Text(_) => ColumnType::Text,
        ValuesResult::Binary(_) => ColumnType::Binary,
        ValuesResult::Json(_) => ColumnType::Json,
    }
}

fn to_array(values: ValuesResult, nulls: Option<NullBuffer>, length: usize) -> Result<ArrayRef, String> {
    let has = |count: usize| {
        if count == length { Ok(()) } else { Err(format!("it has {count} values, but the output has {length} rows")) }
    };
    let array: ArrayRef = match values {
        ValuesResult::Boolean(bits) => {
            if bits.len() != length.div_ceil(8) {
                return Err(format!("it has {} bytes of bits: {length} rows need {}", bits.len(), length.div_ceil(8)));
            }
            Arc::new(BooleanArray::new(BooleanBuffer::new(Buffer::from(bits), 0, length), nulls))
        }
        ValuesResult::Int64(values) => {
            has(values.len())?;
            Arc::new(PrimitiveArray::<Int64Type>::new(values.into(), nulls))
        }
        ValuesResult::Float64(values) => {
            has(values.len())?;
            Arc::new(PrimitiveArray::<Float64Type>::new(values.into(), nulls))
        }
        ValuesResult::Timestamp(values) => {
            has(values.len())?;
            let array = PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls);
            Arc::new(array.with_timezone("UTC"))
        }
        ValuesResult::Text(packed) => {
            let (offsets, data) = check_packed(packed, length)?;
            Arc::new(to_text(offsets, data, nulls)?)
        }
        ValuesResult::Json(packed) => {
            let (offsets, data) = check_packed(packed, length)?;
            let text = to_text(offsets, data, nulls)?;
            for (row, value) in text.iter().enumerate() {
                if let Some(value) = value
                    && let Err(error) = serde_json::from_str::<IgnoredAny>(value)
                {
                    return Err(format!("row {row} is not JSON: {error}"));
                }
            }
            Arc::new(text)
        }
        ValuesResult::Binary(packed) => {
            let (offsets, data) = check_packed(packed, length)?;
            Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(|error| error.to_string())?)
        }
    };
    Ok(array)
}

fn check_packed(packed: PackedResult, length: usize) -> Result<(OffsetBuffer<i32>, Buffer), String> {
    let PackedResult { offsets, data } = packed;
    if offsets.len() != length + 1 {
        return Err(format!("it has {} offsets: {length} rows need {}", offsets.len(), length + 1));
    }
    if offsets.first().is_some_and(|first| *first != 0) {
        return Err(format!("its offsets start at {}, not at 0", offsets.first().copied().unwrap_or(0)));
    }
    // Without a branch in the loop: `all` would leave at the first bad one, which is not worth waiting for.
    let is_sorted = offsets.windows(2).fold(true, |sorted, pair| sorted & (pair[0] <= pair[1]));
    if !is_sorted {
        let row = offsets.windows(2).position(|pair| pair[0] > pair[1]).unwrap_or(0);
        return Err(format!("its offsets decrease after row {row}"));
    }
    let end = offsets.last().copied().unwrap_or(0);
    if end as usize > data.len() {
        return Err(format!("its offsets go to {end}, but there are {} bytes", data.len()));
    }
    if i32::try_from(end).is_err() {
        return Err(format!("it has {end} bytes: a column holds at most {}", i32::MAX));
    }
    // Below 2^31, so that u32 and i32 are the same bits.
    let offsets = ScalarBuffer::<i32>::new(Buffer::from(offsets), 0, length + 1);
    // Bytes behind the last value belong to no row: nothing is said of them, so nothing may depend on them.
    Ok((OffsetBuffer::new(offsets), Buffer::from(data).slice_with_length(0, end as usize)))
}

fn to_text(offsets: OffsetBuffer<i32>, data: Buffer, nulls: Option<NullBuffer>) -> Result<StringArray, String> {
    // Arrow checks the bytes as a whole, and that every value starts and ends between two characters.
    StringArray::try_new(offsets.clone(), data.clone(), nulls).map_err(|error| {
        let value = |pair: &[i32]| data.get(pair[0] as usize..pair[1] as usize).unwrap_or_default();
        match offsets.windows(2).position(|pair| std::str::from_utf8(value(pair)).is_err()) {
            Some(row) => format!("row {row} is not valid UTF-8"),
            None => error.to_string(),
        }
    })
}

fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests;
