//! Queries: names, types, classes, headers and OPT records, put together.

use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;

use super::edns;
use super::names::{Asked, Names};
use super::random::{octets, one_of, percent, weighted};
use super::tally::Subject;
use crate::mutations::Mutation;
use crate::packet::{Dns, Frame};

const A: u16 = 1;
const AAAA: u16 = 28;
const ANY: u16 = 255;
const IN: u16 = 1;

/// NS, CNAME, SOA, PTR, MX, TXT, SRV, NAPTR, DNAME, DS, SSHFP, RRSIG, NSEC, DNSKEY, TLSA, SVCB,
/// HTTPS, CAA.
const COMMON_TYPES: [u16; 18] = [
    2, 5, 6, 12, 15, 16, 33, 35, 39, 43, 44, 46, 47, 48, 52, 64, 65, 257,
];
/// OPT, NXNAME, TKEY, TSIG, IXFR, AXFR, MAILB, MAILA.
const META_TYPES: [u16; 8] = [41, 128, 249, 250, 251, 252, 253, 254];
/// Types that nobody has defined, and those next to address types.
const ODD_TYPES: [u16; 9] = [0, 256, 27, 29, 0x011c, 0x1c00, 0x0100, 1000, 65535];
/// None, CH, HS, NONE, ANY, and IN the wrong way round.
const OTHER_CLASSES: [u16; 6] = [0, 3, 4, 254, 255, 0x0100];
/// RD.
const RECURSION_DESIRED: u16 = 0x0100;
/// AA, RD, RA, Z, AD, CD and RCODE mean nothing in a query.
const MEANINGLESS: u16 = 0x05ff;

/// Something done to a query.
pub(super) type Change = fn(&mut TestRng, &mut Dns);

/// A query on its way.
pub(super) struct Query {
    pub(super) subject: Subject,
    /// Index into [`edns::VARIANTS`].
    pub(super) edns: usize,
    pub(super) message: Vec<u8>,
    pub(super) frame: Vec<u8>,
}

/// One query after the other, without end.
pub(super) struct Queries {
    names: Names,
    rng: TestRng,
}

impl Queries {
    pub(super) const fn new(names: Names, rng: TestRng) -> Self {
        Self { names, rng }
    }

    fn query(&mut self) -> Query {
        let rng = &mut self.rng;
        let asked = self.names.choose(rng);
        let qtype = choose_type(rng, &asked);
        let mut subject = subject(asked.subject, qtype);
        let mut dns = Dns {
            id: rng.random(),
            flags: RECURSION_DESIRED,
            counts: [1, 0, 0, 0],
            qname: asked.name,
            qtype,
            qclass: IN,
            edns: None,
            trailer: vec![],
        };
        if percent(rng, 30) {
            dns.flags = rng.random::<u16>() & MEANINGLESS;
        }
        let edns = edns::put_any(rng, &mut dns);
        let mut message = None;
        match rng.random_range(0..100) {
            0..4 => {
                subject = Subject::OtherClass;
                dns.qclass = *one_of(rng, &OTHER_CLASSES);
            }
            4..8 => {
                subject = Subject::OtherHeader;
                weighted(rng, &HEADER_CHANGES)(rng, &mut dns);
            }
            8..12 => {
                subject = Subject::Malformed;
                spoil_name(rng, &mut dns);
            }
            12..16 => {
                subject = Subject::Malformed;
                message = Some(spoilt(rng, &dns));
            }
            _ => {}
        }
        let message = message.unwrap_or_else(|| dns.bytes());
        let frame = *one_of(rng, &[Frame::v4, Frame::v6]);
        Query {
            subject,
            edns,
            frame: frame(message.clone()).bytes(),
            message,
        }
    }
}

impl Iterator for Queries {
    type Item = Query;

    fn next(&mut self) -> Option<Query> {
        Some(self.query())
    }
}

/// Addresses in half of the queries, else what is there, or anything.
fn choose_type(rng: &mut TestRng, asked: &Asked) -> u16 {
    match rng.random_range(0..100) {
        0..50 => *one_of(rng, &[A, AAAA]),
        50..75 if !asked.types.is_empty() => *one_of(rng, &asked.types),
        50..89 => *one_of(rng, &COMMON_TYPES),
        89..92 => ANY,
        92..95 => *one_of(rng, &META_TYPES),
        95..98 => *one_of(rng, &ODD_TYPES),
        _ => rng.random(),
    }
}

/// The type can say more of a query than its name does.
fn subject(name: Subject, qtype: u16) -> Subject {
    match (name, qtype) {
        (_, ANY) => Subject::Any,
        (_, other) if META_TYPES.contains(&other) => Subject::MetaType,
        (Subject::Service, A | AAAA) => Subject::Service,
        (Subject::Service, _) => Subject::ServiceOtherType,
        _ => name,
    }
}

/// Ways to make the header that of no standard query with one question.
#[rustfmt::skip]
const HEADER_CHANGES: [(u32, Change); 10] = [
    (2, |_, dns| dns.flags |= 0x8000),
    (2, |_, dns| dns.flags |= 0x0200),
    (3, |rng, dns| dns.flags |= rng.random_range(1..16) << 11),
    (1, |rng, dns| dns.flags = rng.random()),
    (1, |rng, dns| dns.counts[0] = *one_of(rng, &[0, 2, 256])),
    (1, |rng, dns| dns.counts[1] = *one_of(rng, &[1, 256])),
    (1, |rng, dns| dns.counts[2] = *one_of(rng, &[1, 256])),
    (1, |rng, dns| dns.counts[3] = *one_of(rng, &[1, 2, 256])),
    // One record, wherever it is said to be.
    (1, |rng, dns| { dns.trailer.extend([0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]); dns.counts[rng.random_range(1..4)] += 1; }),
    // A second question.
    (1, |_, dns| { dns.trailer.extend([0, 0, 1, 0, 1]); dns.counts[0] = 2; }),
];

/// Makes the name none.
fn spoil_name(rng: &mut TestRng, dns: &mut Dns) {
    let root = dns.qname.len() - 1;
    match rng.random_range(0..5) {
        // Too long.
        0 => {
            while dns.qname.len() <= 255 {
                let len = rng.random_range(1..=63);
                let label = octets(rng, usize::from(len));
                dns.qname.splice(0..0, [&[len], &label[..]].concat());
            }
        }
        // A label of more than 63 octets, or of a kind that nobody has defined.
        1 => {
            let len = rng.random_range(64..=255);
            let label = octets(rng, usize::from(len));
            dns.qname.splice(0..0, [&[len], &label[..]].concat());
        }
        // Compressed: a pointer to itself, to the header, into the name, or beyond.
        2 => {
            let to = *one_of(rng, &[12, 0, 13, 12 + root as u16, 0x3fff]);
            dns.qname.splice(root.., (0xc000 | to).to_be_bytes());
        }
        // Without the root.
        3 => dns.qname.truncate(root),
        // Labels behind the root.
        _ => {
            let len = rng.random_range(1..=12);
            let more = octets(rng, len);
            dns.qname.extend(more);
        }
    }
}

/// The message with octets that are missing, more or others.
fn spoilt(rng: &mut TestRng, dns: &Dns) -> Vec<u8> {
    let mut message = dns.bytes();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..4096);
        let mutation = match rng.random_range(0..9) {
            0..3 => Mutation::Flip(at, 1 << rng.random_range(0..8)),
            3..5 => Mutation::Set(at, *one_of(rng, &[0, 1, 28, 41, 0x3f, 0x40, 0xc0, 0xff])),
            5 => Mutation::Truncate(at),
            6..8 => {
                let len = rng.random_range(1..12);
                Mutation::Insert(at, octets(rng, len))
            }
            _ => Mutation::Remove(at),
        };
        mutation.apply(&mut message);
    }
    message
}
