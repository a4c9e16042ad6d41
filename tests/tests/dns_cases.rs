//! The DNS cases against the pure engine, as if over both transports.

use std::time::Duration;

use failover::authority::{Authority, Origin, Snapshot, Transport};
use failover::health::Effective;
use failover::model::{Generation, Model, Server, ServiceId};
use failover::policy::{self, View};
use failover::wire::{AddressAnswer, Change, Family};
use failover_tests::cases::{self, Order, Protocol};

#[test]
fn replies_are_as_the_cases_say() {
    let loaded = failover::config::load(&cases::directory().join("failover.toml"));
    let model = loaded.unwrap_or_else(|errors| panic!("{errors}")).model;
    let authority = Authority::new(&model);
    let snapshot = all_up(&model);
    let mut failures = Vec::new();
    let cases = cases::load().unwrap();
    for case in &cases {
        for &protocol in &case.over {
            let reply = authority.answer(&snapshot, &case.query, &origin(protocol), 0);
            let found = match reply {
                Some(reply) => cases::render(&case.query, &reply).unwrap(),
                None => vec!["< silence".to_owned()],
            };
            if let Err(mismatch) = case.check(&found, Order::AsWritten) {
                failures.push(format!("{protocol:?} {mismatch}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(cases.len() > 100, "only {} cases were found", cases.len());
}

#[test]
fn every_test_of_rfc_8906_is_there() {
    let basic = ["1", "2", "3.1", "3.2", "3.3", "3.4", "4", "5"].map(|n| format!("8.1.{n}"));
    let edns = (1..=10).map(|n| format!("8.2.{n}"));
    let file = std::fs::read_to_string(cases::directory().join("rfc8906.cases")).unwrap();
    for section in basic.into_iter().chain(edns) {
        let title = format!("\n; {section} ");
        let (_, after) = file.split_once(&title).expect(&section);
        let case = after.split_once('\n').unwrap().1;
        assert!(case.starts_with("> "), "{section} has no case");
    }
}

fn origin(protocol: Protocol) -> Origin {
    Origin {
        client: [192, 0, 2, 77].into(),
        transport: match protocol {
            Protocol::Udp => Transport::Udp,
            Protocol::Tcp => Transport::Tcp {
                idle: Duration::from_secs(10),
            },
        },
        time: 0,
    }
}

/// The answers of all services with everything up but the servers called `down`.
fn all_up(model: &Model) -> Snapshot {
    let state = |server: &Server| match server.name.as_str() {
        "down" => Effective::Down,
        _ => Effective::Up,
    };
    let view = View {
        servers: &model.servers.iter().map(state).collect::<Vec<_>>(),
        wans: &vec![Effective::Up; model.wans.len()],
    };
    let changes: Vec<_> = model
        .services
        .iter()
        .zip(0..)
        .map(|(service, id)| {
            let answer = policy::decide(service, model, view, None).answer;
            Change {
                service: ServiceId(id),
                a: AddressAnswer::new(service, &answer, Family::V4),
                aaaa: AddressAnswer::new(service, &answer, Family::V6),
            }
        })
        .collect();
    Snapshot::new(Generation(1), &changes)
}
