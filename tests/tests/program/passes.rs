//! What is passed: each rule with a packet that passes unchanged, for the
//! reason given, and its closest neighbour, which is answered.

use std::time::{Duration, Instant};

use failover::wire::Family;
use failover_common::counters::Counter;

use crate::lab::{
    Lab, PASS, TX, add_service, any_addresses, equal, ip, many, model, privileged, text,
    usual_addresses, zone,
};
use crate::packet::{Dns, Frame, Opt, check_reply, name_of_len, wire_name};

/// A query to change.
struct Packet {
    dns: Dns,
    frame: Frame,
    /// Octets cut off the end of the frame.
    cut: usize,
    /// Octets of the frame to overwrite.
    patch: Vec<(usize, u8)>,
}

impl Packet {
    fn new(frame: fn(Vec<u8>) -> Frame) -> Self {
        Self {
            dns: Dns::new("www.example.com", 1),
            frame: frame(vec![]),
            cut: 0,
            patch: vec![],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let frame = Frame {
            payload: self.dns.bytes(),
            ..self.frame.clone()
        };
        let mut bytes = frame.bytes();
        bytes.truncate(bytes.len() - self.cut);
        for (at, octet) in &self.patch {
            bytes[*at] = *octet;
        }
        bytes
    }
}

type Change = fn(&mut Packet);

/// What passes, why, and what is nearly the same and answered.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    passes: Change,
    reason: Counter,
    answered: Change,
}

const fn row(name: &'static str, passes: Change, reason: Counter, answered: Change) -> Row {
    Row {
        name,
        passes,
        reason,
        answered,
    }
}

/// The query as it is.
const AS_IT_IS: Change = |_| {};

#[rustfmt::skip]
const ANY_FAMILY: &[Row] = &[
    row("three VLAN tags", |p| p.frame.tags = vec![[0x81, 0, 0, 7]; 3], Counter::PassedVlan,
        |p| p.frame.tags = vec![[0x88, 0xa8, 0, 7], [0x81, 0, 0, 8]]),
    row("another EtherType", |p| p.patch = vec![(12, 0x88), (13, 0xcc)], Counter::PassedOther, AS_IT_IS),
    row("Ethernet multicast", |p| p.frame.destination_mac = [1, 0, 0x5e, 0, 0, 1], Counter::PassedMulticast,
        |p| p.frame.destination_mac = [0xfe, 0, 0x5e, 0, 0, 1]),
    row("Ethernet broadcast", |p| p.frame.destination_mac = [0xff; 6], Counter::PassedMulticast, AS_IT_IS),
    row("TCP", |p| p.frame.protocol = 6, Counter::PassedOther, AS_IT_IS),
    row("ICMPv6", |p| p.frame.protocol = 58, Counter::PassedOther, AS_IT_IS),
    row("not our port", |p| p.frame.ports[1] = 5353, Counter::PassedOther, AS_IT_IS),
    row("source port 0", |p| p.frame.ports[0] = 0, Counter::PassedSource, |p| p.frame.ports[0] = 1),
    row("IP says one octet more", |p| p.frame.ip_length_error = 1, Counter::PassedLength, AS_IT_IS),
    row("IP says one octet less", |p| p.frame.ip_length_error = -1, Counter::PassedLength, AS_IT_IS),
    row("UDP says one octet more", |p| p.frame.udp_length_error = 1, Counter::PassedLength, AS_IT_IS),
    row("UDP says one octet less", |p| p.frame.udp_length_error = -1, Counter::PassedLength, AS_IT_IS),
    row("IP and UDP say one octet more",
        |p| { p.frame.ip_length_error = 1; p.frame.udp_length_error = 1; }, Counter::PassedLength, AS_IT_IS),
    row("frame shorter than IP says", |p| p.cut = 1, Counter::PassedLength, AS_IT_IS),
    row("trailing octet on a long frame", |p| p.frame.padding = 1, Counter::PassedLength, AS_IT_IS),
    row("no room for a question", |p| { p.dns = root(); p.dns.qname = vec![]; p.dns.qtype = 0; p.cut = 2;
            p.frame.ip_length_error = -2; p.frame.udp_length_error = -2; }, Counter::PassedLength, |p| p.dns = root()),
];

#[rustfmt::skip]
const V4: &[Row] = &[
    row("IPv4 options", |p| p.frame.ip_options = vec![1; 4], Counter::PassedIpOptions, AS_IT_IS),
    row("most IPv4 options", |p| p.frame.ip_options = vec![1; 40], Counter::PassedIpOptions, AS_IT_IS),
    row("IPv4 header too short", |p| p.patch = vec![(14, 0x44)], Counter::PassedIpOptions, AS_IT_IS),
    row("version 5", |p| p.patch = vec![(14, 0x55)], Counter::PassedIpOptions, AS_IT_IS),
    row("more fragments", |p| p.frame.fragment = 0x2000, Counter::PassedFragment, |p| p.frame.fragment = 0),
    row("more fragments, DF", |p| p.frame.fragment = 0x6000, Counter::PassedFragment, |p| p.frame.fragment = 0x4000),
    row("second fragment", |p| p.frame.fragment = 0x0001, Counter::PassedFragment, AS_IT_IS),
    row("last fragment", |p| p.frame.fragment = 0x1fff, Counter::PassedFragment, AS_IT_IS),
    row("wrong header checksum", |p| p.frame.ip_checksum_error = 1, Counter::PassedChecksum, AS_IT_IS),
    row("wrong header checksum, upper octet", |p| p.frame.ip_checksum_error = 0x0100, Counter::PassedChecksum,
        |p| p.frame.udp_checksum = Some(0)),
    row("not our address", |p| p.frame.destination = ip("198.51.100.131"), Counter::PassedNotOurs,
        |p| p.frame.destination = ip("203.0.113.66")),
    row("multicast address", |p| p.frame.destination = ip("224.0.0.251"), Counter::PassedNotOurs, AS_IT_IS),
    row("broadcast address", |p| p.frame.destination = ip("255.255.255.255"), Counter::PassedNotOurs, AS_IT_IS),
    row("from 0.0.0.0", |p| p.frame.source = ip("0.0.0.0"), Counter::PassedSource, |p| p.frame.source = ip("1.0.0.0")),
    row("from 0.1.2.3", |p| p.frame.source = ip("0.1.2.3"), Counter::PassedSource, AS_IT_IS),
    row("from 127.0.0.1", |p| p.frame.source = ip("127.0.0.1"), Counter::PassedSource, |p| p.frame.source = ip("128.0.0.1")),
    row("from 127.255.255.255", |p| p.frame.source = ip("127.255.255.255"), Counter::PassedSource,
        |p| p.frame.source = ip("126.255.255.255")),
    row("from multicast", |p| p.frame.source = ip("224.0.0.1"), Counter::PassedSource,
        |p| p.frame.source = ip("223.255.255.255")),
    row("from class E", |p| p.frame.source = ip("240.0.0.1"), Counter::PassedSource, AS_IT_IS),
    row("from broadcast", |p| p.frame.source = ip("255.255.255.255"), Counter::PassedSource, AS_IT_IS),
    // The shortest query of all is 59 octets long: only it is ever padded to 60.
    row("more than padding", |p| { p.dns = root(); p.frame.padding = 6; }, Counter::PassedLength,
        |p| { p.dns = root(); p.frame.padding = 1; }),
    row("more than padding of a tagged frame", |p| { p.dns = short(); p.frame.padding = 4; }, Counter::PassedLength,
        |p| { p.dns = short(); p.frame.padding = 3; }),
];

#[rustfmt::skip]
const V6: &[Row] = &[
    row("hop-by-hop options",
        |p| { p.frame.protocol = 0; p.frame.ip_options = vec![17, 0, 1, 4, 0, 0, 0, 0]; }, Counter::PassedOther, AS_IT_IS),
    row("fragment",
        |p| { p.frame.protocol = 44; p.frame.ip_options = vec![17, 0, 0, 1, 0, 0, 0, 1]; }, Counter::PassedOther, AS_IT_IS),
    row("atomic fragment",
        |p| { p.frame.protocol = 44; p.frame.ip_options = vec![17, 0, 0, 0, 0, 0, 0, 1]; }, Counter::PassedOther, AS_IT_IS),
    row("destination options",
        |p| { p.frame.protocol = 60; p.frame.ip_options = vec![17, 0, 1, 4, 0, 0, 0, 0]; }, Counter::PassedOther, AS_IT_IS),
    row("version 4", |p| p.patch = vec![(14, 0x45)], Counter::PassedOther, |p| p.patch = vec![(14, 0x6f)]),
    row("no UDP checksum", |p| p.frame.udp_checksum = Some(0), Counter::PassedChecksum,
        |p| p.frame.udp_checksum = Some(0x1234)),
    row("not our address", |p| p.frame.destination = ip("2001:db8:130::54"), Counter::PassedNotOurs, AS_IT_IS),
    row("not our network", |p| p.frame.destination = ip("2001:db8:131::53"), Counter::PassedNotOurs, AS_IT_IS),
    row("multicast address", |p| p.frame.destination = ip("ff02::fb"), Counter::PassedNotOurs, AS_IT_IS),
    row("from ::", |p| p.frame.source = ip("::"), Counter::PassedSource, |p| p.frame.source = ip("::2")),
    row("from ::1", |p| p.frame.source = ip("::1"), Counter::PassedSource, |p| p.frame.source = ip("1::1")),
    row("from multicast", |p| p.frame.source = ip("ff02::1"), Counter::PassedSource, |p| p.frame.source = ip("fe80::1")),
];

// Where no walk over the labels is needed to see that a query is not for us, none is made: the
// name is taken to end where it leaves room for type, class and a bare OPT. Most malformed
// names are just unknown names, and what follows a question gives it another class.
#[rustfmt::skip]
const MESSAGE: &[Row] = &[
    row("a response", |p| p.dns.flags |= 0x8000, Counter::PassedHeader, AS_IT_IS),
    row("truncated", |p| p.dns.flags |= 0x0200, Counter::PassedHeader,
        // AA, RD, RA, Z, AD, CD and an RCODE: a server ignores them in queries.
        |p| p.dns.flags = 0x05ff),
    row("no question", |p| p.dns.counts[0] = 0, Counter::PassedHeader, AS_IT_IS),
    row("two questions", |p| p.dns.counts[0] = 2, Counter::PassedHeader, AS_IT_IS),
    row("257 questions", |p| p.dns.counts[0] = 0x101, Counter::PassedHeader, AS_IT_IS),
    row("an answer", |p| p.dns.counts[1] = 1, Counter::PassedHeader, AS_IT_IS),
    row("an authority record", |p| p.dns.counts[2] = 1, Counter::PassedHeader, AS_IT_IS),
    row("two additional records", |p| p.dns.counts[3] = 2, Counter::PassedHeader, AS_IT_IS),
    row("257 additional records", |p| p.dns.counts[3] = 0x101, Counter::PassedHeader, AS_IT_IS),
    row("an additional record less than there is", |p| p.dns.counts[3] = 0, Counter::PassedClass, AS_IT_IS),
    row("compressed name", |p| p.dns.qname = b"\x03www\xc0\x0c".to_vec(), Counter::PassedName, AS_IT_IS),
    row("name that is a pointer", |p| p.dns.qname = vec![0xc0, 12], Counter::PassedName, AS_IT_IS),
    row("name of 256 octets", |p| p.dns.qname = long_name(256), Counter::PassedQuestion, |p| p.dns.qname = long_name(255)),
    row("name of 256 octets and options", |p| { p.dns.qname = long_name(256); options(p, 1); }, Counter::PassedQuestion,
        |p| { p.dns.qname = long_name(255); options(p, 1); }),
    row("name of 300 octets", |p| p.dns.qname = long_name(300), Counter::PassedQuestion, |p| p.dns.qname = long_name(254)),
    row("label type 01", |p| p.dns.qname[0] |= 0x40, Counter::PassedName, AS_IT_IS),
    row("label type 10", |p| p.dns.qname[0] |= 0x80, Counter::PassedName, AS_IT_IS),
    row("zero octet in a label, and options", |p| { p.dns.qname[2] = 0; options(p, 1); }, Counter::PassedOpt,
        |p| p.dns.qname[2] = 0),
    row("no name", |p| { no_edns(p); p.dns.qname.clear(); }, Counter::PassedQuestion, no_edns),
    row("name without end", |p| { p.dns.qname.pop(); }, Counter::PassedName, AS_IT_IS),
    row("long name without end", |p| { p.dns.qname = vec![63; 300]; options(p, 1); }, Counter::PassedQuestion,
        |p| options(p, 1)),
    row("octet after the question", |p| { no_edns(p); p.dns.trailer = vec![0]; }, Counter::PassedClass, no_edns),
    row("octets after the question", |p| { no_edns(p); p.dns.trailer = vec![0; 4]; }, Counter::PassedClass, no_edns),
    row("additional record that is not OPT", |p| opt(p).rtype = 1, Counter::PassedOpt, AS_IT_IS),
    row("additional record of type 0x2900", |p| opt(p).rtype = 0x2900, Counter::PassedOpt, AS_IT_IS),
    row("OPT owned by a pointer", |p| opt(p).owner = vec![0xc0, 12], Counter::PassedOpt, AS_IT_IS),
    row("OPT owned by a name", |p| opt(p).owner = vec![1, b'a', 0], Counter::PassedClass, AS_IT_IS),
    row("OPT with options owned by a name", |p| { options(p, 1); opt(p).owner = vec![1, b'a', 0]; }, Counter::PassedOpt,
        |p| options(p, 1)),
    row("octet after OPT", |p| p.dns.trailer = vec![0], Counter::PassedOpt, AS_IT_IS),
    row("octet after options", |p| { options(p, 1); p.dns.trailer = vec![0]; }, Counter::PassedOpt, |p| options(p, 1)),
    row("record after OPT", |p| p.dns.trailer = b"\0\0\x29\x04\xd0\0\0\0\0\0\0".to_vec(), Counter::PassedClass, AS_IT_IS),
    row("bare OPT one octet too long", |p| opt(p).length_error = 1, Counter::PassedOpt, AS_IT_IS),
    row("options one octet too long", |p| { options(p, 1); opt(p).length_error = 1; }, Counter::PassedOpt,
        |p| options(p, 1)),
    row("options one octet too short", |p| { options(p, 1); opt(p).length_error = -1; }, Counter::PassedOpt,
        |p| options(p, 1)),
    row("option longer than OPT", |p| opt(p).options = b"\0\x0a\0\x09COOKIE..".to_vec(), Counter::PassedOpt,
        |p| opt(p).options = b"\0\x0a\0\x08COOKIE..".to_vec()),
    row("option shorter than OPT", |p| opt(p).options = b"\0\x0a\0\x07COOKIE..".to_vec(), Counter::PassedOpt,
        |p| opt(p).options = b"\0\x0a\0\x08COOKIE..".to_vec()),
    row("part of an option", |p| opt(p).options = b"\0\x0a\0".to_vec(), Counter::PassedOpt,
        |p| opt(p).options = b"\0\x0a\0\0".to_vec()),
    row("longest option", |p| opt(p).options = b"\0\x0a\xff\xff".to_vec(), Counter::PassedOpt, AS_IT_IS),
    row("nine options", |p| options(p, 9), Counter::PassedEdnsOption, |p| options(p, 8)),
    row("EDNS version 1", |p| opt(p).version = 1, Counter::PassedEdnsVersion, |p| opt(p).flags = 0xffff),
    row("EDNS version 255 and options", |p| { options(p, 1); opt(p).version = 255; }, Counter::PassedEdnsVersion,
        |p| options(p, 1)),
    row("class CH", |p| p.dns.qclass = 3, Counter::PassedClass, AS_IT_IS),
    row("class NONE", |p| p.dns.qclass = 254, Counter::PassedClass, AS_IT_IS),
    row("class ANY", |p| p.dns.qclass = 255, Counter::PassedClass, AS_IT_IS),
    row("class 0x0100", |p| p.dns.qclass = 0x0100, Counter::PassedClass, AS_IT_IS),
    row("class 0x0101", |p| p.dns.qclass = 0x0101, Counter::PassedClass, AS_IT_IS),
    row("name of no zone of ours", |p| p.dns.qname = wire_name("www.example.net"), Counter::PassedName,
        |p| p.dns.qname = wire_name("www.example.net.example.com")),
    row("name above a zone", |p| p.dns.qname = wire_name("com"), Counter::PassedType,
        |p| p.dns.qname = wire_name("com.example.com")),
    row("the same octets in other labels", |p| p.dns.qname = wire_name("www.examp.e.com"), Counter::PassedName, AS_IT_IS),
    row("type ANY", |p| p.dns.qtype = 255, Counter::PassedType, |p| p.dns.qtype = 256),
    row("type AXFR", |p| p.dns.qtype = 252, Counter::PassedType, |p| p.dns.qtype = 65),
    row("type TKEY", |p| p.dns.qtype = 249, Counter::PassedType, |p| p.dns.qtype = 127),
    row("type OPT", |p| p.dns.qtype = 41, Counter::PassedType, |p| p.dns.qtype = 16),
    row("type 0", |p| p.dns.qtype = 0, Counter::PassedType, |p| p.dns.qtype = 2),
    row("answer larger than 512 octets", |p| { no_edns(p); p.dns.qname = wire_name("many.example.com"); },
        Counter::PassedTooLarge, |p| p.dns.qname = wire_name("many.example.com")),
    row("answer larger than announced", |p| { opt(p).size = 600; p.dns.qname = wire_name("many.example.com"); },
        Counter::PassedTooLarge, |p| { opt(p).size = 1200; p.dns.qname = wire_name("many.example.com"); }),
];

fn opt(packet: &mut Packet) -> &mut Opt {
    packet.dns.edns.as_mut().expect("a query with OPT")
}

fn no_edns(packet: &mut Packet) {
    packet.dns.edns = None;
    packet.dns.counts[3] = 0;
}

fn options(packet: &mut Packet, count: usize) {
    opt(packet).options = b"\0\x0a\0\x08COOKIE..".repeat(count);
}

/// The shortest query of all.
fn root() -> Dns {
    Dns::plain("", 1)
}

fn short() -> Dns {
    Dns::plain("a", 1)
}

/// Names that end in the same labels, whatever their length.
fn long_name(len: usize) -> Vec<u8> {
    name_of_len(len)
}

/// The names that the tables ask for.
fn lab() -> Lab {
    let mut model = model();
    model.zones.push(zone(".", &[]));
    for name in ["www.example.com", ".", "a", "many.example.com"] {
        add_service(&mut model, name);
    }
    model.services[3].on_all_down = any_addresses(64);
    for len in [254, 255] {
        add_service(&mut model, &text(&name_of_len(len)));
    }
    let mut answers = vec![usual_addresses(); 6];
    answers[3] = equal(&[many(Family::V4, 64), many(Family::V6, 32)].concat());
    Lab::new(model, &answers)
}

fn check(lab: &Lab, frame: fn(Vec<u8>) -> Frame, rows: &[Row]) {
    for row in rows {
        println!("{}", row.name);
        let mut packet = Packet::new(frame);
        (row.passes)(&mut packet);
        lab.assert_passes(&packet.bytes(), row.reason);

        let mut packet = Packet::new(frame);
        (row.answered)(&mut packet);
        let before = lab.counters();
        let (verdict, reply) = lab.run(&packet.bytes());
        assert_eq!(verdict, TX, "the neighbour");
        assert_eq!(lab.counters().total_answered(), before.total_answered() + 1);
        check_reply(&packet.bytes(), &reply);
    }
}

#[test]
fn each_rule_passes_a_packet_unchanged_and_answers_its_neighbour() {
    if !privileged() {
        return;
    }
    let lab = lab();
    for frame in [Frame::v4, Frame::v6] {
        check(&lab, frame, ANY_FAMILY);
        check(&lab, frame, MESSAGE);
    }
    check(&lab, Frame::v4, V4);
    check(&lab, Frame::v6, V6);
}

#[test]
fn every_reason_has_a_rule() {
    // The first two have tests of their own; a test run always has room at the end.
    const ELSEWHERE: [Counter; 3] = [
        Counter::PassedStale,
        Counter::PassedOvertaken,
        Counter::PassedNoRoom,
    ];
    let rows = [ANY_FAMILY, V4, V6, MESSAGE].concat();
    for counter in Counter::ALL {
        assert!(
            counter.name().starts_with("answered")
                || ELSEWHERE.contains(counter)
                || rows.iter().any(|row| row.reason == *counter),
            "{counter:?}"
        );
    }
}

#[test]
fn other_opcodes_pass() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    for opcode in 1..16 {
        let mut dns = Dns::new("www.example.com", 1);
        dns.flags |= opcode << 11;
        lab.assert_passes(&Frame::v4(dns.bytes()).bytes(), Counter::PassedHeader);
    }
}

/// Every beginning of a good frame, and a good frame around every beginning of a good message.
#[test]
fn truncated_queries_pass() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    let queries = [
        Dns::plain("www.example.com", 1),
        Dns::new("www.example.com", 28),
        Dns::new("www.example.com", 1).with_options(b"\0\x0a\0\x08COOKIE..\0\x03\0\0"),
    ];
    for message in queries.map(|dns| dns.bytes()) {
        for frame in [Frame::v4, Frame::v6] {
            let whole = frame(message.clone()).bytes();
            // The kernel runs nothing shorter than an Ethernet header.
            for len in 14..whole.len() {
                let (verdict, after) = lab.run(&whole[..len]);
                assert_eq!((verdict, &after[..]), (PASS, &whole[..len]), "{len}");
            }
            for len in 0..message.len() {
                let part = frame(message[..len].to_vec()).bytes();
                let (verdict, after) = lab.run(&part);
                assert_eq!((verdict, after), (PASS, part), "{len}");
            }
            assert_eq!(lab.run(&whole).0, TX);
        }
    }
}

#[test]
fn what_is_no_datagram_passes() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    let arp = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06\0\x01\x08\0\x06\x04\0\x01\
        \x02\0\0\0\0\x01\xc0\0\x02\x63\0\0\0\0\0\0\xc6\x33\x64\x82";
    lab.assert_passes(arp, Counter::PassedOther);
    for octet in [0, 0x08, 0x45, 0x81, 0x86, 0xff] {
        for len in [14, 15, 18, 33, 34, 42, 60, 64, 342, 1514] {
            let garbage = vec![octet; len];
            let (verdict, after) = lab.run(&garbage);
            assert_eq!(
                (verdict, after),
                (PASS, garbage),
                "{len} octets {octet:02x}"
            );
        }
    }
}

#[test]
fn nothing_is_answered_before_the_first_publication() {
    if !privileged() {
        return;
    }
    let mut model = model();
    add_service(&mut model, "www.example.com");
    let mut lab = Lab::unpublished(model);
    let query = Frame::v4(Dns::new("www.example.com", 1).bytes()).bytes();
    lab.assert_passes(&query, Counter::PassedStale);
    lab.plane.beat(None);
    lab.assert_passes(&query, Counter::PassedStale);
}

/// No version of an answer belongs to the generation: what a reader finds that was overtaken.
#[test]
fn a_service_without_an_answer_passes() {
    if !privileged() {
        return;
    }
    let mut model = model();
    add_service(&mut model, "www.example.com");
    let mut lab = Lab::unpublished(model);
    lab.plane.publish_all(&lab.model, &[]).expect("publication");
    lab.plane.beat(None);
    let query = Frame::v4(Dns::new("www.example.com", 1).bytes()).bytes();
    lab.assert_passes(&query, Counter::PassedOvertaken);
    lab.publish(0, &usual_addresses());
    assert_eq!(lab.run(&query).0, TX);
}

#[test]
fn a_snapshot_that_nobody_vouches_for_is_not_served() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::usual();
    let query = Frame::v4(Dns::new("www.example.com", 1).bytes()).bytes();
    let max_stale = Duration::from_millis(300);
    lab.plane.beat(Some(max_stale));
    let start = Instant::now();
    // The clock is as coarse as a tick, 10 ms at most.
    while lab.run(&query).0 == TX {
        assert!(start.elapsed() < Duration::from_secs(10), "still served");
    }
    assert!(
        start.elapsed() >= max_stale - Duration::from_millis(10),
        "too early"
    );
    lab.assert_passes(&query, Counter::PassedStale);
    lab.plane.beat(Some(Duration::from_secs(60)));
    assert_eq!(lab.run(&query).0, TX);
}

/// An option that is configured is for user space; others do not matter.
#[test]
fn nsid_passes_when_it_is_configured() {
    if !privileged() {
        return;
    }
    let mut model = model();
    model.settings.nsid = Some("ns1.site-a".into());
    add_service(&mut model, "www.example.com");
    let lab = Lab::new(model, &[equal(&[ip("198.51.100.134")])]);
    let nsid = Dns::new("www.example.com", 1).with_options(b"\0\x03\0\0");
    let before = lab.counters().passed_edns_option;
    let packet = Frame::v4(nsid.bytes()).bytes();
    assert_eq!(lab.run(&packet), (PASS, packet.clone()));
    assert_eq!(lab.counters().passed_edns_option, before + 1);
    lab.ask_dns(&Dns::new("www.example.com", 1).with_options(b"\0\x0a\0\x08COOKIE.."));
}
