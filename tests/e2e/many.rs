//! A thousand pipelines in one daemon.

use std::time::{Duration, Instant};

use acequia_tests::{Daemon, eventually, wait_until};
use serde_json::Value;

const PIPELINES: usize = 1000;

fn text(amount: u32) -> String {
    format!(
        r#"
[source]
type = "rate"
rows_per_second = {amount}

[[transform]]
plugin = "even-filter"

[[sink]]
type = "blackhole"
"#
    )
}

/// A value of `/proc/PID/status`, in MiB.
fn memory(daemon: &Daemon, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>().unwrap() / 1024
}

fn processor_time(daemon: &Daemon) -> f64 {
    let metrics = daemon.rest().get("/metrics").unwrap();
    let value = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    value.unwrap().parse().unwrap()
}

#[test]
fn a_thousand_pipelines_start_idle_reload_and_stop() {
    let mut daemon = Daemon::new();
    for number in 0..PIPELINES {
        std::fs::write(daemon.pipelines().join(format!("p{number:03}.toml")), text(1)).unwrap();
    }
    let start = Instant::now();
    daemon.start();
    let ready = start.elapsed();
    wait_until("all run", || daemon.rest().get("/health").unwrap()["pipelines"]["RUNNING"] == PIPELINES);
    let running = start.elapsed();
    // Each has written a row: its second one, the even filter having let the first one through.
    eventually("all have rows", || {
        let all = daemon.rest().get("/connectors?expand=status")?;
        let all = all.as_object()?;
        let fed = |stages: &Value| stages[2]["rows_out"].as_u64() >= Some(1);
        (all.len() == PIPELINES && all.values().all(|one| fed(&one["status"]["acequia"]["stages"]))).then_some(())
    });
    let flowing = start.elapsed();
    let resident = memory(&daemon, "VmRSS:");
    // Idle: a row a second each, and a checkpoint.
    let (before, since) = (processor_time(&daemon), Instant::now());
    let passes = || daemon.rest().get("/ready").unwrap()["passes"].as_u64().unwrap();
    let pass = passes();
    wait_until("it has looked at all files again by itself", || passes() > pass);
    let idle = (processor_time(&daemon) - before) / since.elapsed().as_secs_f64();

    // One of them is changed: by an event, and by a request that waits for its end.
    let mut by_event = Vec::new();
    let mut by_request = Vec::new();
    for round in 0..5 {
        let changed = Instant::now();
        let name = format!("p{:03}", 100 * round + 7);
        daemon.pipeline(&name, &text(2));
        wait_until("the change is in place", || daemon.status(&name)["acequia"]["generation"] == 2);
        by_event.push(changed.elapsed());
        let asked = Instant::now();
        let (code, body) = daemon.rest().reload();
        by_request.push(asked.elapsed());
        assert_eq!((code, &body["changed"]), (200, &0.into()), "{body}");
    }
    let untouched = daemon.status("p000");
    assert_eq!(untouched["acequia"]["generation"], 1, "{untouched}");
    let peak = memory(&daemon, "VmHWM:");
    let stop = Instant::now();
    let exit = daemon.stop();
    let stopped = stop.elapsed();
    println!(
        "{PIPELINES} pipelines: ready after {ready:.1?}, all running after {running:.1?}, rows through all after {flowing:.1?}; \
         {resident} MiB resident, {peak} MiB at most; idle {:.0} % of a processor; one changed: {by_event:.0?} from the \
         file's change to the new version, {by_request:.0?} a pass that changes nothing; stopped in {stopped:.1?}",
        idle * 100.0
    );
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(peak < 1500, "{peak} MiB");
    assert!(running < Duration::from_secs(30), "{running:?}");
    assert!(by_event.iter().min().unwrap() < &Duration::from_secs(2), "{by_event:?}");
    assert!(stopped < Duration::from_secs(10), "{stopped:?}");
    assert!(!exit.stderr.contains(" ERROR "), "{}", exit.stderr);
    // Also where they were stopped.
    daemon.start();
    wait_until("all run again", || daemon.rest().get("/health").unwrap()["pipelines"]["RUNNING"] == PIPELINES);
    let rows = |status: &Value| status["acequia"]["stages"][0]["rows_in"].as_u64();
    wait_until("it goes on where it was", || rows(&daemon.status("p000")) > rows(&untouched));
    assert_eq!(daemon.stop().code, Some(0));
}

// invariant 6
/// One whose batches take a hundredth of the time of the others' gets as much time, and so a hundred times the rows. By turns it would get as many
/// batches as each of them, and seen were four times as many, since there was a thread that it shared with only one of them.
#[test]
fn pipelines_share_the_cores_by_time() {
    let mut daemon = Daemon::new();
    let quick = text(1).replace("= 1\n", "= \"max\"\n");
    daemon.pipeline("quick", &quick);
    let slow = quick.replace("\"even-filter\"\n", "\"uuid\"\nconfig = { from = [\"value\"] }\n");
    for number in 0..4 {
        daemon.pipeline(&format!("slow{number}"), &slow);
    }
    daemon.start();
    let rows = |name: &str| daemon.status(name)["acequia"]["stages"][0]["rows_out"].as_u64().unwrap_or(0);
    let all = || (rows("quick"), (0..4).map(|number| rows(&format!("slow{number}"))).collect::<Vec<_>>());
    // So that the start does not count, in which one after the other gets its plugin.
    wait_until("all have rows", || all().1.iter().all(|rows| *rows > 100_000));
    let before = all();
    let since = || {
        let (quick, slow) = all();
        (quick - before.0, slow.iter().zip(&before.1).map(|(rows, before)| rows - before).collect::<Vec<_>>())
    };
    wait_until("all have more rows", || since().1.iter().all(|rows| *rows > 500_000));
    let (quick, slow) = since();
    println!("{quick} rows, and of the slow ones {slow:?}");
    let (least, most) = (*slow.iter().min().unwrap(), *slow.iter().max().unwrap());
    assert!(most < 3 * least, "{slow:?}");
    assert!(quick > 20 * most, "{quick} rows, and of the slow ones {slow:?}");
    assert_eq!(daemon.stop().code, Some(0));
}
