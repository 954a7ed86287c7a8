//! A column that is being built, and the cast of one value into it.

use std::sync::Arc;

use acequia_connector_api::{ColumnType, base64, format_timestamp};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use serde::de::IgnoredAny;

use crate::parse::{self, JsonValue};

/// One value on its way into a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    Timestamp(i64),
    Text(&'a str),
    Binary(&'a [u8]),
    /// A valid JSON value without white space around it.
    Json(&'a str),
    /// A valid JSON number, as it is written.
    Number(&'a str),
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    /// Also timestamps.
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    /// Text and JSON. The offsets are Arrow's: one more than there are values.
    Text {
        offsets: Vec<i32>,
        data: String,
    },
    Binary {
        offsets: Vec<i32>,
        data: Vec<u8>,
    },
}

/// A column of one of the seven types. It can be cut back, which Arrow's own builders can't.
#[derive(Debug)]
pub(crate) struct ColumnBuilder {
    kind: ColumnType,
    values: Values,
    len: usize,
    /// Made at the first null.
    valid: Option<BooleanBufferBuilder>,
}

/// Why a value can't be cast, beyond that it can't.
type Reason = &'static str;

const NOT_WHOLE: Reason = ": it is not a whole number in the range of int64";
const INEXACT: Reason = ": float64 can't hold it exactly";
const NO_UNIT: Reason = ": a number alone has no unit of time, write a date and time";
const NOT_UTF8: Reason = ": it is not valid UTF-8";
const NOT_JSON: Reason = ": it is not valid JSON";
const TOO_DEEP: Reason = ": it is nested more than 127 levels deep";
const TOO_LARGE: Reason = ": the column is larger than 2 GiB, make smaller batches";

impl ColumnBuilder {
    pub(crate) fn new(kind: ColumnType, capacity: usize) -> Self {
        let offsets = || {
            let mut offsets = Vec::with_capacity(capacity + 1);
            offsets.push(0);
            offsets
        };
        let values = match kind {
            ColumnType::Boolean => Values::Boolean(BooleanBufferBuilder::new(capacity)),
            ColumnType::Int64 | ColumnType::Timestamp => Values::Int64(Vec::with_capacity(capacity)),
            ColumnType::Float64 => Values::Float64(Vec::with_capacity(capacity)),
            ColumnType::Text | ColumnType::Json => Values::Text { offsets: offsets(), data: String::new() },
            ColumnType::Binary => Values::Binary { offsets: offsets(), data: Vec::new() },
        };
        ColumnBuilder { kind, values, len: 0, valid: None }
    }

    pub(crate) fn kind(&self) -> ColumnType {
        self.kind
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Nulls up to `len` values.
    pub(crate) fn pad(&mut self, len: usize) {
        while self.len < len {
            self.push_null();
        }
    }

    /// Cut back to `len` values.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int64(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Text { offsets, data } => {
                offsets.truncate(len + 1);
                data.truncate(offsets.last().map_or(0, |offset| *offset as usize));
            }
            Values::Binary { offsets, data } => {
                offsets.truncate(len + 1);
                data.truncate(offsets.last().map_or(0, |offset| *offset as usize));
            }
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(len);
        }
        self.len = len;
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int64(values) => values.push(0),
            Values::Float64(values) => values.push(0.0),
            Values::Text { offsets, .. } | Values::Binary { offsets, .. } => {
                offsets.push(offsets.last().copied().unwrap_or_default());
            }
        }
        let len = self.len;
        let valid = self.valid.get_or_insert_with(|| {
            let mut valid = BooleanBufferBuilder::new(len + 1);
            valid.append_n(len, true);
            valid
        });
        valid.append(false);
        self.len += 1;
    }

    /// [`ColumnBuilder::push`] of an integer to a column of them.
    #[inline]
    pub(crate) fn push_int64(&mut self, value: i64) {
        if let Values::Int64(values) = &mut self.values {
            values.push(value);
            self.len += 1;
            if let Some(valid) = &mut self.valid {
                valid.append(true);
            }
        }
    }

    /// Cast a value to the column's type and append it.
    ///
    /// # Errors
    /// With a message that shows the value and the type; the column is as before.
    pub(crate) fn push(&mut self, value: Scalar<'_>) -> Result<(), String> {
        if let Scalar::Null = value {
            self.push_null();
            return Ok(());
        }
        match self.try_push(value) {
            Ok(true) => {
                if let Some(valid) = &mut self.valid {
                    valid.append(true);
                }
                self.len += 1;
                Ok(())
            }
            Ok(false) => {
                self.push_null();
                Ok(())
            }
            Err(reason) => Err(format!("can't cast {} to {}{reason}", shown(value), self.kind)),
        }
    }

    /// Whether a value was appended to `values`; if not, it is a null.
    fn try_push(&mut self, value: Scalar<'_>) -> Result<bool, Reason> {
        // The scalars inside the two types that wrap others.
        match (value, self.kind) {
            (Scalar::Json(raw), kind) if kind != ColumnType::Json => {
                return match JsonValue::of(raw).ok_or(NOT_UTF8)? {
                    JsonValue::Null => Ok(false),
                    JsonValue::Boolean(inner) => self.try_push(Scalar::Boolean(inner)),
                    JsonValue::Number(literal) => self.try_push(Scalar::Number(literal)),
                    JsonValue::Text(inner) => self.try_push(Scalar::Text(&inner)),
                    JsonValue::Nested if matches!(kind, ColumnType::Text | ColumnType::Binary) => {
                        let mut text = String::new();
                        parse::compact_json(raw, &mut text).then_some(()).ok_or(TOO_DEEP)?;
                        self.try_push(Scalar::Text(&text))
                    }
                    JsonValue::Nested => Err(""),
                };
            }
            (Scalar::Binary(bytes), kind) if kind != ColumnType::Binary => {
                return self.try_push(Scalar::Text(str::from_utf8(bytes).map_err(|_| NOT_UTF8)?));
            }
            _ => {}
        }
        match &mut self.values {
            Values::Boolean(values) => values.append(to_boolean(value)?),
            Values::Int64(values) if self.kind == ColumnType::Timestamp => values.push(to_timestamp(value)?),
            Values::Int64(values) => values.push(to_int64(value)?),
            Values::Float64(values) => values.push(to_float64(value)?),
            Values::Text { offsets, data } => {
                let before = data.len();
                let done =
                    if self.kind == ColumnType::Json { write_json(value, data) } else { write_text(value, data) };
                let end = done.and_then(|()| i32::try_from(data.len()).map_err(|_| TOO_LARGE));
                offsets.push(end.inspect_err(|_| data.truncate(before))?);
            }
            Values::Binary { offsets, data } => {
                let before = data.len();
                match value {
                    Scalar::Binary(bytes) => data.extend_from_slice(bytes),
                    Scalar::Text(text) => data.extend_from_slice(text.as_bytes()),
                    other => {
                        let mut text = String::new();
                        write_text(other, &mut text)?;
                        data.extend_from_slice(text.as_bytes());
                    }
                }
                offsets.push(i32::try_from(data.len()).map_err(|_| TOO_LARGE).inspect_err(|_| data.truncate(before))?);
            }
        }
        Ok(true)
    }

    /// The value at `row`, for a conversion.
    pub(crate) fn get(&self, row: usize) -> Scalar<'_> {
        if row >= self.len || self.valid.as_ref().is_some_and(|valid| !valid.get_bit(row)) {
            return Scalar::Null;
        }
        let range = |offsets: &[i32]| {
            let at = |index: usize| offsets.get(index).map_or(0, |offset| *offset as usize);
            at(row)..at(row + 1)
        };
        match &self.values {
            Values::Boolean(values) => Scalar::Boolean(values.get_bit(row)),
            Values::Int64(values) => {
                let value = values.get(row).copied().unwrap_or_default();
                if self.kind == ColumnType::Timestamp { Scalar::Timestamp(value) } else { Scalar::Int64(value) }
            }
            Values::Float64(values) => Scalar::Float64(values.get(row).copied().unwrap_or_default()),
            Values::Text { offsets, data } => {
                let text = data.get(range(offsets)).unwrap_or_default();
                if self.kind == ColumnType::Json { Scalar::Json(text) } else { Scalar::Text(text) }
            }
            Values::Binary { offsets, data } => Scalar::Binary(data.get(range(offsets)).unwrap_or_default()),
        }
    }

    /// The column, and an empty one of the same type in its place with room for as many values.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        let fresh = ColumnBuilder::new(self.kind, self.len);
        let ColumnBuilder { kind, values, valid, .. } = std::mem::replace(self, fresh);
        let nulls = valid.map(|mut valid| NullBuffer::new(valid.finish()));
        // Arrow's constructors panic where lengths differ or offsets are not on the borders of characters. Here every push adds
        // one value, one offset (the end of the data so far, which is a `String`) and one bit.
        let offsets = |offsets: Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(offsets));
        match values {
            Values::Boolean(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int64(values) if kind == ColumnType::Timestamp => {
                Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
            }
            Values::Int64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Text { offsets: ends, data } => {
                Arc::new(StringArray::new(offsets(ends), Buffer::from_vec(data.into_bytes()), nulls))
            }
            Values::Binary { offsets: ends, data } => {
                Arc::new(BinaryArray::new(offsets(ends), Buffer::from_vec(data), nulls))
            }
        }
    }
}

fn to_boolean(value: Scalar<'_>) -> Result<bool, Reason> {
    match value {
        Scalar::Boolean(value) => Ok(value),
        Scalar::Int64(0) | Scalar::Number("0") => Ok(false),
        Scalar::Int64(1) | Scalar::Number("1") => Ok(true),
        Scalar::Text(text) => parse::boolean(text).ok_or(""),
        _ => Err(""),
    }
}

fn to_int64(value: Scalar<'_>) -> Result<i64, Reason> {
    match value {
        Scalar::Int64(value) | Scalar::Timestamp(value) => Ok(value),
        Scalar::Number(literal) => parse::json_int64(literal).ok_or(NOT_WHOLE),
        Scalar::Text(text) => text.parse().map_err(|_| ""),
        Scalar::Float64(value) => parse::float_to_int64(value).ok_or(NOT_WHOLE),
        Scalar::Boolean(value) => Ok(i64::from(value)),
        _ => Err(""),
    }
}

fn to_float64(value: Scalar<'_>) -> Result<f64, Reason> {
    match value {
        Scalar::Float64(value) => Ok(value),
        Scalar::Number(literal) => parse::float64(literal).ok_or(INEXACT),
        Scalar::Text(text) => parse::float64(text).ok_or(""),
        Scalar::Int64(value) => parse::int64_to_float(value).ok_or(INEXACT),
        Scalar::Boolean(value) => Ok(f64::from(u8::from(value))),
        _ => Err(""),
    }
}

fn to_timestamp(value: Scalar<'_>) -> Result<i64, Reason> {
    match value {
        Scalar::Timestamp(value) => Ok(value),
        Scalar::Text(text) => parse::parse_timestamp(text).ok_or(""),
        Scalar::Int64(_) | Scalar::Float64(_) | Scalar::Number(_) => Err(NO_UNIT),
        _ => Err(""),
    }
}

fn write_text(value: Scalar<'_>, out: &mut String) -> Result<(), Reason> {
    match value {
        Scalar::Text(text) | Scalar::Number(text) => out.push_str(text),
        Scalar::Boolean(value) => out.push_str(if value { "true" } else { "false" }),
        Scalar::Int64(value) => out.push_str(&value.to_string()),
        Scalar::Float64(value) => out.push_str(&float_text(value)),
        Scalar::Timestamp(value) => out.push_str(&format_timestamp(value)),
        Scalar::Null | Scalar::Binary(_) | Scalar::Json(_) => return Err(""),
    }
    Ok(())
}

fn write_json(value: Scalar<'_>, out: &mut String) -> Result<(), Reason> {
    match value {
        Scalar::Json(raw) => parse::compact_json(raw, out).then_some(()).ok_or(TOO_DEEP),
        Scalar::Text(text) => {
            serde_json::from_str::<IgnoredAny>(text).map_err(|_| NOT_JSON)?;
            parse::compact_json(text, out).then_some(()).ok_or(TOO_DEEP)
        }
        Scalar::Float64(value) if !value.is_finite() => Err(": JSON has no such number"),
        Scalar::Timestamp(value) => {
            out.push('"');
            out.push_str(&format_timestamp(value));
            out.push('"');
            Ok(())
        }
        other => write_text(other, out),
    }
}

/// The shortest text that reads back as the same double: `15.5`, `1.0`, `1e+300`, `NaN`, `Infinity`.
pub(crate) fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// A value in a message: quoted if it is text, and not too long.
fn shown(value: Scalar<'_>) -> String {
    let short = |text: &str| match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    match value {
        Scalar::Null => "null".to_owned(),
        Scalar::Boolean(value) => value.to_string(),
        Scalar::Int64(value) => value.to_string(),
        Scalar::Float64(value) => float_text(value),
        Scalar::Timestamp(value) => format_timestamp(value),
        Scalar::Text(text) => format!("{:?}", short(text)),
        Scalar::Json(text) | Scalar::Number(text) => short(text),
        Scalar::Binary(bytes) => match str::from_utf8(bytes) {
            Ok(text) => format!("{:?}", short(text)),
            Err(_) => format!("{} bytes (base64 {})", bytes.len(), short(&base64(bytes.get(..60).unwrap_or(bytes)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;

    #[test]
    fn a_column_can_be_cut_back() {
        for kind in ColumnType::ALL {
            let value = match kind {
                ColumnType::Boolean => Scalar::Boolean(true),
                ColumnType::Timestamp => Scalar::Timestamp(7),
                _ => Scalar::Number("7"),
            };
            let mut column = ColumnBuilder::new(kind, 0);
            column.push(value).unwrap();
            column.push_null();
            column.push(value).unwrap();
            let mut longer = ColumnBuilder::new(kind, 0);
            for _ in 0..2 {
                longer.push(value).unwrap();
                longer.push_null();
                longer.push(value).unwrap();
            }
            longer.truncate(3);
            assert_eq!(&longer.finish(), &column.finish(), "{kind}");
            assert_eq!(longer.len(), 0);
        }
    }

    #[test]
    fn a_value_that_is_refused_leaves_no_trace() {
        let mut column = ColumnBuilder::new(ColumnType::Json, 0);
        column.push(Scalar::Text("[1, 2]")).unwrap();
        let error = column.push(Scalar::Text("[1, 2")).unwrap_err();
        assert_eq!(error, "can't cast \"[1, 2\" to json: it is not valid JSON");
        column.push(Scalar::Boolean(true)).unwrap();
        let array = column.finish();
        let array = array.as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(array.iter().collect::<Vec<_>>(), [Some("[1,2]"), Some("true")]);
    }

    #[test]
    fn long_values_are_shown_short() {
        let mut column = ColumnBuilder::new(ColumnType::Int64, 0);
        let error = column.push(Scalar::Text(&"é".repeat(1000))).unwrap_err();
        assert_eq!(error, format!("can't cast \"{}…\" to int64", "é".repeat(60)));
        assert_eq!(
            column.push(Scalar::Binary(&[0xff, 0])).unwrap_err(),
            "can't cast 2 bytes (base64 /wA=) to int64: it is not valid UTF-8"
        );
    }
}
