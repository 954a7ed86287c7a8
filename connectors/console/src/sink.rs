//! The running sink.

use std::io;

use acequia_connector_api::{Batch, ConnectorError, FailedRow, Flushed, Sink};
use acequia_format::{CsvOptions, Encoder, Format};
use async_trait::async_trait;

use crate::table::Table;
use crate::{ConsoleFormat, Output};

/// A running `console` sink.
#[derive(Debug)]
pub struct ConsoleSink {
    pipeline: String,
    output: Output,
    style: Style,
}

#[derive(Debug)]
enum Style {
    Table(Table),
    Json(Encoder),
}

impl ConsoleSink {
    /// A sink of this pipeline. `shorten`: cut long values, as on a terminal.
    pub fn new(format: ConsoleFormat, pipeline: &str, output: Output, shorten: bool) -> Self {
        output.enter(pipeline);
        let style = match format {
            ConsoleFormat::Table => Style::Table(Table::new(shorten)),
            ConsoleFormat::Json => Style::Json(Encoder::new(Format::Json, &CsvOptions::default(), None)),
        };
        ConsoleSink { pipeline: pipeline.to_owned(), output, style }
    }

    /// Write on a thread that may block: a reader that has stopped (a pager, Ctrl-S) must not hold up other pipelines.
    async fn put(&self, bytes: Vec<u8>) -> Result<(), ConnectorError> {
        let output = self.output.clone();
        match tokio::task::spawn_blocking(move || output.write(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(ConnectorError::failed("nothing reads the standard output any more").because(error))
            }
            Ok(Err(error)) => Err(ConnectorError::failed("the standard output can't be written to").because(error)),
            Err(error) => Err(ConnectorError::failed("writing to the standard output was cut short").because(error)),
        }
    }
}

#[async_trait]
impl Sink for ConsoleSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut failed = Vec::new();
        let bytes = match &mut self.style {
            Style::Table(table) => {
                let prefix = if self.output.is_shared() { format!("{} | ", self.pipeline) } else { String::new() };
                table.render(&batch.rows, &prefix).into_bytes()
            }
            Style::Json(encoder) => {
                let mut bytes = Vec::new();
                let refused = encoder
                    .encode(&batch.rows, &mut bytes)
                    .map_err(|error| ConnectorError::failed("these rows can't be written as JSON").because(error))?;
                failed.extend(refused.into_iter().map(|(row, error)| batch.fail(row, error)));
                bytes
            }
        };
        self.put(bytes).await?;
        Ok(failed)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        self.put(Vec::new()).await?;
        Ok(Flushed::default())
    }
}

impl Drop for ConsoleSink {
    fn drop(&mut self) {
        self.output.leave(&self.pipeline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::sync::{Arc, Mutex};

    use acequia_connector_api::Origin;
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    /// Keeps what is written, and counts flushes.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().1 += 1;
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(values: &[i64]) -> Batch {
        let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        Batch::new(RecordBatch::try_from_iter([("value", values)]).unwrap(), Origin::Unknown)
    }

    #[tokio::test]
    async fn rows_are_out_when_write_returns() {
        let kept = Kept::default();
        let mut sink = ConsoleSink::new(ConsoleFormat::Table, "p", Output::new(kept.clone()), false);
        assert!(sink.write(&batch(&[])).await.unwrap().is_empty());
        assert_eq!(kept.text(), "");
        sink.write(&batch(&[1, 2])).await.unwrap();
        assert_eq!(kept.text(), " value\n------\n     1\n     2\n");
        let flushes = kept.0.lock().unwrap().1;
        assert!(flushes >= 1);
        let flushed = sink.flush().await.unwrap();
        assert!(flushed.failed.is_empty() && flushed.state.is_none());
        assert!(kept.0.lock().unwrap().1 > flushes);
    }

    #[tokio::test]
    async fn json_is_one_object_a_line() {
        let kept = Kept::default();
        let mut sink = ConsoleSink::new(ConsoleFormat::Json, "p", Output::new(kept.clone()), true);
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("two\nlines \"x\""), None]));
        let value: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 0]));
        let rows = RecordBatch::try_from_iter_with_nullable([("value", value, false), ("text", text, true)]).unwrap();
        sink.write(&Batch::new(rows, Origin::Unknown)).await.unwrap();
        insta::assert_snapshot!(kept.text(), @r#"
        {"value":9223372036854775807,"text":"two\nlines \"x\""}
        {"value":0,"text":null}
        "#);
    }

    #[tokio::test]
    async fn lines_name_their_pipeline_where_two_share_an_output() {
        let kept = Kept::default();
        let output = Output::new(kept.clone());
        let mut one = ConsoleSink::new(ConsoleFormat::Table, "one", output.clone(), false);
        // A second sink of the same pipeline, such as the next one during a reload, changes nothing.
        let next = ConsoleSink::new(ConsoleFormat::Table, "one", output.clone(), false);
        one.write(&batch(&[1])).await.unwrap();
        drop(next);
        let mut two = ConsoleSink::new(ConsoleFormat::Table, "two", output.clone(), false);
        two.write(&batch(&[2])).await.unwrap();
        one.write(&batch(&[3])).await.unwrap();
        drop(two);
        one.write(&batch(&[4])).await.unwrap();
        insta::assert_snapshot!(kept.text());
        drop(one);
        assert!(!output.is_shared());
    }

    #[tokio::test]
    async fn a_broken_pipe_is_an_error() {
        let output = Output::new(Broken(io::ErrorKind::BrokenPipe));
        let mut sink = ConsoleSink::new(ConsoleFormat::Table, "p", output, false);
        let error = sink.write(&batch(&[1])).await.unwrap_err();
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "nothing reads the standard output any more");
        let output = Output::new(Broken(io::ErrorKind::StorageFull));
        let mut sink = ConsoleSink::new(ConsoleFormat::Table, "p", output, false);
        let error = sink.write(&batch(&[1])).await.unwrap_err();
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "the standard output can't be written to");
    }

    #[tokio::test]
    async fn a_real_pipe_whose_reader_has_gone() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut sink = ConsoleSink::new(ConsoleFormat::Table, "p", Output::new(writer), false);
        let error = sink.write(&batch(&[1])).await.unwrap_err();
        assert_eq!(error.to_string(), "nothing reads the standard output any more");
    }

    #[tokio::test]
    async fn a_real_file() {
        let mut file = tempfile::tempfile().unwrap();
        let output = Output::new(file.try_clone().unwrap());
        let mut sink = ConsoleSink::new(ConsoleFormat::Table, "p", output, false);
        sink.write(&batch(&[5])).await.unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("     5\n"), "{text}");
    }
}
