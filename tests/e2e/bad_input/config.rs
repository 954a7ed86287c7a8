//! Files that are no right pipelines: what `validate` says, and what the status of a running daemon says.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use acequia_tests::{Account, Daemon};
use serde_json::Value;

use super::{steady, validate};

const RATE: &str = "source = { type = \"rate\", rows = 10 }\n";
const SINK: &str = "sink = [{ type = \"blackhole\" }]\n";

fn transform(table: &str) -> String {
    format!("{RATE}transform = [{{ {table} }}]\n{SINK}")
}

/// Name of the file, and its text.
fn broken(port: u16) -> Vec<(&'static str, String)> {
    let listen = format!("source = {{ type = \"socket\", address = \"127.0.0.1:{port}\", listen = true }}\n{SINK}");
    vec![
        ("unknown-key", "[source]\ntype = \"rate\"\nrow_per_second = 5\n\n[[sink]]\ntype = \"blackhole\"\n".to_owned()),
        ("unknown-table", format!("{RATE}{SINK}[deliver]\ntasks = 1\n")),
        ("unknown-connector", format!("source = {{ type = \"rat\" }}\n{SINK}")),
        ("wrong-type", format!("source = {{ type = \"rate\", rows_per_second = true }}\n{SINK}")),
        ("wrong-unit", format!("{RATE}{SINK}delivery = {{ checkpoint_interval = 5 }}\n")),
        ("wrong-value", format!("{RATE}{SINK}errors = {{ on_error = \"ignore\" }}\n")),
        ("missing-plugin", transform("plugin = \"even-fliter\"")),
        ("missing-plugin-file", transform("plugin = \"./even-filter.wasm\"")),
        ("missing-column", transform("plugin = \"even-filter\", config = { column = \"valeu\" }")),
        (
            "missing-column-behind-a-transform",
            format!(
                "{RATE}transform = [{{ plugin = \"select\", config = {{ drop = [\"value\"] }} }}, {{ plugin = \"even-filter\" }}]\n{SINK}"
            ),
        ),
        (
            "missing-column-of-a-sink",
            format!("{RATE}sink = [{{ type = \"file\", path = \"x\", format = \"text\", value = \"words\" }}]\n"),
        ),
        (
            "column-that-can-not-be-cast",
            transform("plugin = \"select\", config = { cast = { value = \"timestamp\" } }"),
        ),
        ("plugin-config", transform("plugin = \"triangle-wave\", config = { length = \"long\" }")),
        ("port-2", listen),
        ("same-file-2", format!("{RATE}sink = [{{ type = \"file\", path = \"../out/same.jsonl\" }}]\n")),
        ("no-sink", RATE.to_owned()),
        ("syntax", "[source\ntype = \"rate\"\n".to_owned()),
        ("two-tables", "[source]\ntype = \"rate\"\n[source]\ntype = \"rate\"\n".to_owned()),
        ("nul-byte", format!("{RATE}{SINK}\0")),
        ("empty", String::new()),
        ("deep-array", format!("{RATE}{SINK}x = {}{}\n", "[".repeat(100_000), "]".repeat(100_000))),
        ("deep-table", format!("{RATE}{SINK}x = {}1{}\n", "{ a = ".repeat(100_000), " }".repeat(100_000))),
        ("deep-key", format!("{RATE}{SINK}{}x = 1\n", "a.".repeat(100_000))),
        ("deep-header", format!("{RATE}{SINK}[{}x]\n", "a.".repeat(100_000))),
        ("deep-config", transform(&format!("plugin = \"select\", config.{}x = 1", "a.".repeat(2000)))),
        ("too-large", format!("{RATE}{SINK}# {}\n", "x".repeat(4 << 20))),
        (
            "two-exactly-once",
            format!(
                "{RATE}{}",
                "[[sink]]\ntype = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\ntopic = \"t\"\ndelivery = \"exactly_once\"\n"
                    .repeat(2)
            ),
        ),
        ("tasks-of-a-source-that-is-one", format!("{RATE}{SINK}delivery = {{ tasks = 2 }}\n")),
        (
            "several",
            "[source]\ntype = \"rate\"\nrow = 5\nrows_per_second = -1\n[[sink]]\ntype = \"blackhol\"\n".to_owned(),
        ),
    ]
}

/// As [`broken`], and right.
fn right(port: u16) -> Vec<(&'static str, String)> {
    let mut large = format!("{RATE}{SINK}# ");
    large.push_str(&"x".repeat((4 << 20) - large.len()));
    vec![
        ("crlf", format!("{RATE}{SINK}").replace('\n', "\r\n")),
        ("bom", format!("\u{feff}{RATE}{SINK}")),
        ("four-mebibytes", large),
        ("A.b_c-1.2", format!("{RATE}{SINK}")),
        ("port-1", format!("source = {{ type = \"socket\", address = \"127.0.0.1:{port}\", listen = true }}\n{SINK}")),
        ("same-file-1", format!("{RATE}sink = [{{ type = \"file\", path = \"../out/same.jsonl\" }}]\n")),
    ]
}

/// Text that would take pages.
fn short(text: &str) -> String {
    let deep =
        regex::Regex::new(r"(\[{20})\[+|(\]{20})\]+|((?:a\.){20})(?:a\.)+|((?:\{ a = ){10})(?:\{ a = )+|(x{20})x+")
            .unwrap();
    deep.replace_all(text, "$1$2$3$4$5[and so on]").into_owned()
}

#[test]
fn a_broken_file_says_where_and_what_and_stops_no_other() {
    // Nobody else gets the port while this lives, and a listener of the daemon may still bind it: it is released first.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut daemon = Daemon::new();
    for (name, text) in broken(port).into_iter().chain(right(port)) {
        daemon.pipeline(name, &text);
    }
    let folder = daemon.pipelines();
    std::fs::write(folder.join("not-utf8.toml"), b"# caf\xe9\n").unwrap();
    symlink(folder.join("nowhere"), folder.join("dangling.toml")).unwrap();
    // Neither is a file that could be read to its end.
    std::fs::create_dir(folder.join("folder.toml")).unwrap();
    let pipe = rustix::fs::CWD;
    rustix::fs::mkfifoat(pipe, folder.join("pipe.toml"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    daemon.start();

    let hidden = |daemon: &Daemon, text: &str| short(&steady(daemon, text)).replace(&port.to_string(), "[port]");
    let mut seen = String::new();
    let mut names: Vec<&str> = broken(port).iter().map(|(name, _)| *name).collect();
    names.extend(["not-utf8", "dangling"]);
    for name in &names {
        let status = daemon.wait_state(name, "FAILED");
        let error = status["acequia"]["last_error"]["message"].as_str().unwrap();
        assert!(error.contains(&format!("{name}.toml")), "{error}");
        assert_eq!(status["connector"]["trace"].as_str(), Some(error));
        seen.push_str(&format!("{}\n", hidden(&daemon, error)));
    }
    insta::assert_snapshot!("config_status", seen);
    for (name, _) in right(port) {
        let state = if name == "port-1" { "RUNNING" } else { "COMPLETED" };
        let status = daemon.wait_state(name, state);
        if state == "COMPLETED" {
            assert_eq!(Account::of(&status).stage("source").rows_in, 10, "{name}");
        }
    }
    let all = daemon.rest().get("/connectors").unwrap();
    assert_eq!(all.as_array().unwrap().len(), names.len() + right(port).len(), "{all}");
    assert_eq!(daemon.stop().code, Some(0));

    let output = validate(&folder, &[]);
    assert_eq!(output.status.code(), Some(1));
    let good = String::from_utf8(output.stdout).unwrap();
    assert_eq!(good.lines().count(), right(port).len(), "{good}");
    let text = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!("config_validate", hidden(&daemon, &text));

    let output = validate(&folder, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
    for verdict in verdicts.as_array().unwrap() {
        let file = verdict["file"].as_str().unwrap();
        let is_right = right(port).iter().any(|(name, _)| file.ends_with(&format!("/{name}.toml")));
        assert_eq!(verdict["ok"], is_right, "{verdict}");
        assert_eq!(verdict["diagnostics"].as_array().unwrap().is_empty(), is_right, "{verdict}");
    }
}

#[test]
fn a_file_whose_name_can_not_be_a_pipeline_s_is_refused_by_name() {
    let mut daemon = Daemon::new();
    let long = "x".repeat(201);
    let names: [&[u8]; 10] = [
        b"two words",
        "a\u{f1}o".as_bytes(),
        b"-dash",
        b"_under",
        b"line\nbreak",
        b"\xff\xfe",
        b"quo\"te",
        b"..",
        b"\x1b[31mred",
        long.as_bytes(),
    ];
    for name in names {
        let file = [name, b".toml"].concat();
        std::fs::write(daemon.pipelines().join(OsStr::from_bytes(&file)), format!("{RATE}{SINK}")).unwrap();
    }
    daemon.pipeline("good", &format!("{RATE}{SINK}"));
    let output = validate(&daemon.pipelines(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains('\u{1b}'), "no control character reaches the terminal: {text:?}");
    insta::assert_snapshot!("config_names", short(&steady(&daemon, &text)));

    daemon.start();
    daemon.wait_state("good", "COMPLETED");
    assert!(!daemon.stderr().contains('\u{1b}'), "nor the log: {:?}", daemon.stderr());
    assert_eq!(daemon.stop().code, Some(0));
}

#[test]
fn without_the_environment_only_what_hangs_on_it_is_left_unchecked() {
    let daemon = Daemon::new();
    let right = daemon.pipeline(
        "right",
        r#"
        source = { type = "rate", rows_per_second = "${ACEQUIA_TEST_NO_SUCH_RATE}" }
        transform = [{ plugin = "even-filter", config = { column = "${ACEQUIA_TEST_NO_SUCH_COLUMN}" } }]
        sink = [{ type = "file", path = "${ACEQUIA_TEST_NO_SUCH_FOLDER}/x.jsonl" }]
        "#,
    );
    let output = validate(&right, &["--no-env"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
    let output = validate(&right, &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("config_env", steady(&daemon, &String::from_utf8_lossy(&output.stderr)));

    let wrong = daemon.pipeline(
        "wrong",
        r#"
        source = { type = "rate", rows_per_second = "${ACEQUIA_TEST_NO_SUCH_RATE}", row = 3 }
        transform = [{ plugin = "even-fliter" }]
        sink = [{ type = "file", path = "${ACEQUIA_TEST_NO_SUCH_FOLDER}/x.jsonl" }]
        "#,
    );
    let output = validate(&wrong, &["--no-env"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("config_no_env", steady(&daemon, &String::from_utf8_lossy(&output.stderr)));
}
