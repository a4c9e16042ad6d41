//! Many names.

use std::collections::BTreeSet;

use failover::model::{Fqdn, OnAllDown};
use failover_common::settings::FAR_HOMES;

use crate::lab::{Lab, TX, add_service, addresses, ip, model, name, privileged};
use crate::packet::{Dns, Frame, NXDOMAIN, check_reply};

/// How many.
const COUNT: usize = 20_000;

/// The hash of names leaves out the bit of case in every octet: no multipliers tell these apart.
#[test]
fn names_of_one_hash() {
    if !privileged() {
        return;
    }
    let names = [
        "a[1.example.com",
        "a{1.example.com",
        "b.a{1.example.com",
        "b.a[1.example.com",
        "a_1.example.com",
        "a\\1271.example.com",
        "c.example.com",
    ];
    let mut model = model();
    let mut answers = vec![];
    for (index, name) in names.iter().enumerate() {
        add_service(&mut model, name);
        answers.push(addresses(&[&format!("10.0.0.{index}")]));
    }
    let lab = Lab::new(model, &answers);
    let mut answered = 0;
    for (index, name) in names.iter().enumerate() {
        let query = Frame::v4(Dns::new(name, 1).bytes()).bytes();
        match lab.run(&query) {
            (TX, reply) => {
                let want = [ip(&format!("10.0.0.{index}"))];
                assert_eq!(check_reply(&query, &reply).addresses(), want, "{name}");
                answered += 1;
            }
            (_, after) => assert_eq!(after, query, "{name}"),
        }
    }
    // One of each two, and those that are alone.
    assert_eq!(answered, 4);
    // What is below a name that is not in the table is not denied.
    for name in ["x.a[1.example.com", "x.a{1.example.com"] {
        let query = Frame::v4(Dns::new(name, 1).bytes()).bytes();
        if let (TX, reply) = lab.run(&query) {
            assert_eq!(check_reply(&query, &reply).flags & 0xf, NXDOMAIN, "{name}");
        }
    }
}

/// A model of `count` services, each with the answer that belongs to its number.
pub(crate) fn crowd(count: usize) -> Lab {
    let mut model = model();
    let mut answers = vec![];
    for index in 0..count {
        let id = add_service(&mut model, &crowd_name(index));
        model.services[id.index()].on_all_down = OnAllDown::Addresses(vec![ip("192.0.2.1")]);
        answers.push(addresses(&[&crowd_address(index)]));
    }
    Lab::new(model, &answers)
}

/// Names of 20 to 60 octets.
pub(crate) fn crowd_name(index: usize) -> String {
    let filler = "x".repeat(index % 40);
    format!("h{index}-{filler}.example.com")
}

/// The address of a name.
pub(crate) fn crowd_address(index: usize) -> String {
    let [_, b, c, d] = (index as u32).to_be_bytes();
    format!("10.{b}.{c}.{d}")
}

#[test]
fn every_name_is_answered_and_no_other() {
    if !privileged() {
        return;
    }
    let lab = crowd(COUNT);
    for index in 0..COUNT {
        let dns = Dns::new(&crowd_name(index), 1);
        let query = Frame::v4(dns.bytes()).bytes();
        let (verdict, reply) = lab.run(&query);
        assert_eq!(verdict, TX, "{index}");
        if index % 16 == 0 {
            assert_eq!(
                check_reply(&query, &reply).addresses(),
                [ip(&crowd_address(index))]
            );
        }

        // One letter of the first label becomes one that no name has.
        let mut neighbour = dns;
        let place = 1 + index % usize::from(neighbour.qname[0]);
        neighbour.qname[place] = b'q';
        let query = Frame::v4(neighbour.bytes()).bytes();
        let (verdict, reply) = lab.run(&query);
        assert_eq!(verdict, TX, "{index}");
        if index % 16 == 0 {
            assert_eq!(check_reply(&query, &reply).flags & 0xf, NXDOMAIN, "{index}");
        }
    }
    let counters = lab.counters();
    assert_eq!(counters.answered, COUNT as u64);
    assert_eq!(counters.answered_nxdomain, COUNT as u64);
}

/// With so many names the program guesses how much a reply grows, which is right as often as it is wrong
/// here.
#[test]
fn very_many_names_with_answers_of_different_lengths() {
    if !privileged() {
        return;
    }
    let far_name = |index: usize| format!("n{index}.example.com");
    let answers: [&[&str]; 4] = [
        &["10.0.0.1", "2001:db8::1"],
        &["10.0.1.1", "10.0.1.2", "2001:db8:1::1"],
        &["10.0.2.1", "10.0.2.2", "2001:db8:2::1", "2001:db8:2::2"],
        &[
            "10.0.3.1",
            "10.0.3.2",
            "10.0.3.3",
            "10.0.3.4",
            "2001:db8:3::1",
        ],
    ];
    let mut model = model();
    for first in 0..answers.len() {
        let id = add_service(&mut model, &far_name(first));
        let fqdn = &mut model.services[id.index()].fqdn;
        let zone = fqdn[0].zone;
        let more = (first..FAR_HOMES as usize)
            .step_by(answers.len())
            .skip(1)
            .map(|index| Fqdn {
                name: name(&far_name(index)),
                zone,
            });
        fqdn.extend(more);
    }
    let lab = Lab::new(model, &answers.map(addresses));
    // In runs of three of each service, and in runs of five of each type.
    let mut asked = 0;
    for step in 0..2_000 {
        let service = step / 3 % answers.len();
        let qtype = [1, 28][step / 5 % 2];
        let index = service + step * 32 * answers.len();
        let query = Frame::v4(Dns::new(&far_name(index), qtype).bytes()).bytes();
        let (verdict, reply) = lab.run(&query);
        assert_eq!(verdict, TX, "{index}, type {qtype}");
        let got: BTreeSet<_> = check_reply(&query, &reply)
            .addresses()
            .into_iter()
            .collect();
        let all = answers[service].iter().map(|address| ip(address));
        let want: BTreeSet<_> = all.filter(|ip| ip.is_ipv4() == (qtype == 1)).collect();
        assert_eq!(got, want, "{index}, type {qtype}");
        asked += 1;
    }
    assert_eq!(lab.counters().answered, asked);
}
