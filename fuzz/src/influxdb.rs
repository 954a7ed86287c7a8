//! InfluxDB's answers to rows, and rows to line protocol.

use acequia_connector_api::{Batch, ColumnType, Origin, format_timestamp};
use acequia_connector_influxdb::fuzzing::{lines, read};
use acequia_connector_influxdb::{InfluxSink, Names, Precision};
use acequia_format::SchemaConfig;
use arbitrary::{Result, Unstructured};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use influxdb_line_protocol::{FieldValue, parse_lines};

use crate::rows;

pub(crate) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let _ = match input.arbitrary() {
        Ok(true) => answers(&mut input),
        _ => points(&mut input),
    };
}

fn answers(input: &mut Unstructured<'_>) -> Result<()> {
    let schema = if input.arbitrary()? {
        Some(SchemaConfig(vec![("_value".to_owned(), rows::kind(input)?), ("t".to_owned(), rows::kind(input)?)]))
    } else {
        None
    };
    let cut: u16 = input.arbitrary()?;
    let bytes = rows::rest(input)?;
    let shown = |batches: std::result::Result<Vec<Batch>, String>| {
        batches.map(|batches| {
            batches.iter().map(rows::check_batch).fold((Vec::new(), Vec::new()), |mut all, batch| {
                all.0.extend(batch.0);
                all.1.extend(batch.1);
                all
            })
        })
    };
    let whole = shown(read(&[bytes], schema.clone(), 100));
    let (one, other) = bytes.split_at(usize::from(cut) % (bytes.len() + 1));
    assert_eq!(shown(read(&[one, other], schema.clone(), 100)), whole, "in pieces");
    assert_eq!(shown(read(&[bytes], schema, 1)), whole, "in batches of one row");
    Ok(())
}

fn points(input: &mut Unstructured<'_>) -> Result<()> {
    let count = usize::from(input.arbitrary::<u8>()? % 4) + 1;
    let precision =
        [Precision::Ns, Precision::Us, Precision::Ms, Precision::S][usize::from(input.arbitrary::<u8>()? % 4)];
    let tag = rows::text(input)?;
    let mut columns = vec![
        ("time".to_owned(), ColumnType::Timestamp),
        ("m".to_owned(), ColumnType::Text),
        (tag.clone(), ColumnType::Text),
    ];
    for _ in 0..=input.arbitrary::<u8>()? % 3 {
        columns.push((rows::text(input)?, rows::kind(input)?));
    }
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (name, kind) in &columns {
        if fields.iter().any(|field: &arrow_schema::Field| field.name() == name) {
            return Ok(());
        }
        fields.push(kind.arrow_field(name, true));
        arrays.push(rows::column(input, *kind, count, true)?);
    }
    let batch = RecordBatch::try_new(arrow_schema::Schema::new(fields).into(), arrays).expect("columns that fit");
    let config = InfluxSink {
        measurement_column: Some("m".to_owned()),
        tags: Names::Same(vec![tag.clone()]),
        precision,
        ..InfluxSink::default()
    };
    let Ok((body, failed)) = lines(&config, &Batch::new(batch.clone(), Origin::run("p".into(), 0))) else {
        return Ok(());
    };
    let text = str::from_utf8(&body).expect("UTF-8");
    let bad: Vec<usize> = failed.iter().map(|row| row.offset.unwrap() as usize).collect();
    let good: Vec<usize> = (0..count).filter(|row| !bad.contains(row)).collect();
    assert_eq!(good.len() + bad.len(), count);
    // The parser refuses or cuts what the server takes: characters of control, a name that is `#` or empty in front, and a
    // backslash before what could be escaped.
    let differs = |text: &str| text.chars().any(char::is_control) || has_escape(text);
    if columns.iter().any(|(name, _)| name.is_empty() || differs(name)) {
        return Ok(());
    }
    let parsed: Vec<_> = parse_lines(text).collect();
    assert_eq!(parsed.len(), good.len(), "{text:?}");
    for (row, line) in good.into_iter().zip(parsed) {
        let text_at = |column: usize| batch.column(column).as_string::<i32>().value(row);
        if (1..3).any(|column| differs(text_at(column))) {
            continue;
        }
        let line = line.expect("a line that the parser reads");
        assert_eq!(line.series.measurement.as_str(), text_at(1));
        let unit = [1, 1000, 1_000_000, 1_000_000_000][precision as usize];
        let micros = batch.column(0).as_primitive::<TimestampMicrosecondType>().value(row);
        assert_eq!(line.timestamp, Some((micros * 1000).div_euclid(unit)));
        if batch.column(2).is_valid(row) && !text_at(2).is_empty() {
            assert_eq!(line.tag_value(&tag).map(|value| value.as_str().to_owned()).as_deref(), Some(text_at(2)));
        }
        for (index, (name, kind)) in columns.iter().enumerate().skip(3) {
            let column = batch.column(index);
            if column.is_null(row) {
                assert_eq!(line.field_value(name), None);
                continue;
            }
            let value = line.field_value(name).expect("the field");
            let same = match (kind, value) {
                (ColumnType::Boolean, FieldValue::Boolean(read)) => *read == column.as_boolean().value(row),
                (ColumnType::Int64, FieldValue::I64(read)) => *read == column.as_primitive::<Int64Type>().value(row),
                (ColumnType::Float64, FieldValue::F64(read)) => {
                    read.to_bits() == column.as_primitive::<Float64Type>().value(row).to_bits()
                }
                (ColumnType::Text | ColumnType::Json, FieldValue::String(read)) => {
                    read.as_str() == column.as_string::<i32>().value(row)
                }
                (ColumnType::Timestamp, FieldValue::String(read)) => {
                    read.as_str() == format_timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row))
                }
                (ColumnType::Binary, FieldValue::String(read)) => {
                    read.as_str() == acequia_connector_api::base64(column.as_binary::<i32>().value(row))
                }
                _ => false,
            };
            assert!(same, "`{name}` of row {row} is {value:?} in {text:?}");
        }
    }
    Ok(())
}

/// Whether a backslash stands before another one, or before what is escaped with one. The parser takes two for one; the server
/// knows no escape of a backslash (`e2e`'s `influxdb.rs` has such names there and back).
fn has_escape(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| matches!(pair, [b'\\', b'\\' | b',' | b' ' | b'=']))
}
