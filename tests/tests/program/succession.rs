//! One data plane hands over to the next, step by step.

use failover::dataplane::Generation;
use failover::model::{Model, SerialPolicy, ServiceId};
use failover_common::counters::Counter;

use crate::lab::{Lab, add_service, addresses, change, model, privileged, usual_addresses, zone};
use crate::packet::{Dns, Frame, NXDOMAIN};

fn ask(name: &str) -> Vec<u8> {
    Frame::v4(Dns::new(name, 1).bytes()).bytes()
}

/// `example.com` with these services, and `example.org` beside it.
fn with_services(names: &[&str]) -> Model {
    let mut model = model();
    model.zones.push(zone(
        "example.org",
        &[("ns1.example.org", "198.51.100.130")],
    ));
    for zone in &mut model.zones {
        zone.serial = SerialPolicy::Auto;
    }
    for name in names {
        add_service(&mut model, name);
    }
    model
}

/// The serial number in the denial of a name.
fn serial(lab: &Lab, name: &str) -> u32 {
    let reply = lab.ask_dns(&Dns::new(name, 1));
    assert_eq!(reply.flags & 0xf, NXDOMAIN);
    let soa = reply.authority[0].split_whitespace();
    let numbers: Vec<u32> = soa.filter_map(|word| word.parse().ok()).collect();
    // TTL, and then the record's data.
    numbers[1]
}

#[test]
fn nobody_sees_the_old_after_the_new() {
    if !privileged() {
        return;
    }
    let answer = usual_addresses();
    let mut old = Lab::new(
        with_services(&["www.example.com", "old.example.com"]),
        &[answer.clone(), answer.clone()],
    );
    // Only example.com changes.
    old.publish(1, &addresses(&["192.0.2.1"]));
    assert_eq!(serial(&old, "nobody.example.com"), 2026 + 2);
    assert_eq!(serial(&old, "nobody.example.org"), 2026 + 1);

    let mut new = Lab::unpublished(with_services(&["new.example.com", "www.example.com"]));
    new.plane.fill(&new.model).expect("room");
    new.plane.beat(None);
    let query = ask("www.example.com");
    new.assert_passes(&query, Counter::PassedStale);
    // The old one publishes on.
    old.publish(0, &addresses(&["192.0.2.7"]));
    let changes = [0, 1].map(|id| change(&new.model, ServiceId(id), &addresses(&["192.0.2.8"])));
    let changed = [None, Some(Generation(1))];
    let staged = new
        .plane
        .stage_all(old.plane.generation(), &changes, &changed)
        .expect("room");
    new.assert_passes(&query, Counter::PassedStale);
    let www = || Dns::new("www.example.com", 1);
    assert_eq!(old.ask_dns(&www()).addresses()[0].to_string(), "192.0.2.7");

    new.plane.load_bridge().expect("a bridge");
    let bridged = new.plane.approach(&mut old.plane, &[]).expect("a bridge");
    old.plane.withdraw();
    for name in ["www.example.com", "old.example.com", "nobody.example.com"] {
        old.assert_passes(&ask(name), Counter::PassedStale);
        new.assert_passes(&ask(name), Counter::PassedStale);
    }
    assert_eq!(new.plane.commit(staged, Some(&bridged)), Generation(4));
    assert_eq!(new.plane.land(bridged).len(), 0);
    for name in ["www.example.com", "new.example.com"] {
        assert_eq!(
            new.ask_dns(&Dns::new(name, 1)).addresses()[0].to_string(),
            "192.0.2.8"
        );
    }
    assert_eq!(
        new.ask_dns(&Dns::new("old.example.com", 1)).flags & 0xf,
        NXDOMAIN
    );
    assert_eq!(serial(&new, "nobody.example.com"), 2026 + 4);
    // Nothing has changed there.
    assert_eq!(serial(&new, "nobody.example.org"), 2026 + 1);
    old.assert_passes(&query, Counter::PassedStale);

    // The new one goes on as any other.
    assert_eq!(new.publish(1, &addresses(&["192.0.2.9"])), Generation(5));
    assert_eq!(new.ask_dns(&www()).addresses()[0].to_string(), "192.0.2.9");
    assert_eq!(serial(&new, "nobody.example.com"), 2026 + 5);
    assert_eq!(serial(&new, "nobody.example.org"), 2026 + 1);

    // What the old one has counted outlives it.
    let Lab { plane, program, .. } = old;
    drop(program);
    let meters = std::sync::Arc::clone(plane.meters());
    let before = meters.readings().expect("readings");
    let readings = plane.retire().expect("readings");
    assert_eq!(readings, before);
    assert_eq!(
        (readings.counters.answered, readings.counters.passed_stale),
        (1, 4)
    );
    assert_eq!(readings.hits.len(), 2);
    assert_eq!((readings.hits[0].a, readings.hits[1].a), (1, 0));
    assert_eq!(meters.readings().expect("readings"), before);
}
