//! How to reach the brokers: the keys that source and sink share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use acequia_connector_api::{CheckError, ConnectorError, Context, Secret};
use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;

/// TLS towards the brokers. An empty table turns it on with the machine's own certificates.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// File with the certificates that the brokers' are checked against (PEM), in place of the machine's own.
    pub ca: Option<PathBuf>,
    /// File with the client's own certificate (PEM), where the brokers ask for one.
    pub certificate: Option<PathBuf>,
    /// File with the key of `certificate` (PEM).
    pub key: Option<PathBuf>,
    /// The password of `key`.
    pub key_password: Option<Secret>,
    /// Whether the brokers' certificates and names are checked. Turn it off for tests only.
    pub verify: Option<bool>,
}

/// A user at the brokers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is proved.
    #[serde(default)]
    pub mechanism: Mechanism,
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How a user proves the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// As it is; only sensible with TLS.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge and response, SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge and response, SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A value of one of librdkafka's own properties: text, a number or a truth value.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Property {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Anything else.
    Text(String),
}

impl std::fmt::Display for Property {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Property::Boolean(value) => value.fmt(formatter),
            Property::Integer(value) => value.fmt(formatter),
            Property::Float(value) => value.fmt(formatter),
            Property::Text(value) => value.fmt(formatter),
        }
    }
}

/// librdkafka's own properties by name; they override everything that is set elsewhere.
pub type Properties = BTreeMap<String, Property>;

/// The shared keys of one configuration.
pub(crate) struct Client<'a> {
    pub(crate) brokers: &'a [String],
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) sasl: Option<&'a Sasl>,
    pub(crate) properties: &'a Properties,
}

impl Client<'_> {
    /// See [`acequia_connector_api::SourceConfig::files`].
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls.into_iter().flat_map(|tls| {
            let password = tls.key_password.as_ref().and_then(Secret::file);
            [tls.ca.as_deref(), tls.certificate.as_deref(), tls.key.as_deref(), password]
        });
        let password = self.sasl.and_then(|sasl| sasl.password.file());
        tls.chain([password]).flatten().map(Path::to_owned).collect()
    }

    /// Are the keys right in themselves? `kept` are properties that the connector must set itself, each with the reason.
    pub(crate) fn check(&self, kept: &[(&str, &str)]) -> Result<(), CheckError> {
        if self.brokers.is_empty() {
            return Err(CheckError::new("brokers", "at least one broker is needed, such as [\"127.0.0.1:9092\"]"));
        }
        for broker in self.brokers {
            check_broker(broker).map_err(|message| CheckError::new("brokers", message))?;
        }
        if let Some(tls) = self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            return Err(CheckError::new("tls", "`certificate` and `key` go together: give both or none"));
        }
        if self.sasl.is_some_and(|sasl| sasl.username.is_empty()) {
            return Err(CheckError::new("sasl.username", "the user's name is empty"));
        }
        for name in self.properties.keys() {
            if let Some((_, reason)) = kept.iter().find(|(kept, _)| kept == name) {
                return Err(CheckError::new("properties", format!("`{name}` can't be set here: {reason}")));
            }
        }
        Ok(())
    }

    /// librdkafka's configuration, with `defaults` of the connector under what the user gave.
    pub(crate) fn config(&self, context: &Context, defaults: &[(&str, &str)]) -> Result<ClientConfig, ConnectorError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", format!("acequia-{}", context.pipeline));
        let protocol = match (self.tls, self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = self.tls {
            let mut file = |property: &str, path: &Option<PathBuf>| {
                if let Some(path) = path {
                    config.set(property, context.path(path).display().to_string());
                }
            };
            file("ssl.ca.location", &tls.ca);
            file("ssl.certificate.location", &tls.certificate);
            file("ssl.key.location", &tls.key);
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password.resolve(context)?.expose());
            }
            if tls.verify == Some(false) {
                config.set("enable.ssl.certificate.verification", "false");
                config.set("ssl.endpoint.identification.algorithm", "none");
            }
        }
        if let Some(sasl) = self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.name());
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", sasl.password.resolve(context)?.expose());
        }
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in self.properties {
            config.set(name, value.to_string());
        }
        Ok(config)
    }
}

/// `host:port`, where an IPv6 host is in brackets.
fn check_broker(broker: &str) -> Result<(), String> {
    let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("`{broker}` is not a host and a port, such as 127.0.0.1:9092"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn a_broker_has_a_host_and_a_port() {
        for good in ["localhost:9092", "10.0.0.1:1", "[::1]:9092", "kafka.example.org:65535"] {
            assert_eq!(check_broker(good), Ok(()));
        }
        for bad in ["localhost", "localhost:", ":9092", "localhost:0", "localhost:65536", "::1:9092", ""] {
            assert!(check_broker(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn properties_override_and_some_are_kept() {
        let properties = Properties::from([
            ("linger.ms".to_owned(), Property::Integer(7)),
            ("enable.auto.commit".to_owned(), Property::Boolean(true)),
        ]);
        let brokers = ["127.0.0.1:9092".to_owned()];
        let client = Client { brokers: &brokers, tls: None, sasl: None, properties: &properties };
        let error = client.check(&[("enable.auto.commit", "offsets are committed by checkpoints")]).unwrap_err();
        assert!(error.message.contains("enable.auto.commit") && error.message.contains("checkpoints"), "{error}");
        assert!(client.check(&[]).is_ok());
    }
}
