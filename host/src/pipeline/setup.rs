//! Everything that a run of a pipeline is made from.

use std::path::PathBuf;
use std::sync::Arc;

use acequia_connector_api::{Context, RowSchema, Share};
use async_trait::async_trait;

use super::status::Connectors;
use super::transform::{Transform, TransformError};
use crate::config::model::{DeliveryConfig, OnError, SinkStage, SourceStage};

/// Makes a transform: a plugin that is compiled, with its configuration. Known by the id under which its state is kept.
#[async_trait]
pub trait TransformFactory: Send + Sync {
    /// The stage's id.
    fn id(&self) -> &str;

    /// Start an instance for rows of that schema, with the state of an older one.
    ///
    /// # Errors
    /// If the guest refuses its configuration or the snapshot, or breaks the contract.
    async fn start(&self, input: &RowSchema, snapshot: Option<&[u8]>) -> Result<Box<dyn Transform>, TransformError>;
}

/// What of its rows a source has to make columns of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// The columns that transforms and sinks read, in order of their names.
    pub columns: Vec<String>,
    /// Nothing changes the rows on their way to the sinks, and one of these writes them as they were read.
    pub unchanged: bool,
}

impl Projection {
    /// Whether rows that were read for `running` are also good for `new`. `None` is every column.
    pub fn covers(running: Option<&Projection>, new: Option<&Projection>) -> bool {
        match (running, new) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(running), Some(new)) => {
                running.unchanged == new.unchanged && new.columns.iter().all(|column| running.columns.contains(column))
            }
        }
    }
}

/// Everything that a run of a pipeline is made from. Immutable; a reload makes a new one.
#[derive(Clone)]
pub struct Setup {
    /// The pipeline's name.
    pub name: String,
    /// The folder that relative paths start from.
    pub base: PathBuf,
    /// Hash of the configuration and every plugin: what status calls the running version.
    pub hash: String,
    /// The source.
    pub source: SourceStage,
    /// What is read behind the source, where that is known and the source can do with less.
    pub projection: Option<Projection>,
    /// The transforms.
    pub transforms: Vec<Arc<dyn TransformFactory>>,
    /// The sinks.
    pub sinks: Vec<SinkStage>,
    /// What happens to rows that fail.
    pub on_error: OnError,
    /// Where dead letters go; `None` unless `on_error` is `dead_letter`.
    pub dead_letter: Option<SinkStage>,
    /// Checkpoints and batches.
    pub delivery: DeliveryConfig,
    /// What its tasks may take of the cores.
    pub share: Share,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Setup").field("name", &self.name).field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Setup {
    /// The ids of all stages in order of flow: `source`, the transforms', `sink FILE`..., `dead letters`.
    pub fn stage_ids(&self) -> Vec<String> {
        let mut ids = vec!["source".to_owned()];
        ids.extend(self.transforms.iter().map(|transform| transform.id().to_owned()));
        ids.extend(self.sinks.iter().map(|sink| sink.id.clone()));
        ids.extend(self.dead_letter.iter().map(|sink| sink.id.clone()));
        ids
    }

    /// The connectors that it reads from and writes to.
    pub fn connectors(&self) -> Connectors {
        Connectors {
            source: self.source.spec.type_name().to_owned(),
            sinks: self.sinks.iter().map(|sink| sink.spec.type_name().to_owned()).collect(),
        }
    }

    /// What a connector of this pipeline is told.
    pub fn context(&self, stage: &str) -> Context {
        Context {
            pipeline: self.name.clone(),
            stage: stage.to_owned(),
            base: self.base.clone(),
            batch: self.delivery.batch,
            tasks: self.delivery.tasks,
            reads: self.projection.as_ref().map(|projection| projection.columns.clone()),
            share: self.share.clone(),
        }
    }
}
