//! A running plugin as the engine sees it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{Batch, Origin, RowSchema};
use arrow_schema::SchemaRef;
use async_trait::async_trait;

use super::assemble::{AssembleError, Assembled, FreshLayout};
use super::bindings::{transform, types};
use super::component::Plugin;
use super::error::{Cause, Failure, PluginError, PluginErrorKind};
use super::from_guest::{self, Rows};
use super::instance::{Instance, Recipe};
use super::linker::LinkedGrants;
use super::plan::{Layout, Plan};
use super::prepare::Prepared;
use crate::config::model::{Grants, Limits};
use crate::pipeline::transform::{Applied, Transform, TransformError};

/// What it takes to start a plugin.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions<'a> {
    /// Name of the pipeline, for messages.
    pub pipeline: &'a str,
    /// Name of the transform, for messages: the stage's id.
    pub stage: &'a str,
    /// The `config` table as a JSON object.
    pub config: &'a serde_json::Value,
    /// What it may use up.
    pub limits: Limits,
    /// What it may reach.
    pub grants: &'a Grants,
    /// The folder that relative paths in `grants` start from.
    pub base: &'a Path,
    /// What is known of the rows.
    pub input: &'a RowSchema,
    /// Its state, from [`Transform::snapshot`]. A plugin that keeps none ignores it.
    pub snapshot: Option<&'a [u8]>,
}

/// A running plugin.
///
/// Failures: an instance that failed is replaced. A plugin without state gets the rest of the batch again, bisected until the
/// rows that make it trap are found (see the module `retry`). One with state has lost it, unless it is
/// careful ([`Transform::set_careful`]): then it is bisected in the same way, with its state restored before every try.
pub struct PluginTransform {
    plugin: Arc<Plugin>,
    recipe: Recipe,
    plan: Plan,
    output: RowSchema,
    fresh: FreshLayout,
    /// Of the last batch; the next one almost always has the same columns.
    layout: Option<Arc<Layout>>,
    /// None after a failure that could not be mended.
    instance: Option<Instance>,
    careful: bool,
    replaced: u64,
}

impl std::fmt::Debug for PluginTransform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PluginTransform").field("place", &self.recipe.place()).finish_non_exhaustive()
    }
}

impl PluginTransform {
    pub(crate) async fn start(plugin: &Arc<Plugin>, options: StartOptions<'_>) -> Result<Self, PluginError> {
        let host = plugin.host().clone();
        let place = format!("pipeline `{}`, transform `{}` ({})", options.pipeline, options.stage, plugin.name());
        let linked = plugin.compiled().linked(host.linker(), LinkedGrants::of(options.grants));
        let recipe = Recipe {
            linked: linked.map_err(|message| PluginError::new(PluginErrorKind::File, place, message))?,
            host,
            config: options.config.to_string(),
            input: options.input.clone(),
            limits: options.limits,
            grants: options.grants.clone(),
            base: options.base.to_owned(),
            pipeline: options.pipeline.to_owned(),
            transform: options.stage.to_owned(),
            plugin: plugin.name().to_owned(),
        };
        let (mut instance, plan) = Instance::start(&recipe).await?;
        let plan = Plan::from(plan);
        let wrong_plan = |message: String| recipe.error(PluginErrorKind::Plan, message);
        plan.check(options.input, plugin.is_ticking()).map_err(wrong_plan)?;
        let output = plan.output(options.input).map_err(wrong_plan)?;
        let (schema, slots) = Layout::new(&plan, &options.input.to_arrow()).map_err(wrong_plan)?.fresh();
        match options.snapshot {
            Some(snapshot) if plugin.is_stateful() => {
                instance.restore(snapshot).await.map_err(|failure| {
                    let message = format!("the stored state can't be used: {}", failure.in_call("restore"));
                    recipe.error(PluginErrorKind::Restore, message)
                })?;
            }
            Some(_) => tracing::warn!(
                pipeline = options.pipeline,
                transform = options.stage,
                "stored state is left unused: {} keeps none",
                plugin.name()
            ),
            None => {}
        }
        Ok(PluginTransform {
            plugin: plugin.clone(),
            fresh: FreshLayout { schema, slots },
            recipe,
            plan,
            output,
            layout: None,
            instance: Some(instance),
            careful: false,
            replaced: 0,
        })
    }

    /// The plugin that runs.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// What it makes of rows.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Pipeline, transform and plugin, for messages.
    pub(crate) fn place(&self) -> String {
        self.recipe.place()
    }

    /// Failures cost nothing but the rows that cause them.
    pub(crate) fn can_go_on(&self) -> bool {
        self.careful || !self.plugin.is_stateful()
    }

    fn layout(&mut self, schema: &SchemaRef) -> Result<Arc<Layout>, String> {
        if let Some(layout) = &self.layout
            && (Arc::ptr_eq(&layout.input, schema) || layout.input == *schema)
        {
            return Ok(layout.clone());
        }
        let layout = Arc::new(Layout::new(&self.plan, schema)?);
        self.layout = Some(layout.clone());
        Ok(layout)
    }

    /// The instance. There is none after a failure from which the transform could not recover.
    async fn instance(&mut self) -> Result<&mut Instance, TransformError> {
        if self.instance.is_none() {
            if self.plugin.is_stateful() {
                return Err(self.lost("it failed before, and its state is lost"));
            }
            self.renew(None).await?;
        }
        match &mut self.instance {
            Some(instance) => Ok(instance),
            None => Err(TransformError { message: self.recipe.place(), state_lost: true }),
        }
    }

    /// An error after which the pipeline must go back to its checkpoint.
    fn lost(&self, message: impl std::fmt::Display) -> TransformError {
        TransformError { message: format!("{}: {message}", self.place()), state_lost: true }
    }

    /// A new instance in place of the old one, with the state of `snapshot`.
    async fn renew(&mut self, snapshot: Option<&[u8]>) -> Result<(), TransformError> {
        // First, so that its memory is free for the new one.
        self.instance = None;
        let (mut instance, plan) = Instance::start(&self.recipe)
            .await
            .map_err(|error| TransformError { message: error.to_string(), state_lost: true })?;
        if Plan::from(plan) != self.plan {
            return Err(self.lost("`configure` returned another plan than the first time"));
        }
        if let Some(snapshot) = snapshot {
            let restored = instance.restore(snapshot).await;
            restored.map_err(|failure| self.lost(failure.in_call("restore")))?;
        }
        self.instance = Some(instance);
        Ok(())
    }

    /// Replace an instance that failed.
    pub(crate) async fn replace(&mut self, failure: &str, snapshot: Option<&[u8]>) -> Result<(), TransformError> {
        self.replaced += 1;
        tracing::warn!(
            pipeline = self.recipe.pipeline,
            transform = self.recipe.transform,
            plugin = self.plugin.name(),
            "the plugin failed and is replaced: {failure}"
        );
        self.renew(snapshot).await
    }

    /// Give rows to the guest, and put its answer together. The outer error is final, the inner one is of these rows.
    pub(crate) async fn call(&mut self, input: &Prepared) -> Result<Result<Assembled, Failure>, TransformError> {
        let instance = self.instance().await?;
        let rows = u32::try_from(input.len()).ok();
        let (Some(rows), Some(columns)) = (rows, input.guest_columns(&input.reads)) else {
            return Ok(Err(Failure::nonsense("apply", "the host could not lay the batch out for it")));
        };
        let params: Vec<_> = columns.iter().map(super::to_guest::GuestColumn::as_param).collect();
        let output = match instance.apply(types::Batch { rows, columns: &params }).await {
            Ok(output) => output,
            Err(failure) => return Ok(Err(failure)),
        };
        let answer = match from_guest::check(output, &self.plan.adds, input.len()) {
            Ok(answer) => answer,
            Err(message) => return Ok(Err(Failure::nonsense("apply", message))),
        };
        let assembled = Assembled::new(input, answer, &self.fresh, self.recipe.limits.output);
        Ok(assembled.map_err(|error| match error {
            AssembleError::TooLarge(_) => Failure { cause: Cause::Size, message: error.to_string() },
            AssembleError::Arrow(error) => Failure::nonsense("apply", error),
        }))
    }

    /// What `tick` returned.
    fn ticked(&self, output: transform::Output) -> Result<Applied, Failure> {
        let answer = from_guest::check(output, &self.plan.adds, 0).map_err(|error| Failure::nonsense("tick", error))?;
        let Rows::Fresh(count) = answer.rows else {
            return Err(Failure::nonsense("tick", "its rows are not `fresh`"));
        };
        let rows = self.fresh.build(&answer.columns, count).map_err(|error| Failure::nonsense("tick", error))?;
        Ok(Applied { batch: Batch::new(rows, Origin::Unknown), dropped: 0, added: count as u64 })
    }

    /// The state after the last call; None for a plugin that keeps none.
    pub(crate) async fn take_snapshot(&mut self) -> Result<Option<Vec<u8>>, TransformError> {
        if !self.plugin.is_stateful() {
            return Ok(None);
        }
        match self.instance().await?.snapshot().await {
            Ok(snapshot) => Ok(snapshot),
            Err(failure) => {
                self.instance = None;
                Err(self.lost(failure.in_call("snapshot")))
            }
        }
    }

    /// The state is gone with the instance.
    pub(crate) fn lose(&mut self, message: impl std::fmt::Display) -> TransformError {
        self.instance = None;
        self.lost(message)
    }
}

#[async_trait]
impl Transform for PluginTransform {
    async fn apply(&mut self, batch: Batch) -> Result<Applied, TransformError> {
        let Batch { rows, origin, mut failed } = batch;
        if rows.num_rows() == 0 {
            return Ok(Applied { batch: Batch::of_failures(failed), dropped: 0, added: 0 });
        }
        let layout = match self.layout(&rows.schema()) {
            Ok(layout) => layout,
            Err(message) => {
                // Columns that nobody announced clash with the plan.
                let batch = Batch::new(rows, origin);
                failed.extend((0..batch.len()).map(|row| batch.fail(row, message.clone())));
                return Ok(Applied { batch: Batch::of_failures(failed), dropped: 0, added: 0 });
            }
        };
        let prepared = Prepared::new(layout, rows, origin);
        let (input, unfit) = prepared
            .map_err(|error| TransformError { message: format!("{}: {error}", self.place()), state_lost: false })?;
        failed.extend(unfit);
        if input.len() == 0 {
            return Ok(Applied { batch: Batch::of_failures(failed), dropped: 0, added: 0 });
        }
        let applied = self.apply_bisecting(input, failed).await?;
        if !self.plugin.is_stateful() && self.instance.as_ref().is_some_and(Instance::is_worn) {
            self.renew(None).await?;
        }
        Ok(applied)
    }

    fn is_stateful(&self) -> bool {
        self.plugin.is_stateful()
    }

    async fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TransformError> {
        self.take_snapshot().await
    }

    fn tick_every(&self) -> Option<Duration> {
        self.plan.tick_every
    }

    async fn tick(&mut self, now: i64) -> Result<Applied, TransformError> {
        let nothing = || Applied { batch: Batch::of_failures(Vec::new()), dropped: 0, added: 0 };
        let before = if self.careful { self.take_snapshot().await? } else { None };
        let failure = match self.instance().await?.tick(now).await {
            Ok(None) => return Ok(nothing()),
            Ok(Some(output)) => match self.ticked(output) {
                Ok(applied) => return Ok(applied),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if !self.can_go_on() {
            return Err(self.lose(failure.in_call("tick")));
        }
        // No row is lost by it: the next tick may do better.
        self.replace(&failure.in_call("tick"), before.as_deref()).await?;
        Ok(nothing())
    }

    fn schema(&self) -> &RowSchema {
        &self.output
    }

    fn set_careful(&mut self, careful: bool) {
        self.careful = careful;
    }

    fn replaced(&self) -> u64 {
        self.replaced
    }
}
