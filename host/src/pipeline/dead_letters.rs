//! Rows that failed: where they go, and their shape there.

use std::sync::Arc;

use acequia_connector_api::{Batch, ColumnType, FailedRow, Field, Origin, RowSchema};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use tokio::sync::mpsc;

use super::error::{Remedy, RunError};
use super::status::now_millis;
use super::{Barrier, Message};
use crate::config::model::OnError;

/// The columns of a dead letter, whatever the sink.
pub fn dead_letter_schema() -> RowSchema {
    RowSchema::closed(vec![
        Field::new("time", ColumnType::Timestamp, false),
        Field::new("pipeline", ColumnType::Text, false),
        Field::new("stage", ColumnType::Text, false),
        Field::new("partition", ColumnType::Text, true),
        Field::new("offset", ColumnType::Int64, true),
        Field::new("error", ColumnType::Text, false),
        Field::new("row", ColumnType::Text, true),
    ])
}

/// Where a stage sends the rows that failed in it. Each stage that can have such rows has one of its own, and sends a
/// barrier that it has passed along the same way: so the dead letters' sink can tell what belongs before it (invariant 3).
pub(super) struct FailureRoute {
    pub(super) pipeline: Arc<str>,
    pub(super) on_error: OnError,
    /// To the dead letters' sink.
    pub(super) letters: Option<mpsc::Sender<Message>>,
}

impl FailureRoute {
    /// What has to be sent to the dead letters for rows that failed in `stage`, if anything.
    pub(super) fn letter(&self, stage: &str, mut rows: Vec<FailedRow>) -> Result<Option<Message>, RunError> {
        let Some(first) = rows.first() else { return Ok(None) };
        match self.on_error {
            OnError::Stop => Err(RunError::new(
                stage,
                format!("{}; the pipeline stops here, as on_error = \"stop\" says", describe(first)),
            )
            .with(Remedy::Stop)),
            OnError::Skip => {
                tracing::warn!(pipeline = %self.pipeline, stage, rows = rows.len(), error = describe(first),
                    "rows failed and are skipped, as on_error = \"skip\" says");
                Ok(None)
            }
            OnError::DeadLetter => {
                tracing::warn!(pipeline = %self.pipeline, stage, rows = rows.len(), error = describe(first),
                    "rows failed and go to the dead letters");
                if self.letters.is_none() {
                    return Err(RunError::new(stage, "there is no sink for dead letters"));
                }
                for row in &mut rows {
                    stage.clone_into(&mut row.stage);
                }
                let batch = to_batch(&self.pipeline, &rows)
                    .map_err(|error| RunError::new(stage, format!("dead letters can't be made: {error}")))?;
                Ok(Some(Message::Batch(batch, None)))
            }
        }
    }

    /// Send rows that failed in `stage` on their way. Once this has returned, a barrier that is sent after them covers
    /// them.
    pub(super) async fn route(&self, stage: &str, rows: Vec<FailedRow>) -> Result<(), RunError> {
        match self.letter(stage, rows)? {
            Some(letter) => self.send(stage, letter).await,
            None => Ok(()),
        }
    }

    /// The stage has passed the barrier.
    pub(super) async fn barrier(&self, stage: &str, barrier: Barrier) -> Result<(), RunError> {
        self.send(stage, Message::Barrier(barrier)).await
    }

    async fn send(&self, stage: &str, message: Message) -> Result<(), RunError> {
        match &self.letters {
            Some(letters) => letters.send(message).await.map_err(|_| RunError::echo(stage)),
            None => Ok(()),
        }
    }
}

fn describe(row: &FailedRow) -> String {
    match (&row.partition, row.offset) {
        (Some(partition), Some(offset)) if partition.is_empty() => format!("row {offset}: {}", row.error),
        (Some(partition), Some(offset)) => format!("{partition}, row {offset}: {}", row.error),
        _ => row.error.clone(),
    }
}

fn to_batch(pipeline: &str, rows: &[FailedRow]) -> Result<Batch, arrow_schema::ArrowError> {
    let now = i64::try_from(now_millis()).unwrap_or(i64::MAX).saturating_mul(1000);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![now; rows.len()]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![pipeline; rows.len()])),
        Arc::new(rows.iter().map(|row| Some(row.stage.as_str())).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.partition.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.offset).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.error.as_str())).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.row.as_deref()).collect::<StringArray>()),
    ];
    let rows = RecordBatch::try_new(dead_letter_schema().to_arrow(), columns)?;
    Ok(Batch::new(rows, Origin::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_the_columns_that_it_promises() {
        let row = FailedRow {
            stage: "even-filter".into(),
            partition: Some("people.json".into()),
            offset: Some(3),
            error: "no number".into(),
            row: None,
        };
        let batch = to_batch("seq", &[row]).unwrap();
        assert_eq!(RowSchema::from_arrow(batch.rows.schema_ref()), dead_letter_schema());
        let row = acequia_connector_api::row_to_json(&batch.rows, 0);
        assert_eq!(row["stage"], "even-filter");
        assert_eq!(row["offset"], 3);
        assert!(row["row"].is_null());
    }
}
