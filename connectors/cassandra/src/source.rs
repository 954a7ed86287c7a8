//! The running source.
//!
//! The ring of tokens is cut into ranges of equal length, and a few of them are read side by side, page by page, each in
//! the order of its tokens. The position says which range comes next and, for each range that was begun, its last token
//! and how many rows of that token have been given out: rows of one token follow each other in the order of their
//! clustering key. Reading goes on there, so each row comes once as long as the table does not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use acequia_connector_api::{Batch, BatchLimits, ConnectorError, Context, Event, FailedRow, Origin, Position, Source};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use async_trait::async_trait;
use scylla::cluster::metadata::Table;
use scylla::deserialize::row::ColumnIterator;
use scylla::errors::ExecutionError;
use scylla::frame::response::result::ColumnType as CqlType;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::response::{PagingState, PagingStateResponse};
use scylla::statement::prepared::PreparedStatement;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Shared, find_table};
use crate::decode::ColumnBuilder;
use crate::errors;
use crate::source_config::CassandraSource;
use crate::types::{column_type, quoted};

/// Into how many ranges the ring is cut: small enough that a table of any size is read evenly.
const RANGES: u32 = 64;

/// How far one reading of the table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reading {
    /// Of which table, in a position: what was read of one says nothing of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    /// The ring is cut into so many ranges.
    ranges: u32,
    /// The first range that was not begun.
    next: u32,
    /// Those that were begun and have not ended.
    begun: BTreeMap<u32, Mark>,
}

/// How far a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The token of the last row given out, or the range's first.
    token: i64,
    /// How many rows of that token were given out.
    rows: u64,
}

impl Reading {
    fn start() -> Self {
        Reading { table: None, ranges: RANGES, next: 0, begun: BTreeMap::new() }
    }

    /// Positions of before tables were named are of the one that is read.
    fn is_of(&self, config: &CassandraSource) -> bool {
        self.table.as_ref().is_none_or(|table| *table == name(config))
    }

    fn is_over(&self) -> bool {
        self.next >= self.ranges && self.begun.is_empty()
    }

    /// First and last token of a range.
    fn bounds(&self, range: u32) -> (i64, i64) {
        let edge = |index: u32| {
            let offset = (u128::from(index) << 64) / u128::from(self.ranges.max(1));
            i128::from(i64::MIN) + i128::try_from(offset).unwrap_or(0)
        };
        let narrow = |token: i128| i64::try_from(token).unwrap_or(i64::MAX);
        (narrow(edge(range)), narrow(edge(range + 1) - 1))
    }
}

/// One page of a range, or why there is none.
struct Page {
    range: u32,
    /// How far it was read before; the page begins there.
    paging: PagingState,
    result: Result<(QueryResult, PagingStateResponse), ExecutionError>,
}

/// A page whose rows are being taken: a batch may be full in the middle of it.
struct Open {
    range: u32,
    rows: QueryRowsResult,
    /// The first of its rows that was not taken.
    next: usize,
    /// The range has no other page.
    last: bool,
}

pub(crate) struct CassandraReader {
    config: CassandraSource,
    session: Shared,
    prepared: PreparedStatement,
    kinds: Vec<CqlType<'static>>,
    schema: SchemaRef,
    limits: BatchLimits,
    pages: JoinSet<Page>,
    open: Option<Open>,
    /// Where each range that was begun starts, and how many rows there were given out before a restart.
    starts: BTreeMap<u32, Mark>,
    /// After the last batch given out.
    given: Reading,
    /// With the rows that are being collected.
    taken: Reading,
    rows: Rows,
    /// When the first of `rows` came.
    since: Option<Instant>,
    /// When to read the table again.
    again: Option<Instant>,
    /// Pages that could not be read, to be asked for again.
    broken: Vec<(u32, PagingState)>,
}

/// Rows that are being collected.
struct Rows {
    builders: Vec<ColumnBuilder>,
    count: usize,
    bytes: usize,
    /// Rows with a value that no column can hold.
    failed: Vec<(usize, String)>,
}

impl CassandraReader {
    pub(crate) async fn open(
        config: &CassandraSource,
        context: &Context,
        position: Option<&Position>,
    ) -> Result<Self, ConnectorError> {
        let session = config.client().connect(context).await?;
        let (keyspace, name) = (&config.keyspace, &config.table);
        let missing = || ConnectorError::failed(format!("there is no table `{name}` in the keyspace `{keyspace}`"));
        let table = find_table(&session, keyspace, name).map_err(ConnectorError::failed)?.ok_or_else(missing)?;
        let columns = columns(config, &table).map_err(ConnectorError::failed)?;
        let statement = select(keyspace, name, &columns, &table.partition_key);
        let prepared = session.prepare(statement).await;
        let mut prepared = prepared.map_err(|error| {
            let fate = errors::prepare_fate(&error);
            errors::of_statement(&format!("`{keyspace}.{name}` can't be read"), error, fate)
        })?;
        prepared.set_page_size(i32::try_from(config.page).unwrap_or(i32::MAX));
        prepared.set_is_idempotent(true);
        let kinds: Vec<_> = columns.iter().filter_map(|column| Some(table.columns.get(column)?.typ.clone())).collect();
        let fields: Vec<_> = columns
            .iter()
            .zip(&kinds)
            .map(|(column, kind)| {
                let key = table.partition_key.contains(column) || table.clustering_key.contains(column);
                column_type(kind).arrow_field(column, !key)
            })
            .collect();
        let builders = kinds.iter().map(|kind| ColumnBuilder::new(column_type(kind))).collect();
        let reading = position
            .and_then(Position::as_single)
            .and_then(|value| Reading::deserialize(value).ok())
            .filter(|reading| reading.ranges > 0)
            .filter(|reading| reading.is_of(config))
            .unwrap_or_else(Reading::start);
        let mut reader = CassandraReader {
            config: config.clone(),
            session: Arc::new(session),
            prepared,
            kinds,
            schema: Arc::new(Schema::new(fields)),
            limits: context.batch,
            pages: JoinSet::new(),
            open: None,
            starts: BTreeMap::new(),
            given: reading.clone(),
            taken: reading,
            rows: Rows { builders, count: 0, bytes: 0, failed: Vec::new() },
            since: None,
            again: None,
            broken: Vec::new(),
        };
        for (range, mark) in reader.taken.begun.clone() {
            reader.starts.insert(range, mark);
            reader.fetch(range, PagingState::start());
        }
        reader.begin();
        Ok(reader)
    }

    /// Begin as many ranges as may be read at a time.
    fn begin(&mut self) {
        while self.taken.begun.len() < self.config.concurrency && self.taken.next < self.taken.ranges {
            let range = self.taken.next;
            self.taken.next += 1;
            let (first, _) = self.taken.bounds(range);
            let mark = Mark { token: first, rows: 0 };
            self.taken.begun.insert(range, mark);
            self.starts.insert(range, mark);
            self.fetch(range, PagingState::start());
        }
    }

    /// Ask for a page. The bounds stay the same from page to page: the paging state belongs to them.
    fn fetch(&mut self, range: u32, paging: PagingState) {
        let (first, last) = self.taken.bounds(range);
        let first = self.starts.get(&range).map_or(first, |start| start.token);
        let (session, prepared) = (self.session.clone(), self.prepared.clone());
        self.pages.spawn(async move {
            let result = session.execute_single_page(&prepared, (first, last), paging.clone()).await;
            Page { range, paging, result }
        });
    }

    /// Take a page and ask for the next one.
    fn take(&mut self, page: Page) -> Result<(), ConnectorError> {
        let Page { range, paging, result } = page;
        let (result, response) = match result {
            Ok(page) => page,
            Err(error) => {
                self.broken.push((range, paging));
                let fate = errors::fate(&error);
                let what = format!("`{}.{}` can't be read", self.config.keyspace, self.config.table);
                return Err(errors::of_statement(&what, error, fate));
            }
        };
        let next = match response {
            PagingStateResponse::HasMorePages { state } => Some(state),
            PagingStateResponse::NoMorePages => None,
        };
        let last = next.is_none();
        if let Some(next) = next {
            self.fetch(range, next);
        }
        let rows = result.into_rows_result().map_err(|error| self.unreadable(&error))?;
        self.open = Some(Open { range, rows, next: 0, last });
        Ok(())
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> ConnectorError {
        ConnectorError::failed(format!("the answer for `{}` can't be read: {error}", self.config.table))
    }

    /// Take rows of a page until the batch is full.
    fn collect(&mut self, mut open: Open) -> Result<(), ConnectorError> {
        let rows = open.rows.rows::<ColumnIterator<'_, '_>>().map_err(|error| self.unreadable(&error))?;
        let mut ended = true;
        let mut cells = Vec::with_capacity(self.kinds.len());
        for (index, row) in rows.enumerate().skip(open.next) {
            if self.is_full() {
                open.next = index;
                ended = false;
                break;
            }
            let mut token = None;
            cells.clear();
            for column in row.map_err(|error| self.unreadable(&error))? {
                let column = column.map_err(|error| self.unreadable(&error))?;
                let bytes = column.slice.map(|slice| slice.as_slice());
                if column.index == self.kinds.len() {
                    token = bytes.and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
                } else {
                    cells.push(bytes);
                }
            }
            let (Some(mark), Some(start)) = (self.taken.begun.get_mut(&open.range), self.starts.get_mut(&open.range))
            else {
                return Ok(());
            };
            let token = token.unwrap_or(mark.token);
            if start.rows > 0 && token == start.token {
                start.rows -= 1;
                continue;
            }
            start.rows = 0;
            if token != mark.token {
                *mark = Mark { token, rows: 0 };
            }
            mark.rows += 1;
            self.rows.push(&self.kinds, &cells);
        }
        if self.rows.count > 0 {
            self.since.get_or_insert_with(Instant::now);
        }
        if !ended {
            self.open = Some(open);
        } else if open.last {
            self.taken.begun.remove(&open.range);
            self.starts.remove(&open.range);
            self.begin();
        }
        Ok(())
    }

    /// The rows collected so far.
    fn batch(&mut self) -> Result<Batch, ConnectorError> {
        self.since = None;
        let name = format!("{}.{}", self.config.keyspace, self.config.table);
        let batch = self.rows.finish(&self.schema, &name);
        let batch = batch.map_err(|error| ConnectorError::failed(format!("`{name}` can't be read")).because(error))?;
        self.given = self.taken.clone();
        Ok(batch)
    }

    fn is_full(&self) -> bool {
        self.rows.count >= self.limits.rows.max(1) || self.rows.bytes >= self.limits.bytes.as_usize()
    }
}

impl Rows {
    fn push(&mut self, kinds: &[CqlType<'_>], cells: &[Option<&[u8]>]) {
        let mut reason = None;
        for ((builder, kind), cell) in self.builders.iter_mut().zip(kinds).zip(cells) {
            self.bytes += cell.map_or(0, <[u8]>::len) + 8;
            if let Err(message) = builder.push(kind, *cell) {
                reason.get_or_insert(message);
            }
        }
        if let Some(reason) = reason {
            self.failed.push((self.count, reason));
        }
        self.count += 1;
    }

    fn finish(&mut self, schema: &SchemaRef, name: &str) -> Result<Batch, ArrowError> {
        let columns: Vec<ArrayRef> = self.builders.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        let count = std::mem::take(&mut self.count);
        self.bytes = 0;
        let failed = std::mem::take(&mut self.failed);
        let whole = Batch::new(rows, Origin::Unknown);
        if failed.is_empty() {
            return Ok(whole);
        }
        let mut keep = vec![true; count];
        let failed = failed.into_iter().map(|(row, message)| {
            if let Some(keep) = keep.get_mut(row) {
                *keep = false;
            }
            FailedRow { partition: Some(name.into()), ..whole.fail(row, message) }
        });
        let failed = failed.collect();
        let rows = filter_record_batch(&whole.rows, &BooleanArray::from(keep))?;
        Ok(Batch { rows, origin: Origin::Unknown, failed })
    }
}

#[async_trait]
impl Source for CassandraReader {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        for (range, paging) in std::mem::take(&mut self.broken) {
            self.fetch(range, paging);
        }
        loop {
            let pending = self.open.is_some() || !self.pages.is_empty();
            if self.is_full() || (!pending && self.rows.count > 0) {
                return self.batch().map(Event::Batch);
            }
            if let Some(open) = self.open.take() {
                self.collect(open)?;
                continue;
            }
            if self.pages.is_empty() && self.taken.is_over() {
                self.given = self.taken.clone();
                let Some(poll) = self.config.poll else {
                    return Ok(Event::End);
                };
                let at = *self.again.get_or_insert_with(|| Instant::now() + poll.0);
                tokio::time::sleep_until(at).await;
                self.again = None;
                self.taken = Reading::start();
                self.begin();
            }
            // Nothing is lost if this is dropped: pages go on by themselves until they are taken.
            let page = match self.since {
                None => self.pages.join_next().await,
                Some(since) => {
                    match tokio::time::timeout_at(since + self.limits.wait.0, self.pages.join_next()).await {
                        Ok(page) => page,
                        Err(_) => return self.batch().map(Event::Batch),
                    }
                }
            };
            match page {
                Some(Ok(page)) => self.take(page)?,
                Some(Err(error)) => return Err(ConnectorError::failed("reading a page failed").because(error)),
                None => {}
            }
        }
    }

    fn position(&self) -> Position {
        let given = Reading { table: Some(name(&self.config)), ..self.given.clone() };
        Position::single(serde_json::to_value(given).unwrap_or_default())
    }

    async fn close(&mut self) {
        self.pages.shutdown().await;
    }
}

fn name(config: &CassandraSource) -> String {
    format!("{}.{}", config.keyspace, config.table)
}

/// The columns to read, in their order.
fn columns(config: &CassandraSource, table: &Table) -> Result<Vec<String>, String> {
    if let Some(columns) = &config.columns {
        if let Some(name) = columns.iter().find(|name| !table.columns.contains_key(*name)) {
            let mut there: Vec<_> = table.columns.keys().map(String::as_str).collect();
            there.sort_unstable();
            return Err(format!(
                "the table `{}.{}` has no column `{name}`; it has: {}",
                config.keyspace,
                config.table,
                there.join(", ")
            ));
        }
        return Ok(columns.clone());
    }
    let keys: Vec<_> = table.partition_key.iter().chain(&table.clustering_key).cloned().collect();
    let mut others: Vec<_> = table.columns.keys().filter(|name| !keys.contains(name)).cloned().collect();
    others.sort_unstable();
    Ok(keys.into_iter().chain(others).collect())
}

/// The statement that reads a range of tokens; the token is the last column.
fn select(keyspace: &str, table: &str, columns: &[String], partition_key: &[String]) -> String {
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let token = format!("token({})", list(partition_key));
    format!(
        "SELECT {}, {token} FROM {}.{} WHERE {token} >= ? AND {token} <= ?",
        list(columns),
        quoted(keyspace),
        quoted(table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_ranges_are_the_whole_ring(ranges in 1_u32..5000) {
            let reading = Reading { ranges, ..Reading::start() };
            let mut next = i128::from(i64::MIN);
            for range in 0..ranges {
                let (first, last) = reading.bounds(range);
                prop_assert_eq!(i128::from(first), next);
                prop_assert!(last >= first);
                next = i128::from(last) + 1;
            }
            prop_assert_eq!(next, i128::from(i64::MAX) + 1);
        }
    }

    #[test]
    fn a_statement_quotes_its_names() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        insta::assert_snapshot!(
            select("k", "T\"x", &names(&["a", "B c"]), &names(&["a", "b"])),
            @r#"SELECT "a", "B c", token("a", "b") FROM "k"."T""x" WHERE token("a", "b") >= ? AND token("a", "b") <= ?"#
        );
    }

    #[test]
    fn values_that_no_column_holds_are_failed_rows() {
        let kind = CqlType::Native(scylla::frame::response::result::NativeType::Timestamp);
        let mut rows =
            Rows { builders: vec![ColumnBuilder::new(column_type(&kind))], count: 0, bytes: 0, failed: Vec::new() };
        let schema = Arc::new(Schema::new(vec![column_type(&kind).arrow_field("at", true)]));
        for value in [1_i64, i64::MAX, 2] {
            rows.push(std::slice::from_ref(&kind), &[Some(&value.to_be_bytes())]);
        }
        let batch = rows.finish(&schema, "k.t").unwrap();
        assert_eq!((batch.len(), batch.failed.len(), rows.count), (2, 1, 0));
        assert!(batch.failed[0].error.contains("9223372036854775807 ms"), "{}", batch.failed[0].error);
    }
}
