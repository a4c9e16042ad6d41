//! Small models and their states, in few words.

use std::net::IpAddr;
use std::ops::Range;

use super::super::*;
use crate::model::{Fqdn, ServiceId, Settings, Wan, XdpMode, ZoneId};
use crate::rights::Access;

pub(super) const WAN1: &str = "198.51.100.134";
pub(super) const WAN2: &str = "203.0.113.70";

/// A model of one service, behind a server and a link that are not its own.
#[derive(Clone, Debug)]
pub(super) struct Lab {
    pub(super) model: Model,
    pub(super) last: Option<Answer>,
}

pub(super) fn lab() -> Lab {
    let settings = Settings {
        interfaces: Vec::new(),
        listen: Vec::new(),
        port: NonZeroU16::MIN,
        xdp: XdpMode::Off,
        edns_udp_size: 1232,
        nsid: None,
        cookies: None,
        control_socket: "control.sock".into(),
        control: Access::default(),
        state_dir: "state".into(),
        bpf_dir: "bpf".into(),
        max_stale: None,
        metrics: None,
    };
    let service = |name: &str, servers: Range<u32>| Service {
        name: name.to_owned(),
        fqdn: vec![Fqdn {
            name: format!("{name}.example.com.").parse().expect("a name"),
            zone: ZoneId(0),
        }],
        ttl: 30,
        port: NonZeroU16::MIN,
        redundancy_only: false,
        on_all_down: OnAllDown::Primary,
        max_answers: None,
        wan: Vec::new(),
        servers,
    };
    let mut lab = Lab {
        model: Model {
            settings,
            port_forward: None,
            zones: Vec::new(),
            wans: Vec::new(),
            services: vec![service("www", 1..1)],
            servers: Vec::new(),
            probes: Vec::new(),
            webhooks: Vec::new(),
        },
        last: None,
    };
    // Others' servers and links, which must not matter.
    lab.push_server(
        "192.0.2.99",
        Priority::Tier(Tier::Primary),
        Site::Offsite,
        1,
    );
    lab.push_link();
    lab
}

/// The reference case.
pub(super) fn reference() -> Lab {
    lab()
        .wan(WAN1)
        .wan(WAN2)
        .server("192.168.10.10", Tier::Primary, Site::Onsite)
        .server("192.168.10.11", Tier::Backup, Site::Onsite)
        .server("192.0.2.200", Tier::Backup2, Site::Offsite)
}

impl Lab {
    pub(super) fn push_link(&mut self) -> WanId {
        let id = self.model.wans.len();
        self.model.wans.push(Wan {
            name: format!("wan{id}"),
            interface: None,
            targets: Vec::new(),
            min_up: 1,
        });
        WanId(id.try_into().expect("few links"))
    }

    pub(super) fn push_server(
        &mut self,
        address: &str,
        priority: Priority,
        site: Site,
        weight: u16,
    ) {
        self.model.servers.push(Server {
            name: format!("web{}", self.model.servers.len()),
            service: ServiceId(0),
            address: ip(address),
            port: NonZeroU16::MIN,
            priority,
            site,
            weight: NonZeroU16::new(weight).expect("a weight"),
            probes: Vec::new(),
        });
    }

    pub(super) fn service_mut(&mut self) -> &mut Service {
        &mut self.model.services[0]
    }

    /// One more WAN address, on a link of its own.
    pub(super) fn wan(self, address: &str) -> Self {
        self.weighted_wan(address, 1)
    }

    pub(super) fn weighted_wan(mut self, address: &str, weight: u16) -> Self {
        let wan = self.push_link();
        self.service_mut().wan.push(WanAddress {
            wan,
            address: ip(address),
            weight: NonZeroU16::new(weight).expect("a weight"),
        });
        self
    }

    /// One more WAN address on the link of the one before.
    pub(super) fn same_link(mut self, address: &str) -> Self {
        let last = self.service_mut().wan.last().expect("a WAN address");
        let wan = WanAddress {
            address: ip(address),
            ..last.clone()
        };
        self.service_mut().wan.push(wan);
        self
    }

    pub(super) fn server(self, address: &str, tier: Tier, site: Site) -> Self {
        self.weighted_server(address, Priority::Tier(tier), site, 1)
    }

    pub(super) fn disabled(self, address: &str, site: Site) -> Self {
        self.weighted_server(address, Priority::Disabled, site, 1)
    }

    pub(super) fn weighted_server(
        mut self,
        address: &str,
        priority: Priority,
        site: Site,
        weight: u16,
    ) -> Self {
        self.push_server(address, priority, site, weight);
        self.service_mut().servers.end += 1;
        self
    }

    pub(super) fn redundancy_only(mut self) -> Self {
        self.service_mut().redundancy_only = true;
        self
    }

    pub(super) fn on_all_down(mut self, on_all_down: OnAllDown) -> Self {
        self.service_mut().on_all_down = on_all_down;
        self
    }

    pub(super) fn last(mut self, addresses: &[&str]) -> Self {
        let weighted = addresses.iter().map(|address| Weighted {
            address: ip(address),
            weight: NonZeroU16::MIN,
        });
        self.last = Some(Answer::merged(weighted));
        self
    }

    pub(super) fn service(&self) -> &Service {
        &self.model.services[0]
    }

    pub(super) fn decide(&self, states: &States) -> Decision {
        decide(
            self.service(),
            &self.model,
            states.view(),
            self.last.as_ref(),
        )
    }

    pub(super) fn explain(&self, states: &States) -> Explanation {
        explain(
            self.service(),
            &self.model,
            states.view(),
            self.last.as_ref(),
        )
    }

    /// With these states of its links and of its servers, the service is answered so.
    #[track_caller]
    pub(super) fn check(&self, wans: &str, servers: &str, want: &str) {
        let states = States::new(wans, servers);
        let decision = self.decide(&states);
        assert_eq!(
            shown(&decision),
            want,
            "wans {wans:?}, servers {servers:?}\n{}",
            self.explain(&states)
        );
    }
}

/// Effective states of the whole model.
#[derive(Clone, Debug)]
pub(super) struct States {
    pub(super) wans: Vec<Effective>,
    pub(super) servers: Vec<Effective>,
}

impl States {
    /// Those of the lab's own links and servers, one letter each: `u`p, `d`own, d`r`ained,
    /// in `m`aintenance, `?`. The others' are up.
    pub(super) fn new(wans: &str, servers: &str) -> Self {
        let states = |letters: &str| {
            let own = letters.chars().map(|letter| match letter {
                'u' => Effective::Up,
                'd' => Effective::Down,
                'r' => Effective::Drain,
                'm' => Effective::Maint,
                '?' => Effective::Unknown,
                other => panic!("no state: {other}"),
            });
            std::iter::once(Effective::Up).chain(own).collect()
        };
        Self {
            wans: states(wans),
            servers: states(servers),
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            servers: &self.servers,
            wans: &self.wans,
        }
    }
}

pub(super) fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// `REASON: ADDRESS…`, an address with another weight than 1 as `ADDRESS*WEIGHT`.
pub(super) fn shown(decision: &Decision) -> String {
    let mut shown = match decision.reason {
        Reason::Tier(tier) => tier.to_string(),
        Reason::AllDown(Fallback::FailOpen(tier)) => format!("open {tier}"),
        Reason::AllDown(fallback) => format!("{fallback:?}").to_lowercase(),
    };
    match &decision.answer {
        Answer::Addresses(addresses) => {
            shown.push(':');
            for Weighted { address, weight } in addresses {
                shown += &match weight.get() {
                    1 => format!(" {address}"),
                    weight => format!(" {address}*{weight}"),
                };
            }
        }
        Answer::Empty => shown += ", no address",
        Answer::Servfail => shown += ", error",
    }
    shown
}
