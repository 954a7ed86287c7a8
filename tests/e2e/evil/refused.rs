//! Plugins that are no plugins, or fail before the first row: their pipelines don't start, and all others do.

use std::process::Command;

use acequia_tests::{binary, eventually, evil_plugin};

use super::{Neighbour, daemon, steady};

/// Name of the pipeline, and its transform.
const CASES: [(&str, &str); 16] = [
    ("configure-fails", r#"plugin = "evil", config = { mode = "configure-fails" }"#),
    ("configure-panics", r#"plugin = "evil", config = { mode = "configure-panics" }"#),
    ("configure-loops", r#"plugin = "evil", config = { mode = "configure-loops" }, limits = { time = "200ms" }"#),
    ("config-unknown-key", r#"plugin = "evil", config = { mode = "loop", colum = "value" }"#),
    ("plan-unknown-column", r#"plugin = "evil", config = { mode = "plan-unknown-column" }"#),
    ("plan-duplicate", r#"plugin = "evil", config = { mode = "plan-duplicate" }"#),
    ("plan-tick", r#"plugin = "evil", config = { mode = "plan-tick" }"#),
    ("memory-too-small", r#"plugin = "evil", config = { mode = "loop" }, limits = { memory = "64KiB" }"#),
    ("core-module", r#"plugin = "../core-module.wasm""#),
    ("no-transform", r#"plugin = "../no-transform.wasm""#),
    ("old-contract", r#"plugin = "../old-contract.wasm""#),
    ("unknown-import", r#"plugin = "../unknown-import.wasm""#),
    ("wrong-types", r#"plugin = "../wrong-types.wasm""#),
    ("not-webassembly", r#"plugin = "../not-webassembly.wasm""#),
    ("empty", r#"plugin = "../empty.wasm""#),
    ("cut-short", r#"plugin = "../cut-short.wasm""#),
];

#[test]
fn no_pipeline_but_the_one_with_the_plugin_is_held_up() {
    let mut daemon = daemon();
    daemon.file("not-webassembly.wasm", "#!/bin/sh\necho hello\n");
    daemon.file("empty.wasm", "");
    let whole = std::fs::read(evil_plugin("evil")).unwrap();
    daemon.file("cut-short.wasm", &whole[..whole.len() / 2]);
    for (name, transform) in CASES {
        daemon.pipeline(
            name,
            &format!(
                "source = {{ type = \"rate\" }}\n\
                 transform = [{{ {transform} }}]\n\
                 sink = [{{ type = \"file\", path = \"OUT/{name}.jsonl\" }}]\n"
            ),
        );
    }
    let neighbour = Neighbour::add(&daemon);
    daemon.start();
    neighbour.goes_on(&mut daemon);

    let mut seen = String::new();
    for (name, _) in CASES {
        let status = daemon.wait_state(name, "FAILED");
        let error = status["acequia"]["last_error"]["message"].as_str().unwrap();
        assert!(error.contains(&format!("{name}.toml:2:")), "it names the file and the line: {error}");
        assert_eq!(status["connector"]["trace"].as_str(), Some(error));
        assert_eq!(status["acequia"]["last_reload"]["kind"], "rejected");
        assert!(!daemon.out(&format!("{name}.jsonl")).exists());
        seen.push_str(&format!("{}\n", steady(&daemon, error)));
    }
    insta::assert_snapshot!("refused", seen);

    // What `validate` says, before anything runs.
    let plugins = evil_plugin("evil");
    let output = Command::new(binary())
        .args(["validate", "--plugins"])
        .arg(plugins.parent().unwrap())
        .arg("--plugins")
        .arg(acequia_tests::out_dir().join("plugins"))
        .arg(daemon.pipelines())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let good = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(good.lines().count(), 1, "{good}");
    assert!(good.contains("neighbour.toml"), "{good}");
    insta::assert_snapshot!("refused_validate", steady(&daemon, &String::from_utf8_lossy(&output.stderr)));

    // The same plugins put under a pipeline that runs: it goes on with what it has.
    let mut before = String::new();
    for (name, transform) in CASES {
        daemon.pipeline(
            "neighbour",
            &format!(
                "source = {{ type = \"rate\", rows_per_second = 500 }}\n\
                 transform = [{{ plugin = \"even-filter\" }}, {{ {transform} }}]\n\
                 sink = [{{ type = \"file\", path = \"OUT/neighbour.jsonl\" }}]\n\
                 delivery = {{ checkpoint_interval = \"50ms\" }}\n"
            ),
        );
        before = eventually(&format!("{name} is rejected; log:\n{}", daemon.stderr()), || {
            let status = daemon.status("neighbour");
            let error = status["acequia"]["last_reload"]["error"].as_str()?;
            (error != before).then(|| error.to_owned())
        });
        assert!(before.contains("neighbour.toml:2:"), "{before}");
        let status = daemon.status("neighbour");
        assert_eq!((&status["acequia"]["state"], &status["acequia"]["generation"]), (&"RUNNING".into(), &1.into()));
    }
    neighbour.goes_on(&mut daemon);
    assert_eq!(daemon.stop().code, Some(0));
    neighbour.is_whole(&daemon);
}
