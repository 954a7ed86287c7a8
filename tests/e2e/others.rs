//! What users of other tools complain of, each failure as a test of the real daemon that bears the name.
//! `docs/failures-of-others.md` is the list; a test of `docs` holds the two together.

mod delivery;
mod plugins;
mod rejected;
mod reload;
mod running;
mod speed;

use acequia_tests::servers::{Cassandra, InfluxDb, Kafka};
use acequia_tests::{Daemon, Stage};
use serde_json::Value;

/// So many records, `n` from `first` on, each with a time of its own.
fn numbered(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(|n| format!("{{\"n\":{n},\"at\":\"2026-01-01T00:00:00.{n:06}Z\"}}"))
}

/// A `[source]` of what [`numbered`] makes, a checkpoint 50 ms after the last.
fn from_topic(topic: &str, group: &str, more: &str) -> String {
    format!(
        "[delivery]\ncheckpoint_interval = \"50ms\"\n[source]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopics = [\"{topic}\"]\n\
         group = \"{group}\"\nmetadata = []\nschema = {{ n = \"int64\", at = \"timestamp\" }}\n{more}\n",
        Kafka::shared().address()
    )
}

/// A `[[sink]]` for them: the measurement `m` with the field `n`, on the shared server or by way of another `url`.
fn to_bucket(url: &str, bucket: &str, more: &str) -> String {
    let influxdb = InfluxDb::shared();
    format!(
        "[[sink]]\ntype = \"influxdb\"\nurl = \"{url}\"\norg = \"{}\"\nbucket = \"{bucket}\"\ntoken = \"{}\"\n\
         measurement = \"m\"\nfields = [\"n\"]\ntime = \"at\"\n{more}\n",
        influxdb.org(),
        influxdb.token()
    )
}

/// A keyspace with the table `t`, whose key is `n`, a 32-bit number.
fn table(prefix: &str) -> String {
    let keyspace = Cassandra::shared().keyspace(prefix);
    Cassandra::shared().query(&format!("CREATE TABLE {keyspace}.t (n int PRIMARY KEY, at timestamp)"));
    keyspace
}

/// A `[[sink]]` for it.
fn to_table(keyspace: &str, more: &str) -> String {
    let address = Cassandra::shared().address();
    format!(
        "[[sink]]\ntype = \"cassandra\"\nnodes = [\"{address}\"]\nkeyspace = \"{keyspace}\"\ntable = \"t\"\n{more}\n"
    )
}

/// How many records of the group's only partition are confirmed.
fn committed(group: &str) -> i64 {
    Kafka::shared().group_offsets(group).values().sum()
}

/// A stage's counts.
fn stage(daemon: &Daemon, pipeline: &str, id: &str) -> Stage {
    acequia_tests::Account::of(&daemon.status(pipeline)).stage(id).clone()
}

/// What the status says beside Connect's words.
fn details(daemon: &Daemon, pipeline: &str) -> Value {
    daemon.status(pipeline)["acequia"].clone()
}

/// A pipeline that has nothing to do with the trouble of another one.
const NEIGHBOUR: &str = "source = { type = \"rate\", rows_per_second = 500 }\n\
                         sink = [{ type = \"file\", path = \"OUT/neighbour.jsonl\" }]\n";

/// It brings new rows, and was never restarted.
#[track_caller]
fn neighbour_goes_on(daemon: &Daemon) {
    let before = acequia_tests::rows(&daemon.out("neighbour.jsonl"));
    daemon.wait_rows("neighbour.jsonl", before + 50);
    assert_eq!(details(daemon, "neighbour")["restarts"], 0);
}
