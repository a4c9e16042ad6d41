//! Counters that go on from one data plane to the next.

use std::sync::Arc;

use failover_common::counters::{Counters, ServiceHits};

use crate::dataplane::{DataPlane, Error, Meters, Readings};
use crate::model::ServiceId;

/// What the data planes before this one have counted.
#[derive(Default)]
pub(super) struct Tally {
    /// Those that are gone; answers by service of the model.
    past: Readings,
    /// One that may still be counting.
    retiring: Option<Retiring>,
}

struct Retiring {
    meters: Arc<Meters>,
    /// Its service for each of the model's.
    services: Vec<Option<ServiceId>>,
}

impl Tally {
    /// All of them and `current` together.
    pub(super) fn counters(&self, current: Option<&DataPlane>) -> Result<Counters, Error> {
        let mut total = self.past.counters;
        if let Some(retiring) = &self.retiring {
            total.add(&retiring.meters.counters()?);
        }
        if let Some(current) = current {
            total.add(&current.counters()?);
        }
        Ok(total)
    }

    /// The same for one service.
    pub(super) fn service_hits(
        &self,
        current: Option<&DataPlane>,
        service: ServiceId,
    ) -> Result<ServiceHits, Error> {
        let past = self.past.hits.get(service.index());
        let mut total = past.copied().unwrap_or_default();
        if let Some(retiring) = &self.retiring
            && let Some(Some(service)) = retiring.services.get(service.index())
        {
            total.add(&retiring.meters.service_hits(*service)?);
        }
        if let Some(current) = current {
            total.add(&current.service_hits(service)?);
        }
        Ok(total)
    }

    /// Another data plane counts from now on, for another model; of each of its services
    /// `services` has what it was before.
    pub(super) fn succeed(&mut self, old: Option<&DataPlane>, services: &[Option<ServiceId>]) {
        self.past.hits = by_service(&self.past.hits, services);
        self.retiring = old.map(|old| Retiring {
            meters: Arc::clone(old.meters()),
            services: services.to_vec(),
        });
    }

    /// The old one has counted all that it ever will.
    pub(super) fn settle(&mut self, readings: &Readings) {
        let Some(retired) = self.retiring.take() else {
            return;
        };
        self.past.counters.add(&readings.counters);
        let hits = by_service(&readings.hits, &retired.services);
        self.past.hits.resize(hits.len(), ServiceHits::default());
        for (total, hits) in self.past.hits.iter_mut().zip(&hits) {
            total.add(hits);
        }
    }
}

/// Counts by what each service was before, as counts by service.
fn by_service(hits: &[ServiceHits], services: &[Option<ServiceId>]) -> Vec<ServiceHits> {
    let services = services.iter();
    services
        .map(|parent| {
            let hits = parent.and_then(|parent| hits.get(parent.index()));
            hits.copied().unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_their_services() {
        let hits = |a| ServiceHits { a, aaaa: 2 * a };
        let none = ServiceHits::default();
        let both = [hits(3), hits(5)];
        let [first, second] = [Some(ServiceId(0)), Some(ServiceId(1))];
        for (services, want) in [
            (&[first, second][..], &[hits(3), hits(5)][..]),
            (&[second, None, first], &[hits(5), none, hits(3)]),
            (&[None, Some(ServiceId(7))], &[none, none]),
            (&[], &[]),
        ] {
            assert_eq!(by_service(&both, services), want, "{services:?}");
        }
    }
}
