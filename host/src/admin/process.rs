//! What the system knows of this process.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the process uses up. Absent where the system does not tell (no `/proc`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Time on all processors, seconds.
    pub(super) cpu_seconds: f64,
    /// Resident memory, bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Address space, bytes: far more than is used, because guests' memories are reserved.
    pub(super) virtual_bytes: Option<u64>,
    /// Open files and sockets.
    pub(super) open_fds: Option<u64>,
    /// How many there may be; `None`: any number.
    pub(super) max_fds: Option<u64>,
}

impl Process {
    /// This process, now.
    pub(super) fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // One of the entries is the folder itself, open while it is read.
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
        Process {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The value of a line such as `VmRSS:     1234 kB`, in bytes.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_status_are_kibibytes() {
        let status = "Name:\tacequia\nVmSize:\t   20000 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(kibibytes(status, "VmSize:"), Some(20000 * 1024));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
        assert_eq!(kibibytes("VmRSS:\t99999999999999999999 kB\n", "VmRSS:"), None);
        assert_eq!(kibibytes("VmRSS:\t12 MB\n", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_knows_this_process() {
        let before = Process::read();
        let files: Vec<_> = (0..10).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let after = Process::read();
        // Other tests open and close files meanwhile, but ten are held here.
        assert!(after.open_fds.unwrap() >= files.len() as u64 + 3, "{after:?}");
        assert!(after.open_fds.unwrap() <= after.max_fds.unwrap_or(u64::MAX), "{after:?}");
        assert!(after.resident_bytes.unwrap() > 100 << 10, "{after:?}");
        assert!(after.virtual_bytes >= after.resident_bytes, "{after:?}");
        assert!(after.cpu_seconds >= before.cpu_seconds && after.cpu_seconds > 0.0, "{before:?} {after:?}");
    }
}
