//! OPT records (RFC 6891), in order and out of it.

use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;

use super::queries::Change;
use super::random::{octets, one_of, percent, place};
use crate::packet::{Dns, Opt};

const NSID: u16 = 3;
const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
/// For local use.
const UNASSIGNED: u16 = 65001;
/// Unassigned, and below 32.
const UNKNOWN: u16 = 22;
/// Options that need no answer of their own.
const IGNORED: [u16; 4] = [CLIENT_SUBNET, PADDING, UNASSIGNED, UNKNOWN];
/// An OPT record without options.
const BARE_OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
/// An address record.
const OTHER_RECORD: &[u8] = &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1];

/// One way to put an OPT record into a query.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// What XDP answers at the least, in percent, of queries for the addresses of services.
    pub(super) promised: u32,
    /// How often it is chosen.
    weight: u32,
    put: Change,
}

/// Nothing is expected of XDP but to pass or to be right.
const NOTHING: u32 = 0;
/// XDP answers all.
const ALL: u32 = 100;

const fn variant(name: &'static str, promised: u32, weight: u32, put: Change) -> Variant {
    Variant {
        name,
        promised,
        weight,
        put,
    }
}

/// All variants, with what XDP promises.
#[rustfmt::skip]
pub(super) const VARIANTS: [Variant; 31] = [
    variant("none", ALL, 200, |_, _| {}),
    variant("1232 octets", ALL, 200, |_, dns| put(dns, Opt::new(1232))),
    variant("0, 511 or 512 octets", ALL, 30, |rng, dns| put(dns, Opt::new(*one_of(rng, &[0, 511, 512])))),
    variant("600 octets", ALL, 20, |_, dns| put(dns, Opt::new(600))),
    variant("4096 or 65535 octets", ALL, 30, |rng, dns| put(dns, Opt::new(*one_of(rng, &[4096, 65535])))),
    variant("any number of octets", ALL, 40, |rng, dns| put(dns, Opt::new(rng.random_range(0..1400)))),
    variant("DO", ALL, 60, |_, dns| put(dns, Opt { flags: 0x8000, ..Opt::new(1232) })),
    variant("any flags", ALL, 20, |rng, dns| put(dns, Opt { flags: rng.random(), ..Opt::new(1232) })),
    variant("version 1 or 255", NOTHING, 20, |rng, dns| put(dns, Opt { version: *one_of(rng, &[1, 255]), ..Opt::new(1232) })),
    variant("unknown option", ALL, 20, |rng, dns| { let code = *one_of(rng, &[UNASSIGNED, UNKNOWN]); option(rng, dns, code, 0..=40); }),
    variant("COOKIE of 8 octets", ALL, 60, |rng, dns| option(rng, dns, COOKIE, 8..=8)),
    variant("COOKIE of 16 to 40 octets", ALL, 60, |rng, dns| option(rng, dns, COOKIE, 16..=40)),
    variant("COOKIE of a wrong length", NOTHING, 20, |rng, dns| { let len = *one_of(rng, &[0, 7, 9, 15, 41]); option(rng, dns, COOKIE, len..=len); }),
    variant("two COOKIEs", ALL, 10, |rng, dns| { option(rng, dns, COOKIE, 8..=8); option(rng, dns, COOKIE, 8..=40); }),
    variant("NSID", NOTHING, 20, |rng, dns| option(rng, dns, NSID, 0..=4)),
    variant("client subnet", ALL, 20, |rng, dns| option(rng, dns, CLIENT_SUBNET, 4..=20)),
    variant("keep-alive", ALL, 10, |rng, dns| option(rng, dns, KEEPALIVE, 0..=2)),
    variant("padding", ALL, 20, padding),
    variant("2 to 4 options", ALL, 20, |rng, dns| options(rng, dns, 2..=4)),
    variant("9 to 30 options", NOTHING, 10, |rng, dns| options(rng, dns, 9..=30)),
    variant("options and NSID", NOTHING, 10, |rng, dns| { options(rng, dns, 1..=3); option(rng, dns, NSID, 0..=0); }),
    variant("option beyond the record", NOTHING, 10, |rng, dns| { option(rng, dns, PADDING, 1..=20); cut_options(rng, dns); }),
    variant("wrong length of options", NOTHING, 10, wrong_length),
    variant("option that ends like an OPT", NOTHING, 20, |rng, dns| { options(rng, dns, 0..=1); put_option(dns, UNASSIGNED, BARE_OPT); }),
    variant("OPT with an owner", NOTHING, 10, |rng, dns| put(dns, Opt { owner: one_of(rng, &[vec![1, b'x', 0], vec![0xc0, 12]]).clone(), ..Opt::new(1232) })),
    variant("two OPTs", NOTHING, 10, |_, dns| { put(dns, Opt::new(1232)); behind(dns, BARE_OPT, 1); }),
    variant("OPT not counted", NOTHING, 20, |_, dns| { put(dns, Opt::new(1232)); dns.counts[3] = 0; }),
    variant("OPT not last", NOTHING, 10, |_, dns| { put(dns, Opt::new(1232)); behind(dns, OTHER_RECORD, 1); }),
    variant("OPT behind another record", NOTHING, 10, |rng, dns| { behind(dns, OTHER_RECORD, 1); if percent(rng, 50) { behind(dns, BARE_OPT, 1); } }),
    variant("octets behind OPT", NOTHING, 20, |rng, dns| { put(dns, Opt::new(1232)); let len = rng.random_range(1..=12); let more = octets(rng, len); behind(dns, &more, 0); }),
    variant("two OPTs counted as one", NOTHING, 20, |_, dns| { put(dns, Opt::new(1232)); behind(dns, BARE_OPT, 0); }),
];

impl Variant {
    /// Whether the OPT record is no reason for XDP to pass.
    pub(super) const fn is_ordinary(&self) -> bool {
        self.promised == ALL
    }
}

/// Puts one of the variants into a query. Returns its number.
pub(super) fn put_any(rng: &mut TestRng, dns: &mut Dns) -> usize {
    let number = place(rng, VARIANTS.iter().map(|variant| variant.weight));
    (VARIANTS[number].put)(rng, dns);
    number
}

fn put(dns: &mut Dns, opt: Opt) {
    dns.edns = Some(opt);
    dns.counts[3] += 1;
}

/// Adds an option, and the record where there is none yet.
fn put_option(dns: &mut Dns, code: u16, content: &[u8]) {
    if dns.edns.is_none() {
        put(dns, Opt::new(1232));
    }
    let opt = dns.edns.get_or_insert_with(|| Opt::new(1232));
    opt.options.extend(code.to_be_bytes());
    opt.options.extend((content.len() as u16).to_be_bytes());
    opt.options.extend(content);
}

fn option(rng: &mut TestRng, dns: &mut Dns, code: u16, len: std::ops::RangeInclusive<usize>) {
    let len = rng.random_range(len);
    let content = octets(rng, len);
    put_option(dns, code, &content);
}

fn options(rng: &mut TestRng, dns: &mut Dns, count: std::ops::RangeInclusive<usize>) {
    for _ in 0..rng.random_range(count) {
        let code = *one_of(rng, &IGNORED);
        option(rng, dns, code, 0..=12);
    }
}

/// Zeros, as RFC 7830 asks for.
fn padding(rng: &mut TestRng, dns: &mut Dns) {
    let len = rng.random_range(0..=800);
    put_option(dns, PADDING, &vec![0; len]);
}

/// The record ends before its last option does.
fn cut_options(rng: &mut TestRng, dns: &mut Dns) {
    if let Some(opt) = &mut dns.edns {
        let len = rng.random_range(1..opt.options.len());
        opt.options.truncate(len);
    }
}

/// The record ends elsewhere than it says.
fn wrong_length(rng: &mut TestRng, dns: &mut Dns) {
    options(rng, dns, 1..=2);
    if let Some(opt) = &mut dns.edns {
        opt.length_error = *one_of(rng, &[-4, -1, 1, 4, 0x4000]);
    }
}

/// Puts octets behind the OPT record, which are so many records.
fn behind(dns: &mut Dns, octets: &[u8], records: u16) {
    dns.trailer.extend(octets);
    dns.counts[3] += records;
}
