//! The configuration: TOML files to resolved pipelines, and everything that can be wrong on the way.
//!
//! Three stages: the **text** is parsed into a tree of values with places; variables are put in; the tree is **resolved**
//! into a [`PipelineConfig`] by the types of the connectors. Nothing is opened, and no secret is read.

mod diagnostic;
mod discover;
mod env;
mod file;
mod kind;
mod mask;
pub mod model;
mod nearest;
mod parse;
pub mod plugins;
mod recover;
mod reference;
mod schema;
mod shape;
mod syntax;
mod tree;

#[cfg(test)]
pub(crate) mod test_connectors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use acequia_connector_api::{Context, Registry};

pub use diagnostic::{Diagnostic, Diagnostics, Place, SourceText};
pub use discover::{ConfigFile, Discovery, discover};
pub use env::Env;
pub use model::{
    DeliveryConfig, DirectoryGrant, ErrorsConfig, Grants, Limits, OnError, PipelineConfig, SinkStage, SourceStage,
    TransformStage,
};
pub use nearest::nearest;
pub use parse::{parse, pipeline_name};
pub use reference::{example, reference_markdown};
pub use schema::schema_json;

/// A pipeline's file is never larger, so that a mistake (a data file that ends in `.toml`) doesn't fill the memory.
const LARGEST_FILE: u64 = 4 << 20;

/// Read and check a pipeline's file.
///
/// # Errors
/// Everything that is wrong with it, with places.
pub fn load(path: &Path, registry: &Registry, env: &Env) -> Result<PipelineConfig, Diagnostics> {
    let text = read(path)?;
    parse(&text, path, registry, env)
}

/// Read the text of a pipeline's file.
///
/// # Errors
/// If it can't be read, is too large or is not UTF-8.
pub fn read(path: &Path) -> Result<String, Diagnostics> {
    let unreadable = |error: std::io::Error| Diagnostic::of_file(path, format!("the file can't be read: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let message = format!("the file is larger than {} MiB: is it a pipeline?", LARGEST_FILE >> 20);
        return Err(Diagnostic::of_file(path, message).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        // Up to there nothing was replaced, so the place is the same; then comes U+FFFD, three bytes.
        let source = SourceText::new(path, &text);
        source.at(at..at + 3, "the file is not valid UTF-8").label("these bytes are no character").into()
    })
}

impl PipelineConfig {
    /// The folder that relative paths in it start from.
    pub fn base(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// What a connector of this pipeline is told when it is opened.
    pub fn context(&self, stage: impl Into<String>) -> Context {
        Context {
            pipeline: self.name.clone(),
            stage: stage.into(),
            base: self.base(),
            batch: self.delivery.batch,
            tasks: self.delivery.tasks,
            reads: None,
            share: Default::default(),
        }
    }

    /// What only one pipeline can have at a time, and the table that wants it.
    pub fn exclusive(&self) -> Vec<(String, Range<usize>)> {
        let source = self.source.spec.exclusive().into_iter().map(|what| (what, self.source.place.clone()));
        let sinks = self.sinks.iter().chain(&self.errors.dead_letter);
        let sinks = sinks.flat_map(|sink| {
            let wanted = sink.spec.exclusive(&self.context(sink.id.clone()));
            wanted.into_iter().map(|what| (what, sink.place.clone()))
        });
        source.chain(sinks).collect()
    }
}

/// Where two stages want what only one can have (a port to listen on, a file to write): one diagnostic for each but the
/// first, with the configuration that it is about.
pub fn conflicts<'a>(configs: &[&'a PipelineConfig]) -> Vec<(&'a PipelineConfig, Diagnostic)> {
    let mut owners: BTreeMap<String, &PipelineConfig> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for &config in configs {
        for (what, place) in config.exclusive() {
            match owners.get(&what) {
                None => {
                    owners.insert(what, config);
                }
                Some(owner) => {
                    let by = if std::ptr::eq(*owner, config) {
                        "another table of this file".to_owned()
                    } else {
                        format!("the pipeline `{}` ({})", owner.name, owner.path.display())
                    };
                    let diagnostic = Diagnostic::in_config(config, place, format!("`{what}` is taken"))
                        .label(format!("{by} has it already"));
                    diagnostics.push((config, diagnostic));
                }
            }
        }
    }
    diagnostics
}
