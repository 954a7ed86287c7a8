//! What a guest says: lines of its log, standard output and standard error. Each goes to the daemon's log; the last ones
//! of a call are kept for the message of its failure.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::log::Level;
use super::error::shorten;

/// So many lines of a call are kept.
const LINES: usize = 8;

/// A longer line is cut: a guest without line breaks must not fill the host's memory.
const LINE_BYTES: usize = 8 << 10;

/// Bytes that a guest may write at once.
const PERMIT: usize = 64 << 10;

/// What one instance says. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pipeline: String,
    transform: String,
    plugin: String,
    /// There is something in `said`: spares the lock in the usual call, which says nothing.
    dirty: AtomicBool,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<String>,
    partial: [Vec<u8>; 2],
}

/// One of a guest's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Capture {
    /// For an instance of `plugin` in the transform `transform` of `pipeline`.
    pub(crate) fn new(pipeline: &str, transform: &str, plugin: &str) -> Self {
        Capture {
            shared: Arc::new(Shared {
                pipeline: pipeline.to_owned(),
                transform: transform.to_owned(),
                plugin: plugin.to_owned(),
                dirty: AtomicBool::new(false),
                said: Mutex::default(),
            }),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.shared.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins: what was said before has nothing to do with it.
    pub(crate) fn begin_call(&self) {
        if self.shared.dirty.swap(false, Ordering::Relaxed) {
            self.said().lines.clear();
        }
    }

    /// The last lines that the call said.
    pub(crate) fn end_call(&self) -> Vec<String> {
        let mut said = self.said();
        for stream in [Stream::Output, Stream::Error] {
            let partial = std::mem::take(&mut said.partial[stream as usize]);
            self.keep(&mut said, stream, &partial);
        }
        said.lines.drain(..).collect()
    }

    /// A line of the guest's log. Only warnings and errors are of use beside a failure.
    pub(crate) fn log(&self, level: Level, message: &str) {
        let message = shorten(message);
        self.trace(level, &message);
        if matches!(level, Level::Error | Level::Warn) {
            self.push(&mut self.said(), message);
        }
    }

    fn push(&self, said: &mut Said, line: String) {
        self.shared.dirty.store(true, Ordering::Relaxed);
        if said.lines.len() == LINES {
            said.lines.pop_front();
        }
        said.lines.push_back(line);
    }

    fn keep(&self, said: &mut Said, stream: Stream, line: &[u8]) {
        let line = shorten(&String::from_utf8_lossy(line));
        if line.is_empty() {
            return;
        }
        self.trace(if stream == Stream::Error { Level::Warn } else { Level::Info }, &line);
        self.push(said, line);
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut said = self.said();
        self.shared.dirty.store(true, Ordering::Relaxed);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = &mut said.partial[stream as usize];
            let room = LINE_BYTES.saturating_sub(partial.len());
            partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(partial);
                self.keep(&mut said, stream, &line);
            }
        }
    }

    fn trace(&self, level: Level, message: &str) {
        let Shared { pipeline, transform, plugin, .. } = &*self.shared;
        match level {
            Level::Error => tracing::error!(target: "plugin", %pipeline, %transform, %plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", %pipeline, %transform, %plugin, "{message}"),
            Level::Info => tracing::info!(target: "plugin", %pipeline, %transform, %plugin, "{message}"),
            Level::Debug => tracing::debug!(target: "plugin", %pipeline, %transform, %plugin, "{message}"),
        }
    }

    /// The stream, as WASI wants it.
    pub(crate) fn stream(&self, stream: Stream) -> CaptureStream {
        CaptureStream { capture: self.clone(), stream }
    }
}

/// See [`Capture::stream`].
#[derive(Clone, Debug)]
pub(crate) struct CaptureStream {
    capture: Capture,
    stream: Stream,
}

impl IsTerminal for CaptureStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for CaptureStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Without the default's background task: what was written before a trap is here when the trap is.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for CaptureStream {
    async fn ready(&mut self) {}
}

impl OutputStream for CaptureStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.capture.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

impl AsyncWrite for CaptureStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.capture.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_of_the_call() {
        let capture = Capture::new("p", "t", "x.wasm");
        capture.log(Level::Error, "of an earlier call");
        capture.begin_call();
        for line in 0..20 {
            capture.write(Stream::Error, format!("line {line}\n").as_bytes());
        }
        capture.log(Level::Info, "not kept");
        capture.write(Stream::Output, b"no line break");
        let lines = capture.end_call();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.first().unwrap(), "line 13");
        assert_eq!(lines.last().unwrap(), "no line break");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let capture = Capture::new("p", "t", "x.wasm");
        for _ in 0..100 {
            capture.write(Stream::Error, &[b'x'; 4096]);
        }
        assert_eq!(capture.said().partial[1].len(), LINE_BYTES);
        assert!(capture.end_call()[0].len() < 2100);
    }
}
