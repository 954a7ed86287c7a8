//! Values to the bytes of Cassandra's native protocol (version 4, section 6), whatever the type of the table's column.
//!
//! The rules are those of the project's one cast where it has one: nothing is cut off or rounded in silence. What
//! Cassandra can't hold otherwise is rounded the way that everyone expects, and only that: a `timestamp` has
//! milliseconds (the floor is taken), a `date` days, a `float` 24 bits.

use std::borrow::Cow;

use acequia_connector_api::{ColumnType, format_timestamp};
use acequia_format::parse_timestamp;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow_array::{RecordBatch, TimestampMicrosecondArray};
use num_bigint::BigInt;
use scylla::frame::response::result::{CollectionType, ColumnType as CqlType, NativeType};
use serde_json::Value;
use uuid::Uuid;

use crate::text;
use crate::types::{type_name, vector_element_size};

/// A column of a batch, ready to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    Boolean(&'a BooleanArray),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Json(&'a StringArray),
}

impl<'a> Column<'a> {
    pub(crate) fn new(array: &'a ArrayRef, kind: ColumnType) -> Option<Self> {
        match kind {
            ColumnType::Boolean => array.as_boolean_opt().map(Column::Boolean),
            ColumnType::Int64 => array.as_primitive_opt::<Int64Type>().map(Column::Int64),
            ColumnType::Float64 => array.as_primitive_opt::<Float64Type>().map(Column::Float64),
            ColumnType::Timestamp => array.as_primitive_opt::<TimestampMicrosecondType>().map(Column::Timestamp),
            ColumnType::Text => array.as_string_opt::<i32>().map(Column::Text),
            ColumnType::Binary => array.as_binary_opt::<i32>().map(Column::Binary),
            ColumnType::Json => array.as_string_opt::<i32>().map(Column::Json),
        }
    }

    /// All columns of a batch, by their place; one that has none of the seven types has none.
    pub(crate) fn all(rows: &'a RecordBatch) -> Vec<Option<Self>> {
        let fields = rows.schema_ref().fields().iter();
        fields
            .zip(rows.columns())
            .map(|(field, array)| Column::new(array, acequia_connector_api::column_type_of(field)?))
            .collect()
    }

    /// The value of a row, or `None` for null.
    pub(crate) fn value(&self, row: usize) -> Option<Scalar<'a>> {
        fn valid<A: Array>(array: &A, row: usize) -> bool {
            row < array.len() && array.is_valid(row)
        }
        match *self {
            Column::Boolean(array) => valid(array, row).then(|| Scalar::Boolean(array.value(row))),
            Column::Int64(array) => valid(array, row).then(|| Scalar::Int64(array.value(row))),
            Column::Float64(array) => valid(array, row).then(|| Scalar::Float64(array.value(row))),
            Column::Timestamp(array) => valid(array, row).then(|| Scalar::Timestamp(array.value(row))),
            Column::Text(array) => valid(array, row).then(|| Scalar::Text(array.value(row))),
            Column::Binary(array) => valid(array, row).then(|| Scalar::Binary(array.value(row))),
            // A JSON null is none: Cassandra has no other.
            Column::Json(array) => {
                valid(array, row).then(|| array.value(row)).filter(|json| json.trim() != "null").map(Scalar::Json)
            }
        }
    }
}

/// A value on its way to the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    /// Microseconds since the epoch.
    Timestamp(i64),
    Text(&'a str),
    Binary(&'a [u8]),
    /// A JSON value as text.
    Json(&'a str),
}

/// Why a value does not fit; empty if there is no more to say than that it doesn't.
type Reason = Cow<'static, str>;

/// Append the value's bytes, without their length.
///
/// # Errors
/// With the end of a sentence about the column, which shows the value and the type; what was appended then is to be dropped.
pub(crate) fn encode(value: Scalar<'_>, wanted: &CqlType<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    write(value, wanted, out).map_err(|reason| {
        let colon = if reason.is_empty() { "" } else { ": " };
        format!("has {}, which does not fit {}{colon}{reason}", shown(value), type_name(wanted))
    })
}

fn write(value: Scalar<'_>, wanted: &CqlType<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match wanted {
        CqlType::Native(native) => match value {
            Scalar::Json(raw) if !matches!(native, NativeType::Text | NativeType::Ascii) => {
                write_nested(&parse_json(raw)?, wanted, out)
            }
            Scalar::Json(raw) => match raw.trim_start().starts_with('"') {
                true => write_nested(&parse_json(raw)?, wanted, out),
                false => write_native(Scalar::Text(raw), native, out),
            },
            value => write_native(value, native, out),
        },
        _ => match value {
            Scalar::Json(raw) | Scalar::Text(raw) => write_structure(&parse_json(raw)?, wanted, out),
            _ => Err("it takes JSON".into()),
        },
    }
}

fn parse_json(raw: &str) -> Result<Value, Reason> {
    serde_json::from_str(raw).map_err(|error| format!("it is not JSON: {error}").into())
}

/// A JSON value inside another, or a whole JSON column.
fn write_nested(json: &Value, wanted: &CqlType<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    let CqlType::Native(native) = wanted else {
        return write_structure(json, wanted, out);
    };
    match json {
        Value::Null => Err("it is null".into()),
        Value::Bool(value) => write_native(Scalar::Boolean(*value), native, out),
        Value::Number(number) => match number.as_i64() {
            Some(value) => write_native(Scalar::Int64(value), native, out),
            None if number.is_f64() => write_native(Scalar::Float64(number.as_f64().unwrap_or(f64::NAN)), native, out),
            None => write_native(Scalar::Text(&number.to_string()), native, out),
        },
        Value::String(text) if *native == NativeType::Blob => {
            let bytes = text.strip_prefix("0x").and_then(from_hex).ok_or("write it as \"0x\" and hex digits")?;
            out.extend_from_slice(&bytes);
            Ok(())
        }
        Value::String(text) => write_native(Scalar::Text(text), native, out),
        Value::Array(_) | Value::Object(_) if matches!(native, NativeType::Text | NativeType::Ascii) => {
            write_native(Scalar::Text(&json.to_string()), native, out)
        }
        Value::Array(_) | Value::Object(_) => Err("".into()),
    }
}

/// An element with its length before it.
fn write_element(json: &Value, wanted: &CqlType<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    with_length(out, |out| write_nested(json, wanted, out))
}

fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>) -> Result<(), Reason> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = length_of(out.len() - start - 4)?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length);
    }
    Ok(())
}

fn length_of(length: usize) -> Result<[u8; 4], Reason> {
    i32::try_from(length).map(i32::to_be_bytes).map_err(|_| "it is larger than 2 GiB".into())
}

fn write_structure(json: &Value, wanted: &CqlType<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match (wanted, json) {
        (
            CqlType::Collection { typ: CollectionType::List(kind) | CollectionType::Set(kind), .. },
            Value::Array(list),
        ) => {
            out.extend_from_slice(&length_of(list.len())?);
            list.iter().try_for_each(|element| write_element(element, kind, out))
        }
        (CqlType::Collection { typ: CollectionType::Map(key, kind), .. }, Value::Object(map)) => {
            out.extend_from_slice(&length_of(map.len())?);
            map.iter().try_for_each(|(name, element)| {
                // A name is always text, but may be that of a key with a structure of its own.
                with_length(out, |out| match key.as_ref() {
                    CqlType::Native(_) => write_nested(&Value::String(name.clone()), key, out),
                    _ => write(Scalar::Text(name), key, out),
                })?;
                write_element(element, kind, out)
            })
        }
        (CqlType::Tuple(kinds), Value::Array(list)) if list.len() <= kinds.len() => {
            kinds.iter().zip(list).try_for_each(|(kind, element)| write_field(Some(element), kind, out))
        }
        (CqlType::Tuple(kinds), Value::Array(list)) => {
            Err(format!("it has {} values, not {}", list.len(), kinds.len()).into())
        }
        (CqlType::UserDefinedType { definition, .. }, Value::Object(map)) => {
            if let Some(name) = map.keys().find(|name| !definition.field_types.iter().any(|(field, _)| field == *name))
            {
                return Err(format!("the type has no field `{name}`").into());
            }
            let fields = definition.field_types.iter();
            fields.into_iter().try_for_each(|(name, kind)| {
                write_field(map.get(name.as_ref()), kind, out).map_err(|reason| match reason.is_empty() {
                    true => format!("field `{name}` is no {}", type_name(kind)).into(),
                    false => format!("field `{name}`: {reason}").into(),
                })
            })
        }
        (CqlType::Vector { typ, dimensions }, Value::Array(list)) => {
            if list.len() != usize::from(*dimensions) {
                return Err(format!("it has {} values, not {dimensions}", list.len()).into());
            }
            let fixed = vector_element_size(typ).is_some();
            list.iter().try_for_each(|element| {
                if fixed {
                    return write_nested(element, typ, out);
                }
                let mut bytes = Vec::new();
                write_nested(element, typ, &mut bytes)?;
                write_unsigned_vint(bytes.len() as u64, out);
                out.extend_from_slice(&bytes);
                Ok(())
            })
        }
        (CqlType::UserDefinedType { .. } | CqlType::Collection { typ: CollectionType::Map(..), .. }, _) => {
            Err("it takes a JSON object".into())
        }
        _ => Err("it takes a JSON array".into()),
    }
}

/// A field of a tuple or of a user-defined type, which may be null.
fn write_field(json: Option<&Value>, kind: &CqlType<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match json {
        None | Some(Value::Null) => {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            Ok(())
        }
        Some(json) => write_element(json, kind, out),
    }
}

fn write_native(value: Scalar<'_>, wanted: &NativeType, out: &mut Vec<u8>) -> Result<(), Reason> {
    match wanted {
        NativeType::Text => write_text(value, out),
        NativeType::Ascii => {
            let start = out.len();
            write_text(value, out)?;
            let ascii = out.get(start..).is_some_and(<[u8]>::is_ascii);
            ascii.then_some(()).ok_or("it has characters beyond ASCII".into())
        }
        NativeType::Blob => match value {
            Scalar::Binary(bytes) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Scalar::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            _ => Err("".into()),
        },
        NativeType::Boolean => {
            let value = match value {
                Scalar::Boolean(value) => value,
                Scalar::Int64(0) => false,
                Scalar::Int64(1) => true,
                Scalar::Text(text) if text.eq_ignore_ascii_case("true") => true,
                Scalar::Text(text) if text.eq_ignore_ascii_case("false") => false,
                _ => return Err("".into()),
            };
            out.push(u8::from(value));
            Ok(())
        }
        NativeType::TinyInt => narrow::<i8>(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
        NativeType::SmallInt => narrow::<i16>(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
        NativeType::Int => narrow::<i32>(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
        NativeType::BigInt | NativeType::Counter => {
            narrow::<i64>(value).map(|value| out.extend_from_slice(&value.to_be_bytes()))
        }
        NativeType::Varint => {
            let number = match value {
                Scalar::Text(text) => {
                    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
                    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                    whole.then(|| BigInt::parse_bytes(text.as_bytes(), 10)).flatten().ok_or("")?
                }
                value => integer(value)?.into(),
            };
            out.extend_from_slice(&number.to_signed_bytes_be());
            Ok(())
        }
        NativeType::Decimal => {
            let (number, scale) = match value {
                Scalar::Int64(value) => (value.into(), 0),
                Scalar::Float64(value) => text::parse_decimal(&float_text(value)).ok_or("it is not finite")?,
                Scalar::Text(text) => text::parse_decimal(text).ok_or("")?,
                _ => return Err("".into()),
            };
            out.extend_from_slice(&scale.to_be_bytes());
            out.extend_from_slice(&number.to_signed_bytes_be());
            Ok(())
        }
        NativeType::Double => float(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
        NativeType::Float => {
            let wide = float(value)?;
            let narrow = wide as f32;
            if narrow.is_infinite() && wide.is_finite() {
                return Err("it is beyond the range".into());
            }
            if wide.fract() == 0.0 && matches!(value, Scalar::Int64(_)) && f64::from(narrow) != wide {
                return Err("a float can't hold it exactly".into());
            }
            out.extend_from_slice(&narrow.to_be_bytes());
            Ok(())
        }
        NativeType::Timestamp => {
            let micros = match value {
                Scalar::Timestamp(micros) => micros,
                Scalar::Text(text) => parse_timestamp(text).ok_or("")?,
                Scalar::Int64(_) | Scalar::Float64(_) => {
                    return Err("a number alone has no unit of time, make it a timestamp".into());
                }
                _ => return Err("".into()),
            };
            out.extend_from_slice(&micros.div_euclid(1000).to_be_bytes());
            Ok(())
        }
        NativeType::Date => {
            let days = match value {
                Scalar::Timestamp(micros) => micros.div_euclid(86_400_000_000),
                Scalar::Text(text) => text::parse_date(text).ok_or("write it as 2020-04-13")?,
                _ => return Err("it takes text such as 2020-04-13, or a timestamp".into()),
            };
            // The epoch is the middle of an unsigned number.
            let days = u32::try_from(days + (1 << 31)).map_err(|_| "it is beyond the range")?;
            out.extend_from_slice(&days.to_be_bytes());
            Ok(())
        }
        NativeType::Time => match value {
            Scalar::Text(text) => {
                let nanos = text::parse_time(text).ok_or("write it as 12:09:37.768982")?;
                out.extend_from_slice(&nanos.to_be_bytes());
                Ok(())
            }
            _ => Err("it takes text such as 12:09:37.768982".into()),
        },
        NativeType::Duration => match value {
            Scalar::Text(text) => {
                let duration = text::parse_duration(text).ok_or("write it as 1mo2d3h or P1M2DT3H")?;
                write_vint(duration.months.into(), out);
                write_vint(duration.days.into(), out);
                write_vint(duration.nanos, out);
                Ok(())
            }
            _ => Err("it takes text such as 1mo2d3h".into()),
        },
        NativeType::Uuid | NativeType::Timeuuid => {
            let uuid = match value {
                Scalar::Text(text) => Uuid::try_parse(text).map_err(|_| "")?,
                Scalar::Binary(bytes) => Uuid::from_slice(bytes).map_err(|_| "it has not 16 bytes")?,
                _ => return Err("it takes text".into()),
            };
            if *wanted == NativeType::Timeuuid && uuid.get_version_num() != 1 {
                return Err("it is not a UUID of version 1".into());
            }
            out.extend_from_slice(uuid.as_bytes());
            Ok(())
        }
        NativeType::Inet => {
            match value {
                Scalar::Text(text) => match text.parse::<std::net::IpAddr>().map_err(|_| "it is not an IP address")? {
                    std::net::IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                    std::net::IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                },
                Scalar::Binary(bytes) if matches!(bytes.len(), 4 | 16) => out.extend_from_slice(bytes),
                _ => return Err("it takes text such as 127.0.0.1".into()),
            }
            Ok(())
        }
        _ => Err("this connector does not know the type".into()),
    }
}

fn write_text(value: Scalar<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match value {
        Scalar::Text(text) | Scalar::Json(text) => out.extend_from_slice(text.as_bytes()),
        Scalar::Int64(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Scalar::Boolean(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Scalar::Float64(value) => out.extend_from_slice(float_text(value).as_bytes()),
        Scalar::Timestamp(micros) => out.extend_from_slice(format_timestamp(micros).as_bytes()),
        Scalar::Binary(bytes) => {
            std::str::from_utf8(bytes).map_err(|_| "it is not valid UTF-8")?;
            out.extend_from_slice(bytes);
        }
    }
    Ok(())
}

fn integer(value: Scalar<'_>) -> Result<i64, Reason> {
    match value {
        Scalar::Int64(value) => Ok(value),
        Scalar::Boolean(value) => Ok(value.into()),
        Scalar::Timestamp(micros) => Ok(micros),
        Scalar::Text(text) => text.parse().map_err(|_| "".into()),
        Scalar::Float64(value) => {
            // -2^63 and 2^63 are doubles; i64::MAX is not.
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
            if fits && value.fract() == 0.0 { Ok(value as i64) } else { Err("it is not a whole number".into()) }
        }
        _ => Err("".into()),
    }
}

fn narrow<N: TryFrom<i64>>(value: Scalar<'_>) -> Result<N, Reason> {
    integer(value)?.try_into().map_err(|_| "it is beyond the range".into())
}

fn float(value: Scalar<'_>) -> Result<f64, Reason> {
    match value {
        Scalar::Float64(value) => Ok(value),
        Scalar::Boolean(value) => Ok(f64::from(u8::from(value))),
        Scalar::Int64(value) => {
            let float = value as f64;
            let exact = integer(Scalar::Float64(float)) == Ok(value);
            if exact { Ok(float) } else { Err("a double can't hold it exactly".into()) }
        }
        Scalar::Text(text) => {
            let float: f64 = text.parse().map_err(|_| "")?;
            let overflowed = float.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit());
            if overflowed { Err("it is beyond the range".into()) } else { Ok(float) }
        }
        _ => Err("".into()),
    }
}

/// The shortest text that reads back as the same double.
pub(crate) fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        Value::from(value).to_string()
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| (pair.len() == 2).then(|| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())?).collect()
}

/// A signed number in as few bytes as it needs, zigzag (protocol version 5, section 3, `[vint]`).
fn write_vint(value: i64, out: &mut Vec<u8>) {
    write_unsigned_vint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

/// The number of leading ones in the first byte is the number of bytes after it.
pub(crate) fn write_unsigned_vint(value: u64, out: &mut Vec<u8>) {
    let bits = 64 - (value | 1).leading_zeros();
    // Seven bits a byte, but nine bytes hold all 64.
    let extra = if bits > 56 { 8 } else { (bits - 1) / 7 };
    let bytes = value.to_be_bytes();
    let mask = if extra == 8 { 0xff } else { !(0xff_u8 >> extra) };
    if extra == 8 {
        out.push(mask);
        out.extend_from_slice(&bytes);
    } else if let Some((first, rest)) = bytes.get(7 - extra as usize..).and_then(<[u8]>::split_first) {
        out.push(first | mask);
        out.extend_from_slice(rest);
    }
}

/// A value in a message: quoted if it is text, and not too long.
fn shown(value: Scalar<'_>) -> String {
    let short = |text: &str| match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    match value {
        Scalar::Boolean(value) => value.to_string(),
        Scalar::Int64(value) => value.to_string(),
        Scalar::Float64(value) => float_text(value),
        Scalar::Timestamp(micros) => format_timestamp(micros),
        Scalar::Text(text) => format!("{:?}", short(text)),
        Scalar::Json(text) => short(text),
        Scalar::Binary(bytes) => format!("{} bytes", bytes.len()),
    }
}
