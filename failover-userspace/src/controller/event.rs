//! What the operator is told, as fields.

use tracing::{debug, info, warn};

use crate::health::{AdminState, Carrier, Effective, Failure, Verdict};
use crate::model::{Model, ProbeId, ServerId, ServiceId, WanId};
use crate::policy::Decision;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The verdict on a server or its effective state.
    Server {
        /// Which.
        id: ServerId,
        /// What the checks say.
        verdict: Verdict,
        /// What the operator says.
        admin: AdminState,
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
        /// What the checks say.
        verdict: Verdict,
        /// What the operator says.
        admin: AdminState,
        /// What follows.
        effective: Effective,
        /// Whether its interface has carrier; `None`: not known yet.
        carrier: Option<Carrier>,
        /// Nothing has been published yet.
        first: bool,
    },
    /// What a service answers, or why.
    Service {
        /// Which.
        id: ServiceId,
        /// The decision.
        decision: Decision,
        /// Nothing has been published yet.
        first: bool,
    },
    /// An interface the program belongs on does not exist.
    NoInterface {
        /// Its name.
        name: String,
    },
}

impl Event {
    /// Writes it to the log: INFO, or WARN for what may wake someone, or DEBUG for what is
    /// as it should be from the start.
    pub(super) fn log(&self, model: &Model) {
        match self {
            Self::Server {
                id,
                verdict,
                admin,
                effective,
                failed,
                first,
            } => {
                let server = model.server(*id);
                let service = &*model.service(server.service).name;
                let name = &*server.name;
                let address = server.address;
                let check = failed
                    .as_ref()
                    .map(|(probe, _)| &model.probe(*probe).target);
                let check = check.map(tracing::field::display);
                let error = failed
                    .as_ref()
                    .map(|(_, error)| tracing::field::display(error));
                if *effective == Effective::Down {
                    warn!(service, server = name, %address, %verdict, %admin, %effective, check, error, "server down");
                } else if *first {
                    debug!(service, server = name, %address, %verdict, %admin, %effective, check, error, "server");
                } else {
                    info!(service, server = name, %address, %verdict, %admin, %effective, check, error, "server");
                }
            }
            Self::Wan {
                id,
                verdict,
                admin,
                effective,
                carrier,
                first,
            } => {
                let wan = &*model.wan(*id).name;
                let watched = carrier.filter(|carrier| *carrier != Carrier::NotWatched);
                let carrier = watched.map(tracing::field::debug);
                if *effective == Effective::Down {
                    warn!(wan, %verdict, %admin, %effective, carrier, "WAN link down");
                } else if *first {
                    debug!(wan, %verdict, %admin, %effective, carrier, "WAN link");
                } else {
                    info!(wan, %verdict, %admin, %effective, carrier, "WAN link");
                }
            }
            Self::Service {
                id,
                decision,
                first,
            } => {
                let service = &*model.service(*id).name;
                let Decision { answer, reason } = decision;
                if !decision.had_candidate() {
                    warn!(service, %answer, %reason, "all down");
                } else if *first {
                    debug!(service, %answer, %reason, "answer");
                } else {
                    info!(service, %answer, %reason, "answer");
                }
            }
            Self::NoInterface { name } => {
                warn!(
                    interface = name,
                    "no such interface: attached when it appears"
                );
            }
        }
    }
}
