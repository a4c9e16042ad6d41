//! Names to ask about: those of the snapshot, what lies below and beside them, and elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use domain::base::name::FlattenInto as _;
use domain::base::{Name, Record};
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};
use failover::model::{Model, Zone};
use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;

use super::random::{octets, one_of, percent, weighted};
use super::snapshot::file;
use super::tally::Subject;

const NS: u16 = 2;
const CNAME: u16 = 5;
const DNAME: u16 = 39;
/// Longest name in wire format.
const NAME_LIMIT: usize = 255;
/// Most labels of a name, the root apart.
const LABEL_LIMIT: usize = 127;
/// More labels than names have that anybody chose.
const MANY_LABELS: usize = 12;

/// The labels of a name without the root, lower-cased.
type Labels = Vec<Vec<u8>>;
/// Names, each with the types of its records in the zone file.
type Found = BTreeMap<Labels, (Sort, Vec<u16>)>;

/// What a name of the snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Service,
    Static,
    EmptyNonTerminal,
    /// One of the many above a name of very many labels.
    DeepEmptyNonTerminal,
    Wildcard,
    /// A wildcard with the addresses of a service and nothing else.
    ServiceWildcard,
    Alias,
    Dname,
    Delegation,
}

/// How often names of each sort are chosen.
const SORTS: [(u32, Sort); 9] = [
    (10, Sort::Service),
    (6, Sort::Static),
    (2, Sort::EmptyNonTerminal),
    (1, Sort::DeepEmptyNonTerminal),
    (4, Sort::Wildcard),
    (3, Sort::ServiceWildcard),
    (2, Sort::Alias),
    (2, Sort::Dname),
    (2, Sort::Delegation),
];

/// A name of the snapshot.
#[derive(Clone, Debug)]
struct Existing {
    labels: Labels,
    /// The types of its records in the zone file.
    types: Vec<u16>,
}

/// A name to ask about.
pub(super) struct Asked {
    pub(super) subject: Subject,
    /// In wire format.
    pub(super) name: Vec<u8>,
    /// Types that are at the name, or would be at one it was made from.
    pub(super) types: Vec<u16>,
}

/// The names of the snapshot.
pub(super) struct Names {
    by_sort: BTreeMap<Sort, Vec<Existing>>,
    apexes: Vec<Labels>,
}

impl Names {
    pub(super) fn new(model: &Model) -> Self {
        let mut zones: Vec<_> = model.zones.iter().collect();
        // What is inside two zones belongs to the inner one.
        zones.sort_by_key(|zone| zone.name.len());
        let mut found = Found::new();
        for zone in &zones {
            found.extend(names_of(zone));
        }
        for service in &model.services {
            for fqdn in &service.fqdn {
                let name = labels(fqdn.name.as_slice());
                let (sort, types) = match found.remove(&name) {
                    Some((Sort::Wildcard, types)) => (Sort::Wildcard, types),
                    None if name[0] == b"*" => (Sort::ServiceWildcard, vec![]),
                    found => (Sort::Service, found.map_or(vec![], |(_, types)| types)),
                };
                found.insert(name.clone(), (sort, types));
                let apex = labels(model.zone(fqdn.zone).name.as_slice());
                add_between(&mut found, &name, &apex);
            }
        }
        let mut by_sort: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (labels, (sort, types)) in found {
            let name = Existing { labels, types };
            by_sort.entry(sort).or_default().push(name);
        }
        let apexes = zones.iter().map(|zone| labels(zone.name.as_slice()));
        Self {
            by_sort,
            apexes: apexes.collect(),
        }
    }

    /// Any name.
    pub(super) fn choose(&self, rng: &mut TestRng) -> Asked {
        type Way = fn(&Names, &mut TestRng) -> Asked;
        const WAYS: [(u32, Way); 5] = [
            (45, Names::at),
            (22, Names::below),
            (12, Names::beside),
            (14, Names::in_a_zone),
            (7, Names::elsewhere),
        ];
        let choose = weighted(rng, &WAYS);
        let mut asked = choose(self, rng);
        mix_case(rng, &mut asked.name);
        asked
    }

    fn existing(&self, rng: &mut TestRng) -> (Sort, &Existing) {
        let sort = *weighted(rng, &SORTS);
        (sort, one_of(rng, &self.by_sort[&sort]))
    }

    fn at(&self, rng: &mut TestRng) -> Asked {
        let (sort, existing) = self.existing(rng);
        Asked {
            subject: match sort {
                Sort::Service => Subject::Service,
                Sort::Static | Sort::Dname => Subject::Static,
                Sort::EmptyNonTerminal | Sort::DeepEmptyNonTerminal => Subject::EmptyNonTerminal,
                Sort::Wildcard => Subject::Wildcard,
                Sort::ServiceWildcard => Subject::Service,
                Sort::Alias => Subject::Alias,
                Sort::Delegation => Subject::Delegation,
            },
            name: wire(&existing.labels),
            types: existing.types.clone(),
        }
    }

    fn below(&self, rng: &mut TestRng) -> Asked {
        let (sort, existing) = self.existing(rng);
        let is_wildcard = matches!(sort, Sort::Wildcard | Sort::ServiceWildcard);
        let is_synthesized = is_wildcard && percent(rng, 80);
        let subject = match sort {
            Sort::Service => Subject::BelowService,
            Sort::Static | Sort::Alias => Subject::BelowStatic,
            Sort::EmptyNonTerminal | Sort::DeepEmptyNonTerminal => Subject::BelowEmptyNonTerminal,
            Sort::Wildcard if is_synthesized => Subject::BelowWildcard,
            Sort::ServiceWildcard if is_synthesized => Subject::BelowServiceWildcard,
            Sort::Wildcard | Sort::ServiceWildcard => Subject::BelowStatic,
            Sort::Dname => Subject::BelowDname,
            Sort::Delegation => Subject::Delegation,
        };
        // The wildcard's own label makes room for others.
        let base = &existing.labels[usize::from(is_synthesized)..];
        let labels = if sort == Sort::Dname && percent(rng, 50) {
            // Likely to be there where the DNAME leads.
            let label = *one_of(rng, &[&b"host"[..], b"d", b"dual", b"many"]);
            [&[label.to_vec()], base].concat()
        } else {
            below(rng, base)
        };
        Asked {
            subject,
            name: wire(&labels),
            types: existing.types.clone(),
        }
    }

    fn beside(&self, rng: &mut TestRng) -> Asked {
        let (_, existing) = self.existing(rng);
        Asked {
            subject: Subject::Beside,
            name: wire(&beside(rng, &existing.labels)),
            types: existing.types.clone(),
        }
    }

    fn in_a_zone(&self, rng: &mut TestRng) -> Asked {
        let apex = one_of(rng, &self.apexes);
        Asked {
            subject: Subject::Random,
            name: wire(&below(rng, apex)),
            types: vec![],
        }
    }

    /// Above our zones, beside them, and far away.
    fn elsewhere(&self, rng: &mut TestRng) -> Asked {
        let apex = one_of(rng, &self.apexes);
        let labels = match rng.random_range(0..6) {
            0 => apex[rng.random_range(1..=apex.len())..].to_vec(),
            1 => beside(rng, apex),
            2 => [apex.clone(), vec![b"invalid".to_vec()]].concat(),
            3 => vec![apex.join(&b'.')],
            4 => below(rng, &[b"invalid".to_vec()]),
            _ => below(rng, &[]),
        };
        Asked {
            subject: Subject::Elsewhere,
            name: wire(&labels),
            types: vec![],
        }
    }
}

/// The names of a zone file and the empty non-terminals between them.
fn names_of(zone: &Zone) -> Found {
    let apex = labels(zone.name.as_slice());
    let types = types_of(zone);
    let is_cut = |name: &[Vec<u8>]| {
        name.len() > apex.len() && types.get(name).is_some_and(|types| types.contains(&NS))
    };
    let mut found = Found::new();
    for (name, types) in &types {
        let sort = if (0..name.len()).any(|skipped| is_cut(&name[skipped..])) {
            Sort::Delegation
        } else if name[0] == b"*" {
            Sort::Wildcard
        } else if types.contains(&CNAME) {
            Sort::Alias
        } else if types.contains(&DNAME) {
            Sort::Dname
        } else {
            Sort::Static
        };
        found.insert(name.clone(), (sort, types.iter().copied().collect()));
        add_between(&mut found, name, &apex);
    }
    found
}

/// The types of each owner of a zone file.
fn types_of(zone: &Zone) -> BTreeMap<Labels, BTreeSet<u16>> {
    let name = zone.file.file_name().and_then(|name| name.to_str());
    let text = file(name.expect("a name in UTF-8"));
    let mut entries = Zonefile::load(&mut text.as_bytes()).expect("a zone file");
    entries.set_origin(zone.name.clone());
    entries.set_default_class(domain::base::iana::Class::IN);
    let mut types: BTreeMap<Labels, BTreeSet<u16>> = BTreeMap::new();
    while let Some(entry) = entries.next_entry().expect("an entry") {
        let Entry::Record(record) = entry else {
            panic!("a zone file without $INCLUDE");
        };
        let record: Record<Name<Bytes>, ZoneRecordData<Bytes, Name<Bytes>>> = record.flatten_into();
        let owner = record.owner().as_slice().to_ascii_lowercase();
        let rtype = record.rtype().to_int();
        types.entry(labels(&owner)).or_default().insert(rtype);
    }
    types
}

/// Adds the names between a name and the apex of its zone, where nothing is there yet.
fn add_between(found: &mut Found, name: &[Vec<u8>], apex: &[Vec<u8>]) {
    for skipped in 1..name.len().saturating_sub(apex.len()).max(1) {
        let between = &name[skipped..];
        let sort = if between.len() <= MANY_LABELS {
            Sort::EmptyNonTerminal
        } else {
            Sort::DeepEmptyNonTerminal
        };
        found.entry(between.to_vec()).or_insert((sort, vec![]));
    }
}

/// A name in wire format, taken apart.
fn labels(mut wire: &[u8]) -> Labels {
    let mut labels = vec![];
    while let [len @ 1..=63, rest @ ..] = wire {
        let (label, rest) = rest.split_at(usize::from(*len));
        labels.push(label.to_vec());
        wire = rest;
    }
    labels
}

/// A name in wire format; labels at its front give way where there are too many.
fn wire(labels: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = vec![0];
    for label in labels.iter().rev() {
        let label = &label[..label.len().min(63)];
        if wire.len() + 1 + label.len() > NAME_LIMIT {
            break;
        }
        let front = [&[label.len() as u8], label].concat();
        wire.splice(0..0, front);
    }
    wire
}

/// A name below `base`: mostly little, sometimes as far below it as names can be.
fn below(rng: &mut TestRng, base: &[Vec<u8>]) -> Labels {
    let depth = match rng.random_range(0..100) {
        0..60 => 1,
        60..85 => rng.random_range(2..=4),
        85..95 => rng.random_range(5..=40),
        _ => LABEL_LIMIT,
    };
    let mut labels = base.to_vec();
    for _ in 0..depth {
        let label = match depth {
            0..5 => label(rng),
            // Where labels are many, they are short.
            _ => octets_of(rng, LETTERS, 1),
        };
        labels.insert(0, label);
    }
    labels
}

/// A name that differs a little.
fn beside(rng: &mut TestRng, name: &[Vec<u8>]) -> Labels {
    let mut labels = name.to_vec();
    let which = rng.random_range(0..labels.len());
    let changed = &mut labels[which];
    match rng.random_range(0..9) {
        0 => {
            let at = rng.random_range(0..changed.len());
            changed[at] = *one_of(rng, LETTERS);
        }
        1 => changed.push(*one_of(rng, LETTERS)),
        2 => changed.insert(0, *one_of(rng, LETTERS)),
        3 if changed.len() > 1 => {
            changed.pop();
        }
        4 => changed.push(0),
        5 => *changed = b"*".to_vec(),
        6 if which + 1 < labels.len() => {
            // The dot becomes part of a label.
            let next = labels.remove(which + 1);
            labels[which].push(b'.');
            labels[which].extend(next);
        }
        7 => labels.insert(which, label(rng)),
        _ => labels[0] = label(rng),
    }
    labels
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const OTHERS: &[u8] = b"0123456789-_";

fn octets_of(rng: &mut TestRng, choice: &[u8], len: usize) -> Vec<u8> {
    (0..len).map(|_| *one_of(rng, choice)).collect()
}

/// A label, mostly of letters.
fn label(rng: &mut TestRng) -> Vec<u8> {
    let len = rng.random_range(1..=12);
    match rng.random_range(0..100) {
        0..45 => octets_of(rng, LETTERS, len),
        45..60 => octets_of(rng, LETTERS, 1),
        60..66 => b"*".to_vec(),
        66..76 => octets_of(rng, OTHERS, len),
        76..82 => octets(rng, len),
        82..86 => octets_of(rng, b"a.", len),
        86..90 => octets_of(rng, b"a\0", len),
        90..93 => octets_of(rng, LETTERS, 63),
        // Names that exist somewhere.
        93..96 => b"www".to_vec(),
        96..98 => b"host".to_vec(),
        _ => b"_tcp".to_vec(),
    }
}

/// Case as it is, all in capitals, or mixed.
fn mix_case(rng: &mut TestRng, name: &mut [u8]) {
    // Octets that say lengths are at most 63, below 'A'.
    match rng.random_range(0..10) {
        0..5 => {}
        5..7 => name.make_ascii_uppercase(),
        _ => {
            let bits = octets(rng, name.len());
            for (octet, bits) in name.iter_mut().zip(bits) {
                if bits & 1 == 1 {
                    octet.make_ascii_uppercase();
                }
            }
        }
    }
}
