//! What is answered, octet by octet.

use domain::base::Rtype;
use failover::policy::Answer;
use failover::wire::Family;
use failover_common::counters::Counter;

use crate::lab::{
    Lab, TX, add_service, addresses, any_addresses, equal, many, model, privileged, stay_on_one_cpu,
};
use crate::packet::{Dns, Frame, Opt, Reply, ReplyOpt, check_reply, library_query};

const A: u16 = 1;
const AAAA: u16 = 28;

/// The message that answers `www.example.com A` in the reference case, without its OPT record.
const REFERENCE: &str = "
    beef 8500 0001 0002 0002 0002
    03777777 076578616d706c65 03636f6d 00 0001 0001
    c00c 0001 0001 0000001e 0004 c6336486
    c00c 0001 0001 0000001e 0004 cb007146
    c010 0002 0001 00000384 0006 036e7331 c010
    c010 0002 0001 00000384 0006 036e7332 c010
    036e7331 c010 0001 0001 00000384 0004 c6336482
    036e7332 c010 0001 0001 00000384 0004 cb007142";
const OPT: &str = "00 0029 04d0 00 00 0000 0000";

fn octets(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect()
}

#[test]
fn the_reference_case() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    // A lab for each: the rotation starts with the first address.
    for frame in [Frame::v4, Frame::v6] {
        let query = frame(Dns::plain("www.example.com", A).bytes());
        let reply = Lab::usual().ask(&query);
        assert_eq!(reply.message.as_slice(), octets(REFERENCE));

        let query = frame(Dns::new("www.example.com", A).bytes());
        let reply = Lab::usual().ask(&query);
        let mut want = octets(&[REFERENCE, OPT].concat());
        want[11] += 1;
        assert_eq!(reply.message.as_slice(), want);
    }
}

#[test]
fn aaaa_is_answered_alike() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    let lab = Lab::usual();
    let before = lab.counters();
    let reply = lab.ask_dns(&Dns::new("www.example.com", AAAA));
    lab.assert_counted(&before, Counter::Answered);
    assert_eq!(
        reply.answer,
        [
            "www.example.com 30 IN AAAA 2001:db8::134",
            "www.example.com 30 IN AAAA 2001:db8:1::70"
        ]
    );
    assert_eq!(
        reply.authority,
        [
            "example.com 900 IN NS ns1.example.com.",
            "example.com 900 IN NS ns2.example.com."
        ]
    );
    assert_eq!(
        reply.additional,
        [
            "ns1.example.com 900 IN A 198.51.100.130",
            "ns2.example.com 900 IN A 203.0.113.66"
        ]
    );
}

#[test]
fn a_dns_library_builds_the_same_queries() {
    for (qtype, rtype) in [(A, Rtype::A), (AAAA, Rtype::AAAA)] {
        assert_eq!(
            Dns::plain("www.Example.com", qtype).bytes(),
            library_query("www.Example.com", rtype, None)
        );
        assert_eq!(
            Dns::new("www.example.com", qtype).bytes(),
            library_query("www.example.com", rtype, Some(1232))
        );
    }
}

#[test]
fn flags() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    // Of a query's flags RD alone comes back; AA, RA, Z, AD, CD and the RCODE do not.
    let rows = [
        (0x0000, 0x8400),
        (0x0100, 0x8500),
        (0x0400, 0x8400),
        (0x0080, 0x8400),
        (0x0040, 0x8400),
        (0x0020, 0x8400),
        (0x0010, 0x8400),
        (0x000f, 0x8400),
        (0x05ff, 0x8500),
    ];
    for (query, reply) in rows {
        for dns in [
            Dns::new("www.example.com", A),
            Dns::plain("www.example.com", A),
        ] {
            let dns = Dns {
                flags: query,
                ..dns
            };
            assert_eq!(lab.ask_dns(&dns).flags, reply, "{query:04x}");
        }
    }
}

#[test]
fn opt_comes_back_with_our_size_and_do() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    assert_eq!(lab.ask_dns(&Dns::plain("www.example.com", A)).opt, None);
    for (flags, ttl) in [(0, 0), (0x8000, 0x8000), (0x7fff, 0), (0xffff, 0x8000)] {
        let mut dns = Dns::new("www.example.com", A);
        dns.edns = Some(Opt {
            flags,
            ..Opt::new(4096)
        });
        let want = ReplyOpt {
            size: 1232,
            ttl,
            has_options: false,
        };
        assert_eq!(lab.ask_dns(&dns).opt, Some(want), "{flags:04x}");
    }
}

/// COOKIE, NSID, client subnet, keep-alive, padding, one that nobody has assigned; and all of
/// them together with padding that makes the query longer than its reply.
#[test]
fn options_are_ignored() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    let rows: [&[u8]; 6] = [
        b"\0\x0a\0\x08COOKIE..",
        b"\0\x03\0\0",
        b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02",
        b"\0\x0b\0\0",
        b"\0\x0c\0\x05.....",
        b"\xfd\xe9\0\x03abc",
    ];
    let mut padded = rows.concat();
    padded.extend(padding(0x300));
    for options in rows.iter().map(|row| row.to_vec()).chain([padded]) {
        for frame in [Frame::v4, Frame::v6] {
            let dns = Dns::new("www.example.com", A).with_options(&options);
            let reply = lab.ask(&frame(dns.bytes()));
            let opt = reply.opt.expect("OPT");
            assert!(!opt.has_options, "{options:02x?}");
            assert_eq!(reply.message.as_slice().len(), octets(REFERENCE).len() + 11);
        }
    }
}

#[test]
fn case_is_kept_and_does_not_matter() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    for name in ["WWW.EXAMPLE.COM", "wWw.eXaMpLe.CoM", "www.example.coM"] {
        // `check_reply` compares the question, case and all.
        let reply = lab.ask_dns(&Dns::new(name, A));
        assert_eq!(reply.answer.len(), 2);
    }
}

#[test]
fn tags_and_families() {
    if !privileged() {
        return;
    }
    let lab = Lab::usual();
    let tags: [&[[u8; 4]]; 5] = [
        &[],
        &[[0x81, 0, 0, 7]],
        &[[0x88, 0xa8, 0xe0, 7]],
        &[[0x81, 0, 0, 7], [0x81, 0, 0, 8]],
        &[[0x88, 0xa8, 0, 7], [0x81, 0, 0x20, 8]],
    ];
    for tags in tags {
        for frame in [Frame::v4, Frame::v6] {
            for dns in [
                Dns::plain("www.example.com", A),
                Dns::new("www.example.com", AAAA),
                Dns::new("www.example.com", A).with_options(&padding(400)),
            ] {
                let query = Frame {
                    tags: tags.to_vec(),
                    ..frame(dns.bytes())
                };
                assert_eq!(lab.ask(&query).answer.len(), 2);
            }
        }
    }
}

/// A padding option (RFC 7830) with `len` octets.
fn padding(len: u16) -> Vec<u8> {
    let mut option = vec![0, 12];
    option.extend(len.to_be_bytes());
    option.resize(4 + usize::from(len), 0);
    option
}

/// Queries shorter than their replies by any number of octets, as long, and longer; with room
/// at the front of the packet, and with little of it because metadata lies there.
#[test]
fn packets_grow_and_shrink() {
    if !privileged() {
        return;
    }
    let mut model = model();
    add_service(&mut model, "www.example.com");
    let mut lab = Lab::new(model, &[Answer::Empty]);
    for count in [1, 4, 8] {
        lab.publish(0, &equal(&many(Family::V4, count)));
        for frame in [Frame::v4, Frame::v6] {
            for len in 0..350 {
                let dns = Dns::new("www.example.com", A).with_options(&padding(len));
                let query = frame(dns.bytes());
                assert_eq!(lab.ask(&query).answer.len(), count);

                let query = query.bytes();
                let metadata = [0xda; 32];
                let (verdict, reply) = lab.program.run_behind(&metadata, &query);
                assert_eq!(verdict, TX);
                assert_eq!(reply[..32], metadata);
                assert_eq!(check_reply(&query, &reply[32..]).answer.len(), count);
            }
        }
    }
}

/// NODATA has the SOA with the smaller of its TTL and MINIMUM (RFC 2308 section 3).
#[test]
fn no_data() {
    if !privileged() {
        return;
    }
    const DATA: &str = "ns1.example.com. hostmaster.example.com. 2026 7200 900 1209600";
    for (ttl, minimum, sent) in [(3600, 300, 300), (60, 300, 60)] {
        let mut model = model();
        model.zones[0].soa.ttl = ttl;
        model.zones[0].soa.minimum = minimum;
        for name in ["v4.example.com", "v6.example.com", "empty.example.com"] {
            add_service(&mut model, name);
        }
        let answers = [
            addresses(&["192.0.2.1"]),
            addresses(&["2001:db8::1"]),
            Answer::Empty,
        ];
        let lab = Lab::new(model, &answers);
        for (name, qtype) in [
            ("v4.example.com", AAAA),
            ("v6.example.com", A),
            ("empty.example.com", A),
            ("empty.example.com", AAAA),
        ] {
            for dns in [Dns::new(name, qtype), Dns::plain(name, qtype)] {
                let before = lab.counters();
                let reply = lab.ask_dns(&dns);
                lab.assert_counted(&before, Counter::AnsweredNodata);
                assert_eq!(reply.flags, 0x8500);
                assert!(reply.answer.is_empty() && reply.additional.is_empty());
                assert_eq!(
                    reply.authority,
                    [format!("example.com {sent} IN SOA {DATA} {minimum}")]
                );
                assert_eq!(reply.opt.is_some(), dns.edns.is_some());
            }
        }
        for (name, qtype) in [("v4.example.com", A), ("v6.example.com", AAAA)] {
            assert_eq!(lab.ask_dns(&Dns::new(name, qtype)).answer.len(), 1);
        }
    }
}

#[test]
fn servfail() {
    if !privileged() {
        return;
    }
    let lab = Lab::one("www.example.com", &Answer::Servfail);
    for qtype in [A, AAAA] {
        for frame in [Frame::v4, Frame::v6] {
            for dns in [
                Dns::new("www.example.com", qtype),
                Dns::plain("www.example.com", qtype),
            ] {
                let before = lab.counters();
                let reply = lab.ask(&frame(dns.bytes()));
                lab.assert_counted(&before, Counter::AnsweredServfail);
                assert_eq!(reply.flags, 0x8102);
                assert!(reply.answer.is_empty() && reply.authority.is_empty());
                assert!(reply.additional.is_empty());
                assert_eq!(reply.opt.is_some(), dns.edns.is_some());
            }
        }
    }
}

/// What of a reply goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    All,
    NoAdditional,
    AnswerOnly,
    Nothing,
}
use Sent::{All, AnswerOnly, NoAdditional, Nothing};

/// Question 33 octets with the header, A 16, AAAA 28, NS set 36, its addresses 40, OPT 11.
/// RFC 2181 section 9: first the additional records go, then the authority.
const SIZES: [(Family, usize, Option<u16>, Sent); 38] = [
    (Family::V4, 25, None, All),
    (Family::V4, 26, None, NoAdditional),
    (Family::V4, 27, None, NoAdditional),
    (Family::V4, 28, None, AnswerOnly),
    (Family::V4, 29, None, AnswerOnly),
    (Family::V4, 30, None, Nothing),
    (Family::V4, 24, Some(0), All),
    (Family::V4, 24, Some(511), All),
    (Family::V4, 24, Some(512), All),
    (Family::V4, 25, Some(0), NoAdditional),
    (Family::V4, 25, Some(512), NoAdditional),
    // 512 octets.
    (Family::V4, 27, Some(511), NoAdditional),
    (Family::V4, 27, Some(512), NoAdditional),
    (Family::V4, 28, Some(512), AnswerOnly),
    (Family::V4, 29, Some(0), AnswerOnly),
    (Family::V4, 30, Some(0), Nothing),
    (Family::V4, 30, Some(511), Nothing),
    (Family::V4, 30, Some(512), Nothing),
    // 600, 560 and 524 octets.
    (Family::V4, 30, Some(600), All),
    (Family::V4, 30, Some(599), NoAdditional),
    (Family::V4, 30, Some(560), NoAdditional),
    (Family::V4, 30, Some(559), AnswerOnly),
    (Family::V4, 30, Some(524), AnswerOnly),
    (Family::V4, 30, Some(523), Nothing),
    (Family::V4, 64, Some(1232), All),
    (Family::V4, 64, Some(4096), All),
    (Family::V6, 14, None, All),
    (Family::V6, 15, None, NoAdditional),
    (Family::V6, 16, None, AnswerOnly),
    (Family::V6, 17, None, AnswerOnly),
    (Family::V6, 18, None, Nothing),
    (Family::V6, 39, Some(1232), All),
    (Family::V6, 40, Some(1232), NoAdditional),
    // 1220 octets; never more than 1232, whatever the client takes.
    (Family::V6, 42, Some(1220), AnswerOnly),
    (Family::V6, 42, Some(1219), Nothing),
    (Family::V6, 42, Some(65535), AnswerOnly),
    (Family::V6, 43, Some(4096), Nothing),
    (Family::V6, 43, Some(65535), Nothing),
];

#[test]
fn what_does_not_fit_is_left_out() {
    if !privileged() {
        return;
    }
    let mut lab = room_for_64();
    for (family, count, size, sent) in SIZES {
        lab.publish(0, &equal(&many(family, count)));
        let row = format!("{count} of {family:?} in {size:?}");
        let reply = ask_for(&lab, family, size);
        let Some(reply) = reply else {
            assert_eq!(sent, Nothing, "{row}");
            continue;
        };
        let want = match sent {
            All => (2, 2),
            NoAdditional => (2, 0),
            AnswerOnly => (0, 0),
            Nothing => panic!("{row}: answered"),
        };
        assert_eq!(reply.answer.len(), count, "{row}");
        assert_eq!(
            (reply.authority.len(), reply.additional.len()),
            want,
            "{row}"
        );
    }
}

fn room_for_64() -> Lab {
    let mut model = model();
    add_service(&mut model, "www.example.com");
    model.services[0].on_all_down = any_addresses(64);
    Lab::new(model, &[Answer::Empty])
}

/// Asks with an EDNS size or without EDNS; `None` if the query passes as too large.
fn ask_for(lab: &Lab, family: Family, size: Option<u16>) -> Option<Reply> {
    let qtype = match family {
        Family::V4 => A,
        Family::V6 => AAAA,
    };
    let mut dns = Dns::plain("www.example.com", qtype);
    if let Some(size) = size {
        dns.edns = Some(Opt::new(size));
        dns.counts[3] = 1;
    }
    let query = Frame::v4(dns.bytes()).bytes();
    let before = lab.counters();
    let (verdict, reply) = lab.run(&query);
    if verdict == TX {
        return Some(check_reply(&query, &reply));
    }
    assert_eq!(reply, query);
    lab.assert_counted(&before, Counter::PassedTooLarge);
    None
}

#[test]
fn every_number_of_addresses() {
    if !privileged() {
        return;
    }
    let mut lab = room_for_64();
    for count in 1..=64 {
        for (family, most) in [(Family::V4, 64), (Family::V6, 42)] {
            let list = many(family, count);
            lab.publish(0, &equal(&list));
            let reply = ask_for(&lab, family, Some(1232));
            assert_eq!(reply.is_some(), count <= most, "{count}");
            if let Some(reply) = reply {
                let mut got: Vec<_> = reply.addresses();
                got.sort();
                assert_eq!(got, list);
            }
        }
    }
}

#[test]
fn our_size_is_a_limit_too() {
    if !privileged() {
        return;
    }
    let mut model = model();
    model.settings.edns_udp_size = 600;
    add_service(&mut model, "www.example.com");
    model.services[0].on_all_down = any_addresses(64);
    let mut lab = Lab::new(model, &[equal(&many(Family::V4, 30))]);
    let reply = ask_for(&lab, Family::V4, Some(4096)).expect("600 octets");
    assert_eq!(reply.message.as_slice().len(), 600);
    assert_eq!(reply.opt.expect("OPT").size, 600);
    lab.publish(0, &equal(&many(Family::V4, 31)));
    let reply = ask_for(&lab, Family::V4, Some(4096)).expect("576 octets");
    assert_eq!((reply.authority.len(), reply.additional.len()), (2, 0));
    lab.publish(0, &equal(&many(Family::V4, 35)));
    assert!(ask_for(&lab, Family::V4, Some(4096)).is_none());
}
