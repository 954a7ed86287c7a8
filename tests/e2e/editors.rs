//! The ways in which editors and deployments change files: each is seen, and nothing else is taken for a change.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use acequia_tests::{Daemon, plugin, rows, values_of, wait_until};

/// A pipeline that tells by its column which version of it made a row.
fn version(number: usize) -> String {
    format!(
        r#"
[source]
type = "rate"
rows_per_second = 500

[[transform]]
plugin = "triangle-wave"
config = {{ output = "v{number}" }}

[[sink]]
type = "file"
path = "OUT/a.jsonl"
"#
    )
}

fn text(daemon: &Daemon, number: usize) -> String {
    daemon.expand(&version(number))
}

fn started() -> Daemon {
    let mut daemon = Daemon::new();
    daemon.pipeline("a", &version(0));
    daemon.start();
    daemon.wait_rows("a.jsonl", 10);
    daemon
}

fn generation(daemon: &Daemon) -> u64 {
    daemon.status("a")["acequia"]["generation"].as_u64().unwrap_or_default()
}

/// Wait until rows of that version come. Only a swap in place may have brought it: the stream was not stopped.
fn wait_version(daemon: &Daemon, number: usize) {
    let column = format!("\"v{number}\":");
    wait_until(&format!("version {number} runs"), || {
        fs::read_to_string(daemon.out("a.jsonl")).is_ok_and(|text| text.contains(&column))
    });
    let status = &daemon.status("a")["acequia"];
    assert_eq!((&status["last_reload"]["kind"], &status["state"]), (&"swapped".into(), &"RUNNING".into()), "{status}");
}

/// Each row from 0 on once.
fn stop_and_check(daemon: &mut Daemon) {
    assert_eq!(daemon.stop().code, Some(0));
    let values = values_of(&daemon.out("a.jsonl"), "value");
    assert!(values.iter().copied().eq(0..values.len() as i64), "a row is missing or comes twice");
}

/// Changes that came by events take much less time than as many slow re-scans (5 s each) would.
fn check_quick(start: Instant, changes: u32, what: &str) {
    println!("{what}: {changes} changes in {:.1?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2) * changes, "{what} was seen by the slow re-scan only");
}

#[test]
fn every_way_to_save_a_file() {
    let mut daemon = started();
    let file = daemon.pipelines().join("a.toml");
    let start = Instant::now();
    // In place: truncated, then written in two pieces.
    fs::write(&file, text(&daemon, 1)).unwrap();
    wait_version(&daemon, 1);
    // A new file, renamed over the old one.
    daemon.pipeline("a", &version(2));
    wait_version(&daemon, 2);
    // A new file in the same folder, under an editor's temporary name.
    let temporary = daemon.pipelines().join(".a.toml.swp");
    fs::write(&temporary, text(&daemon, 3)).unwrap();
    fs::rename(&temporary, &file).unwrap();
    wait_version(&daemon, 3);
    // Deleted and made anew.
    fs::remove_file(&file).unwrap();
    fs::write(&file, text(&daemon, 4)).unwrap();
    wait_version(&daemon, 4);
    // The old one renamed to a backup, the new one written, the backup deleted.
    let backup = daemon.pipelines().join("a.toml~");
    fs::rename(&file, &backup).unwrap();
    fs::write(&file, text(&daemon, 5)).unwrap();
    fs::remove_file(&backup).unwrap();
    wait_version(&daemon, 5);
    // A hard link to another file in its place.
    let other = daemon.file("other", text(&daemon, 6));
    fs::remove_file(&file).unwrap();
    fs::hard_link(&other, &file).unwrap();
    wait_version(&daemon, 6);
    check_quick(start, 6, "ways to save");
    // Written through its other name, in another folder: there is no event, and the slow re-scan finds it.
    fs::write(&other, text(&daemon, 7)).unwrap();
    wait_version(&daemon, 7);
    assert_eq!(generation(&daemon), 8, "one generation for each change");
    stop_and_check(&mut daemon);
}

#[test]
fn what_changes_nothing_reloads_nothing() {
    let mut daemon = started();
    let file = daemon.pipelines().join("a.toml");
    let before = daemon.status("a")["acequia"]["last_reload"].clone();
    let unchanged = |what: &str| {
        let (code, body) = daemon.rest().reload();
        assert_eq!((code, &body["changed"]), (200, &0.into()), "{what}: {body}");
        let status = &daemon.status("a")["acequia"];
        assert_eq!(status["generation"], 1, "{what}");
        assert_eq!(status["last_reload"], before, "{what}");
    };
    File::options().append(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    unchanged("another time of change");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    unchanged("another mode");
    fs::write(&file, text(&daemon, 0)).unwrap();
    unchanged("the same text written again");
    let link = daemon.folder().join("link");
    fs::hard_link(&file, &link).unwrap();
    fs::remove_file(&link).unwrap();
    unchanged("a link more and one less");
    fs::write(&file, format!("# A comment.\n{}\n\n", text(&daemon, 0).replace(" = ", "  =  "))).unwrap();
    unchanged("comments and layout");
    for name in ["b.toml~", ".b.toml.swp", "#b.toml#", "b.toml.orig", "notes.md", "4913"] {
        fs::write(daemon.pipelines().join(name), "no pipeline").unwrap();
    }
    fs::create_dir(daemon.pipelines().join("folder.toml")).unwrap();
    unchanged("what lies beside it");
    stop_and_check(&mut daemon);
}

/// The new link is made beside the old one and renamed over it.
fn swap_link(target: &Path, link: &Path) {
    let new = link.with_file_name("..new-link");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

#[test]
fn a_file_that_is_a_symbolic_link() {
    let mut daemon = Daemon::new();
    for number in 0..=3 {
        daemon.file(&format!("v{number}.toml"), text(&daemon, number));
    }
    let link = daemon.pipelines().join("a.toml");
    symlink(daemon.folder().join("v0.toml"), &link).unwrap();
    daemon.start();
    daemon.wait_rows("a.jsonl", 10);
    let start = Instant::now();
    for number in 1..=3 {
        swap_link(&daemon.folder().join(format!("v{number}.toml")), &link);
        wait_version(&daemon, number);
    }
    // The link stays, and what it leads to is changed in another folder.
    for number in 4..=7 {
        daemon.file("v3.toml", text(&daemon, number));
        wait_version(&daemon, number);
    }
    check_quick(start, 7, "links to files");
    stop_and_check(&mut daemon);
}

/// How Kubernetes mounts a ConfigMap: `a.toml -> ..data/a.toml`, `..data -> ..VERSION`, and `..data` is swapped.
#[test]
fn the_folder_of_a_config_map() {
    let mut daemon = Daemon::new();
    let folder = daemon.pipelines();
    let publish = |daemon: &Daemon, number: usize| {
        let data = folder.join(format!("..2026_{number}"));
        fs::create_dir(&data).unwrap();
        let text = version(number).replace("\"triangle-wave\"", "\"./wave.wasm\"\nname = \"wave\"");
        fs::write(data.join("a.toml"), daemon.expand(&text)).unwrap();
        let wave = ["triangle-wave", "sine-wave"][number % 2];
        fs::copy(plugin(wave), data.join("wave.wasm")).unwrap();
        swap_link(Path::new(&format!("..2026_{number}")), &folder.join("..data"));
        if let Some(before) = number.checked_sub(1) {
            fs::remove_dir_all(folder.join(format!("..2026_{before}"))).unwrap();
        }
    };
    publish(&daemon, 0);
    for name in ["a.toml", "wave.wasm"] {
        symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
    }
    daemon.start();
    daemon.wait_rows("a.jsonl", 10);
    let start = Instant::now();
    for number in 1..=5 {
        publish(&daemon, number);
        wait_version(&daemon, number);
    }
    check_quick(start, 5, "ConfigMap");
    stop_and_check(&mut daemon);
}

#[test]
fn a_folder_that_is_a_symbolic_link() {
    let mut daemon = Daemon::new();
    let folder = daemon.pipelines();
    fs::remove_dir(&folder).unwrap();
    let set = |daemon: &Daemon, number: usize| {
        let set = daemon.folder().join(format!("set{number}"));
        fs::create_dir(&set).unwrap();
        fs::write(set.join("a.toml"), text(daemon, number)).unwrap();
        set
    };
    symlink(set(&daemon, 0), &folder).unwrap();
    daemon.start();
    daemon.wait_rows("a.jsonl", 10);
    let start = Instant::now();
    for number in 1..=3 {
        swap_link(&set(&daemon, number), &folder);
        wait_version(&daemon, number);
    }
    // What lies behind the link is watched too.
    for number in 4..=6 {
        fs::write(daemon.folder().join("set3/a.toml"), text(&daemon, number)).unwrap();
        wait_version(&daemon, number);
    }
    check_quick(start, 6, "links to folders");
    stop_and_check(&mut daemon);
}

#[test]
fn a_folder_that_vanishes_stops_nothing() {
    let mut daemon = started();
    let folder = daemon.pipelines();
    let away = daemon.folder().join("away");
    fs::rename(&folder, &away).unwrap();
    let (code, body) = daemon.rest().reload();
    assert_eq!(code, 422);
    assert!(body["errors"].to_string().contains("can't be read"), "{body}");
    let before = rows(&daemon.out("a.jsonl"));
    daemon.wait_rows("a.jsonl", before + 200);
    assert_eq!(generation(&daemon), 1);
    // Back again: nothing has changed, and changes are seen.
    let start = Instant::now();
    fs::rename(&away, &folder).unwrap();
    assert_eq!(daemon.rest().reload().0, 200);
    assert_eq!(generation(&daemon), 1);
    fs::write(folder.join("a.toml"), text(&daemon, 1)).unwrap();
    wait_version(&daemon, 1);
    // Another folder in its place, with no moment between at which a pass could miss it.
    fs::create_dir(&away).unwrap();
    fs::write(away.join("a.toml"), text(&daemon, 2)).unwrap();
    rustix::fs::renameat_with(rustix::fs::CWD, &away, rustix::fs::CWD, &folder, rustix::fs::RenameFlags::EXCHANGE)
        .unwrap();
    wait_version(&daemon, 2);
    for number in 3..=6 {
        fs::write(folder.join("a.toml"), text(&daemon, number)).unwrap();
        wait_version(&daemon, number);
    }
    // Deleted with all that is in it, and made anew.
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.toml"), text(&daemon, 7)).unwrap();
    wait_version(&daemon, 7);
    for number in 8..=10 {
        fs::write(folder.join("a.toml"), text(&daemon, number)).unwrap();
        wait_version(&daemon, number);
    }
    check_quick(start, 10, "folders that come back");
    stop_and_check(&mut daemon);
}

#[test]
fn a_deleted_file_drains_and_its_checkpoint_is_kept() {
    let mut daemon = started();
    daemon.wait_rows("a.jsonl", 100);
    fs::remove_file(daemon.pipelines().join("a.toml")).unwrap();
    wait_until("the pipeline is gone", || daemon.status("a").is_null());
    let before = rows(&daemon.out("a.jsonl"));
    assert!(daemon.stderr().contains("its checkpoint is kept"));
    assert_eq!(daemon.stop().code, Some(0));
    assert_eq!(rows(&daemon.out("a.jsonl")), before, "a row came after the end");
    // Also over a life of the daemon without it.
    daemon.start();
    daemon.pipeline("a", &version(1));
    daemon.wait_rows("a.jsonl", before + 100);
    stop_and_check(&mut daemon);
}
