//! The thread that counts epochs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

/// Length of an epoch: how long a guest may hold a thread before it yields, and how exact a deadline is.
pub(crate) const EPOCH: Duration = Duration::from_millis(10);

/// So many epochs without a call, and the thread goes to sleep until the next one: a daemon with nothing to do
/// must not wake up a hundred times a second.
const IDLE_EPOCHS: u32 = 20;

/// Increments the engine's epoch every [`EPOCH`] while guests run. Ends when it is dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// Calls that are running.
    running: AtomicUsize,
    /// The thread sleeps and must be woken.
    parked: AtomicBool,
    ended: AtomicBool,
}

impl Ticker {
    /// Start the thread.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let engine = engine.weak();
        let thread = std::thread::Builder::new().name("wasm epochs".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                let mut idle = 0;
                while !shared.ended.load(Ordering::SeqCst) {
                    if idle >= IDLE_EPOCHS {
                        // Said before looking again: a call that starts after the look sees it and wakes us.
                        shared.parked.store(true, Ordering::SeqCst);
                        if shared.running.load(Ordering::SeqCst) == 0 && !shared.ended.load(Ordering::SeqCst) {
                            std::thread::park();
                        }
                        shared.parked.store(false, Ordering::SeqCst);
                        idle = 0;
                        continue;
                    }
                    std::thread::sleep(EPOCH);
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                    idle = if shared.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
                }
            }
        })?;
        Ok(Ticker { shared, thread: thread.thread().clone() })
    }

    /// A guest runs while the returned guard lives.
    pub(crate) fn run(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running { running: &self.shared.running }
    }

    /// Whether the thread sleeps until the next call.
    #[cfg(test)]
    pub(crate) fn is_parked(&self) -> bool {
        self.shared.parked.load(Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// See [`Ticker::run`].
pub(crate) struct Running<'a> {
    running: &'a AtomicUsize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}
