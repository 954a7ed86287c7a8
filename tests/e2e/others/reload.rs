//! Reloads that hang, lose rows, break what ran, or leave no trace.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use acequia_tests::servers::{Gate, InfluxDb, Verdict, free_port};
use acequia_tests::{Daemon, eventually, plugin, rows, run, values_of, wait_until};
use rustix::process::Signal;

use super::{NEIGHBOUR, details, neighbour_goes_on, stage, to_bucket};

const RATE: &str = "[source]\ntype = \"rate\"\nrows_per_second = 500\n";
const FILE: &str = "[[sink]]\ntype = \"file\"\npath = \"OUT/rows.jsonl\"\n";

/// Lines that one client sends.
fn socket(port: u16) -> String {
    format!("[source]\ntype = \"socket\"\naddress = \"127.0.0.1:{port}\"\nlisten = true\n")
}

fn generation(daemon: &Daemon) -> u64 {
    details(daemon, "p")["generation"].as_u64().unwrap_or_default()
}

/// Rows from 0 on, each once and in order.
#[track_caller]
fn each_once(daemon: &Daemon, column: &str) {
    let values = values_of(&daemon.out("rows.jsonl"), column);
    assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
}

/// Theirs: a reload waits for a sink that retries, which may be for ever.
#[test]
fn vector_24125_15952_a_reload_ends_although_the_sink_retries() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("reload");
    let gate = Gate::before(influxdb, |_| Verdict::Refuse(503, "busy"));
    let text = |url: &str| {
        let sink = to_bucket(url, &bucket, "").replace("\"n\"", "\"value\"").replace("\"at\"", "\"timestamp\"");
        format!("[source]\ntype = \"rate\"\nrows_per_second = 200\nrows = 1000\n{sink}")
    };
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &text(gate.url()));
    daemon.start();
    wait_until("it retries", || gate.answered(503) >= 3);
    daemon.pipeline("p", &text(influxdb.url()));
    let (code, answer) = daemon.rest().reload();
    assert_eq!(code, 200, "{answer}");
    daemon.wait_state("p", "COMPLETED");
    assert_eq!((generation(&daemon), influxdb.count(&bucket, "m", "value")), (2, 1000));
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: the old topology is taken down, the new one can't be brought up, and neither runs.
#[test]
fn vector_2449_what_ran_goes_on_when_the_new_one_can_not_start() {
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &format!("{RATE}{FILE}"));
    daemon.start();
    daemon.wait_rows("rows.jsonl", 50);
    // Right in every way that can be checked, but there is no such server.
    let nobody = format!("nodes = [\"127.0.0.1:{}\"]\nkeyspace = \"k\"\ntable = \"t\"\n", free_port());
    daemon.pipeline("p", &format!("{RATE}{FILE}[[sink]]\ntype = \"cassandra\"\n{nobody}"));
    wait_until("it is rejected", || details(&daemon, "p")["last_reload"]["kind"] == "rejected");
    // The server was asked while the pipeline stood still: it starts again from its checkpoint.
    daemon.wait_state("p", "RUNNING");
    let status = details(&daemon, "p");
    assert_eq!(status["generation"], 1, "{status}");
    assert!(status["last_reload"]["error"].as_str().unwrap().contains("can't connect"), "{status}");
    let before = rows(&daemon.out("rows.jsonl"));
    daemon.wait_rows("rows.jsonl", before + 100);
    assert_eq!(daemon.stop().code, Some(0));
    each_once(&daemon, "value");
}

/// Theirs: only the configuration is looked at, and not the files that it names.
#[test]
fn vector_23820_23787_a_file_that_the_configuration_names_is_read_again() {
    let mut daemon = Daemon::new();
    let wasm = daemon.pipelines().join("mine.wasm");
    std::fs::copy(plugin("triangle-wave"), &wasm).unwrap();
    daemon.pipeline("p", &format!("{RATE}[[transform]]\nplugin = \"./mine.wasm\"\n{FILE}"));
    daemon.start();
    daemon.wait_rows("rows.jsonl", 50);
    // In place: neither the configuration nor any name changes.
    std::fs::copy(plugin("sine-wave"), &wasm).unwrap();
    wait_until("the new code runs", || std::fs::read_to_string(daemon.out("rows.jsonl")).unwrap().contains("\"sin\":"));
    assert_eq!(details(&daemon, "p")["last_reload"]["kind"], "swapped");
    assert_eq!(daemon.stop().code, Some(0));
    each_once(&daemon, "value");
}

/// The same for what a connector reads when it is opened: here a token, which is renewed.
#[test]
fn vector_23820_23787_a_secret_in_a_file_is_read_again() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("token");
    let mut daemon = Daemon::new();
    daemon.file("token", "out of date");
    let sink = to_bucket(influxdb.url(), &bucket, "").replace("\"n\"", "\"value\"").replace("\"at\"", "\"timestamp\"");
    let sink = sink.replace(&format!("\"{}\"", influxdb.token()), "{ file = \"DIR/token\" }");
    daemon.pipeline("p", &format!("[source]\ntype = \"rate\"\nrows_per_second = 500\nrows = 500\n{sink}"));
    daemon.start();
    wait_until("it is refused", || details(&daemon, "p")["first_error"].to_string().contains("check `token`"));
    // The way in which secrets are renewed: another file in its place.
    let new = daemon.file("token.new", influxdb.token());
    std::fs::rename(new, daemon.folder().join("token")).unwrap();
    daemon.wait_state("p", "COMPLETED");
    let status = details(&daemon, "p");
    assert_eq!((&status["generation"], &status["last_reload"]["kind"]), (&2.into(), &"restarted".into()), "{status}");
    assert_eq!(influxdb.count(&bucket, "m", "value"), 500);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: Kubernetes swaps the link `..data`, the watcher expects another event than the one that comes, and nothing happens.
#[test]
fn configmap_reload_190_a_swapped_link_is_seen() {
    let mut daemon = Daemon::new();
    let folder = daemon.pipelines();
    let publish = |daemon: &Daemon, number: u32| {
        let data = folder.join(format!("..2026_{number}"));
        std::fs::create_dir(&data).unwrap();
        let transform = format!("[[transform]]\nplugin = \"triangle-wave\"\nconfig = {{ output = \"v{number}\" }}\n");
        std::fs::write(data.join("p.toml"), daemon.expand(&format!("{RATE}{transform}{FILE}"))).unwrap();
        let new = folder.join("..data_tmp");
        symlink(format!("..2026_{number}"), &new).unwrap();
        std::fs::rename(&new, folder.join("..data")).unwrap();
    };
    publish(&daemon, 0);
    symlink(Path::new("..data/p.toml"), folder.join("p.toml")).unwrap();
    daemon.start();
    for number in 0..4 {
        let column = format!("\"v{number}\":");
        wait_until(&column, || {
            std::fs::read_to_string(daemon.out("rows.jsonl")).is_ok_and(|text| text.contains(&column))
        });
        publish(&daemon, number + 1);
    }
    assert_eq!(daemon.stop().code, Some(0));
    each_once(&daemon, "value");
}

/// Theirs: a SIGHUP throws away what waits in the buffers of every output, and starts all of them anew.
#[test]
fn telegraf_2679_8728_a_hangup_throws_nothing_away_and_restarts_nothing() {
    let influxdb = InfluxDb::shared();
    let bucket = influxdb.bucket("hangup");
    let gate = Gate::before(influxdb, |_| Verdict::Refuse(503, "busy"));
    let port = free_port();
    let sink = to_bucket(gate.url(), &bucket, "");
    let mut daemon = Daemon::new();
    // A socket can't be asked again: what it gave is in memory alone.
    daemon.pipeline(
        "p",
        &format!("{}format = \"json\"\nschema = {{ n = \"int64\", at = \"timestamp\" }}\n{sink}", socket(port)),
    );
    daemon.pipeline("neighbour", NEIGHBOUR);
    daemon.start();
    let mut client = eventually("the port", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    for line in super::numbered(0..100) {
        writeln!(client, "{line}").unwrap();
    }
    wait_until("they are read, and refused", || {
        stage(&daemon, "p", "source").rows_out == 100 && gate.answered(503) >= 2
    });
    for number in 0..30 {
        daemon.pipeline("other", &NEIGHBOUR.replace("neighbour", "other").replace("500", &format!("{}", 100 + number)));
        daemon.signal(Signal::HUP);
    }
    wait_until("the reloads are done", || daemon.rest().reload().1["changed"] == 0);
    gate.open();
    wait_until("all rows are there", || influxdb.count(&bucket, "m", "n") == 100);
    for name in ["p", "neighbour"] {
        let status = details(&daemon, name);
        assert_eq!((&status["generation"], &status["restarts"]), (&1.into(), &0.into()), "{name}: {status}");
    }
    neighbour_goes_on(&daemon);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: the first message after a reload is swallowed.
#[test]
fn connect_1733_the_first_row_after_a_reload_is_there() {
    let port = free_port();
    let version = |number: u32| {
        let transform =
            format!("[[transform]]\nplugin = \"triangle-wave\"\nconfig = {{ column = \"n\", amplitude = {number} }}\n");
        format!("{}format = \"json\"\nschema = {{ n = \"int64\" }}\n{transform}{FILE}", socket(port))
    };
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &version(1));
    daemon.start();
    let mut client = eventually("the port", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    for number in 0..10 {
        writeln!(client, "{{\"n\":{number}}}").unwrap();
        daemon.wait_rows("rows.jsonl", usize::try_from(number).unwrap() + 1);
        daemon.pipeline("p", &version(number + 2));
        // Waits until it has taken effect; the connection stays.
        assert_eq!(daemon.rest().reload().0, 200);
        assert_eq!(generation(&daemon), u64::from(number) + 2);
    }
    writeln!(client, "{{\"n\":10}}").unwrap();
    daemon.wait_rows("rows.jsonl", 11);
    assert_eq!(daemon.stop().code, Some(0));
    each_once(&daemon, "n");
}

/// Theirs: neither an endpoint nor a count tells whether a reload has happened, and the configuration shown is the old one.
#[test]
fn benthos_89_91_a_reload_can_be_proved() {
    let text = |rate: u32| format!("{}{FILE}", RATE.replace("500", &rate.to_string()));
    let mut daemon = Daemon::new();
    daemon.pipeline("p", &text(500));
    daemon.start();
    let mut before = daemon.wait_state("p", "RUNNING")["acequia"].clone();
    for number in 2..5 {
        daemon.pipeline("p", &text(500 + number));
        let (code, answer) = daemon.rest().reload();
        assert_eq!((code, &answer["errors"]), (200, &serde_json::json!([])), "{answer}");
        let now = details(&daemon, "p");
        assert_eq!(now["generation"], number, "{now}");
        assert!(now["hash"] != before["hash"] && now["last_reload"] != before["last_reload"], "{now}");
        let metrics = daemon.rest().get("/metrics").unwrap();
        let line = format!("acequia_pipeline_generation{{pipeline=\"p\"}} {number}");
        assert!(metrics.as_str().unwrap().contains(&line), "{line}");
        before = now;
    }
    // One that can't be used shows too, and changes neither.
    daemon.pipeline("p", "[source]\n");
    let (code, answer) = daemon.rest().reload();
    assert_eq!((code, answer["errors"].as_array().map(Vec::len)), (422, Some(1)), "{answer}");
    let now = details(&daemon, "p");
    assert_eq!((&now["generation"], &now["hash"]), (&before["generation"], &before["hash"]));
    assert!(now["last_reload"]["kind"] == "rejected" && now["last_reload"]["error"].is_string(), "{now}");
    let shown = run(&["status", "--address", &daemon.rest().address]);
    assert!(shown.stdout.contains("p.toml"), "{}", shown.stdout);
    assert_eq!(daemon.stop().code, Some(0));
}

/// Theirs: a SIGHUP that comes before the handler is there ends the daemon.
#[test]
fn dotfiles_5894_a_hangup_while_it_starts_does_no_harm() {
    for _ in 0..5 {
        let mut daemon = Daemon::new();
        // Plugins that are not compiled yet: the start takes a while.
        for (number, name) in ["even-filter", "triangle-wave", "sine-wave", "word-count", "select"].iter().enumerate() {
            daemon.pipeline(
                &format!("p{number}"),
                &format!("{RATE}[[transform]]\nplugin = \"{name}\"\n[[sink]]\ntype = \"blackhole\"\n"),
            );
        }
        daemon.spawn(&["--listen", "127.0.0.1:0"]);
        let status = format!("/proc/{}/status", daemon.pid());
        let caught = || {
            let status = std::fs::read_to_string(&status).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap() & 1 == 1
        };
        // It has done nothing yet that could take long.
        wait_until("SIGHUP is handled", || {
            let has_begun = daemon.folder().join("state/lock").exists();
            let caught = caught();
            assert!(caught || !has_begun, "it takes its state before it can stand a SIGHUP");
            caught
        });
        let mut hangups = 0;
        while daemon.admin().and_then(|admin| admin.get("/ready")).is_none() {
            daemon.signal(Signal::HUP);
            hangups += 1;
            assert!(daemon.is_running(), "after {hangups} of them:\n{}", daemon.stderr());
        }
        assert!(hangups > 0);
        assert_eq!(daemon.stop().code, Some(0));
    }
}
