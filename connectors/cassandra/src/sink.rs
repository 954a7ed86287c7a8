//! The running sink.
//!
//! How every row gets to the table, and the last one with a key stays:
//! - Rows are in flight together, also across batches; `flush` waits for all of them.
//! - A row has a timestamp of its own, greater than that of the row before it, so that of two rows with the same key the
//!   later one stays whichever arrives first. How far they go is part of the checkpoint: a clock that is moved, in either
//!   direction, can't make new rows lose against old ones, also not over a crash.
//! - A row that the server could not take is kept with its timestamp and sent again before any other, so that `write` can
//!   be called again with the same batch and goes on where it was.
//! - A row that the server refuses is looked at twice: the table may have been changed, and the statement be out of date.

use std::collections::VecDeque;
use std::sync::Arc;

use acequia_connector_api::{Batch, ConnectorError, Context, FailedRow, Field, Flushed, Sink, column_type_of};
use arrow_schema::Schema;
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use scylla::client::session::Session;
use scylla::cluster::ClusterState;
use scylla::cluster::metadata::Table;
use scylla::errors::ExecutionError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Shared, find_table};
use crate::config::CassandraSink;
use crate::encode::Column;
use crate::errors::{self, Fate};
use crate::plan::{Encoded, NoPlan, Plan};
use crate::schema::{create_keyspace, create_table, unknown_column};
use crate::stamps::{self, Stamps};

/// How often something may go wrong inside the server with the same row.
const SUSPECT: u8 = 3;
/// How many shapes of rows have their statement kept.
const PLANS: usize = 16;

/// What the checkpoint holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// See [`Stamps`].
    timestamp: i64,
}

pub(crate) struct CassandraWriter {
    config: CassandraSink,
    session: Shared,
    /// What the driver knew when `table` was last looked up.
    cluster: Arc<ClusterState>,
    /// `None` until the sink has created it.
    table: Option<Arc<Table>>,
    /// Counts the changes of the table; a statement belongs to one of them.
    generation: u64,
    /// The statements by the shape of the rows, the latest first.
    plans: VecDeque<Arc<Plan>>,
    /// The server refused something that it may accept after the table is looked up again.
    stale: bool,
    /// Whether rows have ever fitted.
    fitted: bool,
    stamps: Stamps,
    in_flight: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// To be sent again, oldest first.
    again: VecDeque<Pending>,
    /// The batch that `write` is in the middle of.
    current: Option<Current>,
    /// Refused by the server since the last flush.
    refused: Vec<FailedRow>,
    scratch: Encoded,
}

/// A row that is not yet in the table.
struct Pending {
    batch: Arc<Batch>,
    row: usize,
    /// When it was written, if no column says so.
    timestamp: i64,
    /// The generation of the table that it was last encoded for.
    generation: u64,
    /// It was refused, and the table looked up since.
    rechecked: bool,
    suspect: u8,
}

struct Answer {
    pending: Pending,
    result: Result<(), ExecutionError>,
}

struct Current {
    batch: Arc<Batch>,
    next: usize,
    /// The timestamp of its first row.
    timestamp: i64,
    /// Rows that can't be encoded.
    failed: Vec<FailedRow>,
}

impl CassandraWriter {
    pub(crate) async fn open(
        config: CassandraSink,
        context: &Context,
        state: Option<&Value>,
    ) -> Result<Self, ConnectorError> {
        let session = config.client().connect(context).await?;
        if config.create {
            let statement = create_keyspace(&config.keyspace, &config.replication);
            let what = format!("the keyspace `{}` can't be created", config.keyspace);
            let created = session.query_unpaged(statement, ()).await;
            created.map_err(|error| of_execution(&what, error))?;
            refresh(&session).await?;
        }
        let table = find_table(&session, &config.keyspace, &config.table).map_err(ConnectorError::failed)?;
        match &table {
            None if !config.create => return Err(no_table(&config)),
            None => {}
            Some(table) => {
                if let Some(message) = unknown_column(&config, table) {
                    return Err(ConnectorError::failed(message));
                }
            }
        }
        let state = state.and_then(|state| State::deserialize(state).ok());
        Ok(CassandraWriter {
            config,
            cluster: session.get_cluster_state(),
            session: Arc::new(session),
            table: table.map(Arc::new),
            generation: 0,
            plans: VecDeque::new(),
            stale: false,
            fitted: false,
            stamps: Stamps::new(state.map(|state| state.timestamp), stamps::now()),
            in_flight: FuturesUnordered::new(),
            again: VecDeque::new(),
            current: None,
            refused: Vec::new(),
            scratch: Encoded::default(),
        })
    }

    /// Look the table up again if it may have changed.
    async fn look(&mut self) -> Result<(), ConnectorError> {
        if self.stale {
            refresh(&self.session).await?;
            self.stale = false;
            // Even if the columns are the same: the statement was refused.
            self.forget();
        }
        let cluster = self.session.get_cluster_state();
        if Arc::ptr_eq(&cluster, &self.cluster) {
            return Ok(());
        }
        self.cluster = cluster;
        let table = find_table(&self.session, &self.config.keyspace, &self.config.table);
        let table = table.map_err(ConnectorError::failed)?;
        match (table, &self.table) {
            (Some(table), Some(before)) if table == **before => {}
            (None, Some(_)) => {
                return Err(ConnectorError::failed(format!(
                    "the table `{}.{}` was dropped",
                    self.config.keyspace, self.config.table
                )));
            }
            (None, None) => {}
            (Some(table), before) => {
                if before.is_some() {
                    tracing::info!(
                        keyspace = self.config.keyspace,
                        table = self.config.table,
                        "the table was changed; going on with its new columns"
                    );
                }
                if let Some(message) = unknown_column(&self.config, &table) {
                    return Err(ConnectorError::failed(message));
                }
                self.table = Some(Arc::new(table));
                self.forget();
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.generation += 1;
        self.plans.clear();
    }

    /// The statement for rows of that shape; the inner error is that they fit the table in no way.
    async fn plan(&mut self, schema: &Schema) -> Result<Result<Arc<Plan>, String>, ConnectorError> {
        self.look().await?;
        if let Some(index) = self.plans.iter().position(|plan| fits(plan, schema)) {
            if index > 0 {
                self.plans.swap(0, index);
            }
            if let Some(plan) = self.plans.front() {
                return Ok(Ok(plan.clone()));
            }
        }
        let fields = fields(schema);
        let table = match &self.table {
            Some(table) => table.clone(),
            None => self.create(&fields).await?,
        };
        match Plan::prepare(&self.session, &self.config, &table, fields).await {
            Ok(plan) => {
                let plan = Arc::new(plan);
                self.plans.push_front(plan.clone());
                self.plans.truncate(PLANS);
                self.fitted = true;
                Ok(Ok(plan))
            }
            // The configuration is wrong if nothing has ever fitted; else it is these rows.
            Err(NoPlan::Misfit(message)) if self.fitted => Ok(Err(message)),
            Err(NoPlan::Misfit(message)) => Err(ConnectorError::failed(message)),
            Err(NoPlan::Prepare(error)) => {
                // If the table has just been changed, the next try knows.
                self.stale = true;
                let what =
                    format!("the statement for `{}.{}` can't be prepared", self.config.keyspace, self.config.table);
                let fate = match errors::prepare_fate(&error) {
                    Fate::Recheck => Fate::Again,
                    fate => fate,
                };
                Err(errors::of_statement(&what, error, fate))
            }
        }
    }

    async fn create(&mut self, fields: &[Field]) -> Result<Arc<Table>, ConnectorError> {
        let statement = create_table(&self.config, fields).map_err(ConnectorError::failed)?;
        tracing::info!(statement, "creating the table");
        let what = format!("the table `{}.{}` can't be created", self.config.keyspace, self.config.table);
        self.session.query_unpaged(statement, ()).await.map_err(|error| of_execution(&what, error))?;
        refresh(&self.session).await?;
        self.look().await?;
        match &self.table {
            Some(table) => Ok(table.clone()),
            None => Err(ConnectorError::retryable(format!("{what} yet: the cluster does not show it"))),
        }
    }

    /// Encode a row and put it in flight; the error is the row's own.
    fn send(&mut self, mut pending: Pending, plan: &Plan, columns: &[Option<Column<'_>>]) -> Result<(), FailedRow> {
        let encoded = plan.encode(columns, pending.row, &mut self.scratch);
        let timestamp = encoded.map_err(|message| pending.batch.fail(pending.row, message))?;
        let bound = plan.prepared.clone().bind(&self.scratch);
        let mut bound = bound.map_err(|error| pending.batch.fail(pending.row, error.to_string()))?;
        if !plan.counter {
            bound.set_timestamp(Some(timestamp.unwrap_or(pending.timestamp)));
        }
        pending.generation = self.generation;
        let session = self.session.clone();
        self.in_flight.push(Box::pin(async move {
            let result = session.execute_bound_unpaged(&bound).await.map(|_| ());
            Answer { pending, result }
        }));
        Ok(())
    }

    /// Take an answer; an error if no more rows are to be sent for now.
    fn settle(&mut self, answer: Answer) -> Result<(), ConnectorError> {
        let Answer { mut pending, result } = answer;
        let Err(error) = result else {
            return Ok(());
        };
        let mut fate = errors::fate(&error);
        if fate == Fate::Suspect {
            pending.suspect += 1;
            fate = if pending.suspect < SUSPECT { Fate::Again } else { Fate::Reject };
        }
        if fate == Fate::Recheck && pending.rechecked {
            fate = Fate::Reject;
        }
        let table = format!("`{}.{}`", self.config.keyspace, self.config.table);
        match fate {
            Fate::Again | Fate::Suspect => {
                self.again.push_back(pending);
                Err(ConnectorError::retryable(format!("a row can't be written to {table}")).because(error.to_string()))
            }
            Fate::Recheck => {
                // Only if the table has not been looked up since this row was sent.
                self.stale |= pending.generation == self.generation;
                pending.rechecked = true;
                self.again.push_back(pending);
                Ok(())
            }
            Fate::Reject => {
                let message = format!("{table} refuses the row: {}", errors::words(&error));
                self.refused.push(pending.batch.fail(pending.row, message));
                Ok(())
            }
            Fate::Stop => {
                self.again.push_back(pending);
                Err(ConnectorError::failed(format!("rows can't be written to {table}: {}", errors::words(&error))))
            }
        }
    }

    /// Wait until so many rows are in flight at most.
    async fn wait(&mut self, most: usize) -> Result<(), ConnectorError> {
        while self.in_flight.len() > most {
            if let Some(answer) = self.in_flight.next().await
                && let Err(error) = self.settle(answer)
            {
                return Err(self.drain(error).await);
            }
        }
        Ok(())
    }

    /// After an error nothing new goes out until every answer is in: the rows in flight most likely have the same error,
    /// and it is one error, not one for each. Takes as long as a request may take, at most.
    async fn drain(&mut self, mut error: ConnectorError) -> ConnectorError {
        while let Some(answer) = self.in_flight.next().await {
            if let Err(another) = self.settle(answer)
                && !another.is_retryable()
            {
                error = another;
            }
        }
        error
    }

    /// Send once more what could not be written.
    async fn resend(&mut self) -> Result<(), ConnectorError> {
        while let Some(batch) = self.again.front().map(|pending| pending.batch.clone()) {
            self.wait(self.config.concurrency - 1).await?;
            let plan = self.plan(batch.rows.schema_ref()).await?;
            let Some(pending) = self.again.pop_front() else {
                return Ok(());
            };
            let sent = match plan {
                Ok(plan) => self.send(pending, &plan, &Column::all(&batch.rows)),
                Err(message) => Err(batch.fail(pending.row, message)),
            };
            if let Err(failed) = sent {
                self.refused.push(failed);
            }
        }
        Ok(())
    }

    /// Go on with the current batch.
    async fn advance(&mut self) -> Result<(), ConnectorError> {
        let Some((batch, timestamp)) = self.current.as_ref().map(|current| (current.batch.clone(), current.timestamp))
        else {
            return Ok(());
        };
        let columns = Column::all(&batch.rows);
        let mut plan = self.plan(batch.rows.schema_ref()).await?;
        loop {
            self.wait(self.config.concurrency - 1).await?;
            if !self.again.is_empty() {
                self.resend().await?;
                plan = self.plan(batch.rows.schema_ref()).await?;
            }
            let Some(row) = self.current.as_ref().map(|current| current.next).filter(|next| *next < batch.len()) else {
                return Ok(());
            };
            let failed = match &plan {
                Ok(plan) => {
                    let of_row = i64::try_from(row).unwrap_or(i64::MAX);
                    let pending = Pending {
                        batch: batch.clone(),
                        row,
                        timestamp: timestamp.saturating_add(of_row),
                        generation: self.generation,
                        rechecked: false,
                        suspect: 0,
                    };
                    let plan = plan.clone();
                    self.send(pending, &plan, &columns).err()
                }
                Err(message) => Some(batch.fail(row, message.clone())),
            };
            if let Some(current) = &mut self.current {
                current.next = row + 1;
                current.failed.extend(failed);
            }
        }
    }
}

#[async_trait]
impl Sink for CassandraWriter {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<FailedRow>, ConnectorError> {
        if self.current.is_none() && !batch.is_empty() {
            let timestamp = self.stamps.take(batch.len(), stamps::now());
            let batch = Arc::new(Batch::new(batch.rows.clone(), batch.origin.clone()));
            self.current = Some(Current { batch, next: 0, timestamp, failed: Vec::new() });
        }
        self.resend().await?;
        self.advance().await?;
        // The last rows go out now, not with the next batch.
        while let Some(Some(answer)) = self.in_flight.next().now_or_never() {
            if let Err(error) = self.settle(answer) {
                return Err(self.drain(error).await);
            }
        }
        Ok(self.current.take().map(|current| current.failed).unwrap_or_default())
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        loop {
            self.resend().await?;
            self.wait(0).await?;
            if self.again.is_empty() {
                break;
            }
        }
        let state = serde_json::to_value(State { timestamp: self.stamps.flush(stamps::now()) });
        let state = state.map_err(|error| ConnectorError::failed("the sink's state can't be stored").because(error))?;
        Ok(Flushed { failed: std::mem::take(&mut self.refused), state: Some(state) })
    }
}

fn fields(schema: &Schema) -> Vec<Field> {
    let fields = schema.fields().iter();
    fields
        .map(|field| {
            let kind = column_type_of(field).unwrap_or(acequia_connector_api::ColumnType::Text);
            Field::new(field.name().clone(), kind, field.is_nullable())
        })
        .collect()
}

/// Whether a statement is for rows of that shape; whether a column can be null does not matter.
fn fits(plan: &Plan, schema: &Schema) -> bool {
    plan.fields.len() == schema.fields().len()
        && plan
            .fields
            .iter()
            .zip(schema.fields())
            .all(|(field, other)| field.name == *other.name() && column_type_of(other) == Some(field.kind))
}

fn no_table(config: &CassandraSink) -> ConnectorError {
    ConnectorError::failed(format!(
        "there is no table `{}` in the keyspace `{}`: create it, or set `create = true` and `primary_key`",
        config.table, config.keyspace
    ))
}

fn of_execution(what: &str, error: ExecutionError) -> ConnectorError {
    let fate = errors::fate(&error);
    errors::of_statement(what, error, fate)
}

async fn refresh(session: &Session) -> Result<(), ConnectorError> {
    session
        .refresh_metadata()
        .await
        .map_err(|error| ConnectorError::retryable("the cluster's schema can't be read").because(error.to_string()))
}
