//! What the operator is told: in the log, in the journal, and from there by webhooks.
//!
//! `log` has the fields of the log, `news` the words of the journal.

mod log;
mod news;

use std::sync::Arc;

use crate::dataplane::{AttachedMode, Generation};
use crate::health::{Admin, AdminState, Carrier, Effective, Failure, Targets, Verdict};
use crate::journal::Kind;
use crate::model::{ProbeId, ServerId, ServiceId, WanId};
use crate::policy::Decision;

use super::Subject;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The verdict on a server or its effective state.
    Server {
        /// Which.
        id: ServerId,
        /// Its effective state before.
        from: Effective,
        /// What the checks say.
        verdict: Verdict,
        /// What the operator says.
        admin: Admin,
        /// What follows.
        effective: Effective,
        /// A check whose last probe failed, and why it did.
        failed: Option<(ProbeId, Failure)>,
        /// Nothing has been published yet.
        first: bool,
    },
    /// The verdict on a link or its effective state.
    Wan {
        /// Which.
        id: WanId,
        /// Its effective state before.
        from: Effective,
        /// What the checks say.
        verdict: Verdict,
        /// What the operator says.
        admin: Admin,
        /// What follows.
        effective: Effective,
        /// Whether its interface has carrier; `None`: not known yet.
        carrier: Option<Carrier>,
        /// How many of its targets answer.
        targets: Targets,
        /// A target whose last probe failed, and why it did.
        failed: Option<(ProbeId, Failure)>,
        /// Nothing has been published yet.
        first: bool,
    },
    /// What the operator says, or until when, or why.
    Admin(AdminEvent),
    /// What a service answers, or why.
    Service {
        /// Which.
        id: ServiceId,
        /// The decision before; `None`: this is the first.
        before: Option<Decision>,
        /// The decision.
        decision: Decision,
    },
    /// Nothing could be published; said once until it can.
    Refused {
        /// Services whose answers wait.
        services: usize,
        /// Why.
        error: String,
    },
    /// After that, everything has been published.
    Published {
        /// By this generation.
        generation: Generation,
    },
    /// An interface the program belongs on does not exist.
    NoInterface {
        /// Its name.
        name: String,
    },
    /// The program is on an interface.
    Attached {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
        /// How.
        mode: AttachedMode,
    },
    /// An interface refuses the program; said once until it changes.
    NotAttached {
        /// Its name.
        name: String,
        /// Its index.
        index: u32,
        /// Why.
        error: String,
    },
    /// An interface is gone, and the program with it.
    Gone {
        /// Its name.
        name: String,
    },
    /// The program has been taken off an interface.
    Detached {
        /// Its name.
        name: String,
    },
    /// Another configuration is in force.
    Reloaded {
        /// Who wanted it.
        by: Arc<str>,
        /// What has changed, without names; nothing, if it says what the one before said.
        difference: String,
        /// The generation that is published now.
        generation: Generation,
    },
    /// The configuration is not in force: nothing has changed.
    NotReloaded {
        /// Who wanted it.
        by: Arc<str>,
        /// Every error.
        errors: Vec<String>,
    },
    /// The daemon has begun.
    Started,
    /// Everything has been published for the first time.
    Ready {
        /// By this generation.
        generation: Generation,
    },
    /// The daemon ends.
    Stopped {
        /// Why, in words; an error if it was not told to.
        why: Result<&'static str, String>,
    },
}

/// The operator has spoken of a server or a link, or the time of an order is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminEvent {
    /// Of which.
    pub subject: Subject,
    /// What it was.
    pub before: AdminState,
    /// What it is now; nobody's order: its time is over.
    pub after: Admin,
}

/// What a reload has changed.
const fn what_changed(difference: &str) -> &str {
    if difference.is_empty() {
        "nothing has changed"
    } else {
        difference
    }
}

impl Event {
    /// Whether it is as it should be from the start: no news, but for those who look closely.
    #[must_use]
    pub const fn is_routine(&self) -> bool {
        match self {
            Self::Server {
                effective, first, ..
            }
            | Self::Wan {
                effective, first, ..
            } => *first && !matches!(effective, Effective::Down),
            Self::Service {
                before, decision, ..
            } => before.is_none() && decision.had_candidate(),
            _ => false,
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Server { .. } => Kind::Server,
            Self::Wan { .. } => Kind::Wan,
            Self::Service { .. } => Kind::Service,
            Self::Admin(_) => Kind::Admin,
            Self::Refused { .. } | Self::Published { .. } => Kind::Publication,
            Self::NoInterface { .. }
            | Self::Attached { .. }
            | Self::NotAttached { .. }
            | Self::Gone { .. }
            | Self::Detached { .. } => Kind::Interface,
            Self::Reloaded { .. } | Self::NotReloaded { .. } => Kind::Reload,
            Self::Started | Self::Ready { .. } | Self::Stopped { .. } => Kind::Daemon,
        }
    }
}
