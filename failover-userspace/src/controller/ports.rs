//! What the controller needs of others, and what they tell it.
//!
//! Each of the traits has one implementation in the daemon and one in the tests.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use failover_common::counters::{Counters, ServiceHits};
use tokio::sync::{mpsc, oneshot};

use super::sample::MetricsPart;
use super::set::{Set, SetReply};
use super::target::UnknownTargets;
use super::view::{Part, StatsPart};
use crate::dataplane::{self, AttachedMode, Change, Generation, Readings};
use crate::health::Pace;
use crate::model::{Difference, Model, ProbeId, ServiceId, Succession, XdpMode};
use crate::probe::{Begin, LinkEvent, ProbeKey, Report, Task};
use crate::protocol::{Detached, Explain, Reloaded};

/// What the controller needs of a data plane.
pub trait Publish {
    /// What takes its place after a reload.
    type Next: Send + 'static;

    /// As [`crate::dataplane::DataPlane::publish_all`].
    ///
    /// # Errors
    ///
    /// If nothing has been published.
    fn publish_all(
        &mut self,
        model: &Model,
        changes: &[Change],
    ) -> Result<Generation, dataplane::Error>;
    /// As [`crate::dataplane::DataPlane::publish`].
    ///
    /// # Errors
    ///
    /// If nothing has been published.
    fn publish(&mut self, changes: &[Change]) -> Result<Generation, dataplane::Error>;
    /// As [`crate::dataplane::DataPlane::generation`].
    fn generation(&self) -> Generation;
    /// As [`crate::dataplane::DataPlane::beat`].
    fn beat(&mut self, max_stale: Option<Duration>);
    /// As [`crate::dataplane::DataPlane::attach`].
    ///
    /// # Errors
    ///
    /// If the interface refuses.
    fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, dataplane::Error>;
    /// As [`crate::dataplane::DataPlane::detach`].
    fn detach(&mut self, interface: &str);
    /// As [`crate::dataplane::DataPlane::outlives`].
    fn outlives(&self, interface: &str) -> bool;
    /// Takes what an earlier daemon has left off the interfaces that have no program of this one.
    fn tidy(&mut self);
    /// As [`crate::dataplane::DataPlane::counters`].
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn counters(&self) -> Result<Counters, dataplane::Error>;
    /// As [`crate::dataplane::DataPlane::service_hits`].
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn service_hits(&self, service: ServiceId) -> Result<ServiceHits, dataplane::Error>;
    /// Replies of user space.
    fn slow_path(&self) -> u64;
    /// Counters of user space, by name.
    fn slow_path_counters(&self) -> Vec<(&'static str, u64)>;
    /// Opens what `next` needs and this has not got; nothing is answered there yet.
    ///
    /// # Errors
    ///
    /// If something cannot be had.
    fn open(&self, next: &mut Self::Next) -> Result<(), dataplane::Error>;
    /// Attaches the program of `next`, which passes everything, to an interface that has none.
    ///
    /// # Errors
    ///
    /// If the interface refuses.
    fn attach_next(
        &self,
        next: &mut Self::Next,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, dataplane::Error>;
    /// Goes over to `next` in one publication.
    ///
    /// # Errors
    ///
    /// If nothing has changed for anybody.
    fn switch(
        &mut self,
        next: Self::Next,
        handover: &Handover<'_>,
    ) -> Result<Switched, dataplane::Error>;
    /// What came before a switch has counted this, and is gone.
    fn settle(&mut self, readings: Readings);
}

/// Where the controller's news come from, as far as it steers that.
pub trait Sources {
    /// As [`crate::probe::Handle::set_pace`].
    fn set_pace(&mut self, probe: ProbeKey, pace: Pace);
    /// As [`crate::probe::Handle::add`].
    fn add(&mut self, probes: Vec<(ProbeKey, Task, Pace)>, begin: Begin);
    /// As [`crate::probe::Handle::remove`].
    fn remove(&mut self, probes: Vec<ProbeKey>);
    /// As [`crate::probe::LinkWatcher::watch`].
    fn watch(&mut self, interfaces: BTreeSet<String>);
}

/// What somebody wants of the controller. A reply that nobody waits for is not missed.
#[derive(Debug)]
pub enum Query {
    /// A part of the status, with services from this index on.
    Status(usize, oneshot::Sender<Result<Part, dataplane::Error>>),
    /// Why a service is answered as it is, under this name.
    Explain(String, ServiceId, oneshot::Sender<Explain>),
    /// A part of the counters, with services from this index on.
    Stats(usize, oneshot::Sender<Result<StatsPart, dataplane::Error>>),
    /// A part of the metrics, with services from this index on.
    Metrics(
        usize,
        oneshot::Sender<Result<MetricsPart, dataplane::Error>>,
    ),
    /// Set admin states. Replies when what follows has been published.
    Set(Set, oneshot::Sender<Result<SetReply, UnknownTargets>>),
    /// Take the program off all interfaces and the rules out of the kernel, and end.
    Detach(oneshot::Sender<Detached>),
    /// Read the configuration again, and do as it says.
    Reload(Reload),
}

/// A query, and the model by which it was asked: ids mean nothing by another one. If that is not
/// the controller's any more, there is no reply, and whoever asks has to ask again.
#[derive(Debug)]
pub struct Asked {
    /// `None`: it has no ids.
    model: Option<Arc<Model>>,
    pub(crate) query: Query,
}

impl Asked {
    /// By this model.
    #[must_use]
    pub fn of(model: &Arc<Model>, query: Query) -> Self {
        Self {
            model: Some(Arc::clone(model)),
            query,
        }
    }

    /// By none: the query has no ids.
    #[must_use]
    pub const fn of_any(query: Query) -> Self {
        Self { model: None, query }
    }

    /// Whether a controller that has this model replies.
    #[must_use]
    pub fn is_of(&self, model: &Arc<Model>) -> bool {
        let by = self.model.as_ref();
        by.is_none_or(|by| Arc::ptr_eq(by, model))
    }
}

/// Where the controller's news come from.
#[derive(Debug)]
pub struct Inputs {
    /// From the probe engine.
    pub reports: mpsc::Receiver<Report<ProbeKey>>,
    /// From the link watcher.
    pub links: mpsc::Receiver<LinkEvent>,
    /// From the control socket.
    pub queries: mpsc::Receiver<Asked>,
}

/// Somebody wants the configuration read again. A reply that nobody waits for is not missed.
#[derive(Debug)]
pub struct Reload {
    /// What if that is being done already.
    pub when_busy: WhenBusy,
    /// Who wants it.
    pub by: Arc<str>,
    /// What has changed; or every error, and nothing has changed.
    pub reply: oneshot::Sender<Result<Reloaded, Vec<String>>>,
}

/// What becomes of a reload that is asked for during another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBusy {
    /// It is refused.
    Refuse,
    /// It is done afterwards.
    Wait,
}

/// What a reload starts from.
#[derive(Clone, Debug)]
pub struct Basis {
    /// The model that is served.
    pub model: Arc<Model>,
    /// The generation that is published.
    pub generation: Generation,
    /// The interfaces with the program.
    pub attached: Vec<(String, AttachedMode)>,
}

/// Reads the configuration and makes what another model needs, away from the controller.
pub trait Load<N> {
    /// Starts; at most one at a time.
    fn load(&mut self, basis: Basis) -> oneshot::Receiver<Loaded<N>>;
}

/// What reading the configuration came to.
#[derive(Debug)]
pub enum Loaded<N> {
    /// Every error.
    Refused(Vec<String>),
    /// It says what it said before. With warnings.
    Unchanged(Vec<String>),
    /// It says something else.
    Other(Box<Candidate<N>>),
}

/// Another model, and all that can be made for it beforehand.
#[derive(Debug)]
pub struct Candidate<N> {
    /// The model.
    pub model: Arc<Model>,
    /// What distinguishes it from that of [`Basis`].
    pub difference: Difference,
    /// What may be kept of that.
    pub succession: Succession,
    /// What an operator may want to look at.
    pub warnings: Vec<String>,
    /// For all probes but those that stay the same.
    pub tasks: HashMap<ProbeId, Task>,
    /// What is going to answer.
    pub next: N,
    /// Who else goes over.
    pub others: Others,
}

/// What goes over to another model beside the controller, once that has; it is dropped if that
/// does not.
pub struct Others(Box<dyn FnOnce(&Model) + Send>);

impl Others {
    /// All that this does.
    #[must_use]
    pub fn new(follow: impl FnOnce(&Model) + Send + 'static) -> Self {
        Self(Box::new(follow))
    }

    pub(super) fn follow(self, model: &Model) {
        (self.0)(model);
    }
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Others")
    }
}

/// What is to be published by a switch.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// The model.
    pub model: &'a Model,
    /// What its things were before.
    pub succession: &'a Succession,
    /// The answers of all its services.
    pub changes: &'a [Change],
}

/// What a switch has done.
#[derive(Debug)]
pub struct Switched {
    /// The generation that was published.
    pub generation: Generation,
    /// Interfaces that have no program any more, though they should.
    pub lost: Vec<(String, dataplane::Error)>,
    /// What an operator may want to look at.
    pub warnings: Vec<String>,
    /// When the old program has seen its last packet, what it has counted. `None`: there was
    /// none.
    pub retired: Option<oneshot::Receiver<Result<Readings, dataplane::Error>>>,
}
