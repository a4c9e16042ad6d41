//! Which address comes first: in proportion to the weights, on each CPU.

use std::collections::HashMap;
use std::net::IpAddr;

use failover::wire::Family;
use failover_common::layout::size::LARGE_RECORDS;

use crate::lab::{
    Lab, add_service, any_addresses, equal, many, model, privileged, stay_on_one_cpu, weighted,
};
use crate::packet::{Dns, Frame};

/// The addresses of each of `turns` replies, in order.
fn turns(lab: &Lab, qtype: u16, turns: usize) -> Vec<Vec<IpAddr>> {
    let query = Frame::v4(Dns::new("www.example.com", qtype).bytes());
    (0..turns).map(|_| lab.ask(&query).addresses()).collect()
}

/// Each address goes first once in a round, and the others follow in order.
#[test]
fn equal_weights_go_round() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    for (family, qtype, most) in [(Family::V4, 1, LARGE_RECORDS), (Family::V6, 28, 42)] {
        for count in [1, 2, 3, 4, 5, 8, 9, most] {
            let list = many(family, count);
            let mut model = model();
            add_service(&mut model, "www.example.com");
            model.services[0].on_all_down = any_addresses(64);
            let lab = Lab::new(model, &[equal(&list)]);
            for (turn, got) in turns(&lab, qtype, 2 * count + 1).iter().enumerate() {
                let mut want = list.clone();
                want.rotate_left(turn % count);
                assert_eq!(*got, want, "{count} addresses, turn {turn}");
            }
        }
    }
}

/// Over one period each address goes first exactly as often as its weight says.
#[test]
fn weights_are_exact_over_a_period() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    let rows: [(&[u16], usize); 8] = [
        (&[1, 1], 2),
        (&[3, 1], 4),
        (&[300, 100], 4),
        (&[5, 3, 2], 10),
        (&[1, 1, 2, 3, 5, 8, 13, 21], 54),
        (&[7, 7, 7], 3),
        // A large answer.
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 66),
        (&[65535, 1], 65536),
    ];
    for (weights, period) in rows {
        let list = many(Family::V4, weights.len());
        let text: Vec<String> = list.iter().map(IpAddr::to_string).collect();
        let with_weights: Vec<_> = text
            .iter()
            .map(String::as_str)
            .zip(weights.iter().copied())
            .collect();
        let mut model = model();
        add_service(&mut model, "www.example.com");
        model.services[0].on_all_down = any_addresses(16);
        let lab = Lab::new(model, &[weighted(&with_weights)]);
        let gcd = weights.iter().map(|w| usize::from(*w)).sum::<usize>() / period;
        for _ in 0..if period < 100 { 3 } else { 1 } {
            let first = first_addresses(&lab, period);
            for (address, weight) in list.iter().zip(weights) {
                let want = usize::from(*weight) / gcd;
                assert_eq!(
                    first.get(address).copied().unwrap_or(0),
                    want,
                    "{weights:?}"
                );
            }
        }
    }
}

/// How often each address came first in `count` replies.
fn first_addresses(lab: &Lab, count: usize) -> HashMap<IpAddr, usize> {
    let query = Frame::v4(Dns::new("www.example.com", 1).bytes()).bytes();
    let mut first = HashMap::new();
    let mut reply = vec![0; 4096];
    for _ in 0..count {
        lab.program.run_into(&query, &mut reply);
        // Ethernet, IP, UDP; DNS header and question; the record up to its data.
        const DATA: usize = 42 + 12 + 21 + 12;
        let address: [u8; 4] = reply[DATA..DATA + 4].try_into().expect("four octets");
        *first.entry(IpAddr::from(address)).or_default() += 1;
    }
    first
}

/// The turns of a heavy address are spread: no run of its turns is longer than its share asks.
#[test]
fn turns_are_spread() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    let lab = Lab::one(
        "www.example.com",
        &weighted(&[("192.0.2.0", 6), ("192.0.2.1", 3), ("192.0.2.2", 1)]),
    );
    let first: Vec<_> = turns(&lab, 1, 20).iter().map(|turn| turn[0]).collect();
    let heavy = first[0];
    let longest = first
        .chunk_by(|a, b| a == b)
        .filter(|run| run[0] == heavy)
        .map(<[_]>::len)
        .max();
    assert!(longest <= Some(3), "{first:?}");
}

#[test]
fn max_answers_limits_what_is_sent() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    for (count, max) in [(5, 1), (5, 2), (5, 5), (5, 9), (20, 3)] {
        let list = many(Family::V4, count);
        let mut model = model();
        add_service(&mut model, "www.example.com");
        model.services[0].on_all_down = any_addresses(64);
        model.services[0].max_answers = Some(max);
        let lab = Lab::new(model, &[equal(&list)]);
        for (turn, got) in turns(&lab, 1, count).iter().enumerate() {
            let mut want = list.clone();
            want.rotate_left(turn);
            want.truncate(max);
            assert_eq!(*got, want);
        }
    }
}

/// A and AAAA, and services, turn on their own.
#[test]
fn each_service_and_type_turns_on_its_own() {
    if !privileged() {
        return;
    }
    stay_on_one_cpu();
    let mut model = model();
    for name in ["www.example.com", "api.example.com"] {
        add_service(&mut model, name);
    }
    let list = [many(Family::V4, 2), many(Family::V6, 2)].concat();
    let lab = Lab::new(model, &[equal(&list), equal(&list)]);
    for turn in 0..4 {
        for name in ["www.example.com", "api.example.com"] {
            for (qtype, base) in [(1, 0), (28, 2)] {
                let reply = lab.ask_dns(&Dns::new(name, qtype));
                assert_eq!(reply.addresses()[0], list[base + turn % 2]);
            }
        }
    }
}
