//! Which node of which zone a name leads to (RFC 1034 section 4.3.2, RFC 4592).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use domain::base::iana::Rtype;

use crate::model::{self, Model, Name, Rrset, ServiceId, Zone, ZoneId, suffixes};

/// The zones with the names of services laid over them.
#[derive(Debug)]
pub(super) struct Zones {
    zones: Vec<Zone>,
    /// Index of a zone by its apex.
    by_apex: HashMap<Bytes, usize>,
    services: HashMap<Bytes, ServiceId>,
    /// Names between a service's name and the apex of its zone: they exist, too.
    between: HashSet<Bytes>,
    /// By zone its names with records, in canonical order; none where nobody may transfer it.
    contents: Vec<Vec<Name>>,
}

/// What is at a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    /// What the zone file says.
    rrsets: &'a [Rrset],
    /// Whose addresses are at the name.
    pub(super) service: Option<ServiceId>,
}

/// Where a name leads inside a zone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a, 'n> {
    /// To this node: its own, or the wildcard it is made from.
    Node(Node<'a>),
    /// Out of the zone, at the cut with this name.
    Delegation { cut: &'n [u8], ns: &'a Rrset },
    /// To another tree, from the ancestor with this name.
    Dname { owner: &'n [u8], dname: &'a Rrset },
    /// Nowhere.
    Nothing,
}

impl<'a> Node<'a> {
    /// The static set of this type.
    pub(super) fn rrset(&self, rtype: Rtype) -> Option<&'a Rrset> {
        model::find(self.rrsets, rtype)
    }

    /// The static sets, in the order of their types.
    pub(super) const fn rrsets(&self) -> &'a [Rrset] {
        self.rrsets
    }
}

impl Zones {
    pub(super) fn new(model: &Model) -> Self {
        let by_apex = model
            .zones
            .iter()
            .enumerate()
            .map(|(index, zone)| (zone.name.as_octets().clone(), index))
            .collect();
        let mut services = HashMap::new();
        let mut between = HashSet::new();
        for (service, id) in model.services.iter().zip(0..) {
            for fqdn in &service.fqdn {
                let name = fqdn.name.as_octets();
                let apex_len = model.zone(fqdn.zone).name.len();
                for ancestor in suffixes(name)
                    .skip(1)
                    .take_while(|ancestor| ancestor.len() > apex_len)
                {
                    if between.contains(ancestor) {
                        break;
                    }
                    between.insert(name.slice_ref(ancestor));
                }
                services.insert(name.clone(), ServiceId(id));
            }
        }
        Self {
            zones: model.zones.clone(),
            by_apex,
            services,
            between,
            contents: contents(model),
        }
    }

    /// All zones with their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = (ZoneId, &Zone)> {
        (0..).map(ZoneId).zip(&self.zones)
    }

    /// Names of services and all names between them and their zones.
    pub(super) fn overlaid(&self) -> impl Iterator<Item = &Bytes> {
        self.services.keys().chain(&self.between)
    }

    /// The zone with this apex, lower-cased.
    pub(super) fn at_apex(&self, name: &[u8]) -> Option<ZoneId> {
        self.by_apex.get(name).map(|index| ZoneId(*index as u32))
    }

    /// The zone with this id.
    pub(super) fn by_id(&self, id: ZoneId) -> Option<&Zone> {
        self.zones.get(id.index())
    }

    /// The names of a zone that somebody may transfer.
    ///
    /// They are all names of its file, glue and what a delegation hides among them (RFC 5936
    /// section 3.5), and those of the services that have no closer zone.
    pub(super) fn contents(&self, zone: ZoneId) -> &[Name] {
        self.contents.get(zone.index()).map_or(&[], Vec::as_slice)
    }

    /// The zone that answers for a lower-cased name: the closest, but for DS, which belongs
    /// to the parent's side of a cut (RFC 4035 section 3.1.4.1).
    pub(super) fn zone(&self, name: &[u8], qtype: Rtype) -> Option<&Zone> {
        let mut zones =
            suffixes(name).filter_map(|suffix| self.zones.get(*self.by_apex.get(suffix)?));
        let closest = zones.next()?;
        if qtype == Rtype::DS && closest.name.len() == name.len() {
            return zones.next().or(Some(closest));
        }
        Some(closest)
    }

    /// The id of one of these zones.
    pub(super) fn id(&self, zone: &Zone) -> ZoneId {
        let index = self.by_apex.get(zone.name.as_slice());
        ZoneId(index.map_or(0, |index| *index as u32))
    }

    /// What is at a name, wildcards and cuts apart.
    pub(super) fn node<'a>(&'a self, zone: &'a Zone, name: &[u8]) -> Option<Node<'a>> {
        let rrsets = zone.records.node(name);
        let service = self.services.get(name).copied();
        let exists = rrsets.is_some()
            || service.is_some()
            || self.between.contains(name)
            || name.len() == zone.name.len();
        exists.then(|| Node {
            rrsets: rrsets.unwrap_or_default(),
            service,
        })
    }

    /// Where a lower-cased name of the zone leads.
    pub(super) fn find<'a, 'n>(
        &'a self,
        zone: &'a Zone,
        name: &'n [u8],
        qtype: Rtype,
    ) -> Place<'a, 'n> {
        // A name has at most 127 labels.
        let mut path = [&name[..0]; 128];
        let mut depth = 0;
        for suffix in suffixes(name).take_while(|suffix| suffix.len() > zone.name.len()) {
            if let Some(place) = path.get_mut(depth) {
                *place = suffix;
                depth += 1;
            }
        }
        let mut encloser = &name[name.len().saturating_sub(zone.name.len())..];
        for &suffix in path[..depth].iter().rev() {
            if let Some(dname) = zone.records.rrset(encloser, Rtype::DNAME) {
                return Place::Dname {
                    owner: encloser,
                    dname,
                };
            }
            let Some(node) = self.node(zone, suffix) else {
                return match self.node(zone, &wildcard(encloser)) {
                    Some(node) => Place::Node(node),
                    None => Place::Nothing,
                };
            };
            if let Some(ns) = node.rrset(Rtype::NS)
                && (suffix.len() < name.len() || qtype != Rtype::DS)
            {
                return Place::Delegation { cut: suffix, ns };
            }
            encloser = suffix;
        }
        self.node(zone, name).map_or(Place::Nothing, Place::Node)
    }
}

/// See [`Zones::contents`].
fn contents(model: &Model) -> Vec<Vec<Name>> {
    let is_transferred = |zone: &Zone| !zone.allow_transfer.is_empty();
    let mut contents: Vec<Vec<Name>> = model
        .zones
        .iter()
        .map(|zone| {
            let names = is_transferred(zone).then(|| static_names(zone));
            names.into_iter().flatten().collect()
        })
        .collect();
    for fqdn in model.services.iter().flat_map(|service| &service.fqdn) {
        if is_transferred(model.zone(fqdn.zone)) {
            contents[fqdn.zone.index()].push(fqdn.name.clone());
        }
    }
    for names in &mut contents {
        names.sort_unstable();
        names.dedup();
    }
    contents
}

/// The names of a zone's file that have records.
fn static_names(zone: &Zone) -> impl Iterator<Item = Name> {
    zone.records
        .names()
        .filter(|name| zone.records.node(name).is_some_and(|sets| !sets.is_empty()))
        .filter_map(|name| Name::from_octets(name.clone()).ok())
}

/// The name of the wildcard below an existing name (RFC 4592 section 3.3.1).
pub(super) fn wildcard(encloser: &[u8]) -> Vec<u8> {
    [b"\x01*", encloser].concat()
}
