//! The writer of the maps: whole snapshots, each with its generation.
//!
//! Nothing outside this module writes a map that the XDP program reads. The rule that keeps
//! replies whole is in [`failover_common::layout`].

use std::collections::HashMap;
use std::mem::offset_of;

use failover_common::LAYOUT_VERSION;
use failover_common::layout::{Cell, LargeAnswer, ServiceSlot, SmallAnswer, State, Tail};

use super::Error;
use super::grace::Grace;
use super::mapped::Mapped;
use super::names::{Names, Target};
use super::pool::Pool;
use crate::model::{Generation, Model, ZoneId};
use crate::wire::{AddressAnswer, AuthorityTail, Change, Family};

/// All maps of the program but the counters.
pub(super) struct Tables {
    pub state: Mapped<State>,
    pub names: Names,
    pub services: Mapped<ServiceSlot>,
    pub small: Pool<SmallAnswer>,
    pub large: Pool<LargeAnswer>,
    pub tails: Pool<Tail>,
    pub grace: Grace,
    /// Answers that every service shares and that are never given back.
    pub shared: Option<SharedAnswers>,
    pub generation: Generation,
}

/// Answers without addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedAnswers {
    no_data: u32,
    servfail: u32,
}

impl SharedAnswers {
    const fn contains(self, index: u32) -> bool {
        index == self.no_data || index == self.servfail
    }
}

impl Tables {
    /// Publishes the names of a model with the answers of all its services, in one step.
    /// For fresh maps only, and once: after an error they are of no further use.
    pub(super) fn publish_all(
        &mut self,
        model: &Model,
        changes: &[Change],
    ) -> Result<Generation, Error> {
        let generation = self.generation.next();
        self.state
            .publish(0, offset_of!(State, layout), u64::from(LAYOUT_VERSION));
        let mut tails: HashMap<(ZoneId, usize), u32> = HashMap::new();
        for (service, fqdn) in model
            .services
            .iter()
            .zip(0..)
            .flat_map(|(s, i)| s.fqdn.iter().map(move |f| (i, f)))
        {
            let key = (fqdn.zone, fqdn.name.len());
            let tail = match tails.get(&key) {
                Some(tail) => *tail,
                None => {
                    let tail = self.put_tails(model, fqdn.zone, fqdn.name.len())?;
                    tails.insert(key, tail);
                    tail
                }
            };
            self.names
                .insert(&fqdn.name, Target { service, tail }, generation.0)?;
        }
        self.publish(changes)
    }

    fn put_tails(&mut self, model: &Model, zone: ZoneId, name_len: usize) -> Result<u32, Error> {
        let zone = model.zone(zone);
        let positive = AuthorityTail::positive(zone, name_len);
        let serial = zone.serial_after(self.generation.next());
        let negative = AuthorityTail::negative(zone, name_len, serial);
        self.tails
            .put_pair([&positive.encode(), &negative.encode()])
    }

    /// Publishes changed answers in one step; all others stay as they are. A service is
    /// changed at most once: the second change would overwrite what readers use.
    ///
    /// After an error nothing has changed for any reader.
    pub(super) fn publish(&mut self, changes: &[Change]) -> Result<Generation, Error> {
        let generation = self.generation.next();
        let shared = self.shared_answers(generation)?;
        self.reserve(changes)?;
        debug_assert!(
            changes
                .iter()
                .map(|change| change.service)
                .collect::<std::collections::HashSet<_>>()
                .len()
                == changes.len(),
            "a service changed twice in one publication"
        );
        let mut replaced = Vec::new();
        for change in changes {
            let cells = self.services.read(change.service.0);
            for (family, answer, cell) in [
                (Family::V4, &change.a, cells.a),
                (Family::V6, &change.aaaa, cells.aaaa),
            ] {
                let index = self.put_answer(answer, shared, generation)?;
                let [first, second] = cell.versions;
                let older = usize::from(second < first);
                let current = first.max(second);
                self.services.publish(
                    change.service.0,
                    cell_offset(family) + older * size_of::<u64>(),
                    Cell::version(generation.0, index),
                );
                if current != 0 && !shared.contains(Cell::index(current)) {
                    replaced.push(Cell::index(current));
                }
            }
        }
        self.state
            .publish(0, offset_of!(State, generation), generation.0);
        self.generation = generation;
        let ticket = self.grace.start();
        for index in replaced {
            if index & Cell::LARGE == 0 {
                self.small.retire(index, ticket);
            } else {
                self.large.retire(index & !Cell::LARGE, ticket);
            }
        }
        Ok(generation)
    }

    /// Room for every answer of a publication, before any of it is written.
    fn reserve(&mut self, changes: &[Change]) -> Result<(), Error> {
        let answers = || {
            changes
                .iter()
                .flat_map(|change| [&change.a, &change.aaaa])
                .filter(|a| is_records(a))
        };
        self.small
            .reserve(answers().filter(|a| a.is_small()).count(), &self.grace)?;
        self.large
            .reserve(answers().filter(|a| !a.is_small()).count(), &self.grace)
    }

    fn put_answer(
        &mut self,
        answer: &AddressAnswer,
        shared: SharedAnswers,
        generation: Generation,
    ) -> Result<u32, Error> {
        match answer {
            AddressAnswer::NoData => Ok(shared.no_data),
            AddressAnswer::Servfail => Ok(shared.servfail),
            AddressAnswer::Records(_) if answer.is_small() => {
                self.small.put(&answer.encode(generation.0))
            }
            AddressAnswer::Records(_) => {
                Ok(self.large.put(&answer.encode(generation.0))? | Cell::LARGE)
            }
        }
    }

    fn shared_answers(&mut self, generation: Generation) -> Result<SharedAnswers, Error> {
        if let Some(shared) = self.shared {
            return Ok(shared);
        }
        let shared = SharedAnswers {
            no_data: self
                .small
                .put(&AddressAnswer::NoData.encode(generation.0))?,
            servfail: self
                .small
                .put(&AddressAnswer::Servfail.encode(generation.0))?,
        };
        self.shared = Some(shared);
        Ok(shared)
    }

    /// Vouches for the snapshot until `valid_until`, see [`State::valid_until`].
    pub(super) fn beat(&mut self, valid_until: u64) {
        self.state
            .publish(0, offset_of!(State, valid_until), valid_until);
    }
}

const fn is_records(answer: &AddressAnswer) -> bool {
    matches!(answer, AddressAnswer::Records(_))
}

const fn cell_offset(family: Family) -> usize {
    match family {
        Family::V4 => offset_of!(ServiceSlot, a),
        Family::V6 => offset_of!(ServiceSlot, aaaa),
    }
}
