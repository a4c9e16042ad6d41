//! A decision with the part that each server and WAN address had in it.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::{Answer, Decision, Field, Obstacle, Trust, View, Winner, resolve, servers};
use crate::health::Effective;
use crate::model::{Model, Priority, Server, ServerId, Service, Site, WanAddress};

/// Why the names of a service resolve to what they do. `Display` tells it step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the service in the configuration.
    pub service: String,
    /// Its WAN addresses, in configured order.
    pub wans: Vec<WanExplanation>,
    /// Its servers, in configured order.
    pub servers: Vec<ServerExplanation>,
    /// What is answered, and why.
    #[serde(flatten)]
    pub decision: Decision,
}

/// One WAN address of the service and its part in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanExplanation {
    /// Name of its link.
    pub link: String,
    /// The address.
    pub address: IpAddr,
    /// Its share of first places.
    pub weight: NonZeroU16,
    /// State of the link.
    pub effective: Effective,
    /// Answered, or why not.
    pub standing: WanStanding,
}

/// One server of the service and its part in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerExplanation {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// Its tier.
    pub priority: Priority,
    /// Where it stands.
    pub site: Site,
    /// Its share of first places or of connections.
    pub weight: NonZeroU16,
    /// Its state.
    pub effective: Effective,
    /// Answered, or why not.
    pub standing: ServerStanding,
}

/// The part of a WAN address in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WanStanding {
    /// It is in the answer.
    Answered,
    /// With `redundancy_only`, another address of its family comes first.
    NotFirst,
    /// Its link is up, but the answer leads to no onsite server.
    NoOnsite,
    /// Its link is not up, but as [`WanExplanation::effective`] says.
    NotUp,
}

/// The part of a server in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStanding {
    /// The answer leads to it, by its own or by a WAN address.
    Answered,
    /// It is a candidate, but a higher tier has one, too.
    LowerTier,
    /// Its priority is `disabled`.
    Disabled,
    /// It is not up, but as [`ServerExplanation::effective`] says.
    NotUp,
    /// It is up and onsite, but none of the service's WAN addresses is on a link that is up.
    NoWan,
}

/// Decides as [`decide`](super::decide) does, and tells why.
///
/// A server or WAN address that is answered although it is not up (the service fails open)
/// is [`Answered`](ServerStanding::Answered); the others have what keeps them from being a
/// candidate.
#[must_use]
pub fn explain(
    service: &Service,
    model: &Model,
    view: View<'_>,
    last: Option<&Answer>,
) -> Explanation {
    let (decision, winner) = resolve(service, model, view, last);
    // Whoever is not answered has what keeps it out by the ordinary rules.
    let health = Field::new(service, model, view, Trust::Health);

    Explanation {
        service: service.name.clone(),
        wans: service
            .wan
            .iter()
            .map(|wan| WanExplanation {
                link: link_name(model, wan),
                address: wan.address,
                weight: wan.weight,
                effective: view.wan(wan.wan),
                standing: wan_standing(health, winner, wan),
            })
            .collect(),
        servers: servers(service, model)
            .map(|(id, server)| ServerExplanation {
                name: server.name.clone(),
                address: server.address,
                priority: server.priority,
                site: server.site,
                weight: server.weight,
                effective: view.server(id),
                standing: server_standing(health, winner, id, server),
            })
            .collect(),
        decision,
    }
}

fn link_name(model: &Model, wan: &WanAddress) -> String {
    model
        .wans
        .get(wan.wan.index())
        .map_or_else(String::new, |link| link.name.clone())
}

fn wan_standing(health: Field<'_>, winner: Option<Winner<'_>>, wan: &WanAddress) -> WanStanding {
    // By place, not by value: the same address may be configured twice.
    let answered = |winner: Winner<'_>| winner.wan_addresses().any(|it| std::ptr::eq(it, wan));
    if winner.is_some_and(answered) {
        WanStanding::Answered
    } else if !health.is_on_usable_link(wan) {
        WanStanding::NotUp
    } else if winner.is_some_and(|winner| winner.onsite) {
        WanStanding::NotFirst
    } else {
        WanStanding::NoOnsite
    }
}

fn server_standing(
    health: Field<'_>,
    winner: Option<Winner<'_>>,
    id: ServerId,
    server: &Server,
) -> ServerStanding {
    if winner.is_some_and(|winner| winner.has_server(id, server)) {
        return ServerStanding::Answered;
    }
    match health.candidacy(id, server) {
        Ok(_) => ServerStanding::LowerTier,
        Err(Obstacle::Disabled) => ServerStanding::Disabled,
        Err(Obstacle::NotUp) => ServerStanding::NotUp,
        Err(Obstacle::NoWan) => ServerStanding::NoWan,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "service {}", self.service)?;
        for wan in &self.wans {
            writeln!(f, "  {wan}")?;
        }
        for server in &self.servers {
            writeln!(f, "  {server}")?;
        }
        writeln!(f, "  {}", self.decision.reason)?;
        write!(f, "  answer: {}", self.decision.answer)
    }
}

impl fmt::Display for WanExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.effective;
        write!(f, "wan {} {}: ", self.link, self.address)?;
        match self.standing {
            WanStanding::Answered if state.is_up() => f.write_str("answered"),
            WanStanding::Answered => write!(f, "answered although its link is {state}"),
            WanStanding::NotFirst => f.write_str("not the first (redundancy_only)"),
            WanStanding::NoOnsite => f.write_str("no onsite server is answered"),
            WanStanding::NotUp => write!(f, "link is {state}"),
        }
    }
}

impl fmt::Display for ServerExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.effective;
        let priority = match self.priority {
            Priority::Disabled => "disabled",
            Priority::Tier(tier) => tier.as_str(),
        };
        let site = match self.site {
            Site::Onsite => "onsite",
            Site::Offsite => "offsite",
        };
        write!(
            f,
            "server {} {} ({priority}, {site}): ",
            self.name, self.address
        )?;
        match self.standing {
            ServerStanding::Answered if state.is_up() => f.write_str("answered"),
            ServerStanding::Answered => write!(f, "answered although {state}"),
            ServerStanding::LowerTier => f.write_str("a higher tier wins"),
            ServerStanding::Disabled => f.write_str("disabled"),
            ServerStanding::NotUp => write!(f, "{state}"),
            ServerStanding::NoWan => f.write_str("up, but no WAN address is on a link that is up"),
        }
    }
}
