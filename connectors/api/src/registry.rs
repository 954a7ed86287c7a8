//! The kinds of connector that a host knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;
use toml::de::ValueDeserializer;

use crate::{CheckError, ConnectorError, Context, Position, RowSchema, Sink, SinkConfig, Source, SourceConfig};

/// What is known of a kind of connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectorInfo {
    /// The `type` key that names it.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// A whole example table.
    pub example: &'static str,
}

/// A kind of source.
pub trait SourceType: Send + Sync {
    /// Name, summary, example.
    fn info(&self) -> ConnectorInfo;
    /// JSON Schema of its table, without `type`.
    fn json_schema(&self, generator: &mut SchemaGenerator) -> Schema;
    /// Parse its table, without `type`.
    ///
    /// # Errors
    /// With the place in the file.
    fn parse(&self, table: ValueDeserializer<'_>) -> Result<Arc<dyn SourceSpec>, toml::de::Error>;
}

/// A resolved source: [`SourceConfig`] behind an object.
#[async_trait]
pub trait SourceSpec: Send + Sync + std::fmt::Debug {
    /// See [`SourceConfig::TYPE`].
    fn type_name(&self) -> &'static str;
    /// See [`SourceConfig::check`].
    ///
    /// # Errors
    /// Names the key at fault.
    fn check(&self) -> Result<(), CheckError>;
    /// See [`SourceConfig::schema`].
    fn schema(&self) -> RowSchema;
    /// See [`SourceConfig::exclusive`].
    fn exclusive(&self) -> Vec<String>;
    /// See [`SourceConfig::files`].
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    /// See [`SourceConfig::partitioned`].
    fn partitioned(&self) -> bool;
    /// See [`SourceConfig::projects`].
    fn projects(&self) -> bool {
        false
    }
    /// See [`SourceConfig::finite`].
    fn finite(&self) -> bool;
    /// See [`SourceConfig::open`].
    ///
    /// # Errors
    /// As there.
    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError>;
}

/// A kind of sink.
pub trait SinkType: Send + Sync {
    /// Name, summary, example.
    fn info(&self) -> ConnectorInfo;
    /// JSON Schema of its table, without `type`.
    fn json_schema(&self, generator: &mut SchemaGenerator) -> Schema;
    /// Parse its table, without `type`.
    ///
    /// # Errors
    /// With the place in the file.
    fn parse(&self, table: ValueDeserializer<'_>) -> Result<Arc<dyn SinkSpec>, toml::de::Error>;
}

/// A resolved sink: [`SinkConfig`] behind an object.
#[async_trait]
pub trait SinkSpec: Send + Sync + std::fmt::Debug {
    /// See [`SinkConfig::TYPE`].
    fn type_name(&self) -> &'static str;
    /// See [`SinkConfig::check`].
    ///
    /// # Errors
    /// Names the key at fault.
    fn check(&self) -> Result<(), CheckError>;
    /// See [`SinkConfig::reads`].
    fn reads(&self) -> Option<Vec<String>>;
    /// See [`SinkConfig::reads_beside_record`].
    fn reads_beside_record(&self) -> Option<Vec<String>> {
        None
    }
    /// See [`SinkConfig::two_phase`].
    fn two_phase(&self) -> bool;
    /// See [`SinkConfig::exclusive`].
    fn exclusive(&self, context: &Context) -> Vec<String>;
    /// See [`SinkConfig::files`].
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    /// See [`SinkConfig::open`].
    ///
    /// # Errors
    /// As there.
    async fn open(&self, context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError>;
}

struct Typed<C>(std::marker::PhantomData<fn() -> C>);

impl<C: SourceConfig> SourceType for Typed<C> {
    fn info(&self) -> ConnectorInfo {
        ConnectorInfo { name: C::TYPE, summary: C::SUMMARY, example: C::EXAMPLE }
    }

    fn json_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        C::json_schema(generator)
    }

    fn parse(&self, table: ValueDeserializer<'_>) -> Result<Arc<dyn SourceSpec>, toml::de::Error> {
        Ok(Arc::new(Resolved(C::deserialize(table)?)))
    }
}

/// Sinks have a wrapper of their own, since one struct may be the configuration of both a source and a sink.
struct TypedSink<C>(std::marker::PhantomData<fn() -> C>);

impl<C: SinkConfig> SinkType for TypedSink<C> {
    fn info(&self) -> ConnectorInfo {
        ConnectorInfo { name: C::TYPE, summary: C::SUMMARY, example: C::EXAMPLE }
    }

    fn json_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        C::json_schema(generator)
    }

    fn parse(&self, table: ValueDeserializer<'_>) -> Result<Arc<dyn SinkSpec>, toml::de::Error> {
        Ok(Arc::new(ResolvedSink(C::deserialize(table)?)))
    }
}

#[derive(Debug)]
struct Resolved<C>(C);

#[async_trait]
impl<C: SourceConfig> SourceSpec for Resolved<C> {
    fn type_name(&self) -> &'static str {
        C::TYPE
    }

    fn check(&self) -> Result<(), CheckError> {
        self.0.check()
    }

    fn schema(&self) -> RowSchema {
        self.0.schema()
    }

    fn exclusive(&self) -> Vec<String> {
        self.0.exclusive()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.0.files()
    }

    fn partitioned(&self) -> bool {
        self.0.partitioned()
    }

    fn projects(&self) -> bool {
        self.0.projects()
    }

    fn finite(&self) -> bool {
        self.0.finite()
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        self.0.open(context, position).await
    }
}

#[derive(Debug)]
struct ResolvedSink<C>(C);

#[async_trait]
impl<C: SinkConfig> SinkSpec for ResolvedSink<C> {
    fn type_name(&self) -> &'static str {
        C::TYPE
    }

    fn check(&self) -> Result<(), CheckError> {
        self.0.check()
    }

    fn reads(&self) -> Option<Vec<String>> {
        self.0.reads()
    }

    fn reads_beside_record(&self) -> Option<Vec<String>> {
        self.0.reads_beside_record()
    }

    fn two_phase(&self) -> bool {
        self.0.two_phase()
    }

    fn exclusive(&self, context: &Context) -> Vec<String> {
        self.0.exclusive(context)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.0.files()
    }

    async fn open(&self, context: &Context, state: Option<&Value>) -> Result<Box<dyn Sink>, ConnectorError> {
        self.0.open(context, state).await
    }
}

/// The kinds of connector that a host knows, by name. One function in the host fills it.
#[derive(Default)]
pub struct Registry {
    sources: BTreeMap<&'static str, Box<dyn SourceType>>,
    sinks: BTreeMap<&'static str, Box<dyn SinkType>>,
}

impl Registry {
    /// Add a kind of source.
    pub fn source<C: SourceConfig>(&mut self) -> &mut Self {
        self.sources.insert(C::TYPE, Box::new(Typed::<C>(std::marker::PhantomData)));
        self
    }

    /// Add a kind of sink.
    pub fn sink<C: SinkConfig>(&mut self) -> &mut Self {
        self.sinks.insert(C::TYPE, Box::new(TypedSink::<C>(std::marker::PhantomData)));
        self
    }

    /// The kind of source of that name.
    pub fn find_source(&self, name: &str) -> Option<&dyn SourceType> {
        self.sources.get(name).map(Box::as_ref)
    }

    /// The kind of sink of that name.
    pub fn find_sink(&self, name: &str) -> Option<&dyn SinkType> {
        self.sinks.get(name).map(Box::as_ref)
    }

    /// Every kind of source, by name.
    pub fn sources(&self) -> impl Iterator<Item = &dyn SourceType> {
        self.sources.values().map(Box::as_ref)
    }

    /// Every kind of sink, by name.
    pub fn sinks(&self) -> impl Iterator<Item = &dyn SinkType> {
        self.sinks.values().map(Box::as_ref)
    }
}
