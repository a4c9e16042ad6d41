//! What is kept, for those who ask, and what happens, for those who listen.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::file::{Files, parse};
use super::{Entry, Matcher, RING};

/// Entries that a listener may be behind.
const LIVE: usize = 4096;

/// What the thread and the readers have in common.
#[derive(Debug)]
pub(super) struct Shared {
    files: Files,
    /// The newest entries, at most [`RING`].
    ring: Mutex<VecDeque<Arc<Entry>>>,
    live: broadcast::Sender<Arc<Entry>>,
    recorded: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    pub(super) fn new(files: Files, newest: Vec<Arc<Entry>>) -> Self {
        let (live, _) = broadcast::channel(LIVE);
        Self {
            files,
            ring: Mutex::new(newest.into()),
            live,
            recorded: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Shows new entries to everybody.
    pub(super) fn publish(&self, entries: &[Arc<Entry>]) {
        let mut ring = self.ring();
        for entry in entries {
            if ring.len() == RING {
                ring.pop_front();
            }
            ring.push_back(Arc::clone(entry));
            // Nobody listens: an error that is none.
            let _ = self.live.send(Arc::clone(entry));
        }
        self.recorded
            .fetch_add(entries.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what has happened, and what happens. Clones belong to the same journal.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// What a journal holds at one moment.
#[derive(Debug)]
pub struct Kept {
    /// The entries that were asked for, the oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// All entries from then on. A listener that is too far behind is told so, and how far.
    pub live: broadcast::Receiver<Arc<Entry>>,
}

impl Reader {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The entries that `wanted` matches; with `last` only so many of the newest.
    ///
    /// Reads files, and so may block.
    ///
    /// # Errors
    ///
    /// If the files cannot be read.
    pub fn read(&self, wanted: &Matcher, last: Option<usize>) -> io::Result<Kept> {
        let (ring, live) = {
            let ring = self.shared.ring();
            let newest: Vec<_> = ring.iter().cloned().collect();
            (newest, self.shared.live.subscribe())
        };
        let limit = last.unwrap_or(usize::MAX);
        let mut oldest = ring.first().map_or(u64::MAX, |entry| entry.seq);
        let matching = ring.into_iter().rev().filter(|entry| wanted.matches(entry));
        let mut entries: Vec<_> = matching.take(limit).collect();
        if entries.len() < limit {
            self.shared.files.newest_first(|line| {
                // The newest ones are known, and a line may come twice.
                if let Some(entry) = parse(line).filter(|entry| entry.seq < oldest) {
                    oldest = entry.seq;
                    if wanted.matches(&entry) {
                        entries.push(Arc::new(entry));
                    }
                }
                if entries.len() < limit {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        entries.reverse();
        Ok(Kept { entries, live })
    }

    /// Entries since the start, and how many more there would have been.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.shared.recorded), count(&self.shared.lost))
    }
}

#[cfg(test)]
impl Reader {
    /// Leaves only so many entries in memory.
    pub(super) fn forget(&self, left: usize) {
        let mut ring = self.shared.ring();
        let gone = ring.len().saturating_sub(left);
        ring.drain(..gone);
    }
}
