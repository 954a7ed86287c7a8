use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::*;

const THREADS: usize = 2;

fn on_threads() -> (Runtime, Cores) {
    let cores = Cores::new(THREADS);
    let idle = cores.clone();
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).on_thread_park(move || idle.parks()).enable_all();
    (builder.build().unwrap(), cores)
}

fn ledger(share: &Share) -> Arc<Ledger> {
    share.0.as_ref().unwrap().ledger.clone()
}

fn market(cores: &Cores) -> Arc<Market> {
    cores.0.clone().unwrap()
}

/// Work in steps of that length until it is enough, counting the nanoseconds.
async fn work(step: Duration, done: Arc<AtomicU64>, enough: impl Fn() -> bool) {
    while !enough() {
        let begin = Instant::now();
        while begin.elapsed() < step {}
        done.fetch_add(nanos(begin.elapsed()), Ordering::Relaxed);
        step_aside().await;
    }
}

/// Let one pipeline for each step length work until all of them have had `least`, or one has had ten times as much: the time that
/// each had by then.
fn shared_by(steps: &[Duration], least: Duration) -> Vec<u64> {
    let _alone = lock(&ALONE);
    let (runtime, cores) = on_threads();
    let times: Arc<Vec<_>> = Arc::new(steps.iter().map(|_| Arc::<AtomicU64>::default()).collect());
    let mut tasks = JoinSet::new();
    for (number, (step, time)) in steps.iter().zip(times.iter()).enumerate() {
        let all = times.clone();
        let enough = move || {
            let had = |time: &Arc<AtomicU64>| time.load(Ordering::Relaxed);
            all.iter().all(|time| had(time) >= nanos(least)) || all.iter().any(|time| had(time) > nanos(least * 10))
        };
        tasks.spawn_on(cores.share(&number.to_string()).meter(work(*step, time.clone(), enough)), runtime.handle());
    }
    runtime.block_on(tasks.join_all());
    times.iter().map(|time| time.load(Ordering::Relaxed)).collect()
}

/// The times are those of the clock on the wall: a thread that the system stops in the middle of a step has the others catch
/// up with that, too. So on a busy machine they are not the same.
fn is_shared_out(times: &[u64], ratio: u64) {
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*most <= ratio * least, "{times:?}");
}

/// These tests are for two threads on two cores.
static ALONE: Mutex<()> = Mutex::new(());

// invariant 6
//
// Without the ledgers the times of those with long steps are a hundred times the others'.
#[test]
fn long_batches_get_no_more_time_than_short_ones() {
    let [short, long] = [10, 1000].map(Duration::from_micros);
    is_shared_out(&shared_by(&[short, long, long, long, long], Duration::from_millis(100)), 6);
    is_shared_out(&shared_by(&[short, short, short, short, long], Duration::from_millis(100)), 6);
}

// Without them two often had a thread for themselves, and six the other.
#[test]
fn equals_get_the_same_time() {
    is_shared_out(&shared_by(&[Duration::from_micros(12); 8], Duration::from_millis(100)), 2);
    is_shared_out(&shared_by(&[Duration::from_micros(12); 3], Duration::from_millis(100)), 2);
}

#[test]
fn who_has_little_to_do_holds_nobody_up() {
    let _alone = lock(&ALONE);
    let (runtime, cores) = on_threads();
    let stop = Arc::<AtomicBool>::default();
    let times: Vec<_> = (0..3).map(|_| Arc::<AtomicU64>::default()).collect();
    let mut tasks = JoinSet::new();
    for (number, time) in times.iter().enumerate() {
        let stop = stop.clone();
        let task = work(Duration::from_micros(12), time.clone(), move || stop.load(Ordering::Relaxed));
        tasks.spawn_on(cores.share(&number.to_string()).meter(task), runtime.handle());
    }
    let idler = cores.share("idler");
    let little = ledger(&idler);
    let wakes = async {
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    runtime.block_on(runtime.spawn(idler.meter(wakes))).unwrap();
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(tasks.join_all());
    // It woke two hundred times, and always at the level of the others: what it left to them it does not get back.
    let least = times.iter().map(|time| time.load(Ordering::Relaxed)).min().unwrap();
    assert!(least > nanos(Duration::from_millis(50)), "{times:?}");
    assert!(little.used.load(Ordering::Relaxed) > least / 2, "{little:?}, {times:?}");
}

#[test]
fn nothing_is_left_of_those_that_have_gone() {
    let _alone = lock(&ALONE);
    let (runtime, cores) = on_threads();
    let shares: Vec<_> = (0..6).map(|number| cores.share(&number.to_string())).collect();
    let mut tasks = JoinSet::new();
    for share in &shares {
        let time = Arc::<AtomicU64>::default();
        tasks.spawn_on(share.meter(work(Duration::from_micros(500), time, || false)), runtime.handle());
    }
    let market = market(&cores);
    // Some wait.
    while market.holding.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    runtime.block_on(tasks.shutdown());
    for share in &shares {
        assert_eq!(ledger(share).ready.load(Ordering::Relaxed), 0, "{share:?}");
    }
    drop(shares);
    // A thread that is about to sleep may still have one in its hands.
    runtime.shutdown_timeout(Duration::from_secs(60));
    assert!(lock(&market.held).is_empty());
    assert!(lock(&market.ledgers).is_empty());
    assert!(lock(&market.members).is_empty());
    assert!(!market.contended.load(Ordering::Relaxed));
}

#[test]
fn where_there_is_enough_for_all_nothing_is_counted() {
    let (runtime, cores) = on_threads();
    let share = cores.share("alone");
    assert!(Arc::ptr_eq(&ledger(&share), &ledger(&cores.share("alone"))), "loaded anew it is the same");
    let time = Arc::<AtomicU64>::default();
    let seen = time.clone();
    let task = work(Duration::from_micros(10), time.clone(), move || seen.load(Ordering::Relaxed) > 1_000_000);
    runtime.block_on(runtime.spawn(share.meter(task))).unwrap();
    assert_eq!(ledger(&share).used.load(Ordering::Relaxed), 0);
    // Nor where nobody counts.
    let task = Cores::default().share("p").meter(async { 7 });
    assert_eq!(runtime.block_on(runtime.spawn(task)).unwrap(), 7);
}
