//! The limits of a guest: time of one call, linear memory. (The limit on output is wasmtime's hostcall fuel, set by
//! [`instance`](super::instance).)

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use acequia_connector_api::{ByteSize, Span, step_aside};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::error::{MemoryExceeded, TimeExceeded};

/// The most elements that a guest's tables may have; a table is the host's memory, 8 bytes an element.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// The most core modules, and the most memories and the most tables, that a component may have.
const MODULES: usize = 32;

/// How much time the call that runs has used. Shared by the future that polls the guest and by the epoch callback
/// inside it; both are on the same thread while it matters.
#[derive(Debug)]
pub(crate) struct CallClock {
    limit: Span,
    /// Zero of the times below.
    zero: Instant,
    /// Nanoseconds used before this poll.
    used: AtomicU64,
    /// When this poll began, in nanoseconds since `zero`.
    polled: AtomicU64,
    /// The guest is pending because an epoch ended, not because it waits for the host.
    yielded: AtomicBool,
    /// When what the guest waits for was there, in nanoseconds since `zero`; [`NOT_YET`] before that.
    woken: AtomicU64,
    /// Of the task that polls it.
    waker: Mutex<Option<Waker>>,
}

const NOT_YET: u64 = u64::MAX;

impl CallClock {
    /// A clock for calls of at most `limit`.
    pub(crate) fn new(limit: Span) -> Arc<Self> {
        Arc::new(CallClock {
            limit,
            zero: Instant::now(),
            used: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            yielded: AtomicBool::new(false),
            woken: AtomicU64::new(NOT_YET),
            waker: Mutex::new(None),
        })
    }

    fn now(&self) -> u64 {
        nanos(self.zero.elapsed())
    }

    /// What happens at the end of an epoch: the guest yields, or is ended if its time is over.
    pub(crate) fn epoch_ended(&self) -> wasmtime::Result<UpdateDeadline> {
        let running = self.now().saturating_sub(self.polled.load(Ordering::Relaxed));
        let used = self.used.load(Ordering::Relaxed).saturating_add(running);
        if used >= nanos(self.limit.0) {
            return Err(TimeExceeded { limit: self.limit }.into());
        }
        self.yielded.store(true, Ordering::Relaxed);
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(step_aside())))
    }
}

/// Wakes the task that polls the guest, and keeps the time: from then on the guest could run, but other tasks do.
impl Wake for CallClock {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Only the first counts.
        let _ = self.woken.compare_exchange(NOT_YET, self.now(), Ordering::AcqRel, Ordering::Acquire);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Run one call with a deadline. Counted is the time during which the guest runs or waits for the host (a file, a
/// socket), and not the time during which it could run but other tasks do: on a loaded machine no guest is ended for
/// the others' sake.
///
/// # Errors
/// Those of the call, and [`TimeExceeded`].
pub(crate) async fn with_deadline<T>(
    clock: &Arc<CallClock>,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let limit = nanos(clock.limit.0);
    let mut call = pin!(call);
    let mut used: u64 = 0;
    // The guest has been waiting for the host since then; and what wakes us if the host never answers.
    let mut waiting_since: Option<u64> = None;
    let mut alarm = None;
    let waker = Waker::from(clock.clone());
    poll_fn(|context| {
        let begin = clock.now();
        match &mut *clock.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(kept) => kept.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        let context = &mut Context::from_waker(&waker);
        let woken = clock.woken.swap(NOT_YET, Ordering::AcqRel);
        if let Some(since) = waiting_since.take() {
            used = used.saturating_add(begin.min(woken).saturating_sub(since));
            if used >= limit {
                return Poll::Ready(Err(TimeExceeded { limit: clock.limit }.into()));
            }
        }
        clock.used.store(used, Ordering::Relaxed);
        clock.polled.store(begin, Ordering::Relaxed);
        clock.yielded.store(false, Ordering::Relaxed);
        if let Poll::Ready(result) = call.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        let end = clock.now();
        used = used.saturating_add(end.saturating_sub(begin));
        if !clock.yielded.load(Ordering::Relaxed) {
            waiting_since = Some(end);
            let left = Duration::from_nanos(limit.saturating_sub(used));
            // A new one each time: the guest may have run since, and has less time left.
            let sleep = alarm.insert(Box::pin(tokio::time::sleep(left)));
            if sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(TimeExceeded { limit: clock.limit }.into()));
            }
        }
        Poll::Pending
    })
    .await
}

/// Limits what all memories and tables of one store may grow to.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit: ByteSize,
    memory: u64,
    elements: usize,
}

impl MemoryLimiter {
    /// At most `limit` bytes in all memories together.
    pub(crate) fn new(limit: ByteSize) -> Self {
        MemoryLimiter { limit, memory: 0, elements: 0 }
    }

    /// Bytes in all memories.
    pub(crate) fn used(&self) -> u64 {
        self.memory
    }
}

impl ResourceLimiter for MemoryLimiter {
    /// Over the limit the guest traps. It could be told that there is no more memory, as WebAssembly provides; but then it
    /// fails with whatever its language makes of that, usually without a word about memory.
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = desired.saturating_sub(current) as u64;
        let wanted = self.memory.saturating_add(grown);
        if wanted > self.limit.0 {
            return Err(MemoryExceeded { wanted, limit: self.limit }.into());
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.elements.saturating_add(desired.saturating_sub(current));
        if wanted > TABLE_ELEMENTS {
            wasmtime::bail!("it wanted {wanted} elements in its tables: the limit is {TABLE_ELEMENTS}");
        }
        self.elements = wanted;
        Ok(true)
    }

    /// A component is made of several core modules: the plugin's own, and small ones that adapt it.
    fn instances(&self) -> usize {
        MODULES
    }

    /// Each reserves address space, however small it is.
    fn memories(&self) -> usize {
        MODULES
    }

    fn tables(&self) -> usize {
        MODULES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_waits_for_the_host_is_ended() {
        let clock = CallClock::new(Span(Duration::from_millis(50)));
        let result = with_deadline(&clock, std::future::pending::<wasmtime::Result<()>>()).await;
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "it did not return within 50ms (raise limits.time if it needs more)");
    }

    #[tokio::test]
    async fn time_of_other_tasks_is_not_counted_when_the_host_has_answered() {
        let clock = CallClock::new(Span(Duration::from_millis(20)));
        let (answer, host) = tokio::sync::oneshot::channel();
        let other = async {
            answer.send(7).unwrap();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(60) {
                std::hint::spin_loop();
            }
        };
        let (result, ()) = tokio::join!(with_deadline(&clock, async { Ok(host.await?) }), other);
        assert_eq!(result.unwrap(), 7);
    }

    #[tokio::test]
    async fn time_of_other_tasks_is_not_counted() {
        // The call yields as a guest does at the end of an epoch, and the task that shares its thread takes longer than the
        // call may.
        let clock = CallClock::new(Span(Duration::from_millis(20)));
        let inner = clock.clone();
        let call = async move {
            for _ in 0..3 {
                inner.epoch_ended()?;
                tokio::task::yield_now().await;
            }
            Ok(7)
        };
        let other = async {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(15) {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
            while begin.elapsed() < Duration::from_millis(60) {
                std::hint::spin_loop();
            }
        };
        let (result, ()) = tokio::join!(with_deadline(&clock, call), other);
        assert_eq!(result.unwrap(), 7);
    }

    #[test]
    fn memories_are_counted_together() {
        let mut limiter = MemoryLimiter::new(ByteSize(3 << 16));
        assert!(limiter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert_eq!(limiter.used(), 3 << 16);
        let error = limiter.memory_growing(1 << 16, 2 << 16, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it wanted 262144 bytes of memory: the limit is 192KiB (raise limits.memory if it needs more)"
        );
        assert_eq!(limiter.used(), 3 << 16);
    }
}
