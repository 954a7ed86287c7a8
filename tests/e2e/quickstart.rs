//! The first ten minutes: a pipeline runs, is changed, broken, mended and deleted under the daemon's feet.

use acequia_tests::{Daemon, plugin, rows, values_of, wait_until};

const RATE: &str = r#"
[source]
type = "rate"
rows_per_second = 500

[[sink]]
type = "file"
path = "OUT/numbers.jsonl"
"#;

fn with(transform: &str) -> String {
    RATE.replace("[[sink]]", &format!("{transform}\n[[sink]]"))
}

#[test]
fn change_replace_break_mend_delete() {
    let mut daemon = Daemon::new();
    daemon.pipeline("numbers", RATE);
    let wasm = daemon.folder().join("pipelines/mine.wasm");
    daemon.start();
    daemon.wait_rows("numbers.jsonl", 100);

    // A transform more: swapped in place, output follows.
    std::fs::copy(plugin("even-filter"), &wasm).unwrap();
    daemon.pipeline("numbers", &with("[[transform]]\nplugin = \"./mine.wasm\""));
    wait_until("the transform is in place", || daemon.status("numbers")["acequia"]["last_reload"]["kind"] == "swapped");
    let before = rows(&daemon.out("numbers.jsonl"));
    daemon.wait_rows("numbers.jsonl", before + 100);

    // The plugin's file is replaced: the triangle adds its column to what flows.
    let new = daemon.folder().join("new.wasm");
    std::fs::copy(plugin("triangle-wave"), &new).unwrap();
    std::fs::rename(&new, &wasm).unwrap();
    wait_until("the new plugin is in place", || daemon.status("numbers")["acequia"]["generation"] == 3);
    let before = rows(&daemon.out("numbers.jsonl"));
    daemon.wait_rows("numbers.jsonl", before + 100);

    // A broken file changes nothing, and its error names the place.
    daemon.pipeline("numbers", &with("[[transform]]\nplugin = \"./mine.wasm\"\nconfg = { lenght = 3 }"));
    wait_until("the error is seen", || daemon.status("numbers")["acequia"]["last_reload"]["kind"] == "rejected");
    let status = daemon.status("numbers");
    let error = status["acequia"]["last_reload"]["error"].as_str().unwrap();
    assert!(error.contains("numbers.toml:8:1") && error.contains("confg") && error.contains("`config`"), "{error}");
    assert_eq!(status["acequia"]["state"], "RUNNING");
    let before = rows(&daemon.out("numbers.jsonl"));
    daemon.wait_rows("numbers.jsonl", before + 100);

    // Mended.
    daemon.pipeline("numbers", &with("[[transform]]\nplugin = \"./mine.wasm\"\nconfig = { length = 4 }"));
    wait_until("the mended file is in place", || {
        daemon.status("numbers")["acequia"]["last_reload"]["kind"] == "swapped"
    });

    // Deleted: it drains and stops, and its checkpoint is kept.
    std::fs::remove_file(daemon.pipelines().join("numbers.toml")).unwrap();
    wait_until("the pipeline is gone", || daemon.status("numbers").is_null());
    let values = values_of(&daemon.out("numbers.jsonl"), "value");
    assert!(values.is_sorted_by(|one, other| one < other), "a row came twice or out of order");
    let last = *values.last().unwrap();

    // Back again: it goes on with the next row.
    daemon.pipeline("numbers", RATE);
    daemon.wait_rows("numbers.jsonl", values.len() + 10);
    let values_after = values_of(&daemon.out("numbers.jsonl"), "value");
    assert_eq!(values_after[values.len()], last + 1);
    assert_eq!(daemon.stop().code, Some(0));
}
