//! Delivers what waits, in order, one at a time, again and again while it must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::post::{Post, Refusal};
use super::queue::{Queue, Queued};

/// When a try that failed is made again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// After the first failure; twice as long after each further one.
    pub(super) first: Duration,
    /// At most.
    pub(super) most: Duration,
    /// Entries that have waited for so long are given up, as soon as a try fails.
    pub(super) give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(60),
            give_up: Duration::from_secs(3600),
        }
    }
}

impl Pace {
    /// How long to wait after so many failures in a row, of which there is at least one.
    fn wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// What became of the entries for one receiver.
#[derive(Debug, Default)]
pub struct Counters {
    /// Meant for it.
    pub offered: AtomicU64,
    /// Taken.
    pub sent: AtomicU64,
    /// Refused for good, or given up.
    pub failed: AtomicU64,
    /// Dropped, as newer ones needed the room, or as the daemon stopped.
    pub dropped: AtomicU64,
    /// Tries that failed and were not the last.
    pub retries: AtomicU64,
}

impl Counters {
    /// How many wait, the one at hand included.
    #[must_use]
    pub fn undecided(&self) -> u64 {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let decided = load(&self.sent) + load(&self.failed) + load(&self.dropped);
        load(&self.offered).saturating_sub(decided)
    }

    pub(super) fn count(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

/// The task behind one receiver.
pub(super) struct Delivery<P> {
    pub(super) name: String,
    pub(super) queue: Arc<Queue>,
    pub(super) counters: Arc<Counters>,
    pub(super) post: P,
    pub(super) pace: Pace,
    /// True: nothing is tried twice any more.
    pub(super) stopping: watch::Receiver<bool>,
    /// Entries that have not been delivered, since the last one that has.
    missed: u64,
    /// Passing failures in a row.
    failures: u32,
    /// The operator knows that entries are not taken.
    told: bool,
}

impl<P: Post> Delivery<P> {
    pub(super) fn new(
        name: String,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        post: P,
        pace: Pace,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            name,
            queue,
            counters,
            post,
            pace,
            stopping,
            missed: 0,
            failures: 0,
            told: false,
        }
    }

    /// Runs until the queue is closed and empty, or there is no use in trying.
    pub(super) async fn run(mut self) {
        while let Some(queued) = self.queue.next().await {
            let mut current = Some(queued);
            while let Some(queued) = current.take() {
                self.missed += self.queue.take_dropped();
                let attempt = self.post.post(&queued.entry, self.missed);
                let outcome = if self.failures == 0 {
                    Some(attempt.await)
                } else {
                    // Nobody waits at the end for who has failed before.
                    tokio::select! {
                        outcome = attempt => Some(outcome),
                        _ = self.stopping.wait_for(|stopping| *stopping) => None,
                    }
                };
                let Some(outcome) = outcome else {
                    return self.leave();
                };
                match outcome {
                    Ok(()) => self.taken(),
                    Err(refusal) if !refusal.passing => self.refused(&refusal),
                    Err(refusal) => {
                        self.failed(&refusal);
                        if !self.wait().await {
                            return self.leave();
                        }
                        current = self.still_worth_it(queued);
                    }
                }
            }
        }
    }

    fn taken(&mut self) {
        Counters::count(&self.counters.sent, 1);
        if std::mem::take(&mut self.told) {
            info!(
                webhook = self.name,
                missed = self.missed,
                "webhook works again"
            );
        }
        self.missed = 0;
        self.failures = 0;
    }

    /// Another try would end no better; the next entry may.
    fn refused(&mut self, refusal: &Refusal) {
        self.failures = 0;
        self.missed += 1;
        Counters::count(&self.counters.failed, 1);
        self.tell(refusal, "webhook refuses an event");
    }

    fn failed(&mut self, refusal: &Refusal) {
        self.failures = self.failures.saturating_add(1);
        self.tell(refusal, "webhook fails: trying again");
    }

    /// What does not go well is said once, until it goes well.
    fn tell(&mut self, refusal: &Refusal, what: &'static str) {
        let name = &*self.name;
        if std::mem::replace(&mut self.told, true) {
            debug!(webhook = name, error = %refusal, "{what}");
        } else {
            warn!(webhook = name, error = %refusal, "{what}");
        }
    }

    /// Waits for the next try; false: there shall be none.
    async fn wait(&mut self) -> bool {
        let stopped = self.stopping.wait_for(|stopping| *stopping);
        tokio::select! {
            biased;
            _ = stopped => false,
            () = sleep(self.pace.wait(self.failures)) => true,
        }
    }

    /// What to try next: this one, or the first after it that has not waited for too long.
    fn still_worth_it(&mut self, queued: Queued) -> Option<Queued> {
        let mut given_up = 0;
        let mut next = Some(queued);
        while next
            .as_ref()
            .is_some_and(|queued| queued.since.elapsed() >= self.pace.give_up)
        {
            given_up += 1;
            next = self.queue.try_next();
        }
        if given_up > 0 {
            self.missed += given_up;
            Counters::count(&self.counters.failed, given_up);
            let after = humantime::format_duration(self.pace.give_up);
            warn!(webhook = self.name, events = given_up, %after, "webhook still fails: given up");
        }
        if given_up == 0 {
            Counters::count(&self.counters.retries, 1);
        }
        next
    }

    /// Drops the entry at hand and all that wait.
    fn leave(self) {
        let mut dropped = 1;
        while self.queue.try_next().is_some() {
            dropped += 1;
        }
        Counters::count(&self.counters.dropped, dropped);
        warn!(
            webhook = self.name,
            events = dropped,
            "webhook fails: not delivered before the end"
        );
    }
}

#[cfg(test)]
mod tests;
