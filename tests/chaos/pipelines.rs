//! The pipelines that are attacked, and where their rows go.

use crate::feed::PARTITIONS;
use crate::world::Servers;

/// Where a campaign's rows are on the servers: names that no other campaign has.
#[derive(Clone, Debug)]
pub struct Names {
    /// Topic: numbers, one in a hundred cut off.
    pub numbers: String,
    /// Topic: readings, all good.
    pub readings: String,
    /// Topic: the even numbers, exactly once.
    pub evens: String,
    pub keyspace: String,
    pub bucket: String,
}

impl Names {
    pub fn make(servers: &Servers) -> Names {
        let Servers { kafka, cassandra, influxdb, .. } = servers;
        let partitions = u32::try_from(PARTITIONS).expect("a few");
        let names = Names {
            numbers: kafka.topic("numbers", partitions),
            readings: kafka.topic("readings", partitions),
            evens: kafka.topic("evens", 1),
            keyspace: cassandra.keyspace("chaos"),
            bucket: influxdb.bucket("chaos"),
        };
        let keyspace = &names.keyspace;
        cassandra.execute(&[
            &format!("CREATE TABLE {keyspace}.words (word text PRIMARY KEY, count bigint)"),
            &format!("CREATE TABLE {keyspace}.readings (n bigint PRIMARY KEY, t timestamp, v text)"),
        ]);
        names
    }
}

/// Name, topic that it reads (none: a source of its own), text.
pub struct Pipeline {
    pub name: &'static str,
    pub topic: Option<String>,
    pub text: String,
}

/// What stands in for the good plugin of the pipelines `stops` and `letters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    Good,
    Traps,
    Loops,
}

const DELIVERY: &str = "[delivery]\ncheckpoint_interval = \"500ms\"\n";

fn letters(name: &str) -> String {
    format!("[errors.dead_letter]\ntype = \"file\"\npath = \"DIR/dead/{name}.jsonl\"\n\n")
}

/// All of them. `rows` is the batch size of those that a good reload changes.
pub fn all(servers: &Servers, names: &Names, guest: Guest, rows: u32) -> Vec<Pipeline> {
    let Servers { kafka_proxy, cassandra_proxy, influxdb_proxy, influxdb, .. } = servers;
    let (kafka, cassandra, influx) = (kafka_proxy.address(), cassandra_proxy.address(), influxdb_proxy.address());
    let Names { numbers, readings, evens, keyspace, bucket } = names;
    let source = |name: &str, topic: &str, schema: &str| {
        format!(
            "[source]\ntype = \"kafka\"\nbrokers = [\"{kafka}\"]\ntopics = [\"{topic}\"]\ngroup = \"{name}-{topic}\"\n\
             format = \"json\"\nmetadata = []\nschema = {schema}\n\n"
        )
    };
    let numbers_schema = "{ n = \"int64\", w = \"text\" }";
    let readings_schema = "{ n = \"int64\", t = \"timestamp\", v = \"text\" }";
    let even = match guest {
        Guest::Good => "plugin = \"DIR/plugins/even.wasm\"\nconfig = { column = \"n\" }".to_owned(),
        Guest::Traps | Guest::Loops => {
            let mode = if guest == Guest::Traps { "trap" } else { "loop" };
            format!("plugin = \"DIR/plugins/evil.wasm\"\nconfig = {{ column = \"n\", mode = \"{mode}\" }}")
        }
    };
    let even = format!("[[transform]]\nname = \"even\"\n{even}\nlimits = {{ time = \"300ms\" }}\n\n");
    let changed = format!("{DELIVERY}batch = {{ rows = {rows} }}\n");
    let org = influxdb.org();
    let token = influxdb.token();
    let topic = |topic: &String| Some(topic.clone());
    vec![
        Pipeline {
            name: "once",
            topic: topic(numbers),
            text: source("once", numbers, numbers_schema)
                + "[[transform]]\nplugin = \"even-filter\"\nconfig = { column = \"n\" }\n\n"
                + &format!(
                    "[[sink]]\ntype = \"kafka\"\nbrokers = [\"{kafka}\"]\ntopic = \"{evens}\"\nformat = \"json\"\ndelivery = \"exactly_once\"\n\n"
                )
                + &letters("once")
                + &changed,
        },
        Pipeline {
            name: "copy",
            topic: topic(numbers),
            text: source("copy", numbers, numbers_schema)
                + "[[sink]]\ntype = \"file\"\npath = \"OUT/copy.jsonl\"\n\n"
                + &letters("copy")
                + DELIVERY,
        },
        Pipeline {
            name: "words",
            topic: topic(numbers),
            text: source("words", numbers, numbers_schema)
                + "[[transform]]\nplugin = \"word-count\"\nconfig = { column = \"w\" }\n\n"
                + &format!(
                    "[[sink]]\ntype = \"cassandra\"\nnodes = [\"{cassandra}\"]\nkeyspace = \"{keyspace}\"\ntable = \"words\"\n\n"
                )
                + &letters("words")
                + DELIVERY,
        },
        Pipeline {
            name: "table",
            topic: topic(readings),
            text: source("table", readings, readings_schema)
                + &format!(
                    "[[sink]]\ntype = \"cassandra\"\nnodes = [\"{cassandra}\"]\nkeyspace = \"{keyspace}\"\ntable = \"readings\"\n\n"
                )
                + &letters("table")
                + &changed,
        },
        Pipeline {
            name: "points",
            topic: topic(readings),
            text: source("points", readings, readings_schema)
                + &format!(
                    "[[sink]]\ntype = \"influxdb\"\nurl = \"http://{influx}\"\norg = \"{org}\"\nbucket = \"{bucket}\"\ntoken = \"{token}\"\n\
                     measurement = \"readings\"\nfields = [\"n\", \"v\"]\ntime = \"t\"\n\n"
                )
                + &letters("points")
                + DELIVERY,
        },
        Pipeline {
            name: "stops",
            topic: topic(readings),
            text: source("stops", readings, readings_schema)
                + &even
                + "[[sink]]\ntype = \"file\"\npath = \"OUT/stops.jsonl\"\n\n[errors]\non_error = \"stop\"\n\n"
                + DELIVERY,
        },
        Pipeline {
            name: "letters",
            topic: topic(readings),
            text: source("letters", readings, readings_schema)
                + &even
                + "[[sink]]\ntype = \"file\"\npath = \"OUT/letters.jsonl\"\n\n"
                + &letters("letters")
                + DELIVERY,
        },
        Pipeline {
            name: "ticks",
            topic: None,
            text: format!(
                "[source]\ntype = \"rate\"\nrows_per_second = 10000\n\n\
                 [[transform]]\nplugin = \"triangle-wave\"\n\n\
                 [[sink]]\ntype = \"file\"\npath = \"OUT/ticks.jsonl\"\n\n{DELIVERY}"
            ),
        },
    ]
}
