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
fn made<const OCTETS: usize>(inline: &InlineAnswer<[u8; OCTETS]>, turn: u32) -> Vec<u8> {
    let count = usize::from(inline.counts.to_ne_bytes()[3]);
    let len = (usize::from(inline.len) - count * RECORD_HEAD_LEN) / count;
    let turn = turn % u32::from(inline.turns);
    let first = inline.first >> (turn * TURN_BITS) & 3;
    (0..count)
        .flat_map(|index| {
            let record = first as usize + index;
            let address = &inline.addresses[record * len..][..len];
            [
                &[0xc0, 12, 0, if len == 4 { 1 } else { 28 }, 0, 1][..],
                &inline.ttl.to_ne_bytes(),
                &[0, len as u8],
                address,
            ]
            .concat()
        })
        .collect()
}

#[test]
fn an_inline_answer_says_what_the_records_say_turn_by_turn() {
    for weights in [
        &[1][..],
        &[1, 1],
        &[3, 1],
        &[5, 1, 7],
        &[1; 4],
        &[2, 2, 2],
        &[4, 4, 4, 4],
        &[9, 1, 2, 4],
    ] {
        says_the_same::<{ size::A_ADDRESSES }>(Family::V4, weights);
    }
    for weights in [&[1][..], &[1, 1], &[9, 7], &[1, 1, 1], &[1, 3, 2]] {
        says_the_same::<{ size::AAAA_ADDRESSES }>(Family::V6, weights);
    }
}

fn says_the_same<const OCTETS: usize>(family: Family, weights: &[u16]) {
    let records = records(&service(None), family, weights);
    let inline = records.inline::<OCTETS>().unwrap();
    for turn in 0..40 {
        let want: Vec<u8> = records.rotated(turn.into()).flatten().copied().collect();
        assert_eq!(made(&inline, turn), want, "{weights:?}, turn {turn}");
    }
    for (sum, name_len) in inline.sums.into_iter().zip([0, 1]) {
        // Counts, a name of zeros, type and class, which are those of the records.
        let mut octets = vec![0, 1, 0, weights.len() as u8];
        octets.extend(vec![0; name_len]);
        octets.extend(&records.bytes[2..6]);
        octets.extend(&records.bytes);
        assert_eq!(sum, checksum::sum(&octets), "{weights:?}");
    }
}

#[test]
fn what_is_too_long_or_unusual_is_not_inline() {
    let usual = service(None);
    for weights in [&[1; 5][..], &[16, 1]] {
        let records = records(&usual, Family::V4, weights);
        assert_eq!(
            records.inline::<{ size::A_ADDRESSES }>(),
            None,
            "{weights:?}"
        );
    }
    let four = records(&usual, Family::V6, &[1; 4]);
    assert_eq!(four.inline::<{ size::AAAA_ADDRESSES }>(), None);
    let most = |most| {
        let records = records(&service(Some(most)), Family::V4, &[1, 1]);
        records.inline::<{ size::A_ADDRESSES }>()
    };
    assert_eq!(most(1), None);
    assert!(most(2).is_some());
    for answer in [AddressAnswer::NoData, AddressAnswer::Servfail] {
        assert_eq!(answer.inline::<{ size::A_ADDRESSES }>(), None);
    }
}

#[test]
fn sums_are_those_of_name_tail_and_opt() {
    let mut value = tail(&[7; 41], TailHeader::EMPTY);
    value.header.counts = layout::counts(2, 3);
    value.bytes[layout::TAIL_LEN..][..OPT_LEN].copy_from_slice(&opt(1232));
    for name in [
        &b"\x03www\x07example\x03com\0"[..],
        b"\x04WWW2\x07Example\x03com\0",
    ] {
        let name = Name::from_octets(Bytes::copy_from_slice(name)).unwrap();
        let got = TailSums::new(name.len(), &value).with(&name);
        // Protocol, and records in the last two sections.
        let mut octets = vec![0, 17, 0, 2, 0, 3];
        octets.extend(name.as_slice().to_ascii_lowercase());
        // Question and one A record of zeros between name and tail.
        octets.extend([0; 4 + 16]);
        octets.extend(value.records());
        assert_eq!(got[0], checksum::sum(&octets));
        octets.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        octets[5] = 4;
        assert_eq!(got[1], checksum::sum(&octets));
        let flags = octets.len() - 4;
        octets[flags] = 0x80;
        assert_eq!(got[2], checksum::sum(&octets));
    }
}
