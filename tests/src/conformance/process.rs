//! A process of its own for each connector, and what that process holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const JOB: &str = "ACEQUIA_CONFORMANCE_JOB";
const OUTPUT: &str = "ACEQUIA_CONFORMANCE_OUTPUT";
const DONE: &str = "conformance: done";
/// One connector with its server; without one it is seconds.
const LONGEST: Duration = Duration::from_secs(600);

/// Do `work(name)` for each name, each in a process of its own, so many at a time. `test` is the full name of the test that
/// calls this: the processes run the same test again, and there this function works instead of starting processes. They are
/// given what `environment(name)` says: where a server is that they share.
///
/// Returns the names whose work failed, with what they printed.
///
/// # Panics
/// In the process of its own, if the work does.
pub fn alone(
    test: &str,
    names: &[String],
    at_once: usize,
    environment: impl Fn(&str) -> Vec<(&'static str, String)> + Sync,
    work: impl Fn(&str),
) -> Vec<(String, String)> {
    if let Ok(job) = std::env::var(JOB) {
        assert!(names.contains(&job), "no entry `{job}`");
        work(&job);
        eprintln!("{DONE}");
        return Vec::new();
    }
    let queue = std::sync::Mutex::new(names.iter());
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("the queue").next();
                    let Some(name) = next else { return };
                    if let Err(report) = one(test, name, environment(name)) {
                        failures.lock().expect("the failures").push((name.clone(), report));
                    }
                }
            });
        }
    });
    failures.into_inner().expect("the failures")
}

/// Run one; the error is what it printed.
fn one(test: &str, name: &str, environment: Vec<(&'static str, String)>) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, log) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .envs(environment)
        .env(JOB, name)
        .env(OUTPUT, &output)
        // What the worlds make is gone with this folder, whatever becomes of the process.
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(File::create(&output).expect("a file for the output"))
        .stderr(File::create(&log).expect("a file for the log"))
        .spawn()
        .expect("this program starts");
    let ended = loop {
        match child.try_wait().expect("the process can be waited for") {
            Some(status) => break Some(status),
            None if start.elapsed() > LONGEST => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::park_timeout(Duration::from_millis(5)),
        }
    };
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    match ended {
        // A test that does not exist "passes" too; the last line says that it has run.
        Some(status) if status.success() && text.lines().any(|line| line == DONE) => {
            eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f64());
            Ok(())
        }
        Some(status) => Err(format!("{status}\n{text}")),
        None => Err(format!("not done within {LONGEST:?}\n{text}")),
    }
}

/// The file that is this process's standard output, in a process of [`alone`].
pub fn own_output() -> Option<PathBuf> {
    std::env::var_os(OUTPUT).map(PathBuf::from)
}

/// What this process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors by what they lead to; sockets and pipes without their number.
    pub descriptors: BTreeMap<String, usize>,
    /// Threads by name.
    pub threads: BTreeMap<String, usize>,
}

impl Held {
    /// Whether nothing more is held than that. Less may be: what was counted first may still have been on its way out.
    pub fn is_within(&self, other: &Held) -> bool {
        let within = |mine: &BTreeMap<String, usize>, theirs: &BTreeMap<String, usize>| {
            mine.iter().all(|(name, count)| theirs.get(name).is_some_and(|most| count <= most))
        };
        within(&self.descriptors, &other.descriptors) && within(&self.threads, &other.threads)
    }

    /// Now.
    ///
    /// # Panics
    /// Without `/proc`.
    pub fn now() -> Self {
        let mut held = Held::default();
        for entry in std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd").flatten() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                let target = target.to_string_lossy().into_owned();
                let target = target.split(":[").next().unwrap_or_default();
                // The folder that is being read here.
                if !target.starts_with("/proc/") {
                    *held.descriptors.entry(target.to_owned()).or_default() += 1;
                }
            }
        }
        for entry in std::fs::read_dir("/proc/self/task").expect("/proc/self/task").flatten() {
            if let Ok(name) = std::fs::read_to_string(entry.path().join("comm")) {
                *held.threads.entry(name.trim_end().to_owned()).or_default() += 1;
            }
        }
        held
    }
}

/// Bytes of memory that this process has in use.
///
/// # Panics
/// Without `/proc`.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
    kilobytes << 10
}
