//! `failover status --watch`: the status again and again.
//!
//! On a terminal each look is drawn over the one before, on the screen that terminals keep for
//! such programs, so that what was there comes back in the end. Elsewhere one follows the other.
//! A daemon that goes away is waited for.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{Winsize, tcgetwinsize};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::client::{Client, unexpected};
use super::run::stop_signal;
use super::status::shown;
use super::text::{age, bad};
use super::{Daemon, print, print_json};
use crate::protocol::{Reply, Request, Status};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the terminal may take to become as it was.
const PATIENCE: Duration = Duration::from_secs(1);
/// The other screen, no cursor, and lines that end where the screen does.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All that undone.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Around what terminals are to show at once; those that do not know it ignore it.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";
/// Where no terminal says how large it is.
const USUAL_SIZE: Size = Size {
    rows: 24,
    columns: 80,
};

/// Shows the status until the process is told to stop.
pub(super) fn watch(daemon: &Daemon, json: bool) -> Result<ExitCode> {
    let mut looks = Looks::start(daemon)?;
    let screen = (io::stdout().is_terminal() && !json).then(|| Arc::new(Screen::default()));
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let mut suspend = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        let (failed, mut failure) = oneshot::channel();
        if let Some(screen) = &screen {
            screen.set_soon(true);
        }
        // A thread of its own, so that no daemon that is slow keeps us from stopping.
        let drawn_on = screen.clone();
        thread::spawn(move || {
            let error = follow(&mut looks, drawn_on.as_deref(), json);
            let _ = failed.send(error);
        });
        let mut stop = std::pin::pin!(stop);
        let ended = loop {
            tokio::select! {
                () = &mut stop => break Ok(ExitCode::SUCCESS),
                error = &mut failure => {
                    break Err(error.unwrap_or_else(|_| anyhow::anyhow!("the watch has ended")));
                }
                _ = suspend.recv() => {
                    if let Some(screen) = &screen {
                        screen.set_soon(false);
                    }
                    kill_process(getpid(), Signal::STOP)?;
                    if let Some(screen) = &screen {
                        screen.set_soon(true);
                    }
                }
            }
        };
        if let Some(screen) = &screen {
            screen.set_soon(false);
        }
        ended
    })
}

/// Shows one look after the other; returns why it cannot.
fn follow(looks: &mut Looks, screen: Option<&Screen>, json: bool) -> anyhow::Error {
    let mut was_lost = false;
    loop {
        let done = match screen {
            Some(screen) => screen.draw(&looks.shown(Timestamp::now())),
            None if looks.lost.is_some() => Ok(()),
            None if json => print_json(&looks.last),
            None => print(&shown(&looks.last, Timestamp::now())),
        };
        let lost = looks.lost.as_ref().filter(|_| screen.is_none());
        let said = match (was_lost, lost) {
            (false, Some(lost)) => {
                writeln!(io::stderr(), "failover: {}: waiting for it", lost.why)
            }
            (true, None) => writeln!(io::stderr(), "failover: the daemon is back"),
            _ => Ok(()),
        };
        was_lost = lost.is_some();
        if let Err(error) = done.and(said.map_err(Into::into)) {
            return error;
        }
        thread::sleep(PERIOD);
        looks.look();
    }
}

/// The last status, and whether there is still a daemon.
struct Looks {
    daemon: Daemon,
    client: Option<Client>,
    last: Status,
    seen: Timestamp,
    lost: Option<Lost>,
}

struct Lost {
    since: Timestamp,
    why: String,
}

impl Looks {
    /// The first one must succeed.
    fn start(daemon: &Daemon) -> Result<Self> {
        let mut client = daemon.connect()?;
        Ok(Self {
            daemon: daemon.clone(),
            last: look(&mut client)?,
            client: Some(client),
            seen: Timestamp::now(),
            lost: None,
        })
    }

    fn look(&mut self) {
        match self.try_look() {
            Ok(status) => {
                self.last = status;
                self.seen = Timestamp::now();
                self.lost = None;
            }
            Err(error) => {
                self.client = None;
                let why = format!("{error:#}");
                let since = self.lost.as_ref().map_or(self.seen, |lost| lost.since);
                self.lost = Some(Lost { since, why });
            }
        }
    }

    fn try_look(&mut self) -> Result<Status> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(self.daemon.connect()?),
        };
        look(client)
    }

    fn shown(&self, now: Timestamp) -> String {
        let mut text = String::new();
        if let Some(Lost { since, why }) = &self.lost {
            let (style, ago) = (bad(), age(*since, now));
            let _ = writeln!(
                text,
                "{style}the daemon is gone: waiting for it{style:#}\n{why}\nas it was {ago} ago:\n"
            );
        }
        text + &shown(
            &self.last,
            self.lost.as_ref().map_or(now, |lost| lost.since),
        )
    }
}

fn look(client: &mut Client) -> Result<Status> {
    match client.ask(&Request::Status {})? {
        Reply::Status(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// A terminal, while it is ours.
#[derive(Default)]
struct Screen {
    is_ours: Mutex<bool>,
}

impl Screen {
    /// Enters or leaves it, unless the terminal takes nothing any more: that keeps nobody from
    /// ending.
    fn set_soon(self: &Arc<Self>, ours: bool) {
        let screen = Arc::clone(self);
        let (done, is_done) = channel();
        thread::spawn(move || done.send(screen.set(ours)));
        let _ = is_done.recv_timeout(PATIENCE);
    }

    fn set(&self, ours: bool) -> Result<()> {
        let mut is_ours = self.is_ours.lock().unwrap_or_else(PoisonError::into_inner);
        *is_ours = ours;
        write(if ours { ENTER } else { LEAVE })
    }

    /// Draws over what was there, unless somebody else has the terminal.
    fn draw(&self, text: &str) -> Result<()> {
        let is_ours = self.is_ours.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_ours {
            return Ok(());
        }
        let stdout = io::stdout();
        let size = tcgetwinsize(&stdout).ok().and_then(Size::new);
        let size = size.unwrap_or(USUAL_SIZE);
        if AutoStream::choice(&stdout) == ColorChoice::Never {
            write(&frame(&strip_str(text).to_string(), size))
        } else {
            write(&frame(text, size))
        }
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("the terminal")
}

/// Of a terminal, in characters; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    rows: usize,
    columns: usize,
}

impl Size {
    fn new(size: Winsize) -> Option<Self> {
        let (rows, columns) = (size.ws_row.into(), size.ws_col.into());
        (rows > 0 && columns > 0).then_some(Self { rows, columns })
    }
}

/// What draws `text` over what a terminal shows, without clearing it first: no line flickers.
fn frame(text: &str, size: Size) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // In the last column the cursor would stand on the character that it then clears.
    let columns = size.columns - 1;
    let mut frame = BEGIN.to_owned();
    let shown = if lines.len() > size.rows {
        size.rows - 1
    } else {
        lines.len()
    };
    for (at, line) in lines[..shown].iter().enumerate() {
        let end = if at + 1 == lines.len() { "" } else { "\n" };
        let _ = write!(frame, "{}\x1b[K{end}", clipped(line, columns));
    }
    if shown < lines.len() {
        let more = format!("… {} more lines", lines.len() - shown);
        let _ = write!(frame, "{}\x1b[K", clipped(&more, columns));
    }
    frame + END
}

/// The beginning of a line that is so wide, without counting styles, of which none is lost.
fn clipped(line: &str, columns: usize) -> String {
    let mut clipped = String::with_capacity(line.len());
    let mut width = 0;
    let mut in_style = false;
    for c in line.chars() {
        if c == '\x1b' {
            in_style = true;
        }
        if in_style {
            clipped.push(c);
            in_style = c != 'm';
        } else if width < columns {
            clipped.push(c);
            width += 1;
        }
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: usize, columns: usize) -> Size {
        Size { rows, columns }
    }

    #[test]
    fn lines_end_where_the_screen_does() {
        for (line, columns, want) in [
            ("abc", 4, "abc"),
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("äöü", 2, "äö"),
            // What was begun is ended.
            ("a\x1b[31mbc\x1b[0m", 2, "a\x1b[31mb\x1b[0m"),
            ("a\x1b[31mbc\x1b[0md", 4, "a\x1b[31mbc\x1b[0md"),
            ("abc\x1b[1md\x1b[0m", 2, "ab\x1b[1m\x1b[0m"),
        ] {
            assert_eq!(clipped(line, columns), want, "{line:?} in {columns}");
        }
    }

    #[test]
    fn a_frame_never_scrolls() {
        let body = |frame: String| {
            let inner = frame
                .strip_prefix(BEGIN)
                .unwrap()
                .strip_suffix(END)
                .unwrap();
            inner.to_owned()
        };
        for (text, size, want) in [
            ("a\nb\n", size(2, 9), "a\x1b[K\nb\x1b[K"),
            ("a\nb\n", size(9, 9), "a\x1b[K\nb\x1b[K"),
            ("a\nb\nc\n", size(2, 99), "a\x1b[K\n… 2 more lines\x1b[K"),
            ("a\nb\nc\n", size(1, 4), "… 3\x1b[K"),
            ("abc\n", size(1, 3), "ab\x1b[K"),
            ("", size(1, 1), ""),
        ] {
            assert_eq!(body(frame(text, size)), want, "{text:?} {size:?}");
        }
    }
}
