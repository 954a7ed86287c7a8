//! Plugins that fail when time passes: no row is theirs, so none is lost; the next tick may do better.

use acequia_tests::{values_of, wait_until};

use super::{Neighbour, daemon, log_lines, steady};

const MODES: [&str; 5] = ["count", "fails", "traps", "loops", "not-fresh"];

#[test]
fn a_tick_that_fails_costs_the_tick() {
    let mut daemon = daemon();
    let neighbour = Neighbour::add(&daemon);
    for mode in MODES {
        daemon.pipeline(
            mode,
            &format!(
                r#"
                source = {{ type = "rate", rows_per_second = 200 }}
                transform = [{{
                    plugin = "evil-ticking",
                    config = {{ mode = "{mode}", every = 20 }},
                    limits = {{ time = "100ms" }},
                }}]
                sink = [{{ type = "file", path = "OUT/{mode}.jsonl" }}]
                delivery = {{ checkpoint_interval = "20ms" }}
                "#
            ),
        );
    }
    daemon.start();
    let mut seen = String::new();
    for mode in MODES.into_iter().filter(|mode| *mode != "count") {
        wait_until(&format!("{mode} is replaced again and again; log:\n{}", daemon.stderr()), || {
            daemon.status(mode)["acequia"]["stages"][1]["guest_replacements"].as_u64() > Some(3)
        });
        let status = daemon.status(mode);
        assert_eq!(status["acequia"]["state"], "RUNNING");
        assert_eq!(status["acequia"]["restarts"], 0);
        let pipeline = format!("pipeline=\"{mode}\"");
        let said =
            log_lines(&daemon, &["the plugin failed and is replaced", &pipeline, "plugin=\"evil-ticking.wasm\""]);
        let (_, message) = said[0].split_once("WARN ").unwrap();
        seen.push_str(&format!("{}\n", steady(&daemon, message)));
        wait_until("rows go on", || daemon.status(mode)["acequia"]["stages"][1]["dropped"].as_u64() > Some(50));
    }
    insta::assert_snapshot!("ticks", seen);
    daemon.wait_rows("count.jsonl", 10);
    neighbour.goes_on(&mut daemon);
    assert_eq!(daemon.stop().code, Some(0));
    neighbour.is_whole(&daemon);
    assert!(values_of(&daemon.out("count.jsonl"), "rows").iter().sum::<i64>() > 0);
}
