//! Rows that carry the text which they were read from.
//!
//! Where little of a row is read, a source need not make columns of all of it: it makes those that are read, and beside
//! them one of what the row was read from. A sink that writes the same format writes that text again, byte for byte, if
//! nothing has changed the row; a dead letter shows it. Only for JSON, and only where the host has asked for it
//! ([`crate::Context::reads`]).

use arrow_array::{Array, RecordBatch, StringViewArray};
use arrow_schema::{DataType, Field};

/// The name of the column that has a row's own text: a JSON object without a line break. No configuration can name it, and
/// its Arrow type is none of the seven column types.
pub const RECORD: &str = "\0record";

/// The field of the column.
pub fn record_field() -> Field {
    Field::new(RECORD, DataType::Utf8View, false)
}

/// The column, if the rows have it.
pub fn record_column(rows: &RecordBatch) -> Option<&StringViewArray> {
    rows.column_by_name(RECORD)?.as_any().downcast_ref()
}

/// The rows without it.
pub fn without_record(rows: &RecordBatch) -> RecordBatch {
    match rows.schema_ref().index_of(RECORD) {
        Ok(index) => {
            let mut rows = rows.clone();
            rows.remove_column(index);
            rows
        }
        Err(_) => rows.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use arrow_schema::Schema;

    use super::*;

    #[test]
    fn found_and_taken_out() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), record_field()]));
        let records = StringViewArray::from(vec![r#"{"n":1}"#, r#"{"n": 2}"#]);
        let rows =
            RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(records)]).unwrap();
        assert_eq!(record_column(&rows).unwrap().value(1), r#"{"n": 2}"#);
        let rest = without_record(&rows);
        assert_eq!((rest.num_columns(), rest.num_rows()), (1, 2));
        assert!(record_column(&rest).is_none());
        assert_eq!(without_record(&rest), rest);
    }
}
