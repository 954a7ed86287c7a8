//! Sources and sinks, seen alike by what parses their tables.

use std::sync::Arc;

use acequia_connector_api::{CheckError, ConnectorInfo, Registry, SinkSpec, SourceSpec};
use toml::de::{Error, ValueDeserializer};

use super::shape::Shape;

/// One of the two sides of a pipeline.
pub(super) trait Kind {
    /// The resolved connector.
    type Spec: ?Sized;
    /// `source` or `sink`.
    const NOUN: &'static str;
    /// The other one.
    const OTHER: &'static str;

    /// Every connector of this side.
    fn known(registry: &Registry) -> Vec<ConnectorInfo>;
    /// Whether the other side has one of this name.
    fn is_other(registry: &Registry, name: &str) -> bool;
    /// Parse the table of the connector of that name, which exists.
    fn parse(registry: &Registry, name: &str, table: ValueDeserializer<'_>) -> Option<Result<Arc<Self::Spec>, Error>>;
    /// The schema of its table.
    fn shape(registry: &Registry, name: &str) -> Option<Shape>;
    /// Check what was parsed.
    fn check(spec: &Self::Spec) -> Result<(), CheckError>;
}

/// `[source]`.
pub(super) enum SourceKind {}

/// `[[sink]]` and `[errors.dead_letter]`.
pub(super) enum SinkKind {}

impl Kind for SourceKind {
    type Spec = dyn SourceSpec;
    const NOUN: &'static str = "source";
    const OTHER: &'static str = "sink";

    fn known(registry: &Registry) -> Vec<ConnectorInfo> {
        registry.sources().map(|kind| kind.info()).collect()
    }

    fn is_other(registry: &Registry, name: &str) -> bool {
        registry.find_sink(name).is_some()
    }

    fn parse(registry: &Registry, name: &str, table: ValueDeserializer<'_>) -> Option<Result<Arc<Self::Spec>, Error>> {
        registry.find_source(name).map(|kind| kind.parse(table))
    }

    fn shape(registry: &Registry, name: &str) -> Option<Shape> {
        let kind = registry.find_source(name)?;
        Some(Shape::from(|generator| kind.json_schema(generator)))
    }

    fn check(spec: &Self::Spec) -> Result<(), CheckError> {
        spec.check()
    }
}

impl Kind for SinkKind {
    type Spec = dyn SinkSpec;
    const NOUN: &'static str = "sink";
    const OTHER: &'static str = "source";

    fn known(registry: &Registry) -> Vec<ConnectorInfo> {
        registry.sinks().map(|kind| kind.info()).collect()
    }

    fn is_other(registry: &Registry, name: &str) -> bool {
        registry.find_source(name).is_some()
    }

    fn parse(registry: &Registry, name: &str, table: ValueDeserializer<'_>) -> Option<Result<Arc<Self::Spec>, Error>> {
        registry.find_sink(name).map(|kind| kind.parse(table))
    }

    fn shape(registry: &Registry, name: &str) -> Option<Shape> {
        let kind = registry.find_sink(name)?;
        Some(Shape::from(|generator| kind.json_schema(generator)))
    }

    fn check(spec: &Self::Spec) -> Result<(), CheckError> {
        spec.check()
    }
}
