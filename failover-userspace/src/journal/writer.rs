//! The thread: numbers, shows and writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::file::Appender;
use super::reader::Shared;
use super::{Entry, Kind, Losses, Message, News, RING, Severity, Sink};

/// Entries that are written at once.
const BATCH: usize = 1024;

pub(super) struct Writer {
    shared: Arc<Shared>,
    losses: Arc<Losses>,
    appender: Appender,
    sink: Sink,
    /// Of the last entry.
    seq: u64,
    /// What is not in the files yet; as much as the ring holds.
    unwritten: VecDeque<Arc<Entry>>,
    /// The operator knows that nothing can be written.
    trouble: bool,
}

impl Writer {
    pub(super) const fn new(
        shared: Arc<Shared>,
        losses: Arc<Losses>,
        appender: Appender,
        sink: Sink,
        seq: u64,
    ) -> Self {
        Self {
            shared,
            losses,
            appender,
            sink,
            seq,
            unwritten: VecDeque::new(),
            trouble: false,
        }
    }

    /// Runs until nobody can record anything any more, or `closing` and nothing waits.
    pub(super) fn run(mut self, messages: &Receiver<Message>, closing: &AtomicBool) {
        loop {
            let first = if closing.load(Ordering::SeqCst) {
                messages.try_recv().ok()
            } else {
                messages.recv().ok()
            };
            if first.is_none() {
                return;
            }
            let waiting = first.into_iter().chain(messages.try_iter());
            let news = waiting.filter_map(|message| match message {
                Message::News(news) => Some(*news),
                Message::Wake => None,
            });
            let mut batch: Vec<_> = news.take(BATCH).collect();
            batch.extend(self.lost());
            self.enter(batch);
        }
    }

    /// What is to be said of what has no entry.
    fn lost(&self) -> Option<(Timestamp, News)> {
        let losses = self.losses.take();
        let total: u64 = losses.iter().map(|(_, count)| count).sum();
        if total == 0 {
            return None;
        }
        self.shared.lost(total);
        let by_kind = losses.iter().map(|(kind, count)| format!("{count} {kind}"));
        let by_kind: Vec<String> = by_kind.collect();
        let reason = format!("{total} more, too many at once: {}", by_kind.join(", "));
        debug!(lost = total, "events without an entry in the journal");
        let news = News::new(Kind::Lost, "journal", Severity::Warning).because(reason);
        Some((Timestamp::now(), news))
    }

    fn enter(&mut self, batch: Vec<(Timestamp, News)>) {
        if batch.is_empty() {
            return;
        }
        let numbered = batch.into_iter().map(|(time, news)| {
            self.seq += 1;
            Arc::new(Entry {
                seq: self.seq,
                // What the files hold is what is shown: milliseconds.
                time: Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time),
                news,
            })
        });
        let entries: Vec<Arc<Entry>> = numbered.collect();
        self.shared.publish(&entries);
        for entry in &entries {
            (self.sink)(entry);
        }
        self.write(entries);
    }

    fn write(&mut self, entries: Vec<Arc<Entry>>) {
        self.unwritten.extend(entries);
        let (written, done) = self.appender.append(&self.unwritten);
        self.unwritten.drain(..written);
        let trouble = done.is_err();
        let had_trouble = std::mem::replace(&mut self.trouble, trouble);
        match done {
            Err(error) if !had_trouble => {
                let file = self.appender.file().display();
                warn!(%file, %error, "cannot write events: the newest are in memory");
            }
            Ok(()) if had_trouble => {
                let file = self.appender.file().display();
                info!(%file, "events are written again");
            }
            _ => {}
        }
        let excess = self.unwritten.len().saturating_sub(RING);
        self.unwritten.drain(..excess);
    }
}
