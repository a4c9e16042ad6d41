//! As fields of the log.

use tracing::{debug, error, info, warn};

use super::Event;
use crate::controller::Subject;
use crate::health::{Carrier, Effective};
use crate::model::Model;
use crate::policy::Decision;

impl Event {
    /// Writes it to the log: INFO, or WARN for what may wake someone, or DEBUG for what is
    /// as it should be from the start.
    pub(in crate::controller) fn log(&self, model: &Model) {
        let routine = self.is_routine();
        match self {
            Self::Server {
                id,
                verdict,
                admin,
                effective,
                failed,
                ..
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
                } else if routine {
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
                failed,
                ..
            } => {
                let wan = &*model.wan(*id).name;
                let watched = carrier.filter(|carrier| *carrier != Carrier::NotWatched);
                let carrier = watched.map(tracing::field::debug);
                let target = failed
                    .as_ref()
                    .map(|(probe, _)| &model.probe(*probe).target);
                let target = target.map(tracing::field::display);
                let error = failed
                    .as_ref()
                    .map(|(_, error)| tracing::field::display(error));
                if *effective == Effective::Down {
                    warn!(wan, %verdict, %admin, %effective, carrier, target, error, "WAN link down");
                } else if routine {
                    debug!(wan, %verdict, %admin, %effective, carrier, target, error, "WAN link");
                } else {
                    info!(wan, %verdict, %admin, %effective, carrier, target, error, "WAN link");
                }
            }
            Self::Service { id, decision, .. } => {
                let service = &*model.service(*id).name;
                let Decision { answer, reason } = decision;
                if !decision.had_candidate() {
                    warn!(service, %answer, %reason, "all down");
                } else if routine {
                    debug!(service, %answer, %reason, "answer");
                } else {
                    info!(service, %answer, %reason, "answer");
                }
            }
            Self::Admin { subject, from, to } => match subject {
                Subject::Server(id) => {
                    let server = model.server(*id);
                    let service = &*model.service(server.service).name;
                    info!(service, server = server.name, %from, %to, "told by the operator");
                }
                Subject::Wan(id) => {
                    let wan = &*model.wan(*id).name;
                    info!(wan, %from, %to, "told by the operator");
                }
            },
            Self::Refused { services, error } => error!(error, services, "publication refused"),
            Self::Published { generation } => info!(%generation, "published again"),
            Self::NoInterface { name } => {
                warn!(
                    interface = name,
                    "no such interface: attached when it appears"
                );
            }
            Self::Attached { name, index, mode } => {
                info!(interface = name, index, ?mode, "program attached");
            }
            Self::NotAttached { name, index, error } => {
                warn!(
                    interface = name,
                    index, error, "interface refuses the program: trying again"
                );
            }
            Self::Gone { name } => {
                warn!(interface = name, "interface gone, and the program with it");
            }
            Self::Detached { name } => info!(interface = name, "program detached"),
            Self::Started => info!(
                version = env!("CARGO_PKG_VERSION"),
                services = model.services.len(),
                servers = model.servers.len(),
                wans = model.wans.len(),
                probes = model.probes.len(),
                "started"
            ),
            Self::Ready { generation } => info!(%generation, "ready"),
            Self::Stopped { why: Ok(why) } => info!(why, "stopped"),
            Self::Stopped { why: Err(error) } => error!(error, "stopped"),
        }
    }
}
