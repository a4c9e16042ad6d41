//! Tells others of events over HTTP: `[[notify]]`.
//!
//! ```text
//!   journal ──► Webhooks::offer ──► queue ──► delivery ──► POST   (one row for each receiver)
//!   (thread)    (never waits)      (bounded) (a task: in order, again and again)
//! ```
//!
//! A receiver gets its entries one after the other, each as often as it takes, within bounds:
//! what waits for too long is given up, and what finds no room takes that of the oldest. A
//! receiver that does not answer costs nobody else anything.

mod deliver;
mod post;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::journal::Entry;
use crate::model::{Model, Webhook};
use crate::probe::Clients;
use crate::protocol::WebhookStats;
pub use deliver::Counters;
use deliver::{Delivery, Pace};
use post::{Receiver, Sender};
use queue::{Pushed, Queue};

/// Entries that wait for one receiver.
const ROOM: usize = 1000;

/// All receivers.
#[derive(Debug, Default)]
pub struct Webhooks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    targets: Vec<Target>,
    clients: Clients,
}

/// A receiver with its task.
#[derive(Debug)]
struct Target {
    webhook: Arc<Webhook>,
    sender: Sender,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Webhooks {
    /// Nobody is told anything.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on those of `model` are told, inside a tokio runtime. A receiver that stays as
    /// it was keeps what waits for it, and its counters; others are told what waits for them if
    /// they take it at once.
    pub fn configure(&self, model: &Model) {
        let sender = Sender {
            host: host(),
            instance: model.settings.nsid.clone(),
        };
        let mut state = self.state();
        let State { targets, clients } = &mut *state;
        let mut before = std::mem::take(targets);
        for webhook in &model.webhooks {
            let same = |target: &Target| *target.webhook == *webhook && target.sender == sender;
            let target = match before.iter().position(same) {
                Some(at) => before.swap_remove(at),
                None => Target::start(webhook, sender.clone(), clients),
            };
            targets.push(target);
        }
        for target in before {
            target.close();
        }
    }

    /// Tells of an entry whoever wants it, soon.
    pub fn offer(&self, entry: &Arc<Entry>) {
        for target in &self.state().targets {
            if target.webhook.wants(entry) {
                target.offer(entry);
            }
        }
    }

    /// What became of the entries, receiver by receiver.
    #[must_use]
    pub fn stats(&self) -> Vec<WebhookStats> {
        let stats = |target: &Target| {
            let count = |counter: fn(&Counters) -> &std::sync::atomic::AtomicU64| {
                counter(&target.counters).load(Ordering::Relaxed)
            };
            WebhookStats {
                name: target.webhook.name.clone(),
                sent: count(|counters| &counters.sent),
                failed: count(|counters| &counters.failed),
                dropped: count(|counters| &counters.dropped),
                retries: count(|counters| &counters.retries),
                queued: target.counters.undecided(),
            }
        };
        self.state().targets.iter().map(stats).collect()
    }

    /// Delivers what waits and goes well at once, for no longer than `grace`; then ends.
    pub async fn stop(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let targets = std::mem::take(&mut self.state().targets);
        for target in &targets {
            target.close();
        }
        for mut target in targets {
            if timeout_at(deadline, &mut target.task).await.is_err() {
                target.task.abort();
                let name = &*target.webhook.name;
                let events = target.counters.undecided();
                warn!(
                    webhook = name,
                    events, "webhook too slow: not delivered before the end"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn start(webhook: &Webhook, sender: Sender, clients: &mut Clients) -> Self {
        let webhook = Arc::new(webhook.clone());
        let queue = Arc::new(Queue::new(ROOM));
        let counters = Arc::new(Counters::default());
        let (stopping, stops) = watch::channel(false);
        let receiver = Receiver {
            client: webhook.tls.as_ref().map(|tls| clients.of(&tls.trust)),
            webhook: Arc::clone(&webhook),
            sender: sender.clone(),
        };
        let delivery = Delivery::new(
            webhook.name.clone(),
            Arc::clone(&queue),
            Arc::clone(&counters),
            receiver,
            Pace::default(),
            stops,
        );
        Self {
            webhook,
            sender,
            queue,
            counters,
            stopping,
            task: tokio::spawn(delivery.run()),
        }
    }

    fn offer(&self, entry: &Arc<Entry>) {
        Counters::count(&self.counters.offered, 1);
        if let Pushed::OldestDropped { first } = self.queue.push(entry) {
            Counters::count(&self.counters.dropped, 1);
            if first {
                let name = &*self.webhook.name;
                warn!(
                    webhook = name,
                    "webhook too slow: the oldest events are dropped"
                );
            }
        }
    }

    fn close(&self) {
        self.queue.close();
        // Its task has ended: as well.
        let _ = self.stopping.send(true);
    }
}

/// The name of this host.
fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
