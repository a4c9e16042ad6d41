//! Names and zones of every shape.

use std::num::NonZeroU16;

use failover::policy::{Answer, Weighted};
use failover::wire::Family;
use failover_common::counters::Counter;

use crate::lab::{
    Lab, TX, add_service, addresses, any_addresses, equal, ip, many, model, name, privileged,
    stay_on_one_cpu, text, zone,
};
use crate::packet::{Dns, Frame, NXDOMAIN, Opt, check_frame, check_reply, name_of_len};

const A: u16 = 1;
const AAAA: u16 = 28;

#[test]
fn names_of_every_length() {
    if !privileged() {
        return;
    }
    let lengths = 3..=255;
    let mut model = model();
    model.zones = vec![zone(
        ".",
        &[("ns1.nic", "192.0.2.53"), ("ns2.nic", "2001:db8::53")],
    )];
    let mut answers = vec![];
    for len in lengths.clone() {
        add_service(&mut model, &text(&name_of_len(len)));
        answers.push(addresses(&[
            &format!("10.0.0.{len}"),
            &format!("2001:db8::{len}"),
        ]));
    }
    let lab = Lab::new(model, &answers);
    for len in lengths {
        for mut dns in [
            Dns::plain("", A),
            Dns::new("", A),
            Dns::new("", AAAA).with_options(b"\0\x0a\0\x08COOKIE.."),
        ] {
            dns.qname = name_of_len(len);
            assert_eq!(dns.qname.len(), len);
            // Some letters in upper case.
            dns.qname
                .iter_mut()
                .skip(len % 3)
                .step_by(3)
                .for_each(|octet| octet.make_ascii_uppercase());
            let reply = lab.ask_dns(&dns);
            let want = if dns.qtype == A {
                ip(&format!("10.0.0.{len}"))
            } else {
                ip(&format!("2001:db8::{len}"))
            };
            assert_eq!(reply.addresses(), [want], "{len}");
            assert_eq!(reply.authority.len(), 2);
            assert_eq!(reply.authority[0], " 900 IN NS ns1.nic.");
            assert_eq!(reply.additional.len(), 2, "{len}");
        }
        let mut negative = Dns::new("", A);
        negative.qname = name_of_len(len);
        negative.qname[1] = b'_';
        // A name right below the root is left to user space.
        let query = Frame::v6(negative.bytes()).bytes();
        match lab.run(&query) {
            (TX, reply) => assert_eq!(check_reply(&query, &reply).flags & 0xf, NXDOMAIN, "{len}"),
            (_, after) => assert_eq!(after, query, "{len}"),
        }
    }
}

/// The program answers the usual query on a way of its own. A tag makes a query unusual: both ways
/// must say the same, turn by turn.
fn both_ways_say_the_same(lab: impl Fn() -> Lab, queries: impl Iterator<Item = Dns>) {
    let (usual, general) = (lab(), lab());
    let ask = |lab: &Lab, frame: &Frame| {
        let query = frame.bytes();
        match lab.run(&query) {
            (TX, reply) => check_frame(&query, &reply).1.to_vec(),
            _ => panic!("{:?}: {frame:?}", lab.reasons()),
        }
    };
    for dns in queries {
        for frame in [Frame::v4(dns.bytes()), Frame::v6(dns.bytes())] {
            let mut tagged = frame.clone();
            tagged.tags = vec![[0x81, 0, 0, 7]];
            for turn in 0..3 {
                assert_eq!(
                    ask(&usual, &frame),
                    ask(&general, &tagged),
                    "{frame:?}, turn {turn}"
                );
            }
        }
    }
}

/// A question without EDNS, with it, and with DO.
fn with_and_without_edns(dns: Dns) -> impl Iterator<Item = Dns> {
    [None, Some(0), Some(0x8000)].into_iter().map(move |edns| {
        let mut dns = dns.clone();
        dns.counts[3] = u16::from(edns.is_some());
        dns.edns = edns.map(|flags| Opt {
            flags,
            ..Opt::new(1232)
        });
        dns
    })
}

#[test]
fn the_usual_way_answers_as_the_general_one() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    // Longest names, most addresses and tails without additional section of the usual way, and more.
    let lengths = 3..=44;
    let lab = || {
        let mut model = model();
        model.zones = vec![zone(
            ".",
            &[("ns1.nic", "192.0.2.53"), ("ns2.nic", "2001:db8::53")],
        )];
        let mut answers = vec![];
        for len in lengths.clone() {
            let service = add_service(&mut model, &text(&name_of_len(len)));
            model.services[service.index()].on_all_down = any_addresses(10);
            let addresses = [many(Family::V4, 1 + len % 9), many(Family::V6, len % 6)].concat();
            answers.push(Answer::Addresses(
                (1..)
                    .zip(addresses)
                    .map(|(place, address)| Weighted {
                        address,
                        // Equal ones, and others.
                        weight: NonZeroU16::MIN.saturating_add(place * (len % 2) as u16),
                    })
                    .collect(),
            ));
        }
        Lab::new(model, &answers)
    };
    let queries = lengths.clone().flat_map(|len| {
        [A, AAAA].into_iter().flat_map(move |qtype| {
            let mut dns = Dns::new("", qtype);
            dns.id = len as u16 * 257;
            dns.qname = name_of_len(len);
            dns.qname
                .iter_mut()
                .skip(len % 2)
                .step_by(2)
                .for_each(u8::make_ascii_uppercase);
            with_and_without_edns(dns)
        })
    });
    both_ways_say_the_same(lab, queries);
}

/// Tails of each number of chunks.
#[test]
fn the_usual_way_answers_with_every_number_of_name_servers() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    let servers: Vec<_> = (1..=6)
        .map(|number| {
            (
                format!("ns{number}.example.com"),
                format!("192.0.2.{number}"),
            )
        })
        .collect();
    for count in 0..=servers.len() {
        let servers = servers[..count].iter();
        let servers: Vec<_> = servers
            .map(|(name, address)| (name.as_str(), address.as_str()))
            .collect();
        let lab = || {
            let mut model = model();
            model.zones = vec![zone("example.com", &servers)];
            add_service(&mut model, "www.example.com");
            Lab::new(model, &[addresses(&["10.0.0.1", "2001:db8::1"])])
        };
        let queries = [A, AAAA].into_iter();
        let queries =
            queries.flat_map(|qtype| with_and_without_edns(Dns::new("www.example.com", qtype)));
        both_ways_say_the_same(lab, queries);
    }
}

/// The hash of names leaves out what tells small letters from capital ones.
#[test]
fn the_bit_that_makes_letters_capital_matters_in_all_other_octets() {
    if !privileged() {
        return;
    }
    let name = "a-1.x_2.example.com";
    let lab = Lab::one(name, &addresses(&["192.0.2.1"]));
    let dns = Dns::new(name, A);
    for place in 0..dns.qname.len() {
        let mut other = dns.clone();
        other.qname[place] ^= 0x20;
        let query = Frame::v4(other.bytes()).bytes();
        match lab.run(&query) {
            (TX, reply) => {
                let found = check_reply(&query, &reply).addresses();
                let want = dns.qname[place].is_ascii_alphabetic();
                assert_eq!(!found.is_empty(), want, "{place}");
            }
            (_, after) => {
                assert!(!dns.qname[place].is_ascii_alphabetic(), "{place}");
                assert_eq!(after, query, "{place}");
            }
        }
    }
}

/// Names that differ in one octet at each place, with the same beginning and end.
#[test]
fn names_that_differ_in_one_octet() {
    if !privileged() {
        return;
    }
    for len in [16, 17, 24, 31, 32, 33, 40, 64, 255] {
        let mut model = model();
        model.zones = vec![zone(".", &[])];
        let whole = name_of_len(len);
        let mut names = vec![whole.clone()];
        for place in 0..len {
            if whole[place].is_ascii_lowercase() {
                let mut other = whole.clone();
                other[place] = b'-';
                names.push(other);
            }
        }
        let mut answers = vec![];
        for (index, name) in names.iter().enumerate() {
            add_service(&mut model, &text(name));
            answers.push(addresses(&[&format!("10.0.0.{index}")]));
        }
        let lab = Lab::new(model, &answers);
        for (index, name) in names.into_iter().enumerate() {
            let mut dns = Dns::new("", A);
            dns.qname = name;
            assert_eq!(
                lab.ask_dns(&dns).addresses(),
                [ip(&format!("10.0.0.{index}"))]
            );
        }
    }
}

#[test]
fn the_apex_is_a_service_name() {
    if !privileged() {
        return;
    }
    let lab = Lab::one("example.com", &addresses(&["192.0.2.1"]));
    let reply = lab.ask_dns(&Dns::new("example.com", A));
    assert_eq!(reply.answer, ["example.com 30 IN A 192.0.2.1"]);
    assert_eq!(reply.authority[1], "example.com 900 IN NS ns2.example.com.");
    assert_eq!(reply.additional[1], "ns2.example.com 900 IN A 203.0.113.66");
    let reply = lab.ask_dns(&Dns::new("example.com", AAAA));
    assert!(reply.authority[0].starts_with("example.com 300 IN SOA ns1.example.com. hostmaster"));
}

#[test]
fn zones_inside_each_other() {
    if !privileged() {
        return;
    }
    let mut model = model();
    // A name server in the parent zone, and one whose name shares only the top level.
    model.zones.push(zone(
        "sub.example.com",
        &[
            ("ns1.example.com", "192.0.2.53"),
            ("ns.test.com", "192.0.2.54"),
        ],
    ));
    for name in ["www.example.com", "www.sub.example.com"] {
        add_service(&mut model, name);
    }
    let lab = Lab::new(
        model,
        &[addresses(&["192.0.2.1"]), addresses(&["192.0.2.2"])],
    );
    let reply = lab.ask_dns(&Dns::new("www.sub.example.com", A));
    assert_eq!(reply.addresses(), [ip("192.0.2.2")]);
    assert_eq!(
        reply.authority,
        [
            "sub.example.com 900 IN NS ns1.example.com.",
            "sub.example.com 900 IN NS ns.test.com."
        ]
    );
    assert_eq!(
        reply.additional,
        [
            "ns1.example.com 900 IN A 192.0.2.53",
            "ns.test.com 900 IN A 192.0.2.54"
        ]
    );
    let reply = lab.ask_dns(&Dns::new("www.example.com", A));
    assert_eq!(reply.authority[0], "example.com 900 IN NS ns1.example.com.");
}

#[test]
fn name_servers_elsewhere_bring_no_addresses() {
    if !privileged() {
        return;
    }
    let mut model = model();
    model.zones[0] = zone(
        "example.com",
        &[
            ("a.ns.example.net", "192.0.2.1"),
            ("b.ns.example.org", "192.0.2.2"),
        ],
    );
    for server in &mut model.zones[0].name_servers {
        server.addresses.clear();
    }
    add_service(&mut model, "www.example.com");
    let lab = Lab::new(model, &[addresses(&["192.0.2.1"])]);
    for dns in [
        Dns::new("www.example.com", A),
        Dns::plain("www.example.com", A),
    ] {
        let reply = lab.ask_dns(&dns);
        assert_eq!(
            reply.authority,
            [
                "example.com 900 IN NS a.ns.example.net.",
                "example.com 900 IN NS b.ns.example.org."
            ]
        );
        assert!(reply.additional.is_empty());
        assert_eq!(reply.opt.is_some(), dns.edns.is_some());
    }
}

#[test]
fn a_zone_without_name_servers_still_answers() {
    if !privileged() {
        return;
    }
    let mut model = model();
    model.zones[0].name_servers.clear();
    add_service(&mut model, "www.example.com");
    let lab = Lab::new(model, &[addresses(&["192.0.2.1"])]);
    let reply = lab.ask_dns(&Dns::new("www.example.com", A));
    assert_eq!((reply.answer.len(), reply.authority.len()), (1, 0));
}

/// From 1 to 40 name servers of two addresses of each family: the NS set goes out whole or not
/// at all, and so does each address set, with nothing missing before it.
#[test]
fn many_name_servers() {
    if !privileged() {
        return;
    }
    for count in [1, 2, 3, 4, 5, 6, 7, 8, 13, 20, 26, 27, 28, 40] {
        let mut model = model();
        let servers: Vec<_> = (0..count).map(|i| format!("ns{i}.example.com")).collect();
        let servers: Vec<_> = servers
            .iter()
            .map(|server| (server.as_str(), "192.0.2.1"))
            .collect();
        model.zones[0] = zone("example.com", &servers);
        for server in &mut model.zones[0].name_servers {
            server.addresses = [many(Family::V4, 2), many(Family::V6, 2)]
                .concat()
                .into_iter()
                .map(|address| (address, 900))
                .collect();
        }
        add_service(&mut model, "www.example.com");
        let lab = Lab::new(model, &[addresses(&["192.0.2.1"])]);
        let reply = lab.ask_dns(&Dns::new("www.example.com", A));
        assert!([0, count].contains(&reply.authority.len()), "{count}");
        assert!(reply.authority.len() == count || reply.additional.is_empty());
        assert_eq!(
            reply.additional.len() % 2,
            0,
            "part of a set: {:#?}",
            reply.additional
        );
        for (index, record) in reply.additional.iter().enumerate() {
            let want = format!("ns{}.example.com 900 IN ", index / 4);
            assert!(record.starts_with(&want), "{record}");
        }
        if count <= 3 {
            assert_eq!(reply.additional.len(), 4 * count);
        }
    }
}

/// A SOA of two names of full length, not compressed, is more than a tail holds.
#[test]
fn a_soa_that_has_no_room_is_left_to_the_slow_path() {
    if !privileged() {
        return;
    }
    let mut model = model();
    model.zones[0].soa.mname = name(&text(&name_of_len(255)));
    model.zones[0].soa.rname = name(&text(&name_of_len(254)));
    add_service(&mut model, "www.example.com");
    let lab = Lab::new(model, &[addresses(&["192.0.2.1"])]);
    assert_eq!(lab.ask_dns(&Dns::new("www.example.com", A)).answer.len(), 1);
    let query = Frame::v4(Dns::new("www.example.com", AAAA).bytes()).bytes();
    lab.assert_passes(&query, Counter::PassedTooLarge);
}

/// Large and small answers, of either family, one after the other in the same service.
#[test]
fn answers_change_size() {
    if !privileged() {
        return;
    }
    let mut model = model();
    add_service(&mut model, "www.example.com");
    model.services[0].on_all_down = any_addresses(64);
    let mut lab = Lab::new(model, &[addresses(&["192.0.2.1"])]);
    for count in [64, 1, 9, 8, 5, 4, 33, 2] {
        for (family, qtype) in [(Family::V4, A), (Family::V6, AAAA)] {
            lab.publish(0, &equal(&many(family, count)));
            let query = Frame::v6(Dns::new("www.example.com", qtype).bytes());
            if count > 42 && qtype == AAAA {
                lab.assert_passes(&query.bytes(), Counter::PassedTooLarge);
            } else {
                assert_eq!(lab.ask(&query).answer.len(), count);
            }
        }
    }
}
