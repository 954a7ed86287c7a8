//! The bytes of Cassandra's native protocol to columns: the inverse of [`crate::encode`].

use std::sync::Arc;

use acequia_connector_api::ColumnType;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{Array, ArrayRef};
use num_bigint::BigInt;
use scylla::frame::response::result::{CollectionType, ColumnType as CqlType, NativeType};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::encode::float_text;
use crate::text::{self, Duration};
use crate::types::{column_type, type_name, vector_element_size};

/// A column of one of the seven types that is being read.
pub(crate) enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Timestamp(TimestampMicrosecondBuilder),
    /// Text and JSON.
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

impl ColumnBuilder {
    pub(crate) fn new(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Boolean => ColumnBuilder::Boolean(BooleanBuilder::new()),
            ColumnType::Int64 => ColumnBuilder::Int64(Int64Builder::new()),
            ColumnType::Float64 => ColumnBuilder::Float64(Float64Builder::new()),
            ColumnType::Timestamp => {
                ColumnBuilder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.data_type()))
            }
            ColumnType::Text | ColumnType::Json => ColumnBuilder::Text(StringBuilder::new()),
            ColumnType::Binary => ColumnBuilder::Binary(BinaryBuilder::new()),
        }
    }

    fn push_null(&mut self) {
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_null(),
            ColumnBuilder::Int64(builder) => builder.append_null(),
            ColumnBuilder::Float64(builder) => builder.append_null(),
            ColumnBuilder::Timestamp(builder) => builder.append_null(),
            ColumnBuilder::Text(builder) => builder.append_null(),
            ColumnBuilder::Binary(builder) => builder.append_null(),
        }
    }

    /// Append a value of the table, `None` for null.
    ///
    /// # Errors
    /// If no column of ours can hold it; a null is appended then.
    pub(crate) fn push(&mut self, kind: &CqlType<'_>, bytes: Option<&[u8]>) -> Result<(), String> {
        let pushed = match bytes {
            Some(bytes) => self.push_bytes(kind, bytes),
            None => Ok(false),
        };
        if !matches!(pushed, Ok(true)) {
            self.push_null();
        }
        pushed.map(|_| ()).map_err(|reason| format!("a {} can't be read: {reason}", type_name(kind)))
    }

    /// False for a value that is as good as none.
    fn push_bytes(&mut self, kind: &CqlType<'_>, bytes: &[u8]) -> Result<bool, String> {
        if bytes.is_empty() && !can_be_empty(kind) {
            return Ok(false);
        }
        match self {
            ColumnBuilder::Boolean(builder) => builder.append_value(bytes.iter().any(|byte| *byte != 0)),
            ColumnBuilder::Int64(builder) => builder.append_value(integer(bytes)?),
            ColumnBuilder::Float64(builder) => builder.append_value(float(bytes)?),
            ColumnBuilder::Timestamp(builder) => builder.append_value(micros(bytes)?),
            ColumnBuilder::Binary(builder) => builder.append_value(bytes),
            ColumnBuilder::Text(builder) => match kind {
                CqlType::Native(NativeType::Text | NativeType::Ascii) => builder.append_value(utf8(bytes)?),
                CqlType::Native(native) => builder.append_value(native_text(native, bytes)?),
                _ => builder.append_value(json(kind, bytes)?.to_string()),
            },
        }
        Ok(true)
    }

    /// The column; the builder is empty after it.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Int64(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float64(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Timestamp(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()) as Arc<dyn Array>,
            ColumnBuilder::Binary(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Cassandra knows an empty value beside null for every type; only here it means something.
fn can_be_empty(kind: &CqlType<'_>) -> bool {
    matches!(kind, CqlType::Native(NativeType::Text | NativeType::Ascii | NativeType::Blob))
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

fn length(bytes: &[u8]) -> String {
    format!("it has {} bytes", bytes.len())
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| length(bytes))
}

fn integer(bytes: &[u8]) -> Result<i64, String> {
    match bytes.len() {
        1 => Ok(i8::from_be_bytes(fixed(bytes)?).into()),
        2 => Ok(i16::from_be_bytes(fixed(bytes)?).into()),
        4 => Ok(i32::from_be_bytes(fixed(bytes)?).into()),
        _ => Ok(i64::from_be_bytes(fixed(bytes)?)),
    }
}

fn float(bytes: &[u8]) -> Result<f64, String> {
    match bytes.len() {
        4 => Ok(f32::from_be_bytes(fixed(bytes)?).into()),
        _ => Ok(f64::from_be_bytes(fixed(bytes)?)),
    }
}

/// Milliseconds to microseconds.
fn micros(bytes: &[u8]) -> Result<i64, String> {
    let millis = i64::from_be_bytes(fixed(bytes)?);
    millis.checked_mul(1000).ok_or_else(|| format!("{millis} ms is beyond the range of a timestamp in microseconds"))
}

/// A value of a type that is read as text.
fn native_text(kind: &NativeType, bytes: &[u8]) -> Result<String, String> {
    Ok(match kind {
        NativeType::Date => text::format_date(i64::from(u32::from_be_bytes(fixed(bytes)?)) - (1 << 31)),
        NativeType::Time => {
            let nanos = i64::from_be_bytes(fixed(bytes)?);
            if !(0..text::DAY_NANOS).contains(&nanos) {
                return Err(format!("{nanos} ns is no time of day"));
            }
            text::format_time(nanos)
        }
        NativeType::Duration => {
            let (months, rest) = read_vint(bytes).ok_or_else(|| length(bytes))?;
            let (days, rest) = read_vint(rest).ok_or_else(|| length(bytes))?;
            let (nanos, _) = read_vint(rest).ok_or_else(|| length(bytes))?;
            let narrow = |number: i64| i32::try_from(number).map_err(|error| error.to_string());
            text::format_duration(Duration { months: narrow(months)?, days: narrow(days)?, nanos })
        }
        NativeType::Inet => text::format_inet(bytes).ok_or_else(|| length(bytes))?,
        NativeType::Uuid | NativeType::Timeuuid => Uuid::from_bytes(fixed(bytes)?).to_string(),
        NativeType::Varint => BigInt::from_signed_bytes_be(bytes).to_string(),
        NativeType::Decimal => {
            let (scale, digits) = bytes.split_first_chunk().ok_or_else(|| length(bytes))?;
            text::format_decimal(&BigInt::from_signed_bytes_be(digits), i32::from_be_bytes(*scale))
        }
        NativeType::Text | NativeType::Ascii => utf8(bytes)?.to_owned(),
        _ => return Err("this connector does not know the type".to_owned()),
    })
}

/// A value inside another, as JSON. A blob is `"0x..."`, a timestamp RFC 3339, a number that JSON can't hold text.
fn json(kind: &CqlType<'_>, bytes: &[u8]) -> Result<Value, String> {
    match kind {
        CqlType::Native(_) if bytes.is_empty() && !can_be_empty(kind) => Ok(Value::Null),
        CqlType::Native(native) => match column_type(kind) {
            ColumnType::Boolean => Ok(bytes.iter().any(|byte| *byte != 0).into()),
            ColumnType::Int64 => integer(bytes).map(Value::from),
            ColumnType::Float64 => float(bytes).map(|value| match value.is_finite() {
                true => value.into(),
                false => float_text(value).into(),
            }),
            ColumnType::Timestamp => Ok(acequia_connector_api::format_timestamp(micros(bytes)?).into()),
            ColumnType::Binary => Ok(format!("0x{}", hex(bytes)).into()),
            _ => native_text(native, bytes).map(Value::from),
        },
        CqlType::Collection { typ, .. } => {
            let mut reader = Reader(bytes);
            let count = reader.count()?;
            match typ {
                CollectionType::Map(key, kind) => {
                    let mut map = Map::new();
                    for _ in 0..count {
                        let name = match json(key, reader.element()?.unwrap_or_default())? {
                            Value::String(text) => text,
                            other => other.to_string(),
                        };
                        map.insert(name, reader.json(kind)?);
                    }
                    Ok(Value::Object(map))
                }
                CollectionType::List(kind) | CollectionType::Set(kind) => {
                    (0..count).map(|_| reader.json(kind)).collect::<Result<_, _>>().map(Value::Array)
                }
                _ => Err("this connector does not know the type".to_owned()),
            }
        }
        CqlType::Tuple(kinds) => {
            let mut reader = Reader(bytes);
            kinds.iter().map(|kind| reader.json(kind)).collect::<Result<_, _>>().map(Value::Array)
        }
        CqlType::UserDefinedType { definition, .. } => {
            let mut reader = Reader(bytes);
            let fields = definition.field_types.iter();
            let map =
                fields.map(|(name, kind)| Ok((name.to_string(), reader.json(kind)?))).collect::<Result<_, String>>();
            map.map(Value::Object)
        }
        CqlType::Vector { typ, dimensions } => {
            let mut reader = Reader(bytes);
            let size = vector_element_size(typ);
            let mut next = || {
                let size = match size {
                    Some(size) => size,
                    None => reader.unsigned_vint()?,
                };
                json(typ, reader.take(size)?)
            };
            (0..*dimensions).map(|_| next()).collect::<Result<_, _>>().map(Value::Array)
        }
        _ => Err("this connector does not know the type".to_owned()),
    }
}

/// The bytes of a structure, from front to back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32, String> {
        Ok(i32::from_be_bytes(fixed(self.take(4)?)?))
    }

    fn count(&mut self) -> Result<usize, String> {
        usize::try_from(self.int()?).map_err(|error| error.to_string())
    }

    /// An element with its length before it. A tuple or a user-defined type can end before its last fields, which were
    /// added later.
    fn element(&mut self) -> Result<Option<&'a [u8]>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        match usize::try_from(self.int()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn json(&mut self, kind: &CqlType<'_>) -> Result<Value, String> {
        self.element()?.map_or(Ok(Value::Null), |bytes| json(kind, bytes))
    }

    fn unsigned_vint(&mut self) -> Result<usize, String> {
        let (value, rest) = read_unsigned_vint(self.0).ok_or("it is cut off")?;
        self.0 = rest;
        usize::try_from(value).map_err(|error| error.to_string())
    }
}

fn read_vint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (value, rest) = read_unsigned_vint(bytes)?;
    Some(((value >> 1).cast_signed() ^ -(value & 1).cast_signed(), rest))
}

/// See [`crate::encode::write_unsigned_vint`].
fn read_unsigned_vint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let extra = first.leading_ones() as usize;
    let (more, rest) = rest.split_at_checked(extra)?;
    let first = if extra == 8 { 0 } else { u64::from(*first) & (0x7f >> extra) };
    let value = more.iter().fold(first, |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
