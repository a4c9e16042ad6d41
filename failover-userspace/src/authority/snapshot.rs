//! What every service answers now.

use std::sync::Arc;

use crate::model::{Content, Generation, Model, ServiceId, ServiceZones, Succession, ZoneId};
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

    /// The first snapshot of a model that follows another one. Of zones that some earlier
    /// generation has changed last, `changed` has it.
    #[must_use]
    pub fn succeeding(
        generation: Generation,
        changes: &[Change],
        changed: &[Option<Generation>],
    ) -> Self {
        let changed = changed.iter().map(|changed| changed.unwrap_or(generation));
        Self {
            changed: Arc::new(changed.collect()),
            ..Self::new(generation, changes)
        }
    }

    /// What the first publication of another model, `changes`, leaves as it is: of each of its
    /// zones the generation that changed it last, or `None` if this publication does.
    #[must_use]
    pub fn unchanged(
        &self,
        model: &Model,
        succession: &Succession,
        changes: &[Change],
    ) -> Vec<Option<Generation>> {
        let is_same = |change: &&Change| {
            let parent = succession.services.get(change.service.index());
            let parent = parent.copied().flatten();
            parent.is_some_and(|parent| {
                self.answer(parent, Family::V4) == Some(&change.a)
                    && self.answer(parent, Family::V6) == Some(&change.aaaa)
            })
        };
        let other = changes.iter().filter(|change| !is_same(change));
        let touched = ServiceZones::new(model).of(other.map(|change| change.service));
        let zones = (0..).map(ZoneId).zip(&succession.zones);
        zones
            .map(|(zone, parent)| match parent {
                Some((parent, Content::Same)) if touched.binary_search(&zone).is_err() => {
                    Some(self.changed(*parent))
                }
                _ => None,
            })
            .collect()
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
    use crate::controller::testing::edited;
    use crate::model::compare;

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

    /// example.com with `www`, example.org with `mail`; of the new model, in the other order.
    #[test]
    fn a_zone_is_changed_by_what_it_says() {
        const SERVICES: &str = "[[service]]\nname = \"mail\"\nfqdn = [\"imap.example.org\"]\nport = 80\n\
            [[service.server]]\nname = \"m\"\naddress = \"192.0.2.201\"\noffsite = true\n\
            priority = \"primary\"\n[[service]]\nname = \"www\"";
        let both = [
            ("$ORIGIN example.com.\n", ""),
            (
                "[check]",
                "[[zone]]\nname = \"example.org\"\nfile = \"example.com.zone\"\n[check]",
            ),
        ];
        let old = edited(&[&both[..], &[("[[service]]\nname = \"www\"", SERVICES)]].concat());
        let change = |service, a| Change {
            service: ServiceId(service),
            a,
            aaaa: AddressAnswer::NoData,
        };
        let (same, other) = (AddressAnswer::NoData, AddressAnswer::Servfail);
        let snapshot = Snapshot::new(
            Generation(1),
            &[change(0, same.clone()), change(1, same.clone())],
        )
        .next(Generation(2), &[change(1, same.clone())], &[ZoneId(0)]);
        // (edits, answers of mail and www, the generations of example.com and example.org)
        let [com, org] = [2, 1].map(|n| Some(Generation(n)));
        for (edit, mail, www, want) in [
            (("rise = 2", "rise = 3"), &same, &same, [com, org]),
            (("rise = 2", "rise = 3"), &same, &other, [None, org]),
            (("rise = 2", "rise = 3"), &other, &same, [com, None]),
            (
                ("\"www.example.com\"", "\"web.example.com\""),
                &same,
                &same,
                [None, org],
            ),
            (
                ("imap.example.org", "imap.example.com"),
                &same,
                &same,
                [None, None],
            ),
            // Both have the same file.
            (
                ("198.51.100.140", "198.51.100.141"),
                &same,
                &same,
                [None, None],
            ),
        ] {
            let edits = [
                &both[..],
                &[("[[service]]\nname = \"www\"", SERVICES), edit],
            ]
            .concat();
            let new = edited(&edits);
            let (_, succession) = compare(&old, &new);
            let changes = [change(0, mail.clone()), change(1, www.clone())];
            let found = snapshot.unchanged(&new, &succession, &changes);
            assert_eq!(found, want, "{edit:?}");
            let next = Snapshot::succeeding(Generation(7), &changes, &found);
            let changed = [0, 1].map(|zone| next.changed(ZoneId(zone)));
            assert_eq!(changed, want.map(|kept| kept.unwrap_or(Generation(7))));
            assert_eq!(next.answer(ServiceId(1), Family::V4), Some(www));
        }
    }
}
