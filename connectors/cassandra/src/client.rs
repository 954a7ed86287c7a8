//! How to reach the cluster: the keys that source and sink share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use acequia_connector_api::{CheckError, ConnectorError, Context, Secret};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use schemars::JsonSchema;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::{Session, TlsContext};
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::Consistency as DriverConsistency;
use serde::Deserialize;

use crate::errors;

/// The least time that opening waits for a node.
const CONNECT: Duration = Duration::from_secs(5);

/// How soon a change of the table is seen: the driver looks at the schema at this interval only.
const REFRESH: Duration = Duration::from_secs(5);

/// TLS towards the nodes. An empty table turns it on with the machine's own certificates.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// File with the certificates that the nodes' are checked against (PEM), in place of the machine's own.
    pub ca: Option<PathBuf>,
    /// File with the client's own certificate (PEM), where the nodes ask for one.
    pub certificate: Option<PathBuf>,
    /// File with the key of `certificate` (PEM).
    pub key: Option<PathBuf>,
    /// Whether the nodes' certificates are checked. Turn it off for tests only.
    pub verify: Option<bool>,
}

/// How many replicas must confirm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Consistency {
    /// One, or a hint (writes only).
    Any,
    /// One.
    One,
    /// Two.
    Two,
    /// Three.
    Three,
    /// Most of them.
    Quorum,
    /// All of them.
    All,
    /// Most of those in the nearest datacenter.
    #[default]
    LocalQuorum,
    /// Most of those in each datacenter (writes only).
    EachQuorum,
    /// One in the nearest datacenter.
    LocalOne,
}

impl Consistency {
    fn driver(self) -> DriverConsistency {
        match self {
            Consistency::Any => DriverConsistency::Any,
            Consistency::One => DriverConsistency::One,
            Consistency::Two => DriverConsistency::Two,
            Consistency::Three => DriverConsistency::Three,
            Consistency::Quorum => DriverConsistency::Quorum,
            Consistency::All => DriverConsistency::All,
            Consistency::LocalQuorum => DriverConsistency::LocalQuorum,
            Consistency::EachQuorum => DriverConsistency::EachQuorum,
            Consistency::LocalOne => DriverConsistency::LocalOne,
        }
    }
}

/// The shared keys of one configuration.
pub(crate) struct Client<'a> {
    pub(crate) nodes: &'a [String],
    pub(crate) keyspace: &'a str,
    pub(crate) table: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a Secret>,
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) datacenter: Option<&'a str>,
    pub(crate) consistency: Consistency,
    pub(crate) request_timeout: Duration,
}

impl Client<'_> {
    /// See [`acequia_connector_api::SourceConfig::files`].
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls.into_iter().flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key]);
        let password = self.password.and_then(Secret::file).map(Path::to_owned);
        tls.flatten().cloned().chain(password).collect()
    }

    /// Are the keys right in themselves?
    pub(crate) fn check(&self) -> Result<(), CheckError> {
        if self.nodes.is_empty() {
            return Err(CheckError::new("nodes", "at least one node is needed, such as [\"127.0.0.1:9042\"]"));
        }
        for node in self.nodes {
            check_node(node).map_err(|message| CheckError::new("nodes", message))?;
        }
        for (key, name) in [("keyspace", self.keyspace), ("table", self.table)] {
            if name.is_empty() {
                return Err(CheckError::new(key, format!("the {key}'s name is empty")));
            }
        }
        if let Some((keyspace, table)) = self.table.split_once('.') {
            let message = format!("write `keyspace = \"{keyspace}\"` and `table = \"{table}\"`");
            return Err(CheckError::new("table", message));
        }
        match (self.username, self.password) {
            (Some(_), None) => return Err(CheckError::new("password", "`username` needs a `password`")),
            (None, Some(_)) => return Err(CheckError::new("username", "`password` needs a `username`")),
            _ => {}
        }
        if self.tls.is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            return Err(CheckError::new("tls", "`certificate` and `key` go together: give both or none"));
        }
        if self.request_timeout.is_zero() {
            return Err(CheckError::new("request_timeout", "must be above 0"));
        }
        Ok(())
    }

    /// Connect. A server that is not there is found out within seconds.
    pub(crate) async fn connect(&self, context: &Context) -> Result<Session, ConnectorError> {
        let mut policy = DefaultPolicy::builder().token_aware(true);
        if let Some(datacenter) = self.datacenter {
            policy = policy.prefer_datacenter(datacenter.to_owned());
        }
        let profile = ExecutionProfile::builder()
            .consistency(self.consistency.driver())
            .request_timeout(Some(self.request_timeout))
            .load_balancing_policy(policy.build())
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(self.nodes)
            .connection_timeout(CONNECT)
            // Only the keyspace in question: a large cluster has many.
            .keyspaces_to_fetch([self.keyspace])
            .cluster_metadata_refresh_interval(REFRESH)
            .default_execution_profile_handle(profile.into_handle());
        if let (Some(username), Some(password)) = (self.username, self.password) {
            builder = builder.user(username, password.resolve(context)?.expose());
        }
        if let Some(tls) = self.tls {
            builder = builder.tls_context(Some(tls_context(tls, context)?));
        }
        let nodes = self.nodes.join(", ");
        match tokio::time::timeout(3 * CONNECT, builder.build()).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(errors::not_connected(&nodes, self.username, error)),
            Err(_) => Err(ConnectorError::retryable(format!(
                "no answer from {nodes} within {} s: is it a Cassandra node's port for CQL, and does it use TLS?",
                3 * CONNECT.as_secs()
            ))),
        }
    }
}

fn tls_context(tls: &Tls, context: &Context) -> Result<TlsContext, ConnectorError> {
    let failed = |what: &str, path: &Option<PathBuf>, error: openssl::error::ErrorStack| {
        let path = path.as_ref().map(|path| format!(" {}", context.path(path).display())).unwrap_or_default();
        ConnectorError::failed(format!("{what}{path} can't be used")).because(error)
    };
    let mut builder =
        SslConnector::builder(SslMethod::tls_client()).map_err(|error| failed("OpenSSL", &None, error))?;
    if let Some(ca) = &tls.ca {
        builder
            .set_ca_file(context.path(ca))
            .map_err(|error| failed("the certificates in `tls.ca`", &tls.ca, error))?;
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        builder
            .set_certificate_chain_file(context.path(certificate))
            .map_err(|error| failed("the certificate in `tls.certificate`", &tls.certificate, error))?;
        builder
            .set_private_key_file(context.path(key), SslFiletype::PEM)
            .map_err(|error| failed("the key in `tls.key`", &tls.key, error))?;
    }
    let verify = if tls.verify == Some(false) { SslVerifyMode::NONE } else { SslVerifyMode::PEER };
    builder.set_verify(verify);
    Ok(builder.into())
}

/// `host` or `host:port`, where an IPv6 host with a port is in brackets.
fn check_node(node: &str) -> Result<(), String> {
    let (host, port) = node.rsplit_once(':').unwrap_or((node, "9042"));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("`{node}` is not a host and a port, such as 127.0.0.1:9042"));
    }
    Ok(())
}

/// The table as the driver knows it now.
pub(crate) fn find_table(
    session: &Session,
    keyspace: &str,
    table: &str,
) -> Result<Option<scylla::cluster::metadata::Table>, String> {
    let state = session.get_cluster_state();
    let near = |names: Vec<&str>, wanted: &str| {
        names
            .iter()
            .find(|name| name.eq_ignore_ascii_case(wanted))
            .map_or(String::new(), |name| format!(" (there is `{name}`; names are case-sensitive here)"))
    };
    let Some(found) = state.get_keyspace(keyspace) else {
        return Err(format!("there is no keyspace `{keyspace}`: create it, or set `create = true` in a sink"));
    };
    if let Some(found) = found.tables.get(table) {
        return Ok(Some(found.clone()));
    }
    let names = found.tables.keys().map(String::as_str).collect::<Vec<_>>();
    let near = near(names, table);
    if near.is_empty() { Ok(None) } else { Err(format!("there is no table `{keyspace}.{table}`{near}")) }
}

/// A session that many requests in flight share.
pub(crate) type Shared = Arc<Session>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_host_and_may_have_a_port() {
        for good in ["localhost:9042", "localhost", "10.0.0.1:1", "[::1]:9042", "cassandra.example.org:65535"] {
            assert_eq!(check_node(good), Ok(()));
        }
        for bad in ["localhost:", ":9042", "localhost:0", "localhost:65536", "::1:9042", ""] {
            assert!(check_node(bad).is_err(), "{bad}");
        }
    }
}
