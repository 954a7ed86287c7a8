//! The one cast of the project.

use std::sync::Arc;

use acequia_connector_api::ColumnType;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};

use crate::column::{ColumnBuilder, Scalar};
use crate::parse::EXACT;

/// A column after a cast.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The values, as many as before. A value that could not be cast is null.
    pub values: ArrayRef,
    /// The rows whose value could not be cast, in order, with a message that shows the value and the wanted type.
    pub failed: Vec<(usize, String)>,
}

/// Cast a column. `from` must be the column's type; null stays null; the same type is the same memory. Nothing is rounded or
/// cut off in silence: a value that the wanted type can't hold is refused.
///
/// | from | to | |
/// |---|---|---|
/// | text | int64, float64, boolean | parsed, no white space; `true` and `false` in any case of letters |
/// | text | timestamp | see [`crate::parse_timestamp`] |
/// | text | binary | its UTF-8 |
/// | text | json | parsed: it must be a JSON value |
/// | int64 | float64 | if a double holds it exactly |
/// | float64 | int64 | if it is whole and in range |
/// | int64 | boolean | 0 and 1 |
/// | boolean | int64, float64 | 0 and 1 |
/// | timestamp | int64 | microseconds since the epoch |
/// | int64, float64 | timestamp | never: a number has no unit of time |
/// | binary | all others | as the text that it holds, if it is UTF-8 |
/// | json | all others | a scalar as its own value, `null` as null; to text and binary also an object or array, compact |
/// | all others | text | floats as short as they can be, timestamps as RFC 3339 |
/// | all others | json | numbers and booleans as such, timestamps as strings |
pub fn cast_column(column: &ArrayRef, from: ColumnType, to: ColumnType) -> Cast {
    if from == to {
        return Cast { values: column.clone(), failed: Vec::new() };
    }
    if let Some(values) = exact_floats(column, from, to) {
        return Cast { values, failed: Vec::new() };
    }
    let mut values = ColumnBuilder::new(to, column.len());
    let mut failed = Vec::new();
    let Some(reader) = Reader::new(column, from) else {
        for row in 0..column.len() {
            values.push_null();
            if column.is_valid(row) {
                failed.push((row, format!("can't cast to {to}: the column is not {from} but {}", column.data_type())));
            }
        }
        return Cast { values: values.finish(), failed };
    };
    for row in 0..column.len() {
        if let Err(error) = values.push(reader.get(row)) {
            values.push_null();
            failed.push((row, error));
        }
    }
    Cast { values: values.finish(), failed }
}

/// Whether there is any value that [`cast_column`] can cast from one type to the other. If not, a pipeline that would cast
/// them is wrong before its first row.
pub fn can_cast(from: ColumnType, to: ColumnType) -> bool {
    use ColumnType::{Boolean, Float64, Int64, Timestamp};
    !matches!((from, to), (Boolean | Int64 | Float64, Timestamp) | (Timestamp, Boolean | Float64) | (Float64, Boolean))
}

/// The way of most casts, int64 to float64 where every value is small, without a look at each value by itself.
fn exact_floats(column: &ArrayRef, from: ColumnType, to: ColumnType) -> Option<ArrayRef> {
    if (from, to) != (ColumnType::Int64, ColumnType::Float64) {
        return None;
    }
    let column = column.as_primitive_opt::<Int64Type>()?;
    // What stands in the slot of a null may be large too; that only costs the slower way.
    let exact = column.values().iter().fold(true, |exact, value| exact & (value.unsigned_abs() <= EXACT as u64));
    exact.then(|| Arc::new(column.unary::<_, Float64Type>(|value| value as f64)) as ArrayRef)
}

/// A column of a known type, read value by value.
#[derive(Debug)]
pub(crate) enum Reader<'a> {
    Boolean(&'a BooleanArray),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Json(&'a StringArray),
}

impl<'a> Reader<'a> {
    /// `None` if the column is not of that type.
    pub(crate) fn new(column: &'a ArrayRef, kind: ColumnType) -> Option<Self> {
        Some(match kind {
            ColumnType::Boolean => Reader::Boolean(column.as_boolean_opt()?),
            ColumnType::Int64 => Reader::Int64(column.as_primitive_opt::<Int64Type>()?),
            ColumnType::Float64 => Reader::Float64(column.as_primitive_opt::<Float64Type>()?),
            ColumnType::Timestamp => Reader::Timestamp(column.as_primitive_opt::<TimestampMicrosecondType>()?),
            ColumnType::Text => Reader::Text(column.as_string_opt::<i32>()?),
            ColumnType::Binary => Reader::Binary(column.as_binary_opt::<i32>()?),
            ColumnType::Json => Reader::Json(column.as_string_opt::<i32>()?),
        })
    }

    /// The value of a row, which must be below the column's length.
    pub(crate) fn get(&self, row: usize) -> Scalar<'a> {
        match self {
            Reader::Boolean(array) if array.is_valid(row) => Scalar::Boolean(array.value(row)),
            Reader::Int64(array) if array.is_valid(row) => Scalar::Int64(array.value(row)),
            Reader::Float64(array) if array.is_valid(row) => Scalar::Float64(array.value(row)),
            Reader::Timestamp(array) if array.is_valid(row) => Scalar::Timestamp(array.value(row)),
            Reader::Text(array) if array.is_valid(row) => Scalar::Text(array.value(row)),
            Reader::Binary(array) if array.is_valid(row) => Scalar::Binary(array.value(row)),
            Reader::Json(array) if array.is_valid(row) => Scalar::Json(array.value(row).trim_ascii()),
            _ => Scalar::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ColumnType::*;
    use acequia_connector_api::row_to_json;
    use arrow_array::RecordBatch;
    use serde_json::{Value, json};

    #[test]
    fn what_can_never_be_cast_is_known_without_a_value() {
        let kinds = [Boolean, Int64, Float64, Timestamp, Text, Binary, Json];
        // For each type values that each other type can hold, if any of its values can be.
        let values = |kind| match kind {
            Boolean => vec![json!(true)],
            Int64 | Timestamp => vec![json!(1)],
            Float64 => vec![json!(1.0)],
            Json => vec![json!("1"), json!("true"), json!("\"2020-04-13\"")],
            _ => vec![json!("1"), json!("true"), json!("2020-04-13")],
        };
        for from in kinds {
            for to in kinds {
                let values = values(from);
                let cast = cast_column(&column(from, &values), from, to);
                assert_eq!(cast.failed.len() < values.len(), can_cast(from, to), "{from} to {to}: {:?}", cast.failed);
            }
        }
    }

    /// A column from JSON values (binary from text).
    fn column(kind: ColumnType, values: &[Value]) -> ArrayRef {
        let mut builder = ColumnBuilder::new(kind, 0);
        for value in values {
            let text = value.to_string();
            let scalar = match (value, kind) {
                (Value::Null, _) => Scalar::Null,
                (Value::String(text), Json) => Scalar::Json(text),
                (Value::String(text), _) => Scalar::Text(text),
                (Value::Number(number), Timestamp) => Scalar::Timestamp(number.as_i64().unwrap()),
                _ => Scalar::Json(&text),
            };
            builder.push(scalar).unwrap();
        }
        builder.finish()
    }

    /// What a column holds, as JSON; for `json` the text of each value.
    fn values(array: &ArrayRef, kind: ColumnType) -> Vec<Value> {
        if kind == Json {
            return array.as_string::<i32>().iter().map(Value::from).collect();
        }
        let field = kind.arrow_field("v", true);
        let schema = Arc::new(arrow_schema::Schema::new(vec![field]));
        let rows = RecordBatch::try_new(schema, vec![array.clone()]).unwrap();
        (0..rows.num_rows()).map(|row| row_to_json(&rows, row)["v"].clone()).collect()
    }

    /// Values, and what each becomes; a text that starts with `!` is the end of the message with which it is refused.
    fn check(from: ColumnType, to: ColumnType, table: &[(Value, Value)]) {
        let given: Vec<Value> = table.iter().map(|(given, _)| given.clone()).collect();
        let cast = cast_column(&column(from, &given), from, to);
        let mut failed = cast.failed.iter();
        for (row, found) in values(&cast.values, to).into_iter().enumerate() {
            match &table[row].1 {
                Value::String(text) if text.starts_with('!') => {
                    let (at, error) = failed.next().unwrap();
                    assert_eq!((*at, found), (row, Value::Null), "{from} to {to}");
                    assert_eq!(format!("!{error}"), *text, "{from} to {to}");
                }
                expected => assert_eq!(found, *expected, "{from} to {to}, {}", given[row]),
            }
        }
        assert_eq!(failed.next(), None);
        assert_eq!(cast.values.len(), table.len());
    }

    #[test]
    fn text() {
        let no = |value: &str, to: &str| json!(format!("!can't cast {value:?} to {to}"));
        check(
            Text,
            Int64,
            &[
                (json!("42"), json!(42)),
                (json!("-9223372036854775808"), json!(i64::MIN)),
                (json!("9223372036854775808"), no("9223372036854775808", "int64")),
                (json!("+7"), json!(7)),
                (json!("1.0"), no("1.0", "int64")),
                (json!(" 1"), no(" 1", "int64")),
                (json!(""), no("", "int64")),
                (json!(null), json!(null)),
            ],
        );
        check(
            Text,
            Float64,
            &[
                (json!("15.5"), json!(15.5)),
                (json!("-0.5e-3"), json!(-0.0005)),
                (json!("7"), json!(7.0)),
                (json!("9007199254740993"), no("9007199254740993", "float64")),
                (json!("15,5"), no("15,5", "float64")),
            ],
        );
        check(
            Text,
            Boolean,
            &[(json!("true"), json!(true)), (json!("False"), json!(false)), (json!("1"), no("1", "boolean"))],
        );
        // Micros by Python's datetime, as in `parse`.
        check(
            Text,
            Timestamp,
            &[
                (json!("2020-04-13 12:09:37.768982"), json!("2020-04-13T12:09:37.768982Z")),
                (json!("2020-04-13T14:09:37+02:00"), json!("2020-04-13T12:09:37.000000Z")),
                (json!("1586779777"), no("1586779777", "timestamp")),
            ],
        );
        // Base64 by Python.
        check(Text, Binary, &[(json!("é"), json!("w6k=")), (json!(""), json!(""))]);
        check(
            Text,
            Json,
            &[
                (json!("{\"a\": [1, 2]}"), json!("{\"a\":[1,2]}")),
                (json!("12345678901234567890.5"), json!("12345678901234567890.5")),
                (json!("abc"), json!("!can't cast \"abc\" to json: it is not valid JSON")),
            ],
        );
    }

    #[test]
    fn numbers_and_booleans() {
        let range = ": it is not a whole number in the range of int64";
        check(
            Int64,
            Float64,
            &[
                (json!(42), json!(42.0)),
                (json!(1i64 << 60), json!(1_152_921_504_606_846_976.0)),
                (
                    json!(9_007_199_254_740_993i64),
                    json!("!can't cast 9007199254740993 to float64: float64 can't hold it exactly"),
                ),
                (json!(null), json!(null)),
            ],
        );
        check(Int64, Float64, &[(json!(-3), json!(-3.0)), (json!(null), json!(null))]);
        check(
            Int64,
            Boolean,
            &[(json!(0), json!(false)), (json!(1), json!(true)), (json!(2), json!("!can't cast 2 to boolean"))],
        );
        check(Int64, Text, &[(json!(-42), json!("-42"))]);
        check(Int64, Binary, &[(json!(1), json!("MQ=="))]);
        check(Int64, Json, &[(json!(-42), json!("-42"))]);
        let unit = "!can't cast 1 to timestamp: a number alone has no unit of time, write a date and time";
        check(Int64, Timestamp, &[(json!(1), json!(unit))]);
        check(
            Float64,
            Int64,
            &[
                (json!(3.0), json!(3)),
                (json!(-0.0), json!(0)),
                (json!(3.5), json!(format!("!can't cast 3.5 to int64{range}"))),
                (json!(1e19), json!(format!("!can't cast 1e+19 to int64{range}"))),
            ],
        );
        check(
            Float64,
            Text,
            &[(json!(15.5), json!("15.5")), (json!(1.0), json!("1.0")), (json!(1e300), json!("1e+300"))],
        );
        check(Float64, Json, &[(json!(0.1), json!("0.1"))]);
        check(Float64, Boolean, &[(json!(1.0), json!("!can't cast 1.0 to boolean"))]);
        check(Boolean, Int64, &[(json!(true), json!(1)), (json!(false), json!(0))]);
        check(Boolean, Float64, &[(json!(true), json!(1.0))]);
        check(Boolean, Text, &[(json!(true), json!("true"))]);
        check(Boolean, Json, &[(json!(false), json!("false"))]);
        check(Boolean, Timestamp, &[(json!(true), json!("!can't cast true to timestamp"))]);
    }

    #[test]
    fn what_is_no_number() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]));
        let texts = cast_column(&floats, Float64, Text);
        assert_eq!(values(&texts.values, Text), [json!("NaN"), json!("Infinity"), json!("-Infinity")]);
        let back = cast_column(&texts.values, Text, Float64);
        assert!(back.values.as_primitive::<Float64Type>().value(0).is_nan());
        assert_eq!(back.values.as_primitive::<Float64Type>().value(2), f64::NEG_INFINITY);
        let none = cast_column(&floats, Float64, Json);
        assert_eq!(none.failed[1].1, "can't cast Infinity to json: JSON has no such number");
        assert_eq!(cast_column(&floats, Float64, Int64).failed.len(), 3);
    }

    #[test]
    fn timestamps() {
        // Python: datetime(2020, 4, 13, 12, 9, 37, 768982, timezone.utc).timestamp() * 1e6
        let time = json!(1_586_779_777_768_982i64);
        check(Timestamp, Text, &[(time.clone(), json!("2020-04-13T12:09:37.768982Z"))]);
        check(Timestamp, Json, &[(time.clone(), json!("\"2020-04-13T12:09:37.768982Z\""))]);
        check(Timestamp, Int64, &[(time.clone(), time.clone())]);
        check(Timestamp, Float64, &[(time, json!("!can't cast 2020-04-13T12:09:37.768982Z to float64"))]);
    }

    #[test]
    fn binary() {
        check(Binary, Text, &[(json!("é"), json!("é"))]);
        check(Binary, Float64, &[(json!("15.5"), json!(15.5)), (json!("x"), json!("!can't cast \"x\" to float64"))]);
        check(Binary, Json, &[(json!("[ 1 ]"), json!("[1]"))]);
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\xff"[..], b"ok"]));
        let cast = cast_column(&bytes, Binary, Text);
        assert_eq!(values(&cast.values, Text), [json!(null), json!("ok")]);
        assert_eq!(cast.failed, [(0, "can't cast 1 bytes (base64 /w==) to text: it is not valid UTF-8".to_owned())]);
    }

    #[test]
    fn json_values() {
        check(
            Json,
            Int64,
            &[
                (json!("42"), json!(42)),
                (json!("42.0"), json!(42)),
                (json!("\"42\""), json!(42)),
                (json!("true"), json!(1)),
                (json!("null"), json!(null)),
                (json!("[1]"), json!("!can't cast [1] to int64")),
            ],
        );
        check(
            Json,
            Float64,
            &[(json!("15.50"), json!(15.5)), (json!("\"15.5\""), json!(15.5)), (json!("1"), json!(1.0))],
        );
        check(
            Json,
            Boolean,
            &[(json!("true"), json!(true)), (json!("\"false\""), json!(false)), (json!("1"), json!(true))],
        );
        check(
            Json,
            Text,
            &[
                (json!("\"a\\n\\\"b\""), json!("a\n\"b")),
                (json!("15.50"), json!("15.50")),
                (json!("{\"a\": 1}"), json!("{\"a\":1}")),
                (json!("null"), json!(null)),
                (json!("\"\\ud800\""), json!("!can't cast \"\\ud800\" to text: it is not valid UTF-8")),
            ],
        );
        check(Json, Timestamp, &[(json!("\"2020-04-13\""), json!("2020-04-13T00:00:00.000000Z"))]);
        check(Json, Binary, &[(json!("\"é\""), json!("w6k="))]);
    }

    #[test]
    fn the_same_type_is_the_same_memory() {
        for kind in ColumnType::ALL {
            let column = column(kind, &[json!(null)]);
            let cast = cast_column(&column, kind, kind);
            assert!(Arc::ptr_eq(&column, &cast.values) && cast.failed.is_empty());
        }
    }

    #[test]
    fn a_column_of_another_type_than_it_is_said_to_be() {
        let cast = cast_column(&column(Int64, &[json!(1), json!(null)]), Text, Float64);
        assert_eq!(cast.failed, [(0, "can't cast to float64: the column is not text but Int64".to_owned())]);
        assert_eq!(cast.values.null_count(), 2);
    }

    #[test]
    fn a_slice_of_a_column() {
        let whole = column(Text, &[json!("x"), json!("1"), json!(null), json!("y")]);
        let cast = cast_column(&whole.slice(1, 3), Text, Int64);
        assert_eq!(values(&cast.values, Int64), [json!(1), json!(null), json!(null)]);
        assert_eq!(cast.failed[0].0, 2);
    }
}
