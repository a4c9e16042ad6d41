//! Port forwarding: connections to WAN addresses go to onsite servers, by nftables rules in a
//! table of our own.
//!
//! ```text
//!   policy::Forward ─► rules ─► script ─► executor ─► nft (one transaction)
//!   (which servers,    (addresses, (text for  (a thread) └─► netfilter (connections to servers
//!    by service)        plain data) nft, pure)               that are gone are ended)
//! ```
//!
//! The controller says where the connections of each service go whenever that changes, right
//! after it has published, and does not wait: a thread of its own puts the rules in place. It
//! always goes to the newest rules it knows of, tries again what fails, and puts the table back
//! when another program has removed it. When the daemon stops or dies, the rules stay.

mod executor;
mod netfilter;
mod nft;
mod rules;
mod script;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;
use tokio::runtime;
use tokio::sync::mpsc;

use self::executor::{Executor, Order, Progress, System};
use self::netfilter::Netfilter;
use self::nft::Nft;
use crate::model::{Model, ServiceId};
use crate::policy::Forward;
use crate::privileges;
use crate::protocol::{PortForwardStatus, Removed};

/// What the removal of the table may take before nobody waits for it any more.
const REMOVAL: Duration = Duration::from_secs(10);

/// Why rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error(
        "port forwarding needs the program nft, and there is none: install the Debian package nftables"
    )]
    NoProgram,
    /// It cannot be started or talked to.
    #[error("nft: {0}")]
    Start(io::Error),
    /// It says no, and why.
    #[error("nft: {0}")]
    Refused(String),
    /// It does not come to an end.
    #[error("nft takes more than {}s", .0.as_secs())]
    TooSlow(Duration),
    /// The kernel does not tell of tables.
    #[error("netfilter: {0}")]
    Netfilter(io::Error),
    /// Connections to servers that are gone go on.
    #[error("connections to servers that are gone have not been ended: {0}")]
    Connections(io::Error),
    /// Somebody else's table has our name.
    #[error(
        "there is a table inet {} already that is not ours (it lacks the comment \"{}\"): remove or rename it",
        script::TABLE,
        script::COMMENT
    )]
    Foreign,
    /// The thread that executes has ended.
    #[error("port forwarding has ended")]
    Ended,
}

impl Error {
    /// Whether root would have fared better.
    #[must_use]
    pub fn is_for_want_of_rights(&self) -> bool {
        matches!(self, Self::Netfilter(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether the kernel knows nothing of nftables.
    fn is_for_want_of_tables(&self) -> bool {
        let Self::Netfilter(error) = self else {
            return false;
        };
        // Without nfnetlink and without nf_tables.
        let errno = Errno::from_io_error(error);
        matches!(errno, Some(Errno::PROTONOSUPPORT | Errno::INVAL))
    }
}

/// The thread that forwards. When it is dropped, the rules stay as they are wanted last.
#[derive(Debug)]
pub struct Forwarder {
    orders: Option<mpsc::UnboundedSender<Order>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
    found_rules: bool,
}

impl Forwarder {
    /// Starts the thread, in the network namespace of the calling thread. If the model does not
    /// forward, it removes the table that an earlier run may have left.
    ///
    /// # Errors
    ///
    /// If the model forwards and there is no `nft`, no access to the kernel's tables, or a table
    /// of our name that is somebody else's; or if there is no thread to be had.
    pub fn start(model: &Model) -> Result<Self, Error> {
        let enabled = model.port_forward.is_some();
        let found_rules = enabled && Self::examine()?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let progress = Arc::new(Progress::new(enabled));
        let (started, outcome) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&progress);
        let work = move || {
            let built = privileges::keep_to_configure_network()
                .map_err(io::Error::from)
                .and_then(|()| runtime::Builder::new_current_thread().enable_all().build());
            let (runtime, result) = match built {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = started.send(result);
            if let Some(runtime) = runtime {
                let executor = Executor::new(System::default(), theirs);
                runtime.block_on(executor.run(receiver));
            }
        };
        let name = "port forwarding".to_owned();
        let thread = thread::Builder::new().name(name).spawn(work);
        let thread = thread.map_err(Error::Start)?;
        outcome
            .recv()
            .map_err(|_| Error::Ended)?
            .map_err(Error::Start)?;
        let forwarder = Self {
            orders: Some(orders),
            progress,
            thread: Some(thread),
            found_rules,
        };
        if !enabled {
            forwarder.send(Order::Off);
        }
        Ok(forwarder)
    }

    /// Looks whether this host can forward; tells whether there are rules of ours.
    ///
    /// # Errors
    ///
    /// If there is no `nft`, no access to the kernel's tables, or a table of our name that is
    /// somebody else's.
    pub fn examine() -> Result<bool, Error> {
        Nft::find()?;
        let mut netfilter = Netfilter::open().map_err(Error::Netfilter)?;
        match netfilter.table().map_err(Error::Netfilter)? {
            Some(table) if !table.ours => Err(Error::Foreign),
            found => Ok(found.is_some()),
        }
    }

    /// One that has no thread and does nothing.
    #[must_use]
    pub fn idle() -> Self {
        Self {
            orders: None,
            progress: Arc::new(Progress::new(false)),
            thread: None,
            found_rules: false,
        }
    }

    /// From now on all connections are forwarded as this model and these states of its services
    /// call for, one for each of [`Model::services`]; or not at all, if the model does not
    /// forward.
    pub fn replace(&self, model: &Arc<Model>, forwards: Vec<Forward>) {
        let order = match model.port_forward {
            Some(how) => Order::All(Arc::clone(model), how, forwards),
            None => Order::Off,
        };
        self.send(order);
    }

    /// The connections of these services go somewhere else.
    pub fn change(&self, changes: Vec<(ServiceId, Forward)>) {
        self.send(Order::Some(changes));
    }

    /// Whether an earlier run had left rules, which serve until there are others.
    #[must_use]
    pub const fn found_rules(&self) -> bool {
        self.found_rules
    }

    /// Waits until what has been ordered is in place or has failed, but no longer than this.
    /// Returns whether it is in place.
    pub fn wait(&self, patience: Duration) -> bool {
        self.progress.wait(patience)
    }

    /// How far it has come.
    #[must_use]
    pub fn status(&self) -> PortForwardStatus {
        self.progress.status()
    }

    /// Removes the table, and forwards nothing any more until it is told to
    /// [`replace`](Self::replace) the rules.
    ///
    /// # Errors
    ///
    /// Why it is still there.
    pub fn remove(&self) -> Result<Removed, Error> {
        if self.orders.is_none() {
            return Ok(Removed::Nothing);
        }
        let (reply, removed) = std::sync::mpsc::channel();
        self.send(Order::Remove(reply));
        removed.recv_timeout(REMOVAL).map_err(|_| Error::Ended)?
    }

    fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            self.progress.order();
            // The thread does not end before we do.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Removes the table that a daemon has left, in the network namespace of the calling thread.
///
/// # Errors
///
/// Why it is still there: for want of rights or of `nft`, or because it is not ours.
pub fn remove_left() -> Result<Removed, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Start)?;
    runtime.block_on(executor::remove(&mut System::default()))
}
