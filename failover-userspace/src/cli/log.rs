//! What `failover` writes to standard error: to a terminal, a file, or the journal of systemd.
//!
//! The journal has clock and priorities of its own. There a line begins with its priority, as
//! sd-daemon(3) has it, and carries neither time nor level nor colours.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anyhow::{Result, anyhow};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log, as `FAILOVER_LOG` or else `RUST_LOG` says; `info` by default.
pub(super) fn init() -> Result<()> {
    let filter = ["FAILOVER_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        Some((
            name,
            std::env::var(name).ok().filter(|value| !value.is_empty())?,
        ))
    });
    let filter = match filter {
        Some((name, filter)) => filter
            .parse()
            .map_err(|error| anyhow!("{name}={filter}: {error}"))?,
        None => Targets::new().with_default(Level::INFO),
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(io::stderr);
    let started = if to_journal() {
        let log = log.with_ansi(false).event_format(Journal::default());
        log.finish().with(filter).try_init()
    } else {
        let log = log.with_ansi(io::stderr().is_terminal());
        log.finish().with(filter).try_init()
    };
    started.map_err(|error| anyhow!(error))
}

/// Says why a command fails.
pub(super) fn complain(text: &str) {
    let mut out = String::new();
    for line in text.lines() {
        if to_journal() {
            out += &format!("<{}>", priority(Level::ERROR));
        }
        out += line;
        out.push('\n');
    }
    // There is nobody else to tell.
    let _ = io::stderr().lock().write_all(out.as_bytes());
}

/// Whether standard error is what systemd connected to the journal, and nothing put in its place
/// since.
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino))
}

/// `JOURNAL_STREAM` is device and inode in decimal.
fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    let parts = stream.split_once(':');
    parts.is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Records as the journal takes them.
struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().without_time().with_level(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0
            .format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // For the journal each line is a record.
        for line in text.lines() {
            writeln!(writer, "<{priority}>{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_journal_is_recognised() {
        for (stream, want) in [
            ("8:123", true),
            ("8:1234", false),
            ("9:123", false),
            ("8:", false),
            ("8", false),
            ("", false),
        ] {
            assert_eq!(is_stream(stream, 8, 123), want, "{stream:?}");
        }
    }

    /// Takes what is written.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_in_the_journal() {
        let sink = Sink::default();
        let writer = sink.clone();
        let log = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .event_format(Journal::default())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::error!(target: "t", "first\nsecond");
            tracing::warn!(target: "t", name = "wan1", "gone");
            tracing::info!(target: "t", n = 7, "ready");
            tracing::debug!(target: "t", "detail");
        });
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let want =
            "<3>t: first\n<3>second\n<4>t: gone name=\"wan1\"\n<6>t: ready n=7\n<7>t: detail\n";
        assert_eq!(written, want);
    }
}
