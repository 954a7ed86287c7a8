//! A server as a process of its own.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::free_port;
use super::tool::{output, script};
use crate::wait::eventually;

/// How much of its log is shown when it does not come up.
const LOG_SHOWN: usize = 4096;
/// How often a server is tried on other ports when someone was faster.
const ATTEMPTS: usize = 4;

/// A server and its data folder. The server is killed and the folder removed when this is dropped, and also when the test
/// process ends in any other way.
#[derive(Debug)]
pub struct Server {
    script: &'static str,
    folder: PathBuf,
    ports: Vec<u16>,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Start one on free ports; `options` makes the script's arguments, from `PORT` on, of as many
    /// ports as were asked for.
    pub(super) fn start(script: &'static str, ports: usize, options: impl Fn(&[u16]) -> Vec<String>) -> Server {
        for attempt in 1.. {
            let folder = tempfile::Builder::new().prefix("acequia-server-").tempdir().expect("a temporary folder");
            let ports: Vec<u16> = (0..ports).map(|_| free_port()).collect();
            let options = options(&ports);
            let mut server = Server { script, folder: folder.keep(), ports, options, child: None };
            match server.try_start() {
                Ok(()) => return server,
                Err(error)
                    if attempt < ATTEMPTS && (error.contains("is taken") || error.contains("already in use")) => {}
                Err(error) => panic!("{script} does not start: {error}"),
            }
        }
        unreachable!("the loop ends by itself")
    }

    /// Start it again, on the same ports and with the same data, and wait until it answers.
    ///
    /// # Panics
    /// If it runs, or does not come up.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.script);
        if let Err(error) = self.try_start() {
            panic!("{} does not start again: {error}", self.script);
        }
    }

    fn try_start(&mut self) -> Result<(), String> {
        // Of an earlier life: it would be taken for that of the new one.
        let pid = self.folder.join("pid");
        let _ = std::fs::remove_file(&pid);
        let child = script(self.script)
            .arg("start")
            .arg(&self.folder)
            .args(&self.options)
            .env("ACEQUIA_OWNED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let child = self.child.insert(child);
        // The script becomes the server once it has written that file, and whatever it has to say it says before.
        let ended = eventually(&format!("{} has begun", self.script), || match child.try_wait() {
            Ok(Some(status)) => Some(Some(status)),
            _ => pid.exists().then_some(None),
        });
        if let Some(status) = ended {
            let mut said = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                let _ = stderr.read_to_string(&mut said);
            }
            self.child = None;
            return Err(format!("{status}: {said}"));
        }
        output(script(self.script).arg("wait").arg(&self.folder), b"").map(drop).map_err(|error| {
            self.kill();
            format!("{error}\n{}", self.log_end())
        })
    }

    /// A port by its place in the list that it was started with.
    pub(super) fn port(&self, index: usize) -> u16 {
        self.ports[index]
    }

    /// Its folder: its data, its log, its certificate.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a client of its TLS port has to trust (PEM).
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("tls/cert.pem")
    }

    /// What this life of it has logged so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_SHOWN);
        let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or_default();
        log[start..].to_owned()
    }

    /// The process number.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ask it to end and wait until it has: what it holds is on disk.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let child = self.child.as_mut().expect("it runs");
        eventually(&format!("{} ends", self.script), || child.try_wait().ok().flatten());
        self.kill();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The watcher of the script must not remove the data. It may be gone with its server.
            if let Some(mut stdin) = child.stdin.take() {
                let _ = stdin.write_all(b"keep\n");
            }
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT, after [`freeze`](Server::freeze).
    ///
    /// # Panics
    /// If it does not run.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process number")).expect("a process number");
        kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said last:\n{}", self.script, self.log_end());
        }
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
