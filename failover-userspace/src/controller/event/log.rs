//! As fields of the log.

use tracing::{debug, error, info, warn};

use super::{AdminEvent, Event, what_changed};
use crate::health::{Admin, AdminReason, AdminState, Carrier, Effective};
use crate::model::Model;
use crate::policy::Decision;

/// Errors of one configuration that are logged, at most: a log that is full of them helps nobody.
const MOST_ERRORS: usize = 1000;

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
                let (admin, by, why) = forced(admin);
                if *effective == Effective::Down {
                    warn!(service, server = name, %address, %verdict, %admin, by, why, %effective, check, error, "server down");
                } else if routine {
                    debug!(service, server = name, %address, %verdict, %admin, by, why, %effective, check, error, "server");
                } else {
                    info!(service, server = name, %address, %verdict, %admin, by, why, %effective, check, error, "server");
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
                let (admin, by, why) = forced(admin);
                if *effective == Effective::Down {
                    warn!(wan, %verdict, %admin, by, why, %effective, carrier, target, error, "WAN link down");
                } else if routine {
                    debug!(wan, %verdict, %admin, by, why, %effective, carrier, target, error, "WAN link");
                } else {
                    info!(wan, %verdict, %admin, by, why, %effective, carrier, target, error, "WAN link");
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
            Self::Admin(event) => event.log(model),
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
            Self::Reloaded {
                by,
                difference,
                generation,
            } => {
                let changed = what_changed(difference);
                info!(by = &**by, %generation, changed, "reloaded");
            }
            Self::NotReloaded { by, errors } => {
                for error in errors.iter().take(MOST_ERRORS) {
                    error!("{error}");
                }
                error!(
                    by = &**by,
                    errors = errors.len(),
                    "not reloaded: nothing has changed"
                );
            }
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

impl AdminEvent {
    fn log(&self, model: &Model) {
        let Self {
            subject,
            before,
            after,
        } = self;
        let subject = subject.name(model);
        let until = after.until.map(tracing::field::display);
        let (admin, by) = (after.state, after.by.as_deref());
        let why = after.reason.as_ref().map(AdminReason::as_str);
        if by.is_some() {
            info!(subject, %before, %admin, by, why, until, "admin state");
        } else {
            info!(subject, %before, %admin, "admin state: its time is over");
        }
    }
}

/// The operator's word as fields; who and why where it is not as the checks say.
fn forced(admin: &Admin) -> (AdminState, Option<&str>, Option<&str>) {
    if admin.state == AdminState::Auto {
        return (admin.state, None, None);
    }
    let why = admin.reason.as_ref().map(AdminReason::as_str);
    (admin.state, admin.by.as_deref(), why)
}
