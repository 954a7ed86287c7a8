//! What `packaging/` holds: the unit passes systemd's own checks, and the package has in it what it should.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// Debian's tools are not on every machine that can build the daemon.
fn missing(tool: &str) -> bool {
    let missing = Command::new(tool).arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: this machine has no {tool}");
    }
    missing
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn check(unit: &Path) -> Output {
    Command::new(packaging().join("check.sh")).arg(unit).output().unwrap()
}

#[test]
fn the_unit_passes_systemds_checks() {
    if missing("systemd-analyze") {
        return;
    }
    let unit = packaging().join("acequia.service");
    let output = check(&unit);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("Overall exposure level for acequia.service: "), "{}", text(&output));

    // The check is one: it refuses a unit with a slip in it, one that runs something else, and one that is wide open.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("acequia.service");
    let good = fs::read_to_string(&unit).unwrap();
    for (from, to, says) in [
        ("ProtectSystem=strict", "ProtectSystems=strict", "Unknown key"),
        ("ProtectSystem=strict", "ProtectSystem=stricter", "stricter"),
        ("WatchdogSec=30s", "WatchdogSec=soon", "soon"),
        ("acequia run /etc/acequia", "acequia serve", "ExecStart is not"),
        ("CapabilityBoundingSet=\n", "", "Overall exposure level"),
    ] {
        assert!(good.contains(from), "{from}");
        let mut text_of_unit = good.replace(from, to);
        if says.starts_with("Overall") {
            // Without capabilities' bounds, system call filter, user and view of the file system.
            let open =
                |line: &&str| !["SystemCall", "Protect", "User=", "Private"].iter().any(|key| line.starts_with(key));
            text_of_unit = text_of_unit.lines().filter(open).collect::<Vec<_>>().join("\n");
        }
        fs::write(&broken, text_of_unit).unwrap();
        let output = check(&broken);
        assert!(!output.status.success(), "{to}");
        assert!(text(&output).contains(says), "{to}: {}", text(&output));
    }
}

#[test]
fn the_unit_lets_compiled_code_run() {
    let unit = fs::read_to_string(packaging().join("acequia.service")).unwrap();
    let lines: Vec<&str> = unit.lines().collect();
    for needed in ["MemoryDenyWriteExecute=no", "Type=notify", "WatchdogSec=30s", "ExecReload=/bin/kill -HUP $MAINPID"]
    {
        assert!(lines.contains(&needed), "{needed}");
    }
}

/// What the daemon cannot do without must pass the filter: memory that becomes executable, threads, files, sockets, events.
#[test]
fn the_unit_allows_the_system_calls_that_the_engine_makes() {
    if missing("systemd-analyze") {
        return;
    }
    let calls = |set: &str| -> Vec<String> {
        let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", set]).output().unwrap();
        assert!(output.status.success(), "{set}: {}", text(&output));
        text(&output).lines().skip(1).map(|line| line.trim().to_owned()).collect()
    };
    fn within(set: &str, calls: &dyn Fn(&str) -> Vec<String>, found: &mut Vec<String>) {
        for call in calls(set) {
            match call.strip_prefix('@') {
                Some(_) => within(&call, calls, found),
                None => found.push(call),
            }
        }
    }
    let unit = fs::read_to_string(packaging().join("acequia.service")).unwrap();
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (sets, found) = match filter.strip_prefix('~') {
            Some(sets) => (sets, &mut refused),
            None => (filter, &mut allowed),
        };
        for set in sets.split_whitespace() {
            within(set, &calls, found);
        }
    }
    // Always there, whatever the filter says.
    within("@default", &calls, &mut allowed);
    for call in [
        "accept4",
        "bind",
        "clone3",
        "connect",
        "copy_file_range",
        "epoll_pwait",
        "epoll_wait",
        "eventfd2",
        "fcntl",
        "fdatasync",
        "flock",
        "fsync",
        "ftruncate",
        "futex",
        "getdents64",
        "getrandom",
        "inotify_add_watch",
        "inotify_init1",
        "ioctl",
        "listen",
        "lseek",
        "madvise",
        "membarrier",
        "memfd_create",
        "mkdir",
        "mmap",
        "mprotect",
        "mremap",
        "munmap",
        "newfstatat",
        "openat",
        "pipe2",
        "prctl",
        "pread64",
        "pwrite64",
        "readlink",
        "recvfrom",
        "rename",
        "rt_sigaction",
        "sched_getaffinity",
        "sendto",
        "setsockopt",
        "sigaltstack",
        "socket",
        "statx",
        "tgkill",
        "timerfd_create",
        "unlink",
    ] {
        assert!(allowed.iter().any(|name| name == call), "{call} is not allowed");
        assert!(!refused.iter().any(|name| name == call), "{call} is refused");
    }
    assert!(refused.iter().any(|name| name == "chroot"), "the filter refuses nothing: {refused:?}");
}

#[test]
fn the_package_has_everything_in_its_place() {
    if missing("dpkg-deb") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("acequia"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path("acequia"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(path("plugins")).unwrap();
    fs::create_dir_all(path("examples/quickstart")).unwrap();
    fs::write(path("examples/quickstart/even.toml"), "# an example\n").unwrap();
    let build = |epoch: &str| {
        Command::new(packaging().join("build-deb.sh"))
            .args([path("acequia"), path("plugins"), path("examples"), path("out")])
            .env("SOURCE_DATE_EPOCH", epoch)
            .output()
            .unwrap()
    };
    let output = build("1700000000");
    assert!(!output.status.success() && text(&output).contains("no plugins; run `make build`"), "{}", text(&output));

    for plugin in ["even-filter.wasm", "word-count.wasm"] {
        fs::write(path("plugins").join(plugin), "component").unwrap();
    }
    let output = build("1700000000");
    assert!(output.status.success(), "{}", text(&output));
    let package = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    assert!(package.starts_with(folder.path()), "{package:?}");

    let listing = Command::new("dpkg-deb").arg("-c").arg(&package).env("TZ", "UTC").output().unwrap();
    // Mode, owner and path; folders, sizes and times left out.
    let files: Vec<String> = text(&listing)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[0].starts_with('-'))
        .map(|fields| format!("{} {} {}", fields[0], fields[1], fields[5]))
        .collect();
    insta::assert_snapshot!(files.join("\n"), @r"
    -rw-r----- root/root ./etc/default/acequia
    -rw-r--r-- root/root ./lib/systemd/system/acequia.service
    -rwxr-xr-x root/root ./usr/bin/acequia
    -rw-r--r-- root/root ./usr/lib/acequia/plugins/even-filter.wasm
    -rw-r--r-- root/root ./usr/lib/acequia/plugins/word-count.wasm
    -rw-r--r-- root/root ./usr/lib/sysusers.d/acequia.conf
    -rw-r--r-- root/root ./usr/share/doc/acequia/examples/quickstart/even.toml
    ");
    assert!(text(&listing).contains(" ./etc/acequia/\n"), "the configurations' folder");

    let control = path("control");
    assert!(Command::new("dpkg-deb").arg("-e").args([&package, &control]).status().unwrap().success());
    assert_eq!(fs::read_to_string(control.join("conffiles")).unwrap(), "/etc/default/acequia\n");
    let fields = fs::read_to_string(control.join("control")).unwrap();
    assert!(fields.contains(concat!("\nVersion: ", env!("CARGO_PKG_VERSION"), "\n")), "{fields}");
    for script in ["postinst", "prerm", "postrm"] {
        assert!(Command::new("sh").arg("-n").arg(control.join(script)).status().unwrap().success(), "{script}");
    }

    let first = fs::read(&package).unwrap();
    assert!(build("1700000000").status.success());
    assert!(fs::read(&package).unwrap() == first, "the same input makes another package");
}
