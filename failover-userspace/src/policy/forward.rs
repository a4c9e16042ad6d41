//! Where connections to a service's WAN addresses go: the port forwarding that goes with an
//! answer.
//!
//! Only onsite servers are behind the WAN addresses: those with an IPv4 address behind the IPv4
//! ones, those with an IPv6 address behind the IPv6 ones. For each family:
//!
//! 1. The highest tier with an onsite server that is up takes the connections. As long as the
//!    answer leads to an onsite server at all, that is the winning tier; while it does not,
//!    clients with an older answer in their cache still come.
//! 2. Without one, the highest tier with an onsite server, up or not, as when an answer fails
//!    open: what the operator took out with `drain` or `maint` stays out, unless that leaves
//!    nothing.
//!
//! Whether a link is up does not matter here: whoever connects has found a way.
//!
//! **Established connections** may go on with every onsite server that takes new ones, and with
//! those that were drained, that have lost to a higher tier, or of which nothing is known. Those
//! that are down, in maintenance or disabled keep none.

use std::net::IpAddr;

use super::{Trust, View, servers};
use crate::health::Effective;
use crate::model::{Model, Priority, Server, ServerId, Service, Site, Tier};

/// Where connections to a service's WAN addresses go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forward {
    /// Those to its IPv4 addresses; `None`: it has none, or no onsite server with one.
    pub v4: Option<Destination>,
    /// Those to its IPv6 addresses; `None`: it has none, or no onsite server with one.
    pub v6: Option<Destination>,
}

/// The servers behind a service's WAN addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The tier that takes the connections.
    pub tier: Tier,
    /// Its servers, at least one: new connections are spread over them by weight.
    pub servers: Vec<ServerId>,
    /// Servers with which established connections may go on: these, and perhaps others.
    pub keep: Vec<ServerId>,
}

impl Forward {
    /// Of the family of an address.
    #[must_use]
    pub const fn of(&self, address: IpAddr) -> Option<&Destination> {
        match address {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

/// Decides where connections to the WAN addresses of `service` go.
#[must_use]
pub fn forward(service: &Service, model: &Model, view: View<'_>) -> Forward {
    let of = |is_family: fn(&IpAddr) -> bool| {
        let has_wan = service.wan.iter().any(|wan| is_family(&wan.address));
        has_wan.then(|| destination(service, model, view, is_family))?
    };
    Forward {
        v4: of(IpAddr::is_ipv4),
        v6: of(IpAddr::is_ipv6),
    }
}

fn destination(
    service: &Service,
    model: &Model,
    view: View<'_>,
    is_family: fn(&IpAddr) -> bool,
) -> Option<Destination> {
    let onsite = || {
        servers(service, model)
            .filter(|(_, server)| server.site == Site::Onsite && is_family(&server.address))
    };
    let taking = |trust: Trust| {
        let tier_of = |(id, server): (ServerId, &Server)| match server.priority {
            Priority::Tier(tier) if trust.admits(view.server(id)) => Some((tier, id)),
            Priority::Tier(_) | Priority::Disabled => None,
        };
        let tier = onsite().filter_map(tier_of).map(|(tier, _)| tier).min()?;
        let taking = onsite().filter_map(tier_of);
        let taking: Vec<ServerId> = taking
            .filter_map(|(of, id)| (of == tier).then_some(id))
            .collect();
        Some((tier, taking))
    };
    let (tier, taking) = [Trust::Health, Trust::Operator, Trust::Nobody]
        .into_iter()
        .find_map(taking)?;
    let keeps = |(id, server): &(ServerId, &Server)| {
        let in_service = match view.server(*id) {
            Effective::Up | Effective::Drain | Effective::Unknown => true,
            Effective::Down | Effective::Maint => false,
        };
        taking.contains(id) || (in_service && server.priority != Priority::Disabled)
    };
    let keep = onsite().filter(keeps).map(|(id, _)| id).collect();
    Some(Destination {
        tier,
        servers: taking,
        keep,
    })
}
