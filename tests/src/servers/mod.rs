//! Real servers: Kafka, Cassandra and InfluxDB, without containers, by the scripts of `tests/servers/`.
//!
//! `Kafka::shared()` is one for the whole test process: it starts when the first test asks for it and is gone with the
//! process, however that ends. Tests share it, so each uses names of its own, which [`unique`] makes. `Kafka::start()` is one for
//! a test that wants to stop it, kill it or freeze it.
//!
//! Someone who has servers names them: `ACEQUIA_TEST_KAFKA=host:port`, `ACEQUIA_TEST_CASSANDRA=host:port`, and
//! `ACEQUIA_TEST_INFLUXDB=url` with `ACEQUIA_TEST_INFLUXDB_ORG` and `ACEQUIA_TEST_INFLUXDB_TOKEN`. They are then the shared ones; a
//! server to be stopped is always our own.
//!
//! [`Gate`] stands before an InfluxDB, counts what is written and can refuse it.
//!
//! What the servers hold is read by clients that are not Acequia's: Kafka's own console tools, the Python driver of Cassandra,
//! Flux over HTTP.

mod cassandra;
mod gate;
mod influxdb;
mod kafka;
mod kafka_tools;
mod ports;
mod process;
mod tool;

pub use cassandra::{Cassandra, CassandraOptions};
pub use gate::{Gate, Verdict, Written};
pub use influxdb::InfluxDb;
pub use kafka::{Kafka, KafkaOptions};
pub use kafka_tools::{Consume, Produce, Record};
pub use ports::free_port;
pub use process::Server;

/// A name that nothing else has: the prefix and a random suffix. Good for topics, keyspaces and buckets.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{:016x}", rand::random::<u64>())
}

/// An environment variable that is set to something.
fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
