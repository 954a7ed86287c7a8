//! A Kafka broker.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use super::from_env;
use super::process::Server;

/// What a broker of a test's own has besides its plain listener.
#[derive(Clone, Debug, Default)]
pub struct KafkaOptions {
    /// A listener with users ([`Kafka::sasl_address`]): PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, without TLS. The user is
    /// `alice`, her password `alice-secret`.
    pub sasl: bool,
    /// A listener with TLS ([`Kafka::tls_address`]), whose certificate is [`Server::certificate`].
    pub tls: bool,
    /// The port that one more plain listener ([`Kafka::behind_proxy`]) tells its clients to come to: that of a proxy.
    pub proxy: Option<u16>,
    /// Properties of the broker, `key=value`.
    pub properties: Vec<String>,
}

/// A Kafka broker. Its topics are not made by themselves: see [`create_topic`](Kafka::create_topic).
///
/// One that a test started is a [`Server`] that can be stopped, killed and frozen.
#[derive(Debug)]
pub struct Kafka {
    server: Option<Server>,
    address: String,
}

impl Kafka {
    /// That of this test process, or the one of `$ACEQUIA_TEST_KAFKA`.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| match from_env("ACEQUIA_TEST_KAFKA") {
            Some(address) => Kafka { server: None, address },
            None => Kafka::start(),
        })
    }

    /// A new one, for a test alone.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start() -> Kafka {
        Kafka::start_with(&KafkaOptions::default())
    }

    /// A new one with more listeners or other properties.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_with(options: &KafkaOptions) -> Kafka {
        let server = Server::start("kafka.sh", 5, |ports| {
            let mut arguments = vec![ports[0].to_string(), ports[1].to_string()];
            for (name, port) in [(options.sasl, ("--sasl", ports[2])), (options.tls, ("--tls", ports[3]))]
                .into_iter()
                .filter_map(|(wanted, listener)| wanted.then_some(listener))
            {
                arguments.extend([name.to_owned(), port.to_string()]);
            }
            if let Some(advertised) = options.proxy {
                arguments.extend(["--proxied".to_owned(), format!("{}:{advertised}", ports[4])]);
            }
            for property in &options.properties {
                arguments.extend(["--set".to_owned(), property.clone()]);
            }
            arguments
        });
        let address = format!("127.0.0.1:{}", server.port(0));
        Kafka { server: Some(server), address }
    }

    /// Host and port of the plain listener: `bootstrap.servers`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Host and port of the listener with users.
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.port(2))
    }

    /// Host and port of the listener that a proxy has to lead to.
    pub fn behind_proxy(&self) -> String {
        format!("127.0.0.1:{}", self.port(4))
    }

    /// Host and port of the listener with TLS.
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.port(3))
    }
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.server.as_ref().expect("a server that the tests started")
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("a server that the tests started")
    }
}
