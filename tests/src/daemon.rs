//! The daemon as a process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::{eventually, wait_until};
use crate::{binary, out_dir};

/// How much of its log is shown when a test fails.
const LOG_SHOWN: usize = 8192;

/// How a daemon ended, and what it printed.
#[derive(Debug)]
pub struct Exit {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output of all its lives.
    pub stdout: String,
    /// Standard error of all its lives.
    pub stderr: String,
}

/// A daemon with folders of its own: `pipelines/` is what it watches, `state/` its state, `out/` a place for results. It is
/// killed and everything is removed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    folder: TempDir,
    child: Option<Child>,
    arguments: Vec<String>,
    prelude: Option<String>,
    under: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Daemon {
    /// The folders, and no process yet.
    ///
    /// # Panics
    /// If the folders can't be made.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("acequia-test-").tempdir().expect("a temporary folder");
        for name in ["pipelines", "state", "out"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Daemon {
            folder,
            child: None,
            arguments: Vec::new(),
            prelude: None,
            under: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    /// An argument more for `acequia run`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// An environment variable for the daemon.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A shell command that runs before it in the same process, such as `ulimit -n 64`.
    #[must_use]
    pub fn prelude(mut self, command: &str) -> Self {
        self.prelude = Some(command.to_owned());
        self
    }

    /// A command that becomes the daemon, such as `setpriv` with its options.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The folder above all others.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file among the pipelines.
    pub fn pipelines(&self) -> PathBuf {
        self.folder().join("pipelines")
    }

    /// A file in `out/`.
    pub fn out(&self, name: &str) -> PathBuf {
        self.folder().join("out").join(name)
    }

    /// The dead letters of a pipeline that has no sink for them.
    pub fn dead_letters(&self, pipeline: &str) -> PathBuf {
        self.folder().join("state/dead-letters").join(format!("{pipeline}.jsonl"))
    }

    /// Write a pipeline, by renaming, so that the daemon never sees half of it. `OUT` in the text becomes the path of `out/`,
    /// `DIR` that of the folder above.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn pipeline(&self, name: &str, text: &str) -> PathBuf {
        let path = self.pipelines().join(format!("{name}.toml"));
        let new = self.folder().join(format!("{name}.new"));
        std::fs::write(&new, self.expand(text)).expect("a pipeline is written");
        std::fs::rename(&new, &path).expect("a pipeline is put in its place");
        path
    }

    /// `OUT` and `DIR` in a text put in.
    pub fn expand(&self, text: &str) -> String {
        let out = self.folder().join("out");
        text.replace("OUT", &out.display().to_string()).replace("DIR", &self.folder().display().to_string())
    }

    /// A file beside the pipelines' folder, with this content.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, content).expect("a file is written");
        path
    }

    /// Start it, with an admin listener on a port of its own choice, and wait until it is ready.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(&mut self) -> &mut Self {
        self.spawn(&["--listen", "127.0.0.1:0"]);
        self.wait_ready();
        self
    }

    /// Start it without waiting.
    ///
    /// # Panics
    /// If there is no such binary, or it runs already.
    pub fn spawn(&mut self, arguments: &[&str]) {
        assert!(self.child.is_none(), "it runs already");
        let log = |name| File::options().create(true).append(true).open(self.folder().join(name)).expect("a log");
        // A new life starts a new log, so that an address or a line of an old one is not taken for its own.
        let _ = std::fs::rename(self.folder().join("stderr"), self.folder().join("stderr.before"));
        let mut words: Vec<OsString> = self.under.iter().map(OsString::from).collect();
        words.push(binary().into_os_string());
        if let Some(prelude) = &self.prelude {
            let script = format!("{prelude} && exec \"$0\" \"$@\"");
            words.splice(0..0, ["sh".into(), "-c".into(), script.into()]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let child = command
            .arg("run")
            .arg(self.pipelines())
            .arg("--state")
            .arg(self.folder().join("state"))
            .arg("--plugins")
            .arg(out_dir().join("plugins"))
            .args(&self.arguments)
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .env("NO_COLOR", "1")
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .expect("the daemon starts");
        self.child = Some(child);
    }

    /// Wait until `/ready` says so.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn wait_ready(&mut self) {
        eventually("the daemon is ready", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}:\n{}", self.stderr());
            }
            self.admin().filter(|admin| admin.get("/ready").is_some())
        });
    }

    /// Run it with `--once` until it ends.
    ///
    /// # Panics
    /// If it does not end.
    pub fn once(&mut self) -> Exit {
        self.spawn(&["--once"]);
        self.wait_exit()
    }

    /// Wait until it ends by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_exit(&mut self) -> Exit {
        let mut child = self.child.take().expect("it runs");
        let stderr = self.folder().join("stderr");
        let status =
            eventually(&format!("the daemon ends; see {}", stderr.display()), || child.try_wait().ok().flatten());
        Exit { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// The process number.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Send it a signal.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process number")).expect("a process number");
        kill_process(pid, signal).expect("it runs");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and wait for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(&mut self) -> Exit {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What it has printed on standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.folder().join("stdout")).unwrap_or_default()
    }

    /// What this life of it has printed on standard error so far.
    pub fn stderr(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.folder().join("stderr")) {
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Its admin listener, once it has said where that is.
    pub fn admin(&self) -> Option<Admin> {
        let log = self.stderr();
        // Messages about servers have addresses too.
        let mark = "the admin listener is at http://";
        let at = log.rfind(mark)?;
        let rest = &log[at + mark.len()..];
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.' && character != ':');
        Some(Admin { address: rest[..end?].to_owned() })
    }

    /// Its admin listener.
    ///
    /// # Panics
    /// If it has none.
    pub fn rest(&self) -> Admin {
        self.admin().expect("the daemon listens")
    }

    /// The status of a pipeline; `Null` if there is none.
    pub fn status(&self, pipeline: &str) -> Value {
        self.rest().get(&format!("/connectors/{pipeline}/status")).unwrap_or_default()
    }

    /// Wait until a pipeline is in a state (`RUNNING`, `COMPLETED`, ...).
    ///
    /// # Panics
    /// If it is not in time.
    pub fn wait_state(&self, pipeline: &str, state: &str) -> Value {
        eventually(&format!("{pipeline} is {state}"), || {
            let status = self.status(pipeline);
            (status["acequia"]["state"] == state).then_some(status)
        })
    }

    /// Wait until a file has at least that many lines.
    ///
    /// # Panics
    /// If it has not in time.
    pub fn wait_rows(&self, file: &str, rows: usize) {
        let path = self.out(file);
        wait_until(&format!("{file} has {rows} rows"), || crate::rows(&path) >= rows);
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Daemon::new()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let running = self.is_running();
            let log = self.stderr();
            let start = log.len().saturating_sub(LOG_SHOWN);
            let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or_default();
            eprintln!("the daemon (running: {running}) said last:\n{}", &log[start..]);
        }
        self.kill();
    }
}

/// The daemon's admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Host and port.
    pub address: String,
}

impl Admin {
    fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .build();
        config.into()
    }

    /// `GET`, as JSON; `None` unless the answer is 200.
    pub fn get(&self, path: &str) -> Option<Value> {
        let mut answer = Self::agent().get(format!("http://{}{path}", self.address)).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        (answer.status() == 200).then(|| serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// `POST /reload`: the status code and the body.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn reload(&self) -> (u16, Value) {
        let mut answer =
            Self::agent().post(format!("http://{}/reload", self.address)).send_empty().expect("POST /reload answers");
        let text = answer.body_mut().read_to_string().expect("a body");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}
