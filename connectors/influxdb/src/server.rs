//! How to reach the server: the keys that source and sink share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use acequia_connector_api::{CheckError, ConnectorError, Context, Secret, Span, base64};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Identity, Proxy, Url};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::ini::Ini;

/// How long a request may take, unless `timeout` says otherwise. It is what InfluxDB's own clients have.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// TLS towards the server, for a URL with `https`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// File with the certificates that the server's is checked against (PEM), beside the machine's own.
    pub ca: Option<PathBuf>,
    /// File with the client's own certificate (PEM), where the server asks for one.
    pub certificate: Option<PathBuf>,
    /// File with the key of `certificate` (PEM, PKCS #8, not encrypted).
    pub key: Option<PathBuf>,
    /// Whether the server's certificate and name are checked. Turn it off for tests only.
    pub verify: Option<bool>,
}

/// The shared keys of one configuration.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) url: Option<&'a str>,
    pub(crate) org: Option<&'a str>,
    pub(crate) token: Option<&'a Secret>,
    pub(crate) config: Option<&'a Path>,
    pub(crate) timeout: Option<Span>,
    pub(crate) tls: Option<&'a Tls>,
}

/// A server that requests can be sent to.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    http: reqwest::Client,
    /// Without a slash at the end.
    url: String,
    pub(crate) org: String,
}

impl Keys<'_> {
    /// See [`acequia_connector_api::SourceConfig::files`].
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let tls = self.tls.into_iter().flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key]).flatten();
        let others = [self.token.and_then(Secret::file), self.config].into_iter().flatten().map(Path::to_owned);
        tls.cloned().chain(others).collect()
    }

    /// Are the keys right in themselves?
    pub(crate) fn check(&self) -> Result<(), CheckError> {
        if self.config.is_none() {
            for (key, given) in
                [("url", self.url.is_some()), ("org", self.org.is_some()), ("token", self.token.is_some())]
            {
                if !given {
                    return Err(CheckError::new(
                        "",
                        format!(
                            "`{key}` is missing: give `url`, `org` and `token`, or `config = \"influxdb.ini\"` that has them"
                        ),
                    ));
                }
            }
        }
        if let Some(url) = self.url {
            parse_url(url).map_err(|message| CheckError::new("url", message))?;
        }
        if self.org == Some("") {
            return Err(CheckError::new("org", "the organization's name is empty"));
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(CheckError::new("timeout", "must be above 0"));
        }
        if let Some(tls) = self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            return Err(CheckError::new("tls", "`certificate` and `key` go together: give both or none"));
        }
        Ok(())
    }

    /// The file of `config`, or an empty one.
    pub(crate) fn ini(&self, context: &Context) -> Result<Ini, ConnectorError> {
        self.config.map_or_else(|| Ok(Ini::default()), |path| Ini::read(&context.path(path)))
    }

    /// A client for these keys; those of the file count where a key is not given. No request is sent.
    pub(crate) fn server(&self, ini: &Ini, context: &Context) -> Result<Server, ConnectorError> {
        let missing =
            |key: &str| ConnectorError::failed(format!("`{key}` is missing, and the file of `config` has none"));
        let url = self.url.or(ini.get("url")).ok_or_else(|| missing("url"))?;
        let url = parse_url(url).map_err(|message| ConnectorError::failed(format!("`url`: {message}")))?;
        let org = self.org.or(ini.get("org")).ok_or_else(|| missing("org"))?.to_owned();
        let token = match self.token {
            Some(token) => token.resolve(context)?.expose().to_owned(),
            None => ini.get("token").ok_or_else(|| missing("token"))?.to_owned(),
        };
        let from_file = match ini.get("timeout") {
            Some(text) => Some(text.parse().map(Duration::from_millis).map_err(|_| {
                ConnectorError::failed("`timeout` in the file of `config` is not a whole number of milliseconds")
            })?),
            None => None,
        };
        let timeout = self.timeout.map(|timeout| timeout.0).or(from_file).unwrap_or(TIMEOUT);
        let basic = ini.flag("auth_basic") == Some(true) && self.token.is_none();
        let credentials = if basic {
            format!("Basic {}", base64(token.trim().as_bytes()))
        } else {
            format!("Token {}", token.trim())
        };
        let mut credentials = HeaderValue::try_from(credentials)
            .map_err(|_| ConnectorError::failed("`token` has a character that no token has, such as a line break"))?;
        credentials.set_sensitive(true);
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("acequia/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, credentials)]))
            .connect_timeout(timeout.min(CONNECT))
            .read_timeout(timeout)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(proxy) = ini.get("proxy") {
            let proxy =
                Proxy::all(proxy).map_err(|error| ConnectorError::failed("`proxy` is not a URL").because(error))?;
            http = http.proxy(proxy);
        }
        let http = self.tls(http, ini, context)?;
        let http = http.build().map_err(|error| ConnectorError::failed("TLS can't be set up").because(error))?;
        Ok(Server { http, url, org })
    }

    fn tls(
        &self,
        mut http: reqwest::ClientBuilder,
        ini: &Ini,
        context: &Context,
    ) -> Result<reqwest::ClientBuilder, ConnectorError> {
        let given = self.tls.cloned().unwrap_or_default();
        let path = |given: Option<PathBuf>, key: &str| {
            let path = given.or_else(|| ini.get(key).map(PathBuf::from))?;
            Some(context.path(path))
        };
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                ConnectorError::failed(format!("the file {} can't be read", path.display())).because(error)
            })
        };
        if given.verify.or(ini.flag("verify_ssl")) == Some(false) {
            http = http.tls_danger_accept_invalid_certs(true);
        }
        if let Some(path) = path(given.ca, "ssl_ca_cert") {
            let certificates = Certificate::from_pem_bundle(&read(&path)?).map_err(|error| {
                ConnectorError::failed(format!("{} has no certificates in PEM", path.display())).because(error)
            })?;
            http = http.tls_certs_merge(certificates);
        }
        if let (Some(certificate), Some(key)) = (path(given.certificate, "cert_file"), path(given.key, "cert_key_file"))
        {
            let identity = Identity::from_pkcs8_pem(&read(&certificate)?, &read(&key)?).map_err(|error| {
                ConnectorError::failed(format!(
                    "{} and {} are not a certificate and its key in PEM (PKCS #8, not encrypted)",
                    certificate.display(),
                    key.display()
                ))
                .because(error)
            })?;
            http = http.identity(identity);
        }
        Ok(http)
    }
}

impl Server {
    /// A request to one of the server's paths, with the organization.
    pub(crate) fn post(&self, path: &str, query: &[(&str, &str)]) -> Result<reqwest::RequestBuilder, ConnectorError> {
        let mut url = Url::parse(&format!("{}{path}", self.url))
            .map_err(|error| ConnectorError::failed(format!("`{}` is not a URL", self.url)).because(error))?;
        url.query_pairs_mut().append_pair("org", &self.org).extend_pairs(query);
        Ok(self.http.post(url))
    }

    /// The server could not be asked, or did not answer.
    pub(crate) fn unreachable(&self, error: reqwest::Error) -> ConnectorError {
        let what = if error.is_timeout() { "does not answer in time" } else { "can't be reached" };
        ConnectorError::retryable(format!("InfluxDB at {} {what}", self.url)).because(error.without_url())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// The URL without a slash at the end, if it can be the server's.
fn parse_url(text: &str) -> Result<String, String> {
    let wanted = "such as http://127.0.0.1:8086 or https://example.org/influx";
    let url = Url::parse(text).map_err(|error| format!("`{text}` is not a URL ({error}), {wanted}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("`{text}` does not begin with http:// or https:// and a host, {wanted}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or password in the URL is not taken; give `token`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` has a query; give the server's own URL, {wanted}"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_is_kept() {
        assert_eq!(parse_url("http://localhost:8086/").unwrap(), "http://localhost:8086");
        assert_eq!(parse_url("https://example.org/influx/").unwrap(), "https://example.org/influx");
        for bad in ["localhost:8086", "ftp://x", "http://", "x", "http://a:b@c", "http://a/?org=x"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
        let context = Context {
            pipeline: "p".into(),
            stage: "sink".into(),
            base: PathBuf::new(),
            batch: acequia_connector_api::BatchLimits::default(),
            tasks: 1,
            reads: None,
            share: Default::default(),
        };
        let token = Secret::Text("hunter2".into());
        let keys = Keys {
            url: Some("https://example.org/influx/"),
            org: Some("my org"),
            token: Some(&token),
            config: None,
            timeout: None,
            tls: None,
        };
        let server = keys.server(&Ini::default(), &context).unwrap();
        let request = server.post("/api/v2/write", &[("bucket", "a&b")]).unwrap().build().unwrap();
        assert_eq!(request.url().as_str(), "https://example.org/influx/api/v2/write?org=my+org&bucket=a%26b");
        assert!(!format!("{server:?} {request:?}").contains("hunter2"));
    }
}
