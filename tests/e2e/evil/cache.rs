//! Compiled code on disk: used when it is sound, made anew when it is not, and never taken from a place where others may
//! write.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use acequia_tests::Daemon;

use super::log_lines;

fn pipeline(daemon: &Daemon) {
    daemon.pipeline(
        "even",
        r#"
        source = { type = "rate", rows_per_second = "max", rows = 10 }
        transform = [{ plugin = "even-filter" }, { plugin = "triangle-wave" }]
        sink = [{ type = "file", path = "OUT/even.jsonl" }]
        "#,
    );
}

/// One life of the daemon: how many components it compiled, how many it found compiled.
#[track_caller]
fn life(daemon: &mut Daemon) -> (usize, usize) {
    daemon.start();
    daemon.wait_state("even", "COMPLETED");
    assert_eq!(daemon.stop().code, Some(0));
    (log_lines(daemon, &["a plugin was compiled"]).len(), log_lines(daemon, &["compiled code was found"]).len())
}

#[test]
fn a_second_start_compiles_nothing_unless_the_cache_is_damaged() {
    let mut daemon = Daemon::new().env("ACEQUIA_LOG", "debug");
    pipeline(&daemon);
    assert_eq!(life(&mut daemon), (2, 0));
    assert_eq!(life(&mut daemon), (0, 2));

    let folder = daemon.folder().join("state/compiled");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    let whole = std::fs::read(&files[0]).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b""] {
        std::fs::write(&files[0], damaged).unwrap();
        assert_eq!(life(&mut daemon), (1, 1));
        let warnings = log_lines(&daemon, &["WARN", "compiled code is not usable, compiling again"]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(std::fs::read(&files[0]).unwrap() == whole, "it was mended");
        assert_eq!(life(&mut daemon), (0, 2));
    }

    // A file that others may write to may be anybody's code.
    std::fs::set_permissions(&files[0], Permissions::from_mode(0o622)).unwrap();
    assert_eq!(life(&mut daemon), (1, 1));
    assert_eq!(log_lines(&daemon, &["WARN", "others may write to it"]).len(), 1);
    assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(life(&mut daemon), (0, 2));
}

#[test]
fn a_cache_that_others_may_write_to_is_left_alone() {
    let mut daemon = Daemon::new().env("ACEQUIA_LOG", "debug");
    pipeline(&daemon);
    assert_eq!(life(&mut daemon), (2, 0));
    let folder = daemon.folder().join("state/compiled");
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    for _ in 0..2 {
        assert_eq!(life(&mut daemon), (2, 0), "neither read nor written");
        let said = log_lines(&daemon, &["WARN", "compiled plugins are not kept: others may write to it"]);
        assert_eq!(said.len(), 1);
    }
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(life(&mut daemon), (0, 2));

    // A link is as good as what it leads to.
    let elsewhere = daemon.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::set_permissions(&elsewhere, Permissions::from_mode(0o777)).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
    assert_eq!(life(&mut daemon), (2, 0));
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}
