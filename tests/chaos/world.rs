//! The servers, the daemon, its disks, and everything that is done to them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use acequia_tests::servers::{Cassandra, CassandraOptions, InfluxDb, Kafka, KafkaOptions, Server};
use acequia_tests::{Daemon, Proxy, Weather, evil_plugin, out_dir, plugin};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;

use crate::count::{self, Count, Expected};
use crate::faults::{Broken, Fault, Folder, Target};
use crate::feed::{Feed, PARTITIONS, number, reading};
use crate::pipelines::{self, Guest, Names};
use crate::plan::Round;
use crate::truth;

/// How long everything may take to get well again. Far more than it should: what counts is what is measured.
const PATIENCE: Duration = Duration::from_secs(150);
/// A tenth of the rows go to the databases.
const SHARE: u64 = 10;

/// The servers of all campaigns of a process, and a proxy before each.
pub struct Servers {
    pub kafka: Kafka,
    pub cassandra: Cassandra,
    pub influxdb: InfluxDb,
    pub kafka_proxy: Proxy,
    pub cassandra_proxy: Proxy,
    pub influxdb_proxy: Proxy,
}

impl Servers {
    pub fn start() -> Servers {
        let (lead, target) = watch::channel(None);
        let kafka_proxy = Proxy::new(target);
        let kafka = Kafka::start_with(&KafkaOptions { proxy: Some(kafka_proxy.port()), ..KafkaOptions::default() });
        lead.send_replace(Some(kafka.behind_proxy()));
        let cassandra = Cassandra::start_with(CassandraOptions { durable: true, ..CassandraOptions::default() });
        let influxdb = InfluxDb::start();
        let influxdb_proxy = Proxy::to(influxdb.url().trim_start_matches("http://"));
        let cassandra_proxy = Proxy::to(cassandra.address());
        Servers { kafka, cassandra, influxdb, kafka_proxy, cassandra_proxy, influxdb_proxy }
    }

    fn server(&mut self, target: Target) -> &mut Server {
        match target {
            Target::Kafka => &mut self.kafka,
            Target::Cassandra => &mut self.cassandra,
            Target::InfluxDb => &mut self.influxdb,
        }
    }

    fn proxy(&self, target: Target) -> &Proxy {
        match target {
            Target::Kafka => &self.kafka_proxy,
            Target::Cassandra => &self.cassandra_proxy,
            Target::InfluxDb => &self.influxdb_proxy,
        }
    }
}

/// How often the daemon ended by itself.
#[derive(Clone, Debug, Default)]
pub struct Exits {
    /// Because the folder of its state could not be used, as it should.
    allowed: u64,
    /// In any other way: none should be.
    others: u64,
    /// The longest that SIGTERM took.
    stop: Duration,
}

impl Exits {
    pub fn add(&mut self, more: &Exits) {
        self.allowed += more.allowed;
        self.others += more.others;
        self.stop = self.stop.max(more.stop);
    }
}

impl fmt::Display for Exits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exits { allowed, others, stop } = self;
        write!(
            formatter,
            "the daemon refused to start without its state {allowed} times, and ended by itself {others} times; SIGTERM took {:.1} s at most",
            stop.as_secs_f64()
        )
    }
}

/// A small disk of its own: a tmpfs, gone with the mount namespace of this process.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Disk {
        std::fs::create_dir_all(&path).expect("a folder for a disk");
        mount(&["-t", "tmpfs", "-o", "size=2g", "chaos"], &path);
        Disk(path)
    }

    /// No byte more than there are now.
    fn fill(&self) {
        let disk = rustix::fs::statvfs(&self.0).expect("a disk");
        let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
        // A page less than it may shrink to is refused; it may grow between our look and this.
        let size = |pages: u64| format!("remount,size={}", used + pages * disk.f_frsize);
        (1..64).map(|pages| try_mount(&["-o", &size(pages)], &self.0)).find(|done| *done);
    }

    fn empty(&self) {
        mount(&["-o", "remount,size=2g"], &self.0);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn try_mount(arguments: &[&str], path: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(path).output().expect("mount (util-linux) starts");
    output.status.success()
}

fn mount(arguments: &[&str], path: &Path) {
    assert!(try_mount(arguments, path), "mount {arguments:?} {} fails", path.display());
}

/// Moves the wall clock of a process.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let mut all = folders.chain(["/usr/lib".into(), "/usr/local/lib".into()]);
    let found = all.find_map(|folder| {
        let library = folder.join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    });
    found.expect("libfaketime moves the daemon's clock: `tests/servers/services.sh install` gets it")
}

/// State, source rows and checkpoint of a pipeline.
type Look = BTreeMap<&'static str, (String, u64, u64)>;

/// One campaign's world.
pub struct World<'a> {
    // Before the daemon: its folder can be removed only without them.
    state: Disk,
    letters: Disk,
    servers: &'a mut Servers,
    daemon: Daemon,
    names: Names,
    numbers: Feed,
    readings: Feed,
    guest: Guest,
    rows: u32,
    broken: bool,
    frozen: bool,
    forbidden: Option<Folder>,
    logs: PathBuf,
    lives: u32,
    exits: Exits,
    peak: u64,
    clean: bool,
}

impl<'a> World<'a> {
    pub fn new(seed: u64, servers: &'a mut Servers, rate: u64) -> World<'a> {
        let logs = out_dir().join("chaos").join(format!("seed-{seed}"));
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs).expect("a folder for logs");
        let library = faketime();
        let daemon = Daemon::new();
        let clock = daemon.file("clock", "+0\n");
        // Root may do what the rights of a file forbid; our root must not.
        let capabilities = "-dac_override,-dac_read_search";
        let daemon = daemon
            .under(&["setpriv", "--pdeathsig", "KILL", "--inh-caps", capabilities, "--bounding-set", capabilities])
            .env("LD_PRELOAD", &library.display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let state = Disk::mount(daemon.folder().join("state"));
        let letters = Disk::mount(daemon.folder().join("dead"));
        std::fs::create_dir(daemon.folder().join("plugins")).expect("a folder");
        let names = Names::make(servers);
        let broker = servers.kafka.address();
        let mut world = World {
            state,
            letters,
            numbers: Feed::start(broker, &names.numbers, rate, number),
            readings: Feed::start(broker, &names.readings, rate / SHARE, reading),
            servers,
            daemon,
            names,
            guest: Guest::Good,
            rows: 8192,
            broken: false,
            frozen: false,
            forbidden: None,
            logs,
            lives: 0,
            exits: Exits::default(),
            peak: 0,
            clean: true,
        };
        world.put_plugin(true);
        std::fs::copy(evil_plugin("evil"), world.daemon.folder().join("plugins/evil.wasm")).expect("a plugin");
        world.configure(|_| true);
        world.spawn();
        world.recover();
        world
    }

    pub fn exits(&self) -> &Exits {
        &self.exits
    }

    pub fn peak_memory(&self) -> u64 {
        self.peak
    }

    pub fn clean(&self) -> bool {
        self.clean
    }

    fn wrong(&mut self, what: &str) {
        self.clean = false;
        println!("  WRONG: {what}; the daemon's log: {}", self.logs.display());
    }

    /// Let a round's faults happen, each at its time, and wait until all is well again: how long that took.
    pub fn play(&mut self, round: &Round) -> Duration {
        let mut moments: Vec<(Duration, Fault, bool)> = Vec::new();
        for strike in &round.0 {
            moments.push((strike.at, strike.fault, true));
            moments.push((strike.at + strike.stays, strike.fault, false));
        }
        moments.sort_by_key(|(at, ..)| *at);
        let begin = Instant::now();
        for (at, fault, begins) in moments {
            while begin.elapsed() < at {
                self.tick();
                std::thread::sleep((at.saturating_sub(begin.elapsed())).min(Duration::from_millis(100)));
            }
            if begins { self.strike(fault) } else { self.heal(fault) }
        }
        self.recover()
    }

    fn spawn(&mut self) {
        let log = self.logs.join(format!("{:04}.log", self.lives));
        let _ = std::fs::copy(self.daemon.folder().join("stderr"), log);
        self.lives += 1;
        self.daemon.spawn(&["--listen", "127.0.0.1:0"]);
    }

    /// Look after the daemon as systemd would.
    fn tick(&mut self) {
        if self.frozen {
            return;
        }
        if self.daemon.is_running() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap_or_default();
            let peak =
                status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
            self.peak = self.peak.max(peak.unwrap_or(0) << 10);
            return;
        }
        let exit = self.daemon.wait_exit();
        let last = exit.stderr.trim_end().lines().last().unwrap_or_default().to_owned();
        if exit.code == Some(1) && self.forbidden == Some(Folder::State) {
            self.exits.allowed += 1;
        } else {
            self.exits.others += 1;
            self.wrong(&format!("the daemon ended with {:?}: {last}", exit.code));
        }
        std::thread::sleep(Duration::from_millis(500));
        self.spawn();
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::KillDaemon => {
                self.daemon.kill();
                self.frozen = false;
                self.spawn();
            }
            Fault::StopDaemon => {
                if self.daemon.is_running() {
                    let begin = Instant::now();
                    let exit = self.daemon.stop();
                    self.exits.stop = self.exits.stop.max(begin.elapsed());
                    // Nothing printed: it came so early that it met setpriv, not yet the daemon.
                    if !matches!(exit.code, Some(0 | 1)) && !exit.stderr.is_empty() {
                        self.wrong(&format!("SIGTERM: {:?}", exit.code));
                    }
                    self.spawn();
                }
            }
            Fault::FreezeDaemon => {
                if self.daemon.is_running() {
                    self.daemon.signal(Signal::STOP);
                    self.frozen = true;
                }
            }
            Fault::StopServer(target) => self.servers.server(target).stop(),
            Fault::KillServer(target) => self.servers.server(target).kill(),
            Fault::FreezeServer(target) => self.servers.server(target).freeze(),
            Fault::Cut(target) => self.servers.proxy(target).cut(),
            Fault::CutInFrame(target, bytes) => self.servers.proxy(target).cut_after(bytes),
            Fault::Silence(target) => self.servers.proxy(target).set(Weather::Silent),
            Fault::Slow(target, wait) => self.servers.proxy(target).set(Weather::Slow(wait)),
            Fault::Narrow(target, bytes) => self.servers.proxy(target).set(Weather::Narrow(bytes)),
            Fault::Close(target) => {
                self.servers.proxy(target).set(Weather::Closed);
                self.servers.proxy(target).cut();
            }
            Fault::FillState => self.state.fill(),
            Fault::FillLetters => self.letters.fill(),
            Fault::Trap | Fault::Loop => {
                self.guest = if fault == Fault::Trap { Guest::Traps } else { Guest::Loops };
                self.configure(|name| ["stops", "letters"].contains(&name));
            }
            Fault::Spoil => self.put_plugin(false),
            Fault::Break(broken) => self.break_config(broken),
            Fault::Change => {
                self.rows = if self.rows == 8192 { 1000 } else { 8192 };
                self.configure(|name| ["once", "table"].contains(&name));
            }
            Fault::Forbid(folder) => {
                self.forbidden = Some(folder);
                self.permit(folder, 0);
            }
            Fault::MoveClock(seconds) => drop(self.daemon.file("clock", format!("{seconds:+}\n"))),
        }
    }

    fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::KillDaemon | Fault::StopDaemon | Fault::Cut(_) | Fault::CutInFrame(..) | Fault::Change => {}
            Fault::FreezeDaemon => {
                if self.frozen {
                    self.daemon.signal(Signal::CONT);
                    self.frozen = false;
                }
            }
            Fault::StopServer(target) | Fault::KillServer(target) => self.servers.server(target).start_again(),
            Fault::FreezeServer(target) => self.servers.server(target).thaw(),
            Fault::Silence(target) | Fault::Slow(target, _) | Fault::Narrow(target, _) | Fault::Close(target) => {
                self.servers.proxy(target).set(Weather::Fair);
            }
            Fault::FillState => self.state.empty(),
            Fault::FillLetters => self.letters.empty(),
            Fault::Trap | Fault::Loop => {
                self.guest = Guest::Good;
                self.configure(|name| ["stops", "letters"].contains(&name));
            }
            Fault::Spoil => self.put_plugin(true),
            Fault::Break(_) => {
                self.broken = false;
                self.configure(|name| name == "copy");
            }
            Fault::Forbid(folder) => {
                self.permit(folder, 0o755);
                self.forbidden = None;
            }
            Fault::MoveClock(_) => drop(self.daemon.file("clock", "+0\n")),
        }
    }

    fn permit(&self, folder: Folder, mode: u32) {
        let name = match folder {
            Folder::State => "state",
            Folder::Letters => "dead",
            Folder::Pipelines => "pipelines",
            Folder::Plugins => "plugins",
            Folder::Out => "out",
        };
        let path = self.daemon.folder().join(name);
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("rights are changed");
    }

    fn put_plugin(&self, good: bool) {
        let folder = self.daemon.folder().join("plugins");
        let new = folder.join("new");
        if good {
            std::fs::copy(plugin("even-filter"), &new).expect("a plugin");
        } else {
            std::fs::write(&new, b"\0asm and then nothing of the kind").expect("no plugin");
        }
        std::fs::rename(new, folder.join("even.wasm")).expect("a plugin is put in its place");
    }

    /// Write the pipelines of these names as they are to be now.
    fn configure(&self, wanted: impl Fn(&str) -> bool) {
        for pipeline in pipelines::all(self.servers, &self.names, self.guest, self.rows) {
            if wanted(pipeline.name) && !(self.broken && pipeline.name == "copy") {
                self.daemon.pipeline(pipeline.name, &pipeline.text);
            }
        }
    }

    fn break_config(&mut self, broken: Broken) {
        let all = pipelines::all(self.servers, &self.names, self.guest, self.rows);
        let copy = all.into_iter().find(|pipeline| pipeline.name == "copy").expect("a pipeline");
        let text = match broken {
            Broken::Syntax => format!("{}[[[", copy.text),
            Broken::Key => copy.text.replace("topics", "topicz"),
            Broken::Plugin => format!("{}[[transform]]\nplugin = \"nowhere\"\n", copy.text),
            Broken::Removed => {
                std::fs::remove_file(self.daemon.pipelines().join("copy.toml")).expect("a pipeline is removed");
                self.broken = true;
                return;
            }
        };
        self.broken = true;
        self.daemon.pipeline("copy", &text);
    }

    fn look(&self) -> Option<Look> {
        let admin = self.daemon.admin()?;
        let mut look = Look::new();
        for name in NAMES {
            let status = admin.get(&format!("/connectors/{name}/status"))?;
            let details = &status["acequia"];
            let state = details["state"].as_str()?.to_owned();
            let checkpoint = details["checkpoint"]["number"].as_u64().unwrap_or(0);
            look.insert(name, (state, read(details), checkpoint));
        }
        Some(look)
    }

    /// Wait until every pipeline runs, has read on, and has stored that.
    fn recover(&mut self) -> Duration {
        let begin = Instant::now();
        let mut first: Option<Look> = None;
        loop {
            self.tick();
            let now = self.look();
            match (&first, now) {
                (None, now) => first = now,
                (Some(first), Some(now)) => {
                    let well = |name| {
                        let (state, rows, checkpoint) = &now[name];
                        state == "RUNNING" && *rows > first[name].1 && *checkpoint > first[name].2
                    };
                    let ill: Vec<_> = NAMES.into_iter().filter(|&name| !well(name)).collect();
                    if ill.is_empty() {
                        return begin.elapsed();
                    }
                    if begin.elapsed() > PATIENCE {
                        for name in ill {
                            self.wrong(&format!("{name} does not get well: {}", self.daemon.status(name)));
                        }
                        return begin.elapsed();
                    }
                }
                (Some(_), None) => {}
            }
            if begin.elapsed() > 2 * PATIENCE {
                self.wrong("the daemon does not answer");
                return begin.elapsed();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Feed no more, wait until all is read, and stop in good order: what was fed.
    pub fn finish(&mut self) -> Expected {
        let fed = [self.numbers.finish(), self.readings.finish()];
        let lanes = usize::try_from(PARTITIONS).expect("a few");
        let broker = self.servers.kafka.address();
        let numbers = truth::tally(broker, &self.names.numbers, lanes);
        let readings = truth::tally(broker, &self.names.readings, lanes);
        for (tally, fed) in [(&numbers, fed[0]), (&readings, fed[1])] {
            if tally.end() != fed || (0..fed).any(|n| tally.times(n) != 1) {
                println!(
                    "  the broker itself lost or doubled rows that were fed: what it has is taken as what was sent"
                );
            }
        }
        let total = |tally: &truth::Tally| (0..tally.end()).map(|n| u64::from(tally.times(n))).sum::<u64>();
        let (all_numbers, all_readings) = (total(&numbers), total(&readings));
        loop {
            self.wait_read(all_numbers, all_readings);
            let exit = self.daemon.stop();
            if exit.code != Some(0) {
                self.wrong(&format!("the last stop: {:?}", exit.code));
                break;
            }
            // What is on its way when SIGTERM comes has five seconds; what has not arrived by then comes with the next start.
            if !exit.stderr.contains("could not be delivered in time") {
                break;
            }
            self.spawn();
        }
        let _ = std::fs::copy(self.daemon.folder().join("stderr"), self.logs.join("last.log"));
        println!("  {} rows fed; {} lives of the daemon", all_numbers + all_readings, self.lives);
        Expected { numbers, readings }
    }

    /// Wait until every pipeline has read all that was fed.
    fn wait_read(&mut self, all_numbers: u64, all_readings: u64) {
        let begin = Instant::now();
        loop {
            self.tick();
            let behind: Vec<String> = pipelines::all(self.servers, &self.names, self.guest, self.rows)
                .iter()
                .filter_map(|pipeline| {
                    let topic = pipeline.topic.as_ref()?;
                    let wanted = if *topic == self.names.numbers { all_numbers } else { all_readings };
                    let admin = self.daemon.admin();
                    let status = admin.and_then(|admin| admin.get(&format!("/connectors/{}/status", pipeline.name)));
                    let read = read(&status.unwrap_or_default()["acequia"]);
                    (read != wanted).then(|| format!("{} has read {read} of {wanted}", pipeline.name))
                })
                .collect();
            if behind.is_empty() {
                return;
            }
            if begin.elapsed() > PATIENCE {
                return self.wrong(&behind.join(", "));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn counts(&self, expected: &Expected) -> Vec<Count> {
        count::all(self.servers, &self.names, self.daemon.folder(), expected)
    }
}

const NAMES: [&str; 8] = ["once", "copy", "words", "table", "points", "stops", "letters", "ticks"];

/// Rows that the source of a pipeline has taken, good and bad.
fn read(details: &Value) -> u64 {
    let source = &details["stages"][0];
    source["rows_out"].as_u64().unwrap_or(0) + source["dead"].as_u64().unwrap_or(0)
}
