//! What a source is told of the stages behind it: whether they have nothing to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Whether the stages behind a source have nothing to do. Then a row that waits for others gains nothing by it: the batch
/// is handed out at once, however small. While they are busy rows gather, so that batches grow with the load.
///
/// The default knows of no stages, and is never idle.
#[derive(Clone, Debug, Default)]
pub struct Demand(Option<Arc<Flow>>);

#[derive(Debug, Default)]
struct Flow {
    /// Batches on their way.
    passes: AtomicUsize,
    /// Told when there are none any more.
    empty: Notify,
}

impl Demand {
    /// Of stages that have nothing to do yet.
    pub fn new() -> Self {
        Demand(Some(Arc::default()))
    }

    /// A batch is on its way, until what is returned here is dropped, and every clone of it.
    pub fn pass(&self) -> Pass {
        Pass::new(self.0.clone())
    }

    /// Whether no batch is on its way.
    pub fn is_idle(&self) -> bool {
        self.0.as_ref().is_some_and(|flow| flow.passes.load(Ordering::Acquire) == 0)
    }

    /// Wait until no batch is on its way. Cancel safe.
    pub async fn idle(&self) {
        let Some(flow) = &self.0 else { return std::future::pending().await };
        loop {
            // Made before the look, so that what is told between the two is heard.
            let told = flow.empty.notified();
            if self.is_idle() {
                return;
            }
            told.await;
        }
    }
}

/// A batch on its way, or a copy of it: see [`Demand::pass`].
#[derive(Debug)]
pub struct Pass(Option<Arc<Flow>>);

impl Pass {
    fn new(flow: Option<Arc<Flow>>) -> Self {
        if let Some(flow) = &flow {
            flow.passes.fetch_add(1, Ordering::AcqRel);
        }
        Pass(flow)
    }
}

impl Clone for Pass {
    fn clone(&self) -> Self {
        Pass::new(self.0.clone())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(flow) = &self.0
            && flow.passes.fetch_sub(1, Ordering::AcqRel) == 1
        {
            flow.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn it_is_idle_when_every_copy_of_every_batch_is_gone() {
        let demand = Demand::new();
        assert!(demand.is_idle());
        let (first, second) = (demand.pass(), demand.pass());
        let copy = first.clone();
        let mut idle = pin!(demand.idle());
        let mut poll = || idle.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        for pass in [first, second] {
            assert_eq!(poll(), Poll::Pending);
            drop(pass);
        }
        assert_eq!(poll(), Poll::Pending, "a copy is still there");
        drop(copy);
        assert_eq!(poll(), Poll::Ready(()));
    }

    /// What was idle for a moment and is busy again has not been idle for whoever looks now.
    #[test]
    fn a_moment_that_has_passed_is_not_taken_for_now() {
        let demand = Demand::new();
        let pass = demand.pass();
        let mut idle = pin!(demand.idle());
        let mut poll = || idle.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(), Poll::Pending);
        drop(pass);
        let pass = demand.pass();
        assert_eq!(poll(), Poll::Pending);
        drop(pass);
        assert_eq!(poll(), Poll::Ready(()));
    }

    #[test]
    fn where_no_stages_are_known_it_never_is() {
        let demand = Demand::default();
        drop(demand.pass());
        assert!(!demand.is_idle());
        assert_eq!(pin!(demand.idle()).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    }
}
