//! The way of a column to the guest and back, with a guest that returns what it was given.

use std::sync::Arc;

use acequia_connector_api::{ColumnType, Field};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use proptest::prelude::*;

use super::*;
use crate::plugin::bindings::transform::{Output, Selection};
use crate::plugin::bindings::types::{ColumnResult, PackedResult, ValuesResult};
use crate::plugin::from_guest::check;

fn echo(column: &ColumnParam<'_>) -> ColumnResult {
    let packed =
        |packed: &PackedParam<'_>| PackedResult { offsets: packed.offsets.to_vec(), data: packed.data.to_vec() };
    let values = match &column.values {
        ValuesParam::Boolean(bits) => ValuesResult::Boolean(bits.to_vec()),
        ValuesParam::Int64(values) => ValuesResult::Int64(values.to_vec()),
        ValuesParam::Float64(values) => ValuesResult::Float64(values.to_vec()),
        ValuesParam::Timestamp(values) => ValuesResult::Timestamp(values.to_vec()),
        ValuesParam::Text(text) => ValuesResult::Text(packed(text)),
        ValuesParam::Binary(binary) => ValuesResult::Binary(packed(binary)),
        ValuesParam::Json(json) => ValuesResult::Json(packed(json)),
    };
    ColumnResult { name: column.name.to_owned(), values, valid: column.valid.map(<[u8]>::to_vec) }
}

fn array(kind: ColumnType, rows: &[Option<(i64, String)>]) -> ArrayRef {
    let numbers = rows.iter().map(|row| row.as_ref().map(|(number, _)| *number));
    let texts = rows.iter().map(|row| row.as_ref().map(|(_, text)| text.clone()));
    match kind {
        ColumnType::Boolean => Arc::new(numbers.map(|number| Some(number? % 2 == 0)).collect::<BooleanArray>()),
        ColumnType::Int64 => Arc::new(numbers.collect::<Int64Array>()),
        ColumnType::Float64 => Arc::new(numbers.map(|number| Some(number? as f64 / 8.0)).collect::<Float64Array>()),
        ColumnType::Timestamp => Arc::new(numbers.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ColumnType::Text => Arc::new(texts.collect::<StringArray>()),
        ColumnType::Binary => Arc::new(texts.map(|text| Some(text?.into_bytes())).collect::<BinaryArray>()),
        ColumnType::Json => {
            Arc::new(texts.map(|text| Some(serde_json::Value::from(text?).to_string())).collect::<StringArray>())
        }
    }
}

proptest! {
    #[test]
    fn columns_come_back_as_they_went(
        rows in proptest::collection::vec(proptest::option::weighted(0.8, (any::<i64>(), ".{0,6}")), 0..70),
        slice in any::<(proptest::sample::Index, proptest::sample::Index)>(),
    ) {
        let start = slice.0.index(rows.len() + 1);
        let length = slice.1.index(rows.len() - start + 1);
        for kind in ColumnType::ALL {
            let column = array(kind, &rows).slice(start, length);
            let there = GuestColumn::new("c", kind, &column).unwrap();
            let there = there.as_param();
            if let ValuesParam::Boolean(bits) = there.values {
                prop_assert_eq!(bits.len(), length.div_ceil(8));
                let ones: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
                prop_assert!(ones as usize <= length, "unused bits are clear");
            }
            prop_assert_eq!(there.valid.is_some(), column.null_count() > 0);
            let output = Output { rows: Selection::All, columns: vec![echo(&there)], failed: Vec::new() };
            let field = Field::new("c", kind, true);
            let back = check(output, &[field], length).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&back.columns[0], &column);
        }
    }
}

#[test]
fn memory_is_borrowed_where_it_can_be() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let slice = numbers.slice(1, 2);
    let column = GuestColumn::new("n", ColumnType::Int64, &slice).unwrap();
    assert!(matches!(column.values, GuestValues::Int64([2, 3])));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "bc", "def"]));
    let whole = GuestColumn::new("t", ColumnType::Text, &text).unwrap();
    let GuestValues::Text(packed) = &whole.values else { panic!("{whole:?}") };
    assert!(matches!(packed.offsets, Cow::Borrowed([0, 1, 3, 6])));
    let slice = text.slice(1, 2);
    let part = GuestColumn::new("t", ColumnType::Text, &slice).unwrap();
    let GuestValues::Text(packed) = &part.values else { panic!("{part:?}") };
    assert_eq!((&packed.offsets[..], packed.data), (&[0, 2, 5][..], &b"bcdef"[..]));
    let bits: ArrayRef = Arc::new(BooleanArray::from(vec![true; 24]));
    let bytes = bits.slice(8, 16);
    let column = GuestColumn::new("b", ColumnType::Boolean, &bytes).unwrap();
    assert!(matches!(column.values, GuestValues::Boolean(Cow::Borrowed([255, 255]))));
    let some = bits.slice(8, 3);
    let column = GuestColumn::new("b", ColumnType::Boolean, &some).unwrap();
    assert!(matches!(&column.values, GuestValues::Boolean(Cow::Owned(bytes)) if bytes == &[0b111]));
}

#[test]
fn an_array_of_another_type_is_not_laid_out() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(GuestColumn::new("n", ColumnType::Text, &numbers).is_none());
    assert!(GuestColumn::new("n", ColumnType::Timestamp, &numbers).is_none());
}
