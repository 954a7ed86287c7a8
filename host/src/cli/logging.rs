//! The log: to standard error, in one of three forms.

use std::fmt;

use anyhow::Context as _;
use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// For systemd's journal: the level as `<N>` in front (sd-daemon(3)), no time, since the journal has its own.
    Journald,
}

impl LogFormat {
    /// `Journald` if systemd connected this process to the journal, else `Text`.
    pub fn of_process() -> Self {
        if std::env::var_os("JOURNAL_STREAM").is_some() { LogFormat::Journald } else { LogFormat::Text }
    }
}

/// Start logging to standard error, from `info` up, or as `$ACEQUIA_LOG` or `$RUST_LOG` says (the syntax is that of
/// `tracing_subscriber::EnvFilter`: `debug`, `acequia=debug`, `warn,acequia::plugin=trace`).
///
/// # Errors
/// If the variable can't be understood, or there is a log already.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let set = ["ACEQUIA_LOG", "RUST_LOG"].into_iter().find_map(|name| Some((name, std::env::var(name).ok()?)));
    let filter = match set {
        Some((name, text)) if !text.trim().is_empty() => EnvFilter::try_new(&text).with_context(|| {
            format!("the environment variable `{name}` is no log filter such as `info,acequia=debug`")
        })?,
        // The driver tells each node and connection.
        _ => EnvFilter::new("info,scylla=warn"),
    };
    // A log that can't be written (its disk is full) is no reason to stop: by default the subscriber says so on standard
    // error, which may be that same log, and panics in the task that wanted to say something.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let colours = {
        use std::io::IsTerminal;
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    };
    let started = match format {
        LogFormat::Text => builder.with_ansi(colours).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Journald => journald(builder).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log can't be started: {error}"))
}

/// Without colours in the fields either.
fn journald<F, W>(
    builder: SubscriberBuilder<DefaultFields, Format, F, W>,
) -> SubscriberBuilder<DefaultFields, Journald, F, W>
where
    W: for<'w> MakeWriter<'w> + 'static,
{
    builder.with_ansi(false).event_format(Journald::default())
}

/// See [`LogFormat::Journald`].
struct Journald {
    line: Format<Full, ()>,
}

impl Default for Journald {
    fn default() -> Self {
        let line =
            tracing_subscriber::fmt::format().without_time().with_level(false).with_target(false).with_ansi(false);
        Journald { line }
    }
}

impl<S> FormatEvent<S, DefaultFields> for Journald
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    DefaultFields: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.line.format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // Each line is an entry of its own in the journal.
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// syslog's numbers (RFC 5424, 6.2.1).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_levels_and_no_times() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = journald(tracing_subscriber::fmt()).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("pipeline", name = "seq").entered();
            tracing::error!(rows = 3, "one\ntwo");
            tracing::info!("three");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let want = "<3>pipeline{name=\"seq\"}: one\n<3>two rows=3\n<6>pipeline{name=\"seq\"}: three\n";
        assert_eq!(text, want);
    }
}
