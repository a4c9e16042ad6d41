use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::*;
use crate::model::OnAllDown;

fn service(max_answers: Option<usize>) -> Service {
    Service {
        name: "www".into(),
        fqdn: vec![],
        ttl: 0x0102_0304,
        port: NonZeroU16::MIN,
        redundancy_only: false,
        on_all_down: OnAllDown::Primary,
        max_answers,
        wan: vec![],
        servers: 0..0,
    }
}

/// Addresses with these weights.
fn answer(family: Family, weights: &[u16]) -> Answer {
    let addresses = weights.iter().zip(1..).map(|(weight, number)| Weighted {
        address: match family {
            Family::V4 => Ipv4Addr::from(0xc000_0200 + number).into(),
            Family::V6 => Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number)).into(),
        },
        weight: NonZeroU16::new(*weight).unwrap(),
    });
    Answer::Addresses(addresses.collect())
}

fn records(service: &Service, family: Family, weights: &[u16]) -> Records {
    match AddressAnswer::new(service, &answer(family, weights), family) {
        AddressAnswer::Records(records) => records,
        other => panic!("{other:?}"),
    }
}

/// The records that the program makes of an inline answer, by turn.
fn made(inline: &InlineAnswer, turn: u32) -> Vec<u8> {
    let count = usize::from(inline.records);
    let len = (usize::from(inline.len) - count * InlineAnswer::HEAD_LEN) / count;
    let [a, b, c] = inline.first.map(u64::from);
    let turn = turn % u32::from(inline.turns);
    let first = (a | b << 16 | c << 32) >> (turn * InlineAnswer::TURN_BITS) & 7;
    (0..count)
        .flat_map(|index| {
            let record = (first as usize + index) % count;
            let address = &inline.addresses[record * len..][..len];
            [
                &inline.start.to_ne_bytes()[..],
                &inline.middle.to_ne_bytes(),
                address,
            ]
            .concat()
        })
        .collect()
}

#[test]
fn an_inline_answer_says_what_the_records_say_turn_by_turn() {
    let service = service(None);
    for (family, weights) in [
        (Family::V4, &[1][..]),
        (Family::V4, &[1, 1]),
        (Family::V4, &[3, 1]),
        (Family::V4, &[5, 1, 7]),
        (Family::V4, &[1; 8]),
        (Family::V4, &[2, 2, 2, 2, 2, 2, 2, 2]),
        (Family::V6, &[1]),
        (Family::V6, &[1, 1]),
        (Family::V6, &[9, 7]),
    ] {
        let records = records(&service, family, weights);
        let inline = records.inline().unwrap();
        for turn in 0..40 {
            let want: Vec<u8> = records.rotated(turn.into()).flatten().copied().collect();
            assert_eq!(made(&inline, turn), want, "{weights:?}, turn {turn}");
        }
        // Type and class are those of the question.
        let question = &records.bytes[2..6];
        let octets = [question, &records.bytes].concat();
        assert_eq!(inline.sum, checksum::sum(&octets), "{weights:?}");
    }
}

#[test]
fn what_is_too_long_or_unusual_is_not_inline() {
    let usual = service(None);
    for (family, weights) in [
        (Family::V4, &[1; 9][..]),
        (Family::V4, &[16, 1]),
        (Family::V6, &[1, 1, 1]),
    ] {
        assert_eq!(
            records(&usual, family, weights).inline(),
            None,
            "{weights:?}"
        );
    }
    assert_eq!(
        records(&service(Some(1)), Family::V4, &[1, 1]).inline(),
        None
    );
    assert!(
        records(&service(Some(2)), Family::V4, &[1, 1])
            .inline()
            .is_some()
    );
    for answer in [AddressAnswer::NoData, AddressAnswer::Servfail] {
        assert_eq!(answer.inline(), None);
    }
}

#[test]
fn sums_are_those_of_name_tail_and_opt() {
    let mut value = tail(&[7; 41], TailHeader::EMPTY);
    value.bytes[41..52].copy_from_slice(&opt(1232));
    for name in [
        &b"\x03www\x07example\x03com\0"[..],
        b"\x04WWW2\x07Example\x03com\0",
    ] {
        let name = Name::from_octets(Bytes::copy_from_slice(name)).unwrap();
        let got = TailSums::new(name.len(), &value).with(&name);
        // Question and one A record of zeros between name and tail.
        let mut octets = name.as_slice().to_ascii_lowercase();
        octets.extend([0; 4 + 16]);
        octets.extend(&value.bytes[..41]);
        assert_eq!(got[0], checksum::sum(&octets));
        octets.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(got[1], checksum::sum(&octets));
        let flags = octets.len() - 4;
        octets[flags] = 0x80;
        assert_eq!(got[2], checksum::sum(&octets));
    }
}
