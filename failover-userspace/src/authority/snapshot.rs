//! What every service answers now.

use std::sync::Arc;

use crate::model::{Generation, ServiceId};
use crate::wire::{AddressAnswer, Change, Family};

/// Services per chunk: a publication copies the chunks it changes and the list of chunks.
const CHUNK: usize = 1024;

/// The answers of all services in one generation. Immutable; the next one shares what did
/// not change, so that making it costs about as much as the change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: Generation,
    chunks: Vec<Arc<Vec<Option<Arc<Answers>>>>>,
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
        Self::default().next(generation, changes)
    }

    /// The snapshot after this one, of the same model.
    #[must_use]
    pub fn next(&self, generation: Generation, changes: &[Change]) -> Self {
        let mut next = Self {
            generation,
            chunks: self.chunks.clone(),
        };
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
        let second = first.next(Generation(2), &[change(5000, AddressAnswer::Servfail)]);
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
        assert!(Arc::ptr_eq(&first.chunks[0], &second.chunks[0]));
    }
}
