//! The types of a table's columns.

use acequia_connector_api::ColumnType;
use scylla::frame::response::result::{CollectionType, ColumnType as CqlType, NativeType};

/// The name as CQL writes it.
pub(crate) fn type_name(kind: &CqlType<'_>) -> String {
    match kind {
        CqlType::Native(native) => native_name(native).to_owned(),
        CqlType::Collection { frozen, typ } => {
            let inner = match typ {
                CollectionType::List(kind) => format!("list<{}>", type_name(kind)),
                CollectionType::Set(kind) => format!("set<{}>", type_name(kind)),
                CollectionType::Map(key, kind) => format!("map<{}, {}>", type_name(key), type_name(kind)),
                _ => "a collection".to_owned(),
            };
            if *frozen { format!("frozen<{inner}>") } else { inner }
        }
        CqlType::Vector { typ, dimensions } => format!("vector<{}, {dimensions}>", type_name(typ)),
        CqlType::UserDefinedType { definition, .. } => definition.name.to_string(),
        CqlType::Tuple(kinds) => format!("tuple<{}>", kinds.iter().map(type_name).collect::<Vec<_>>().join(", ")),
        _ => "a type that this connector does not know".to_owned(),
    }
}

fn native_name(native: &NativeType) -> &'static str {
    match native {
        NativeType::Ascii => "ascii",
        NativeType::Boolean => "boolean",
        NativeType::Blob => "blob",
        NativeType::Counter => "counter",
        NativeType::Date => "date",
        NativeType::Decimal => "decimal",
        NativeType::Double => "double",
        NativeType::Duration => "duration",
        NativeType::Float => "float",
        NativeType::Int => "int",
        NativeType::BigInt => "bigint",
        NativeType::Text => "text",
        NativeType::Timestamp => "timestamp",
        NativeType::Inet => "inet",
        NativeType::SmallInt => "smallint",
        NativeType::TinyInt => "tinyint",
        NativeType::Time => "time",
        NativeType::Timeuuid => "timeuuid",
        NativeType::Uuid => "uuid",
        NativeType::Varint => "varint",
        _ => "a type that this connector does not know",
    }
}

/// The column type that a value of the table is read as.
pub(crate) fn column_type(kind: &CqlType<'_>) -> ColumnType {
    match kind {
        CqlType::Native(native) => match native {
            NativeType::Boolean => ColumnType::Boolean,
            NativeType::TinyInt | NativeType::SmallInt | NativeType::Int | NativeType::BigInt | NativeType::Counter => {
                ColumnType::Int64
            }
            NativeType::Float | NativeType::Double => ColumnType::Float64,
            NativeType::Timestamp => ColumnType::Timestamp,
            NativeType::Blob => ColumnType::Binary,
            _ => ColumnType::Text,
        },
        _ => ColumnType::Json,
    }
}

/// The table's type for a row's column, where the sink creates the table.
pub(crate) fn created_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Boolean => "boolean",
        ColumnType::Int64 => "bigint",
        ColumnType::Float64 => "double",
        ColumnType::Timestamp => "timestamp",
        ColumnType::Text | ColumnType::Json => "text",
        ColumnType::Binary => "blob",
    }
}

/// How long an element of a vector is, if all are of one length; the others have their length before them.
pub(crate) fn vector_element_size(kind: &CqlType<'_>) -> Option<usize> {
    match kind {
        CqlType::Native(native) => native.type_size_for_vector(),
        CqlType::Vector { typ, dimensions } => Some(vector_element_size(typ)? * usize::from(*dimensions)),
        _ => None,
    }
}

/// A name in a CQL statement, exactly as it is.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
