//! Grace periods: when may memory that readers might still look at be written again?
//!
//! A run of the XDP program is an RCU read-side critical section. `membarrier(2)` with
//! `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, which takes milliseconds: a
//! thread of its own does it, and nobody waits for it in the usual case.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

use crate::privileges;

/// A point in time, counted in requests; see [`Grace::start`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Waits for readers on a thread of its own.
pub(super) struct Grace {
    requests: Sender<Ticket>,
    last: Ticket,
    done: Arc<Done>,
}

#[derive(Default)]
struct Done {
    ticket: Mutex<Ticket>,
    changed: Condvar,
}

impl Grace {
    /// Starts the thread. It ends when the value is dropped.
    pub(super) fn new() -> std::io::Result<Self> {
        let (requests, receiver) = channel();
        let done = Arc::new(Done::default());
        let shared = Arc::clone(&done);
        thread::Builder::new()
            .name("grace".into())
            .spawn(move || run(&receiver, &shared))?;
        Ok(Self {
            requests,
            last: Ticket::default(),
            done,
        })
    }

    /// Asks for a grace period that starts now or later. Its ticket is over when every
    /// reader that runs now has ended.
    pub(super) fn start(&mut self) -> Ticket {
        self.last.0 += 1;
        // The thread ends only with `self`.
        let _ = self.requests.send(self.last);
        self.last
    }

    /// The last ticket that is over.
    pub(super) fn over(&self) -> Ticket {
        *lock(&self.done.ticket)
    }

    /// Blocks until the ticket is over.
    pub(super) fn wait(&self, ticket: Ticket) {
        let mut done = lock(&self.done.ticket);
        while *done < ticket {
            done = self
                .done
                .changed
                .wait(done)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

fn run(requests: &Receiver<Ticket>, done: &Done) {
    // Waiting takes none of what loading has taken.
    let _ = privileges::keep_nothing();
    while let Ok(first) = requests.recv() {
        // One period serves all requests that came before it.
        let ticket = requests.try_iter().last().unwrap_or(first);
        wait_for_readers();
        *lock(&done.ticket) = ticket;
        done.changed.notify_all();
    }
}

/// Returns when every run of a BPF program that was under way has ended.
pub(super) fn wait_for_readers() {
    if membarrier(MembarrierCommand::Global).is_err() {
        // A kernel with nohz_full refuses. A run takes microseconds.
        thread::sleep(Duration::from_secs(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_over_in_order() {
        let mut grace = Grace::new().unwrap();
        let first = grace.start();
        let second = grace.start();
        assert!(first < second);
        grace.wait(second);
        assert!(grace.over() >= second);
    }
}
