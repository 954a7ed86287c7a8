//! Values that must not be seen.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{ConnectorError, Context};

/// A secret as it stands in a configuration: `{ env = "NAME" }`, `{ file = "/run/credentials/..." }`, or the text itself.
/// It is read when a connector is opened, never before, and never printed.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Secret {
    /// Taken from an environment variable.
    Env(EnvSecret),
    /// Taken from a file, such as a systemd credential; one line break at the end is not part of it.
    File(FileSecret),
    /// The text itself.
    Text(String),
}

/// A secret in an environment variable.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvSecret {
    /// Name of the variable.
    pub env: String,
}

/// A secret in a file.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSecret {
    /// Path of the file.
    pub file: PathBuf,
}

impl Secret {
    /// The file that it is in, if it is in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Secret::File(FileSecret { file }) => Some(file),
            Secret::Env(_) | Secret::Text(_) => None,
        }
    }

    /// Read it.
    ///
    /// # Errors
    /// If the variable is not set or the file can't be read; the message names which.
    pub fn resolve(&self, context: &Context) -> Result<ResolvedSecret, ConnectorError> {
        match self {
            Secret::Text(text) => Ok(ResolvedSecret(text.clone())),
            Secret::Env(EnvSecret { env }) => std::env::var(env).map(ResolvedSecret).map_err(|error| {
                ConnectorError::failed(format!("the secret's environment variable `{env}` can't be read"))
                    .because(error)
            }),
            Secret::File(FileSecret { file }) => {
                let path = context.path(file);
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    ConnectorError::failed(format!("the secret's file {} can't be read", path.display())).because(error)
                })?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Ok(ResolvedSecret(text.strip_suffix('\r').unwrap_or(text).to_owned()))
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Env(EnvSecret { env }) => write!(formatter, "Secret(env {env})"),
            Secret::File(FileSecret { file }) => write!(formatter, "Secret(file {})", file.display()),
            Secret::Text(_) => formatter.write_str("Secret(***)"),
        }
    }
}

/// A secret that has been read. `Debug` hides it; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ResolvedSecret(String);

impl ResolvedSecret {
    /// The text, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ResolvedSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    struct Config {
        token: Secret,
    }

    #[test]
    fn is_never_printed() {
        let config: Config = toml::from_str("token = \"hunter2\"").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let context = Context {
            pipeline: "p".into(),
            stage: "sink".into(),
            base: PathBuf::new(),
            batch: crate::BatchLimits::default(),
            tasks: 1,
            reads: None,
            share: Default::default(),
        };
        let resolved = config.token.resolve(&context).unwrap();
        assert_eq!(resolved.expose(), "hunter2");
        assert!(!format!("{resolved:?}").contains("hunter2"));
    }

    #[test]
    fn a_missing_variable_is_named() {
        let config: Config = toml::from_str("token = { env = \"ACEQUIA_NO_SUCH_VARIABLE\" }").unwrap();
        let context = Context {
            pipeline: "p".into(),
            stage: "sink".into(),
            base: PathBuf::new(),
            batch: crate::BatchLimits::default(),
            tasks: 1,
            reads: None,
            share: Default::default(),
        };
        let error = config.token.resolve(&context).unwrap_err();
        assert!(error.to_string().contains("ACEQUIA_NO_SUCH_VARIABLE"));
    }
}
