//! From a question to the sets that answer it: RFC 1034 section 4.3.2, step by step, with
//! CNAME and DNAME followed as long as they stay in our zones.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;

use bytes::Bytes;
use domain::base::iana::Rtype;
use domain::base::rdata::RecordData as _;
use domain::rdata::{A, Aaaa, Cname, ZoneRecordData};

use super::lookup::{Node, Place, Zones};
use super::query::Question;
use super::reply::{Rcode, Set};
use super::snapshot::Snapshot;
use crate::model::{Name, RecordData, Rrset, SerialPolicy, ServiceId, Zone};
use crate::wire::{AddressAnswer, Family};

/// How many aliases are followed.
const MAX_ALIASES: usize = 16;

/// What a reply consists of.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) rcode: Rcode,
    /// Whether the first name of the answer is ours (RFC 1035 section 4.1.1, AA).
    pub(super) authoritative: bool,
    /// The aliases that were followed, then the answer.
    pub(super) answer: Vec<Set<'a>>,
    pub(super) end: End<'a>,
}

/// Where the way ended, and so what follows the answer.
#[derive(Debug)]
pub(super) enum End<'a> {
    /// At records: NS set and addresses.
    Positive(&'a Zone),
    /// At a name without such records, or at none: SOA.
    Negative(&'a Zone),
    /// At a cut: the child's NS set and glue.
    Referral {
        zone: &'a Zone,
        cut: Name,
        ns: &'a Rrset,
    },
    /// At the name of a service that was itself asked for.
    Service {
        zone: &'a Zone,
        answer: &'a AddressAnswer,
    },
    /// Outside, or nowhere.
    Nothing,
}

/// What answers depend on.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'a> {
    pub(super) zones: &'a Zones,
    pub(super) snapshot: &'a Snapshot,
    pub(super) turn: u64,
    /// Set when something was used that another snapshot may have otherwise.
    pub(super) changing: Option<&'a Cell<bool>>,
}

/// What a node answers.
enum Found<'a> {
    Static(&'a Rrset),
    Service(&'a AddressAnswer),
    Alias(&'a Rrset),
    NoData,
}

impl<'a> Resolver<'a> {
    pub(super) fn resolve(self, question: &'a Question<'_>) -> Outcome<'a> {
        let qtype = question.qtype;
        let mut outcome = Outcome {
            rcode: Rcode::NoError,
            authoritative: true,
            answer: Vec::new(),
            end: End::Nothing,
        };
        let mut owner = question.name.clone();
        let mut seen: Vec<Name> = Vec::new();
        loop {
            let name = if seen.is_empty() {
                question.lower.clone()
            } else {
                lower_cased(&owner)
            };
            let Some(zone) = self.zones.zone(name.as_slice(), qtype) else {
                if seen.is_empty() {
                    outcome.rcode = Rcode::Refused;
                    outcome.authoritative = false;
                }
                return outcome;
            };
            let is_first = seen.is_empty();
            // A loop, or too long a way: the client gets what there is so far.
            if seen.contains(&name) || seen.len() > MAX_ALIASES {
                return outcome;
            }
            seen.push(name.clone());
            let alias = match self.zones.find(zone, name.as_slice(), qtype) {
                Place::Nothing => {
                    outcome.rcode = Rcode::NxDomain;
                    outcome.end = End::Negative(zone);
                    return outcome;
                }
                Place::Delegation { cut, ns } => {
                    outcome.authoritative = !is_first;
                    let cut = owned(cut);
                    outcome.end = End::Referral { zone, cut, ns };
                    return outcome;
                }
                Place::Dname { owner: from, dname } => {
                    outcome.answer.push(set(owned(from), dname));
                    let Some(alias) = substitute(&owner, from, dname) else {
                        outcome.rcode = Rcode::YxDomain;
                        return outcome;
                    };
                    outcome.answer.push(Set {
                        owner: owner.clone(),
                        ttl: dname.ttl,
                        data: Cow::Owned(vec![ZoneRecordData::Cname(Cname::new(alias.clone()))]),
                    });
                    if is_about_aliases(qtype) {
                        outcome.end = End::Positive(zone);
                        return outcome;
                    }
                    alias
                }
                Place::Node(node) => match self.at(node, qtype) {
                    Found::Static(rrset) => {
                        outcome.answer.push(self.set_of(zone, owner, rrset));
                        outcome.end = End::Positive(zone);
                        return outcome;
                    }
                    Found::Service(answer) if is_first => {
                        outcome.end = End::Service { zone, answer };
                        return outcome;
                    }
                    Found::Service(answer) => {
                        match answer {
                            AddressAnswer::Records(_) => {
                                outcome.answer.extend(self.addresses(&owner, answer));
                                outcome.end = End::Positive(zone);
                            }
                            AddressAnswer::NoData => outcome.end = End::Negative(zone),
                            AddressAnswer::Servfail => return servfail(),
                        }
                        return outcome;
                    }
                    Found::Alias(cname) => {
                        outcome.answer.push(set(owner.clone(), cname));
                        let Some(ZoneRecordData::Cname(cname)) = cname.data.first() else {
                            return outcome;
                        };
                        cname.cname().clone()
                    }
                    Found::NoData => {
                        outcome.end = End::Negative(zone);
                        return outcome;
                    }
                },
            };
            owner = alias;
        }
    }

    /// What a node answers to a type.
    fn at(self, node: Node<'a>, qtype: Rtype) -> Found<'a> {
        if qtype == Rtype::ANY {
            return self.any(node);
        }
        if let Some(service) = node.service
            && let Some(family) = family(qtype)
        {
            return Found::Service(self.service(service, family));
        }
        if let Some(rrset) = node.rrset(qtype) {
            return Found::Static(rrset);
        }
        node.rrset(Rtype::CNAME).map_or(Found::NoData, Found::Alias)
    }

    /// One set, whichever (RFC 8482 section 4.1): addresses of a service before others.
    fn any(self, node: Node<'a>) -> Found<'a> {
        let answers: Vec<_> = node
            .service
            .into_iter()
            .flat_map(|service| Family::ALL.map(|family| self.service(service, family)))
            .collect();
        let has_records = |answer: &&AddressAnswer| matches!(answer, AddressAnswer::Records(_));
        if let Some(answer) = answers.iter().copied().find(has_records) {
            return Found::Service(answer);
        }
        let rest = node.rrsets().first().map(Found::Static);
        rest.or(answers.first().copied().map(Found::Service))
            .unwrap_or(Found::NoData)
    }

    /// A set of a zone's file; the SOA with the serial number of the snapshot.
    fn set_of(self, zone: &'a Zone, owner: Name, rrset: &'a Rrset) -> Set<'a> {
        match rrset.rtype {
            Rtype::SOA => Set {
                owner,
                ..self.soa(zone, rrset.ttl)
            },
            _ => set(owner, rrset),
        }
    }

    /// A zone's SOA record.
    pub(super) fn soa(self, zone: &Zone, ttl: u32) -> Set<'a> {
        Set {
            owner: zone.name.clone(),
            ttl,
            data: Cow::Owned(vec![zone.soa_data(self.serial(zone))]),
        }
    }

    /// A zone's serial number.
    pub(super) fn serial(self, zone: &Zone) -> u32 {
        if zone.serial == SerialPolicy::Auto {
            self.note_change();
        }
        zone.serial_after(self.snapshot.changed(self.zones.id(zone)))
    }

    fn note_change(self) {
        if let Some(changing) = self.changing {
            changing.set(true);
        }
    }

    /// What a service answers; SERVFAIL while the snapshot has nothing, which would be a
    /// mistake of ours.
    fn service(self, service: ServiceId, family: Family) -> &'a AddressAnswer {
        self.note_change();
        self.snapshot
            .answer(service, family)
            .unwrap_or(&AddressAnswer::Servfail)
    }

    /// The addresses of an answer as a set.
    fn addresses(self, owner: &Name, answer: &AddressAnswer) -> Option<Set<'a>> {
        let AddressAnswer::Records(records) = answer else {
            return None;
        };
        Some(address_set(
            owner.clone(),
            records.ttl(),
            records.addresses(self.turn),
        ))
    }

    /// What a zone has at a name of it, but for the SOA: static sets, and all addresses of
    /// the service, whatever its turn.
    pub(super) fn contents(self, zone: &'a Zone, name: &Name) -> Vec<Set<'a>> {
        let Some(node) = self.zones.node(zone, name.as_slice()) else {
            return Vec::new();
        };
        let fixed = node
            .rrsets()
            .iter()
            .filter(|rrset| rrset.rtype != Rtype::SOA)
            .map(|rrset| set(name.clone(), rrset));
        // At glue, a service of the child's zone does not belong to this one.
        let closest = self.zones.zone(name.as_slice(), Rtype::A);
        let service = node
            .service
            .filter(|_| closest.is_some_and(|closest| closest.name == zone.name));
        let answers = service.into_iter().flat_map(|service| {
            Family::ALL
                .into_iter()
                .filter_map(move |family| self.snapshot.answer(service, family))
        });
        let addresses = answers.filter_map(|answer| match answer {
            AddressAnswer::Records(records) => Some(address_set(
                name.clone(),
                records.ttl(),
                records.all_addresses(),
            )),
            AddressAnswer::NoData | AddressAnswer::Servfail => None,
        });
        fixed.chain(addresses).collect()
    }

    /// The service bindings at the target of one: the client needs them next, whether the first
    /// is an alias or not (RFC 9460 section 4.1). What is below a cut is not ours to give.
    pub(super) fn bindings_of(self, target: &Name, naming: &Set<'_>) -> Option<Set<'a>> {
        let rtype = naming
            .rtype()
            .filter(|rtype| matches!(*rtype, Rtype::SVCB | Rtype::HTTPS))?;
        let lower = lower_cased(target);
        let zone = self.zones.zone(lower.as_slice(), rtype)?;
        match self.zones.find(zone, lower.as_slice(), rtype) {
            Place::Node(node) => Some(set(target.clone(), node.rrset(rtype)?)),
            _ => None,
        }
    }

    /// The address sets at a name of our zones, glue included.
    pub(super) fn addresses_of(self, name: &Name) -> Vec<Set<'a>> {
        let lower = lower_cased(name);
        let Some(zone) = self.zones.zone(lower.as_slice(), Rtype::A) else {
            return Vec::new();
        };
        let Some(node) = self.zones.node(zone, lower.as_slice()) else {
            return Vec::new();
        };
        Family::ALL
            .into_iter()
            .filter_map(|family| match node.service {
                Some(service) => self.addresses(name, self.service(service, family)),
                None => {
                    let rtype = match family {
                        Family::V4 => Rtype::A,
                        Family::V6 => Rtype::AAAA,
                    };
                    node.rrset(rtype).map(|rrset| set(name.clone(), rrset))
                }
            })
            .collect()
    }
}

impl Set<'_> {
    pub(super) fn rtype(&self) -> Option<Rtype> {
        self.data.first().map(RecordData::rtype)
    }

    /// The hosts that the records name and whose addresses are wanted with them: RFC 1035
    /// section 3.3, RFC 2782, RFC 9460 section 4.1.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Name> {
        self.data.iter().filter_map(|data| match data {
            ZoneRecordData::Ns(ns) => Some(ns.nsdname()),
            ZoneRecordData::Mx(mx) => Some(mx.exchange()),
            ZoneRecordData::Srv(srv) => Some(srv.target()),
            // "." means the owner (RFC 9460 section 2.5.2).
            ZoneRecordData::Svcb(svcb) if svcb.target().is_root() => Some(&self.owner),
            ZoneRecordData::Https(https) if https.target().is_root() => Some(&self.owner),
            ZoneRecordData::Svcb(svcb) => Some(svcb.target()),
            ZoneRecordData::Https(https) => Some(https.target()),
            _ => None,
        })
    }
}

/// A set of a zone file at an owner.
pub(super) fn set(owner: Name, rrset: &Rrset) -> Set<'_> {
    Set {
        owner,
        ttl: rrset.ttl,
        data: Cow::Borrowed(&rrset.data),
    }
}

/// Addresses of one family as a set.
fn address_set<'a>(owner: Name, ttl: u32, addresses: impl Iterator<Item = IpAddr>) -> Set<'a> {
    let data = addresses.map(|address| match address {
        IpAddr::V4(address) => ZoneRecordData::A(A::new(address)),
        IpAddr::V6(address) => ZoneRecordData::Aaaa(Aaaa::new(address)),
    });
    Set {
        owner,
        ttl,
        data: Cow::Owned(data.collect()),
    }
}

const fn servfail<'a>() -> Outcome<'a> {
    Outcome {
        rcode: Rcode::ServFail,
        authoritative: false,
        answer: Vec::new(),
        end: End::Nothing,
    }
}

const fn family(qtype: Rtype) -> Option<Family> {
    match qtype {
        Rtype::A => Some(Family::V4),
        Rtype::AAAA => Some(Family::V6),
        _ => None,
    }
}

/// Whether the alias itself answers the question.
fn is_about_aliases(qtype: Rtype) -> bool {
    matches!(qtype, Rtype::CNAME | Rtype::ANY)
}

/// `name`, which ends in `from`, with the DNAME's target in its place (RFC 6672 section 2.3).
fn substitute(name: &Name, from: &[u8], dname: &Rrset) -> Option<Name> {
    let Some(ZoneRecordData::Dname(dname)) = dname.data.first() else {
        return None;
    };
    let kept = name.as_slice().len().checked_sub(from.len())?;
    let octets = [&name.as_slice()[..kept], dname.dname().as_slice()].concat();
    Name::from_octets(Bytes::from(octets)).ok()
}

/// `octets` are a name in wire format.
fn owned(octets: &[u8]) -> Name {
    Name::from_octets(Bytes::copy_from_slice(octets)).unwrap_or_else(|_| Name::root_bytes())
}

fn lower_cased(name: &Name) -> Name {
    // Length octets are at most 63, below 'A'.
    Name::from_octets(Bytes::from(name.as_slice().to_ascii_lowercase()))
        .unwrap_or_else(|_| Name::root_bytes())
}
