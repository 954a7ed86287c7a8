//! Bytes to rows and back: framing, decoding, casts, encoding.

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, RowSchema, column_type_of, format_timestamp};
use acequia_format::{
    CsvOptions, Decoder, Encoder, Format, FormatOptions, Frame, Framer, Parts, Resume, SchemaConfig, can_cast,
    cast_column, parse_timestamp,
};
use arbitrary::{Result, Unstructured};
use arrow_array::{Array, ArrayRef};

use crate::rows;

const NAMES: [&str; 6] = ["value", "a", "b", "c", "_c0", "time"];

/// A frame that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    record: Vec<u8>,
    line: u64,
    start: u64,
    end: u64,
    error: Option<String>,
    header: bool,
    resume: Resume,
}

pub(crate) fn run(data: &[u8]) {
    // Unstructured gives zeros where the input has ended, so it never fails here.
    let _ = inputs(&mut Unstructured::new(data));
}

fn inputs(input: &mut Unstructured<'_>) -> Result<()> {
    let options = options(input)?;
    if options.check().is_err() {
        return Ok(());
    }
    let max_record = if input.arbitrary()? { 16 } else { 1 << 16 };
    let cuts: [u16; 3] = input.arbitrary()?;
    let chosen = usize::from(input.arbitrary::<u8>()?);
    let bytes = rows::rest(input)?;

    let whole = frames(&options, max_record, Resume::default(), bytes, &[]);
    let mut cuts = cuts.map(|cut| usize::from(cut) % (bytes.len() + 1));
    cuts.sort_unstable();
    assert_eq!(frames(&options, max_record, Resume::default(), bytes, &cuts), whole, "in pieces, {cuts:?}");
    if !whole.is_empty() {
        let chosen = chosen % whole.len();
        let mark = whole[chosen].resume;
        let rest = bytes.get(mark.offset as usize..).expect("a mark inside of the input");
        let resumed = frames(&options, max_record, mark, rest, &[]);
        assert_eq!(resumed, whole[chosen + 1..], "from the mark of frame {chosen}");
    }

    let batch = decode_all(&options, &whole);
    for (column, field) in batch.rows.columns().iter().zip(batch.rows.schema_ref().fields()) {
        if let Some(from) = column_type_of(field) {
            casts(column, from);
        }
    }
    back_and_forth(&batch);
    if let Some(micros) = str::from_utf8(bytes).ok().and_then(parse_timestamp) {
        assert_eq!(parse_timestamp(&format_timestamp(micros)), Some(micros));
    }
    Ok(())
}

fn options(input: &mut Unstructured<'_>) -> Result<FormatOptions> {
    let format = [Format::Json, Format::Csv, Format::Text, Format::Raw][usize::from(input.arbitrary::<u8>()? % 4)];
    let flags: u8 = input.arbitrary()?;
    let is = |bit: u8| flags >> bit & 1 == 1;
    let header = !is(0);
    let columns = if !header && is(3) { vec!["a".to_owned(), "b".to_owned()] } else { Vec::new() };
    let csv =
        CsvOptions { delimiter: if is(1) { ';' } else { ',' }, quote: if is(2) { '\'' } else { '"' }, header, columns };
    let mut schema = None;
    if is(4) {
        let mut declared: Vec<(String, ColumnType)> = Vec::new();
        for _ in 0..=input.arbitrary::<u8>()? % 3 {
            let name = NAMES[usize::from(input.arbitrary::<u8>()?) % NAMES.len()];
            let kind = rows::kind(input)?;
            if declared.iter().all(|(other, _)| other != name) {
                declared.push((name.to_owned(), kind));
            }
        }
        schema = Some(SchemaConfig(declared));
    }
    Ok(FormatOptions { format, schema, csv })
}

fn frames(options: &FormatOptions, max_record: usize, from: Resume, bytes: &[u8], cuts: &[usize]) -> Vec<Owned> {
    let mut framer = Framer::resume(options, max_record, from);
    let mut frames = Vec::new();
    let mut each = |frame: Frame<'_>| {
        let Frame { record, line, start, end, error, header, resume, .. } = frame;
        assert!(start <= end && end == resume.offset);
        frames.push(Owned { record: record.to_vec(), line, start, end, error, header, resume });
    };
    let mut done = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        framer.feed(&bytes[done..cut], &mut each);
        done = cut;
    }
    framer.finish(&mut each);
    frames
}

/// Decode in one batch and in many: every record ends in exactly one of rows and failed rows. Returns the one batch.
fn decode_all(options: &FormatOptions, frames: &[Owned]) -> Batch {
    let partition: Arc<str> = "p".into();
    let push = |decoder: &mut Decoder, frame: &Owned| {
        let Owned { record, line, start, end, error, header, resume } = frame;
        let (line, start, end, header, resume) = (*line, *start, *end, *header, *resume);
        let (error, parts) = (error.clone(), Parts::default());
        decoder.push_frame(&Frame { record, line, start, end, error, header, resume, parts }, &partition);
    };
    let mut decoder = Decoder::new(options);
    frames.iter().for_each(|frame| push(&mut decoder, frame));
    let one = decoder.finish();
    let (all, all_failed) = rows::check_batch(&one);
    let headers = frames.iter().filter(|frame| frame.header).count();
    let counted = all.len() + all_failed.len();
    assert!((frames.len() - headers..=frames.len()).contains(&counted), "{counted} of {} records", frames.len());

    let mut many = Decoder::new(options);
    let (mut single, mut single_failed) = (Vec::new(), Vec::new());
    for frame in frames {
        push(&mut many, frame);
        let batch = many.finish();
        let (rows, failed) = rows::check_batch(&batch);
        assert!(rows.len() + failed.len() == 1 || frame.header, "a record that is {rows:?} and {failed:?}");
        single.extend(rows);
        single_failed.extend(failed);
        if let Some(learnt) = many.inferred() {
            let mut other = Decoder::new(options);
            other.set_inferred(&learnt);
            assert_eq!(other.inferred(), Some(learnt), "what was learnt is not what is kept");
        }
    }
    assert_eq!(single_failed, all_failed, "batch by batch other rows fail");
    // Inferred types get wider from batch to batch.
    if options.format != Format::Json || options.schema.is_some() {
        assert_eq!(single, all, "batch by batch the rows are others");
    }
    one
}

/// Every cast gives a value or says why not; what was cast can be read back from its text.
fn casts(column: &ArrayRef, from: ColumnType) {
    for to in ColumnType::ALL {
        let cast = cast_column(column, from, to);
        assert_eq!(cast.values.len(), column.len());
        cast.values.to_data().validate_full().expect("a valid array");
        assert!(cast.failed.is_sorted_by(|(one, _), (other, _)| one < other));
        for (row, error) in &cast.failed {
            assert!(cast.values.is_null(*row) && column.is_valid(*row) && !error.is_empty());
        }
        if !can_cast(from, to) {
            assert_eq!(cast.values.null_count(), column.len(), "{from} to {to}, which can't be");
        }
        if matches!(to, ColumnType::Boolean | ColumnType::Int64 | ColumnType::Float64 | ColumnType::Timestamp) {
            let text = cast_column(&cast.values, to, ColumnType::Text);
            let back = cast_column(&text.values, ColumnType::Text, to);
            assert!(text.failed.is_empty() && back.failed.is_empty(), "{:?} {:?}", text.failed, back.failed);
            // `Debug`, so that what is not a number is equal to itself.
            assert_eq!(format!("{:?}", back.values), format!("{:?}", cast.values), "{from} to {to} to text and back");
        }
    }
}

/// Rows that are written can be read again and are the same.
fn back_and_forth(batch: &Batch) {
    let schema = RowSchema::from_arrow(batch.rows.schema_ref());
    if batch.is_empty() || schema.fields.is_empty() {
        return;
    }
    // Binary is written as base64, and read as text.
    let read_as = |kind| if kind == ColumnType::Binary { ColumnType::Text } else { kind };
    let declared: Vec<_> = schema.fields.iter().map(|field| (field.name.clone(), read_as(field.kind))).collect();
    for format in [Format::Json, Format::Csv] {
        // A column without a name is read under one that is made up.
        if format == Format::Csv && schema.fields.iter().any(|field| field.name.is_empty()) {
            continue;
        }
        let options = FormatOptions { schema: Some(SchemaConfig(declared.clone())), ..FormatOptions::new(format) };
        let mut bytes = Vec::new();
        let failed = Encoder::new(format, &options.csv, None).encode(&batch.rows, &mut bytes).expect("seven types");
        assert!(failed.is_empty(), "{failed:?}");
        let frames = frames(&options, 1 << 20, Resume::default(), &bytes, &[]);
        let read = decode_all(&options, &frames);
        assert_eq!(
            (read.len(), read.failed.len()),
            (batch.len(), 0),
            "{format}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        for ((column, again), field) in batch.rows.columns().iter().zip(read.rows.columns()).zip(&schema.fields) {
            let same = match field.kind {
                ColumnType::Boolean | ColumnType::Int64 | ColumnType::Timestamp => column == again,
                // In a file of one column a null is `""`, which is read as a text.
                ColumnType::Text => column == again || format == Format::Csv && schema.fields.len() == 1,
                _ => true,
            };
            assert!(same, "{format}, `{}`: {column:?} is read as {again:?}", field.name);
        }
    }
}
