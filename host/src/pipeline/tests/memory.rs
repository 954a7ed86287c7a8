//! A source, a sink and transforms in memory that do as the test says, and the outside world that outlives a crash.

mod rig;
mod sink;
mod source;
mod transform;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use acequia_connector_api::ConnectorError;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use tokio::sync::watch;

pub(super) use rig::{Rig, TICK};
pub(super) use sink::{Call, Gate, Table};
pub(super) use source::Numbers;
pub(super) use transform::{Stage, Work};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wait for a condition; the clock is paused, so this takes no time. Fails after ten minutes of it.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..600_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("this never came: {what}");
}

/// The future must end within that much of the paused clock.
pub(super) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("this took longer than {limit:?}: {what}"),
    }
}

/// What a scripted call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Retryable,
    Failed,
    Panic,
    Hang,
}

/// The faults of the next calls, one each.
#[derive(Debug, Default)]
pub(super) struct Faults {
    next: Mutex<VecDeque<Fault>>,
    forever: Mutex<Option<Fault>>,
}

impl Faults {
    /// The next `times` calls have this fault.
    pub(super) fn add(&self, fault: Fault, times: usize) {
        lock(&self.next).extend(std::iter::repeat_n(fault, times));
    }

    /// Every call has this fault, or none from here on.
    pub(super) fn forever(&self, fault: Option<Fault>) {
        *lock(&self.forever) = fault;
    }

    /// Let the call have its fault, if one is due.
    async fn strike(&self, what: &str) -> Result<(), ConnectorError> {
        let fault = lock(&self.next).pop_front().or(*lock(&self.forever));
        match fault {
            None => Ok(()),
            Some(Fault::Retryable) => Err(ConnectorError::retryable(format!("{what} does not work now"))),
            Some(Fault::Failed) => Err(ConnectorError::failed(format!("{what} is broken"))),
            Some(Fault::Panic) => panic!("{what} panics, as the test wants it"),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }
}

/// Counts every moment at which a connector or a transform is called or returns. At one of them, the test's choice, the
/// process "dies": from there on nothing that is called ever returns.
#[derive(Debug)]
pub(super) struct Probe {
    count: AtomicU64,
    fatal: AtomicU64,
    dead: watch::Sender<bool>,
    alive: AtomicU64,
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            count: AtomicU64::new(0),
            fatal: AtomicU64::new(u64::MAX),
            dead: watch::Sender::new(false),
            alive: AtomicU64::new(0),
        }
    }
}

impl Probe {
    /// A moment.
    pub(super) async fn point(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.fatal.load(Ordering::SeqCst) {
            self.dead.send_replace(true);
        }
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }

    /// Die at that moment, counted from here.
    pub(super) fn die_at(&self, moment: u64) {
        self.count.store(0, Ordering::SeqCst);
        self.fatal.store(moment, Ordering::SeqCst);
        self.dead.send_replace(false);
    }

    /// Never die.
    pub(super) fn live(&self) {
        self.die_at(u64::MAX);
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// How many sources, transforms and sinks are open.
    pub(super) fn alive(&self) -> u64 {
        self.alive.load(Ordering::SeqCst)
    }
}

/// Held by whatever is open.
struct Alive(Arc<Probe>);

impl Alive {
    fn new(probe: &Arc<Probe>) -> Self {
        probe.alive.fetch_add(1, Ordering::SeqCst);
        Alive(probe.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A column of whole numbers.
pub(super) fn ints(rows: &RecordBatch, column: &str) -> Vec<i64> {
    match rows.column_by_name(column) {
        Some(column) => column.as_primitive::<Int64Type>().values().to_vec(),
        None => Vec::new(),
    }
}

/// Rows made of columns of whole numbers.
pub(super) fn rows_of(columns: &[(&str, Vec<i64>)]) -> RecordBatch {
    RecordBatch::try_from_iter(
        columns.iter().map(|(name, values)| (*name, Arc::new(Int64Array::from(values.clone())) as ArrayRef)),
    )
    .unwrap()
}
