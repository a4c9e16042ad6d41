//! Sets of names: one, or many in services of a hundred.

use std::net::IpAddr;
use std::num::NonZeroU16;

use anyhow::Result;
use bytes::Bytes;
use failover::dataplane::{Change, DataPlane, Generation};
use failover::model::{
    CookieSecret, Fqdn, Model, Name, NameServer, OnAllDown, SerialPolicy, Service, ServiceId,
    Settings, Soa, XdpMode, Zone, ZoneId,
};
use failover::policy::{Answer, Weighted};
use failover::rights::Access;
use failover::wire::{AddressAnswer, Family};

use super::frame::{LISTEN_V4, LISTEN_V6};

/// Octets of a short name: `www.example.com` has as many.
pub(crate) const SHORT: usize = 17;
/// The zone of all names, in wire format: 12 octets.
pub(crate) const ZONE: &[u8] = b"\x05bench\x04test\0";
/// Names of one service.
const NAMES_PER_SERVICE: usize = 100;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameSet {
    /// How many names.
    pub names: usize,
    /// Octets of each in wire format.
    pub len: usize,
    /// No IPv6 addresses.
    pub only_v4: bool,
    /// The program looks at the age of the heartbeat, as with `max_stale` above 0.
    pub heartbeat: bool,
}

impl NameSet {
    /// One short name.
    pub(crate) const ONE: Self = Self {
        names: 1,
        len: SHORT,
        only_v4: false,
        heartbeat: false,
    };

    /// Name number `index`, in wire format: a label that counts, labels that fill, the zone.
    fn name(self, index: usize) -> Vec<u8> {
        let mut name = vec![4];
        name.extend(
            [36 * 36 * 36, 36 * 36, 36, 1].map(|place| DIGITS[index / place % DIGITS.len()]),
        );
        while let rest @ 1.. = self.len - name.len() - ZONE.len() {
            // A label takes two octets at least, so none may leave one behind.
            let label = match rest {
                65 => 62,
                rest => rest.min(64) - 1,
            };
            assert!(label > 0, "no name of {} octets", self.len);
            name.push(label as u8);
            name.extend(std::iter::repeat_n(b'x', label));
        }
        name.extend(ZONE);
        name
    }

    /// All names.
    pub(crate) fn all(self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.names).map(move |index| self.name(index))
    }

    /// Up to `most` of the names, from all over the set.
    pub(crate) fn asked(self, most: usize) -> impl Iterator<Item = Vec<u8>> {
        let count = self.names.min(most);
        (0..count).map(move |index| self.name(index * self.names / count))
    }

    /// `count` of the names in no order: the same each time.
    pub(crate) fn shuffled(self, count: usize) -> impl Iterator<Item = Vec<u8>> {
        // Neither even nor a multiple of five, so that of a power of ten no name comes twice.
        const STEP: usize = 654_435_761;
        (0..count).map(move |index| self.name(index * STEP % self.names))
    }

    /// As many names of the zone that are not in the set.
    pub(crate) fn unknown(self) -> impl Iterator<Item = Vec<u8>> {
        let count = self.names.min(1000);
        (0..count).map(move |index| self.name(self.names + index))
    }

    /// As many names of no zone of ours.
    pub(crate) fn outside(self) -> impl Iterator<Item = Vec<u8>> {
        self.unknown().map(|mut name| {
            let last = name.len() - 2;
            name[last] = b'x';
            name
        })
    }

    /// Our program with the set.
    pub(crate) fn publish(self) -> Result<DataPlane> {
        let model = self.model();
        let answer = Answer::Addresses(self.addresses());
        let mut plane = DataPlane::load(&model, Generation(0))?;
        let changes: Vec<Change> = model
            .services
            .iter()
            .zip(0..)
            .map(|(service, id)| {
                let of = |family| AddressAnswer::new(service, &answer, family);
                Change {
                    service: ServiceId(id),
                    a: of(Family::V4),
                    aaaa: of(Family::V6),
                }
            })
            .collect();
        plane.publish_all(&model, &changes)?;
        plane.beat(
            self.heartbeat
                .then_some(std::time::Duration::from_secs(86_400)),
        );
        Ok(plane)
    }

    /// Two addresses of each family.
    fn addresses(self) -> Vec<Weighted> {
        let v4 = ["198.51.100.134", "203.0.113.70"];
        let v6 = ["2001:db8::134", "2001:db8:1::70"];
        let v6 = if self.only_v4 { &[][..] } else { &v6 };
        v4.iter()
            .chain(v6)
            .map(|address| Weighted {
                address: ip(address),
                weight: NonZeroU16::MIN,
            })
            .collect()
    }

    fn model(self) -> Model {
        let names: Vec<Fqdn> = self
            .all()
            .map(|name| Fqdn {
                name: wire(name),
                zone: ZoneId(0),
            })
            .collect();
        let addresses: Vec<IpAddr> = self.addresses().iter().map(|w| w.address).collect();
        let services = names
            .chunks(NAMES_PER_SERVICE)
            .enumerate()
            .map(|(index, fqdn)| Service {
                name: format!("service-{index}"),
                fqdn: fqdn.to_vec(),
                ttl: 30,
                port: NonZeroU16::MIN,
                redundancy_only: false,
                on_all_down: OnAllDown::Addresses(addresses.clone()),
                max_answers: None,
                wan: vec![],
                servers: 0..0,
            })
            .collect();
        Model {
            port_forward: None,
            settings: Settings {
                interfaces: vec![],
                listen: vec![ip("203.0.113.66"), LISTEN_V4.into(), LISTEN_V6.into()],
                port: const { NonZeroU16::new(53).expect("not zero") },
                xdp: XdpMode::Auto,
                edns_udp_size: 1232,
                control_socket: "/nonexistent".into(),
                control: Access::default(),
                state_dir: "/nonexistent".into(),
                bpf_dir: "/nonexistent".into(),
                max_stale: None,
                metrics: None,
                nsid: None,
                cookies: Some(CookieSecret(*b"0123456789abcdef")),
            },
            zones: vec![zone()],
            wans: vec![],
            services,
            servers: vec![],
            probes: vec![],
            webhooks: vec![],
        }
    }
}

/// Two name servers in the zone, each with an address.
fn zone() -> Zone {
    let server = |label: &[u8]| wire([&[label.len() as u8], label, ZONE].concat());
    Zone {
        name: wire(ZONE.to_vec()),
        file: "bench.test.zone".into(),
        soa: Soa {
            ttl: 3600,
            mname: server(b"ns1"),
            rname: server(b"hostmaster"),
            serial: 2026,
            refresh: 7200,
            retry: 900,
            expire: 1_209_600,
            minimum: 300,
        },
        ns_ttl: 900,
        records: std::sync::Arc::default(),
        serial: SerialPolicy::File,
        allow_transfer: Vec::new(),
        notify: Vec::new(),
        name_servers: [
            (&b"ns1"[..], "198.51.100.130"),
            (&b"ns2"[..], "203.0.113.66"),
        ]
        .map(|(label, address)| NameServer {
            name: server(label),
            addresses: vec![(ip(address), 900)],
        })
        .into(),
    }
}

fn wire(octets: Vec<u8>) -> Name {
    Name::from_octets(Bytes::from(octets)).expect("a name in wire format")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
