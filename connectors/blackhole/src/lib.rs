//! The `blackhole` sink: counts rows and drops them. For measuring a pipeline, and for trying one out.

use acequia_connector_api::{Batch, ConnectorError, Context, FailedRow, Flushed, Sink, SinkConfig};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Counts rows and drops them. It asks for every column, as a sink that keeps them would, so that what comes before it
/// has all its work to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlackholeConfig {}

#[async_trait]
impl SinkConfig for BlackholeConfig {
    const TYPE: &'static str = "blackhole";
    const SUMMARY: &'static str = "counts rows and drops them";
    const EXAMPLE: &'static str = "type = \"blackhole\"\n";

    fn reads_beside_record(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }

    async fn open(&self, _context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(BlackholeSink::restore(state)))
    }
}

/// A running `blackhole` sink. Its state is `{"rows": N}`: the count is part of the checkpoint, so it is exact across
/// restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlackholeSink {
    rows: u64,
}

impl BlackholeSink {
    /// Go on counting from a state; anything else than a state of this sink counts as none.
    pub fn restore(state: Option<&Value>) -> Self {
        let rows = state.and_then(|state| state.get("rows")).and_then(Value::as_u64);
        BlackholeSink { rows: rows.unwrap_or(0) }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

#[async_trait]
impl Sink for BlackholeSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        self.rows = self.rows.saturating_add(batch.len() as u64);
        Ok(Vec::new())
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        Ok(Flushed { failed: Vec::new(), state: Some(json!({ "rows": self.rows })) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::Arc;

    use acequia_connector_api::{BatchLimits, Origin};
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};

    fn batch(rows: i64) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let rows = RecordBatch::try_from_iter([("value", column)]).unwrap();
        let failed = Batch::new(rows.clone(), Origin::Unknown).fail(0, "not counted here");
        Batch { rows, origin: Origin::Unknown, failed: vec![failed] }
    }

    #[tokio::test]
    async fn counts_across_a_restart() {
        let config: BlackholeConfig = toml::from_str("").unwrap();
        let context = Context {
            pipeline: "p".into(),
            stage: "sink".into(),
            base: PathBuf::new(),
            batch: BatchLimits::default(),
            tasks: 1,
            reads: None,
            share: Default::default(),
        };
        let mut sink = config.open(&context, None).await.unwrap();
        assert!(sink.write(&batch(3)).await.unwrap().is_empty());
        assert!(sink.write(&batch(4)).await.unwrap().is_empty());
        let state = sink.flush().await.unwrap().state;
        assert_eq!(state, Some(json!({ "rows": 7 })));
        // What came after the stored flush is written again after a crash, and counts once.
        sink.write(&batch(5)).await.unwrap();
        let mut sink = config.open(&context, state.as_ref()).await.unwrap();
        sink.write(&batch(5)).await.unwrap();
        assert_eq!(sink.flush().await.unwrap().state, Some(json!({ "rows": 12 })));
    }

    #[test]
    fn keys_and_foreign_states() {
        let example = BlackholeConfig::EXAMPLE.replace("type = \"blackhole\"\n", "");
        assert_eq!(toml::from_str::<BlackholeConfig>(&example).unwrap(), BlackholeConfig {});
        assert!(toml::from_str::<BlackholeConfig>("path = \"x\"").is_err());
        assert!(BlackholeConfig {}.reads().is_none());
        assert_eq!(BlackholeSink::restore(Some(&json!({ "length": 3 }))).rows(), 0);
    }
}
