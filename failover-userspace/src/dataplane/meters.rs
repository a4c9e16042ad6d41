//! What the program counts.

use aya::maps::{Map, MapData, PerCpuArray};
use failover_common::counters::{Counters, ServiceHits};

use super::Error;
use crate::model::ServiceId;

/// [`Counters`] for aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCounters(Counters);
// SAFETY: `Counters` is `bytemuck::Pod`.
unsafe impl aya::Pod for PodCounters {}

/// [`ServiceHits`] for aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodHits(ServiceHits);
// SAFETY: `ServiceHits` is `bytemuck::Pod`.
unsafe impl aya::Pod for PodHits {}

/// The counters of one data plane.
pub struct Meters {
    counters: PerCpuArray<MapData, PodCounters>,
    hits: PerCpuArray<MapData, PodHits>,
    services: u32,
}

/// What a data plane has counted in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Packets.
    pub counters: Counters,
    /// Answers of each service.
    pub hits: Vec<ServiceHits>,
}

impl Meters {
    pub(super) fn new(counters: Map, hits: Map, services: u32) -> Result<Self, Error> {
        Ok(Self {
            counters: PerCpuArray::try_from(counters).map_err(|source| Error::Map {
                map: "COUNTERS",
                source,
            })?,
            hits: PerCpuArray::try_from(hits).map_err(|source| Error::Map {
                map: "SERVICE_HITS",
                source,
            })?,
            services,
        })
    }

    /// The program's counters, added up over all CPUs.
    pub fn counters(&self) -> Result<Counters, Error> {
        let values = self.counters.get(&0, 0).map_err(|source| Error::Map {
            map: "COUNTERS",
            source,
        })?;
        let mut total = Counters::default();
        for value in values.iter() {
            total.add(&value.0);
        }
        Ok(total)
    }

    /// How many queries each CPU answered for a service: A and AAAA, added up.
    pub fn service_hits(&self, service: ServiceId) -> Result<ServiceHits, Error> {
        let values = self.hits.get(&service.0, 0).map_err(|source| Error::Map {
            map: "SERVICE_HITS",
            source,
        })?;
        let mut total = ServiceHits::default();
        for value in values.iter() {
            total.add(&value.0);
        }
        Ok(total)
    }

    /// All of it.
    pub fn readings(&self) -> Result<Readings, Error> {
        let services = (0..self.services).map(ServiceId);
        Ok(Readings {
            counters: self.counters()?,
            hits: services
                .map(|service| self.service_hits(service))
                .collect::<Result<_, _>>()?,
        })
    }
}
