//! Good queries with anything done to them: they pass unchanged, or they are still good
//! queries and the reply is in order.

use domain::base::Message;
use failover_common::checksum;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::lab::{Lab, PASS, TX, privileged};
use crate::packet::{Dns, Frame, check_reply, end_of_message};

const PACKETS: u32 = 20_000;

/// One change, at a place that is taken modulo the length.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    Flip(usize, u8),
    Set(usize, u8),
    Truncate(usize),
    Insert(usize, Vec<u8>),
    Remove(usize),
}

impl Mutation {
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len().max(1);
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, bits) => bytes[at % len] ^= bits,
            Self::Set(at, octet) => bytes[at % len] = *octet,
            Self::Truncate(to) => bytes.truncate(to % len),
            Self::Insert(at, octets) => {
                let at = at % (len + 1);
                bytes.splice(at..at, octets.iter().copied());
            }
            Self::Remove(at) => {
                bytes.remove(at % len);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Octets that mean something somewhere.
    let octet = prop_oneof![
        any::<u8>(),
        proptest::sample::select(vec![0, 1, 28, 41, 53, 0x3f, 0x40, 0x45, 0xc0, 0xff])
    ];
    let at = 0..4096usize;
    prop_oneof![
        4 => (at.clone(), (0..8u8).prop_map(|bit| 1 << bit)).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        4 => (at.clone(), octet.clone()).prop_map(|(at, octet)| Mutation::Set(at, octet)),
        1 => at.clone().prop_map(Mutation::Truncate),
        2 => (at.clone(), proptest::collection::vec(octet, 1..12)).prop_map(|(at, octets)| Mutation::Insert(at, octets)),
        1 => at.prop_map(Mutation::Remove),
    ]
}

/// What is changed: the message in a true frame, or the frame itself.
#[derive(Clone, Copy, Debug)]
enum Level {
    Message,
    Frame,
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let level = prop_oneof![Just(Level::Message), Just(Level::Frame)];
    let mutations = proptest::collection::vec(mutation(), 1..4);
    (
        0..queries().len(),
        any::<bool>(),
        level,
        0..3usize,
        mutations,
    )
        .prop_map(|(query, v6, level, tags, mutations)| {
            let mut message = queries().swap_remove(query).bytes();
            if matches!(level, Level::Message) {
                mutations.iter().for_each(|m| m.apply(&mut message));
            }
            let frame = if v6 { Frame::v6 } else { Frame::v4 };
            let mut bytes = Frame {
                tags: vec![[0x81, 0, 0, 7]; tags],
                ..frame(message)
            }
            .bytes();
            if matches!(level, Level::Frame) {
                mutations.iter().for_each(|m| m.apply(&mut bytes));
                let at = 14 + 4 * tags;
                if !v6 && bytes.len() >= at + 20 {
                    repair_header_checksum(&mut bytes[at..at + 20]);
                }
            }
            // The kernel runs nothing shorter.
            bytes.resize(bytes.len().max(14), 0);
            bytes
        })
}

/// Without it every changed IPv4 header would pass for its checksum alone.
fn repair_header_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !checksum::sum(header);
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
}

fn queries() -> Vec<Dns> {
    vec![
        Dns::plain("www.example.com", 1),
        Dns::new("www.example.com", 1),
        Dns::new("wWw.eXample.com", 28).with_options(b"\0\x0a\0\x08COOKIE..\0\x03\0\0"),
        Dns::new("www.example.com", 1).with_options(b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02"),
    ]
}

/// What a server must see before it answers: an ordinary query for a name of its zone.
fn assert_is_good(message: &[u8]) {
    let query = Message::from_octets(message).expect("a message");
    let header = query.header();
    assert!(!header.qr() && !header.tc() && header.opcode().to_int() == 0);
    let counts = query.header_counts();
    assert_eq!(
        (counts.qdcount(), counts.ancount(), counts.nscount()),
        (1, 0, 0)
    );
    let question = query.sole_question().expect("a question");
    let name = format!(".{}", question.qname()).to_ascii_lowercase();
    assert!(name.ends_with(".example.com"), "{name}");
    assert!(!matches!(question.qtype().to_int(), 0 | 41 | 128..=255));
    assert_eq!(question.qclass().to_int(), 1);
    assert_eq!(query.opt().is_some(), counts.arcount() == 1);
    if let Some(opt) = query.opt() {
        assert_eq!(opt.version(), 0);
        for option in opt.opt().iter::<domain::base::opt::UnknownOptData<_>>() {
            option.expect("an option");
        }
    }
    assert_eq!(end_of_message(message), message.len());
}

#[test]
fn mutated_queries_pass_unchanged_or_are_answered_in_full() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    let config = Config {
        cases: PACKETS,
        failure_persistence: None,
        ..Config::default()
    };
    // The same packets in each run.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let verdicts = std::cell::Cell::new([0u32; 5]);
    let check = |packet: Vec<u8>| {
        let (verdict, after) = lab.run(&packet);
        match verdict {
            PASS => prop_assert_eq!(after, packet),
            TX => {
                check_reply(&packet, &after);
                assert_is_good(payload(&packet));
            }
            _ => prop_assert!(false, "verdict {}", verdict),
        }
        let mut count = verdicts.get();
        count[verdict as usize] += 1;
        verdicts.set(count);
        Ok(())
    };
    let result = TestRunner::new_with_rng(config, rng).run(&packet(), check);
    result.unwrap_or_else(|error| panic!("{error}"));
    let [.., passed, answered, _] = verdicts.get();
    println!("{passed} passed, {answered} answered");
    assert!(passed > PACKETS / 4 && answered > PACKETS / 20);
}

/// The UDP payload of a query that was answered.
fn payload(packet: &[u8]) -> &[u8] {
    let mut at = 12;
    while packet[at..at + 2] == [0x81, 0] || packet[at..at + 2] == [0x88, 0xa8] {
        at += 4;
    }
    let udp = at + 2 + if packet[at] == 0x08 { 20 } else { 40 };
    let len = usize::from(u16::from_be_bytes([packet[udp + 4], packet[udp + 5]]));
    &packet[udp + 8..udp + len]
}
