//! What the XDP program is to know of our zones: every name, and what is answered there, as
//! far as that never changes or changes with a service alone.
//!
//! Static replies are made by the slow path itself, so that they are the same. What depends
//! on more than one service, or is too large, or is made from a wildcard with static records,
//! is left to user space.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use domain::base::iana::Rtype;
use failover_common::layout::Node;
use failover_common::question;

use super::lookup::{Place, Zones, wildcard};
use super::query::{HEADER_LEN, Query, Question, Soundness};
use super::reply::{OptSettings, Reply};
use super::resolve::Resolver;
use super::snapshot::Snapshot;
use super::{Authority, CLASS_IN, Origin, Transport, respond};
use crate::model::{Name, Rrset, ServiceId, Zone, ZoneId, suffixes};
use crate::wire::StaticReply;

/// Most static replies that are given to the program, half a kibibyte each.
const MOST_REPLIES: usize = 1 << 17;
/// Types that are asked of an alias and answered by what it leads to.
const ALIAS_TYPES: [Rtype; 3] = [Rtype::A, Rtype::AAAA, Rtype::HTTPS];

/// All names that the program is to know.
#[derive(Debug)]
pub struct Directory {
    /// No name twice; with every name all its ancestors but the root.
    pub entries: Vec<Entry>,
    /// Zones with a wildcard of a service alone.
    pub wildcard_zones: HashSet<ZoneId>,
}

/// One name.
#[derive(Debug)]
pub struct Entry {
    /// The name, lower-cased.
    pub name: Name,
    /// The zone that answers for it.
    pub zone: ZoneId,
    /// Whose addresses it has.
    pub service: Option<ServiceId>,
    /// What else there is; `None`: a name of a service and nothing else.
    pub more: Option<Box<More>>,
}

/// What there is at a name and below it besides a service's addresses.
#[derive(Debug)]
pub struct More {
    /// Replies by type, at most [`Node::TYPES`]; `None`: user space answers.
    pub replies: Vec<(Rtype, Option<StaticReply>)>,
    /// What answers other types.
    pub otherwise: Otherwise,
    /// What answers names below it that do not exist.
    pub below: Below,
}

/// What answers types that a name does not have.
#[derive(Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// NODATA.
    NoData,
    /// User space.
    Pass,
    /// The same for all of them: an alias that leads out of our zones.
    Reply(StaticReply),
}

/// What answers names that do not exist below a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// NXDOMAIN.
    Nothing,
    /// User space.
    Pass,
    /// The service of the wildcard.
    Service(ServiceId),
}

impl More {
    /// User space answers everything.
    const fn pass() -> Self {
        Self {
            replies: Vec::new(),
            otherwise: Otherwise::Pass,
            below: Below::Pass,
        }
    }

    fn is_plain(&self) -> bool {
        self.replies.is_empty()
            && self.otherwise == Otherwise::NoData
            && self.below == Below::Nothing
    }
}

impl Authority {
    /// What the XDP program is to know.
    #[must_use]
    pub fn directory(&self) -> Directory {
        let mut maker = Maker {
            authority: self,
            wildcards: HashSet::new(),
            odd: HashSet::new(),
            twins: HashSet::new(),
            seen: HashSet::new(),
            replies: 0,
            directory: Directory {
                entries: Vec::new(),
                wildcard_zones: HashSet::new(),
            },
        };
        maker.survey();
        for (id, zone) in self.zones.all() {
            for name in zone.records.names() {
                maker.add(id, zone, name);
            }
            maker.add(id, zone, zone.name.as_octets());
        }
        for name in self.zones.overlaid() {
            if let Some(zone) = self.zones.zone(name, Rtype::A) {
                maker.add(self.zones.id(zone), zone, name);
            }
        }
        maker.add_ancestors();
        maker.directory
    }

    /// The reply to one name and type, unless it may change with a publication.
    fn static_reply(&self, name: &Name, qtype: Rtype) -> Option<StaticReply> {
        let octets = [
            name.as_slice(),
            &qtype.to_int().to_be_bytes(),
            &CLASS_IN.to_be_bytes(),
        ]
        .concat();
        let query = Query {
            id: [0; 2],
            opcode: 0,
            recursion_desired: false,
            question: Some(Question {
                octets: &octets,
                name: name.clone(),
                lower: name.clone(),
                qtype,
                qclass: CLASS_IN,
            }),
            edns: None,
            soundness: Soundness::Sound,
        };
        // Without a limit of size.
        let origin = Origin {
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            transport: Transport::Tcp {
                idle: Duration::ZERO,
            },
            time: 0,
        };
        let opt = OptSettings {
            udp_size: 0,
            nsid: None,
            cookies: None,
        };
        let changing = Cell::new(false);
        let resolver = Resolver {
            zones: &self.zones,
            snapshot: &Snapshot::default(),
            turn: 0,
            changing: Some(&changing),
        };
        let mut reply = Reply::new(&query, &opt, &origin);
        let rcode = respond(resolver, &query, &mut reply);
        let reply = reply.finish(rcode);
        let word = |at: usize| u16::from_be_bytes([reply[at], reply[at + 1]]);
        let reply = StaticReply {
            flags: word(2),
            counts: [6, 8, 10].map(word),
            octets: reply[HEADER_LEN + octets.len()..].to_vec(),
        };
        (!changing.get() && reply.is_small()).then_some(reply)
    }
}

/// Makes a [`Directory`].
struct Maker<'a> {
    authority: &'a Authority,
    /// Names with a wildcard below them.
    wildcards: HashSet<&'a [u8]>,
    /// Names with a name below them that the program cannot hold.
    odd: HashSet<&'a [u8]>,
    /// See [`twins`].
    twins: HashSet<&'a [u8]>,
    seen: HashSet<Bytes>,
    /// How many static replies there are.
    replies: usize,
    directory: Directory,
}

impl<'a> Maker<'a> {
    const fn zones(&self) -> &'a Zones {
        &self.authority.zones
    }

    /// Looks for names that say something about those above them.
    fn survey(&mut self) {
        let zones = self.zones();
        let names = || {
            let records = zones.all().flat_map(|(_, zone)| zone.records.names());
            records.chain(zones.overlaid()).map(|name| &name[..])
        };
        let apexes = zones.all().map(|(_, zone)| zone.name.as_slice());
        self.twins = twins(names().chain(apexes.flat_map(suffixes)));
        for name in names() {
            let parent = suffixes(name).nth(1).unwrap_or_default();
            if name.starts_with(b"\x01*") {
                self.wildcards.insert(parent);
            }
            if self.is_odd(name) {
                self.odd.insert(parent);
            }
        }
    }

    /// Whether the program cannot hold a name: it takes zero octets for the end of a name, and cannot
    /// tell twins apart.
    fn is_odd(&self, name: &[u8]) -> bool {
        let is_twin = || suffixes(name).any(|suffix| self.twins.contains(suffix));
        name.iter().rev().skip(1).any(|octet| *octet == 0) || !self.twins.is_empty() && is_twin()
    }

    /// Adds a name of a zone, if that zone answers for it.
    fn add(&mut self, id: ZoneId, zone: &'a Zone, octets: &Bytes) {
        let zones = self.zones();
        if self.is_odd(octets) || self.seen.contains(octets) {
            return;
        }
        let Ok(name) = Name::from_octets(octets.clone()) else {
            return;
        };
        let closest = zones.zone(octets, Rtype::A).map(|zone| zones.id(zone));
        if closest != Some(id) {
            return;
        }
        let (service, more) = match zones.find(zone, octets, Rtype::A) {
            Place::Node(node) => (node.service, self.more(zone, &name, node.rrsets())),
            Place::Delegation { cut, .. } if cut.len() == octets.len() => (None, More::pass()),
            // Hidden below a cut or a DNAME.
            Place::Delegation { .. } | Place::Dname { .. } | Place::Nothing => return,
        };
        if let Below::Service(_) = more.below {
            self.directory.wildcard_zones.insert(id);
        }
        let is_plain = service.is_some() && more.is_plain();
        self.seen.insert(octets.clone());
        self.directory.entries.push(Entry {
            name,
            zone: id,
            service,
            more: (!is_plain).then(|| Box::new(more)),
        });
    }

    fn more(&mut self, zone: &'a Zone, name: &Name, rrsets: &[Rrset]) -> More {
        let types = rrsets.iter().map(|rrset| rrset.rtype);
        let mut more = More {
            replies: Vec::new(),
            otherwise: Otherwise::NoData,
            below: self.below(zone, name),
        };
        if types.clone().any(|rtype| rtype == Rtype::CNAME) {
            more.otherwise = self.alias_otherwise(name);
            let asked = match more.otherwise {
                Otherwise::Reply(_) => &[][..],
                _ => &ALIAS_TYPES,
            };
            let asked = asked.iter().copied().chain([Rtype::CNAME]);
            self.add_replies(&mut more, name, asked);
        } else {
            // Another zone may have to say what is above this one.
            let ds = (name.len() == zone.name.len()).then_some(Rtype::DS);
            let types = types.filter(|rtype| *rtype != Rtype::DS || ds.is_none());
            more.replies.extend(ds.map(|ds| (ds, None)));
            self.add_replies(&mut more, name, types.clone());
            if more.replies.len() > Node::TYPES {
                more.replies.truncate(Node::TYPES);
                more.otherwise = Otherwise::Pass;
            }
        }
        more
    }

    fn add_replies(&mut self, more: &mut More, name: &Name, types: impl Iterator<Item = Rtype>) {
        for rtype in types {
            let has_room = self.replies < MOST_REPLIES && more.replies.len() < Node::TYPES;
            let reply = if has_room {
                self.authority.static_reply(name, rtype)
            } else {
                None
            };
            self.replies += usize::from(reply.is_some());
            more.replies.push((rtype, reply));
        }
    }

    /// What answers the less usual types at an alias: all alike, if it leads out of our zones.
    fn alias_otherwise(&mut self, name: &Name) -> Otherwise {
        // Two types that nothing has.
        let [one, other] = [65_280, 65_281].map(|rtype| {
            let reply = self.authority.static_reply(name, Rtype::from_int(rtype));
            // In our zones the way would end with a SOA or go on.
            reply.filter(|reply| reply.flags & 0xf == 0 && is_lone_alias(reply))
        });
        match (one, other) {
            (Some(one), Some(other)) if one == other && self.replies < MOST_REPLIES => {
                self.replies += 1;
                Otherwise::Reply(one)
            }
            _ => Otherwise::Pass,
        }
    }

    fn below(&self, zone: &Zone, name: &Name) -> Below {
        let octets = name.as_slice();
        if zone.records.rrset(octets, Rtype::DNAME).is_some() || self.odd.contains(octets) {
            return Below::Pass;
        }
        if !self.wildcards.contains(octets) {
            return Below::Nothing;
        }
        match self.zones().node(zone, &wildcard(octets)) {
            Some(node) if node.rrsets().is_empty() => {
                node.service.map_or(Below::Pass, Below::Service)
            }
            Some(_) => Below::Pass,
            None => Below::Nothing,
        }
    }

    /// Adds the names above our zones and between them, which are for user space.
    fn add_ancestors(&mut self) {
        for (id, zone) in self.zones().all() {
            for ancestor in suffixes(zone.name.as_octets()).skip(1) {
                let octets = Bytes::copy_from_slice(ancestor);
                if ancestor.len() == 1 || self.is_odd(ancestor) || !self.seen.insert(octets.clone())
                {
                    continue;
                }
                self.directory
                    .entries
                    .extend(Name::from_octets(octets).ok().map(|name| Entry {
                        name,
                        zone: id,
                        service: None,
                        more: Some(Box::new(More::pass())),
                    }));
            }
        }
    }
}

/// Of names that have the same hash, whatever its multipliers, all but one: the hash leaves out the bit
/// of case in all octets, also in those that are no letters. Hardly any names are like that.
fn twins<'a>(names: impl Iterator<Item = &'a [u8]>) -> HashSet<&'a [u8]> {
    let multipliers = question::multipliers(0);
    let mut hashed: Vec<_> = names
        .filter_map(|name| {
            let (words, used) = question::words(name)?;
            Some((question::hash(&multipliers, &words[..used]), name))
        })
        .collect();
    hashed.sort_unstable();
    let pairs = hashed.array_windows();
    pairs
        .filter(|[(hash, name), (next_hash, next)]| hash == next_hash && name != next)
        .map(|[_, (_, next)]| *next)
        .collect()
}

/// Whether a reply has aliases and nothing else.
fn is_lone_alias(reply: &StaticReply) -> bool {
    let [answers, authorities, additionals] = reply.counts;
    answers > 0 && authorities == 0 && additionals == 0
}
