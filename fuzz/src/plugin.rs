//! What a plugin returns: plans and batches that break every rule of the contract. Refused, or rows that are right.

use acequia::plugin::fuzzing::{apply, check, transform, types};
use acequia_connector_api::{Batch, ByteSize, ColumnType, Field, Origin, RowSchema};
use arbitrary::{Result, Unstructured};
use arrow_array::{RecordBatch, RecordBatchOptions};
use transform::{Failure, Output, Passes, Plan, Reads, Selection};
use types::{ColumnResult, FieldResult, PackedResult, ValuesResult};

use crate::rows;

const NAMES: [&str; 6] = ["a", "b", "c", "x", "y", ""];

pub(crate) fn run(data: &[u8]) {
    let _ = inputs(&mut Unstructured::new(data));
}

fn inputs(input: &mut Unstructured<'_>) -> Result<()> {
    let known = schema(input)?;
    let plan = plan(input)?;
    let adds: Vec<Field> = plan.adds.iter().map(|add| Field::new(&add.name, ours(add.kind), add.nullable)).collect();
    let Ok(checked) = check(plan, &known, input.arbitrary()?) else { return Ok(()) };

    // A source whose schema is open may bring anything.
    let columns = if known.open && input.arbitrary()? { schema(input)?.fields } else { known.fields.clone() };
    let count = usize::from(input.arbitrary::<u8>()? % 20);
    let arrays = columns.iter().map(|field| rows::column(input, field.kind, count, field.nullable));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let came = RowSchema { fields: columns, open: false };
    let batch = RecordBatch::try_new_with_options(came.to_arrow(), arrays, &options).expect("columns that fit");
    let batch = Batch::new(batch, Origin::run("p".into(), 1));

    let output = output(input, &adds, count)?;
    let limit = ByteSize(1 << 16);
    let Ok(applied) = apply(&checked, batch, output, limit) else { return Ok(()) };
    let (out, failed) = rows::check_batch(&applied.batch);
    let (out, failed) = (out.len() as u64, failed.len() as u64);
    assert_eq!(count as u64 + applied.added, out + applied.dropped + failed, "rows that end nowhere, or twice");
    if !checked.output.open && out > 0 {
        let fields = &checked.output.fields;
        for field in applied.batch.rows.schema_ref().fields() {
            assert!(fields.iter().any(|known| known.name == *field.name()), "an unexpected `{}`", field.name());
        }
    }
    Ok(())
}

fn name(input: &mut Unstructured<'_>) -> Result<String> {
    Ok(NAMES[usize::from(input.arbitrary::<u8>()?) % NAMES.len()].to_owned())
}

fn names(input: &mut Unstructured<'_>) -> Result<Vec<String>> {
    (0..input.arbitrary::<u8>()? % 3).map(|_| name(input)).collect()
}

fn ours(kind: types::ColumnType) -> ColumnType {
    match kind {
        types::ColumnType::Boolean => ColumnType::Boolean,
        types::ColumnType::Int64 => ColumnType::Int64,
        types::ColumnType::Float64 => ColumnType::Float64,
        types::ColumnType::Timestamp => ColumnType::Timestamp,
        types::ColumnType::Text => ColumnType::Text,
        types::ColumnType::Binary => ColumnType::Binary,
        types::ColumnType::Json => ColumnType::Json,
    }
}

fn kind(input: &mut Unstructured<'_>) -> Result<types::ColumnType> {
    Ok(match rows::kind(input)? {
        ColumnType::Boolean => types::ColumnType::Boolean,
        ColumnType::Int64 => types::ColumnType::Int64,
        ColumnType::Float64 => types::ColumnType::Float64,
        ColumnType::Timestamp => types::ColumnType::Timestamp,
        ColumnType::Text => types::ColumnType::Text,
        ColumnType::Binary => types::ColumnType::Binary,
        ColumnType::Json => types::ColumnType::Json,
    })
}

/// Columns a, b, c, as many as there are.
fn schema(input: &mut Unstructured<'_>) -> Result<RowSchema> {
    let count = usize::from(input.arbitrary::<u8>()? % 4);
    let fields = NAMES.iter().take(count).map(|name| Ok(Field::new(*name, rows::kind(input)?, input.arbitrary()?)));
    Ok(RowSchema { fields: fields.collect::<Result<_>>()?, open: input.arbitrary()? })
}

fn plan(input: &mut Unstructured<'_>) -> Result<Plan> {
    let few = |input: &mut Unstructured<'_>| Ok::<_, arbitrary::Error>(0..input.arbitrary::<u8>()? % 3);
    let reads = if input.arbitrary()? {
        Reads::Every
    } else {
        let reads = few(input)?
            .map(|_| Ok(transform::Input { name: name(input)?, kind: kind(input)?, nullable: input.arbitrary()? }));
        Reads::Columns(reads.collect::<Result<_>>()?)
    };
    let adds =
        few(input)?.map(|_| Ok(FieldResult { name: name(input)?, kind: kind(input)?, nullable: input.arbitrary()? }));
    let adds = adds.collect::<Result<Vec<_>>>()?;
    let passes = match input.arbitrary::<u8>()? % 3 {
        0 => Passes::Every,
        1 => Passes::Only(names(input)?),
        _ => Passes::Except(names(input)?),
    };
    let moves = few(input)?.map(|_| {
        let kind = if input.arbitrary()? { Some(kind(input)?) } else { None };
        Ok(transform::Move { source: name(input)?, name: name(input)?, kind })
    });
    let moves = moves.collect::<Result<Vec<_>>>()?;
    let tick_every = if input.arbitrary()? { Some(input.arbitrary()?) } else { None };
    Ok(Plan { reads, adds, passes, moves, tick_every })
}

/// An answer that is mostly right: otherwise nothing would come past the first checks.
fn output(input: &mut Unstructured<'_>, adds: &[Field], count: usize) -> Result<Output> {
    let (selection, length) = match input.arbitrary::<u8>()? % 5 {
        0 => (Selection::All, count),
        1 => {
            let bits: Vec<u8> = (0..count.div_ceil(8)).map(|_| input.arbitrary()).collect::<Result<_>>()?;
            let kept = (0..count).filter(|row| bits[row / 8] >> (row % 8) & 1 == 1).count();
            (Selection::Kept(bits), kept)
        }
        2 => {
            let length = input.arbitrary::<u8>()? % 40;
            let row = |input: &mut Unstructured<'_>| {
                // Seldom one that there is not.
                let row: u8 = input.arbitrary()?;
                Ok(if row == 255 { u32::MAX } else { u32::from(row) % (count.max(1) as u32) })
            };
            let picked: Vec<u32> = (0..length).map(|_| row(input)).collect::<Result<_>>()?;
            (Selection::Some(picked), usize::from(length))
        }
        3 => {
            let length = input.arbitrary::<u8>()? % 40;
            (Selection::Fresh(length.into()), usize::from(length))
        }
        _ => (wrong(input)?, count),
    };
    let mut columns = Vec::new();
    for add in adds {
        columns.push(column(input, add, length)?);
    }
    if input.arbitrary::<u8>()? == 255 {
        columns.pop();
    }
    let failed = (0..input.arbitrary::<u8>()? % 3).map(|_| {
        let row: u8 = input.arbitrary()?;
        Ok(Failure { row: if row == 255 { u32::MAX } else { row.into() }, message: rows::text(input)? })
    });
    Ok(Output { rows: selection, columns, failed: failed.collect::<Result<_>>()? })
}

fn wrong(input: &mut Unstructured<'_>) -> Result<Selection> {
    Ok(match input.arbitrary::<u8>()? % 3 {
        0 => Selection::Kept(rows::bytes(input)?.to_vec()),
        1 => Selection::Some(vec![input.arbitrary()?, input.arbitrary()?]),
        _ => Selection::Fresh(input.arbitrary()?),
    })
}

fn column(input: &mut Unstructured<'_>, add: &Field, length: usize) -> Result<ColumnResult> {
    let fault: u8 = input.arbitrary()?;
    let kind = if fault == 1 { rows::kind(input)? } else { add.kind };
    let length = if fault == 2 { usize::from(input.arbitrary::<u8>()?) } else { length };
    let bits =
        |input: &mut Unstructured<'_>| (0..length.div_ceil(8)).map(|_| input.arbitrary()).collect::<Result<Vec<u8>>>();
    let numbers = |input: &mut Unstructured<'_>| (0..length).map(|_| input.arbitrary()).collect::<Result<Vec<i64>>>();
    let values = match kind {
        ColumnType::Boolean => ValuesResult::Boolean(bits(input)?),
        ColumnType::Int64 => ValuesResult::Int64(numbers(input)?),
        ColumnType::Float64 => ValuesResult::Float64((0..length).map(|_| input.arbitrary()).collect::<Result<_>>()?),
        ColumnType::Timestamp => ValuesResult::Timestamp(numbers(input)?),
        ColumnType::Text => ValuesResult::Text(packed(input, length, fault, false)?),
        ColumnType::Binary => ValuesResult::Binary(packed(input, length, fault, false)?),
        ColumnType::Json => ValuesResult::Json(packed(input, length, fault, true)?),
    };
    let valid = if add.nullable || fault == 3 { Some(bits(input)?) } else { None };
    let valid = if fault == 4 { Some(rows::bytes(input)?.to_vec()) } else { valid };
    let name = if fault == 5 { name(input)? } else { add.name.clone() };
    Ok(ColumnResult { name, values, valid })
}

fn packed(input: &mut Unstructured<'_>, length: usize, fault: u8, json: bool) -> Result<PackedResult> {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for _ in 0..length {
        match json {
            // Digits, most of the time.
            true => data.push(b'0' + input.arbitrary::<u8>()? % 12),
            false => data.extend_from_slice(rows::bytes(input)?),
        }
        offsets.push(data.len() as u32);
    }
    match fault {
        6 => data.extend_from_slice(rows::bytes(input)?),
        7 => data.truncate(input.arbitrary::<u8>()?.into()),
        8 => {
            let place = usize::from(input.arbitrary::<u8>()?) % offsets.len();
            offsets[place] = input.arbitrary()?;
        }
        9 => offsets.truncate(input.arbitrary::<u8>()?.into()),
        _ => {}
    }
    Ok(PackedResult { offsets, data })
}
