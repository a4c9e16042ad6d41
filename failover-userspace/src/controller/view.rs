//! What the core shows of itself.
//!
//! A million services take a while to list. So they are listed in parts, between which the
//! controller does its work.

use std::net::{IpAddr, SocketAddr};

use failover_common::counters::{Counters, ServiceHits};

use super::core::{Core, ProbeState};
use crate::dataplane::named_counters;
use crate::model::{ProbeId, ServerId, ServiceId, Site, Tier, WanId};
use crate::policy::{self, Answer, Destination, Reason};
use crate::protocol::{
    CheckStatus, Explain, ExplainForward, ExplainWan, InterfaceStatus, PacketCounters,
    PortForwardStatus, ServerStatus, ServiceStats, ServiceStatus, Stats, Status, TargetStatus,
    WanStatus,
};

/// Services in one part.
const PART: usize = 1024;

/// A part of the status: everything but the services, and some of those.
#[derive(Clone, Debug)]
pub struct Part {
    /// The part.
    pub status: Status,
    /// Where the next part begins.
    pub next: Option<usize>,
}

/// What a service answers, and why, in words.
pub(super) struct Answered {
    pub(super) tier: Option<Tier>,
    pub(super) reason: String,
    pub(super) answer: Vec<IpAddr>,
    pub(super) rcode: String,
}

/// A part of the counters.
#[derive(Clone, Debug)]
pub struct StatsPart {
    /// The part.
    pub stats: Stats,
    /// Where the next part begins.
    pub next: Option<usize>,
}

impl Core {
    /// The status, with services from the index `from` on.
    #[must_use]
    pub fn status(&self, from: usize, counters: &Counters, slow_path: u64) -> Part {
        let settings = &self.model.settings;
        let listen = settings.listen.iter();
        let (services, next) = self.part(from);
        let status = Status {
            generation: self.generation,
            listen: listen
                .map(|address| SocketAddr::new(*address, settings.port.get()))
                .collect(),
            interfaces: self.interface_status(),
            services: services.map(|id| self.service_status(id)).collect(),
            wans: (0..)
                .map(WanId)
                .take(self.model.wans.len())
                .map(|id| self.wan_status(id))
                .collect(),
            counters: packet_counters(counters, slow_path),
            // The shell knows.
            port_forward: PortForwardStatus::default(),
        };
        Part { status, next }
    }

    /// Why a service is answered as it is.
    #[must_use]
    pub fn explain(&self, name: String, id: ServiceId) -> Explain {
        let service = self.model.service(id);
        let state = &self.services[id.index()];
        let explanation = policy::explain(service, &self.model, self.view(), state.last.as_ref());
        let wans = service.wan.iter().zip(explanation.wans);
        let forward = state.forward.as_ref();
        let destination = |to: &Destination| ExplainForward {
            tier: to.tier,
            servers: to
                .servers
                .iter()
                .map(|id| self.model.server(*id).name.clone())
                .collect(),
        };
        Explain {
            forward_v4: forward.and_then(|forward| forward.v4.as_ref().map(destination)),
            forward_v6: forward.and_then(|forward| forward.v6.as_ref().map(destination)),
            name,
            service: self.service_status(id),
            wans: wans
                .map(|(wan, explained)| ExplainWan {
                    address: wan.address,
                    standing: explained.standing,
                    link: self.wan_status(wan.wan),
                })
                .collect(),
            standings: explanation
                .servers
                .iter()
                .map(|server| server.standing)
                .collect(),
            published: state.decision.is_some() && !state.unpublished,
            interfaces: self.interface_status(),
        }
    }

    /// The counters, with services from the index `from` on.
    ///
    /// # Errors
    ///
    /// As `hits`.
    pub fn stats<E>(
        &self,
        from: usize,
        counters: &Counters,
        hits: impl Fn(ServiceId) -> Result<ServiceHits, E>,
    ) -> Result<StatsPart, E> {
        let (services, next) = self.part(from);
        let services = services.map(|id| {
            let hits = hits(id)?;
            Ok(ServiceStats {
                name: self.model.service(id).name.clone(),
                a: hits.a,
                aaaa: hits.aaaa,
            })
        });
        let mut stats = Stats {
            generation: self.generation,
            services: services.collect::<Result<_, E>>()?,
            ..Stats::default()
        };
        for (name, count) in named_counters(counters) {
            stats.counters.insert(name.to_owned(), count);
        }
        for ((kind, outcome), count) in &self.outcomes {
            let outcomes = stats.probes.entry((*kind).to_owned()).or_default();
            outcomes.insert((*outcome).to_owned(), *count);
        }
        Ok(StatsPart { stats, next })
    }

    pub(super) fn part(
        &self,
        from: usize,
    ) -> (impl Iterator<Item = ServiceId> + use<>, Option<usize>) {
        let len = self.services.len();
        let end = from.saturating_add(PART).min(len);
        let ids = (0..).map(ServiceId).take(end).skip(from);
        (ids, (end < len).then_some(end))
    }

    fn interface_status(&self) -> Vec<InterfaceStatus> {
        let interfaces = self.interfaces.iter();
        let status = interfaces.map(|interface| InterfaceStatus {
            name: interface.name.clone(),
            xdp: interface.mode.into(),
        });
        status.collect()
    }

    pub(super) fn answered(&self, id: ServiceId) -> Answered {
        let decision = self.services[id.index()].decision.as_ref();
        let addresses = decision.map_or(&[][..], |decision| decision.answer.addresses());
        let servfail = decision.is_some_and(|decision| decision.answer == Answer::Servfail);
        Answered {
            tier: decision.and_then(|decision| match decision.reason {
                Reason::Tier(tier) => Some(tier),
                Reason::AllDown(_) => None,
            }),
            reason: decision.map_or_else(
                || "nothing has been published yet".to_owned(),
                |decision| decision.reason.to_string(),
            ),
            answer: addresses.iter().map(|weighted| weighted.address).collect(),
            rcode: if servfail { "SERVFAIL" } else { "NOERROR" }.to_owned(),
        }
    }

    fn service_status(&self, id: ServiceId) -> ServiceStatus {
        let service = self.model.service(id);
        let state = &self.services[id.index()];
        let Answered {
            tier,
            reason,
            answer,
            rcode,
        } = self.answered(id);
        ServiceStatus {
            name: service.name.clone(),
            fqdn: service
                .fqdn
                .iter()
                .map(|fqdn| fqdn.name.to_string())
                .collect(),
            tier,
            reason,
            answer,
            rcode,
            ttl: service.ttl,
            since: state.since,
            generation: state.generation,
            servers: service
                .server_ids()
                .map(|id| self.server_status(id))
                .collect(),
        }
    }

    fn server_status(&self, id: ServerId) -> ServerStatus {
        let server = self.model.server(id);
        let at = id.index();
        let checks: Vec<CheckStatus> = server.probes.iter().map(|id| self.check(*id)).collect();
        ServerStatus {
            name: server.name.clone(),
            address: server.address,
            port: server.port,
            priority: server.priority,
            offsite: server.site == Site::Offsite,
            verdict: self.servers.verdict[at],
            admin: self.servers.admin[at].clone(),
            effective: self.servers.effective[at],
            since: self.servers.since[at],
            last_error: self.server_error(id),
            rtt_us: checks.iter().filter_map(|check| check.rtt_us).max(),
            checks,
        }
    }

    /// Why the server's last probe failed; with several checks, which one.
    fn server_error(&self, id: ServerId) -> Option<String> {
        let failing = self.failing(id)?;
        let error = self.probe(failing).error()?;
        Some(match self.model.server(id).probes.as_slice() {
            [_] => error,
            _ => format!("{}: {error}", self.model.probe(failing).target),
        })
    }

    fn check(&self, id: ProbeId) -> CheckStatus {
        let probe = self.probe(id);
        let last_error = probe.last_error.as_ref();
        CheckStatus {
            check: self.model.probe(id).target.to_string(),
            verdict: probe.machine.verdict(),
            last_error: probe.error(),
            reason: last_error.map(|error| error.label().to_owned()),
            rtt_us: probe.rtt_us(),
        }
    }

    fn wan_status(&self, id: WanId) -> WanStatus {
        let wan = self.model.wan(id);
        let at = id.index();
        let targets = wan.targets.iter().map(|target| {
            let probe = self.probe(target.probe);
            TargetStatus {
                target: target.label.clone(),
                verdict: probe.machine.verdict(),
                last_error: probe.error(),
                rtt_us: probe.rtt_us(),
            }
        });
        WanStatus {
            name: wan.name.clone(),
            verdict: self.wans.verdict[at],
            admin: self.wans.admin[at].clone(),
            effective: self.wans.effective[at],
            since: self.wans.since[at],
            interface: wan.interface.clone(),
            carrier: self.carriers[at],
            min_up: wan.min_up,
            targets: targets.collect(),
        }
    }

    fn probe(&self, id: ProbeId) -> &ProbeState {
        &self.probes[id.index()]
    }
}

impl ProbeState {
    fn error(&self) -> Option<String> {
        self.last_error.as_ref().map(ToString::to_string)
    }

    fn rtt_us(&self) -> Option<u64> {
        self.rtt
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX))
    }
}

fn packet_counters(counters: &Counters, slow_path: u64) -> PacketCounters {
    let (answered, passed) = (counters.total_answered(), counters.total_passed());
    PacketCounters {
        rx: answered + passed,
        answered,
        passed,
        slow_path,
    }
}
