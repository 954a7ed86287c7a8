//! An InfluxDB 2 server, asked over HTTP with curl, which knows TLS too.

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Map, Number, Value, json};

use super::process::Server;
use super::tool::output;
use super::{from_env, unique};

/// An InfluxDB 2 server.
///
/// One that a test started is a [`Server`] that can be stopped, killed and frozen.
#[derive(Debug)]
pub struct InfluxDb {
    server: Option<Server>,
    tls: bool,
    url: String,
    org: String,
    token: String,
}

impl InfluxDb {
    /// That of this test process, or the one of `$ACEQUIA_TEST_INFLUXDB`.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn shared() -> &'static InfluxDb {
        static SHARED: OnceLock<InfluxDb> = OnceLock::new();
        SHARED.get_or_init(|| match from_env("ACEQUIA_TEST_INFLUXDB") {
            Some(url) => {
                let more =
                    |name: &str| from_env(name).unwrap_or_else(|| panic!("ACEQUIA_TEST_INFLUXDB needs {name} too"));
                let [org, token] = ["ACEQUIA_TEST_INFLUXDB_ORG", "ACEQUIA_TEST_INFLUXDB_TOKEN"].map(more);
                InfluxDb { server: None, tls: false, url: url.trim_end_matches('/').to_owned(), org, token }
            }
            None => InfluxDb::start(),
        })
    }

    /// A new one, for a test alone.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start() -> InfluxDb {
        InfluxDb::start_with(false)
    }

    /// A new one that takes nothing but TLS. Its certificate is [`Server::certificate`].
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_tls() -> InfluxDb {
        InfluxDb::start_with(true)
    }

    fn start_with(tls: bool) -> InfluxDb {
        let server = Server::start("influxdb.sh", 1, |ports| {
            let mut arguments = vec![ports[0].to_string()];
            if tls {
                arguments.push("--tls".to_owned());
            }
            arguments
        });
        let url = format!("{}://127.0.0.1:{}", if tls { "https" } else { "http" }, server.port(0));
        InfluxDb { server: Some(server), tls, url, org: "my-org".to_owned(), token: "my-token".to_owned() }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The organisation's name.
    pub fn org(&self) -> &str {
        &self.org
    }

    /// A token that may do everything.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Make a bucket whose name nothing else has, and which keeps everything.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn bucket(&self, prefix: &str) -> String {
        let name = unique(prefix);
        self.create_bucket(&name);
        name
    }

    /// Make a bucket that keeps everything.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn create_bucket(&self, name: &str) {
        self.create(name, &json!([]));
    }

    /// Make a bucket whose name nothing else has, and which takes no point that is older than that.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn bucket_for(&self, prefix: &str, keep: Duration) -> String {
        let name = unique(prefix);
        self.create(&name, &json!([{"type": "expire", "everySeconds": keep.as_secs()}]));
        name
    }

    fn create(&self, name: &str, rules: &Value) {
        let org = self.id("orgs", "org", &self.org);
        let body = json!({"orgID": org, "name": name, "retentionRules": rules});
        let (status, answer) = self.request("POST", "/api/v2/buckets", body.to_string().as_bytes());
        assert_eq!(status, 201, "making the bucket {name}: {answer}");
    }

    /// Remove a bucket.
    ///
    /// # Panics
    /// If there is none.
    pub fn delete_bucket(&self, name: &str) {
        let id = self.id("buckets", "name", name);
        let (status, answer) = self.request("DELETE", &format!("/api/v2/buckets/{id}"), b"");
        assert_eq!(status, 204, "removing the bucket {name}: {answer}");
    }

    fn id(&self, kind: &str, key: &str, name: &str) -> String {
        let (status, answer) = self.request("GET", &format!("/api/v2/{kind}?{key}={}", encoded(name)), b"");
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        match answer[kind][0]["id"].as_str() {
            Some(id) => id.to_owned(),
            None => panic!("{kind} has no {name}: {status} {answer}"),
        }
    }

    /// Write line protocol. The precision is `ns`, `us`, `ms` or `s`.
    ///
    /// # Panics
    /// If the server does not take all of it.
    pub fn write(&self, bucket: &str, precision: &str, lines: &str) {
        let (status, answer) = self.try_write(bucket, precision, lines);
        assert_eq!(status, 204, "writing to {bucket}: {answer}");
    }

    /// Write line protocol: the status and the body of the answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn try_write(&self, bucket: &str, precision: &str, lines: &str) -> (u16, String) {
        let path = format!("/api/v2/write?org={}&bucket={}&precision={precision}", encoded(&self.org), encoded(bucket));
        self.request("POST", &path, lines.as_bytes())
    }

    /// Run a Flux query: an object for each row of its answer, with the types of its columns. A time is a string in RFC 3339, an
    /// empty value null, a float that JSON can't hold a string.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn query(&self, flux: &str) -> Vec<Map<String, Value>> {
        let annotations = ["datatype", "group", "default"];
        let body = json!({"query": flux, "type": "flux", "dialect": {"header": true, "annotations": annotations}});
        let path = format!("/api/v2/query?org={}", encoded(&self.org));
        let (status, answer) = self.request("POST", &path, body.to_string().as_bytes());
        assert_eq!(status, 200, "{flux}: {answer}");
        rows(&answer)
    }

    /// How many points of a bucket have this field.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn count(&self, bucket: &str, measurement: &str, field: &str) -> u64 {
        let counted = self.query(&format!(
            "from(bucket: {bucket:?}) |> range(start: 1677-09-22T00:00:00Z, stop: 2262-04-11T00:00:00Z)
             |> filter(fn: (r) => r._measurement == {measurement:?} and r._field == {field:?})
             |> count() |> group() |> sum()"
        ));
        counted.iter().filter_map(|row| row["_value"].as_u64()).sum()
    }

    /// A request with the token: the status and the body of the answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "300", "-X", method, "-w", "\n%{http_code}"]);
        curl.args(["-H", "Expect:", "-H", "Content-Type: application/json", "-H"]);
        curl.arg(format!("Authorization: Token {}", self.token));
        if self.tls {
            curl.arg("--cacert").arg(self.certificate());
        }
        if !body.is_empty() {
            curl.args(["--data-binary", "@-"]);
        }
        let answer = output(curl.arg(format!("{}{path}", self.url)), body).unwrap_or_else(|error| panic!("{error}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (body, status) = answer.rsplit_once('\n').expect("a status");
        (status.parse().expect("a status"), body.to_owned())
    }
}

impl Deref for InfluxDb {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server.as_ref().expect("a server that the tests started")
    }
}

impl DerefMut for InfluxDb {
    fn deref_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("a server that the tests started")
    }
}

/// Percent-encoded, for a query.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// The rows of annotated CSV: tables one after the other, each with `#datatype`, `#group` and `#default` lines and a header.
fn rows(csv: &str) -> Vec<Map<String, Value>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv.as_bytes());
    let (mut types, mut defaults, mut header) = (Vec::new(), Vec::new(), None::<Vec<String>>);
    let mut rows = Vec::new();
    for line in reader.records() {
        let line: Vec<String> = line.expect("annotated CSV").iter().map(str::to_owned).collect();
        match line.first().map(String::as_str) {
            Some("#datatype") => (types, header) = (line, None),
            Some("#default") => (defaults, header) = (line, None),
            Some("#group") => header = None,
            _ => match &header {
                None => header = Some(line),
                Some(names) => {
                    let columns = names.iter().zip(&line).enumerate().skip(1);
                    let row = columns.map(|(at, (name, text))| {
                        let empty = text.is_empty().then(|| defaults.get(at)).flatten();
                        (name.clone(), value(types.get(at).map_or("string", String::as_str), empty.unwrap_or(text)))
                    });
                    rows.push(row.collect());
                }
            },
        }
    }
    rows
}

fn value(kind: &str, text: &str) -> Value {
    let parsed = match kind {
        _ if text.is_empty() => Some(Value::Null),
        "long" => text.parse::<i64>().ok().map(Value::from),
        "unsignedLong" => text.parse::<u64>().ok().map(Value::from),
        "double" => text.parse::<f64>().ok().map(|float| match Number::from_f64(float) {
            Some(number) => Value::Number(number),
            None => Value::from(text),
        }),
        "boolean" => text.parse::<bool>().ok().map(Value::Bool),
        _ => Some(Value::from(text)),
    };
    parsed.unwrap_or_else(|| panic!("a {kind}: {text}"))
}
