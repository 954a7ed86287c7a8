//! Values as Cassandra sends them: read or refused; and what is read can be written, and is the same then.

use std::sync::Arc;

use acequia_connector_api::ColumnType;
use acequia_connector_cassandra::fuzzing::{column_type, decode, encode};
use arbitrary::{Result, Unstructured};
use arrow_array::{Array, ArrayRef, BinaryArray, StringArray};
use scylla::frame::response::result::{CollectionType, ColumnType as CqlType, NativeType, UserDefinedType};

use crate::rows;

const NATIVE: [NativeType; 20] = [
    NativeType::Ascii,
    NativeType::Boolean,
    NativeType::Blob,
    NativeType::Counter,
    NativeType::Date,
    NativeType::Decimal,
    NativeType::Double,
    NativeType::Duration,
    NativeType::Float,
    NativeType::Int,
    NativeType::BigInt,
    NativeType::Text,
    NativeType::Timestamp,
    NativeType::Inet,
    NativeType::SmallInt,
    NativeType::TinyInt,
    NativeType::Time,
    NativeType::Timeuuid,
    NativeType::Uuid,
    NativeType::Varint,
];

pub(crate) fn run(data: &[u8]) {
    let _ = inputs(&mut Unstructured::new(data));
}

fn inputs(input: &mut Unstructured<'_>) -> Result<()> {
    let kind = kind(input, 3)?;
    let as_text = input.arbitrary()?;
    let bytes = rows::rest(input)?;
    read(&kind, bytes);
    if as_text && let Ok(text) = str::from_utf8(bytes) {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
        write(&texts, ColumnType::Text, &kind);
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            write(&texts, ColumnType::Json, &kind);
        }
    }
    let binary: ArrayRef = Arc::new(BinaryArray::from(vec![bytes]));
    write(&binary, ColumnType::Binary, &kind);
    Ok(())
}

/// A type, nested at most so deep.
fn kind(input: &mut Unstructured<'_>, depth: usize) -> Result<CqlType<'static>> {
    let choice: u8 = input.arbitrary()?;
    if depth == 0 || choice < 128 {
        return Ok(CqlType::Native(NATIVE[usize::from(choice) % NATIVE.len()].clone()));
    }
    let mut inner = || kind(input, depth - 1);
    let collection = |typ| CqlType::Collection { frozen: choice & 8 == 0, typ };
    Ok(match choice % 8 {
        0 | 1 => collection(CollectionType::List(Box::new(inner()?))),
        2 => collection(CollectionType::Set(Box::new(inner()?))),
        3 | 4 => collection(CollectionType::Map(Box::new(inner()?), Box::new(inner()?))),
        5 => CqlType::Tuple(vec![inner()?, inner()?]),
        6 => {
            let field_types = vec![("a".into(), inner()?), ("b".into(), inner()?)];
            let definition = Arc::new(UserDefinedType { name: "t".into(), keyspace: "k".into(), field_types });
            CqlType::UserDefinedType { frozen: true, definition }
        }
        _ => {
            let typ = Box::new(inner()?);
            CqlType::Vector { typ, dimensions: u16::from(input.arbitrary::<u8>()? % 5) }
        }
    })
}

fn read(kind: &CqlType<'_>, bytes: &[u8]) {
    let Ok(column) = decode(kind, Some(bytes)) else { return };
    assert_eq!(column.len(), 1);
    column.to_data().validate_full().expect("a valid array");
    write(&column, column_type(kind), kind);
}

/// What can be written can be read, and written and read again is the same.
fn write(column: &ArrayRef, from: ColumnType, kind: &CqlType<'_>) {
    let Ok(Some(bytes)) = encode(column, from, kind) else { return };
    let read = decode(kind, Some(&bytes)).expect("what was written can be read");
    if read.is_null(0) {
        return;
    }
    match encode(&read, column_type(kind), kind) {
        // Not the same bytes: a tuple may end before its last nulls. `Debug`, so that what is no number is equal to itself.
        Ok(again) => {
            let reread = decode(kind, again.as_deref()).expect("what was written can be read");
            assert_eq!(format!("{reread:?}"), format!("{read:?}"));
        }
        // A list can have a null in it that another client wrote; a map a key twice.
        Err(error) => assert!(error.contains("null"), "{error}"),
    }
}
