//! The writer of the maps: whole snapshots, each with its generation.
//!
//! Nothing outside this module writes a map that the XDP program reads. The rule that keeps
//! replies whole is in [`failover_common::layout`].

use std::collections::HashMap;
use std::mem::offset_of;

use failover_common::LAYOUT_VERSION;
use failover_common::layout::{
    Cell, LargeAnswer, NO_ADDRESSES, NO_TAIL, NameSlot, Node, SmallAnswer, State, Tail, ZoneSlot,
};
use failover_common::question::MAX_NAME_LEN;

use super::Error;
use super::grace::Grace;
use super::mapped::Mapped;
use super::names::{Names, Target};
use super::pool::Pool;
use super::services::{Missing, Services};
use crate::authority::{Below, Directory, Entry, More, Otherwise};
use crate::model::{Generation, Model, SerialPolicy, ServiceId, ServiceZones, Zone, ZoneId};
use crate::wire::{self, AddressAnswer, AuthorityTail, Change, StaticReply, TailSums};

/// All maps of the program but the counters.
pub(super) struct Tables {
    pub state: Mapped<State>,
    pub names: Names,
    pub nodes: Pool<Node>,
    pub zones: Mapped<ZoneSlot>,
    pub services: Services,
    pub small: Pool<SmallAnswer>,
    pub large: Pool<LargeAnswer>,
    pub tails: Pool<Tail>,
    pub grace: Grace,
    /// Answers that every service shares and that are never given back.
    pub shared: Option<SharedAnswers>,
    /// What was published last of the model: zones, and which services lie in which.
    pub published: Published,
    pub generation: Generation,
}

/// A publication that is written and not visible yet.
#[must_use = "it is not visible before it is committed"]
pub struct Staged {
    generation: Generation,
    /// Indices of the answers that it replaces.
    answers: Vec<u32>,
    /// Those of the denials.
    denials: Vec<u32>,
    /// The services that it changes, and what of their answers is not yet where it should be.
    services: Vec<(u32, Missing)>,
}

/// What denials are made of.
#[derive(Default)]
pub(super) struct Published {
    zones: Vec<Zone>,
    service_zones: ServiceZones,
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
    /// Writes the names of a model, its zones and its static replies, none of which can be seen
    /// before the first publication. For fresh maps only, and once: after an error they are of
    /// no further use.
    pub(super) fn fill(&mut self, model: &Model, directory: &Directory) -> Result<(), Error> {
        self.state
            .publish(0, offset_of!(State, layout), u64::from(LAYOUT_VERSION));
        self.tails.put_run(&[Tail::EMPTY])?;
        self.put_zones(model, directory)?;
        let mut tails = TailsByLength::default();
        for entry in &directory.entries {
            let (tail, sums) = match entry.service {
                Some(_) => {
                    let (index, sums) = tails.get(model, entry, &mut self.tails)?;
                    (index, sums.with(&entry.name))
                }
                None => (NO_TAIL, [0; 3]),
            };
            let target = match (&entry.more, entry.service) {
                (None, Some(service)) => service.0,
                (more, _) => NameSlot::NODE | self.put_node(entry, more.as_deref())?,
            };
            self.names
                .insert(&entry.name, Target { target, tail, sums })?;
        }
        self.published = Published {
            zones: model.zones.clone(),
            service_zones: ServiceZones::new(model),
        };
        Ok(())
    }

    /// Prepares the first publication after [`Tables::fill`], the one after `last`: the answers of
    /// all services, and the denials of all zones. Of those that some earlier generation has
    /// changed last, `changed` has it.
    pub(super) fn stage_all(
        &mut self,
        last: Generation,
        changes: &[Change],
        changed: &[Option<Generation>],
    ) -> Result<Staged, Error> {
        self.generation = last;
        let zones: Vec<_> = (0..)
            .map(ZoneId)
            .take(self.published.zones.len())
            .map(|zone| (zone, changed.get(zone.index()).copied().flatten()))
            .collect();
        self.stage(changes, &zones)
    }

    /// Zones without denials, and tails for the names that are made from wildcards.
    fn put_zones(&mut self, model: &Model, directory: &Directory) -> Result<(), Error> {
        let edns_udp_size = model.settings.edns_udp_size;
        for (zone, id) in model.zones.iter().zip((0..).map(ZoneId)) {
            let mut slot = ZoneSlot::default();
            if directory.wildcard_zones.contains(&id) {
                let tails: Vec<Tail> = (0..=MAX_NAME_LEN)
                    .map(|len| len.max(zone.name.len()))
                    .map(|len| AuthorityTail::positive(zone, len).encode(id, edns_udp_size))
                    .collect();
                slot.tails = self.tails.put_run(&tails)?;
            }
            self.zones.write(id.0, &slot);
        }
        Ok(())
    }

    fn put_node(&mut self, entry: &Entry, more: Option<&More>) -> Result<u32, Error> {
        let mut node = Node {
            service: entry.service.map_or(Node::NONE, |service| service.0),
            zone: entry.zone.0,
            otherwise: Node::DENY,
            below: Node::DENY,
            types: [0; Node::TYPES],
            replies: [Node::PASS; Node::TYPES],
        };
        if let Some(more) = more {
            let mut put = |reply: &StaticReply| self.tails.put(&reply.encode(entry.zone));
            for (place, (rtype, reply)) in more.replies.iter().enumerate() {
                node.types[place] = rtype.to_int();
                if let Some(reply) = reply {
                    node.replies[place] = put(reply)?;
                }
            }
            node.otherwise = match &more.otherwise {
                Otherwise::NoData => Node::DENY,
                Otherwise::Pass => Node::PASS,
                Otherwise::Reply(reply) => put(reply)?,
            };
            node.below = match more.below {
                Below::Nothing => Node::DENY,
                Below::Pass => Node::PASS,
                Below::Service(service) => service.0,
            };
        }
        self.nodes.put(&node)
    }

    /// Publishes changed answers in one step; all others stay as they are. A service is
    /// changed at most once: the second change would overwrite what readers use.
    ///
    /// After an error nothing has changed for any reader.
    pub(super) fn publish(&mut self, changes: &[Change]) -> Result<Generation, Error> {
        let services = changes.iter().map(|change| change.service);
        let mut zones = self.published.service_zones.of(services);
        zones.retain(|zone| self.published.zones[zone.index()].serial == SerialPolicy::Auto);
        let zones: Vec<_> = zones.into_iter().map(|zone| (zone, None)).collect();
        let staged = self.stage(changes, &zones)?;
        Ok(self.commit(staged))
    }

    /// Writes changed answers and new denials of these zones where no reader looks yet.
    ///
    /// After an error nothing has changed for any reader.
    fn stage(
        &mut self,
        changes: &[Change],
        zones: &[(ZoneId, Option<Generation>)],
    ) -> Result<Staged, Error> {
        let generation = self.generation.next();
        let shared = self.shared_answers(generation)?;
        self.reserve(changes)?;
        self.tails.reserve(zones.len(), &self.grace)?;
        debug_assert!(
            changes
                .iter()
                .map(|change| change.service)
                .collect::<std::collections::HashSet<_>>()
                .len()
                == changes.len(),
            "a service changed twice in one publication"
        );
        let mut staged = Staged {
            generation,
            answers: Vec::new(),
            denials: Vec::new(),
            services: Vec::with_capacity(changes.len()),
        };
        let over = self.grace.over();
        self.services.catch_up(over);
        for change in changes {
            let a = self.put_answer(&change.a, shared, generation)?;
            let aaaa = self.put_answer(&change.aaaa, shared, generation)?;
            let pointers = [a, aaaa].map(|index| Cell::version(generation.0, index));
            let (replaced, missing) = self.services.put(change, pointers, over);
            let replaced = replaced.into_iter().filter_map(index_of);
            staged
                .answers
                .extend(replaced.filter(|index| !shared.contains(*index)));
            staged.services.push((change.service.0, missing));
        }
        for (id, changed) in zones {
            let zone = &self.published.zones[id.index()];
            let serial = zone.serial_after(changed.unwrap_or(generation));
            let index = self.tails.put(&wire::denial(*id, zone, serial))?;
            let (place, current) = turn_over(self.zones.read(id.0).denial);
            self.zones.publish(
                id.0,
                offset_of!(ZoneSlot, denial) + place * size_of::<u64>(),
                Cell::version(generation.0, index),
            );
            staged.denials.extend(current);
        }
        Ok(staged)
    }

    /// Makes all of it visible at once.
    pub(super) fn commit(&mut self, staged: Staged) -> Generation {
        let Staged {
            generation,
            answers,
            denials,
            services,
        } = staged;
        self.state
            .publish(0, offset_of!(State, generation), generation.0);
        self.generation = generation;
        let ticket = self.grace.start();
        for index in answers {
            if index & Cell::LARGE == 0 {
                self.small.retire(index, ticket);
            } else {
                self.large.retire(index & !Cell::LARGE, ticket);
            }
        }
        for index in denials {
            self.tails.retire(index, ticket);
        }
        for (service, missing) in services {
            self.services.published(service, ticket, missing);
        }
        generation
    }

    /// Nothing is answered any more: all packets are passed, for good.
    pub(super) fn withdraw(&mut self) {
        self.state.publish(0, offset_of!(State, generation), 0);
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
            // The first of all: [`NO_ADDRESSES`].
            no_data: self
                .small
                .put(&AddressAnswer::NoData.encode(generation.0))?,
            servfail: self
                .small
                .put(&AddressAnswer::Servfail.encode(generation.0))?,
        };
        debug_assert_eq!(shared.no_data, NO_ADDRESSES);
        self.shared = Some(shared);
        Ok(shared)
    }

    /// How many answers of a service lie beside the pointers to them.
    pub(super) fn inline_answers(&self, service: ServiceId) -> usize {
        self.services.inline_answers(service.0)
    }

    /// See [`State::time`].
    pub(super) fn time(&self) -> u32 {
        self.state.read(0).time as u32
    }

    /// Vouches for the snapshot until `valid_until`, see [`State::valid_until`], at `time`, see
    /// [`State::time`], and makes up for what the last publications were too fast for.
    pub(super) fn beat(&mut self, valid_until: u64, time: u32) {
        self.services.catch_up(self.grace.over());
        self.state
            .publish(0, offset_of!(State, time), u64::from(time));
        self.state
            .publish(0, offset_of!(State, valid_until), valid_until);
    }
}

/// Which version the next one goes over, and the index of the current one.
fn turn_over(cell: Cell) -> (usize, Option<u32>) {
    let [first, second] = cell.versions;
    let older = usize::from(second < first);
    (older, index_of(first.max(second)))
}

/// The index in a version, if it is one.
fn index_of(version: u64) -> Option<u32> {
    (version != 0).then(|| Cell::index(version))
}

/// Tails of names by their zone and length.
#[derive(Default)]
struct TailsByLength(HashMap<(ZoneId, usize), (u32, TailSums)>);

impl TailsByLength {
    fn get(
        &mut self,
        model: &Model,
        entry: &Entry,
        pool: &mut Pool<Tail>,
    ) -> Result<(u32, TailSums), Error> {
        let (zone, len) = (entry.zone, entry.name.len());
        if let Some(tail) = self.0.get(&(zone, len)) {
            return Ok(*tail);
        }
        let tail = AuthorityTail::positive(model.zone(zone), len)
            .encode(zone, model.settings.edns_udp_size);
        let tail = (pool.put(&tail)?, TailSums::new(len, &tail));
        self.0.insert((zone, len), tail);
        Ok(tail)
    }
}

const fn is_records(answer: &AddressAnswer) -> bool {
    matches!(answer, AddressAnswer::Records(_))
}
