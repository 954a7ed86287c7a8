//! Timing, in turns.

use std::time::Instant;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

/// How long one measurement of a short thing lasts, in seconds. Long beside the clock's grain and short beside the times
/// for which another process takes the core away.
const SLICE: f64 = 0.02;

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of some values; all zero if there are none. The median of an even number is the mean of the middle two.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        Spread { median: f64::midpoint(at(last / 2), at(sorted.len() / 2)), min: at(0), max: at(last) }
    }
}

/// Seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// Something that can be done so many times.
pub(crate) type Contestant<'a> = Box<dyn FnMut(u64) -> Result<()> + 'a>;

/// Time each contestant once a round, in turns, each round beginning with the next one. Returns, for each contestant, the
/// time of one repetition in each round.
pub(crate) fn in_turns(contestants: &mut [Contestant<'_>], rounds: usize) -> Result<Vec<Vec<Time>>> {
    let mut counts = Vec::with_capacity(contestants.len());
    for contestant in contestants.iter_mut() {
        counts.push(repetitions(contestant)?);
    }
    let mut times: Vec<Vec<Time>> = contestants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            let (Some(contestant), Some(count)) = (contestants.get_mut(index), counts.get(index)) else { continue };
            let total = time(contestant, *count)?;
            let each = Time { wall: total.wall / *count as f64, cpu: total.cpu / *count as f64 };
            if let Some(times) = times.get_mut(index) {
                times.push(each);
            }
        }
    }
    Ok(times)
}

/// How many repetitions fill a slice. Warms up on the way.
fn repetitions(contestant: &mut Contestant<'_>) -> Result<u64> {
    let mut count = 1;
    loop {
        let wall = time(contestant, count)?.wall;
        if wall >= SLICE / 2.0 {
            return Ok(((count as f64 * SLICE / wall) as u64).max(1));
        }
        count *= 2;
    }
}

fn time(contestant: &mut Contestant<'_>, count: u64) -> Result<Time> {
    let cpu = thread_cpu();
    let begin = Instant::now();
    contestant(count)?;
    Ok(Time { wall: begin.elapsed().as_secs_f64(), cpu: thread_cpu() - cpu })
}

/// Processor time of this thread, user and system, in seconds.
fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([5.0]), Spread { median: 5.0, min: 5.0, max: 5.0 });
        assert_eq!(Spread::of([]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn everybody_has_a_turn_each_round() {
        let counts = [std::cell::Cell::new(0u64), std::cell::Cell::new(0u64)];
        let mut contestants: Vec<Contestant<'_>> = counts
            .iter()
            .map(|count| -> Contestant<'_> {
                Box::new(|repetitions| {
                    count.set(count.get() + repetitions);
                    std::thread::sleep(std::time::Duration::from_millis(1).saturating_mul(repetitions as u32));
                    Ok(())
                })
            })
            .collect();
        let times = in_turns(&mut contestants, 3).unwrap();
        assert_eq!(times.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        // A repetition sleeps a millisecond: it takes at least that, and no processor time to speak of.
        assert!(times.iter().flatten().all(|time| time.wall >= 0.001 && time.cpu < time.wall), "{times:?}");
        assert!(counts.iter().all(|count| count.get() >= 3));
    }
}
