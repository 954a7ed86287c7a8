//! The servers of the tests: each comes up, holds what is written to it through being stopped and killed, and leaves nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use acequia_tests::servers::{
    Cassandra, CassandraOptions, Consume, InfluxDb, Kafka, KafkaOptions, Produce, Record, Server, free_port, unique,
};
use acequia_tests::{eventually, wait_until, workspace};
use serde_json::json;

/// Processes that have this folder in their command line: the server, and the one that watches for its owner's end.
fn processes_of(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&folder)).count()
}

fn leaves_nothing<S: std::ops::DerefMut<Target = Server>>(server: S) {
    let folder = server.folder().to_owned();
    assert!(processes_of(&folder) >= 1 && folder.is_dir());
    drop(server);
    assert!(!folder.exists(), "{} is left", folder.display());
    wait_until("its processes are gone", || processes_of(&folder) == 0);
}

fn record(offset: i64, key: &str, value: Option<&str>, headers: &[(&str, Option<&str>)]) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
    Record {
        partition: 0,
        offset,
        timestamp: 0,
        headers,
        key: Some(key.as_bytes().to_vec()),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

#[test]
fn kafka_keeps_its_records_through_stop_and_kill() {
    let mut kafka = Kafka::start();
    let topic = kafka.topic("kept", 1);
    let how = Produce {
        key_separator: Some("=".to_owned()),
        headers: true,
        null: Some("NULL".to_owned()),
        ..Produce::default()
    };
    kafka.produce_with(&topic, &how, ["a:1,b:NULL\tk1=tab\there, ✓", "c:2\tk2=NULL"]);
    kafka.stop();
    assert!(!kafka.is_running());
    kafka.start_again();
    kafka.produce(&topic, ["no key"]);
    kafka.kill();
    kafka.start_again();

    let mut records = kafka.consume(&topic);
    assert!(records.iter().all(|record| record.timestamp > 1_600_000_000_000), "{records:?}");
    records.iter_mut().for_each(|record| record.timestamp = 0);
    let last = Record { key: None, ..record(2, "", Some("no key"), &[]) };
    let first = record(0, "k1", Some("tab\there, ✓"), &[("a", Some("1")), ("b", None)]);
    assert_eq!(records, [first, record(1, "k2", None, &[("c", Some("2"))]), last]);
    assert_eq!(kafka.end_offsets(&topic), BTreeMap::from([(0, 3)]));
    leaves_nothing(kafka);
}

#[test]
fn kafka_has_listeners_with_users_and_with_tls() {
    let options = KafkaOptions {
        sasl: true,
        tls: true,
        properties: vec!["auto.create.topics.enable=true".to_owned()],
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start_with(&options);
    kafka.produce("made", ["one"]);

    // Kafka's own tool, through each of the listeners.
    let mechanism = |mechanism: &str, module: &str, password: &str| {
        let login =
            format!("org.apache.kafka.common.security.{module} required username=\"alice\" password=\"{password}\";");
        format!("security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\nsasl.jaas.config={login}\n")
    };
    let trust = kafka.certificate().display().to_string();
    let tls = format!("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={trust}\n");
    let plain = "plain.PlainLoginModule";
    let scram = "scram.ScramLoginModule";
    for (address, config, good) in [
        (kafka.sasl_address(), mechanism("PLAIN", plain, "alice-secret"), true),
        (kafka.sasl_address(), mechanism("SCRAM-SHA-256", scram, "alice-secret"), true),
        (kafka.sasl_address(), mechanism("SCRAM-SHA-512", scram, "alice-secret"), true),
        (kafka.sasl_address(), mechanism("SCRAM-SHA-512", scram, "wrong"), false),
        (kafka.tls_address(), tls, true),
    ] {
        let file = kafka.folder().join("client.properties");
        std::fs::write(&file, &config).expect("a file");
        let output = Command::new(workspace().join("tests/servers/kafka.sh"))
            .args(["tool", "org.apache.kafka.tools.TopicCommand", "--list", "--bootstrap-server", &address])
            .arg("--command-config")
            .arg(&file)
            .output()
            .expect("the tool runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.success() && said.contains("made"), good, "{config}{output:?}");
    }
}

#[test]
fn the_shared_kafka_takes_a_file_and_gives_its_values() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("file", 3);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lines");
    let mut lines: Vec<String> = (0..10_000).map(|number| format!("{{\"value\":{number}}}")).collect();
    std::fs::write(&path, lines.join("\n")).expect("a file");
    kafka.produce_file(&topic, &Produce::default(), &path);

    assert_eq!(kafka.end_offsets(&topic).values().sum::<i64>(), 10_000);
    assert_eq!(kafka.start_offsets(&topic), BTreeMap::from([(0, 0), (1, 0), (2, 0)]));
    let mut values = kafka.values(&topic, &Consume::default());
    values.sort();
    lines.sort();
    assert!(values == lines, "{} values", values.len());

    kafka.alter_topic(&topic, &[("max.message.bytes", "2000000"), ("retention.ms", "3600000")]);
    kafka.set_partitions(&topic, 4);
    assert_eq!(kafka.end_offsets(&topic).len(), 4);
    assert_eq!(kafka.group_offsets(&unique("group")), BTreeMap::new());
    assert!(kafka.topics().contains(&topic));
    kafka.delete_topic(&topic);
    wait_until("the topic is gone", || !kafka.topics().contains(&topic));
}

#[test]
fn cassandra_keeps_its_rows_through_stop_and_kill() {
    let mut cassandra = Cassandra::start();
    let keyspace = cassandra.keyspace("kept");
    let table = format!("{keyspace}.words");
    cassandra.query(&format!("CREATE TABLE {table} (id int PRIMARY KEY, word text, at timestamp, raw blob)"));
    cassandra.query(&format!(
        "INSERT INTO {table} (id, word, at, raw) VALUES (1, 'uno', '2024-02-29T12:00:00.123Z', 0x00ff)"
    ));
    cassandra.stop();
    cassandra.start_again();
    cassandra.insert_each(
        &format!("INSERT INTO {table} (id, word) VALUES (?, ?)"),
        [vec![json!(2), json!("dos")], vec![json!(3), json!(null)]],
    );
    // Its commit log is synced every few seconds only: what was written just before a kill may be gone.
    cassandra.stop();
    cassandra.start_again();
    cassandra.kill();
    cassandra.start_again();
    cassandra.freeze();
    cassandra.thaw();
    let select = format!("SELECT id, word, at, raw FROM {table}");
    let mut rows = cassandra.query(&select);
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(
        rows,
        [
            json!({"id": 1, "word": "uno", "at": "2024-02-29T12:00:00.123Z", "raw": "0x00ff"}),
            json!({"id": 2, "word": "dos", "at": null, "raw": null}),
            json!({"id": 3, "word": null, "at": null, "raw": null}),
        ]
    );
    assert_eq!(cassandra.count(&table), 3);
    assert_eq!(cassandra.types(&select), json!({"id": "int", "word": "varchar", "at": "timestamp", "raw": "blob"}));
    leaves_nothing(cassandra);
}

#[test]
fn cassandra_has_users_and_tls() {
    let mut cassandra =
        Cassandra::start_with(CassandraOptions { users: true, tls: true, ..CassandraOptions::default() });
    let roles = "SELECT role FROM system_auth.roles";
    assert_eq!(cassandra.query(roles), [json!({"role": "cassandra"})]);
    cassandra.stop();
    cassandra.start_again();
    assert_eq!(cassandra.query(roles), [json!({"role": "cassandra"})]);
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(workspace().join("tests/servers/cassandra.sh"));
        command.args(["cql", cassandra.address()]).args(arguments).output().expect("the driver runs")
    };
    let trust = cassandra.certificate().display().to_string();
    let wrong = ask(&["--ca", &trust, "--user", "cassandra", "--password", "wrong", roles]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("incorrect"), "{wrong:?}");
    let open = ask(&["--user", "cassandra", "--password", "cassandra", roles]);
    assert!(!open.status.success(), "{open:?}");
}

#[test]
fn influxdb_keeps_its_points_through_stop_and_kill() {
    let mut influxdb = InfluxDb::start_tls();
    let bucket = influxdb.bucket("kept");
    influxdb.write(&bucket, "us", "m,tag=a\\ b f=1.5,i=7i,b=true,s=\"x, \\\"y\\\"\" 1709208000123456");
    influxdb.stop();
    influxdb.start_again();
    influxdb.write(&bucket, "ns", "m,tag=c f=2 1709208000123456789");
    influxdb.kill();
    influxdb.start_again();

    let flux = format!(
        "from(bucket: {bucket:?}) |> range(start: 0) |> pivot(rowKey: [\"_time\"], columnKey: [\"_field\"], valueColumn: \"_value\")
         |> keep(columns: [\"_time\", \"tag\", \"f\", \"i\", \"b\", \"s\"]) |> group() |> sort(columns: [\"_time\"])"
    );
    let mut rows = influxdb.query(&flux);
    rows.iter_mut().for_each(|row| row.retain(|name, _| name != "table" && name != "result"));
    let first =
        json!({"_time": "2024-02-29T12:00:00.123456Z", "tag": "a b", "f": 1.5, "i": 7, "b": true, "s": "x, \"y\""});
    let second =
        json!({"_time": "2024-02-29T12:00:00.123456789Z", "tag": "c", "f": 2.0, "i": null, "b": null, "s": null});
    let rows: Vec<_> = rows.into_iter().map(serde_json::Value::Object).collect();
    assert_eq!(rows, [first, second]);
    assert_eq!(influxdb.count(&bucket, "m", "f"), 2);
    let (status, answer) = influxdb.try_write(&bucket, "ns", "not line protocol");
    assert!(status == 400 && answer.contains("unable to parse"), "{status} {answer}");
    influxdb.delete_bucket(&bucket);
    assert_eq!(influxdb.try_write(&bucket, "ns", "m f=1").0, 404);
    leaves_nothing(influxdb);
}

/// A test process that is killed can clean up nothing: what is left of it is that its end of a pipe closes.
#[test]
fn a_server_ends_with_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut server = Command::new(workspace().join("tests/servers/influxdb.sh"))
        .arg("start")
        .arg(&data)
        .arg(free_port().to_string())
        .env("ACEQUIA_OWNED", "1")
        .stdin(Stdio::piped())
        .spawn()
        .expect("the script starts");
    wait_until("the server has begun", || data.join("engine").exists());
    drop(server.stdin.take());
    let status = eventually("the server has ended", || server.try_wait().ok().flatten());
    assert_eq!(status.code(), None, "a signal ended it");
    wait_until("the folder is gone", || !data.exists());
    wait_until("the watcher is gone", || processes_of(&data) == 0);
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let script = workspace().join("tests/servers/influxdb.sh");
    let output = Command::new(script).arg("start").arg(&data).arg(&port).output().expect("the script runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "tests/servers/influxdb.sh: port {port} of 127.0.0.1 is taken: stop what listens there, or give another\n"
        )
    );
    assert!(!output.status.success() && !data.exists());
}
