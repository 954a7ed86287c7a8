//! How the pipelines of a daemon share its cores: by time, when there are more of them with something to do than cores.
//!
//! The runtime takes tasks in the order in which they come to be ready, and a task keeps its thread for as long as a batch takes.
//! By itself that gives each pipeline as many batches as the next one, and one whose batches take a hundred times as long a
//! hundred times the time; and a thread that always has something to do takes nothing off another that has more. So the time of each
//! pipeline is counted, and one that is ahead of the one that had least of all is not polled until that has caught up, as in a
//! fair scheduler of an operating system (Ingo Molnar's CFS, `Documentation/scheduler/sched-design-CFS.rst` of Linux): a
//! pipeline that had nothing to do has no claim to the time that it left to others.
//!
//! So one pipeline that has much to do does not touch the others (invariant 6). No core idles for that: before a thread of the runtime goes to sleep ([`Cores::parks`]) it lets one on that waits.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// How far a pipeline may be ahead of the one that had least, before its source waits.
const AHEAD: u64 = nanos(Duration::from_millis(2));
/// The same for the stages behind the source: what is on its way is not left lying in memory, unless they are what takes the time.
const FURTHER: u64 = 2 * AHEAD;
/// The longest wait, however far it is ahead: a barrier or the order to stop comes no later than that. It is longer where several
/// pipelines wait for each thread, up to so many times: else one whose every step takes long would have more than its share.
const LONGEST: u64 = nanos(Duration::from_millis(20));
const LONGER: usize = 25;
/// No pipeline has to make up for more.
const DEBT: u64 = nanos(Duration::from_millis(50));
/// How often it is looked at who is behind, with few pipelines; and what more each of them adds to that, so that looking at them
/// all stays a hundredth of the work.
const LOOK: u64 = nanos(Duration::from_micros(500));
const LOOK_EACH: u64 = nanos(Duration::from_micros(1));
/// While there is enough for all, the clock is looked at once in so many polls of a task.
const GLANCE: u32 = 8;

const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// The cores of a machine, shared by the pipelines of a daemon. The default has no cores to count: its pipelines take what they get.
#[derive(Clone, Debug, Default)]
pub struct Cores(Option<Arc<Market>>);

#[derive(Debug)]
struct Market {
    /// Threads that run tasks.
    threads: usize,
    zero: Instant,
    ledgers: Mutex<Vec<Arc<Ledger>>>,
    /// By the pipelines' names: one that is loaded anew has the ledger that it had.
    members: Mutex<HashMap<String, Weak<Member>>>,
    /// There are no more pipelines than threads: nothing needs to be counted.
    enough: AtomicBool,
    /// More pipelines have something to do than there are threads; and since when, in nanoseconds since `zero`.
    contended: AtomicBool,
    since: AtomicU64,
    /// The least time that one of those had which have something to do. Never falls.
    floor: AtomicU64,
    /// When it was last looked at, in nanoseconds since `zero`; and how long after that it is again.
    looked: AtomicU64,
    every: AtomicU64,
    /// Tasks that wait.
    held: Mutex<Vec<Held>>,
    holding: AtomicUsize,
}

/// The time of one pipeline, in nanoseconds.
#[derive(Debug, Default)]
struct Ledger {
    used: AtomicU64,
    /// Its tasks that have something to do.
    ready: AtomicUsize,
    /// Those of them that are being polled.
    running: AtomicUsize,
    /// Since when one of them is being polled, in nanoseconds since the market's zero; [`UNCOUNTED`] if that is not known.
    began: AtomicU64,
}

const UNCOUNTED: u64 = u64::MAX;

#[derive(Debug)]
struct Held {
    task: Arc<Task>,
    since: u64,
}

/// A pipeline's share of the cores. Its tasks are counted against it ([`Share::meter`]). The default counts nothing.
#[derive(Clone, Debug, Default)]
pub struct Share(Option<Arc<Member>>);

#[derive(Debug)]
struct Member {
    name: String,
    ledger: Arc<Ledger>,
    market: Arc<Market>,
}

impl Cores {
    /// So many threads run the tasks of all pipelines.
    pub fn new(threads: usize) -> Self {
        Cores(Some(Arc::new(Market {
            threads,
            zero: Instant::now(),
            ledgers: Mutex::default(),
            members: Mutex::default(),
            enough: AtomicBool::new(true),
            contended: AtomicBool::new(false),
            since: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            every: AtomicU64::new(LOOK),
            held: Mutex::default(),
            holding: AtomicUsize::new(0),
        })))
    }

    /// The share of a pipeline, the same as long as there is a clone of it.
    pub fn share(&self, pipeline: &str) -> Share {
        let Some(market) = &self.0 else { return Share::default() };
        let mut members = lock(&market.members);
        if let Some(member) = members.get(pipeline).and_then(Weak::upgrade) {
            return Share(Some(member));
        }
        let ledger = Arc::<Ledger>::default();
        ledger.used.store(market.floor.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut ledgers = lock(&market.ledgers);
        ledgers.push(ledger.clone());
        market.enough.store(ledgers.len() <= market.threads, Ordering::Relaxed);
        drop(ledgers);
        let member = Arc::new(Member { name: pipeline.to_owned(), ledger, market: market.clone() });
        members.insert(member.name.clone(), Arc::downgrade(&member));
        Share(Some(member))
    }

    /// A thread of the runtime has nothing to do and is about to sleep: to be called then, by each (`on_thread_park`).
    pub fn parks(&self) {
        if let Some(market) = self.0.as_ref().filter(|market| market.holding.load(Ordering::Acquire) > 0) {
            market.let_one_on();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Another of that name may have come.
        let mut members = lock(&self.market.members);
        if members.get(&self.name).is_some_and(|member| member.strong_count() == 0) {
            members.remove(&self.name);
        }
        drop(members);
        let mut ledgers = lock(&self.market.ledgers);
        ledgers.retain(|ledger| !Arc::ptr_eq(ledger, &self.ledger));
        self.market.enough.store(ledgers.len() <= self.market.threads, Ordering::Relaxed);
        self.market.look_at(ledgers);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Market {
    fn now(&self) -> u64 {
        nanos(self.zero.elapsed())
    }

    /// Find out who is behind, and let those on that wait for it no more.
    fn look(&self) {
        // Who holds the lock looks.
        if let Ok(ledgers) = self.ledgers.try_lock() {
            self.look_at(ledgers);
        }
    }

    fn look_at(&self, ledgers: MutexGuard<'_, Vec<Arc<Ledger>>>) {
        let now = self.now();
        let (mut ready, mut least, mut most) = (0, u64::MAX, 0);
        for ledger in ledgers.iter() {
            let (tasks, used) = (ledger.ready.load(Ordering::Relaxed), ledger.used.load(Ordering::Relaxed));
            ready += usize::from(tasks > 0);
            most = most.max(used);
            let (running, began) = (ledger.running.load(Ordering::Relaxed), ledger.began.load(Ordering::Relaxed));
            if running > 0 && began != UNCOUNTED {
                least = least.min(used + now.saturating_sub(began));
            } else if tasks > running {
                least = least.min(used);
            }
        }
        let contended = ready > self.threads;
        if contended && !self.contended.load(Ordering::Relaxed) {
            self.since.store(now, Ordering::Relaxed);
        }
        self.contended.store(contended, Ordering::SeqCst);
        if contended && least != u64::MAX {
            let floor = self.floor.fetch_max(least, Ordering::Relaxed).max(least);
            if most > floor + DEBT {
                for ledger in ledgers.iter() {
                    ledger.used.fetch_min(floor + DEBT, Ordering::Relaxed);
                }
            }
        }
        self.every.store(LOOK + LOOK_EACH * ledgers.len() as u64, Ordering::Relaxed);
        drop(ledgers);
        self.looked.store(now, Ordering::Relaxed);
        if self.holding.load(Ordering::SeqCst) == 0 {
            return;
        }
        let longest = LONGEST * ready.div_ceil(self.threads.max(1)).clamp(1, LONGER) as u64;
        let floor = self.floor.load(Ordering::Relaxed);
        let goes_on = |held: &mut Held| {
            !contended
                || held.task.member.ledger.used.load(Ordering::Relaxed) <= floor + held.task.slack / 2
                || now.saturating_sub(held.since) >= longest
        };
        let mut held = lock(&self.held);
        let on: Vec<Held> = held.extract_if(.., goes_on).collect();
        self.holding.store(held.len(), Ordering::Release);
        drop(held);
        on.into_iter().for_each(Held::let_on);
    }

    /// Let the one on that is least ahead; of those of one pipeline not its source first.
    fn let_one_on(&self) {
        self.look_if_due(self.now());
        let mut held = lock(&self.held);
        let gone: Vec<Held> = held.extract_if(.., |held| held.task.state.load(Ordering::Acquire) == OVER).collect();
        let order = |(_, Held { task, since }): &(usize, &Held)| {
            (task.member.ledger.used.load(Ordering::Relaxed), u64::MAX - task.slack, *since)
        };
        let first = held.iter().enumerate().min_by_key(order).map(|(index, _)| index);
        let first = first.map(|index| held.swap_remove(index));
        self.holding.store(held.len(), Ordering::Release);
        drop(held);
        // It may be the end of a pipeline.
        drop(gone);
        first.into_iter().for_each(Held::let_on);
    }

    fn look_if_due(&self, now: u64) {
        if now.saturating_sub(self.looked.load(Ordering::Relaxed)) >= self.every.load(Ordering::Relaxed) {
            self.look();
        }
    }
}

impl Held {
    fn let_on(self) {
        self.task.waits.store(false, Ordering::Relaxed);
        self.task.pass.store(true, Ordering::Relaxed);
        self.task.wake_inner();
    }
}

/// Nobody has woken it since it was polled.
const ASLEEP: u8 = 0;
/// It was woken, and is counted as ready for that.
const WOKEN: u8 = 1;
/// It is over.
const OVER: u8 = 2;

/// What wakes a metered task: so it is known that it has something to do, before it is polled.
#[derive(Debug)]
struct Task {
    member: Arc<Member>,
    /// How far ahead it waits. It goes on when it is half as far ahead: then not with a single batch.
    slack: u64,
    state: AtomicU8,
    /// It is in the list of those that wait.
    waits: AtomicBool,
    /// It may be polled once more, however far ahead.
    pass: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Task {
    fn wake_inner(&self) {
        // Not called under the lock: it may run anything.
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn register(&self, waker: &Waker) {
        let mut kept = lock(&self.waker);
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    /// It has one more reason to be polled. Its pipeline had nothing to do: the time that it left to others is gone.
    fn ready(&self) {
        if self.member.ledger.ready.fetch_add(1, Ordering::Relaxed) == 0 {
            self.member.ledger.used.fetch_max(self.member.market.floor.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn woken(&self) {
        if self.state.compare_exchange(ASLEEP, WOKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.ready();
        }
    }

    /// It is not to be counted.
    fn forget(&self) {
        if self.state.load(Ordering::Relaxed) == WOKEN && self.state.swap(ASLEEP, Ordering::AcqRel) == WOKEN {
            self.member.ledger.ready.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether it has to wait. Then it is in the list, and will be woken.
    fn must_wait(self: &Arc<Self>) -> bool {
        let market = &self.member.market;
        let ahead =
            || self.member.ledger.used.load(Ordering::Relaxed) > market.floor.load(Ordering::Relaxed) + self.slack;
        if !market.contended.load(Ordering::Relaxed) || self.pass.swap(false, Ordering::Relaxed) || !ahead() {
            return false;
        }
        let since = market.now();
        let mut held = lock(&market.held);
        if !self.waits.swap(true, Ordering::Relaxed) {
            held.push(Held { task: self.clone(), since });
            market.holding.store(held.len(), Ordering::SeqCst);
        }
        drop(held);
        // Who has found meanwhile that there is enough for all may have looked before it was in the list.
        market.contended.load(Ordering::SeqCst)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken();
        self.wake_inner();
    }
}

impl Share {
    /// Count what a task of the pipeline does, and let it wait while others are behind. For whole tasks only, as they are spawned.
    pub fn meter<F: Future + Send>(&self, future: F) -> impl Future<Output = F::Output> + Send + use<F> {
        self.metered(future, FURTHER)
    }

    /// The same for a task of the source, which has to wait sooner: what it makes would only lie in memory.
    pub fn meter_source<F: Future + Send>(&self, future: F) -> impl Future<Output = F::Output> + Send + use<F> {
        self.metered(future, AHEAD)
    }

    fn metered<F: Future>(&self, future: F, slack: u64) -> Metered<F> {
        let task = self.0.clone().map(|member| {
            Arc::new(Task {
                member,
                slack,
                state: AtomicU8::new(ASLEEP),
                waits: AtomicBool::new(false),
                pass: AtomicBool::new(false),
                waker: Mutex::new(None),
            })
        });
        Metered {
            future: Box::pin(future),
            meter: task.map(|task| Meter { waker: task.clone().into(), task, polls: 0 }),
        }
    }
}

struct Metered<F> {
    future: Pin<Box<F>>,
    meter: Option<Meter>,
}

struct Meter {
    task: Arc<Task>,
    /// The task's, as a waker.
    waker: Waker,
    polls: u32,
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Metered { future, meter } = &mut *self;
        let Some(Meter { task, waker, polls }) = meter else { return future.as_mut().poll(context) };
        if task.member.market.enough.load(Ordering::Relaxed) {
            task.forget();
            return future.as_mut().poll(context);
        }
        task.register(context.waker());
        task.woken();
        if task.must_wait() {
            return Poll::Pending;
        }
        let (market, ledger) = (&task.member.market, &task.member.ledger);
        let begin = if market.contended.load(Ordering::Relaxed) { market.now() } else { UNCOUNTED };
        ledger.began.store(begin, Ordering::Relaxed);
        // From here on it is counted for being polled.
        let polled = Polled::new(ledger);
        task.state.store(ASLEEP, Ordering::Release);
        let result = future.as_mut().poll(&mut Context::from_waker(waker));
        drop(polled);
        if market.contended.load(Ordering::Relaxed) {
            let end = market.now();
            let begin = if begin == UNCOUNTED { market.since.load(Ordering::Relaxed) } else { begin };
            ledger.used.fetch_add(end.saturating_sub(begin), Ordering::Relaxed);
            market.look_if_due(end);
        } else {
            *polls = polls.wrapping_add(1);
            if polls.is_multiple_of(GLANCE) {
                market.look_if_due(market.now());
            }
        }
        result
    }
}

impl<F> Drop for Metered<F> {
    fn drop(&mut self) {
        if let Some(Meter { task, .. }) = &self.meter
            && task.state.swap(OVER, Ordering::AcqRel) == WOKEN
        {
            task.member.ledger.ready.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A task is being polled.
struct Polled<'a>(&'a Ledger);

impl<'a> Polled<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        ledger.running.fetch_add(1, Ordering::Relaxed);
        Polled(ledger)
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.ready.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Let other tasks have their turn. `tokio::task::yield_now` is something else: it tells the runtime only when that has nothing
/// else to do, or looks for news from outside, and until then it is not known that the task has more to do.
pub async fn step_aside() {
    let mut aside = false;
    poll_fn(|context| {
        if std::mem::replace(&mut aside, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
