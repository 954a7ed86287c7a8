//! The other verbs, as processes.

use std::fs;

use acequia_tests::{Daemon, evil_plugin, out_dir, plugin, run, workspace};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn validate(daemon: &Daemon, more: &[&str]) -> acequia_tests::Exit {
    let plugins = out_dir().join("plugins").display().to_string();
    let pipelines = daemon.pipelines().display().to_string();
    run(&[&["validate", &pipelines, "--plugins", &plugins], more].concat())
}

#[test]
fn validate_says_where_and_what_would_be_right() {
    let daemon = Daemon::new();
    daemon.pipeline("good", "[source]\ntype = \"rate\"\n[[sink]]\ntype = \"blackhole\"\n");
    assert_eq!(validate(&daemon, &[]).code, Some(0));
    daemon.pipeline("key", "[source]\ntype = \"rate\"\nrow_per_second = 1\n[[sink]]\ntype = \"blackhole\"\n");
    daemon.pipeline(
        "plugin",
        "[source]\ntype = \"rate\"\n[[transform]]\nplugin = \"evenfilter\"\n[[sink]]\ntype = \"blackhole\"\n",
    );
    daemon.pipeline(
        "column",
        "[source]\ntype = \"rate\"\n[[transform]]\nplugin = \"even-filter\"\nconfig = { column = \"valu\" }\n\
         [[sink]]\ntype = \"blackhole\"\n",
    );
    let sink = |name: &str| format!("[source]\ntype = \"rate\"\n[[sink]]\ntype = \"file\"\npath = \"{name}\"\n");
    daemon.pipeline("one", &sink("same.jsonl"));
    daemon.pipeline("two", &sink("./same.jsonl"));
    let exit = validate(&daemon, &[]);
    assert_eq!(exit.code, Some(1));
    let good: Vec<&str> = exit.stdout.lines().collect();
    assert_eq!(good.len(), 2, "{}", exit.stdout);
    for part in [
        "key.toml:3:1",
        "did you mean `rows_per_second`?",
        "plugin.toml:4:10",
        "even-filter",
        "column.toml:5:12",
        "did you mean `value`?",
        "two.toml:3:1",
        "same.jsonl",
    ] {
        assert!(exit.stderr.contains(part), "{part} in\n{}", exit.stderr);
    }
    let verdicts = json(&validate(&daemon, &["--json"]).stdout);
    let wrong: Vec<_> = verdicts.as_array().unwrap().iter().filter(|verdict| verdict["ok"] == false).collect();
    assert_eq!(wrong.len(), 4, "{verdicts}");
    let key = wrong.iter().find(|verdict| verdict["file"].as_str().unwrap().ends_with("key.toml")).unwrap();
    assert_eq!((&key["diagnostics"][0]["line"], &key["diagnostics"][0]["column"]), (&3.into(), &1.into()));
}

/// A build server has neither the variables nor the secrets of the machine that will run it.
#[test]
fn validate_without_the_environment() {
    let daemon = Daemon::new();
    daemon.pipeline(
        "env",
        "[source]\ntype = \"rate\"\nrows_per_second = \"${ACEQUIA_TEST_NOT_SET}\"\n\
         [[sink]]\ntype = \"file\"\npath = \"${ACEQUIA_TEST_NOT_SET}/out.jsonl\"\n",
    );
    let exit = validate(&daemon, &[]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("ACEQUIA_TEST_NOT_SET") && exit.stderr.contains("env.toml:3:20"), "{}", exit.stderr);
    let exit = validate(&daemon, &["--no-env"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[test]
fn a_path_that_is_not_there_is_said() {
    let daemon = Daemon::new();
    let gone = daemon.folder().join("gone").display().to_string();
    for arguments in [
        vec!["validate", &gone],
        vec!["run", &gone, "--once", "--state", &daemon.folder().join("state").display().to_string()],
    ] {
        let exit = run(&arguments);
        assert_eq!(exit.code, Some(1), "{arguments:?}: {}", exit.stderr);
        assert!(exit.stderr.contains(&gone) && exit.stderr.contains("No such file"), "{arguments:?}: {}", exit.stderr);
    }
}

#[test]
fn schema_is_one_for_editors() {
    let exit = run(&["schema"]);
    assert_eq!(exit.code, Some(0));
    let schema = json(&exit.stdout);
    for key in ["description", "source", "transform", "sink", "errors", "delivery"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
    for part in ["rows_per_second", "checkpoint_interval", "\"blackhole\"", "dead_letter"] {
        assert!(exit.stdout.contains(part), "{part}");
    }
}

#[test]
fn connectors_are_listed_with_examples_that_are_right() {
    let exit = run(&["connectors"]);
    assert_eq!(exit.code, Some(0));
    for name in ["rate", "socket", "file", "console", "blackhole"] {
        assert!(exit.stdout.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
    }
    let list = json(&run(&["connectors", "--json"]).stdout);
    let daemon = Daemon::new();
    for (number, connector) in list.as_array().unwrap().iter().enumerate() {
        let example = connector["example"].as_str().unwrap();
        let text = match connector["kind"].as_str().unwrap() {
            "source" => format!("{example}\n[[sink]]\ntype = \"blackhole\"\n"),
            _ => format!("[source]\ntype = \"rate\"\n{example}"),
        };
        daemon.pipeline(&format!("example{number}"), &text);
    }
    let exit = validate(&daemon, &["--no-env"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[test]
fn inspect_says_what_a_plugin_is() {
    let inspect = |path: &std::path::Path| {
        let exit = run(&["plugin", "inspect", "--json", &path.display().to_string()]);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        json(&exit.stdout)
    };
    for name in ["even-filter", "word-count", "sine-wave", "triangle-wave", "uuid", "select"] {
        let found = inspect(&plugin(name));
        assert_eq!(found["contract"], "0.1.0", "{name}");
        assert_eq!(found["stateful"], name == "word-count", "{name}");
        assert_eq!(found["ticking"], false, "{name}");
        let grants: &[&str] = if name == "uuid" { &["random"] } else { &[] };
        assert_eq!(found["grants"], serde_json::json!(grants), "{name}");
        assert_eq!(found["size"], fs::metadata(plugin(name)).unwrap().len(), "{name}");
    }
    assert_eq!(inspect(&evil_plugin("evil-ticking"))["ticking"], true);
    let exit = run(&["plugin", "inspect", &plugin("uuid").display().to_string()]);
    assert!(exit.stdout.lines().any(|line| line.starts_with("grants") && line.ends_with("random")), "{}", exit.stdout);
    let readme = workspace().join("Cargo.toml").display().to_string();
    for (path, message) in [(readme.as_str(), "not a WebAssembly component"), ("gone.wasm", "No such file")] {
        let exit = run(&["plugin", "inspect", path]);
        assert_eq!(exit.code, Some(1));
        assert!(exit.stderr.contains(message) && exit.stderr.contains(path), "{}", exit.stderr);
    }
}

#[test]
fn status_of_a_running_daemon_and_of_none() {
    let mut daemon = Daemon::new();
    daemon.pipeline("good", "[source]\ntype = \"rate\"\nrows_per_second = 100\n[[sink]]\ntype = \"blackhole\"\n");
    daemon.start();
    daemon.wait_state("good", "RUNNING");
    let address = daemon.rest().address;
    let port = address.rsplit_once(':').unwrap().1.to_owned();
    let exit = run(&["status", "--address", &format!("localhost:{port}")]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let words: Vec<&str> = exit.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["NAME", "STATE", "IN", "OUT", "DROPPED", "DEAD", "LAST", "ERROR"]);
    // One that failed makes it fail, and is told with its error.
    daemon.pipeline("bad", "[source]\ntype = \"rat\"\n");
    daemon.wait_state("bad", "FAILED");
    let exit = run(&["status", "--address", &address]);
    assert_eq!(exit.code, Some(1), "{}", exit.stdout);
    let line = exit.stdout.lines().find(|line| line.starts_with("bad")).unwrap();
    assert!(line.contains("FAILED") && line.contains("bad.toml"), "{line}");
    let status = json(&run(&["status", "--address", &address, "--json"]).stdout);
    assert_eq!(status["connectors"]["good"]["status"]["connector"]["state"], "RUNNING");
    assert_eq!(daemon.stop().code, Some(0));
    let exit = run(&["status", "--address", &address]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains(&format!("no daemon answers at {address}")), "{}", exit.stderr);
}
