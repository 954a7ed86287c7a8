//! Arrow columns -> what the guest reads, without a copy wherever Arrow's memory already has the contract's layout.

use std::borrow::Cow;

use acequia_connector_api::ColumnType;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};

use super::bindings::types::{ColumnParam, PackedParam, ValuesParam};

/// A column on its way to the guest. Owns only what had to be laid out anew.
#[derive(Debug)]
pub(crate) struct GuestColumn<'a> {
    name: &'a str,
    values: GuestValues<'a>,
    valid: Option<Cow<'a, [u8]>>,
}

#[derive(Debug)]
enum GuestValues<'a> {
    Boolean(Cow<'a, [u8]>),
    Int64(&'a [i64]),
    Float64(&'a [f64]),
    Timestamp(&'a [i64]),
    Text(Packed<'a>),
    Binary(Packed<'a>),
    Json(Packed<'a>),
}

#[derive(Debug)]
struct Packed<'a> {
    offsets: Cow<'a, [u32]>,
    data: &'a [u8],
}

impl<'a> GuestColumn<'a> {
    /// Lay a column out. None if the array is not of type `kind`.
    pub(crate) fn new(name: &'a str, kind: ColumnType, column: &'a ArrayRef) -> Option<Self> {
        let values = match kind {
            ColumnType::Boolean => GuestValues::Boolean(bitmap(column.as_boolean_opt()?.values())),
            ColumnType::Int64 => GuestValues::Int64(column.as_primitive_opt::<Int64Type>()?.values()),
            ColumnType::Float64 => GuestValues::Float64(column.as_primitive_opt::<Float64Type>()?.values()),
            ColumnType::Timestamp => {
                GuestValues::Timestamp(column.as_primitive_opt::<TimestampMicrosecondType>()?.values())
            }
            ColumnType::Text => {
                let text = column.as_string_opt::<i32>()?;
                GuestValues::Text(packed(text.offsets(), text.value_data()))
            }
            ColumnType::Json => {
                let text = column.as_string_opt::<i32>()?;
                GuestValues::Json(packed(text.offsets(), text.value_data()))
            }
            ColumnType::Binary => {
                let binary = column.as_binary_opt::<i32>()?;
                GuestValues::Binary(packed(binary.offsets(), binary.value_data()))
            }
        };
        let valid = match column.nulls() {
            Some(nulls) if nulls.null_count() > 0 => Some(bitmap(nulls.inner())),
            _ => None,
        };
        Some(GuestColumn { name, values, valid })
    }

    /// As the bindings want it.
    pub(crate) fn as_param(&self) -> ColumnParam<'_> {
        let values = match &self.values {
            GuestValues::Boolean(bits) => ValuesParam::Boolean(bits),
            GuestValues::Int64(values) => ValuesParam::Int64(values),
            GuestValues::Float64(values) => ValuesParam::Float64(values),
            GuestValues::Timestamp(values) => ValuesParam::Timestamp(values),
            GuestValues::Text(packed) => ValuesParam::Text(packed.as_param()),
            GuestValues::Binary(packed) => ValuesParam::Binary(packed.as_param()),
            GuestValues::Json(packed) => ValuesParam::Json(packed.as_param()),
        };
        ColumnParam { name: self.name, values, valid: self.valid.as_deref() }
    }
}

impl Packed<'_> {
    fn as_param(&self) -> PackedParam<'_> {
        PackedParam { offsets: &self.offsets, data: self.data }
    }
}

/// A bitmap that starts at bit 0 of its first byte, with the unused bits of its last byte cleared: so that a guest
/// may count bits by the byte, and never sees other rows.
fn bitmap(bits: &BooleanBuffer) -> Cow<'_, [u8]> {
    let bytes = bits.len().div_ceil(8);
    let used_of_last = bits.len() % 8;
    if bits.offset().is_multiple_of(8) {
        let start = bits.offset() / 8;
        if let Some(there) = bits.values().get(start..start + bytes) {
            let unused = there.last().map_or(0, |last| if used_of_last == 0 { 0 } else { last >> used_of_last });
            if unused == 0 {
                return Cow::Borrowed(there);
            }
        }
    }
    let mut copy = bits.sliced().as_slice().to_vec();
    copy.truncate(bytes);
    if used_of_last != 0
        && let Some(last) = copy.last_mut()
    {
        *last &= (1 << used_of_last) - 1;
    }
    Cow::Owned(copy)
}

/// Offsets that start at 0, and the bytes that they are offsets into. Those of a slice start elsewhere.
fn packed<'a>(offsets: &'a OffsetBuffer<i32>, data: &'a [u8]) -> Packed<'a> {
    let (first, last) = (offsets.first(), offsets.last());
    // Arrow's offsets are never negative, so that i32 and u32 are the same bits, and they are never beyond the data.
    let data = data.get(first as usize..last as usize).unwrap_or_default();
    let there: &[u32] = offsets.inner().inner().typed_data::<u32>();
    let offsets = if first == 0 {
        Cow::Borrowed(there)
    } else {
        Cow::Owned(there.iter().map(|offset| offset - first as u32).collect())
    };
    Packed { offsets, data }
}

#[cfg(test)]
mod tests;
