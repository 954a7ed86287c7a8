//! What can go wrong.

use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Kafka,
    Cassandra,
    InfluxDb,
}

/// What a configuration is broken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// It is no TOML.
    Syntax,
    /// An unknown key.
    Key,
    /// A plugin that is not there.
    Plugin,
    /// The file is gone: the pipeline ends, and goes on when it is back.
    Removed,
}

/// What the daemon may not enter for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Folder {
    State,
    Letters,
    Pipelines,
    Plugins,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`, and start again.
    KillDaemon,
    /// SIGTERM, wait for its end, start again.
    StopDaemon,
    /// SIGSTOP: what a machine that sleeps looks like to the servers.
    FreezeDaemon,
    StopServer(Target),
    KillServer(Target),
    FreezeServer(Target),
    /// Reset every connection to it.
    Cut(Target),
    /// Reset every connection after so many bytes more.
    CutInFrame(Target, usize),
    /// Half-open.
    Silence(Target),
    /// So long for each 16 KiB.
    Slow(Target, Duration),
    /// So many bytes a second.
    Narrow(Target, u32),
    /// New connections are refused.
    Close(Target),
    FillState,
    FillLetters,
    /// A plugin that traps in every call in place of a good one.
    Trap,
    /// A plugin that never returns in place of a good one.
    Loop,
    /// A file that is no plugin in place of a good one.
    Spoil,
    Break(Broken),
    /// Another batch size: a good reload.
    Change,
    Forbid(Folder),
    /// The wall clock, by so many seconds.
    MoveClock(i64),
}

/// What a fault strikes. Two faults at one victim don't overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Daemon,
    Server(Target),
    Link(Target),
    StateDisk,
    LettersDisk,
    Plugin,
    Config,
    Clock,
    Rights,
}

impl Fault {
    pub fn victim(self) -> Victim {
        match self {
            Fault::KillDaemon | Fault::StopDaemon | Fault::FreezeDaemon => Victim::Daemon,
            Fault::StopServer(target) | Fault::KillServer(target) | Fault::FreezeServer(target) => {
                Victim::Server(target)
            }
            Fault::Cut(target)
            | Fault::CutInFrame(target, _)
            | Fault::Silence(target)
            | Fault::Slow(target, _)
            | Fault::Narrow(target, _)
            | Fault::Close(target) => Victim::Link(target),
            Fault::FillState => Victim::StateDisk,
            Fault::FillLetters => Victim::LettersDisk,
            Fault::Trap | Fault::Loop | Fault::Spoil => Victim::Plugin,
            Fault::Break(_) | Fault::Change => Victim::Config,
            Fault::MoveClock(_) => Victim::Clock,
            Fault::Forbid(_) => Victim::Rights,
        }
    }

    /// What it is called in the report: without its measure.
    pub fn kind(self) -> String {
        match self {
            Fault::KillDaemon => "daemon: kill -9".to_owned(),
            Fault::StopDaemon => "daemon: SIGTERM".to_owned(),
            Fault::FreezeDaemon => "daemon: SIGSTOP".to_owned(),
            Fault::StopServer(target) => format!("{target}: stopped"),
            Fault::KillServer(target) => format!("{target}: kill -9"),
            Fault::FreezeServer(target) => format!("{target}: SIGSTOP"),
            Fault::Cut(target) => format!("{target}: connections reset"),
            Fault::CutInFrame(target, _) => format!("{target}: reset in a frame"),
            Fault::Silence(target) => format!("{target}: half-open"),
            Fault::Slow(target, _) => format!("{target}: delayed"),
            Fault::Narrow(target, _) => format!("{target}: throttled"),
            Fault::Close(target) => format!("{target}: refuses connections"),
            Fault::FillState => "disk of the state full".to_owned(),
            Fault::FillLetters => "disk of the dead letters full".to_owned(),
            Fault::Trap => "plugin traps".to_owned(),
            Fault::Loop => "plugin loops".to_owned(),
            Fault::Spoil => "plugin is garbage".to_owned(),
            Fault::Break(broken) => format!("config: {broken:?}").to_lowercase(),
            Fault::Change => "config: good reload".to_owned(),
            Fault::Forbid(folder) => format!("no permission: {folder:?}").to_lowercase(),
            Fault::MoveClock(_) => "clock moved".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.kind())?;
        match self {
            Fault::CutInFrame(_, bytes) => write!(formatter, " after {bytes} B"),
            Fault::Slow(_, wait) => write!(formatter, " by {wait:?}"),
            Fault::Narrow(_, bytes) => write!(formatter, " to {bytes} B/s"),
            Fault::MoveClock(seconds) => write!(formatter, " by {seconds} s"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Target::Kafka => "kafka",
            Target::Cassandra => "cassandra",
            Target::InfluxDb => "influxdb",
        })
    }
}
