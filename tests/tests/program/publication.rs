//! Publications: what they change, what they leave, and what they cost in slots.

use failover::dataplane::{Change, Error, Generation};
use failover::model::{OnAllDown, ServiceId};
use failover::policy::Answer;
use failover::wire::Family;

use crate::lab::{
    Lab, add_service, addresses, change, equal, ip, many, model, privileged, usual_addresses,
};
use crate::names::{crowd, crowd_address, crowd_name};
use crate::packet::Dns;

fn first_address(lab: &Lab, name: &str) -> String {
    lab.ask_dns(&Dns::new(name, 1)).addresses()[0].to_string()
}

#[test]
fn a_change_leaves_a_hundred_thousand_other_names() {
    if !privileged() {
        return;
    }
    const COUNT: usize = 100_000;
    let mut lab = crowd(COUNT);
    for changed in [0, 70_001, COUNT - 1] {
        lab.publish(changed as u32, &addresses(&["192.0.2.77"]));
        assert_eq!(first_address(&lab, &crowd_name(changed)), "192.0.2.77");
    }
    for index in (1..COUNT - 1).step_by(97).filter(|index| *index != 70_001) {
        assert_eq!(
            first_address(&lab, &crowd_name(index)),
            crowd_address(index)
        );
    }
}

#[test]
fn generations_grow_by_one() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::usual();
    assert_eq!(lab.plane.generation(), Generation(1));
    for generation in 2..10 {
        assert_eq!(lab.publish(0, &usual_addresses()), Generation(generation));
        assert_eq!(lab.plane.generation(), Generation(generation));
    }
    // Nothing changed is a publication, too.
    assert_eq!(lab.plane.publish(&[]).expect("publication"), Generation(10));
    assert_eq!(lab.ask_dns(&Dns::new("www.example.com", 1)).answer.len(), 2);
}

/// What follows too fast to be written where readers may still be is found all the same, and is in its
/// place with the next heartbeat.
#[test]
fn answers_that_change_too_fast_get_their_place_later() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::usual();
    let service = ServiceId(0);
    assert_eq!(lab.plane.inline_answers(service), 2);
    let mut fast = 0;
    for last in 1..=100 {
        lab.publish(0, &addresses(&[&format!("192.0.2.{last}"), "2001:db8::1"]));
        if lab.plane.inline_answers(service) == 0 {
            fast += 1;
        }
        let (want, name) = (format!("192.0.2.{last}"), "www.example.com");
        assert_eq!(first_address(&lab, name), want);
        if last % 10 == 0 {
            lab.plane.wait_for_readers();
            lab.plane.beat(None);
            assert_eq!(lab.plane.inline_answers(service), 2);
            assert_eq!(first_address(&lab, name), want);
        }
    }
    assert!(fast > 0, "not one was too fast");
    // What cannot be there is not, and does not come back.
    lab.publish(0, &equal(&many(Family::V4, 9)));
    lab.plane.wait_for_readers();
    lab.plane.beat(None);
    assert_eq!(lab.plane.inline_answers(service), 0);
}

/// The maps have room for little more than a thousand answers: slots are used again.
#[test]
fn slots_are_used_again() {
    if !privileged() {
        return;
    }
    let mut model = model();
    add_service(&mut model, "www.example.com");
    model.services[0].on_all_down = OnAllDown::Addresses(many(Family::V4, 9));
    let mut lab = Lab::new(model, &[Answer::Empty]);
    for round in 0..50_000u32 {
        let [_, b, c, d] = round.to_be_bytes();
        let mut list = vec![ip(&format!("10.{b}.{c}.{d}"))];
        // A large answer now and then.
        if round % 8 == 0 {
            list.extend(many(Family::V4, 8));
        }
        lab.publish(0, &equal(&list));
        if round % 1000 == 0 {
            assert!(
                lab.ask_dns(&Dns::new("www.example.com", 1))
                    .addresses()
                    .contains(&list[0])
            );
        }
    }
    assert_eq!(first_address(&lab, "www.example.com"), "10.0.195.79");
}

#[test]
fn a_full_map_leaves_the_old_snapshot() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::one("www.example.com", &addresses(&["192.0.2.1"]));
    let generation = lab.plane.generation();
    let too_much: Vec<Change> =
        vec![change(&lab.model, ServiceId(0), &addresses(&["192.0.2.2"])); 3000];
    let error = lab.plane.publish(&too_much).expect_err("full");
    assert!(
        matches!(
            error,
            Error::Full {
                map: "ANSWERS",
                needed: 3000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(lab.plane.generation(), generation);
    assert_eq!(first_address(&lab, "www.example.com"), "192.0.2.1");
    // A large answer where none was expected.
    let large = vec![change(&lab.model, ServiceId(0), &equal(&many(Family::V4, 9))); 2];
    let error = lab.plane.publish(&large).expect_err("full");
    assert!(
        matches!(
            error,
            Error::Full {
                map: "LARGE_ANSWERS",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(first_address(&lab, "www.example.com"), "192.0.2.1");
    assert_eq!(
        lab.publish(0, &addresses(&["192.0.2.3"])),
        generation.next()
    );
    assert_eq!(first_address(&lab, "www.example.com"), "192.0.2.3");
}

/// Every service can be given every answer it may ever have, all in one publication: both what
/// is configured for bad days and its usual addresses, of either family.
#[test]
fn the_maps_have_room_for_every_answer() {
    if !privileged() {
        return;
    }
    const COUNT: u32 = 1500;
    let usual = [many(Family::V4, 2), many(Family::V6, 5)].concat();
    let mut model = model();
    for index in 0..COUNT {
        let id = add_service(&mut model, &format!("h{index}.example.com"));
        add_wan(&mut model, id, &usual);
        model.services[id.index()].on_all_down = OnAllDown::Addresses(many(Family::V4, 8));
    }
    let mut lab = Lab::new(model, &vec![equal(&usual); COUNT as usize]);
    for answer in [equal(&usual), equal(&many(Family::V4, 8)), equal(&usual)] {
        let changes: Vec<_> = (0..COUNT)
            .map(|id| change(&lab.model, ServiceId(id), &answer))
            .collect();
        lab.plane.publish(&changes).expect("room");
    }
    assert_eq!(lab.ask_dns(&Dns::new("h7.example.com", 28)).answer.len(), 5);
}

fn add_wan(model: &mut failover::model::Model, service: ServiceId, list: &[std::net::IpAddr]) {
    use failover::model::{WanAddress, WanId};
    model.services[service.index()].wan = list
        .iter()
        .map(|address| WanAddress {
            wan: WanId(0),
            address: *address,
            weight: std::num::NonZeroU16::MIN,
        })
        .collect();
}
