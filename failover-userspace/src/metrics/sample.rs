//! What only the controller knows, as it was when a scrape asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use failover_common::counters::{Counters, ServiceHits};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::controller::{Asked, MetricsPart, Query};
use crate::dataplane::{AttachedMode, Generation};
use crate::health::{AdminState, Carrier, Effective, Verdict};
use crate::model::{Model, Tier};

/// How often the configuration may change while the parts are collected.
const ATTEMPTS: usize = 3;

/// What there is once, not for each service.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The published generation.
    pub generation: Generation,
    /// The interfaces of the configuration, and how the program is attached.
    pub interfaces: Vec<(String, Option<AttachedMode>)>,
    /// Each of [`Model::wans`].
    pub wans: Vec<WanSample>,
    /// Probes by kind and outcome.
    pub outcomes: BTreeMap<(&'static str, &'static str), u64>,
    /// Of the XDP program.
    pub counters: Counters,
    /// Of user space, by name.
    pub slow_path: Vec<(&'static str, u64)>,
}

/// One WAN link.
#[derive(Clone, Debug)]
pub struct WanSample {
    /// What is said about it.
    pub health: Health,
    /// `None`: not known yet.
    pub carrier: Option<Carrier>,
    /// Each of its targets.
    pub targets: Vec<TargetSample>,
}

/// One target of a WAN link.
#[derive(Clone, Copy, Debug)]
pub struct TargetSample {
    /// What its probe says.
    pub verdict: Verdict,
    /// When it was last heard of.
    pub heard: Heard,
}

/// One server.
#[derive(Clone, Copy, Debug)]
pub struct ServerSample {
    /// What is said about it.
    pub health: Health,
    /// When it was last heard of; of several checks, the one for which that is longest ago.
    pub heard: Heard,
}

/// What is said about a server or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// By its checks.
    pub verdict: Verdict,
    /// By the operator.
    pub admin: AdminState,
    /// What follows.
    pub effective: Effective,
}

/// When the last result of a probe came; later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// There is no check, or the operator has it rest.
    NotChecked,
    /// There has been none yet.
    Never,
    /// Then.
    At(Timestamp),
}

impl From<Option<Timestamp>> for Heard {
    fn from(last: Option<Timestamp>) -> Self {
        last.map_or(Self::Never, Self::At)
    }
}

/// One service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSample {
    /// What is answered; `None`: nothing has been decided yet.
    pub answer: Option<AnswerSample>,
    /// Answers of the XDP program.
    pub hits: ServiceHits,
}

/// What is answered for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSample {
    /// The highest tier with a candidate; `None`: all are down.
    pub tier: Option<Tier>,
    /// How many addresses there are.
    pub addresses: usize,
}

/// All parts of one configuration.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// What the others are indices of.
    pub(super) model: Arc<Model>,
    pub(super) overview: Overview,
    /// Each of [`Model::services`].
    pub(super) services: Vec<ServiceSample>,
    /// The servers of the first service, those of the second, and so on.
    pub(super) servers: Vec<ServerSample>,
}

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The configuration has changed between two parts.
    Changed,
    /// A part did not come in time, or cannot.
    NoAnswer,
}

impl Sample {
    /// Asks the controller for one part after the other; between them it does its work. `None`:
    /// one of them does not come within `patience`.
    pub(super) async fn collect(queries: &mpsc::Sender<Asked>, patience: Duration) -> Option<Self> {
        for _ in 0..ATTEMPTS {
            match Self::try_collect(queries, patience).await {
                Ok(sample) => return Some(sample),
                Err(Missing::NoAnswer) => return None,
                Err(Missing::Changed) => {}
            }
        }
        debug!("the configuration changes faster than it can be listed");
        None
    }

    async fn try_collect(
        queries: &mpsc::Sender<Asked>,
        patience: Duration,
    ) -> Result<Self, Missing> {
        let first = ask(queries, patience, 0).await?;
        let mut sample = Self {
            overview: first.overview.ok_or(Missing::NoAnswer)?,
            services: first.services,
            servers: first.servers,
            model: first.model,
        };
        let mut next = first.next;
        while let Some(from) = next {
            let mut part = ask(queries, patience, from).await?;
            if !Arc::ptr_eq(&part.model, &sample.model) {
                return Err(Missing::Changed);
            }
            sample.services.append(&mut part.services);
            sample.servers.append(&mut part.servers);
            next = part.next;
        }
        Ok(sample)
    }
}

async fn ask(
    queries: &mpsc::Sender<Asked>,
    patience: Duration,
    from: usize,
) -> Result<MetricsPart, Missing> {
    let asking = async {
        let (sender, receiver) = oneshot::channel();
        let query = Query::Metrics(from, sender);
        queries.send(Asked::of_any(query)).await.ok()?;
        receiver.await.ok()
    };
    match timeout(patience, asking).await {
        Ok(Some(Ok(part))) => return Ok(part),
        Ok(Some(Err(error))) => warn!(%error, "metrics: the counters cannot be read"),
        Ok(None) => debug!("metrics: the controller has ended"),
        Err(_) => warn!(?patience, "metrics: the controller does not answer"),
    }
    Err(Missing::NoAnswer)
}
