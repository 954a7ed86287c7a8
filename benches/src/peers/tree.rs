//! What a program uses together with all that it starts: Spark is a Python process, a Java process below it, and more Python
//! processes below that one.
//!
//! A process of its own stands above them. Whoever loses its parent becomes its child, so that nobody ends without being
//! counted; the kernel adds up the processor time of all whose end was waited for.

use std::collections::HashMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, set_parent_process_death_signal, wait};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// A program, below a process that counts.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Tree {
    /// Where to write what was used: seconds of processor time, and bytes.
    report: PathBuf,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// A command that runs this one below a process that counts; [`used`] reads the report.
pub(super) fn above(command: &Command, report: &Path) -> Result<Command> {
    let mut above = Command::new(std::env::current_exe().context("where this program is can't be told")?);
    above.arg("tree").arg(report).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => above.env(name, value),
            None => above.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        above.current_dir(folder);
    }
    Ok(above)
}

/// Seconds of processor time, and the most bytes of memory at once, of all processes together.
pub(super) fn used(report: &Path) -> Result<(f64, f64)> {
    let text = std::fs::read_to_string(report).with_context(|| format!("{} can't be read", report.display()))?;
    let (cpu, peak) = text.trim().split_once(' ').context("a report of two numbers")?;
    Ok((cpu.parse()?, peak.parse()?))
}

/// Run the program to its end, and that of all that it has started.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let Some((program, arguments)) = tree.command.split_first() else { bail!("no program") };
    set_child_subreaper(Some(getpid()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: between fork and exec the closure makes one system call, and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let (peak, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident(), Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
        });
        let status = last_end(&mut command);
        over.store(true, Ordering::Relaxed);
        status
    })?;
    ensure!(status == Some(0), "{program} failed (exit code {status:?})");
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local that lives through the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    ensure!(result == 0, "what was used can't be told: {}", std::io::Error::last_os_error());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    std::fs::write(&tree.report, format!("{cpu} {}", peak.into_inner()))?;
    Ok(())
}

/// Wait until nothing is left; the exit code of the first.
fn last_end(command: &mut Command) -> Result<Option<i32>> {
    let child = command.spawn().with_context(|| format!("{} can't be started", command.get_program().display()))?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    let mut status = None;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, end))) if Some(pid) == first => status = end.exit_status(),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(status),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Resident memory of all below this process, in bytes; pages that several have count once.
fn resident() -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be gone by now.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut todo = children.remove(&std::process::id()).unwrap_or_default();
    let mut bytes = 0;
    while let Some(pid) = todo.pop() {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        bytes += share(&rollup);
        todo.extend(children.remove(&pid).unwrap_or_default());
    }
    bytes
}

/// The fourth field of `/proc/PID/stat`; the second, a name, may have blanks and parentheses in it.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The proportional set size of `/proc/PID/smaps_rollup`, in bytes.
fn share(rollup: &str) -> u64 {
    let kilobytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("17 (java) S 4 17 17 0"), Some(4));
        assert_eq!(parent("17 (a) R (b) S 4 17 17 0"), Some(4));
        assert_eq!(parent(""), None);
    }

    #[test]
    fn the_share_is_in_bytes() {
        assert_eq!(
            share("00400000-7ffd ---p [rollup]\nRss:     900 kB\nPss:     123 kB\nPss_Anon:  1 kB\n"),
            123 * 1024
        );
        assert_eq!(share(""), 0);
    }
}
