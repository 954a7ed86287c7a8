//! A Cassandra node.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use serde_json::Value;

use super::process::Server;
use super::tool::{output, script};
use super::{from_env, unique};

/// What a node of a test's own asks of its clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct CassandraOptions {
    /// A user and a password: both are `cassandra`.
    pub users: bool,
    /// TLS, and nothing but TLS. Its certificate is [`Server::certificate`].
    pub tls: bool,
    /// A row is confirmed only when it is in the commit log on disk, so that `kill -9` loses none. As Cassandra is
    /// delivered, the last ten seconds are.
    pub durable: bool,
}

/// A Cassandra node.
///
/// One that a test started is a [`Server`] that can be stopped, killed and frozen.
#[derive(Debug)]
pub struct Cassandra {
    server: Option<Server>,
    options: CassandraOptions,
    address: String,
}

impl Cassandra {
    /// That of this test process, or the one of `$ACEQUIA_TEST_CASSANDRA`.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn shared() -> &'static Cassandra {
        static SHARED: OnceLock<Cassandra> = OnceLock::new();
        SHARED.get_or_init(|| match from_env("ACEQUIA_TEST_CASSANDRA") {
            Some(address) => Cassandra { server: None, options: CassandraOptions::default(), address },
            None => Cassandra::start(),
        })
    }

    /// A new one, for a test alone.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start() -> Cassandra {
        Cassandra::start_with(CassandraOptions::default())
    }

    /// A new one with users or TLS.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_with(options: CassandraOptions) -> Cassandra {
        let server = Server::start("cassandra.sh", 2, |ports| {
            let mut arguments = vec![ports[0].to_string(), ports[1].to_string()];
            if options.users {
                arguments.push("--users".to_owned());
            }
            if options.tls {
                arguments.push("--tls".to_owned());
            }
            if options.durable {
                arguments.push("--durable".to_owned());
            }
            arguments
        });
        let address = format!("127.0.0.1:{}", server.port(0));
        Cassandra { server: Some(server), options, address }
    }

    /// Host and port for CQL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Make a keyspace whose name nothing else has.
    ///
    /// # Panics
    /// If the node refuses.
    pub fn keyspace(&self, prefix: &str) -> String {
        let name = unique(prefix);
        self.query(&format!(
            "CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
        ));
        name
    }

    /// Run a statement with the Python driver: an object for each row. `cql.py` says how values look; a call takes half a
    /// second.
    ///
    /// # Panics
    /// If the node refuses it.
    pub fn query(&self, statement: &str) -> Vec<Value> {
        self.execute(&[statement])
    }

    /// Run several statements, one after the other: the rows of all of them.
    ///
    /// # Panics
    /// If the node refuses one.
    pub fn execute(&self, statements: &[&str]) -> Vec<Value> {
        self.try_execute(statements).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Run several statements: their rows, or what the node had against one.
    ///
    /// # Errors
    /// What the driver says.
    pub fn try_execute(&self, statements: &[&str]) -> Result<Vec<Value>, String> {
        self.cql(statements, b"")
    }

    /// The CQL types of a statement's columns, by name, as in `{"id": "varchar"}`.
    ///
    /// # Panics
    /// If the node refuses it.
    pub fn types(&self, statement: &str) -> Value {
        let answer = self.cql(&["--types", statement], b"").unwrap_or_else(|error| panic!("{error}"));
        answer.into_iter().next().expect("the types of columns")
    }

    /// Run a statement with a `?` for each value once for every row, many at a time: some thousand rows a second.
    ///
    /// # Panics
    /// If the node refuses one.
    pub fn insert_each(&self, statement: &str, rows: impl IntoIterator<Item = Vec<Value>>) {
        let mut input = String::new();
        for row in rows {
            input.push_str(&Value::from(row).to_string());
            input.push('\n');
        }
        self.cql(&["--each", statement], input.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The number of rows of `keyspace.table`, counted by the node: some seconds for a million.
    ///
    /// # Panics
    /// If there is no such table.
    pub fn count(&self, table: &str) -> u64 {
        let rows = self.query(&format!("SELECT count(*) AS rows FROM {table}"));
        rows.first().and_then(|row| row["rows"].as_u64()).expect("a count")
    }

    fn cql(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<Value>, String> {
        let mut command = script("cassandra.sh");
        command.arg("cql").arg(&self.address);
        if self.options.users {
            command.args(["--user", "cassandra", "--password", "cassandra"]);
        }
        if self.options.tls {
            command.arg("--ca").arg(self.certificate());
        }
        let answer = output(command.args(arguments), input)?;
        let rows = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect()
    }
}

impl Deref for Cassandra {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server.as_ref().expect("a server that the tests started")
    }
}

impl DerefMut for Cassandra {
    fn deref_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("a server that the tests started")
    }
}
