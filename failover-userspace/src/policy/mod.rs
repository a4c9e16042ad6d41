//! Who is answered: a pure function of the model and the effective states.
//!
//! [`decide`] applies, in this order:
//!
//! 1. A server is a candidate when its priority is not `disabled`, its state is up and,
//!    if it is onsite, at least one of the service's WAN addresses is on a link that is
//!    up. Unknown is not up.
//! 2. The highest tier with a candidate wins.
//! 3. If the winning tier has an onsite candidate, the service's WAN addresses on links
//!    that are up are answered, in configured order; with `redundancy_only` the first of
//!    them, of each address family, so that A and AAAA fail over separately. Then the
//!    addresses of the tier's offsite candidates, in configured order.
//! 4. Without a candidate, `on_all_down` decides.
//!
//! **Failing open** answers "as if everything were up", servers and links: what is down or
//! unknown counts as up, no matter whether the checks or the operator say so. What the
//! operator took out with `drain` or `maint` stays out, as "not answered any more"
//! promises, unless that leaves nothing to answer. Disabled servers are never answered.
//!
//! All addresses of the decision go to the data plane: it rotates them, and applies
//! `max_answers` and the question's address family.
//!
//! [`explain()`] shows the same decision with the part each server and WAN address had in it.
//!
//! [`forward()`] decides from the same states where connections to the WAN addresses go.

mod answer;
mod explain;
mod forward;
#[cfg(test)]
mod tests;

use std::num::NonZeroU16;

pub use self::answer::{Answer, Decision, Fallback, Reason, Weighted};
pub use self::explain::{
    Explanation, ServerExplanation, ServerStanding, WanExplanation, WanStanding, explain,
};
pub use self::forward::{Destination, Forward, forward};
use crate::health::Effective;
use crate::model::{
    Model, OnAllDown, Priority, Server, ServerId, Service, Site, Tier, WanAddress, WanId,
};

/// The effective states a decision rests on; one that is missing counts as unknown.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// State of each of [`Model::servers`].
    pub servers: &'a [Effective],
    /// State of each of [`Model::wans`].
    pub wans: &'a [Effective],
}

/// Decides what the names of `service` resolve to.
///
/// `last` is the last answer that had a candidate ([`Decision::had_candidate`]); keeping it
/// is the caller's duty. Of its addresses, those are answered that are still configured.
#[must_use]
pub fn decide(service: &Service, model: &Model, view: View<'_>, last: Option<&Answer>) -> Decision {
    resolve(service, model, view, last).0
}

/// The one implementation behind [`decide`] and [`explain()`].
fn resolve<'a>(
    service: &'a Service,
    model: &'a Model,
    view: View<'a>,
    last: Option<&Answer>,
) -> (Decision, Option<Winner<'a>>) {
    let field = |trust| Field::new(service, model, view, trust);
    if let Some(winner) = field(Trust::Health).winner() {
        return winner.decision(Reason::Tier);
    }

    let fallback = |answer, fallback| {
        let reason = Reason::AllDown(fallback);
        (Decision { answer, reason }, None)
    };
    let fail_open = || {
        [Trust::Operator, Trust::Nobody]
            .into_iter()
            .find_map(|trust| field(trust).winner())
            .map_or_else(
                || fallback(Answer::Empty, Fallback::Nothing),
                |winner| winner.decision(|tier| Reason::AllDown(Fallback::FailOpen(tier))),
            )
    };
    match &service.on_all_down {
        OnAllDown::Primary => fail_open(),
        OnAllDown::Last => match still_configured(last, service, model) {
            answer @ Answer::Addresses(_) => fallback(answer, Fallback::Last),
            Answer::Empty | Answer::Servfail => fail_open(),
        },
        OnAllDown::Empty => fallback(Answer::Empty, Fallback::Empty),
        OnAllDown::Servfail => fallback(Answer::Servfail, Fallback::Servfail),
        OnAllDown::Addresses(list) => {
            let list = list.iter().map(|&address| Weighted {
                address,
                weight: NonZeroU16::MIN,
            });
            fallback(Answer::merged(list), Fallback::List)
        }
    }
}

/// What is left of `last` after reloads: no address that the service may not answer today.
fn still_configured(last: Option<&Answer>, service: &Service, model: &Model) -> Answer {
    let configured = |address| {
        service.wan.iter().any(|wan| wan.address == address)
            || servers(service, model).any(|(_, server)| {
                server.site == Site::Offsite
                    && server.priority != Priority::Disabled
                    && server.address == address
            })
    };
    Answer::merged(
        last.map_or(&[][..], Answer::addresses)
            .iter()
            .copied()
            .filter(|last| configured(last.address)),
    )
}

/// Whose word keeps a server or link out of the answer.
#[derive(Clone, Copy, Debug)]
enum Trust {
    /// The checks' and the operator's: it has to be up.
    Health,
    /// Only the operator's `drain` and `maint`.
    Operator,
    /// Nobody's.
    Nobody,
}

impl Trust {
    const fn admits(self, state: Effective) -> bool {
        match (self, state) {
            (_, Effective::Up) | (Self::Nobody, _) => true,
            (Self::Operator, Effective::Down | Effective::Unknown) => true,
            (Self::Operator, Effective::Drain | Effective::Maint) | (Self::Health, _) => false,
        }
    }
}

/// What keeps a server from being a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    Disabled,
    NotUp,
    NoWan,
}

/// The servers and WAN addresses of one service, as one degree of trust sees them.
#[derive(Clone, Copy, Debug)]
struct Field<'a> {
    service: &'a Service,
    model: &'a Model,
    view: View<'a>,
    trust: Trust,
    /// Some WAN address is on a usable link.
    reachable: bool,
}

impl<'a> Field<'a> {
    fn new(service: &'a Service, model: &'a Model, view: View<'a>, trust: Trust) -> Self {
        let mut field = Self {
            service,
            model,
            view,
            trust,
            reachable: false,
        };
        field.reachable = service.wan.iter().any(|wan| field.is_on_usable_link(wan));
        field
    }

    /// The tier the server is a candidate of, or what keeps it from being one.
    fn candidacy(&self, id: ServerId, server: &Server) -> Result<Tier, Obstacle> {
        match server.priority {
            Priority::Disabled => Err(Obstacle::Disabled),
            _ if !self.trust.admits(self.view.server(id)) => Err(Obstacle::NotUp),
            _ if server.site == Site::Onsite && !self.reachable => Err(Obstacle::NoWan),
            Priority::Tier(tier) => Ok(tier),
        }
    }

    /// Whether the link of a WAN address may carry an answer.
    fn is_on_usable_link(&self, wan: &WanAddress) -> bool {
        self.trust.admits(self.view.wan(wan.wan))
    }

    /// The highest tier with a candidate.
    fn winner(self) -> Option<Winner<'a>> {
        let tier = servers(self.service, self.model)
            .filter_map(|(id, server)| self.candidacy(id, server).ok())
            .min()?;
        let onsite = servers(self.service, self.model).any(|(id, server)| {
            server.site == Site::Onsite && self.candidacy(id, server) == Ok(tier)
        });
        Some(Winner {
            field: self,
            tier,
            onsite,
        })
    }
}

/// The tier that is answered.
#[derive(Clone, Copy, Debug)]
struct Winner<'a> {
    field: Field<'a>,
    tier: Tier,
    /// It has an onsite candidate: the WAN addresses are answered.
    onsite: bool,
}

impl<'a> Winner<'a> {
    /// Whether the server is one of those the answer leads to.
    fn has_server(&self, id: ServerId, server: &Server) -> bool {
        self.field.candidacy(id, server) == Ok(self.tier)
    }

    /// The WAN addresses that are answered.
    fn wan_addresses(&self) -> impl Iterator<Item = &'a WanAddress> {
        let Self { field, onsite, .. } = *self;
        let first_only = field.service.redundancy_only;
        let (mut v4, mut v6) = (false, false);
        field
            .service
            .wan
            .iter()
            .filter(move |_| onsite)
            .filter(move |wan| field.is_on_usable_link(wan))
            .filter(move |wan| {
                let seen = if wan.address.is_ipv4() {
                    &mut v4
                } else {
                    &mut v6
                };
                !(std::mem::replace(seen, true) && first_only)
            })
    }

    fn answer(&self) -> Answer {
        let wans = self.wan_addresses().map(|wan| Weighted {
            address: wan.address,
            weight: wan.weight,
        });
        let offsite = servers(self.field.service, self.field.model)
            .filter(|&(id, server)| server.site == Site::Offsite && self.has_server(id, server))
            .map(|(_, server)| Weighted {
                address: server.address,
                weight: server.weight,
            });
        Answer::merged(wans.chain(offsite))
    }

    fn decision(self, reason: impl Fn(Tier) -> Reason) -> (Decision, Option<Self>) {
        let decision = Decision {
            answer: self.answer(),
            reason: reason(self.tier),
        };
        (decision, Some(self))
    }
}

impl View<'_> {
    fn server(&self, id: ServerId) -> Effective {
        self.servers.get(id.index()).copied().unwrap_or_default()
    }

    fn wan(&self, id: WanId) -> Effective {
        self.wans.get(id.index()).copied().unwrap_or_default()
    }
}

/// The service's servers, in configured order.
fn servers<'a>(
    service: &'a Service,
    model: &'a Model,
) -> impl Iterator<Item = (ServerId, &'a Server)> {
    service
        .server_ids()
        .filter_map(|id| Some((id, model.servers.get(id.index())?)))
}
