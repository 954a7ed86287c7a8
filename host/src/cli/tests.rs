//! The verbs as a shell sees them, over a backend that says what it is told to.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::backend::PlanCheck;
use super::*;
use crate::config::plugins::PluginPath;
use crate::config::test_connectors::registry;
use crate::config::{Diagnostic, Diagnostics, PipelineConfig};
use crate::daemon::RunOptions;

#[derive(Default)]
struct Fake {
    ran: Mutex<Option<RunOptions>>,
    /// What a check says of each transform.
    wrong: Option<&'static str>,
}

impl Backend for Fake {
    fn run(&self, options: RunOptions) -> anyhow::Result<ExitCode> {
        *self.ran.lock().unwrap() = Some(options);
        Ok(ExitCode::SUCCESS)
    }

    fn checker(&self, plugins: &[PathBuf]) -> anyhow::Result<Box<dyn PlanCheck>> {
        Ok(Box::new(FakeCheck { plugins: PluginPath::new(plugins, None, None), wrong: self.wrong }))
    }

    fn inspect(&self, file: &Path) -> anyhow::Result<Value> {
        anyhow::ensure!(file.ends_with("good.wasm"), "{} is not a component", file.display());
        Ok(json!({ "contract": "0.1.0", "stateful": true, "ticking": false, "imports": ["a", "b"], "grants": [] }))
    }
}

struct FakeCheck {
    plugins: PluginPath,
    wrong: Option<&'static str>,
}

impl PlanCheck for FakeCheck {
    fn check(&mut self, config: &PipelineConfig) -> Result<(), Diagnostics> {
        let mut found = Diagnostics::default();
        for stage in &config.transforms {
            match self.plugins.resolve(config, stage) {
                Err(missing) => found.0.extend(missing.0),
                Ok(_) => {
                    let wrong = self.wrong.map(|wrong| Diagnostic::in_config(config, stage.place.clone(), wrong));
                    found.0.extend(wrong);
                }
            }
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

struct Seen {
    code: ExitCode,
    out: String,
    err: String,
}

impl Seen {
    /// `ExitCode` can only be compared by what it prints.
    fn is(&self, code: u8) -> bool {
        format!("{:?}", self.code) == format!("{:?}", ExitCode::from(code))
    }
}

fn acequia(backend: &Fake, arguments: &[&str]) -> Seen {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = Output { out: &mut out, err: &mut err, colours_out: false, colours_err: false };
    let arguments = ["acequia"].iter().chain(arguments).map(OsString::from);
    let code = execute(arguments, backend, &registry(), &mut output);
    Seen { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

const GOOD: &str = "[source]\ntype = \"count\"\n[[sink]]\ntype = \"null\"\n";

fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let path = folder.path().display().to_string();
    (folder, path)
}

#[test]
fn version_help_and_mistakes() {
    let seen = acequia(&Fake::default(), &["--version"]);
    assert!(seen.is(0));
    assert_eq!(seen.out, concat!("acequia ", env!("CARGO_PKG_VERSION"), "\n"));
    let seen = acequia(&Fake::default(), &["--help"]);
    insta::assert_snapshot!("help", seen.out);
    let seen = acequia(&Fake::default(), &["run"]);
    assert!(seen.is(2) && seen.out.is_empty() && seen.err.contains("PATH"), "{}", seen.err);
}

#[test]
fn run_hands_its_options_on() {
    let fake = Fake::default();
    let seen = acequia(
        &fake,
        &[
            "run",
            "a",
            "b.toml",
            "--state",
            "s",
            "--plugins",
            "p",
            "--plugins",
            "q",
            "--listen",
            "127.0.0.1:8083",
            "--once",
        ],
    );
    assert!(seen.is(0), "{}", seen.err);
    let options = fake.ran.lock().unwrap().take().unwrap();
    assert_eq!(options.paths, [PathBuf::from("a"), PathBuf::from("b.toml")]);
    assert_eq!(options.state, PathBuf::from("s"));
    assert_eq!(options.plugins, [PathBuf::from("p"), PathBuf::from("q")]);
    assert_eq!(options.listen, Some(SocketAddr::from(([127, 0, 0, 1], 8083))));
    assert!(options.once);
}

#[test]
fn validate_says_ok_or_what_is_wrong() {
    let broken = GOOD.replace("type = \"count\"", "type = \"cuont\"");
    let (_folder, path) = folder(&[("a.toml", GOOD), ("b.toml", &broken)]);
    let seen = acequia(&Fake::default(), &["validate", &path, &format!("{path}/gone")]);
    assert!(seen.is(1));
    assert_eq!(seen.out, format!("ok {path}/a.toml\n"));
    insta::assert_snapshot!("validate", seen.err.replace(&path, "FOLDER"));

    let seen = acequia(&Fake::default(), &["validate", "--json", &path]);
    assert!(seen.is(1) && seen.err.is_empty());
    insta::assert_snapshot!("validate_json", seen.out.replace(&path, "FOLDER"));

    let seen = acequia(&Fake::default(), &["validate", &format!("{path}/a.toml")]);
    assert!(seen.is(0) && seen.err.is_empty());
}

#[test]
fn validate_without_pipelines() {
    let (_folder, path) = folder(&[]);
    let seen = acequia(&Fake::default(), &["validate", &path]);
    assert!(seen.is(1));
    assert_eq!(seen.err, "error: there is no pipeline (*.toml) in the folders given\n");
}

#[test]
fn validate_asks_the_plugins() {
    let text = format!("{GOOD}[[transform]]\nplugin = \"one\"\n");
    let (_folder, path) = folder(&[("a.toml", &text), ("one.wasm", "")]);
    let fake = Fake { wrong: Some("`colum` is not a key of even-filter"), ..Fake::default() };
    let seen = acequia(&fake, &["validate", &path, "--plugins", &path]);
    assert!(seen.is(1) && seen.err.contains("`colum` is not a key") && seen.err.contains("a.toml:5:1"), "{}", seen.err);
    let seen = acequia(&Fake::default(), &["validate", &path, "--plugins", &path]);
    assert!(seen.is(0), "{}", seen.err);
    let seen = acequia(&fake, &["validate", &path]);
    assert!(seen.is(1) && seen.err.contains("no plugin `one`") && !seen.err.contains("colum"), "{}", seen.err);
}

#[test]
fn validate_without_the_environment() {
    let text = "[source]\ntype = \"count\"\nrows = \"${ACEQUIA_TEST_NO_SUCH}\"\n[[sink]]\ntype = \"null\"\n";
    let (_folder, path) = folder(&[("a.toml", text)]);
    let seen = acequia(&Fake::default(), &["validate", &path]);
    assert!(seen.is(1) && seen.err.contains("`ACEQUIA_TEST_NO_SUCH` is not set"), "{}", seen.err);
    let seen = acequia(&Fake::default(), &["validate", "--no-env", &path]);
    assert!(seen.is(0), "{}", seen.err);
}

#[test]
fn without_the_environment_a_plugin_may_say_what_it_likes_of_a_variable() {
    let transform = |config: &str| format!("[[transform]]\nplugin = \"one\"\nconfig = {{ column = \"{config}\" }}\n");
    let (known, unknown) = (transform("value"), transform("${ACEQUIA_TEST_NO_SUCH}"));
    let fake = Fake { wrong: Some("no such column"), ..Fake::default() };
    let check = |transforms: String| {
        let (_folder, path) = folder(&[("a.toml", &format!("{GOOD}{transforms}")), ("one.wasm", "")]);
        let seen = acequia(&fake, &["validate", "--no-env", "--plugins", &path, &path]);
        seen.err.matches("no such column").count()
    };
    assert_eq!(check(unknown.clone()), 0);
    assert_eq!(check(format!("{unknown}{known}")), 0, "its columns are those of the unknown one");
    assert_eq!(check(format!("{known}{unknown}{known}")), 1);
    assert_eq!(check(format!("{known}{known}")), 2);
}

#[test]
fn validate_sees_what_two_pipelines_want() {
    let text = GOOD.replace("[[sink]]", "port = 1\nlisten = true\n[[sink]]");
    let (_folder, path) = folder(&[("a.toml", &text), ("b.toml", &text)]);
    let seen = acequia(&Fake::default(), &["validate", &path]);
    assert!(seen.is(1) && seen.out == format!("ok {path}/a.toml\n"), "{}", seen.out);
    assert!(seen.err.contains("`port 1` is taken"), "{}", seen.err);
}

#[test]
fn connectors_schema_and_inspect() {
    let seen = acequia(&Fake::default(), &["connectors"]);
    let want = "NAME   KIND    WHAT\ncount  source  Numbers from 0.\nlines  source  Lines of a file.\n\
                lines  sink    Lines of a file.\nnull   sink    Nothing.\n";
    assert_eq!(seen.out, want);
    let seen = acequia(&Fake::default(), &["connectors", "--json"]);
    let list: Value = serde_json::from_str(&seen.out).unwrap();
    assert_eq!(list[0]["name"], "count");

    let schema: Value = serde_json::from_str(&acequia(&Fake::default(), &["schema"]).out).unwrap();
    assert_eq!(schema["required"], json!(["source", "sink"]));

    let seen = acequia(&Fake::default(), &["plugin", "inspect", "good.wasm"]);
    assert_eq!(seen.out, "contract  0.1.0\nstateful  yes\nticking   no\nimports   a\n          b\ngrants    none\n");
    let seen = acequia(&Fake::default(), &["plugin", "inspect", "bad.wasm"]);
    assert!(seen.is(1));
    assert_eq!(seen.err, "error: bad.wasm is not a component\n");
}

/// Answers each of the requests, in order, with its status and body; then ends. Returns the paths that were asked for.
fn serve(answers: Vec<(u16, String)>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            asked.push(line.split(' ').nth(1).unwrap_or_default().to_owned());
            while !line.trim().is_empty() {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let mut stream = reader.into_inner();
            stream.write_all((head + &body).as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Whatever the client still says is read before the connection goes, so that nothing is reset.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        asked
    });
    (address, server)
}

fn pipeline(state: &str, last_error: Value) -> Value {
    let stage = |id: &str, rows_in: u64, rows_out: u64, dropped: u64, dead: u64| json!({ "id": id, "rows_in": rows_in, "rows_out": rows_out, "dropped": dropped, "added": 0, "dead": dead });
    json!({ "status": {
        "name": "seq",
        "connector": { "state": if state == "FAILED" { state } else { "RUNNING" }, "worker_id": "127.0.0.1:8083" },
        "tasks": [{ "id": 0, "state": state, "worker_id": "127.0.0.1:8083" }],
        "type": "source",
        "acequia": {
            "state": state,
            "last_error": last_error,
            "sinks": ["file", "console"],
            "stages": [
                stage("source", 10, 9, 0, 1),
                stage("even-filter", 9, 5, 4, 0),
                stage("file", 5, 5, 0, 0),
                stage("console", 3, 2, 0, 1),
                stage("dead-letter", 2, 2, 0, 0),
            ],
        },
    }})
}

#[test]
fn status_shows_the_pipelines() {
    let error = json!({ "at": 1, "message": "the plugin \u{1b}[31mtrapped\n  at 0x1" });
    let connect_only = json!({ "status": { "connector": { "state": "PAUSED", "worker_id": "w" }, "tasks": [] } });
    let connectors = json!({
        "other": connect_only,
        "seq": pipeline("RETRYING", Value::Null),
        "words": pipeline("FAILED", error),
    });
    let (address, server) = serve(vec![(200, "{}".to_owned()), (200, connectors.to_string())]);
    let seen = acequia(&Fake::default(), &["status", "--address", &address]);
    assert_eq!(server.join().unwrap(), ["/health", "/connectors?expand=status"]);
    assert!(seen.is(1), "one has failed: {}", seen.err);
    let want = "NAME   STATE     IN  OUT  DROPPED  DEAD  LAST ERROR\n\
                other  PAUSED    0   0    0        0\n\
                seq    RETRYING  10  2    4        2\n\
                words  FAILED    10  2    4        2     the plugin [31mtrapped\n";
    assert_eq!(seen.out, want);
}

#[test]
fn status_as_json_and_the_health() {
    let connectors = json!({ "seq": pipeline("RUNNING", Value::Null) });
    let (address, server) = serve(vec![(200, "{\"ok\":true}".to_owned()), (200, connectors.to_string())]);
    let seen = acequia(&Fake::default(), &["status", "--json", "--address", &address]);
    server.join().unwrap();
    assert!(seen.is(0), "{}", seen.err);
    let answer: Value = serde_json::from_str(&seen.out).unwrap();
    assert_eq!(answer["connectors"]["seq"]["status"]["acequia"]["stages"][0]["rows_out"], 9);
    assert_eq!(answer["health"]["ok"], true);

    let (address, server) = serve(vec![(503, "the engine hangs".to_owned()), (200, "{}".to_owned())]);
    let seen = acequia(&Fake::default(), &["status", "--address", &address]);
    server.join().unwrap();
    assert!(seen.is(1));
    assert_eq!(
        (seen.out.as_str(), seen.err.as_str()),
        ("no pipelines\n", "the daemon is not healthy: the engine hangs\n")
    );
}

#[test]
fn status_of_something_else() {
    let (address, server) = serve(vec![(404, "<html>".to_owned()), (404, "<html>".to_owned())]);
    let seen = acequia(&Fake::default(), &["status", "--address", &address]);
    server.join().unwrap();
    assert!(seen.is(1) && seen.err.contains("does not tell its pipelines"), "{}", seen.err);
    // Nobody listens there any more.
    let seen = acequia(&Fake::default(), &["status", "--address", &address]);
    assert!(seen.is(1) && seen.err.contains("no daemon answers at"), "{}", seen.err);
}
