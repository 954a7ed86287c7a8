//! The plugins that are measured: their input, and the same work done by native code.

use std::collections::HashMap;
use std::sync::Arc;

use acequia_connector_api::RowSchema;
use acequia_plugin_sdk::{
    Aggregate, Bitmap, Column, Filter, Map, Packed, Rows, Schema, Transform, Type, Values, parse,
};
use anyhow::{Context as _, Result, anyhow};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use serde_json::{Value, json};

/// A plugin, its configuration, and rows for it.
pub(crate) struct Case {
    /// The bundled plugin.
    pub(crate) plugin: &'static str,
    /// Its `config` table.
    pub(crate) config: Value,
    /// Rows as a source makes them: what the plugin reads, and a timestamp that only passes.
    pub(crate) rows: RecordBatch,
}

/// Native code that does what the plugin does: the plugin's own logic, called directly on the batch's memory, and the
/// same Arrow functions for what the host does around it.
pub(crate) type Native = Box<dyn FnMut(&RecordBatch) -> Result<RecordBatch>>;

/// All cases, with so many rows.
pub(crate) fn all(rows: usize) -> Result<Vec<Case>> {
    let count = i64::try_from(rows)?;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values((0..count).map(|number| number as f64)));
    let lines: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(line)));
    let case = |plugin, config, values: &ArrayRef| -> Result<Case> {
        let times =
            TimestampMicrosecondArray::from_iter_values((0..count).map(|number| 1_700_000_000_000_000 + number));
        let times: ArrayRef = Arc::new(times.with_timezone("UTC"));
        let rows = RecordBatch::try_from_iter([("value", values.clone()), ("timestamp", times)])?;
        // Named and typed as the engine has them: not nullable.
        let schema = RowSchema::to_arrow(&RowSchema::from_arrow(rows.schema_ref()));
        Ok(Case { plugin, config, rows: RecordBatch::try_new(schema, rows.columns().to_vec())? })
    };
    Ok(vec![
        case("even-filter", json!({}), &numbers)?,
        case("sine-wave", json!({}), &floats)?,
        case("triangle-wave", json!({}), &floats)?,
        case("word-count", json!({}), &lines)?,
        case("select", json!({ "drop": ["timestamp"], "rename": { "value": "number" } }), &numbers)?,
        case("uuid", json!({ "from": ["value"] }), &lines)?,
    ])
}

/// Eight words out of a thousand, the frequent ones more often, as in a text.
fn line(row: usize) -> String {
    let mut state = row as u64 + 1;
    let mut word = || {
        // Knuth's MMIX: Donald Knuth, The Art of Computer Programming, volume 2, 3.3.4.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 33) as f64 / (1u64 << 31) as f64;
        // Zipf's law: a word's frequency falls as its rank, so that a rank's logarithm is uniform.
        format!("word{}", 1000f64.powf(uniform) as u64)
    };
    (0..8).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// The native counterpart of a case. `output` is the schema of the plugin's output.
pub(crate) fn native(case: &Case, output: SchemaRef) -> Result<Native> {
    let config = case.config.to_string();
    let schema = Schema { fields: Vec::new(), open: true };
    let failed = |error: acequia_plugin_sdk::Error| anyhow!("{}: {error}", case.plugin);
    let missing = || anyhow!("the batch has another type of column");
    Ok(match case.plugin {
        "even-filter" => {
            let config = parse(&config).map_err(failed)?;
            let mut plugin = even_filter::EvenFilter::configure(config, &schema).map_err(failed)?;
            Box::new(move |batch| {
                let values = batch.column(0).as_primitive_opt::<Int64Type>().ok_or_else(missing)?.values();
                let kept = plugin.keep(&mut Rows::new(values.len() as u32), values);
                Ok(filter_record_batch(batch, &mask(kept))?)
            })
        }
        "sine-wave" => adding::<sine_wave::SineWave>(case, output)?,
        "triangle-wave" => adding::<triangle_wave::TriangleWave>(case, output)?,
        "word-count" => {
            let config = parse(&config).map_err(failed)?;
            let mut plugin = word_count::WordCount::configure(config, &schema).map_err(failed)?;
            let text = text(&case.rows)?;
            Box::new(move |batch| {
                let lines =
                    Option::<String>::view(&text, None, batch.num_rows()).map_err(|error| anyhow!("{error}"))?;
                let (_, (words, counts)) = plugin.update(&mut Rows::new(batch.num_rows() as u32), lines);
                let columns: Vec<ArrayRef> = vec![strings(words)?, Arc::new(Int64Array::new(counts.into(), None))];
                Ok(RecordBatch::try_new(output.clone(), columns)?)
            })
        }
        "select" => Box::new(move |batch| Ok(RecordBatch::try_new(output.clone(), vec![Arc::clone(batch.column(0))])?)),
        "uuid" => {
            let config = parse(&config).map_err(failed)?;
            let (mut plugin, _) = uuid_plugin::Ids::configure(config, &schema).map_err(failed)?;
            let column = Column { name: "value".to_owned(), values: text(&case.rows)?, valid: None };
            Box::new(move |batch| {
                let input = acequia_plugin_sdk::Batch { rows: batch.num_rows() as u32, columns: vec![column.clone()] };
                let ids = plugin.apply(input).map_err(|error| anyhow!("{error}"))?.columns.pop();
                let Some(Column { values: Values::Text(ids), .. }) = ids else { return Err(missing()) };
                let mut columns = batch.columns().to_vec();
                columns.push(strings(ids)?);
                Ok(RecordBatch::try_new(output.clone(), columns)?)
            })
        }
        other => return Err(anyhow!("there is no native counterpart of {other}")),
    })
}

/// What `word-count` does as a program in Rust would do it at first: the standard library's hash map, and its `split`. Nothing
/// checks a limit, and no row can fail.
pub(crate) fn plain_word_count(_: &Case, output: SchemaRef) -> Result<Native> {
    let mut totals: HashMap<String, (i64, u64)> = HashMap::new();
    let mut batches = 0;
    Ok(Box::new(move |batch| {
        let lines = batch.column(0).as_string_opt::<i32>().context("the first column is not text")?;
        batches += 1;
        let mut touched = Vec::new();
        for word in lines.iter().flatten().flat_map(|line| line.split(' ')) {
            match totals.get_mut(word) {
                Some((total, seen)) => {
                    *total += 1;
                    if *seen != batches {
                        *seen = batches;
                        touched.push(word);
                    }
                }
                None => {
                    totals.insert(word.to_owned(), (1, batches));
                    touched.push(word);
                }
            }
        }
        let counts = touched.iter().map(|word| totals.get(*word).map_or(0, |(total, _)| *total));
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(counts));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values(touched));
        Ok(RecordBatch::try_new(output.clone(), vec![words, counts])?)
    }))
}

/// A plugin that adds a column of numbers made of the first one.
fn adding<P>(case: &Case, output: SchemaRef) -> Result<Native>
where
    P: Map<Reads = f64, Adds = f64> + 'static,
{
    let failed = |error: acequia_plugin_sdk::Error| anyhow!("{}: {error}", case.plugin);
    let config = parse(&case.config.to_string()).map_err(failed)?;
    let mut plugin = P::configure(config, &Schema { fields: Vec::new(), open: true }).map_err(failed)?;
    Ok(Box::new(move |batch| {
        let values = batch.column(0).as_primitive_opt::<Float64Type>().context("the first column is no float")?;
        let made = plugin.map(&mut Rows::new(values.len() as u32), values.values());
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(Float64Array::new(made.into(), None)));
        Ok(RecordBatch::try_new(output.clone(), columns)?)
    }))
}

fn mask(kept: Bitmap) -> BooleanArray {
    let length = kept.len();
    BooleanArray::new(BooleanBuffer::new(Buffer::from(kept.into_bytes()), 0, length), None)
}

/// The first column as the SDK has text.
fn text(rows: &RecordBatch) -> Result<Values> {
    let column = rows.column(0).as_string_opt::<i32>().context("the first column is not text")?;
    Ok(Values::Text(column.iter().map(Option::unwrap_or_default).collect::<Packed>()))
}

/// What the SDK made, as Arrow has it, checked as the host checks it.
fn strings(packed: Packed) -> Result<ArrayRef> {
    let Packed { offsets, data } = packed;
    let count = offsets.len();
    // Below 2^31, so that u32 and i32 are the same bits.
    let offsets = ScalarBuffer::<i32>::new(Buffer::from(offsets), 0, count);
    Ok(Arc::new(StringArray::try_new(OffsetBuffer::new(offsets), data.into(), None)?))
}

/// Whether two results are the same. The sine of one mathematical library differs from another's in its last bit.
pub(crate) fn are_same(one: &RecordBatch, other: &RecordBatch) -> bool {
    let column = |(one, other): (&ArrayRef, &ArrayRef)| match (one.as_primitive_opt(), other.as_primitive_opt()) {
        (Some(one), Some(other)) => {
            let (one, other): (&Float64Array, &Float64Array) = (one, other);
            let near = |(one, other): (&f64, &f64)| (one - other).abs() <= 1e-15 * one.abs();
            one.len() == other.len() && one.values().iter().zip(other.values()).all(near)
        }
        _ => one == other,
    };
    one.schema() == other.schema() && one.columns().iter().zip(other.columns()).all(column)
}

#[cfg(test)]
mod tests {
    use acequia_connector_api::{ColumnType, Field};

    use super::*;

    #[test]
    fn every_case_has_a_native_counterpart() {
        for case in all(3).unwrap() {
            let output = match case.plugin {
                "word-count" => RowSchema::closed(vec![
                    Field::new("word", ColumnType::Text, false),
                    Field::new("count", ColumnType::Int64, false),
                ]),
                "select" => RowSchema::closed(vec![Field::new("number", ColumnType::Int64, false)]),
                "sine-wave" => with(&case, Field::new("sin", ColumnType::Float64, false)),
                "triangle-wave" => with(&case, Field::new("tr", ColumnType::Float64, false)),
                "uuid" => with(&case, Field::new("id", ColumnType::Text, false)),
                _ => RowSchema::from_arrow(case.rows.schema_ref()),
            };
            let result = native(&case, output.to_arrow()).unwrap()(&case.rows).unwrap();
            match case.plugin {
                // Of 0, 1 and 2.
                "even-filter" => assert_eq!(result.num_rows(), 2),
                "word-count" => assert!((1..=24).contains(&result.num_rows())),
                _ => assert_eq!(result.num_rows(), 3),
            }
            assert!(are_same(&result, &result));
            assert!(!are_same(&result, &result.slice(1, result.num_rows() - 1)));
        }
    }

    fn with(case: &Case, field: Field) -> RowSchema {
        let mut fields = RowSchema::from_arrow(case.rows.schema_ref()).fields;
        fields.push(field);
        RowSchema::closed(fields)
    }

    #[test]
    fn a_sine_may_differ_in_its_last_bit() {
        let batch = |values: Vec<f64>| {
            let column: ArrayRef = Arc::new(Float64Array::from(values));
            RecordBatch::try_from_iter([("x", column)]).unwrap()
        };
        assert!(are_same(&batch(vec![1.0, 50.0]), &batch(vec![1.0, 50f64.next_up()])));
        assert!(!are_same(&batch(vec![1.0]), &batch(vec![1.00000000000001])));
        assert!(!are_same(&batch(vec![1.0]), &batch(vec![1.0, 1.0])));
    }
}
