//! One snapshot, published to the program and to the slow path.

use std::sync::Arc;

use failover::authority::{Authority, Origin, Published, Snapshot, Transport};
use failover::health::Effective;
use failover::model::{Model, OnAllDown, Service, ServiceId, ServiceZones};
use failover::policy::{self, Answer, View};
use proptest::test_runner::TestRng;

use super::queries::Query;
use super::random::percent;
use crate::lab::{Lab, change};
use crate::packet::source;

/// The configuration and its zones. Where the tests run there may be no source tree.
const FILES: [(&str, &str); 9] = [
    ("failover.toml", include_str!("data/failover.toml")),
    ("example.com.zone", include_str!("data/example.com.zone")),
    (
        "child.example.com.zone",
        include_str!("data/child.example.com.zone"),
    ),
    (
        "grand.child.example.com.zone",
        include_str!("data/grand.child.example.com.zone"),
    ),
    (
        "deep.example.com.zone",
        include_str!("data/deep.example.com.zone"),
    ),
    ("example.org.zone", include_str!("data/example.org.zone")),
    ("t.zone", include_str!("data/t.zone")),
    (
        "2.0.192.in-addr.arpa.zone",
        include_str!("data/2.0.192.in-addr.arpa.zone"),
    ),
    ("long-apex.zone", include_str!("data/long-apex.zone")),
];

/// The text of one of the files.
pub(super) fn file(name: &str) -> &'static str {
    let found = FILES.iter().find(|(file, _)| *file == name);
    found.expect("a file of the configuration").1
}

/// The same on both paths.
pub(super) struct Both {
    pub(super) lab: Lab,
    slow_path: Published,
    /// What each service answers.
    answers: Vec<Answer>,
    /// No rotation has more turns.
    turns: u64,
}

impl Both {
    /// Everything up but the servers called "down".
    pub(super) fn all_up() -> Self {
        let model = load();
        let servers: Vec<_> = model
            .servers
            .iter()
            .map(|server| match server.name.as_str() {
                "down" => Effective::Down,
                _ => Effective::Up,
            })
            .collect();
        let answers = answers(&model, &servers, &vec![Effective::Up; model.wans.len()]);
        let turns = model.services.iter().map(|s| most_turns(&model, s)).max();
        let lab = Lab::new(model, &answers);
        let changes: Vec<_> = (0..)
            .zip(&answers)
            .map(|(id, answer)| change(&lab.model, ServiceId(id), answer))
            .collect();
        let slow_path = Published {
            authority: Arc::new(Authority::new(&lab.model)),
            snapshot: Snapshot::new(lab.plane.generation(), &changes),
        };
        Self {
            slow_path,
            answers,
            turns: turns.expect("a service"),
            lab,
        }
    }

    /// Any servers and links fail or come back, the others stay. Returns how many services
    /// answer something else from now on.
    pub(super) fn toss(&mut self, rng: &mut TestRng) -> usize {
        let model = &self.lab.model;
        let mut state = |times_up| {
            if percent(rng, times_up) {
                Effective::Up
            } else {
                Effective::Down
            }
        };
        let servers: Vec<_> = model.servers.iter().map(|_| state(60)).collect();
        let wans: Vec<_> = model.wans.iter().map(|_| state(75)).collect();
        let answers = answers(model, &servers, &wans);
        let changes: Vec<_> = (0..)
            .zip(self.answers.iter().zip(&answers))
            .filter(|(_, (before, after))| before != after)
            .map(|(id, (_, after))| change(model, ServiceId(id), after))
            .collect();
        self.lab.plane.publish(&changes).expect("publication");
        let generation = self.lab.plane.generation();
        let zones = ServiceZones::new(model).of(changes.iter().map(|change| change.service));
        self.slow_path.snapshot = self.slow_path.snapshot.next(generation, &changes, &zones);
        self.answers = answers;
        changes.len()
    }

    /// The slow path's reply.
    pub(super) fn slow_path(&self, query: &Query) -> Option<Vec<u8>> {
        self.slow_path
            .answer(&query.message, &self.origin(query), 0)
    }

    /// Where a query comes from, at the time of the last heartbeat.
    fn origin(&self, query: &Query) -> Origin {
        Origin {
            client: source(&query.frame),
            transport: Transport::Udp,
            time: self.lab.plane.time(),
        }
    }

    /// Whether the slow path gives this reply, too, on one turn of the rotation. `first` is
    /// what it gives on the first.
    pub(super) fn is_slow_path(&self, query: &Query, reply: &[u8], first: Option<&[u8]>) -> bool {
        let is_reply = |turn| {
            let origin = self.origin(query);
            let answer = self.slow_path.answer(&query.message, &origin, turn);
            answer.as_deref() == Some(reply)
        };
        // Turns change the order of octets, not their number.
        first.is_some_and(|first| {
            first == reply || first.len() == reply.len() && (1..self.turns).any(is_reply)
        })
    }
}

fn load() -> Model {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in FILES {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    let loaded = failover::config::load(&directory.path().join("failover.toml"));
    loaded.unwrap_or_else(|errors| panic!("{errors}")).model
}

/// What each service answers in these states.
fn answers(model: &Model, servers: &[Effective], wans: &[Effective]) -> Vec<Answer> {
    let view = View { servers, wans };
    let decide = |service| policy::decide(service, model, view, None).answer;
    model.services.iter().map(decide).collect()
}

/// The weights of all addresses that a service could ever answer.
fn most_turns(model: &Model, service: &Service) -> u64 {
    let wan = service.wan.iter().map(|wan| wan.weight);
    let servers = service.server_ids().map(|id| model.server(id).weight);
    let listed = match &service.on_all_down {
        OnAllDown::Addresses(list) => list.len() as u64,
        OnAllDown::Primary | OnAllDown::Last | OnAllDown::Empty | OnAllDown::Servfail => 0,
    };
    let weights: u64 = wan.chain(servers).map(|w| u64::from(w.get())).sum();
    weights.max(listed)
}
