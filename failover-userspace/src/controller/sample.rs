//! What the core shows of itself to a scrape: numbers, in parts as the status.

use std::sync::Arc;

use failover_common::counters::{Counters, ServiceHits};
use jiff::Timestamp;

use super::core::{Core, Subjects};
use crate::metrics::{
    AnswerSample, Health, Heard, Overview, ServerSample, ServiceSample, TargetSample, WanSample,
};
use crate::model::{Model, ProbeId, ServerId, ServiceId, WanId};
use crate::policy::Reason;

/// A part of the numbers.
#[derive(Clone, Debug)]
pub struct MetricsPart {
    /// What the services and servers are those of.
    pub model: Arc<Model>,
    /// What there is once; only in the first part.
    pub overview: Option<Overview>,
    /// Some services.
    pub services: Vec<ServiceSample>,
    /// Their servers.
    pub servers: Vec<ServerSample>,
    /// Where the next part begins.
    pub next: Option<usize>,
}

impl Core {
    /// The numbers of services from the index `from` on.
    ///
    /// # Errors
    ///
    /// As `hits`.
    pub fn metrics<E>(
        &self,
        from: usize,
        hits: impl Fn(ServiceId) -> Result<ServiceHits, E>,
    ) -> Result<MetricsPart, E> {
        let (ids, next) = self.part(from);
        let mut part = MetricsPart {
            model: Arc::clone(&self.model),
            overview: None,
            services: Vec::new(),
            servers: Vec::new(),
            next,
        };
        for id in ids {
            part.services.push(ServiceSample {
                answer: self.answer_sample(id),
                hits: hits(id)?,
            });
            let servers = self.model.service(id).server_ids();
            part.servers
                .extend(servers.map(|server| self.server_sample(server)));
        }
        Ok(part)
    }

    /// What there is once.
    #[must_use]
    pub fn overview(&self, counters: Counters, slow_path: Vec<(&'static str, u64)>) -> Overview {
        let interfaces = self.interfaces.iter();
        let wans = (0..).map(WanId).take(self.model.wans.len());
        Overview {
            generation: self.generation,
            interfaces: interfaces
                .map(|interface| (interface.name.clone(), interface.mode))
                .collect(),
            wans: wans.map(|id| self.wan_sample(id)).collect(),
            outcomes: self.outcomes.clone(),
            counters,
            slow_path,
        }
    }

    fn answer_sample(&self, id: ServiceId) -> Option<AnswerSample> {
        let decision = self.services[id.index()].decision.as_ref()?;
        Some(AnswerSample {
            tier: match decision.reason {
                Reason::Tier(tier) => Some(tier),
                Reason::AllDown(_) => None,
            },
            addresses: decision.answer.addresses().len(),
        })
    }

    fn server_sample(&self, id: ServerId) -> ServerSample {
        let health = health(&self.servers, id.index());
        let probes = self.model.server(id).probes.iter();
        let heard = probes.map(|probe| self.last(*probe).into()).min();
        ServerSample {
            health,
            heard: if_checked(health, heard),
        }
    }

    fn wan_sample(&self, id: WanId) -> WanSample {
        let health = health(&self.wans, id.index());
        let targets = self.model.wan(id).targets.iter();
        let targets = targets.map(|target| TargetSample {
            verdict: self.probes[target.probe.index()].machine.verdict(),
            heard: if_checked(health, Some(self.last(target.probe).into())),
        });
        WanSample {
            health,
            carrier: self.carriers[id.index()],
            targets: targets.collect(),
        }
    }

    fn last(&self, probe: ProbeId) -> Option<Timestamp> {
        self.probes[probe.index()].last
    }
}

fn health(subjects: &Subjects, index: usize) -> Health {
    Health {
        verdict: subjects.verdict[index],
        admin: subjects.admin[index].state,
        effective: subjects.effective[index],
    }
}

/// Equal checks of others may run all the same.
fn if_checked(health: Health, heard: Option<Heard>) -> Heard {
    heard
        .filter(|_| health.admin.is_checked())
        .unwrap_or(Heard::NotChecked)
}
