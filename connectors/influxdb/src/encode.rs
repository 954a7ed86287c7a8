//! Rows to lines.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use acequia_connector_api::{Batch, ColumnType, ConnectorError, FailedRow, base64, column_type_of, format_timestamp};
use acequia_format::cast_column;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{Schema, SchemaRef};

use crate::chunk::Builder;
use crate::config::{InfluxSink, Precision};
use crate::escape::{Place, check_name, push_name, push_string};

/// Makes lines of rows.
#[derive(Debug)]
pub(crate) struct Encoder {
    config: InfluxSink,
    /// Tags of every point: key and value.
    constant: Vec<(String, String)>,
    plan: Option<Plan>,
    /// The last time that was given to a point, with `time_of_writing`.
    last: i64,
}

/// What the columns of one schema become.
#[derive(Debug)]
struct Plan {
    schema: SchemaRef,
    /// Written at the start of each line: the measurement, unless it is in a column.
    head: Vec<u8>,
    measurement: Option<usize>,
    tags: Vec<Tag>,
    /// `key=`, and its column.
    fields: Vec<(Vec<u8>, usize)>,
    time: Option<usize>,
}

#[derive(Debug)]
struct Tag {
    name: String,
    /// `,key=`, for a constant with its value.
    start: Vec<u8>,
    column: Option<usize>,
}

/// A column in the type in which it is written.
enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
}

impl<'a> Values<'a> {
    fn new(column: &'a ArrayRef) -> Option<Self> {
        let column: &dyn Array = column.as_ref();
        let boolean = column.as_boolean_opt().map(Values::Boolean);
        boolean
            .or_else(|| column.as_primitive_opt::<Int64Type>().map(Values::Int64))
            .or_else(|| column.as_primitive_opt::<Float64Type>().map(Values::Float64))
            .or_else(|| column.as_primitive_opt::<TimestampMicrosecondType>().map(Values::Timestamp))
            .or_else(|| column.as_string_opt::<i32>().map(Values::Text))
            .or_else(|| column.as_binary_opt::<i32>().map(Values::Binary))
    }

    /// Write the value of a row as a field's; false if it is null.
    fn push(&self, row: usize, into: &mut Vec<u8>) -> Result<bool, String> {
        let null = match self {
            Values::Boolean(array) => array.is_null(row),
            Values::Int64(array) => array.is_null(row),
            Values::Float64(array) => array.is_null(row),
            Values::Timestamp(array) => array.is_null(row),
            Values::Text(array) => array.is_null(row),
            Values::Binary(array) => array.is_null(row),
        };
        if null {
            return Ok(false);
        }
        match self {
            Values::Boolean(array) => into.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Values::Int64(array) => {
                push_integer(array.value(row), into);
                into.push(b'i');
            }
            Values::Float64(array) => {
                let value = array.value(row);
                if !value.is_finite() {
                    return Err(format!("is {value}, which a field can't hold"));
                }
                // With an exponent where that is shorter.
                push_display(into, format_args!("{value:?}"));
            }
            Values::Timestamp(array) => push_string(&format_timestamp(array.value(row)), into),
            Values::Text(array) => push_string(array.value(row), into),
            Values::Binary(array) => push_string(&base64(array.value(row)), into),
        }
        Ok(true)
    }
}

/// In decimal digits, without what `fmt` does beside that: there are two in most lines.
fn push_integer(value: i64, into: &mut Vec<u8>) {
    // `i64::MIN` has 19 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = value.unsigned_abs();
    for place in digits.iter_mut().rev() {
        // Below 10.
        *place = b'0' + (rest % 10) as u8;
        start -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        into.push(b'-');
    }
    into.extend_from_slice(digits.get(start..).unwrap_or_default());
}

fn push_display(into: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = into.write_fmt(text);
}

/// A column cast to the type that is needed, with its rows that can't be.
struct Wanted {
    name: String,
    values: ArrayRef,
    /// In the order of the rows.
    failed: Vec<(usize, String)>,
}

impl Wanted {
    fn new(batch: &Batch, column: usize, kind: ColumnType) -> Option<Self> {
        let field = batch.rows.schema_ref().fields().get(column)?;
        let values = batch.rows.columns().get(column)?;
        let cast = cast_column(values, column_type_of(field)?, kind);
        Some(Wanted { name: field.name().clone(), values: cast.values, failed: cast.failed })
    }

    /// The value of a row, or why it has none.
    fn text(&self, row: usize) -> Result<Option<&str>, String> {
        self.sound(row)?;
        let values = self.values.as_string_opt::<i32>().filter(|values| values.is_valid(row));
        Ok(values.map(|values| values.value(row)).filter(|text| !text.is_empty()))
    }

    fn sound(&self, row: usize) -> Result<(), String> {
        match self.failed.binary_search_by_key(&row, |(row, _)| *row).ok().and_then(|at| self.failed.get(at)) {
            Some((_, message)) => Err(format!("column `{}`: {message}", self.name)),
            None => Ok(()),
        }
    }
}

/// Where the points of a batch get their time.
enum Time {
    /// Integers in the unit of the precision.
    Units(Wanted),
    Micros(Wanted),
    Writing,
}

impl Encoder {
    pub(crate) fn new(config: &InfluxSink, constant: Vec<(String, String)>) -> Result<Self, ConnectorError> {
        for (name, value) in &constant {
            check_name(Place::Tag, name)
                .and_then(|()| push_name(Place::Tag, value, &mut Vec::new()).map_err(str::to_owned))
                .map_err(|message| ConnectorError::failed(format!("`[tags]` in the file of `config`: {message}")))?;
        }
        Ok(Encoder { config: config.clone(), constant, plan: None, last: i64::MIN })
    }

    /// Write the batch's rows, each as a line. `full` is asked after each line and may take the lines away. Returns the rows
    /// that no line can hold.
    ///
    /// # Errors
    /// No row can be written, since a column is missing that all need. Nothing was written then.
    pub(crate) fn encode(
        &mut self,
        batch: &Batch,
        lines: &mut Builder,
        mut full: impl FnMut(&mut Builder),
    ) -> Result<Vec<FailedRow>, ConnectorError> {
        let schema = batch.rows.schema_ref();
        if self.plan.as_ref().is_none_or(|plan| plan.schema != *schema) {
            self.plan = Some(Plan::new(&self.config, &self.constant, schema)?);
        }
        let Some(plan) = &self.plan else {
            return Ok(Vec::new());
        };
        let rows = Rows::new(plan, batch, self.config.precision);
        let mut failed = Vec::new();
        lines.begin(batch);
        for row in 0..batch.len() {
            let start = lines.body.len();
            match rows.line(row, &mut self.last, &mut lines.body) {
                Ok(()) => {
                    lines.end_line(row);
                    full(lines);
                    if lines.is_empty() {
                        lines.begin(batch);
                    }
                }
                Err(message) => {
                    lines.body.truncate(start);
                    failed.push(batch.fail(row, message));
                }
            }
        }
        Ok(failed)
    }
}

/// The rows of a batch, each column in the type that is needed.
struct Rows<'a> {
    plan: &'a Plan,
    measurement: Option<Wanted>,
    /// For each of the plan's tags its column.
    tags: Vec<Option<Wanted>>,
    /// For each of the plan's fields its column.
    fields: Vec<Option<Values<'a>>>,
    time: Time,
    precision: Precision,
}

impl<'a> Rows<'a> {
    fn new(plan: &'a Plan, batch: &'a Batch, precision: Precision) -> Self {
        let text = |column: usize| Wanted::new(batch, column, ColumnType::Text);
        let field = |column: usize| batch.rows.columns().get(column).and_then(Values::new);
        let kind = |column: usize| batch.rows.schema_ref().fields().get(column).and_then(|field| column_type_of(field));
        let time = plan.time.and_then(|column| match kind(column) {
            Some(ColumnType::Int64) => Wanted::new(batch, column, ColumnType::Int64).map(Time::Units),
            _ => Wanted::new(batch, column, ColumnType::Timestamp).map(Time::Micros),
        });
        Rows {
            plan,
            measurement: plan.measurement.and_then(text),
            tags: plan.tags.iter().map(|tag| tag.column.and_then(text)).collect(),
            fields: plan.fields.iter().map(|(_, column)| field(*column)).collect(),
            time: time.unwrap_or(Time::Writing),
            precision,
        }
    }

    /// Write a row as a line; what was written before an error is no line.
    fn line(&self, row: usize, last: &mut i64, body: &mut Vec<u8>) -> Result<(), String> {
        body.extend_from_slice(&self.plan.head);
        if let Some(wanted) = &self.measurement {
            let name = &wanted.name;
            let text = wanted.text(row)?.ok_or_else(|| format!("column `{name}` names no measurement"))?;
            push_name(Place::Measurement, text, body)
                .map_err(|message| format!("the measurement in column `{name}` {message}"))?;
        }
        for (tag, wanted) in self.plan.tags.iter().zip(&self.tags) {
            let Some(wanted) = wanted else {
                body.extend_from_slice(&tag.start);
                continue;
            };
            if let Some(text) = wanted.text(row)? {
                body.extend_from_slice(&tag.start);
                push_name(Place::Tag, text, body).map_err(|message| format!("the tag `{}` {message}", tag.name))?;
            }
        }
        let mut separator = b' ';
        for ((start, column), values) in self.plan.fields.iter().zip(&self.fields) {
            let Some(values) = values else { continue };
            let before = body.len();
            body.push(separator);
            body.extend_from_slice(start);
            if values.push(row, body).map_err(|message| format!("column `{}` {message}", self.plan.name(*column)))? {
                separator = b',';
            } else {
                body.truncate(before);
            }
        }
        if separator == b' ' {
            return Err("all fields are null, and a point needs at least one".to_owned());
        }
        let at = self.time.of(row, self.precision, last)?;
        body.push(b' ');
        push_integer(at, body);
        body.push(b'\n');
        Ok(())
    }
}

impl Time {
    /// The time of a row, in the unit of the precision.
    fn of(&self, row: usize, precision: Precision, last: &mut i64) -> Result<i64, String> {
        let (wanted, value, unit) = match self {
            Time::Units(wanted) => {
                let values = wanted.values.as_primitive_opt::<Int64Type>();
                (
                    wanted,
                    values.filter(|values| values.is_valid(row)).map(|values| values.value(row)),
                    precision.nanos(),
                )
            }
            Time::Micros(wanted) => {
                let values = wanted.values.as_primitive_opt::<TimestampMicrosecondType>();
                (wanted, values.filter(|values| values.is_valid(row)).map(|values| values.value(row)), 1000)
            }
            Time::Writing => {
                // A time of its own for each point: of two with the same one only the later would be kept.
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
                let now = i64::try_from(now).unwrap_or(i64::MAX) / precision.nanos();
                *last = now.max(last.saturating_add(1));
                return Ok(*last);
            }
        };
        wanted.sound(row)?;
        let name = &wanted.name;
        let value = value.ok_or_else(|| format!("column `{name}` is null, and a point needs a time"))?;
        // InfluxDB keeps the two ends for itself.
        let nanos =
            value.checked_mul(unit).filter(|nanos| *nanos > i64::MIN + 1 && *nanos < i64::MAX).ok_or_else(|| {
                format!("column `{name}` has a time outside the years 1677 to 2262, which InfluxDB can't hold")
            })?;
        Ok(nanos.div_euclid(precision.nanos()))
    }
}

impl Plan {
    fn new(config: &InfluxSink, constant: &[(String, String)], schema: &SchemaRef) -> Result<Self, ConnectorError> {
        let column = |name: &str| schema.index_of(name).ok();
        let mut used = Vec::new();
        let mut head = Vec::new();
        if let Some(name) = &config.measurement {
            push_name(Place::Measurement, name, &mut head).map_err(ConnectorError::failed)?;
        }
        let measurement = match &config.measurement_column {
            Some(name) => {
                let found = column(name).ok_or_else(|| missing("measurement_column", name, schema))?;
                used.push(found);
                Some(found)
            }
            None => None,
        };
        let time = time_column(config, schema)?;
        used.extend(time);
        let mut tags = Vec::new();
        for (name, from) in config.tags.pairs() {
            // A column that is not there is null in every row.
            if let Some(found) = column(from) {
                used.push(found);
                let start = start(b",", Place::Tag, name)?;
                tags.push(Tag { name: name.to_owned(), start, column: Some(found) });
            }
        }
        for (name, value) in constant {
            if tags.iter().all(|tag| tag.name != *name) {
                let mut start = start(b",", Place::Tag, name)?;
                push_name(Place::Tag, value, &mut start).map_err(ConnectorError::failed)?;
                tags.push(Tag { name: name.clone(), start, column: None });
            }
        }
        // The server sorts them otherwise.
        tags.sort_by(|left, right| left.name.cmp(&right.name));
        let mut fields = Vec::new();
        match &config.fields {
            Some(names) => {
                for (name, from) in names.pairs() {
                    if let Some(found) = column(from) {
                        fields.push((start(b"", Place::Field, name)?, found));
                    }
                }
            }
            None => {
                for (index, field) in schema.fields().iter().enumerate() {
                    if !used.contains(&index) {
                        check_name(Place::Field, field.name()).map_err(ConnectorError::failed)?;
                        fields.push((start(b"", Place::Field, field.name())?, index));
                    }
                }
            }
        }
        Ok(Plan { schema: schema.clone(), head, measurement, tags, fields, time })
    }
}

impl Plan {
    fn name(&self, column: usize) -> &str {
        self.schema.fields().get(column).map_or("", |field| field.name())
    }
}

/// `key=`, after a separator.
fn start(separator: &[u8], place: Place, name: &str) -> Result<Vec<u8>, ConnectorError> {
    let mut into = separator.to_vec();
    push_name(place, name, &mut into)
        .map_err(|message| ConnectorError::failed(format!("the name `{name}` {message}; give it another one")))?;
    into.push(b'=');
    Ok(into)
}

fn time_column(config: &InfluxSink, schema: &Schema) -> Result<Option<usize>, ConnectorError> {
    if config.time_of_writing {
        return Ok(None);
    }
    if let Some(name) = &config.time {
        return schema.index_of(name).map(Some).map_err(|_| missing("time", name, schema));
    }
    for name in ["timestamp", "time"] {
        if let Ok(index) = schema.index_of(name)
            && column_type_of(schema.field(index)) == Some(ColumnType::Timestamp)
        {
            return Ok(Some(index));
        }
    }
    Err(ConnectorError::failed(format!(
        "no column `timestamp` or `time` is a timestamp: name the column with the points' time in `time`, or set \
         `time_of_writing = true` ({})",
        columns(schema)
    )))
}

fn missing(key: &str, name: &str, schema: &Schema) -> ConnectorError {
    ConnectorError::failed(format!("there is no column `{name}`, which `{key}` names ({})", columns(schema)))
}

fn columns(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    format!("the columns are: {}", names.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;
    use acequia_connector_api::Origin;
    use arrow_array::{RecordBatch, new_null_array};
    use std::sync::Arc;

    /// All seven types, with a row of values, one of nulls, and one that can't be written.
    fn batch() -> Batch {
        let kinds = ColumnType::ALL;
        let fields: Vec<_> = kinds.iter().map(|kind| kind.arrow_field(kind.name(), true)).collect();
        let times = TimestampMicrosecondArray::from(vec![Some(1_586_779_777_768_982), Some(0), Some(-1)]);
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(1)])),
            Arc::new(Float64Array::from(vec![Some(1e300), None, Some(f64::NAN)])),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(StringArray::from(vec![Some("a \"b\"\\\n,"), None, Some("")])),
            Arc::new(BinaryArray::from(vec![Some(&b"\xff"[..]), None, Some(b"")])),
            Arc::new(StringArray::from(vec![Some("{\"a\":1}"), None, Some("null")])),
        ];
        Batch::new(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap(), Origin::Unknown)
    }

    /// The lines, and the errors of the rows that are none.
    fn encode(config: &str, batch: &Batch) -> Result<String, String> {
        let config: InfluxSink = toml::from_str(config).unwrap();
        let mut lines = Builder::default();
        let constant = vec![("site".to_owned(), "x y".to_owned())];
        let mut encoder = Encoder::new(&config, constant).unwrap();
        let failed = encoder.encode(batch, &mut lines, |_| ()).map_err(|error| error.to_string())?;
        let mut text = String::from_utf8(lines.body).unwrap();
        for row in failed {
            text.push_str(&format!("! {}\n", row.error));
        }
        Ok(text)
    }

    #[test]
    fn integers_are_written_as_they_are_displayed() {
        let mut values = vec![0, 1, 9, 10, 99, 100, i64::MAX, i64::MIN, i64::MIN + 1];
        values.extend((0..63).flat_map(|bit| [1 << bit, (1 << bit) - 1, -(1 << bit)]));
        for value in values {
            let mut bytes = Vec::new();
            push_integer(value, &mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), value.to_string());
        }
    }

    #[test]
    fn every_type_as_a_field() {
        insta::assert_snapshot!(encode("measurement = 'm n'", &batch()).unwrap(), @r#"
        m\ n,site=x\ y boolean=true,int64=-9223372036854775808i,float64=1e300,text="a \"b\"\\
        ,",binary="/w==",json="{\"a\":1}" 1586779777768982
        ! all fields are null, and a point needs at least one
        ! column `float64` is NaN, which a field can't hold
        "#);
    }

    #[test]
    fn every_type_as_a_tag() {
        let tags = "measurement_column = 'int64'\nfields = { f = 'boolean' }\nprecision = 's'\n\
                    tags = ['boolean', 'float64', 'timestamp', 'text', 'binary', 'json']";
        insta::assert_snapshot!(encode(tags, &batch()).unwrap(), @r#"
        1,boolean=false,float64=NaN,site=x\ y,timestamp=1969-12-31T23:59:59.999999Z f=false -1
        ! column `binary`: can't cast 1 bytes (base64 /w==) to text: it is not valid UTF-8
        ! column `int64` names no measurement
        "#);
    }

    #[test]
    fn times() {
        let config = "measurement = 'm'\nfields = ['boolean']\ntime = 'int64'\nprecision = 'ms'";
        insta::assert_snapshot!(encode(config, &batch()).unwrap(), @r#"
        m,site=x\ y boolean=false 1
        ! column `int64` has a time outside the years 1677 to 2262, which InfluxDB can't hold
        ! all fields are null, and a point needs at least one
        "#);
        let config = "measurement = 'm'\nfields = ['boolean']\ntime = 'text'";
        insta::assert_snapshot!(encode(config, &batch()).unwrap(), @r#"
        ! column `text`: can't cast "a \"b\"\\\n," to timestamp
        ! all fields are null, and a point needs at least one
        ! column `text`: can't cast "" to timestamp
        "#);
        let none = "measurement = 'm'\ntime = 'no'";
        insta::assert_snapshot!(encode(none, &batch()).unwrap_err(), @"there is no column `no`, which `time` names (the columns are: boolean, int64, float64, timestamp, text, binary, json)");
    }

    #[test]
    fn points_at_the_time_of_writing_do_not_fall_together() {
        let text = encode("measurement = 'm'\nfields = ['text']\ntime_of_writing = true", &batch()).unwrap();
        let times: Vec<i64> = text.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        assert_eq!(times.len(), 2, "{text}");
        assert!(times[0] < times[1]);
    }

    #[test]
    fn a_column_that_can_be_no_field() {
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("timestamp", new_null_array(&ColumnType::Timestamp.data_type(), 1), true),
            ("time", new_null_array(&arrow_schema::DataType::Utf8, 1), true),
        ])
        .unwrap();
        let error = encode("measurement = 'm'", &Batch::new(rows, Origin::Unknown)).unwrap_err();
        insta::assert_snapshot!(error, @r#"a field can't be named `time`: InfluxDB keeps that for itself; give it another name, as in `fields = { other = "time" }`"#);
    }
}
