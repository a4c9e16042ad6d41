//! The journal: what an operator may want to know later.
//!
//! ```text
//!                      bounded                   ┌─► ring ─► files ──┐
//!   Journal::record ────────────► thread: numbers┤                   ├─► Reader::read
//!   (never waits)                                ├─► Reader: live ───┘   (failover events)
//!                                                └─► sink (webhooks)
//! ```
//!
//! Whoever has something to say has a [`Journal`], and never waits for it: what finds no room is
//! counted, and an entry says how much there would have been. The thread gives each entry its
//! number, keeps the newest ones in memory, shows them to who listens, and appends them to the
//! files of `file`, which outlive a restart. Without room on the disk the rest goes on.

mod entry;
mod file;
mod filter;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

pub use entry::{Entry, Kind, News, Severity};
pub use filter::{Filter, Matcher};
pub use reader::{Kept, Reader};

use file::{Appender, FILE_LIMIT, Files, Found};
use reader::Shared;
use writer::Writer;

/// What may wait for the thread.
const ROOM: usize = 4096;
/// Entries that are kept in memory.
const RING: usize = 4096;

/// Where entries go, besides to the ring and the files.
pub type Sink = Box<dyn FnMut(&Arc<Entry>) + Send>;

/// Takes what happens. Clones belong to the same journal.
#[derive(Clone, Debug)]
pub struct Journal {
    sender: SyncSender<Message>,
    losses: Arc<Losses>,
}

#[derive(Debug)]
enum Message {
    News(Box<(Timestamp, News)>),
    /// Something else is to be looked at.
    Wake,
}

/// What there would have been, by kind.
#[derive(Debug, Default)]
struct Losses([AtomicU64; Kind::ALL.len()]);

impl Losses {
    fn add(&self, kind: Kind, count: u64) {
        self.0[kind as usize].fetch_add(count, Ordering::SeqCst);
    }

    /// What has been lost since the last time; kinds without losses are left out.
    fn take(&self) -> Vec<(Kind, u64)> {
        let counts = self.0.iter().map(|count| count.swap(0, Ordering::SeqCst));
        let by_kind = Kind::ALL.iter().copied().zip(counts);
        by_kind.filter(|(_, count)| *count > 0).collect()
    }
}

impl Journal {
    /// Enters what has happened at a time, unless there is no room: then it is counted.
    pub fn record(&self, time: Timestamp, news: News) {
        let kind = news.kind;
        let message = Message::News(Box::new((time, news)));
        if let Err(TrySendError::Full(_)) = self.sender.try_send(message) {
            self.omit(kind, 1);
        }
    }

    /// Counts what is not worth entries of its own, as there is too much of it at once.
    pub fn omit(&self, kind: Kind, count: u64) {
        self.losses.add(kind, count);
        // Full: the thread has not come to its end, after which it looks at the losses.
        let _ = self.sender.try_send(Message::Wake);
    }
}

/// A journal that runs.
#[derive(Debug)]
pub struct Recorder {
    journal: Journal,
    reader: Reader,
    closing: Arc<AtomicBool>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Recorder {
    /// Starts the journal whose files are in `dir`, and gives each entry to `sink`, too.
    ///
    /// What is wrong with the files is logged, and no reason not to start.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub fn start(dir: &Path, sink: Sink) -> io::Result<Self> {
        Self::start_with(dir, FILE_LIMIT, sink)
    }

    fn start_with(dir: &Path, limit: u64, sink: Sink) -> io::Result<Self> {
        let files = Files::new(dir);
        let Found { newest, seq } = files.find(RING).unwrap_or_else(|error| {
            let file = files.current().display();
            warn!(%file, %error, "cannot read the events of before");
            Found {
                newest: Vec::new(),
                seq: 0,
            }
        });
        let (sender, messages) = sync_channel(ROOM);
        let journal = Journal {
            sender,
            losses: Arc::default(),
        };
        if let Some(news) = died(&newest) {
            journal.record(Timestamp::now(), news);
        }
        let shared = Arc::new(Shared::new(files.clone(), newest));
        let closing = Arc::new(AtomicBool::new(false));
        let (alive, ended) = sync_channel(0);
        let writer = Writer::new(
            Arc::clone(&shared),
            Arc::clone(&journal.losses),
            Appender::new(files, limit),
            sink,
            seq,
        );
        let is_closing = Arc::clone(&closing);
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let _alive: SyncSender<()> = alive;
                writer.run(&messages, &is_closing);
            })?;
        Ok(Self {
            journal,
            reader: Reader::new(shared),
            closing,
            ended,
        })
    }

    /// Takes what happens.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Tells what has happened.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes what has been recorded until now, and ends; waits for that no longer than
    /// `patience`.
    pub fn stop(self, patience: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = self.journal.sender.try_send(Message::Wake);
        // Nothing is ever sent: it is closed.
        let _ = self.ended.recv_timeout(patience);
    }
}

/// The daemon's end, if there is no word of it among the last entries though it has begun.
fn died(newest: &[Arc<Entry>]) -> Option<News> {
    let mut daemon = newest.iter().rev().map(|entry| &entry.news);
    let last = daemon.find(|news| news.kind == Kind::Daemon)?;
    let was = last.to.as_deref()?;
    (!matches!(was, "stopped" | "died")).then(|| {
        News::new(Kind::Daemon, "daemon", Severity::Error)
            .from(was)
            .to("died")
            .because("it has not said that it stops; noticed at the next start")
    })
}
