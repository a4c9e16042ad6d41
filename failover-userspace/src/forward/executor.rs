//! Puts rules in place, and keeps them there.
//!
//! The loop and its rules are here; what it does to the kernel stands behind a trait, so that
//! tests may play the kernel.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::netfilter::{Families, Netfilter, Table};
use super::nft::Nft;
use super::rules::{Entry, Rules, Wanted};
use super::{Error, script};
use crate::model::{Model, PortForward, ServiceId};
use crate::policy::Forward;
use crate::protocol::{PortForwardStatus, Removed};

/// Before the first repetition of what has failed; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Between two repetitions, at most.
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Between two looks whether the table is still there: `nft flush ruleset`, as in many
/// `/etc/nftables.conf`, takes all tables.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Forward so: one for each service.
    All(Arc<Model>, PortForward, Vec<Forward>),
    /// These services' connections go somewhere else.
    Some(Vec<(ServiceId, Forward)>),
    /// Forward nothing; a table that is ours goes away.
    Off,
    /// The same, and say when it is gone.
    Remove(Sender<Result<Removed, Error>>),
}

/// What can be done to the kernel.
pub(super) trait Kernel {
    /// Executes a script of nft's.
    async fn nft(&mut self, script: &str) -> Result<(), Error>;
    /// The table of our name.
    fn table(&mut self) -> Result<Option<Table>, Error>;
    /// As [`Netfilter::end`].
    fn end(
        &mut self,
        families: Families,
        stay: &dyn Fn(SocketAddr, SocketAddr) -> bool,
    ) -> Result<usize, Error>;
}

/// The kernel.
#[derive(Default)]
pub(super) struct System {
    netfilter: Option<Netfilter>,
    /// A table to be removed needs none before it is found.
    nft: Option<Nft>,
}

impl System {
    fn netfilter<T>(
        &mut self,
        wrap: fn(std::io::Error) -> Error,
        ask: impl FnOnce(&mut Netfilter) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        let open = || Netfilter::open().map_err(Error::Netfilter);
        let mut netfilter = self.netfilter.take().map_or_else(open, Ok)?;
        let result = ask(&mut netfilter).map_err(wrap)?;
        // After an error it is opened anew.
        self.netfilter = Some(netfilter);
        Ok(result)
    }
}

impl Kernel for System {
    async fn nft(&mut self, script: &str) -> Result<(), Error> {
        // It may have been installed since.
        let nft = self.nft.take().map_or_else(Nft::find, Ok)?;
        nft.run(script).await?;
        self.nft = Some(nft);
        Ok(())
    }

    fn table(&mut self) -> Result<Option<Table>, Error> {
        match self.netfilter(Error::Netfilter, Netfilter::table) {
            // A kernel that has no tables has not ours.
            Err(error) if error.is_for_want_of_tables() => Ok(None),
            result => result,
        }
    }

    fn end(
        &mut self,
        families: Families,
        stay: &dyn Fn(SocketAddr, SocketAddr) -> bool,
    ) -> Result<usize, Error> {
        self.netfilter(Error::Connections, |netfilter| {
            netfilter.end(families, stay)
        })
    }
}

/// How far the thread has come, for others to see.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// After the last order that was tried.
    status: PortForwardStatus,
    /// Orders given.
    ordered: u64,
    /// Those of them that have been tried.
    tried: u64,
}

impl Progress {
    pub(super) fn new(enabled: bool) -> Self {
        let progress = Self::default();
        progress.state().status.enabled = enabled;
        progress
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> PortForwardStatus {
        let state = self.state();
        let mut status = state.status.clone();
        status.applied &= state.ordered == state.tried;
        status
    }

    /// An order is on its way.
    pub(super) fn order(&self) {
        self.state().ordered += 1;
    }

    /// As [`super::Forwarder::wait`].
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let pending = |state: &mut State| state.ordered != state.tried;
        let waited = self
            .changed
            .wait_timeout_while(self.state(), patience, pending);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ordered == state.tried && state.status.applied
    }

    fn report(&self, tried: u64, status: PortForwardStatus) {
        let mut state = self.state();
        state.status = status;
        state.tried = tried;
        self.changed.notify_all();
    }
}

/// The thread's state.
pub(super) struct Executor<K> {
    kernel: K,
    progress: Arc<Progress>,
    /// Orders taken.
    taken: u64,
    /// `None`: nothing is to be forwarded.
    wanted: Option<Wanted>,
    /// What is known of the table.
    known: Known,
    /// The rules that connections have last been held against.
    swept: Option<Arc<Rules>>,
    /// Something is to be done.
    due: bool,
    retry: Retry,
    /// What is wrong, as it was last logged.
    complaint: Option<String>,
}

/// What is known of the table.
#[derive(Debug)]
enum Known {
    /// Nothing: there may be one of an earlier run.
    Nothing,
    /// There is none, by our doing.
    None,
    /// It has these rules.
    Ours { rules: Arc<Rules>, handle: u64 },
}

/// When something that failed is tried again.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Instant>,
    wait: Duration,
}

impl Retry {
    fn failed(&mut self) {
        self.wait = (self.wait * 2).clamp(FIRST_RETRY, LAST_RETRY);
        self.at = Some(Instant::now() + self.wait);
    }
}

impl<K: Kernel> Executor<K> {
    pub(super) fn new(kernel: K, progress: Arc<Progress>) -> Self {
        Self {
            kernel,
            progress,
            taken: 0,
            wanted: None,
            known: Known::Nothing,
            swept: None,
            due: false,
            retry: Retry::default(),
            complaint: None,
        }
    }

    /// Works until nobody can order any more; what was ordered by then is tried once.
    pub(super) async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        loop {
            let order = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => Some(order),
                    None => break,
                },
                () = sleep_until(self.wake_at()) => None,
            };
            match order {
                Some(order) => {
                    self.take(order).await;
                    // Only the newest rules matter.
                    while let Ok(order) = orders.try_recv() {
                        self.take(order).await;
                    }
                }
                None => self.look(),
            }
            if self.due && self.retry.at.is_none_or(|at| Instant::now() >= at) {
                self.settle().await;
            }
        }
        if self.due {
            self.settle().await;
        }
    }

    /// The next repetition, or the next look.
    fn wake_at(&self) -> Instant {
        let look = Instant::now() + LOOK;
        match self.retry.at {
            Some(at) if self.due => at.min(look),
            _ => look,
        }
    }

    async fn take(&mut self, order: Order) {
        self.taken += 1;
        match order {
            Order::All(model, how, forwards) => {
                self.wanted = Some(Wanted::new(model, how.snat, &forwards));
            }
            Order::Some(changes) => {
                let Some(wanted) = &mut self.wanted else {
                    // Of a model that is not forwarded any more.
                    return self.report();
                };
                for (id, forward) in changes {
                    wanted.change(id, &forward);
                }
            }
            Order::Off => self.wanted = None,
            Order::Remove(reply) => {
                self.wanted = None;
                let removed = remove(&mut self.kernel).await;
                if removed.is_ok() {
                    self.known = Known::None;
                }
                self.due = removed.is_err();
                self.report();
                let _ = reply.send(removed);
                return;
            }
        }
        self.due = true;
        // It is something else than what has failed.
        self.retry = Retry::default();
    }

    /// Looks whether the table is still there.
    fn look(&mut self) {
        let Known::Ours { handle, .. } = &self.known else {
            return;
        };
        let lost = match self.kernel.table() {
            Ok(table) => table.map(|table| table.handle) != Some(*handle),
            Err(error) => return debug!(%error, "cannot see the table"),
        };
        if lost {
            warn!("another program has removed the table inet failover: putting it back");
            self.known = Known::Nothing;
            self.due = true;
        }
    }

    /// Makes the kernel's rules those that are wanted.
    async fn settle(&mut self) {
        let begun = Instant::now();
        let done = match &self.wanted {
            Some(wanted) => {
                let wanted = Arc::new(wanted.rules().clone());
                self.apply(wanted).await
            }
            None => self.remove().await,
        };
        match done {
            Ok(()) => {
                self.due = false;
                self.retry = Retry::default();
                if self.complaint.take().is_some() {
                    info!("port forwarding works again");
                }
                debug!(ms = begun.elapsed().as_millis(), "port forwarding settled");
            }
            Err(error) => {
                self.retry.failed();
                let error = error.to_string();
                if self.complaint.as_ref() != Some(&error) {
                    warn!(error, "port forwarding fails: trying again");
                }
                self.complaint = Some(error);
            }
        }
        self.report();
    }

    fn report(&self) {
        let wanted = self.wanted.as_ref().map(Wanted::rules);
        let rules = match &self.known {
            Known::Ours { rules, .. } => Some(&**rules),
            Known::Nothing | Known::None => None,
        };
        let status = PortForwardStatus {
            enabled: wanted.is_some(),
            applied: wanted.is_some() && rules == wanted,
            error: self.complaint.clone(),
            rules: rules.map_or(0, |rules| rules.entries.len()),
        };
        self.progress.report(self.taken, status);
    }

    async fn apply(&mut self, wanted: Arc<Rules>) -> Result<(), Error> {
        let handle = match std::mem::replace(&mut self.known, Known::Nothing) {
            Known::Ours { rules, handle } if rules.snat == wanted.snat => {
                match script::patch(&rules, &wanted) {
                    None => handle,
                    Some(patch) => match self.kernel.nft(&patch).await {
                        Ok(()) => handle,
                        Err(error) => {
                            // Somebody has changed our table: all of it, then.
                            debug!(%error, "the rules cannot be changed: replacing them");
                            self.replace(&wanted).await?
                        }
                    },
                }
            }
            Known::Ours { .. } | Known::Nothing | Known::None => self.replace(&wanted).await?,
        };
        self.known = Known::Ours {
            rules: Arc::clone(&wanted),
            handle,
        };
        let ended = self.sweep(&wanted)?;
        let rules = wanted.entries.len();
        info!(rules, ended, "port forwarding follows");
        self.swept = Some(wanted);
        Ok(())
    }

    /// All of the table; its handle.
    async fn replace(&mut self, wanted: &Rules) -> Result<u64, Error> {
        if self.kernel.table()?.is_some_and(|table| !table.ours) {
            return Err(Error::Foreign);
        }
        self.kernel.nft(&script::replace(wanted)).await?;
        let table = self.kernel.table()?;
        // Gone again already: the next look will tell.
        Ok(table.map_or(0, |table| table.handle))
    }

    /// Ends connections to servers that may not keep them, if there may be such.
    fn sweep(&mut self, wanted: &Rules) -> Result<usize, Error> {
        let Some(gone) = gone(self.swept.as_deref(), wanted) else {
            return Ok(0);
        };
        let families = wanted.entries.keys().chain(&gone).collect();
        self.kernel
            .end(families, &|to, server| match wanted.entries.get(&to) {
                Some(entry) => entry.keep.contains(&server),
                None => !gone.contains(&to),
            })
    }

    async fn remove(&mut self) -> Result<(), Error> {
        if !matches!(self.known, Known::None) {
            match remove(&mut self.kernel).await {
                Ok(Removed::Table) => info!("port forwarding is off: table inet failover removed"),
                Ok(Removed::Nothing) | Err(Error::Foreign) => {}
                // Then it was not us who made one.
                Err(error) if error.is_for_want_of_rights() => debug!(%error, "cannot see tables"),
                Err(error) => return Err(error),
            }
            self.known = Known::None;
            self.swept = None;
        }
        Ok(())
    }
}

/// The addresses that are not forwarded any more, if connections may have to be ended at all:
/// because there are some, because a server may not keep its connections any more, or because
/// nothing is known of what was before.
fn gone(before: Option<&Rules>, wanted: &Rules) -> Option<BTreeSet<SocketAddr>> {
    let Some(before) = before else {
        return Some(BTreeSet::new());
    };
    let shrinks = |(place, entry): (&SocketAddr, &Arc<Entry>)| {
        let now = wanted.entries.get(place);
        now.is_some_and(|now| !Arc::ptr_eq(now, entry) && !entry.keep.is_subset(&now.keep))
    };
    let gone: BTreeSet<SocketAddr> = before
        .entries
        .keys()
        .filter(|place| !wanted.entries.contains_key(place))
        .copied()
        .collect();
    (!gone.is_empty() || before.entries.iter().any(shrinks)).then_some(gone)
}

/// Removes the table, if it is there and ours.
pub(super) async fn remove(kernel: &mut impl Kernel) -> Result<Removed, Error> {
    match kernel.table()? {
        None => Ok(Removed::Nothing),
        Some(table) if !table.ours => Err(Error::Foreign),
        Some(_) => {
            kernel.nft(&script::remove()).await?;
            Ok(Removed::Table)
        }
    }
}

#[cfg(test)]
mod tests;
