//! A model, a loaded program, and the running of packets through it.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use bytes::Bytes;
use failover::dataplane::{Change, DataPlane, Generation, named_counters};
use failover::model::{
    Fqdn, Model, Name, NameServer, OnAllDown, SerialPolicy, Service, ServiceId, Settings, Soa,
    XdpMode, Zone, ZoneId,
};
use failover::policy::{Answer, Weighted};
use failover::rights::Access;
use failover::wire::{AddressAnswer, Family};
use failover_common::counters::{Counter, Counters};

use crate::packet::{Dns, Frame, Reply, check_reply};

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

/// A name in wire format, as text.
pub(crate) fn text(wire: &[u8]) -> String {
    let name = Name::from_octets(Bytes::copy_from_slice(wire));
    format!("{}.", name.expect("a name"))
}

/// An address, written as text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Zone `example.com` with two name servers, no service yet.
pub(crate) fn model() -> Model {
    Model {
        port_forward: None,
        settings: Settings {
            interfaces: vec![],
            listen: vec![ip("203.0.113.66"), ip(LISTEN_V4), ip(LISTEN_V6)],
            port: NonZeroU16::new(53).expect("not zero"),
            xdp: XdpMode::Auto,
            edns_udp_size: 1232,
            nsid: None,
            cookies: None,
            control_socket: "/nonexistent/control.sock".into(),
            control: Access::default(),
            state_dir: "/nonexistent".into(),
            bpf_dir: "/nonexistent".into(),
            max_stale: None,
            metrics: None,
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
        webhooks: vec![],
    }
}

/// A zone with name servers of one address each.
pub(crate) fn zone(apex: &str, servers: &[(&str, &str)]) -> Zone {
    let host = |label: &str| name(&format!("{label}.{}", apex.trim_start_matches('.')));
    Zone {
        name: name(apex),
        file: "example.com.zone".into(),
        soa: Soa {
            ttl: 3600,
            mname: host("ns1"),
            rname: host("hostmaster"),
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
        records: Arc::default(),
        serial: SerialPolicy::File,
        allow_transfer: Vec::new(),
        notify: Vec::new(),
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
        on_all_down: any_addresses(4),
        max_answers: None,
        wan: vec![],
        servers: 0..0,
    });
    id
}

/// The addresses of the reference case, and as many of IPv6.
pub(crate) fn usual_addresses() -> Answer {
    addresses(&[
        "198.51.100.134",
        "203.0.113.70",
        "2001:db8::134",
        "2001:db8:1::70",
    ])
}

/// Makes the loader reserve room for answers of `count` addresses of each family.
pub(crate) fn any_addresses(count: usize) -> OnAllDown {
    let mut list = vec![ip("192.0.2.1"); count];
    list.resize(2 * count, ip("2001:db8::1"));
    OnAllDown::Addresses(list)
}

/// `count` different addresses of a family.
pub(crate) fn many(family: Family, count: usize) -> Vec<IpAddr> {
    (0..count)
        .map(|i| match family {
            Family::V4 => ip(&format!("192.0.2.{i}")),
            Family::V6 => ip(&format!("2001:db8::{i:x}")),
        })
        .collect()
}

/// These addresses with equal weights.
pub(crate) fn equal(list: &[IpAddr]) -> Answer {
    let weight = NonZeroU16::MIN;
    Answer::Addresses(
        list.iter()
            .map(|address| Weighted {
                address: *address,
                weight,
            })
            .collect(),
    )
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

/// The loaded program: runs packets, on any thread.
pub(crate) struct Program(Xdp);

impl Program {
    /// Another handle of the plane's program.
    pub(crate) fn of(plane: &mut DataPlane) -> Self {
        let info = plane.program().expect("program").info().expect("info");
        let handle = Xdp::from_program_info(info, "failover".into(), XdpAttachType::Interface);
        Self(handle.expect("handle"))
    }

    /// Runs one packet: verdict and packet afterwards.
    pub(crate) fn run(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; 4096];
        let (verdict, len) = self.run_into(packet, &mut out);
        out.truncate(len);
        (verdict, out)
    }

    /// As [`Program::run`], with metadata in front of the packet, which takes up its headroom.
    pub(crate) fn run_behind(&self, metadata: &[u8], packet: &[u8]) -> (u32, Vec<u8>) {
        let data = [metadata, packet].concat();
        // `struct xdp_md`: where the packet starts and ends, counted from the metadata.
        let mut context = [0; 24];
        context[..4].copy_from_slice(&(metadata.len() as u32).to_ne_bytes());
        context[4..8].copy_from_slice(&(data.len() as u32).to_ne_bytes());
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = self.0.test_run(options).expect("test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// As [`Program::run`], into a buffer: verdict and length.
    pub(crate) fn run_into(&self, packet: &[u8], out: &mut [u8]) -> (u32, usize) {
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(out),
            ..TestRunOptions::new()
        };
        let result = self.0.test_run(options).expect("test run");
        (result.return_value, result.data_size_out as usize)
    }
}

/// The program with one published snapshot.
pub(crate) struct Lab {
    pub(crate) plane: DataPlane,
    pub(crate) model: Model,
    pub(crate) program: Program,
}

impl Lab {
    /// Loads the program and publishes an answer for each service of the model.
    pub(crate) fn new(model: Model, answers: &[Answer]) -> Self {
        assert_eq!(model.services.len(), answers.len());
        let mut lab = Self::unpublished(model);
        let changes: Vec<Change> = answers
            .iter()
            .zip(0..)
            .map(|(answer, id)| change(&lab.model, ServiceId(id), answer))
            .collect();
        lab.plane
            .publish_all(&lab.model, &changes)
            .expect("publication");
        lab.plane.beat(None);
        lab
    }

    /// Loads the program and publishes nothing.
    pub(crate) fn unpublished(model: Model) -> Self {
        let mut plane =
            DataPlane::load(&model, Generation(0)).unwrap_or_else(|error| panic!("{error:?}"));
        let program = Program::of(&mut plane);
        Self {
            plane,
            model,
            program,
        }
    }

    /// One service with one answer.
    pub(crate) fn one(fqdn: &str, answer: &Answer) -> Self {
        let mut model = model();
        add_service(&mut model, fqdn);
        Self::new(model, std::slice::from_ref(answer))
    }

    /// The reference case: `www.example.com`, two addresses of each family.
    pub(crate) fn usual() -> Self {
        Self::one("www.example.com", &usual_addresses())
    }

    /// Publishes another answer of a service.
    pub(crate) fn publish(&mut self, service: u32, answer: &Answer) -> Generation {
        let change = change(&self.model, ServiceId(service), answer);
        self.plane.publish(&[change]).expect("publication")
    }

    /// Runs one packet through the program: verdict and packet afterwards.
    pub(crate) fn run(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        self.program.run(packet)
    }

    /// Runs a query that must be answered, and checks the reply in full.
    pub(crate) fn ask(&self, query: &Frame) -> Reply {
        let query = query.bytes();
        let (verdict, reply) = self.run(&query);
        assert_eq!(verdict, TX, "not answered: {:?}", self.reasons());
        check_reply(&query, &reply)
    }

    /// Asks over IPv4.
    pub(crate) fn ask_dns(&self, query: &Dns) -> Reply {
        self.ask(&Frame::v4(query.bytes()))
    }

    /// Runs a packet that must pass unchanged, for the given reason and no other.
    pub(crate) fn assert_passes(&self, packet: &[u8], reason: Counter) {
        let before = self.counters();
        let (verdict, after) = self.run(packet);
        assert_eq!(verdict, PASS, "want {reason:?}");
        assert_eq!(after, packet, "changed; want {reason:?}");
        self.assert_counted(&before, reason);
    }

    /// `counter` is one more than before, and all others are what they were.
    pub(crate) fn assert_counted(&self, before: &Counters, counter: Counter) {
        let after = self.counters();
        let changed: Vec<_> = Counter::ALL
            .iter()
            .map(|c| (*c, after.get(*c) - before.get(*c)))
            .filter(|(_, n)| *n > 0)
            .collect();
        assert_eq!(changed, [(counter, 1)]);
    }

    /// The program's counters.
    pub(crate) fn counters(&self) -> Counters {
        self.plane.counters().expect("counters")
    }

    /// The counters that are not zero.
    pub(crate) fn reasons(&self) -> Vec<(&'static str, u64)> {
        named_counters(&self.counters())
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

/// Keeps this thread on one CPU, so that one set of counters turns the rotation.
pub(crate) fn stay_on_one_cpu() {
    let mut one = rustix::thread::CpuSet::new();
    one.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &one).expect("affinity");
}

/// Whether this run may load BPF programs; otherwise says that the test was skipped.
pub(crate) fn privileged() -> bool {
    let privileged = std::env::var_os("FAILOVER_PRIVILEGED").is_some();
    if !privileged {
        eprintln!("skipped: needs root; run `cargo xtask test`");
    }
    privileged
}
