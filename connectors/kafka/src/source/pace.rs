//! Whether rows that have come should wait for more to come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use acequia_connector_api::Demand;

/// What is on its way, in the source and behind it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    demand: OnceLock<Demand>,
    /// Chunks that the members' threads have handed over, and that have not gone out as a batch.
    chunks: AtomicUsize,
}

impl Pace {
    pub(super) fn set_demand(&self, demand: Demand) {
        // Set once.
        let _ = self.demand.set(demand);
    }

    /// Wait until nothing is on its way behind the source; for ever if nothing is known of that. Cancel safe.
    pub(super) async fn idle_behind(&self) {
        match self.demand.get() {
            Some(demand) => demand.idle().await,
            None => std::future::pending().await,
        }
    }

    /// A chunk is handed over.
    pub(super) fn leaves(&self) {
        self.chunks.fetch_add(1, Ordering::AcqRel);
    }

    /// A chunk has gone out, and the engine has counted what was in it.
    pub(super) fn has_left(&self) {
        // Never below nothing.
        let less = |chunks: usize| Some(chunks.saturating_sub(1));
        let _ = self.chunks.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Nothing is on its way: a row that waits gains nothing by it.
    pub(super) fn is_idle(&self) -> bool {
        self.chunks.load(Ordering::Acquire) == 0 && self.demand.get().is_some_and(Demand::is_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_idle_when_nothing_is_on_its_way_here_or_behind() {
        let pace = Pace::default();
        assert!(!pace.is_idle(), "nothing is known of what is behind");
        let demand = Demand::new();
        pace.set_demand(demand.clone());
        assert!(pace.is_idle());
        pace.leaves();
        assert!(!pace.is_idle());
        let pass = demand.pass();
        pace.has_left();
        assert!(!pace.is_idle());
        drop(pass);
        assert!(pace.is_idle());
        pace.has_left();
        assert!(pace.is_idle());
    }
}
