//! What waits for one receiver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::journal::Entry;

/// An entry, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) entry: Arc<Entry>,
    pub(super) since: Instant,
}

/// A bounded queue: what is new takes the place of what is oldest.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Queued>,
    /// Dropped since somebody asked.
    dropped: u64,
    closed: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Puts an entry at the end.
    pub(super) fn push(&self, entry: &Arc<Entry>) -> Pushed {
        let mut state = self.state();
        if state.closed {
            return Pushed::Taken;
        }
        let full = state.waiting.len() == self.limit;
        if full {
            state.waiting.pop_front();
            state.dropped += 1;
        }
        state.waiting.push_back(Queued {
            entry: Arc::clone(entry),
            since: Instant::now(),
        });
        let first = state.dropped == 1;
        drop(state);
        self.changed.notify_one();
        match (full, first) {
            (false, _) => Pushed::Taken,
            (true, first) => Pushed::OldestDropped { first },
        }
    }

    /// Takes the oldest entry, waiting for one; `None`: the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Queued> {
        loop {
            // Before the look, so that no change is missed.
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if let Some(queued) = state.waiting.pop_front() {
                    return Some(queued);
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Takes the oldest entry, if there is one.
    pub(super) fn try_next(&self) -> Option<Queued> {
        self.state().waiting.pop_front()
    }

    /// How many were dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state().dropped)
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Taken,
    /// It waits in the place of the oldest.
    OldestDropped {
        /// The first since somebody asked.
        first: bool,
    },
}
