//! One instance of a plugin: a store, the guest in it, and calls that can't get out of hand.

use std::path::PathBuf;
use std::sync::Arc;

use acequia_connector_api::{ColumnType, RowSchema};
use wasmtime::Store;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::{state, tick, transform, types};
use super::capture::Capture;
use super::component::{Linked, differs_from_contract};
use super::engine::Host;
use super::error::{Failure, Limit, PluginError, PluginErrorKind};
use super::limits::{CallClock, MemoryLimiter, with_deadline};
use super::linker::wasi_context;
use super::ticker::Ticker;
use crate::config::model::{Grants, Limits};

/// What the host keeps beside a guest.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    table: ResourceTable,
    memory: MemoryLimiter,
    pub(crate) capture: Capture,
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// All that it takes to make an instance: kept, because an instance that failed is replaced.
pub(crate) struct Recipe {
    pub(crate) host: Host,
    pub(crate) linked: Linked,
    /// The `config` table as JSON text.
    pub(crate) config: String,
    pub(crate) input: RowSchema,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
    pub(crate) base: PathBuf,
    pub(crate) pipeline: String,
    pub(crate) transform: String,
    pub(crate) plugin: String,
}

impl Recipe {
    /// Pipeline, transform and plugin, for messages.
    pub(crate) fn place(&self) -> String {
        let Recipe { pipeline, transform, plugin, .. } = self;
        format!("pipeline `{pipeline}`, transform `{transform}` ({plugin})")
    }

    pub(crate) fn error(&self, kind: PluginErrorKind, message: impl Into<String>) -> PluginError {
        PluginError::new(kind, self.place(), message)
    }
}

/// A guest that is ready for calls. After a failed call it must be dropped.
pub(crate) struct Instance {
    store: Store<GuestState>,
    transform: transform::Guest,
    state: Option<state::Guest>,
    tick: Option<tick::Guest>,
    clock: Arc<CallClock>,
    ticker: Arc<Ticker>,
    capture: Capture,
    output_limit: Limit,
    /// Also the limit of a snapshot.
    memory_limit: Limit,
    /// Memory after `configure`.
    at_rest: u64,
}

impl Instance {
    /// A new instance, configured; and its plan.
    pub(crate) async fn start(recipe: &Recipe) -> Result<(Self, transform::Plan), PluginError> {
        let mut instance = Self::instantiate(recipe).await?;
        let fields: Vec<types::FieldParam<'_>> = recipe
            .input
            .fields
            .iter()
            .map(|field| types::FieldParam {
                name: &field.name,
                kind: to_guest_type(field.kind),
                nullable: field.nullable,
            })
            .collect();
        let schema = types::Schema { fields: &fields, open: recipe.input.open };
        let plan = instance.configure(&recipe.config, schema).await;
        let plan = plan.map_err(|failure| recipe.error(PluginErrorKind::Configure, failure.in_call("configure")))?;
        instance.at_rest = instance.memory();
        Ok((instance, plan))
    }

    async fn instantiate(recipe: &Recipe) -> Result<Self, PluginError> {
        let capture = Capture::new(&recipe.pipeline, &recipe.transform, &recipe.plugin);
        let wasi = wasi_context(&recipe.grants, &recipe.base, &capture)
            .map_err(|message| recipe.error(PluginErrorKind::Grant, message))?;
        let limits = recipe.limits;
        let memory = MemoryLimiter::new(limits.memory);
        let output_limit = Limit { size: limits.output, key: "limits.output" };
        let guest = GuestState { wasi, table: ResourceTable::new(), memory, capture: capture.clone() };
        let mut store = Store::new(recipe.host.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(limits.output.as_usize());
        let clock = CallClock::new(limits.time);
        store.epoch_deadline_callback({
            let clock = clock.clone();
            move |_| clock.epoch_ended()
        });
        store.set_epoch_deadline(1);
        let ticker = recipe.host.ticker().clone();
        let started = {
            let _running = ticker.run();
            with_deadline(&clock, recipe.linked.instance.instantiate_async(&mut store)).await
        };
        let cannot_start = |error: wasmtime::Error| {
            let failure = Failure::of_call(&error, output_limit, &capture.end_call());
            recipe.error(PluginErrorKind::Start, format!("no instance can be made: {}", failure.message))
        };
        let instance = started.map_err(cannot_start)?;
        // Here the types of the exports are compared, which can't be done without an instance.
        let differs = |error: wasmtime::Error| recipe.error(PluginErrorKind::File, differs_from_contract(&error));
        let linked = &recipe.linked;
        let transform = linked.transform.load(&mut store, &instance).map_err(differs)?;
        let state =
            linked.state.as_ref().map(|state| state.load(&mut store, &instance)).transpose().map_err(differs)?;
        let tick = linked.tick.as_ref().map(|tick| tick.load(&mut store, &instance)).transpose().map_err(differs)?;
        Ok(Instance {
            store,
            transform,
            state,
            tick,
            clock,
            ticker,
            capture,
            output_limit,
            memory_limit: Limit { size: limits.memory, key: "limits.memory" },
            at_rest: 0,
        })
    }

    /// Bytes of linear memory. It never becomes less.
    fn memory(&self) -> u64 {
        self.store.data().memory.used()
    }

    /// Three quarters of what it may have beyond what it needs at rest are in use. A guest that keeps nothing between
    /// batches is then better replaced than run into its limit, by a leak or by one unusual batch.
    pub(crate) fn is_worn(&self) -> bool {
        let room = self.memory_limit.size.0.saturating_sub(self.at_rest);
        self.memory() > self.at_rest + room / 4 * 3
    }

    async fn configure(&mut self, config: &str, schema: types::Schema<'_>) -> Result<transform::Plan, Failure> {
        self.begin();
        let _running = self.ticker.run();
        let call = self.transform.call_configure(&mut self.store, config, schema);
        match with_deadline(&self.clock, call).await {
            Ok(Ok(plan)) => Ok(plan),
            Ok(Err(message)) => Err(Failure::returned("configure", &message)),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Call `apply`. What it returns is not checked yet.
    pub(crate) async fn apply(&mut self, batch: types::Batch<'_>) -> Result<transform::Output, Failure> {
        self.begin();
        let _running = self.ticker.run();
        let call = self.transform.call_apply(&mut self.store, batch);
        match with_deadline(&self.clock, call).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(message)) => Err(Failure::returned("apply", &message)),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Call `tick`, if there is one.
    pub(crate) async fn tick(&mut self, now: i64) -> Result<Option<transform::Output>, Failure> {
        self.begin();
        let Some(tick) = &self.tick else { return Ok(None) };
        let _running = self.ticker.run();
        let call = tick.call_tick(&mut self.store, now);
        match with_deadline(&self.clock, call).await {
            Ok(Ok(output)) => Ok(Some(output)),
            Ok(Err(message)) => Err(Failure::returned("tick", &message)),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Call `snapshot`, if there is one. A snapshot may be as large as the guest's memory.
    pub(crate) async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.begin();
        let Some(state) = &self.state else { return Ok(None) };
        let _running = self.ticker.run();
        self.store.set_hostcall_fuel(self.memory_limit.size.as_usize());
        let result = with_deadline(&self.clock, state.call_snapshot(&mut self.store)).await;
        self.store.set_hostcall_fuel(self.output_limit.size.as_usize());
        result.map(Some).map_err(|error| Failure::of_call(&error, self.memory_limit, &self.capture.end_call()))
    }

    /// Call `restore`, if there is one.
    pub(crate) async fn restore(&mut self, snapshot: &[u8]) -> Result<(), Failure> {
        self.begin();
        let Some(state) = &self.state else { return Ok(()) };
        let _running = self.ticker.run();
        match with_deadline(&self.clock, state.call_restore(&mut self.store, snapshot)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(Failure::returned("restore", &message)),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn begin(&mut self) {
        self.capture.begin_call();
        // One epoch: it only makes the guest yield. Its time is the clock's business.
        self.store.set_epoch_deadline(1);
    }

    fn failure(&self, error: &wasmtime::Error) -> Failure {
        Failure::of_call(error, self.output_limit, &self.capture.end_call())
    }
}

pub(crate) fn to_guest_type(kind: ColumnType) -> types::ColumnType {
    match kind {
        ColumnType::Boolean => types::ColumnType::Boolean,
        ColumnType::Int64 => types::ColumnType::Int64,
        ColumnType::Float64 => types::ColumnType::Float64,
        ColumnType::Timestamp => types::ColumnType::Timestamp,
        ColumnType::Text => types::ColumnType::Text,
        ColumnType::Binary => types::ColumnType::Binary,
        ColumnType::Json => types::ColumnType::Json,
    }
}

pub(crate) fn from_guest_type(kind: types::ColumnType) -> ColumnType {
    match kind {
        types::ColumnType::Boolean => ColumnType::Boolean,
        types::ColumnType::Int64 => ColumnType::Int64,
        types::ColumnType::Float64 => ColumnType::Float64,
        types::ColumnType::Timestamp => ColumnType::Timestamp,
        types::ColumnType::Text => ColumnType::Text,
        types::ColumnType::Binary => ColumnType::Binary,
        types::ColumnType::Json => ColumnType::Json,
    }
}
