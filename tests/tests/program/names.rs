//! Many names.

use failover::model::OnAllDown;

use crate::lab::{Lab, TX, add_service, addresses, ip, model, privileged};
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
