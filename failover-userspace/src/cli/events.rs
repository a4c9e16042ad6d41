//! `failover events`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Result, bail};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::client::unexpected;
use super::print;
use crate::journal::{Entry, Filter, Severity};
use crate::protocol::{Reply, Request};

/// What `--follow` begins with.
const LINES: usize = 10;

pub(super) fn events(args: &super::Events) -> Result<ExitCode> {
    let mut client = args.daemon.connect()?;
    client.send(&Request::Events {
        filter: Filter {
            since: args.since,
            service: args.service.clone(),
            subject: args.subject.clone(),
        },
        last: match (args.lines, args.since) {
            (None, None) if args.follow => Some(LINES),
            (lines, _) => lines,
        },
        follow: args.follow,
    })?;
    let mut shown = Shown {
        json: args.json,
        colour: io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        columns: Columns::default(),
    };
    let mut kept = Vec::new();
    loop {
        match client.receive()? {
            Some(Reply::Event(entry)) => kept.push(*entry),
            Some(Reply::UpToDate {}) => break,
            Some(_) => return Err(unexpected()),
            None => bail!("the daemon has hung up before the end"),
        }
    }
    shown.print(&kept)?;
    drop(kept);
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    client.wait_for_ever()?;
    loop {
        match client.receive()? {
            Some(Reply::Event(entry)) => shown.print(&[*entry])?,
            Some(_) => return Err(unexpected()),
            None => bail!("the daemon is gone, or has not been read from for too long"),
        }
    }
}

/// A duration back from now, or a time.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    since_before(text, Timestamp::now())
}

fn since_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(back) = humantime::parse_duration(text) {
        let back = SignedDuration::try_from(back).ok();
        let since = back.and_then(|back| now.checked_sub(back).ok());
        return Ok(since.unwrap_or(Timestamp::MIN));
    }
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let civil = text
        .parse::<DateTime>()
        .or_else(|_| text.parse::<Date>().map(Date::into));
    let civil = civil.ok().and_then(|time: DateTime| {
        let zoned = time.to_zoned(TimeZone::UTC).ok()?;
        Some(zoned.timestamp())
    });
    civil.ok_or_else(|| {
        "expected a duration, such as 30m or 2h, or a time, such as 2026-11-22 or 2026-11-22T10:00:00Z"
            .to_owned()
    })
}

/// A pattern, as it is written.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    match glob::Pattern::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a pattern, such as www/*: {error}")),
    }
}

/// How entries are shown.
struct Shown {
    json: bool,
    colour: bool,
    columns: Columns,
}

impl Shown {
    fn print(&mut self, entries: &[Entry]) -> Result<()> {
        let mut text = String::new();
        if self.json {
            for entry in entries {
                text += &serde_json::to_string(entry)?;
                text.push('\n');
            }
        } else {
            let rows: Vec<Row> = entries.iter().map(Row::new).collect();
            for row in &rows {
                self.columns.widen(row);
            }
            for row in &rows {
                text += &self.columns.line(row, self.colour);
            }
        }
        print(&text)
    }
}

/// The cells of one entry.
struct Row {
    time: String,
    kind: &'static str,
    subject: String,
    change: String,
    why: String,
    colour: &'static str,
}

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "";
const RESET: &str = "\x1b[0m";

impl Row {
    fn new(entry: &Entry) -> Self {
        let news = &entry.news;
        let change = match (&news.from, &news.to) {
            (Some(from), Some(to)) if from == to => to.clone(),
            (Some(from), Some(to)) => format!("{from} → {to}"),
            (None, Some(to)) => to.clone(),
            (_, None) => "-".to_owned(),
        };
        Self {
            time: format!("{:.3}", entry.time),
            kind: news.kind.as_str(),
            subject: news.subject.clone(),
            change,
            why: why(entry),
            colour: match (news.severity, news.to.as_deref()) {
                (Severity::Error, _) => RED,
                (Severity::Warning, _) => YELLOW,
                (Severity::Info, Some("up" | "attached" | "ready" | "published")) => GREEN,
                (Severity::Info, _) => PLAIN,
            },
        }
    }
}

/// Answers, reason, generation, and who did it, as far as there are any.
fn why(entry: &Entry) -> String {
    let news = &entry.news;
    let mut parts = Vec::new();
    if let Some(new) = &news.new {
        let addresses = |addresses: &[std::net::IpAddr]| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            if addresses.is_empty() {
                "no address".to_owned()
            } else {
                addresses.join(", ")
            }
        };
        let now = match news.rcode.as_deref() {
            Some("NOERROR") | None => addresses(new),
            Some(rcode) => rcode.to_owned(),
        };
        let before = news.old.as_deref().map(addresses);
        parts.push(match before {
            Some(before) if before != now => format!("{before} → {now}"),
            _ => now,
        });
    }
    parts.extend(news.reason.clone());
    parts.extend(
        news.generation
            .map(|generation| format!("generation {generation}")),
    );
    parts.extend(news.by.as_ref().map(|by| format!("by {by}")));
    parts.join("; ")
}

/// How wide the columns are; they only get wider.
#[derive(Default)]
struct Columns {
    kind: usize,
    subject: usize,
    change: usize,
}

impl Columns {
    fn widen(&mut self, row: &Row) {
        let wider = |width: &mut usize, cell: &str| *width = (*width).max(cell.chars().count());
        wider(&mut self.kind, row.kind);
        wider(&mut self.subject, &row.subject);
        wider(&mut self.change, &row.change);
    }

    fn line(&self, row: &Row, colour: bool) -> String {
        let Row {
            time,
            kind,
            subject,
            change,
            why,
            colour: paint,
        } = row;
        let (begin, end) = if colour && !paint.is_empty() {
            (*paint, RESET)
        } else {
            ("", "")
        };
        let line = format!(
            "{time}  {kind:0$}  {subject:1$}  {begin}{change:2$}{end}  {why}",
            self.kind, self.subject, self.change
        );
        format!("{}\n", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Kind, News};
    use crate::model::Generation;
    use crate::policy::Answer;

    #[test]
    fn times_and_durations() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-22T10:00:00Z");
        for (text, want) in [
            ("90m", "2026-11-22T08:30:00Z"),
            ("1d", "2026-11-21T10:00:00Z"),
            ("2026-11-22T09:59:59.5Z", "2026-11-22T09:59:59.5Z"),
            ("2026-11-22T10:00+01:00", "2026-11-22T09:00:00Z"),
            ("2026-11-22T09:30", "2026-11-22T09:30:00Z"),
            ("2026-11-22 09:30:15", "2026-11-22T09:30:15Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z"),
        ] {
            assert_eq!(since_before(text, now), Ok(at(want)), "{text}");
        }
        assert_eq!(since_before("1000000y", now), Ok(Timestamp::MIN));
        for text in ["", "yesterday", "90", "2026-13-01", "10:00"] {
            let error = since_before(text, now).unwrap_err();
            assert!(error.starts_with("expected a duration"), "{text}: {error}");
        }
    }

    #[test]
    fn lines_are_aligned() {
        let addresses = |address: &str| {
            let weighted = crate::policy::Weighted {
                address: address.parse().unwrap(),
                weight: std::num::NonZeroU16::MIN,
            };
            Answer::Addresses(vec![weighted])
        };
        let news = [
            News::new(Kind::Server, "www/web-a", Severity::Warning)
                .from("up")
                .to("down")
                .because("tcp:192.0.2.1:80: connection refused"),
            News::new(Kind::Service, "service/www", Severity::Info)
                .from("primary")
                .to("backup2")
                .because("why")
                .answers(Some(&addresses("192.0.2.1")), &addresses("192.0.2.200"))
                .generation(Some(Generation(8))),
            News::new(Kind::Service, "service/www", Severity::Error)
                .from("backup2")
                .to("none")
                .answers(Some(&addresses("192.0.2.200")), &Answer::Servfail),
            News::new(Kind::Service, "service/www", Severity::Error)
                .from("none")
                .to("none")
                .answers(Some(&Answer::Servfail), &Answer::Empty),
            News::new(Kind::Admin, "wan/wan1", Severity::Info)
                .to("drain")
                .because("maintenance")
                .by("ann"),
            News::new(Kind::Lost, "journal", Severity::Warning).because("3 more"),
        ];
        let entries: Vec<Entry> = news
            .into_iter()
            .zip(1..)
            .map(|(news, seq)| Entry {
                seq,
                time: Timestamp::UNIX_EPOCH,
                news,
            })
            .collect();
        let rows: Vec<Row> = entries.iter().map(Row::new).collect();
        let mut columns = Columns::default();
        for row in &rows {
            columns.widen(row);
        }
        let text: String = rows.iter().map(|row| columns.line(row, false)).collect();
        let want = "\
1970-01-01T00:00:00.000Z  server   www/web-a    up → down          tcp:192.0.2.1:80: connection refused
1970-01-01T00:00:00.000Z  service  service/www  primary → backup2  192.0.2.1 → 192.0.2.200; why; generation 8
1970-01-01T00:00:00.000Z  service  service/www  backup2 → none     192.0.2.200 → SERVFAIL
1970-01-01T00:00:00.000Z  service  service/www  none               no address
1970-01-01T00:00:00.000Z  admin    wan/wan1     drain              maintenance; by ann
1970-01-01T00:00:00.000Z  lost     journal      -                  3 more
";
        assert_eq!(text, want);
        let painted = columns.line(&rows[0], true);
        assert!(
            painted.contains("\x1b[33mup → down        \x1b[0m  tcp"),
            "{painted:?}"
        );
    }
}
