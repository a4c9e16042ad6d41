//! What every service answers now.

use std::sync::Arc;

use crate::model::{Generation, ServiceId, ZoneId};
use crate::wire::{AddressAnswer, Change, Family};

/// Services per chunk: a publication copies the chunks it changes and the list of chunks.
const CHUNK: usize = 1024;

/// The answers of all services in one generation. Immutable; the next one shares what did
/// not change, so that making it costs about as much as the change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: Generation,
    chunks: Vec<Arc<Vec<Option<Arc<Answers>>>>>,
    /// The first snapshot of the model.
    first: Generation,
    /// By zone the generation that last changed an answer in it; [`Snapshot::first`] beyond.
    changed: Arc<Vec<Generation>>,
}

/// What one service answers.
#[derive(Clone, Debug)]
struct Answers {
    a: AddressAnswer,
    aaaa: AddressAnswer,
}

impl Snapshot {
    /// The first snapshot of a model.
    #[must_use]
    pub fn new(generation: Generation, changes: &[Change]) -> Self {
        let first = Self {
            first: generation,
            ..Self::default()
        };
        first.next(generation, changes, &[])
    }

    /// The snapshot after this one, of the same model; `zones` are those of the services that
    /// change.
    #[must_use]
    pub fn next(&self, generation: Generation, changes: &[Change], zones: &[ZoneId]) -> Self {
        let mut next = Self {
            generation,
            ..self.clone()
        };
        if let Some(most) = zones.iter().max() {
            let changed = Arc::make_mut(&mut next.changed);
            if changed.len() <= most.index() {
                changed.resize(most.index() + 1, self.first);
            }
            for zone in zones {
                changed[zone.index()] = generation;
            }
        }
        for change in changes {
            let (chunk, place) = place(change.service);
            if next.chunks.len() <= chunk {
                next.chunks.resize_with(chunk + 1, Arc::default);
            }
            let chunk = Arc::make_mut(&mut next.chunks[chunk]);
            if chunk.len() <= place {
                chunk.resize(place + 1, None);
            }
            chunk[place] = Some(Arc::new(Answers {
                a: change.a.clone(),
                aaaa: change.aaaa.clone(),
            }));
        }
        next
    }

    /// Its number.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The generation that last changed an answer in a zone.
    #[must_use]
    pub fn changed(&self, zone: ZoneId) -> Generation {
        self.changed
            .get(zone.index())
            .copied()
            .unwrap_or(self.first)
    }

    /// What a service answers to one type; `None`: it was never published.
    #[must_use]
    pub fn answer(&self, service: ServiceId, family: Family) -> Option<&AddressAnswer> {
        let (chunk, place) = place(service);
        let answers = self.chunks.get(chunk)?.get(place)?.as_ref()?;
        Some(match family {
            Family::V4 => &answers.a,
            Family::V6 => &answers.aaaa,
        })
    }
}

const fn place(service: ServiceId) -> (usize, usize) {
    (service.index() / CHUNK, service.index() % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_never_changes() {
        let change = |service, a| Change {
            service: ServiceId(service),
            a,
            aaaa: AddressAnswer::NoData,
        };
        let first = Snapshot::new(
            Generation(1),
            &[
                change(0, AddressAnswer::NoData),
                change(5000, AddressAnswer::NoData),
            ],
        );
        let second = first.next(
            Generation(2),
            &[change(5000, AddressAnswer::Servfail)],
            &[ZoneId(1)],
        );
        let rows = [
            (&first, 0, Some(&AddressAnswer::NoData)),
            (&first, 5000, Some(&AddressAnswer::NoData)),
            (&second, 0, Some(&AddressAnswer::NoData)),
            (&second, 5000, Some(&AddressAnswer::Servfail)),
            (&second, 1, None),
            (&second, 4999, None),
            (&second, 9999, None),
        ];
        for (snapshot, service, want) in rows {
            let found = snapshot.answer(ServiceId(service), Family::V4);
            assert_eq!(found, want, "{service} in {}", snapshot.generation());
        }
        for (snapshot, zone, want) in [
            (&first, 1, 1),
            (&second, 0, 1),
            (&second, 1, 2),
            (&second, 2, 1),
        ] {
            assert_eq!(
                snapshot.changed(ZoneId(zone)),
                Generation(want),
                "zone {zone}"
            );
        }
        assert!(Arc::ptr_eq(&first.chunks[0], &second.chunks[0]));
    }
}
