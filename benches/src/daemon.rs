//! The daemon as a process: started, waited for, and asked what it used.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// What the kernel counts processor time in for `/proc`: a hundredth of a second, on every machine that this runs on.
const TICKS: f64 = 100.0;

/// Where the daemon is, and on which processor it is kept.
#[derive(Debug)]
pub(crate) struct Daemon {
    binary: PathBuf,
    plugins: PathBuf,
    cpu: usize,
}

/// What a process used from its start to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds of all its threads, user and system.
    pub(crate) cpu: f64,
    /// The most memory that was resident at once, in bytes.
    pub(crate) peak: f64,
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it, now.
    pub(crate) resident: f64,
    /// The part of it that is neither code nor another file.
    pub(crate) own: f64,
    /// The most that there was at once.
    pub(crate) peak: f64,
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    begin: Instant,
    log: PathBuf,
    lines: BufReader<Box<dyn Read>>,
    ended: bool,
}

impl Daemon {
    /// Look for it beside this program, where nobody says otherwise.
    pub(crate) fn find(binary: Option<&Path>, plugins: Option<&Path>, cpu: usize) -> Result<Self> {
        let here = std::env::current_exe().context("where this program is can't be told")?;
        let folder = here.parent().context("this program is in no folder")?;
        let binary = binary.map_or_else(|| folder.join("acequia"), Path::to_owned);
        let plugins = plugins.map_or_else(|| folder.join("../plugins"), Path::to_owned);
        for needed in [&binary, &plugins] {
            ensure!(needed.exists(), "{} is missing: build it with `make build`", needed.display());
        }
        Ok(Daemon { binary, plugins, cpu })
    }

    /// The file of a bundled plugin.
    pub(crate) fn plugin(&self, name: &str) -> PathBuf {
        self.plugins.join(format!("{name}.wasm"))
    }

    /// Start `acequia run` on a file or a folder. `pinned`: on one processor only.
    pub(crate) fn run(&self, pipelines: &Path, state: &Path, more: &[&str], pinned: bool) -> Result<Running> {
        let mut command = self.command(pinned);
        command.arg("run").arg(pipelines).arg("--state").arg(state).arg("--plugins").arg(&self.plugins).args(more);
        start(command, state.with_extension("log"))
    }

    /// Run `acequia --version`: what any process costs.
    pub(crate) fn version(&self, scratch: &Path) -> Result<Usage> {
        let mut command = self.command(false);
        command.arg("--version");
        start(command, scratch.join("version.log"))?.wait()
    }

    /// What a state folder holds, as `acequia state inspect --json` says it.
    pub(crate) fn inspect(&self, state: &Path) -> Result<serde_json::Value> {
        let output = self.command(false).args(["state", "inspect", "--json", "--state"]).arg(state).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn command(&self, pinned: bool) -> Command {
        if !pinned {
            return Command::new(&self.binary);
        }
        // It becomes the daemon by `exec`, so that the process and what it used are the daemon's.
        let mut command = Command::new("taskset");
        command.arg("-c").arg(self.cpu.to_string()).arg(&self.binary);
        command
    }
}

/// Start a program that is to be measured; what it says on standard error goes to `log`.
pub(crate) fn start(mut command: Command, log: PathBuf) -> Result<Running> {
    let errors = File::create(&log).with_context(|| format!("{} can't be written", log.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{} can't be started", command.get_program().display()))?;
    let output: Box<dyn Read> = match child.stdout.take() {
        Some(output) => Box::new(output),
        None => Box::new(std::io::empty()),
    };
    Ok(Running { child, begin, log, lines: BufReader::new(output), ended: false })
}

impl Running {
    /// The next line of its standard output, and the seconds since its start.
    pub(crate) fn line(&mut self) -> Result<(String, f64)> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the program printed nothing more: {}", self.said());
        }
        Ok((line, self.begin.elapsed().as_secs_f64()))
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("{path} can't be read"))?;
        let bytes = |key: &str| -> Result<f64> {
            let kilobytes = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB"));
            let kilobytes = kilobytes.with_context(|| format!("{path} has no {key}"))?;
            Ok(kilobytes.trim().parse::<f64>()? * 1024.0)
        };
        Ok(Memory { resident: bytes("VmRSS:")?, own: bytes("RssAnon:")?, peak: bytes("VmHWM:")? })
    }

    /// Seconds of processor time that all its threads have used so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("{path} can't be read"))?;
        // What follows the program's name, which may hold anything; the 14th and 15th field of all.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / TICKS)
    }

    /// Where its admin listener is, such as `http://127.0.0.1:41234`. Waits until it says so in its log.
    pub(crate) fn admin(&self) -> Result<String> {
        const SAYS: &str = "the admin listener is at ";
        for _ in 0..1000 {
            let said = self.said();
            if let Some((_, rest)) = said.split_once(SAYS)
                && let Some((url, _)) = rest.split_once(char::is_whitespace)
            {
                return Ok(url.trim_end_matches(|letter: char| !letter.is_ascii_digit()).to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the daemon does not say where its admin listener is: {}", self.said())
    }

    /// Tell it to stop.
    pub(crate) fn stop(mut self) -> Result<Usage> {
        kill_process(self.pid()?, Signal::TERM)?;
        self.reap(true)
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&self) -> Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.pid()?), options)?.is_none())
    }

    /// End it where it is: for a program that would go on for ever, and whose stopping is not to be counted.
    pub(crate) fn kill(mut self) -> Result<Usage> {
        kill_process(self.pid()?, Signal::KILL)?;
        let (usage, status) = self.reaped()?;
        ensure!(libc::WIFSIGNALED(status), "it ended by itself ({status:#x}): {}", self.said());
        Ok(usage)
    }

    /// Wait until it has ended by itself and in good order.
    pub(crate) fn wait(mut self) -> Result<Usage> {
        self.reap(true)
    }

    fn pid(&self) -> Result<Pid> {
        let pid = i32::try_from(self.child.id())?;
        Pid::from_raw(pid).context("a process without a number")
    }

    fn reap(&mut self, read: bool) -> Result<Usage> {
        if read {
            // Its output must not stop it.
            std::io::copy(&mut self.lines, &mut std::io::sink())?;
        }
        let (usage, status) = self.reaped()?;
        ensure!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            "the program failed ({status:#x}): {}",
            self.said()
        );
        Ok(usage)
    }

    /// Wait for its end, whatever that is: what it used, and the status of `wait4`.
    fn reaped(&mut self) -> Result<(Usage, i32)> {
        let mut status = 0;
        // SAFETY: `rusage` is plain numbers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to locals that live through the call.
        let reaped = unsafe { libc::wait4(self.pid()?.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        self.ended = true;
        ensure!(reaped > 0, "the program's end can't be waited for: {}", std::io::Error::last_os_error());
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let usage = Usage {
            wall: self.begin.elapsed().as_secs_f64(),
            cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            peak: usage.ru_maxrss as f64 * 1024.0,
        };
        Ok((usage, status))
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// What still runs is ended: an error must not leave it behind.
impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
