//! Where the text goes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// A writer that several sinks share. One write of a sink is not interleaved with another's.
#[derive(Clone)]
pub struct Output(Arc<Shared>);

struct Shared {
    writer: Mutex<Box<dyn Write + Send>>,
    /// How many sinks each pipeline has open here. Apart from the writer, which may be blocked for long.
    pipelines: Mutex<BTreeMap<String, usize>>,
}

impl Output {
    /// This process's standard output; the same for every caller.
    pub fn stdout() -> Self {
        static STDOUT: LazyLock<Output> = LazyLock::new(|| Output::new(io::stdout()));
        STDOUT.clone()
    }

    /// Any writer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Output(Arc::new(Shared { writer: Mutex::new(Box::new(writer)), pipelines: Mutex::default() }))
    }

    /// Write, and pass on at once what the writer may hold back. Blocks as long as the other side does.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = lock(&self.0.writer);
        writer.write_all(bytes)?;
        writer.flush()
    }

    pub(crate) fn enter(&self, pipeline: &str) {
        *lock(&self.0.pipelines).entry(pipeline.to_owned()).or_default() += 1;
    }

    pub(crate) fn leave(&self, pipeline: &str) {
        let mut pipelines = lock(&self.0.pipelines);
        if let Some(sinks) = pipelines.get_mut(pipeline) {
            *sinks -= 1;
            if *sinks == 0 {
                pipelines.remove(pipeline);
            }
        }
    }

    /// Whether rows of more than one pipeline arrive here.
    pub(crate) fn is_shared(&self) -> bool {
        lock(&self.0.pipelines).len() > 1
    }
}

/// A writer that panicked once is no reason to panic again: the lock guards no invariant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Output")
    }
}
