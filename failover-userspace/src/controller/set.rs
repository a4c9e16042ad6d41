//! `failover set`: all that was meant in one step, and word of it when it is on the wire.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::core::{Core, Now, Subject};
use super::target::{UnknownTargets, resolve};
use crate::dataplane::Generation;
use crate::health::{Admin, AdminState, Order};
use crate::model::ServiceId;
use crate::policy::Answer;
use crate::protocol::{SetResult, SetService, SetTarget};

/// How long a client waits for the publication.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is to be set to what, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// `SERVICE/SERVER` or `wan/NAME`, with `*` and `?`.
    pub targets: Vec<String>,
    /// What to.
    pub order: Order,
    /// By whom.
    pub by: Arc<str>,
}

/// What was set, with what was before.
#[derive(Debug)]
pub(super) struct Done {
    subjects: Vec<(Subject, AdminState, bool)>,
    services: Vec<(ServiceId, Option<Answer>)>,
}

impl Core {
    /// Sets all that is meant, or nothing; [`Core::settle`] tells what follows.
    pub(super) fn set(&mut self, set: &Set, now: Now) -> Result<Done, UnknownTargets> {
        let subjects = resolve(&self.model, &set.targets)?;
        let services = self.services_of(&subjects).into_iter().map(|id| {
            let decision = self.services[id.index()].decision.as_ref();
            (id, decision.map(|decision| decision.answer.clone()))
        });
        let services = services.collect();
        let subjects = subjects.into_iter().map(|subject| {
            let before = self.admin(subject).clone();
            let admin = Admin::ordered(&set.order, &set.by, now.wall);
            self.on_admin(subject, admin, now);
            (subject, before.state, *self.admin(subject) != before)
        });
        Ok(Done {
            subjects: subjects.collect(),
            services,
        })
    }

    /// Whose answers may depend on them, each once.
    fn services_of(&self, subjects: &[Subject]) -> Vec<ServiceId> {
        let mut seen = HashSet::new();
        let mut services = Vec::new();
        for subject in subjects {
            let own;
            let of_subject: &[ServiceId] = match subject {
                Subject::Server(id) => {
                    own = [self.model.server(*id).service];
                    &own
                }
                Subject::Wan(id) => &self.index.services[id.index()],
            };
            services.extend(of_subject.iter().filter(|id| seen.insert(**id)));
        }
        services
    }

    /// Whether all that follows has been published.
    fn is_published(&self, done: &Done) -> bool {
        let mut services = done.services.iter();
        self.is_live()
            && services.all(|(id, _)| {
                let service = &self.services[id.index()];
                !service.dirty && !service.unpublished
            })
    }

    pub(super) fn result(&self, done: &Done) -> SetResult {
        let targets = done.subjects.iter().map(|(subject, before, changed)| {
            let (subjects, at) = match subject {
                Subject::Server(id) => (&self.servers, id.index()),
                Subject::Wan(id) => (&self.wans, id.index()),
            };
            SetTarget {
                target: subject.name(&self.model),
                before: *before,
                changed: *changed,
                admin: subjects.admin[at].clone(),
                verdict: subjects.verdict[at],
                effective: subjects.effective[at],
            }
        });
        let services = done.services.iter().map(|(id, before)| {
            let decision = self.services[id.index()].decision.as_ref();
            let after = decision.map(|decision| &decision.answer);
            let answered = self.answered(*id);
            SetService {
                name: self.model.service(*id).name.clone(),
                changed: before.as_ref() != after,
                tier: answered.tier,
                reason: answered.reason,
                answer: answered.answer,
                rcode: answered.rcode,
            }
        });
        SetResult {
            generation: self.generation,
            published: self.is_published(done),
            saved: false,
            targets: targets.collect(),
            services: services.collect(),
        }
    }
}

/// The result, and what is ready when the state file has it.
pub type SetReply = (SetResult, oneshot::Receiver<()>);

/// Clients that wait for the publication of what they have set.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Client>);

#[derive(Debug)]
struct Client {
    done: Done,
    saved: oneshot::Receiver<()>,
    reply: oneshot::Sender<Result<SetReply, UnknownTargets>>,
    deadline: Instant,
}

impl Waiting {
    /// One more.
    pub(super) fn push(
        &mut self,
        done: Done,
        saved: oneshot::Receiver<()>,
        reply: oneshot::Sender<Result<SetReply, UnknownTargets>>,
        now: Instant,
    ) {
        self.0.push(Client {
            done,
            saved,
            reply,
            deadline: now + PATIENCE,
        });
    }

    /// When the first of them has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|client| client.deadline).min()
    }

    /// Replies to all: this generation has brought what they wait for, and `core`, by whose ids
    /// they know it, is of the past.
    pub(super) fn dismiss(&mut self, core: &Core, generation: Generation) {
        for client in std::mem::take(&mut self.0) {
            let result = SetResult {
                generation,
                published: true,
                ..core.result(&client.done)
            };
            let _ = client.reply.send(Ok((result, client.saved)));
        }
    }

    /// Replies to those whose answers are published, or who have waited long enough.
    pub(super) fn answer(&mut self, core: &Core, now: Instant) {
        for client in std::mem::take(&mut self.0) {
            if core.is_published(&client.done) || now >= client.deadline {
                let result = core.result(&client.done);
                // Whoever does not wait any more does not miss it.
                let _ = client.reply.send(Ok((result, client.saved)));
            } else {
                self.0.push(client);
            }
        }
    }
}
