//! Kafka's own console tools. Each call starts a Java process: half a second on an idle machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use super::kafka::Kafka;
use super::tool::{output, script};
use super::unique;

/// Between the parts of a record that the console consumer prints, after it, and for what is null: characters that the tests'
/// data does not have.
const PART: &str = "\u{1f}";
const END: &str = "\u{1e}\n";
const NULL: &str = "\u{1a}";

/// How lines become records.
#[derive(Clone, Debug, Default)]
pub struct Produce {
    /// What stands between key and value; no keys without it.
    pub key_separator: Option<String>,
    /// Whether a line begins with `name:value,name:value` and a tab.
    pub headers: bool,
    /// A key, value or header that is this text is null.
    pub null: Option<String>,
    /// Properties of the producer, `key=value`, such as `compression.type=zstd`.
    pub properties: Vec<String>,
}

/// What to read of a topic, from its beginning on.
#[derive(Clone, Debug)]
pub struct Consume {
    /// Leave out what transactions have not committed.
    pub committed: bool,
    /// Stop after that many records; without it, at the end that the topic has now.
    pub records: Option<usize>,
    /// Stop when there was no record for so many milliseconds. That is the end of a topic with transactions too, whose
    /// offsets are not all records.
    pub patience: u32,
}

impl Default for Consume {
    fn default() -> Self {
        Consume { committed: true, records: None, patience: 5000 }
    }
}

/// A record as Kafka's console consumer prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Names and values.
    pub headers: Vec<(String, Option<String>)>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The value as text; empty if it is null.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Kafka {
    /// One of Kafka's tools on this broker. What has to be said to the tool follows as arguments.
    fn tool(&self, class: &str) -> Command {
        let mut command = script("kafka.sh");
        command.arg("tool").arg(class).args(["--bootstrap-server", self.address()]);
        command
    }

    fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
        output(command, input).unwrap_or_else(|error| panic!("{error}"))
    }

    fn topic_command(&self) -> Command {
        self.tool("org.apache.kafka.tools.TopicCommand")
    }

    /// Make a topic. Settings are those of topics, such as `("max.message.bytes", "1000000")`.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn create_topic(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        let mut command = self.topic_command();
        command.args(["--create", "--topic", name, "--partitions", &partitions.to_string()]);
        for (key, value) in settings {
            command.arg("--config").arg(format!("{key}={value}"));
        }
        Self::run(&mut command, b"");
    }

    /// Make a topic whose name nothing else has.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn topic(&self, prefix: &str, partitions: u32) -> String {
        let name = unique(prefix);
        self.create_topic(&name, partitions, &[]);
        name
    }

    /// Remove a topic.
    ///
    /// # Panics
    /// If there is none.
    pub fn delete_topic(&self, name: &str) {
        Self::run(self.topic_command().args(["--delete", "--topic", name]), b"");
    }

    /// The names of all topics.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn topics(&self) -> Vec<String> {
        lines(&Self::run(self.topic_command().arg("--list"), b""))
    }

    /// Give a topic more partitions.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn set_partitions(&self, name: &str, partitions: u32) {
        Self::run(
            self.topic_command().args(["--alter", "--topic", name, "--partitions", &partitions.to_string()]),
            b"",
        );
    }

    /// Change settings of a topic.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn alter_topic(&self, name: &str, settings: &[(&str, &str)]) {
        let settings: Vec<_> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut command = self.tool("kafka.admin.ConfigCommand");
        command.args([
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            name,
            "--add-config",
            &settings.join(","),
        ]);
        Self::run(&mut command, b"");
    }

    /// Send one record a line.
    ///
    /// # Panics
    /// If it can't be sent.
    pub fn produce<L: AsRef<str>>(&self, topic: &str, lines: impl IntoIterator<Item = L>) {
        self.produce_with(topic, &Produce::default(), lines);
    }

    /// Send one record a line, with keys or headers.
    ///
    /// # Panics
    /// If it can't be sent.
    pub fn produce_with<L: AsRef<str>>(&self, topic: &str, how: &Produce, lines: impl IntoIterator<Item = L>) {
        let mut input = String::new();
        for line in lines {
            input.push_str(line.as_ref());
            input.push('\n');
        }
        Self::run(&mut self.producer(topic, how), input.as_bytes());
    }

    /// Send a file, one record a line: about 200 thousand rows of 100 bytes a second.
    ///
    /// # Panics
    /// If it can't be sent.
    pub fn produce_file(&self, topic: &str, how: &Produce, path: &Path) {
        let file = File::open(path).expect("a file of lines");
        let output = self.producer(topic, how).stdin(Stdio::from(file)).output().expect("the console producer starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "the console producer: {}\n{said}", output.status);
    }

    fn producer(&self, topic: &str, how: &Produce) -> Command {
        let mut command = self.tool("org.apache.kafka.tools.ConsoleProducer");
        command.args(["--topic", topic, "--batch-size", "262144", "--max-memory-bytes", "67108864", "--timeout", "5"]);
        // The tool's own 1.5 s are too short for a busy machine, and its three retries give rows up.
        command.args(["--request-timeout-ms", "60000", "--message-send-max-retries", "1000000"]);
        let mut reader = vec![format!("parse.headers={}", how.headers)];
        if let Some(separator) = &how.key_separator {
            reader.extend(["parse.key=true".to_owned(), format!("key.separator={separator}")]);
        }
        if let Some(null) = &how.null {
            reader.push(format!("null.marker={null}"));
        }
        for property in reader {
            command.arg("--reader-property").arg(property);
        }
        for property in &how.properties {
            command.arg("--command-property").arg(property);
        }
        command
    }

    /// Everything that a topic holds now and that is committed. Records of one partition are in order. About 50 thousand a second.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn consume(&self, topic: &str) -> Vec<Record> {
        self.consume_with(topic, &Consume::default())
    }

    /// Read a topic from its beginning.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn consume_with(&self, topic: &str, what: &Consume) -> Vec<Record> {
        let mut properties = vec![
            format!("key.separator={PART}"),
            format!("line.separator={END}"),
            format!("null.literal={NULL}"),
            "headers.separator=,".to_owned(),
        ];
        properties
            .extend(["timestamp", "partition", "offset", "headers", "key"].map(|part| format!("print.{part}=true")));
        let printed = self.console_consumer(topic, what, &properties);
        let printed = printed.strip_suffix(END.as_bytes()).unwrap_or(&printed);
        if printed.is_empty() {
            return Vec::new();
        }
        split(printed, END.as_bytes()).map(record).collect()
    }

    /// The values alone, as text: several times as fast.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn values(&self, topic: &str, what: &Consume) -> Vec<String> {
        lines(&self.console_consumer(topic, what, &[]))
    }

    fn console_consumer(&self, topic: &str, what: &Consume, properties: &[String]) -> Vec<u8> {
        let records = what.records.unwrap_or_else(|| self.size(topic));
        if records == 0 {
            return Vec::new();
        }
        let mut command = self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
        command.args(["--topic", topic, "--from-beginning", "--max-messages", &records.to_string()]);
        command.args(["--timeout-ms", &what.patience.to_string()]);
        command.args(["--isolation-level", if what.committed { "read_committed" } else { "read_uncommitted" }]);
        for property in properties {
            command.arg("--formatter-property").arg(property);
        }
        Self::run(&mut command, b"")
    }

    /// The offsets after the last record of each partition. Marks of transactions count as records.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.offsets(topic, "latest")
    }

    /// The offsets of the first record of each partition.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn start_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.offsets(topic, "earliest")
    }

    fn offsets(&self, topic: &str, time: &str) -> BTreeMap<i32, i64> {
        let mut command = self.tool("org.apache.kafka.tools.GetOffsetShell");
        let answer = Self::run(command.args(["--topic", topic, "--time", time]), b"");
        let offsets: BTreeMap<_, _> = lines(&answer)
            .iter()
            .filter_map(|line| {
                let mut parts = line.rsplitn(3, ':');
                let offset = parts.next()?.parse().ok()?;
                Some((parts.next()?.parse().ok()?, offset))
            })
            .collect();
        assert!(!offsets.is_empty(), "there is no topic {topic}");
        offsets
    }

    fn size(&self, topic: &str) -> usize {
        let ends: i64 = self.end_offsets(topic).values().sum();
        usize::try_from(ends).unwrap_or_default()
    }

    /// What a consumer group has committed: topic and partition, and the next offset that it wants.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn group_offsets(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let mut command = self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
        command.args(["--describe", "--offsets", "--group", group]);
        // It fails for a group that does not exist (yet).
        let answer = match output(&mut command, b"") {
            Ok(answer) => answer,
            Err(error) if error.contains("does not exist") => return BTreeMap::new(),
            Err(error) => panic!("{error}"),
        };
        lines(&answer)
            .iter()
            .filter_map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let [name, topic, partition, offset, ..] = words[..] else { return None };
                (name == group).then_some(())?;
                Some(((topic.to_owned(), partition.parse().ok()?), offset.parse().ok()?))
            })
            .collect()
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

fn split<'a>(bytes: &'a [u8], separator: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let all = rest?;
        match all.windows(separator.len()).position(|window| window == separator) {
            Some(at) => {
                rest = Some(&all[at + separator.len()..]);
                Some(&all[..at])
            }
            None => rest.take(),
        }
    })
}

/// `CreateTime:1<PART>Partition:0<PART>Offset:5<PART>name:value,name:value<PART>key<PART>value`
fn record(line: &[u8]) -> Record {
    let parts: Vec<_> = line.splitn(6, |byte| *byte == PART.as_bytes()[0]).collect();
    let [timestamp, partition, offset, headers, key, value] = parts[..] else {
        panic!("a record of the console consumer: {}", String::from_utf8_lossy(line));
    };
    let number = |part: &[u8]| -> i64 {
        let text = String::from_utf8_lossy(part).into_owned();
        text.rsplit(':').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("a number: {text}"))
    };
    let bytes = |part: &[u8]| (part != NULL.as_bytes()).then(|| part.to_vec());
    let headers = String::from_utf8_lossy(headers).into_owned();
    let headers = match headers.as_str() {
        "NO_HEADERS" => Vec::new(),
        headers => headers
            .split(',')
            .map(|header| {
                let (name, value) = header.split_once(':').unwrap_or((header, NULL));
                (name.to_owned(), (value != NULL).then(|| value.to_owned()))
            })
            .collect(),
    };
    Record {
        partition: i32::try_from(number(partition)).expect("a partition"),
        offset: number(offset),
        timestamp: number(timestamp),
        headers,
        key: bytes(key),
        value: bytes(value),
    }
}
