//! The running source.

use std::sync::Arc;

use acequia_connector_api::{
    Batch, BatchLimits, ConnectorError, Event, Origin, Position, Progress, RowSchema, Source, SourceConfig,
};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::timeline::{Clock, Timeline, micros};
use crate::{Rate, RateConfig};

/// Bytes that a row takes: two columns of eight.
const ROW_BYTES: usize = 16;

/// A running `rate` source.
#[derive(Debug)]
pub struct RateSource {
    timeline: Timeline,
    /// The next `value`.
    next: i64,
    /// The `value` that is not reached any more. `i64::MAX` at most, so that `next` can stand behind the last row.
    end: i64,
    /// The key `rows`.
    total: Option<u64>,
    /// Most rows of a batch.
    rows: i64,
    /// How long the first row of a batch waits, in microseconds.
    wait: i64,
    clock: Clock,
    /// A row is due this many microseconds before its timestamp; see [`lead`].
    lead: i64,
    schema: SchemaRef,
    zone: Arc<str>,
    partition: Arc<str>,
}

/// What is stored. The rate is text, since a JSON number need not come back as the same double.
#[derive(Serialize, Deserialize)]
struct Stored {
    start: i64,
    next: i64,
    rate: String,
}

impl RateSource {
    /// Start at `position`, or with value 0 at the time `now` (microseconds since the epoch).
    ///
    /// # Errors
    /// If the position is not one of a rate source.
    pub fn start(
        config: &RateConfig,
        limits: BatchLimits,
        position: Option<&Position>,
        now: i64,
    ) -> Result<Self, ConnectorError> {
        let rate = config.rows_per_second;
        let (timeline, next) = match position {
            Some(position) => {
                let (stored, next) = restore(position)?;
                (stored.with_rate(rate, next), next)
            }
            None => (Timeline { start: now, rate }, 0),
        };
        let rows = limits.rows.min(limits.bytes.as_usize() / ROW_BYTES).max(1);
        Ok(RateSource {
            timeline,
            next,
            end: config.rows.map_or(i64::MAX, |rows| i64::try_from(rows).unwrap_or(i64::MAX)),
            total: config.rows,
            rows: i64::try_from(rows).unwrap_or(i64::MAX),
            wait: micros(limits.wait.0),
            clock: Clock::new(now),
            lead: lead(timeline, next, now),
            schema: RowSchema::to_arrow(&config.schema()),
            zone: Arc::from("UTC"),
            partition: Arc::from(""),
        })
    }

    /// Wait until rows are due, and say up to which one (exclusive). Reads the clock and `next` only, so that dropping
    /// it loses nothing and no drift adds up.
    async fn due(&self, limit: i64) -> i64 {
        let line = self.timeline;
        if !line.reaches(self.next) {
            return std::future::pending().await;
        }
        // The batch takes what is due within `wait` of its first row. At a low rate that is the first row alone, and
        // it does not wait for a second one.
        let close = line.at(self.next).saturating_add(self.wait);
        let last = line.first_after(close, self.next + 1, limit) - 1;
        self.clock.sleep_until(line.at(last).saturating_sub(self.lead)).await;
        // After a pause more may be due by now.
        line.first_after(self.clock.now().saturating_add(self.lead), last + 1, limit)
    }

    fn batch(&mut self, until: i64) -> Result<Batch, ConnectorError> {
        let first = std::mem::replace(&mut self.next, until);
        let values: Vec<i64> = (first..until).collect();
        let timestamps = self.timeline.column(first, until);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::new(values.into(), None)),
            Arc::new(TimestampMicrosecondArray::new(timestamps.into(), None).with_timezone(self.zone.clone())),
        ];
        let rows = RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| ConnectorError::failed("the rate source's columns don't fit").because(error))?;
        Ok(Batch::new(rows, Origin::run(self.partition.clone(), first)))
    }
}

fn restore(position: &Position) -> Result<(Timeline, i64), ConnectorError> {
    let wrong = || ConnectorError::failed("the stored position is not that of a rate source; remove it to start over");
    let value = position.as_single().ok_or_else(wrong)?;
    let stored = Stored::deserialize(value).map_err(|error| wrong().because(error))?;
    let rate = Rate::parse(&stored.rate).ok_or_else(wrong)?;
    if stored.next < 0 {
        return Err(wrong());
    }
    Ok((Timeline { start: stored.start, rate }, stored.next))
}

/// How much earlier than its timestamp a row is due. Usually not at all. But timestamps can run ahead of the clock: at
/// "max" a second holds more than a million rows that are a microsecond apart, and a wall clock can be set back. Rows
/// must keep their timestamps, and nobody wants to wait for hours, so the next row is due one interval from now at the
/// latest.
fn lead(timeline: Timeline, next: i64, now: i64) -> i64 {
    let interval = timeline.at(next.saturating_add(1)).saturating_sub(timeline.at(next));
    timeline.at(next).saturating_sub(now).saturating_sub(interval).max(0)
}

#[async_trait]
impl Source for RateSource {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        if self.next >= self.end {
            return Ok(Event::End);
        }
        // Never waiting, "max" would else keep this thread from every other task.
        tokio::task::coop::consume_budget().await;
        let limit = self.next.saturating_add(self.rows).min(self.end);
        let until = match self.timeline.rate {
            Rate::Max => limit,
            Rate::PerSecond(_) => self.due(limit).await,
        };
        Ok(Event::Batch(self.batch(until)?))
    }

    fn position(&self) -> Position {
        let Timeline { start, rate } = self.timeline;
        Position::single(serde_json::json!({ "start": start, "next": self.next, "rate": rate.to_string() }))
    }

    fn progress(&self) -> Option<Progress> {
        let total = self.total?;
        let done = u64::try_from(self.next).unwrap_or(0).min(total);
        Some(Progress { done, total, unit: "rows" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use acequia_connector_api::{ByteSize, Span};
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, TimestampMicrosecondType};
    use tokio::time::{Instant, advance, timeout};

    const NOW: i64 = 1_700_000_000_000_000;

    fn config(rate: f64, rows: Option<u64>) -> RateConfig {
        RateConfig { rows_per_second: Rate::PerSecond(rate), rows }
    }

    fn max(rows: Option<u64>) -> RateConfig {
        RateConfig { rows_per_second: Rate::Max, rows }
    }

    fn open(config: &RateConfig, position: Option<&Position>) -> RateSource {
        RateSource::start(config, BatchLimits::default(), position, NOW).unwrap()
    }

    /// The rows of the next batch, `None` at the end.
    async fn next(source: &mut RateSource) -> Option<Vec<(i64, i64)>> {
        let Event::Batch(batch) = source.next().await.unwrap() else { return None };
        assert_eq!(RowSchema::from_arrow(batch.rows.schema_ref()), RateConfig::default().schema());
        let values = batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        let timestamps = batch.rows.column(1).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(batch.origin.locate(0), (Some("".into()), Some(values[0])));
        Some(values.into_iter().zip(timestamps).collect())
    }

    async fn count(source: &mut RateSource) -> usize {
        next(source).await.unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn one_row_a_second_shows_every_second() {
        let mut source = open(&config(1.0, None), None);
        let begin = Instant::now();
        for value in 0..5 {
            assert_eq!(next(&mut source).await.unwrap(), [(value, NOW + value * 1_000_000)]);
            assert_eq!(begin.elapsed(), Duration::from_secs(value as u64));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_row_a_second() {
        let mut source = open(&config(0.5, Some(2)), None);
        let begin = Instant::now();
        assert_eq!(next(&mut source).await.unwrap(), [(0, NOW)]);
        assert_eq!(next(&mut source).await.unwrap(), [(1, NOW + 2_000_000)]);
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
        assert_eq!(next(&mut source).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_collects_what_is_due_within_the_wait() {
        // 50,000 rows a second and 20 ms: rows 0..=1000 are due when row 0 has waited.
        let mut source = open(&config(50_000.0, None), None);
        let begin = Instant::now();
        assert_eq!(count(&mut source).await, 1001);
        assert_eq!(begin.elapsed(), Duration::from_millis(20));
        // No drift: after 10 s there are 500,001 rows, and what came since the last batch.
        let mut rows = 1001;
        while begin.elapsed() < Duration::from_secs(10) {
            rows += count(&mut source).await;
        }
        assert_eq!(rows as u128, begin.elapsed().as_micros() * 50_000 / 1_000_000 + 1);
        // A batch that is full before the wait is over does not wait.
        let limits = BatchLimits { rows: 100, ..BatchLimits::default() };
        let mut source = RateSource::start(&config(50_000.0, None), limits, None, NOW).unwrap();
        let begin = Instant::now();
        assert_eq!(count(&mut source).await, 100);
        assert!(begin.elapsed() <= Duration::from_millis(3), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_it_catches_up_in_full_batches() {
        let limits = BatchLimits { rows: 4096, ..BatchLimits::default() };
        let mut source = RateSource::start(&config(1000.0, None), limits, None, NOW).unwrap();
        advance(Duration::from_secs(10)).await;
        let begin = Instant::now();
        // Rows 0..=10,000 are due, and the last batch waits for no more.
        assert_eq!(count(&mut source).await, 4096);
        assert_eq!(count(&mut source).await, 4096);
        assert_eq!(count(&mut source).await, 1809);
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(source.position().as_single().unwrap()["next"], 10_001);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_future_loses_nothing() {
        let mut source = open(&config(40.0, None), None);
        let mut rows = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            let before = source.position();
            match timeout(Duration::from_millis(7), next(&mut source)).await {
                Ok(batch) => rows.extend(batch.unwrap()),
                Err(_) => assert_eq!(source.position(), before),
            }
        }
        assert!(rows.len() >= 119, "{}", rows.len());
        for (value, row) in (0..).zip(rows) {
            assert_eq!(row, (value, NOW + value * 25_000));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_makes_the_same_rows() {
        for config in [config(300.0, Some(2000)), config(7.3, Some(100)), max(Some(20_000))] {
            let mut source = open(&config, None);
            let mut positions = vec![(0, source.position())];
            let mut rows = Vec::new();
            while let Some(batch) = next(&mut source).await {
                rows.extend(batch);
                positions.push((rows.len(), source.position()));
            }
            assert_eq!(rows.len() as u64, config.rows.unwrap());
            for (done, position) in positions {
                // As the store keeps it, opened a minute later.
                let position: Position = serde_json::from_str(&serde_json::to_string(&position).unwrap()).unwrap();
                let later = NOW + 60_000_000;
                let mut replay = RateSource::start(&config, BatchLimits::default(), Some(&position), later).unwrap();
                let mut again = Vec::new();
                while let Some(batch) = next(&mut replay).await {
                    again.extend(batch);
                }
                assert_eq!(again, rows[done..]);
                assert_eq!(replay.position(), source.position());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_goes_on_with_value_and_timestamp() {
        let mut source = open(&config(1.0, None), None);
        for _ in 0..3 {
            next(&mut source).await;
        }
        let now = NOW + 2_000_000;
        let faster = config(10.0, None);
        let mut source = RateSource::start(&faster, BatchLimits::default(), Some(&source.position()), now).unwrap();
        let begin = Instant::now();
        // Row 2 was at 2 s. What follows does so every 100 ms.
        assert_eq!(next(&mut source).await.unwrap(), [(3, NOW + 2_100_000)]);
        assert_eq!(begin.elapsed(), Duration::from_millis(100));
        assert_eq!(next(&mut source).await.unwrap(), [(4, NOW + 2_200_000)]);
        // A crash before the next checkpoint: the same rows again.
        let again = RateSource::start(&faster, BatchLimits::default(), Some(&source.position()), now).unwrap();
        assert_eq!(again.timeline, source.timeline);
    }

    #[tokio::test(start_paused = true)]
    async fn from_max_to_slow_does_not_wait_for_the_timestamps() {
        let mut source = open(&max(None), None);
        for _ in 0..10_000 {
            source.next().await.unwrap();
        }
        // 81,920,000 rows in no time: timestamps are 82 s ahead of the clock.
        let mut source = open(&config(1.0, None), Some(&source.position()));
        let begin = Instant::now();
        let last = 10_000 * 8192 - 1;
        assert_eq!(next(&mut source).await.unwrap(), [(last + 1, NOW + last + 1_000_000)]);
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert_eq!(next(&mut source).await.unwrap(), [(last + 2, NOW + last + 2_000_000)]);
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_in_the_middle_of_a_long_interval_keeps_the_time() {
        let mut source = open(&config(0.01, None), None);
        next(&mut source).await;
        // 30 s later: the next row is due in 70 s, not at once.
        let now = NOW + 30_000_000;
        let mut source =
            RateSource::start(&config(0.01, None), BatchLimits::default(), Some(&source.position()), now).unwrap();
        let begin = Instant::now();
        assert_eq!(next(&mut source).await.unwrap(), [(1, NOW + 100_000_000)]);
        assert_eq!(begin.elapsed(), Duration::from_secs(70));
    }

    #[tokio::test]
    async fn max_is_full_batches_a_microsecond_apart() {
        let mut source = open(&max(Some(10_000)), None);
        assert_eq!(source.progress(), Some(Progress { done: 0, total: 10_000, unit: "rows" }));
        let first = next(&mut source).await.unwrap();
        assert_eq!(first.len(), 8192);
        assert_eq!(first[8191], (8191, NOW + 8191));
        assert_eq!(next(&mut source).await.unwrap().len(), 1808);
        assert_eq!(source.progress(), Some(Progress { done: 10_000, total: 10_000, unit: "rows" }));
        assert_eq!(next(&mut source).await, None);
        // `rows` made smaller than what is done: nothing more, and no progress above 100 %.
        let mut source = open(&max(Some(7)), Some(&source.position()));
        assert_eq!(source.progress(), Some(Progress { done: 7, total: 7, unit: "rows" }));
        assert_eq!(next(&mut source).await, None);
        assert_eq!(next(&mut open(&max(Some(0)), None)).await, None);
    }

    #[tokio::test]
    async fn limits_in_bytes_count_too() {
        for (bytes, rows) in [(1600, 100), (1, 1)] {
            let limits = BatchLimits { bytes: ByteSize(bytes), wait: Span(Duration::ZERO), ..BatchLimits::default() };
            let mut source = RateSource::start(&max(None), limits, None, NOW).unwrap();
            assert_eq!(count(&mut source).await, rows);
        }
        let limits = BatchLimits { rows: 0, ..BatchLimits::default() };
        assert_eq!(count(&mut RateSource::start(&max(None), limits, None, NOW).unwrap()).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_int64_is_an_end() {
        let position =
            |rate: &str| Position::single(serde_json::json!({ "start": NOW, "next": i64::MAX - 3, "rate": rate }));
        let mut source = open(&max(None), Some(&position("max")));
        let rows = next(&mut source).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [i64::MAX - 3, i64::MAX - 2, i64::MAX - 1]);
        assert!(rows.iter().all(|row| row.1 == i64::MAX));
        assert_eq!(next(&mut source).await, None);
        // At a steady rate such a row lies after the end of time: it never comes, and nothing spins.
        let mut source = open(&config(1.0, None), Some(&position("1")));
        assert!(timeout(Duration::from_secs(1_000_000), source.next()).await.is_err());
    }

    #[test]
    fn a_foreign_position_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        for value in [
            serde_json::json!({ "offset": 3 }),
            serde_json::json!({ "start": 0, "next": -1, "rate": "1" }),
            serde_json::json!({ "start": 0, "next": 1, "rate": "often" }),
        ] {
            let position = Position::single(value);
            let error = RateSource::start(&max(None), BatchLimits::default(), Some(&position), NOW).unwrap_err();
            assert!(error.to_string().contains("not that of a rate source"), "{error}");
        }
    }
}
