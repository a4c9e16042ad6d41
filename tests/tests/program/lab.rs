//! A model, a loaded program, and the running of packets through it.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use aya::programs::{TestRun, TestRunOptions};
use bytes::Bytes;
use failover::dataplane::{Change, DataPlane, Generation, named_counters};
use failover::model::{
    Fqdn, Model, Name, NameServer, OnAllDown, Service, ServiceId, Settings, Soa, XdpMode, Zone,
    ZoneId,
};
use failover::policy::{Answer, Weighted};
use failover::wire::{AddressAnswer, Family};

/// `XDP_PASS`.
pub(crate) const PASS: u32 = 2;
/// `XDP_TX`.
pub(crate) const TX: u32 = 3;

/// Our IPv4 address.
pub(crate) const LISTEN_V4: &str = "198.51.100.130";
/// Our IPv6 address.
pub(crate) const LISTEN_V6: &str = "2001:db8:130::53";

/// A name, written as text.
pub(crate) fn name(text: &str) -> Name {
    let name = domain::base::Name::<Vec<u8>>::from_str(text).expect("a name");
    Name::from_octets(Bytes::from(name.into_octets().to_ascii_lowercase())).expect("a name")
}

/// An address, written as text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Zone `example.com` with two name servers, no service yet.
pub(crate) fn model() -> Model {
    Model {
        settings: Settings {
            interfaces: vec![],
            listen: vec![ip("203.0.113.66"), ip(LISTEN_V4), ip(LISTEN_V6)],
            port: NonZeroU16::new(53).expect("not zero"),
            xdp: XdpMode::Auto,
            edns_udp_size: 1232,
            control_socket: "/nonexistent/control.sock".into(),
            state_dir: "/nonexistent".into(),
            bpf_dir: "/nonexistent".into(),
            max_stale: None,
        },
        zones: vec![zone(
            "example.com",
            &[
                ("ns1.example.com", "198.51.100.130"),
                ("ns2.example.com", "203.0.113.66"),
            ],
        )],
        wans: vec![],
        services: vec![],
        servers: vec![],
        probes: vec![],
    }
}

/// A zone with name servers of one address each.
pub(crate) fn zone(apex: &str, servers: &[(&str, &str)]) -> Zone {
    Zone {
        name: name(apex),
        file: "example.com.zone".into(),
        soa: Soa {
            ttl: 3600,
            mname: name(&format!("ns1.{apex}")),
            rname: name(&format!("hostmaster.{apex}")),
            serial: 2026,
            refresh: 7200,
            retry: 900,
            expire: 1_209_600,
            minimum: 300,
        },
        ns_ttl: 900,
        name_servers: servers
            .iter()
            .map(|(server, address)| NameServer {
                name: name(server),
                addresses: vec![(ip(address), 900)],
            })
            .collect(),
    }
}

/// Adds a service with one name in the closest zone.
pub(crate) fn add_service(model: &mut Model, fqdn: &str) -> ServiceId {
    let id = ServiceId(model.services.len() as u32);
    let fqdn = name(fqdn);
    let zone = model
        .zones
        .iter()
        .enumerate()
        .filter(|(_, z)| fqdn.ends_with(&z.name))
        .max_by_key(|(_, z)| z.name.len());
    let zone = ZoneId(zone.expect("a zone").0 as u32);
    model.services.push(Service {
        name: format!("service-{}", id.0),
        fqdn: vec![Fqdn { name: fqdn, zone }],
        ttl: 30,
        port: NonZeroU16::new(80).expect("not zero"),
        redundancy_only: false,
        on_all_down: OnAllDown::Addresses(vec![ip("192.0.2.1"); 64]),
        max_answers: None,
        wan: vec![],
        servers: 0..0,
    });
    id
}

/// Addresses of equal weight.
pub(crate) fn addresses(list: &[&str]) -> Answer {
    weighted(&list.iter().map(|address| (*address, 1)).collect::<Vec<_>>())
}

/// Addresses with weights.
pub(crate) fn weighted(list: &[(&str, u16)]) -> Answer {
    Answer::Addresses(
        list.iter()
            .map(|(address, weight)| Weighted {
                address: ip(address),
                weight: NonZeroU16::new(*weight).expect("not zero"),
            })
            .collect(),
    )
}

/// The change that makes `service` answer `answer`.
pub(crate) fn change(model: &Model, service: ServiceId, answer: &Answer) -> Change {
    let of = |family| AddressAnswer::new(model.service(service), answer, family);
    Change {
        service,
        a: of(Family::V4),
        aaaa: of(Family::V6),
    }
}

/// The program with one published snapshot.
pub(crate) struct Lab {
    pub plane: DataPlane,
    pub model: Model,
}

impl Lab {
    /// Loads the program and publishes an answer for each service of the model.
    pub fn new(model: Model, answers: &[Answer]) -> Self {
        assert_eq!(model.services.len(), answers.len());
        let mut plane =
            DataPlane::load(&model, Generation(0)).unwrap_or_else(|error| panic!("{error:?}"));
        let changes: Vec<Change> = answers
            .iter()
            .zip(0..)
            .map(|(answer, id)| change(&model, ServiceId(id), answer))
            .collect();
        plane.publish_all(&model, &changes).expect("publication");
        plane.beat(None);
        Self { plane, model }
    }

    /// The usual case: `www.example.com`, two addresses of each family.
    pub fn usual() -> Self {
        let mut model = model();
        add_service(&mut model, "www.example.com");
        let answer = addresses(&[
            "198.51.100.134",
            "203.0.113.70",
            "2001:db8::134",
            "2001:db8:1::70",
        ]);
        Self::new(model, &[answer])
    }

    /// Publishes another answer of a service.
    pub fn publish(&mut self, service: u32, answer: &Answer) -> Generation {
        let change = change(&self.model, ServiceId(service), answer);
        self.plane.publish(&[change]).expect("publication")
    }

    /// Runs one packet through the program: verdict and packet afterwards.
    pub fn run(&mut self, packet: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 4096];
        let result = self
            .plane
            .program()
            .expect("program")
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut out),
                ..TestRunOptions::new()
            })
            .expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Runs a packet that must be answered.
    pub fn answer(&mut self, packet: &[u8]) -> Vec<u8> {
        let (verdict, reply) = self.run(packet);
        assert_eq!(verdict, TX, "not answered: {:?}", self.last_reason());
        reply
    }

    /// The counters that are not zero.
    pub fn last_reason(&self) -> Vec<(&'static str, u64)> {
        named_counters(&self.plane.counters().expect("counters"))
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    /// One counter by name.
    pub fn counter(&self, name: &str) -> u64 {
        let counters = named_counters(&self.plane.counters().expect("counters"));
        counters
            .iter()
            .find(|(n, _)| *n == name)
            .unwrap_or_else(|| panic!("no counter {name}"))
            .1
    }
}

/// Whether this run may load BPF programs; otherwise says that the test was skipped.
pub(crate) fn privileged() -> bool {
    let privileged = std::env::var_os("FAILOVER_PRIVILEGED").is_some();
    if !privileged {
        eprintln!("skipped: needs root; run `cargo xtask test`");
    }
    privileged
}
