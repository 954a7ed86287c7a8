//! From a pipeline's configuration to what a run is made of: plugins found, compiled and asked for their plans, columns
//! checked from end to end. `validate` ends here; the daemon goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use acequia_connector_api::{Cores, Registry, RowSchema, Share};
use async_trait::async_trait;
use serde_json::Value;

use super::projection::projection;
use crate::config::plugins::PluginPath;
use crate::config::{Diagnostic, Diagnostics, OnError, PipelineConfig, SinkStage, TransformStage, nearest};
use crate::pipeline::transform::{Transform, TransformError};
use crate::pipeline::{Setup, TransformFactory, dead_letter_schema};
use crate::plugin::{Host, Plan, Plugin, PluginError, PluginErrorKind, PluginTransform, StartOptions};

/// The id of the dead letters' sink, also of the one that nobody configured.
const DEAD_LETTERS: &str = "dead-letter";

/// What builds pipelines.
pub struct Builder {
    /// The kinds of connector.
    pub registry: Registry,
    /// Where plugins are looked for.
    pub plugins: PluginPath,
    /// What runs them.
    pub host: Host,
    /// What the pipelines share.
    pub cores: Cores,
}

/// A pipeline whose plugins are compiled and whose plans fit together.
pub struct Built {
    /// What a run is made of.
    pub setup: Arc<Setup>,
    /// What tells two versions of it apart.
    pub print: Print,
    /// The plugin files and what else it reads when it is opened, to be watched.
    pub files: Vec<PathBuf>,
}

/// A pipeline whose plugins are compiled, and not asked anything yet.
pub struct Found {
    factories: Vec<Arc<PluginFactory>>,
    dead_letter: Option<SinkStage>,
    /// What tells two versions of it apart.
    pub print: Print,
    files: Vec<PathBuf>,
    share: Share,
}

impl Found {
    /// Ask every plugin for its plan, and see whether the columns fit from end to end.
    ///
    /// # Errors
    /// What is wrong, with places in the file.
    pub async fn build(self, config: &PipelineConfig) -> Result<Built, Diagnostics> {
        let (output, plans) = plan(config, &self.factories).await?;
        check_sinks(config, &output)?;
        let projection = projection(config, &plans);
        let setup = Setup {
            name: config.name.clone(),
            base: config.base(),
            hash: self.print.hash(),
            source: config.source.clone(),
            projection,
            transforms: self.factories.into_iter().map(|factory| factory as Arc<dyn TransformFactory>).collect(),
            sinks: config.sinks.clone(),
            on_error: config.errors.on_error,
            dead_letter: self.dead_letter,
            delivery: config.delivery,
            share: self.share,
        };
        Ok(Built { setup: Arc::new(setup), print: self.print, files: self.files })
    }
}

/// What tells two versions of a pipeline apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Print {
    /// Everything but the transforms.
    frame: String,
    /// What the files hold that source and sinks read when they are opened. Secrets among them: it is not part of the hash,
    /// which everybody sees.
    contents: String,
    /// Each transform's table and plugin.
    transforms: Vec<(String, String)>,
}

/// What a reload has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Only transforms differ: they are swapped in place.
    Transforms,
    /// The pipeline is restarted from a checkpoint.
    Pipeline,
}

impl Print {
    /// What it takes to come from `self` to `new`.
    pub fn change(&self, new: &Print) -> Change {
        if self == new {
            Change::None
        } else if self.frame == new.frame && self.contents == new.contents {
            Change::Transforms
        } else {
            Change::Pipeline
        }
    }

    /// Short and the same for the same pipeline: what status shows as its hash.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.frame.as_bytes());
        for (table, plugin) in &self.transforms {
            hasher.update(table.as_bytes());
            hasher.update(plugin.as_bytes());
        }
        hasher.finalize().to_hex().chars().take(16).collect()
    }
}

/// A hash over what is in these files. One that can't be read is as good as empty: opening says what is wrong with it.
async fn contents(files: Vec<PathBuf>) -> String {
    if files.is_empty() {
        return String::new();
    }
    let hash = move || {
        let mut hasher = blake3::Hasher::new();
        for file in &files {
            // A pipe or a device would give what it has only once, and not to the one who needs it.
            let content = if file.is_file() { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
            hasher.update(blake3::hash(&content).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    };
    tokio::task::spawn_blocking(hash).await.unwrap_or_default()
}

/// Plugins loaded in one pass, so that a thousand pipelines with one plugin read it once.
pub type Loaded = HashMap<PathBuf, Result<Arc<Plugin>, String>>;

impl Builder {
    /// Find, compile and ask: everything short of opening connectors. `state` is the folder for dead letters that nobody
    /// has given a place.
    ///
    /// # Errors
    /// What is wrong, with places in the file.
    pub async fn build(
        &self,
        config: &PipelineConfig,
        state: Option<&Path>,
        loaded: &mut Loaded,
    ) -> Result<Built, Diagnostics> {
        self.find(config, state, loaded).await?.build(config).await
    }

    /// Find and compile, but start nothing: enough to tell whether something changed.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn find(
        &self,
        config: &PipelineConfig,
        state: Option<&Path>,
        loaded: &mut Loaded,
    ) -> Result<Found, Diagnostics> {
        let mut problems = Diagnostics::default();
        let mut factories: Vec<Arc<PluginFactory>> = Vec::new();
        let mut files = Vec::new();
        let mut transforms = Vec::new();
        for stage in &config.transforms {
            match self.load(config, stage, loaded).await {
                Ok((file, plugin)) => {
                    transforms.push((stage.hash.clone(), plugin.hash().to_hex().to_string()));
                    files.push(file);
                    factories.push(Arc::new(PluginFactory {
                        pipeline: config.name.clone(),
                        base: config.base(),
                        stage: stage.clone(),
                        plugin,
                    }));
                }
                Err(found) => problems.0.extend(found.0),
            }
        }
        let mut two_phase = config.sinks.iter().filter(|sink| sink.spec.two_phase());
        if let (Some(first), Some(second)) = (two_phase.next(), two_phase.next()) {
            let message = format!("{} and {} both deliver exactly once", first.id, second.id);
            let problem = Diagnostic::in_config(config, second.place.clone(), message);
            problems.0.push(problem.help("the two can't commit together: let one of them deliver at least once"));
        }
        if let Some(stage) = config.errors.dead_letter.as_ref().filter(|stage| stage.spec.two_phase()) {
            let message = "dead letters can't be delivered exactly once".to_owned();
            let problem = Diagnostic::in_config(config, stage.place.clone(), message);
            problems.0.push(problem.help("let them be delivered at least once"));
        }
        if config.delivery.tasks > 1 && !config.source.spec.partitioned() {
            let message = format!("a `{}` source can't be shared out among tasks", config.source.spec.type_name());
            let problem = Diagnostic::in_config(config, config.source.place.clone(), message);
            problems.0.push(problem.help("leave `delivery.tasks` at 1"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let dead_letter = match (config.errors.on_error, &config.errors.dead_letter, state) {
            (OnError::DeadLetter, Some(stage), _) => Some(stage.clone()),
            (OnError::DeadLetter, None, Some(state)) => Some(self.default_dead_letter(config, state)?),
            _ => None,
        };
        let mut frame = blake3::Hasher::new();
        frame.update(config.source.hash.as_bytes());
        for sink in config.sinks.iter().chain(&dead_letter) {
            frame.update(sink.id.as_bytes());
            frame.update(sink.hash.as_bytes());
        }
        frame.update(format!("{:?} {:?} {:?}", config.errors.on_error, config.delivery, config.path).as_bytes());
        let sinks = config.sinks.iter().chain(&dead_letter).flat_map(|sink| sink.spec.files());
        let named = config.source.spec.files().into_iter().chain(sinks);
        let named: Vec<PathBuf> = named.map(|file| config.base().join(file)).collect();
        let contents = contents(named.clone()).await;
        files.extend(named);
        let print = Print { frame: frame.finalize().to_hex().to_string(), contents, transforms };
        Ok(Found { factories, dead_letter, print, files, share: self.cores.share(&config.name) })
    }

    async fn load(
        &self,
        config: &PipelineConfig,
        stage: &TransformStage,
        loaded: &mut Loaded,
    ) -> Result<(PathBuf, Arc<Plugin>), Diagnostics> {
        let file = self.plugins.resolve(config, stage)?;
        if !loaded.contains_key(&file) {
            let host = self.host.clone();
            let path = file.clone();
            // Compiling takes seconds for a large plugin: not on a thread that rows flow on.
            let result = tokio::task::spawn_blocking(move || host.load(&path)).await;
            let result = match result {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(format!("the compiler failed: {error}")),
            };
            loaded.insert(file.clone(), result);
        }
        match loaded.get(&file) {
            Some(Ok(plugin)) => Ok((file, plugin.clone())),
            Some(Err(message)) => {
                Err(Diagnostic::in_config(config, stage.plugin_place.clone(), message.clone()).into())
            }
            None => Err(Diagnostic::in_config(config, stage.plugin_place.clone(), "the plugin was not loaded").into()),
        }
    }

    /// A file in the state folder.
    fn default_dead_letter(&self, config: &PipelineConfig, state: &Path) -> Result<SinkStage, Diagnostics> {
        let path = state.join("dead-letters").join(format!("{}.jsonl", config.name));
        let missing = |message: String| {
            let problem = Diagnostic::of_file(&config.path, message);
            Diagnostics::from(
                problem.help("name a sink for them in [errors.dead_letter], or set on_error to skip or stop"),
            )
        };
        let Some(kind) = self.registry.find_sink("file") else {
            return Err(missing(
                "there is no place for dead letters: this acequia was built without the `file` sink".to_owned(),
            ));
        };
        let path = std::path::absolute(&path).unwrap_or(path);
        let table = toml::Value::from(toml::Table::from_iter([(
            "path".to_owned(),
            toml::Value::from(path.to_string_lossy().into_owned()),
        )]));
        let spec = toml::de::ValueDeserializer::parse(&table.to_string()).and_then(|table| kind.parse(table));
        let spec = spec.map_err(|error| missing(format!("there is no place for dead letters: {error}")))?;
        Ok(SinkStage { id: DEAD_LETTERS.to_owned(), spec, place: 0..0, hash: format!("default {}", path.display()) })
    }
}

/// Start every plugin once for the rows that the stage before it makes: does it take its configuration, and do the
/// columns fit? Returns what is known of the last one's output, and their plans.
async fn plan(
    config: &PipelineConfig,
    factories: &[Arc<PluginFactory>],
) -> Result<(RowSchema, Vec<Plan>), Diagnostics> {
    let mut schema = config.source.spec.schema();
    let mut plans = Vec::with_capacity(factories.len());
    for factory in factories {
        match factory.begin(&schema, None).await {
            Ok(transform) => {
                schema = transform.schema().clone();
                plans.push(transform.plan().clone());
            }
            Err(error) => return Err(explain(config, &factory.stage, &error).into()),
        }
    }
    Ok((schema, plans))
}

/// A plugin's error, at the key that it is about.
fn explain(config: &PipelineConfig, stage: &TransformStage, error: &PluginError) -> Diagnostic {
    // A plugin names the key or the column at fault in backquotes, as a rule: then the caret goes there, or to the key that
    // names the column. What is named first is at fault; what could be used instead comes after it.
    let said = |name: &str| error.message.find(&format!("`{name}`"));
    let by_key = stage.config_places.iter().filter_map(|(key, place)| Some((said(key)?, place)));
    let by_text = stage.config_places.iter().filter_map(|(key, place)| {
        let first = texts_at(&stage.config, key).into_iter().filter_map(said).min();
        Some((first?, place))
    });
    let named = by_key.min_by_key(|(at, _)| *at).or_else(|| by_text.min_by_key(|(at, _)| *at));
    let place = match error.kind {
        PluginErrorKind::File => stage.plugin_place.clone(),
        PluginErrorKind::Configure | PluginErrorKind::Plan => {
            named.map_or(stage.place.clone(), |(_, place)| place.clone())
        }
        PluginErrorKind::Grant | PluginErrorKind::Start | PluginErrorKind::Restore => stage.place.clone(),
    };
    Diagnostic::in_config(config, place, format!("transform `{}`: {}", stage.id, error.message))
}

/// The text of a dotted key in a `config` table, or the texts of its list.
fn texts_at<'a>(config: &'a Value, key: &str) -> Vec<&'a str> {
    let value = key.split('.').try_fold(config, |value, part| value.get(part));
    match value {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Does every sink find the columns that it names?
fn check_sinks(config: &PipelineConfig, output: &RowSchema) -> Result<(), Diagnostics> {
    let mut problems = Diagnostics::default();
    let letters = dead_letter_schema();
    let sinks = config.sinks.iter().map(|sink| (sink, output));
    for (sink, schema) in sinks.chain(config.errors.dead_letter.iter().map(|sink| (sink, &letters))) {
        for column in sink.spec.reads().unwrap_or_default() {
            if schema.open || schema.field(&column).is_some() {
                continue;
            }
            let names = || schema.fields.iter().map(|field| field.name.as_str());
            let message = format!("sink `{}` reads column `{column}`, which no stage before it provides", sink.id);
            let mut problem = Diagnostic::in_config(config, sink.place.clone(), message);
            if let Some(name) = nearest(&column, names()) {
                problem = problem.help(format!("did you mean `{name}`?"));
            }
            problems.0.push(problem.help(format!("columns there are: {}", names().collect::<Vec<_>>().join(", "))));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A compiled plugin and one `[[transform]]` table.
struct PluginFactory {
    pipeline: String,
    base: PathBuf,
    stage: TransformStage,
    plugin: Arc<Plugin>,
}

impl PluginFactory {
    async fn begin(&self, input: &RowSchema, snapshot: Option<&[u8]>) -> Result<PluginTransform, PluginError> {
        let options = StartOptions {
            pipeline: &self.pipeline,
            stage: &self.stage.id,
            config: &self.stage.config,
            limits: self.stage.limits,
            grants: &self.stage.grants,
            base: &self.base,
            input,
            snapshot,
        };
        self.plugin.start(options).await
    }
}

#[async_trait]
impl TransformFactory for PluginFactory {
    fn id(&self) -> &str {
        &self.stage.id
    }

    async fn start(&self, input: &RowSchema, snapshot: Option<&[u8]>) -> Result<Box<dyn Transform>, TransformError> {
        match self.begin(input, snapshot).await {
            Ok(transform) => Ok(Box::new(transform)),
            Err(error) => Err(TransformError { message: error.to_string(), state_lost: false }),
        }
    }
}
