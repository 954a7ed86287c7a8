//! Tests of the connector as the engine sees it: configurations as TOML, batches, positions, states.

mod ahead;
mod columnar;
mod crash;
mod follow;
mod sink;
mod source;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use acequia_connector_api::{
    Batch, BatchLimits, ByteSize, Context, Event, Position, Sink, SinkConfig, Source, SourceConfig, Span, row_to_json,
};
use serde_json::Value;

use crate::{FileSink, FileSource};

/// A context whose batches have at most so many rows, and wait no longer than a moment.
pub(crate) fn context(folder: &Path, rows: usize) -> Context {
    Context {
        pipeline: "test".into(),
        stage: "file".into(),
        base: folder.into(),
        batch: BatchLimits { rows, bytes: ByteSize(1 << 20), wait: Span(Duration::from_millis(1)) },
        tasks: 1,
        reads: None,
        share: Default::default(),
    }
}

pub(crate) fn source_config(toml: &str) -> FileSource {
    let config: FileSource = toml::from_str(toml).unwrap();
    config.check().unwrap();
    config
}

pub(crate) async fn open_source(context: &Context, toml: &str, position: Option<&Position>) -> Box<dyn Source> {
    source_config(toml).open(context, position).await.unwrap()
}

pub(crate) async fn open_sink(context: &Context, toml: &str, state: Option<&Value>) -> Box<dyn Sink> {
    sink_config(toml).open(context, state).await.unwrap()
}

pub(crate) fn sink_config(toml: &str) -> FileSink {
    let config: FileSink = toml::from_str(toml).unwrap();
    config.check().unwrap();
    config
}

/// The next batch; `None` at the end. A source that brings nothing fails the test instead of hanging it.
pub(crate) async fn next(source: &mut dyn Source) -> Option<Batch> {
    let event = tokio::time::timeout(Duration::from_secs(20), source.next()).await.expect("the source brings nothing");
    match event.unwrap() {
        Event::Batch(batch) => Some(batch),
        Event::End => None,
        Event::Checkpoint => panic!("a file is never taken away"),
    }
}

/// The next batch, while the future is dropped again and again after some polls.
pub(crate) async fn next_with_cancels(source: &mut dyn Source, random: &mut Random) -> Option<Batch> {
    loop {
        let polls = random.below(4);
        let mut left = polls;
        let mut future = pin!(source.next());
        let bounded = std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            context.waker().wake_by_ref();
            future.as_mut().poll(context).map(Some)
        });
        if let Some(event) = bounded.await {
            return match event.unwrap() {
                Event::Batch(batch) => Some(batch),
                Event::End => None,
                Event::Checkpoint => panic!("a file is never taken away"),
            };
        }
    }
}

/// Every batch to the end.
pub(crate) async fn all(source: &mut dyn Source) -> Vec<Batch> {
    let mut batches = Vec::new();
    while let Some(batch) = next(source).await {
        batches.push(batch);
    }
    batches
}

/// `LINE: ROW` for each row, then `LINE! ERROR` for each failed one.
pub(crate) fn shown(batch: &Batch) -> Vec<String> {
    let rows = (0..batch.len()).map(|row| {
        let (_, line) = batch.origin.locate(row);
        format!("{}: {}", line.unwrap_or(-1), row_to_json(&batch.rows, row))
    });
    let failed = batch.failed.iter().map(|failed| format!("{}! {}", failed.offset.unwrap_or(-1), failed.error));
    rows.chain(failed).collect()
}

pub(crate) fn shown_all(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(shown).collect()
}

/// Read a file or pattern to its end.
pub(crate) async fn read(folder: &Path, rows: usize, toml: &str) -> Vec<String> {
    shown_all(&all(open_source(&context(folder, rows), toml, None).await.as_mut()).await)
}

/// Numbers that are the same in every run: a linear congruential generator with Knuth's MMIX constants.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
