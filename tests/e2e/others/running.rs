//! Servers that are not there, secrets that show, and a check that can't be made where it would help.

use acequia_tests::servers::{Gate, InfluxDb, Verdict, free_port};
use acequia_tests::{Daemon, evil_plugin, out_dir, run, wait_until};

use super::{NEIGHBOUR, details, neighbour_goes_on, to_bucket};

/// A source of each connector that has a server, and a sink of each, on a port where nobody listens.
fn unreachable(port: u16, secret: &str) -> Vec<(&'static str, String)> {
    let rate = "[source]\ntype = \"rate\"\n";
    let hole = "[[sink]]\ntype = \"blackhole\"\n";
    let kafka = format!(
        "type = \"kafka\"\nbrokers = [\"127.0.0.1:{port}\"]\nsasl = {{ username = \"alice\", password = {secret} }}\n"
    );
    let cassandra = format!(
        "type = \"cassandra\"\nnodes = [\"127.0.0.1:{port}\"]\nkeyspace = \"k\"\ntable = \"t\"\nusername = \"u\"\n\
         password = {secret}\n"
    );
    let influxdb = format!("type = \"influxdb\"\nurl = \"http://127.0.0.1:{port}\"\norg = \"o\"\ntoken = {secret}\n");
    vec![
        ("kafka-source", format!("[source]\n{kafka}topics = [\"t\"]\n{hole}")),
        ("kafka-sink", format!("{rate}[[sink]]\n{kafka}topic = \"t\"\n")),
        ("cassandra-source", format!("[source]\n{cassandra}{hole}")),
        ("cassandra-sink", format!("{rate}[[sink]]\n{cassandra}")),
        ("influxdb-source", format!("[source]\n{influxdb}query = 'buckets()'\n{hole}")),
        ("influxdb-sink", format!("{rate}[[sink]]\n{influxdb}bucket = \"b\"\nmeasurement = \"m\"\n")),
        ("socket-source", format!("[source]\ntype = \"socket\"\naddress = \"127.0.0.1:{port}\"\n{hole}")),
    ]
}

/// Theirs: whoever asked for a connector's configuration over REST was given the database's password.
#[test]
fn kafka_connect_jdbc_348_558_no_secret_is_told_over_rest() {
    const WORD: &str = "hunter2-of-the-database";
    let mut daemon = Daemon::new().env("ACEQUIA_TEST_WORD", WORD).env("ACEQUIA_LOG", "debug,acequia=trace");
    let file = daemon.file("word", WORD).display().to_string();
    let port = free_port();
    let mut names = Vec::new();
    for (number, secret) in
        [format!("\"{WORD}\""), "{ env = \"ACEQUIA_TEST_WORD\" }".to_owned(), format!("{{ file = \"{file}\" }}")]
            .iter()
            .enumerate()
    {
        for (name, text) in unreachable(port, secret) {
            names.push(format!("{name}-{number}"));
            daemon.pipeline(&format!("{name}-{number}"), &text);
        }
    }
    daemon.start();
    let rest = daemon.rest();
    let mut seen = String::new();
    for name in &names {
        wait_until(&format!("{name} says what is wrong"), || details(&daemon, name)["first_error"].is_object());
        seen += &rest.get(&format!("/connectors/{name}")).unwrap().to_string();
        seen += &rest.get(&format!("/connectors/{name}/status")).unwrap().to_string();
    }
    for path in ["/", "/connectors?expand=info&expand=status", "/health", "/ready", "/metrics"] {
        seen += &rest.get(path).unwrap().to_string();
    }
    seen += &run(&["status", "--address", &rest.address, "--json"]).stdout;
    seen += &daemon.stop().stderr;
    assert!(seen.contains("influxdb-sink-2") && !seen.contains(WORD), "a secret shows");
}

/// Theirs: "Task is being killed and will not recover until manually restarted", since a server was away for a while.
#[test]
fn kafka_connect_hdfs_411_it_recovers_by_itself() {
    let mut influxdb = InfluxDb::start();
    let bucket = influxdb.bucket("away");
    let sink = format!(
        "[[sink]]\ntype = \"influxdb\"\nurl = \"{}\"\norg = \"{}\"\nbucket = \"{bucket}\"\ntoken = \"{}\"\nmeasurement = \"m\"\n",
        influxdb.url(),
        influxdb.org(),
        influxdb.token()
    );
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &format!("[source]\ntype = \"rate\"\nrows_per_second = 200\nrows = 1000\n{sink}"));
    daemon.start();
    wait_until("points are there", || influxdb.count(&bucket, "m", "value") > 0);
    influxdb.kill();
    wait_until("it has noticed", || details(&daemon, "p")["first_error"].to_string().contains("can't be reached"));
    influxdb.start_again();
    // Nobody has touched it.
    daemon.wait_state("p", "COMPLETED");
    assert_eq!(influxdb.count(&bucket, "m", "value"), 1000);
    let status = details(&daemon, "p");
    assert!(status["first_error"].is_null() && status["last_error"].is_object(), "{status}");
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: one output whose server is away when the daemon starts, and the daemon ends, or starts none of the others.
#[test]
fn telegraf_14803_16715_the_daemon_starts_whatever_is_away() {
    let influxdb = InfluxDb::shared();
    let port = free_port();
    let mut daemon = Daemon::new();
    let all = unreachable(port, "\"x\"");
    for (name, text) in &all {
        daemon.pipeline(name, text);
    }
    let late = free_port();
    let bucket = influxdb.bucket("late");
    let sink = to_bucket(&format!("http://127.0.0.1:{late}"), &bucket, "");
    let sink = sink.replace("\"n\"", "\"value\"").replace("\"at\"", "\"timestamp\"");
    daemon.pipeline("late", &format!("[source]\ntype = \"rate\"\nrows_per_second = 100\nrows = 100\n{sink}"));
    daemon.pipeline("neighbour", NEIGHBOUR);
    // Ready all the same.
    daemon.start();
    neighbour_goes_on(&daemon);
    for (name, _) in &all {
        wait_until(&format!("{name} names the server"), || {
            details(&daemon, name)["first_error"].to_string().contains(&format!("127.0.0.1:{port}"))
        });
    }
    // One of them comes.
    let _gate = Gate::at(&format!("127.0.0.1:{late}"), influxdb, |_| Verdict::Pass);
    daemon.wait_state("late", "COMPLETED");
    assert_eq!(influxdb.count(&bucket, "m", "value"), 100);
    neighbour_goes_on(&daemon);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: without the variables of production a configuration can't be checked, or is checked without its transforms.
#[test]
fn vector_26256_15037_validate_without_the_environment_compiles_the_plugins() {
    let daemon = Daemon::new();
    let check = |transform: &str| {
        let text = format!(
            "[source]\ntype = \"kafka\"\nbrokers = [\"${{ACEQUIA_TEST_NO_BROKER}}\"]\ntopics = [\"t\"]\n\
             schema = {{ value = \"int64\" }}\nsasl = {{ username = \"u\", password = {{ env = \"ACEQUIA_TEST_NO_WORD\" }} }}\n\
             [[transform]]\n{transform}\n[[sink]]\ntype = \"file\"\npath = \"${{ACEQUIA_TEST_NO_FOLDER}}/out.jsonl\"\n"
        );
        let path = daemon.pipeline("p", &text).display().to_string();
        let plugins = out_dir().join("plugins").display().to_string();
        let exit = run(&["validate", "--no-env", "--plugins", &plugins, &path]);
        (exit.code, exit.stderr)
    };
    let right = check("plugin = \"even-filter\"\nconfig = { column = \"value\" }");
    assert_eq!(right, (Some(0), String::new()));
    let whole = std::fs::read(evil_plugin("evil")).unwrap();
    daemon.file("cut.wasm", &whole[..whole.len() / 2]);
    for (transform, part) in [
        // Does not compile.
        ("plugin = \"../cut.wasm\"", "cut.wasm"),
        // Compiles, and does not know the key.
        ("plugin = \"even-filter\"\nconfig = { colum = \"value\" }", "colum"),
        // Knows it, and there is no such column.
        ("plugin = \"even-filter\"\nconfig = { column = \"valu\" }", "did you mean `value`?"),
    ] {
        let (code, said) = check(transform);
        assert!(code == Some(1) && said.contains(part) && said.contains("p.toml:"), "{code:?} {said}");
    }
}
