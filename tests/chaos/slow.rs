//! A sink ten times slower than its source, for as long as the campaign: memory has to stay where it is.

use std::fmt;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acequia_tests::servers::InfluxDb;
use acequia_tests::{Daemon, Proxy, Weather, out_dir};

/// What the sink's connection carries, bytes a second.
const SINK: u32 = 1 << 20;
/// What comes, bytes a second.
const SOURCE: u64 = 10 * SINK as u64;
const LINE: usize = 1000;
/// What docs/operations.md says that the configuration below takes: 2 stages x (3 + 1) x 7 MiB, and 7 MiB.
const CONFIGURED: u64 = 64 << 20;
/// Until then the queues fill.
const WARM: Duration = Duration::from_secs(45);

/// Resident memory over time.
#[derive(Debug)]
pub struct Slow {
    samples: Vec<(Duration, u64)>,
    start: u64,
    offered: u64,
    taken: u64,
}

impl Slow {
    fn most(&self, from: Duration, to: Duration) -> u64 {
        let within = self.samples.iter().filter(|(at, _)| *at >= from && *at < to);
        within.map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    fn halves(&self) -> (u64, u64) {
        let end = self.samples.last().map_or(Duration::ZERO, |(at, _)| *at);
        let middle = WARM.max((WARM + end) / 2);
        (self.most(WARM.min(middle), middle), self.most(middle, Duration::MAX))
    }

    /// The second half takes no more than the first, and all of it what was configured and what the daemon is by itself.
    pub fn holds(&self) -> bool {
        let (first, second) = self.halves();
        second <= first + first / 20 && second > 0 && second < self.start + 2 * CONFIGURED && self.taken < self.offered
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.halves();
        let seconds = self.samples.last().map_or(0.0, |(at, _)| at.as_secs_f64());
        write!(
            formatter,
            "a sink of {} kB/s behind a source of {} kB/s for {seconds:.0} s, 64 MiB configured: {} MiB at the start, at most {} MiB in the first half, {} MiB in the second; {:.2} of what was offered was taken",
            SINK / 1000,
            SOURCE / 1000,
            self.start >> 20,
            first >> 20,
            second >> 20,
            self.taken as f64 / self.offered.max(1) as f64,
        )
    }
}

/// Run it in a thread of its own.
pub fn start(time: Duration) -> JoinHandle<Slow> {
    std::thread::spawn(move || run(time))
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    line.unwrap_or(0) << 10
}

fn run(time: Duration) -> Slow {
    let influxdb = InfluxDb::start();
    let bucket = influxdb.bucket("slow");
    let proxy = Proxy::to(influxdb.url().trim_start_matches("http://"));
    proxy.set(Weather::Narrow(SINK));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (offered, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (due, sent) = (offered.clone(), taken.clone());
    std::thread::spawn(move || {
        let line = [b"x".repeat(LINE - 1), b"\n".to_vec()].concat();
        while let Ok((mut stream, _)) = listener.accept() {
            let begin = Instant::now();
            for count in 1_u64.. {
                let wanted = Duration::from_secs_f64((count * LINE as u64) as f64 / SOURCE as f64);
                if let Some(left) = wanted.checked_sub(begin.elapsed()) {
                    std::thread::sleep(left);
                }
                due.store((begin.elapsed().as_secs_f64() * SOURCE as f64) as u64, Ordering::Relaxed);
                // It waits here while nobody takes rows: that is the backpressure.
                if stream.write_all(&line).is_err() {
                    break;
                }
                sent.fetch_add(LINE as u64, Ordering::Relaxed);
            }
        }
    });
    // It ends with this thread, however that ends.
    let mut daemon = Daemon::new().under(&["setpriv", "--pdeathsig", "KILL"]);
    daemon.start();
    let start = resident(daemon.pid());
    daemon.pipeline(
        "slow",
        &format!(
            "[source]\ntype = \"socket\"\naddress = \"{address}\"\n\n\
             [[sink]]\ntype = \"influxdb\"\nurl = \"http://{}\"\norg = \"{}\"\nbucket = \"{bucket}\"\ntoken = \"{}\"\n\
             measurement = \"lines\"\nfields = [\"value\"]\ntime_of_writing = true\n\n\
             [delivery]\nin_flight = 3\nbatch = {{ rows = 1000000, bytes = \"7MiB\" }}\n",
            proxy.address(),
            influxdb.org(),
            influxdb.token(),
        ),
    );
    let begin = Instant::now();
    let mut samples = Vec::new();
    while begin.elapsed() < time {
        samples.push((begin.elapsed(), resident(daemon.pid())));
        std::thread::sleep(Duration::from_secs(1).min(time));
    }
    let slow = Slow { samples, start, offered: offered.load(Ordering::Relaxed), taken: taken.load(Ordering::Relaxed) };
    // What went on is of interest when it does not hold.
    let logs = out_dir().join("chaos");
    let _ = std::fs::create_dir_all(&logs);
    let _ = std::fs::copy(daemon.folder().join("stderr"), logs.join("slow.log"));
    daemon.kill();
    slow
}
