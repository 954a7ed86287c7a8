//! The listener over real connections, and the shapes of its answers.

mod client;
mod prometheus;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::connect::{ConnectorInfo, ConnectorStatus, connect_state};
use super::health::{Health, Ready};
use super::process::Process;
use super::{BindError, Exposure, Info, bind, metrics};
use crate::admin::{Board, Pass};
use crate::pipeline::status::{CheckpointStatus, Connectors, Counts, Reload, State, Trouble};
use client::{Answer, Server};
use prometheus::Metrics;

/// The moment that the snapshots are taken at: a quarter of an hour after `STARTED`.
const NOW: u64 = 1_700_000_900_000;
const STARTED: u64 = 1_700_000_000_000;

fn info() -> Info {
    Info { version: "0.1.0".to_owned(), commit: "unknown".to_owned(), state_dir: "/var/lib/acequia".into() }
}

/// A daemon with a pipeline in each state, and one with a name that has to be escaped.
fn board() -> (Arc<Board>, tokio::sync::mpsc::Receiver<crate::admin::ReloadRequest>) {
    let (mut board, requests) = Board::new();
    Arc::get_mut(&mut board).unwrap().started_at = STARTED;

    let seq = board.status_of("seq");
    seq.arrange(&["source".into(), "even-filter".into(), "cassandra".into(), "dead letters".into()]);
    // 1000 rows found, one could not be read; of the 999, 499 odd ones left out; 500 to the sink, which refused two.
    seq.stage("source").add(Counts { rows_in: 1000, rows_out: 999, dead: 1, ..Counts::default() });
    seq.stage("even-filter").add(Counts { rows_in: 999, rows_out: 500, dropped: 499, ..Counts::default() });
    seq.stage("cassandra").add(Counts { rows_in: 500, rows_out: 498, dead: 2, ..Counts::default() });
    seq.stage("dead letters").add(Counts { rows_in: 3, rows_out: 3, ..Counts::default() });
    seq.stage("cassandra").retry();
    seq.stage("even-filter").replaced(0, 2);
    seq.update(|facts| {
        facts.state = State::Running;
        facts.last_error = Some(Trouble { at: NOW - 60_000, message: "sink cassandra: no node answers".to_owned() });
        facts.restarts = 1;
        facts.generation = 3;
        facts.hash = "5f2c9a".to_owned();
        facts.reload =
            Some(Reload { at: NOW - 30_000, kind: "rejected", error: Some("unknown key `tabel`".to_owned()) });
        facts.checkpoint = CheckpointStatus { number: 42, at: NOW - 1_500, took_micros: 12_500, bytes: 2048 };
        facts.progress = Some((500, 2000, "rows"));
        facts.warnings = vec!["the file `seq.toml` can be read by everyone".to_owned()];
        facts.connectors = Connectors { source: "rate".to_owned(), sinks: vec!["cassandra".to_owned()] };
    });
    let trouble = Trouble { at: NOW - 5_000, message: "source: can't connect to 127.0.0.1:9999".to_owned() };
    for (name, source, state, error) in [
        ("broken", "", State::Failed, Some("broken.toml:3:1: unknown key `soruce`")),
        ("done", "file", State::Completed, None),
        ("opening", "rate", State::Starting, None),
        ("stopped-by-row", "file", State::Stopped, Some("row 3: not a number")),
        ("stopped", "rate", State::Stopped, None),
        ("waiting", "kafka", State::Retrying, Some(trouble.message.as_str())),
        ("odd \"name\"\\\n", "rate", State::Running, None),
    ] {
        board.status_of(name).update(|facts| {
            facts.state = state;
            facts.connectors.source = source.to_owned();
            facts.first_error = error.map(|message| Trouble { at: trouble.at, message: message.to_owned() });
            facts.last_error = facts.first_error.clone();
        });
    }
    board.set_pass(Pass {
        at: NOW - 30_000,
        generation: 7,
        changed: 1,
        errors: vec![("broken.toml".to_owned(), "unknown key `soruce`\n  did you mean `source`?".to_owned())],
    });
    (board, requests)
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn shapes() {
    let (board, _requests) = board();
    let status = |name: &str| ConnectorStatus::at(&board.pipeline(name).unwrap(), "127.0.0.1:8083", NOW);
    insta::assert_snapshot!("status_running", pretty(&status("seq")));
    insta::assert_snapshot!("status_never_ran", pretty(&status("broken")));
    insta::assert_snapshot!("status_retrying", pretty(&status("waiting")));
    insta::assert_snapshot!("connector", pretty(&ConnectorInfo::of(&board.pipeline("seq").unwrap())));
    insta::assert_snapshot!("health", pretty(&Health::at(&board, NOW)));
    insta::assert_snapshot!("ready", pretty(&Ready::of(&board)));
}

#[test]
fn states_in_connects_words() {
    let (board, _requests) = board();
    let words = |name: &str| {
        let status = board.pipeline(name).unwrap();
        let shown = ConnectorStatus::at(&status, "w", NOW);
        (connect_state(&status.facts()), shown.tasks.len(), shown.connector.trace.is_some(), shown.kind)
    };
    assert_eq!(words("seq"), ("RUNNING", 1, false, "source"));
    assert_eq!(words("broken"), ("FAILED", 0, true, "unknown"));
    assert_eq!(words("done"), ("STOPPED", 0, false, "source"));
    assert_eq!(words("opening"), ("UNASSIGNED", 1, false, "source"));
    assert_eq!(words("stopped-by-row"), ("FAILED", 1, true, "source"));
    assert_eq!(words("stopped"), ("STOPPED", 0, false, "source"));
    assert_eq!(words("waiting"), ("RESTARTING", 1, true, "sink"));
}

#[test]
fn metrics_text() {
    let (board, _requests) = board();
    let process = Process {
        cpu_seconds: 1.25,
        resident_bytes: Some(40 << 20),
        virtual_bytes: Some(6 << 30),
        open_fds: Some(17),
        max_fds: None,
    };
    let text = metrics::render(&board, &info(), &process, NOW);
    insta::assert_snapshot!("metrics", text);
    let metrics = Metrics::parse(&text).unwrap();
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    assert_eq!(value("acequia_checkpoint_age_seconds", &[("pipeline", "seq")]), Some(1.5));
    assert_eq!(value("acequia_checkpoint_age_seconds", &[("pipeline", "done")]), None, "it has no checkpoint");
    assert_eq!(value("acequia_pipeline_restarts_total", &[("pipeline", "odd \"name\"\\\n")]), Some(0.0));
    assert_eq!(value("process_max_fds", &[]), None, "unlimited");
    // Invariant 3, stage by stage.
    for stage in ["source", "even-filter", "cassandra", "dead letters"] {
        let rows = |kind: &str| {
            let labels = [("pipeline", "seq"), ("stage", stage)];
            value(&format!("acequia_rows_{kind}_total"), &labels).unwrap()
        };
        assert_eq!(rows("in") + rows("added"), rows("out") + rows("dropped") + rows("dead"), "{stage}");
    }
    // Every pipeline is in exactly one state.
    for name in board.pipelines().keys() {
        let is = |state: State| value("acequia_pipeline_state", &[("pipeline", name), ("state", state.name())]);
        let states: f64 = State::ALL.iter().map(|&state| is(state).unwrap()).sum();
        assert_eq!(states, 1.0, "{name}");
    }
}

#[test]
fn an_empty_daemon_has_metrics_too() {
    let (board, _requests) = Board::new();
    let text = metrics::render(&board, &info(), &Process::default(), NOW);
    let metrics = Metrics::parse(&text).unwrap();
    assert_eq!(metrics.value("acequia_ready", &[]), Some(0.0));
    assert_eq!(metrics.value("acequia_config_last_reload_timestamp_seconds", &[]), Some(0.0));
}

#[test]
fn over_the_wire() {
    let (board, _requests) = board();
    let server = Server::start(board.clone());

    let health = server.get("/health");
    assert_eq!((health.status, health.content_type.as_str()), (200, "application/json"));
    assert_eq!(health.json()["pipelines"]["RUNNING"], 2);

    let ready = server.get("/ready");
    assert_eq!(ready.status, 503);
    board.set_ready(true);
    let ready = server.get("/ready");
    assert_eq!(ready.status, 200);
    let troubled: Vec<Value> = ready.json()["troubled"].as_array().unwrap().clone();
    assert_eq!(troubled.iter().map(|each| &each["pipeline"]).collect::<Vec<_>>(), ["broken", "waiting"]);

    let metrics = server.get("/metrics");
    assert_eq!((metrics.status, metrics.content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let metrics = Metrics::parse(&metrics.body).unwrap();
    assert_eq!(metrics.value("acequia_ready", &[]), Some(1.0));
    assert!(metrics.value("process_cpu_seconds_total", &[]).unwrap() > 0.0);

    let root = server.get("/").json();
    assert_eq!(root["version"], "0.1.0");
    assert_eq!(root["commit"], "unknown");
    assert_eq!(root["kafka_cluster_id"], Value::Null);
    assert_eq!(root["acequia"]["state_dir"], "/var/lib/acequia");

    let head = server.send("HEAD", "/health", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn connectors_over_the_wire() {
    let (board, _requests) = board();
    let server = Server::start(board);
    let names = json!(["broken", "done", "odd \"name\"\\\n", "opening", "seq", "stopped", "stopped-by-row", "waiting"]);
    assert_eq!(server.get("/connectors").json(), names);
    assert_eq!(server.get("/connectors/").json(), names);

    let both = server.get("/connectors?expand=status&expand=info").json();
    assert_eq!(both.as_object().unwrap().len(), 8);
    assert_eq!(both["seq"]["status"]["connector"]["state"], "RUNNING");
    assert_eq!(both["seq"]["status"]["connector"]["worker_id"], server.address.to_string());
    assert_eq!(both["seq"]["info"]["tasks"], json!([{"connector": "seq", "task": 0}]));
    let info = server.get("/connectors?expand=info").json();
    assert_eq!(info["seq"]["info"]["config"]["connector.class"], "rate");
    assert!(info["seq"].get("status").is_none());
    assert_eq!(server.get("/connectors?expand=topics").json()["seq"], json!({}));

    let connector = server.get("/connectors/seq");
    assert_eq!(connector.json()["type"], "source");
    let status = server.get("/connectors/waiting/status").json();
    assert_eq!(status["tasks"][0]["trace"], "source: can't connect to 127.0.0.1:9999");
    assert_eq!(status["acequia"]["state"], "RETRYING");
    let odd = server.get("/connectors/odd%20%22name%22%5C%0A/status").json();
    assert_eq!(odd["name"], "odd \"name\"\\\n");
}

fn error(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body["error_code"], answer.status);
    assert_eq!(body.as_object().unwrap().len(), 2);
    assert_eq!(answer.content_type, "application/json");
    (answer.status, body["message"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_wrong_is_said_as_connect_says_it() {
    let (board, _requests) = board();
    let server = Server::start(board);
    assert_eq!(error(&server.get("/connectors/nobody")), (404, "Connector nobody not found".to_owned()));
    assert_eq!(
        error(&server.get("/connectors/nobody/status")),
        (404, "No status found for connector nobody".to_owned())
    );
    assert_eq!(error(&server.get("/connectors/%FF/status")).0, 404);
    assert_eq!(error(&server.get("/nothing/here")), (404, "HTTP 404 Not Found".to_owned()));
    assert_eq!(error(&server.get("/reload")), (405, "HTTP 405 Method Not Allowed".to_owned()));
    assert_eq!(server.get("/reload").header("allow"), Some("POST"));
    assert_eq!(error(&server.send("DELETE", "/connectors/seq", "")).0, 405);
    assert_eq!(error(&server.send("POST", "/reload", &"x".repeat(65_537))).0, 413);
    // It is no HTTP at all, or far too long: whatever becomes of that connection, the next one is answered.
    let _ = server.raw(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n");
    let _ = server.raw(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).as_bytes());
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_reload_says_what_became_of_it() {
    let (board, mut requests) = board();
    let server = Server::start(board.clone());
    let passes = [
        Pass { at: NOW, generation: 8, changed: 2, errors: Vec::new() },
        Pass {
            at: NOW,
            generation: 8,
            changed: 0,
            errors: vec![("broken.toml".to_owned(), "broken.toml:3:1: unknown key `soruce`".to_owned())],
        },
    ];
    let supervisor = server.spawn(async move {
        for pass in passes {
            let request = requests.recv().await.unwrap();
            request.send(pass).unwrap();
        }
        // Then it is on its way out.
    });
    let good = server.send("POST", "/reload", "{}");
    assert_eq!((good.status, good.json()), (200, json!({"generation": 8, "changed": 2, "errors": []})));
    let bad = server.send("POST", "/reload", "");
    assert_eq!(bad.status, 422);
    insta::assert_snapshot!("reload_with_errors", pretty(&bad.json()));
    server.wait(supervisor);
    assert_eq!(error(&server.send("POST", "/reload", "")), (503, "the daemon is on its way out".to_owned()));
}

#[test]
fn a_page_of_another_site_can_not_reload() {
    let (board, mut requests) = board();
    let server = Server::start(board);
    let request = format!(
        "POST /reload HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        server.address
    );
    let answer = Answer::parse(&server.raw(request.as_bytes()));
    assert_eq!(error(&answer).0, 403);
    assert!(requests.try_recv().is_err(), "nobody was asked");
}

#[test]
fn a_client_that_dawdles_does_not_hold_the_daemon() {
    let (board, _requests) = board();
    let server = Server::start(board);
    let half = server.connect(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    let silent = server.connect(b"");
    assert_eq!(server.get("/health").status, 200);
    let address = server.address;
    let took = server.stop();
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    drop((half, silent));
    assert!(std::net::TcpStream::connect(address).is_err(), "it still listens");
}

#[tokio::test]
async fn listens_on_loopback_only_unless_told() {
    let free = bind("127.0.0.1:0", Exposure::Loopback).await.unwrap();
    assert!(free.local_addr().unwrap().ip().is_loopback());
    let error = bind("0.0.0.0:0", Exposure::Loopback).await.unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"will not listen on 0.0.0.0:0, which other machines can reach: the admin listener has no authentication; listen on 127.0.0.1 and put a proxy that asks for a password, or an SSH tunnel, before it");
    for exposed in ["[::]:0", "192.0.2.1:8083", "[::ffff:192.0.2.1]:0"] {
        let error = bind(exposed, Exposure::Loopback).await.unwrap_err();
        assert!(matches!(error, BindError::Exposed { .. }), "{exposed}: {error}");
    }
    let told = bind("0.0.0.0:0", Exposure::Anywhere).await.unwrap();
    assert!(told.local_addr().unwrap().ip().is_unspecified());

    let taken: SocketAddr = free.local_addr().unwrap();
    let error = bind(&taken.to_string(), Exposure::Loopback).await.unwrap_err();
    assert!(matches!(error, BindError::Listen { .. }), "{error}");
    for nonsense in ["8083", "127.0.0.1", "127.0.0.1:99999", ""] {
        let error = bind(nonsense, Exposure::Loopback).await.unwrap_err();
        assert!(error.to_string().ends_with("give HOST:PORT, for instance 127.0.0.1:8083"), "{nonsense}: {error}");
    }
}
