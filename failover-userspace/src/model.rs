//! The validated configuration as plain data: ids instead of names, no I/O.
//!
//! [`crate::config`] is the only producer of a [`Model`]; everything downstream
//! (health, policy, wire, data plane) reads it and never changes it. A reload
//! produces another `Model`. Ids are indices into the model's vectors and are
//! meaningless in any other model.

mod check;
mod diff;
mod webhook;
mod zone_data;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::base::{Serial, Ttl};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::rights::Access;

pub use check::{ExecCheck, HttpCheck, HttpMethod, Tls, Trust};
pub use diff::{Altered, Changes, Content, Difference, Lineage, Succession, compare};
pub use webhook::{Secret, Webhook};
pub use zone_data::{RecordData, Rrset, ZoneData, find, suffixes};

/// A domain name in wire format, absolute, lower-cased.
pub type Name = domain::base::Name<bytes::Bytes>;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The id as an index into the model's vector.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// Index into [`Model::zones`].
    ZoneId
);
id!(
    /// Index into [`Model::wans`].
    WanId
);
id!(
    /// Index into [`Model::services`].
    ServiceId
);
id!(
    /// Index into [`Model::servers`].
    ServerId
);
id!(
    /// Index into [`Model::probes`].
    ProbeId
);

/// Number of a published snapshot; grows by one with each publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything the daemon was told to do.
#[derive(Clone, Debug)]
pub struct Model {
    /// The `[server]` section.
    pub settings: Settings,
    /// How connections to WAN addresses are forwarded; `None`: they are not.
    pub port_forward: Option<PortForward>,
    /// Zones this daemon is authoritative for.
    pub zones: Vec<Zone>,
    /// Uplinks of this site.
    pub wans: Vec<Wan>,
    /// Names whose addresses depend on the health of servers.
    pub services: Vec<Service>,
    /// The servers of all services; those of one service are adjacent.
    pub servers: Vec<Server>,
    /// What is probed; equal targets with equal checks appear once.
    pub probes: Vec<Probe>,
    /// Who is told of events.
    pub webhooks: Vec<Webhook>,
}

/// Settings of the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Interfaces the XDP program is attached to.
    pub interfaces: Vec<String>,
    /// Our name server addresses: only queries to one of these are answered.
    pub listen: Vec<IpAddr>,
    /// UDP and TCP port of the name server.
    pub port: NonZeroU16,
    /// How the XDP program is attached.
    pub xdp: XdpMode,
    /// Largest UDP payload we send and announce, in octets (RFC 6891).
    pub edns_udp_size: u16,
    /// Who we are, to those who ask for it (RFC 5001).
    pub nsid: Option<String>,
    /// Key of our server cookies; `None`: cookies are ignored.
    pub cookies: Option<CookieSecret>,
    /// Unix socket of the command line.
    pub control_socket: PathBuf,
    /// Who may use it, and what for.
    pub control: Access,
    /// Where verdicts and admin states survive a restart.
    pub state_dir: PathBuf,
    /// Directory on a BPF file system for pins.
    pub bpf_dir: PathBuf,
    /// How old the controller's heartbeat may get before XDP stops answering; `None`: for ever.
    pub max_stale: Option<Duration>,
    /// Where Prometheus finds `/metrics`; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// The `[port_forward]` section, enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortForward {
    /// Forwarded connections come from this host, for servers whose way back to clients does not
    /// lead through it.
    pub snat: bool,
}

impl Settings {
    /// Our name server addresses with their port.
    pub fn listen_sockets(&self) -> impl Iterator<Item = SocketAddr> {
        let listen = self.listen.iter();
        listen.map(|address| SocketAddr::new(*address, self.port.get()))
    }
}

/// Key of the hash in server cookies (RFC 9018 section 4); servers that share it accept each
/// other's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CookieSecret(pub [u8; 16]);

impl CookieSecret {
    /// One that nobody else has.
    ///
    /// # Errors
    ///
    /// If the kernel has no random numbers, which it always has.
    pub fn random() -> std::io::Result<Self> {
        let mut secret = [0; 16];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self(secret))
    }
}

impl std::fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecret")
    }
}

/// `xdp = …`: how the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native, else generic.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic receive path.
    Generic,
    /// No XDP program.
    Off,
}

/// A zone we are authoritative for: what every answer from it carries.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Apex.
    pub name: Name,
    /// The zone file, for messages.
    pub file: PathBuf,
    /// The SOA record's data.
    pub soa: Soa,
    /// TTL of the NS set, in seconds.
    pub ns_ttl: u32,
    /// The NS set, in the zone file's order.
    pub name_servers: Vec<NameServer>,
    /// All its records, those above included.
    pub records: Arc<ZoneData>,
    /// Where the SOA's serial number comes from.
    pub serial: SerialPolicy,
    /// Who may transfer the zone.
    pub allow_transfer: Vec<IpNet>,
    /// Who is told that the zone has changed.
    pub notify: Vec<SocketAddr>,
}

impl Zone {
    /// The SOA's serial number while the last change of an answer in the zone is that of
    /// `changed`.
    ///
    /// Generations only grow, over restarts too, and so does the number (RFC 1982), unless the
    /// one in the zone file is set back.
    #[must_use]
    pub const fn serial_after(&self, changed: Generation) -> u32 {
        match self.serial {
            SerialPolicy::File => self.soa.serial,
            SerialPolicy::Auto => self.soa.serial.wrapping_add(changed.0 as u32),
        }
    }

    /// Data of the SOA record with this serial number.
    #[must_use]
    pub fn soa_data(&self, serial: u32) -> RecordData {
        let soa = &self.soa;
        RecordData::Soa(domain::rdata::Soa::new(
            soa.mname.clone(),
            soa.rname.clone(),
            Serial(serial),
            Ttl::from_secs(soa.refresh),
            Ttl::from_secs(soa.retry),
            Ttl::from_secs(soa.expire),
            Ttl::from_secs(soa.minimum),
        ))
    }

    /// Whether a client may transfer the zone.
    #[must_use]
    pub fn may_transfer(&self, client: IpAddr) -> bool {
        self.allow_transfer
            .iter()
            .any(|network| network.contains(&client))
    }
}

/// `serial = …` of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SerialPolicy {
    /// The zone file's plus the number of the generation that last changed an answer in the
    /// zone: secondaries see every change.
    #[default]
    Auto,
    /// The zone file's.
    File,
}

/// Data of a zone's SOA record (RFC 1035 section 3.3.13), times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// TTL of the record itself.
    pub ttl: u32,
    /// Primary name server.
    pub mname: Name,
    /// Mailbox of the person responsible.
    pub rname: Name,
    /// Version of the zone.
    pub serial: u32,
    /// Refresh interval of secondaries.
    pub refresh: u32,
    /// Retry interval of secondaries.
    pub retry: u32,
    /// When secondaries give the zone up.
    pub expire: u32,
    /// TTL of negative answers (RFC 2308 section 4).
    pub minimum: u32,
}

/// One member of a zone's NS set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its host name.
    pub name: Name,
    /// Its in-zone addresses with their TTLs; empty when the name lies elsewhere.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// An uplink of this site.
#[derive(Clone, Debug)]
pub struct Wan {
    /// Its name in the configuration.
    pub name: String,
    /// Its interface: carrier counts, and probes leave through it.
    pub interface: Option<String>,
    /// Its probe targets.
    pub targets: Vec<WanTarget>,
    /// How many targets must be up for the link to be up.
    pub min_up: usize,
}

/// One target of a WAN link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WanTarget {
    /// As written, for example `icmp:198.51.100.129`.
    pub label: String,
    /// The probe that decides it.
    pub probe: ProbeId,
}

/// One or more names whose addresses depend on the health of servers.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    /// The names it answers for, each with the zone it lies in.
    pub fqdn: Vec<Fqdn>,
    /// TTL of its address records, in seconds.
    pub ttl: u32,
    /// Port of its WAN addresses.
    pub port: NonZeroU16,
    /// Answer the first WAN address whose link is up, instead of all.
    pub redundancy_only: bool,
    /// What is answered when no tier has a candidate.
    pub on_all_down: OnAllDown,
    /// How many addresses one reply carries at most; `None`: all.
    pub max_answers: Option<usize>,
    /// Its addresses on the WAN links, in configured order.
    pub wan: Vec<WanAddress>,
    /// Its servers: a range of [`Model::servers`].
    pub servers: std::ops::Range<u32>,
}

impl Service {
    /// Ids of its servers, in configured order.
    pub fn server_ids(&self) -> impl Iterator<Item = ServerId> + use<> {
        self.servers.clone().map(ServerId)
    }
}

/// One name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fqdn {
    /// The name.
    pub name: Name,
    /// The closest enclosing zone of ours.
    pub zone: ZoneId,
}

/// A public address of a service on one WAN link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WanAddress {
    /// The link it lies on.
    pub wan: WanId,
    /// The address that is answered.
    pub address: IpAddr,
    /// Its share of first places among the answered addresses.
    pub weight: NonZeroU16,
}

/// One backend of a service.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name in the configuration, unique within the service.
    pub name: String,
    /// The service it belongs to.
    pub service: ServiceId,
    /// Its own address; what is answered when it is offsite.
    pub address: IpAddr,
    /// Port it serves on.
    pub port: NonZeroU16,
    /// Its tier, or disabled.
    pub priority: Priority,
    /// Where it stands.
    pub site: Site,
    /// Its share of first places (offsite) or of connections (onsite).
    pub weight: NonZeroU16,
    /// The probes that decide its verdict: all must pass; none for a disabled server.
    pub probes: Vec<ProbeId>,
}

/// Where a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// Behind this site's WAN links: the WAN addresses are answered.
    Onsite,
    /// Elsewhere: its own address is answered.
    Offsite,
}

/// `priority = …` of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Never answered, not probed.
    Disabled,
    /// A tier of the failover order.
    #[serde(untagged)]
    Tier(Tier),
}

/// A tier of servers; the lowest one with a candidate is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Answered while any of them is up.
    Primary,
    /// Answered when no primary is up.
    Backup,
    /// Answered when no backup is up.
    Backup2,
    /// Answered when no second backup is up.
    Backup3,
}

impl Tier {
    /// All tiers, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Backup, Self::Backup2, Self::Backup3];

    /// The word used in the configuration and in status output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
            Self::Backup2 => "backup2",
            Self::Backup3 => "backup3",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// `on_all_down = …`: what is answered when no tier has a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnAllDown {
    /// As if everything were up (fail open).
    Primary,
    /// The last answer that had a candidate; as `Primary` while there was none.
    Last,
    /// NOERROR without an answer.
    Empty,
    /// SERVFAIL.
    Servfail,
    /// These addresses.
    Addresses(Vec<IpAddr>),
}

/// The definition of one health test; executed by [`crate::probe`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// What is tested.
    pub target: ProbeTarget,
    /// How its packets leave this host.
    pub egress: Egress,
    /// When and how often.
    pub timing: Timing,
}

impl Probe {
    /// What a verdict rests on, in words that stay the same over restarts: another target or
    /// another way there needs another verdict.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut text = self.target.definition();
        if let Some(interface) = &self.egress.interface {
            text += &format!(" via {interface}");
        }
        if let Some(source) = self.egress.source {
            text += &format!(" from {source}");
        }
        text
    }
}

/// What a probe tests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeTarget {
    /// A TCP handshake completes.
    Tcp(SocketAddr),
    /// An HTTP or HTTPS request gets the wanted response.
    Http(Arc<HttpCheck>),
    /// An ICMP or ICMPv6 echo is answered.
    Icmp(IpAddr),
    /// A program exits with status 0.
    Exec(Arc<ExecCheck>),
}

impl ProbeTarget {
    /// All that [`Self::kind`] says.
    pub const KINDS: [&'static str; 5] = ["tcp", "http", "https", "icmp", "exec"];

    /// `type` of the check in the configuration.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Http(check) if check.tls.is_some() => "https",
            Self::Http(_) => "http",
            Self::Icmp(_) => "icmp",
            Self::Exec(_) => "exec",
        }
    }

    /// The address that is tested.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Tcp(address) => address.ip(),
            Self::Http(check) => check.address.ip(),
            Self::Icmp(address) => *address,
            Self::Exec(check) => check.address,
        }
    }

    /// All that a verdict on it rests on, in words that stay the same over restarts.
    #[must_use]
    pub fn definition(&self) -> String {
        match self {
            Self::Tcp(_) | Self::Icmp(_) => self.to_string(),
            Self::Http(check) => format!("{self} {}", check.criteria()),
            Self::Exec(check) => {
                let (address, port) = (check.address, check.port);
                format!("{self} for {}", SocketAddr::new(address, port.get()))
            }
        }
    }
}

impl std::fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind();
        match self {
            Self::Tcp(address) => write!(f, "{kind}:{address}"),
            Self::Http(check) => write!(f, "{kind}:{check}"),
            Self::Icmp(address) => write!(f, "{kind}:{address}"),
            Self::Exec(check) => write!(f, "{kind}:{check}"),
        }
    }
}

/// How the packets of a probe leave this host; by default as the host routes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Egress {
    /// Interface the socket is bound to.
    pub interface: Option<String>,
    /// Source address.
    pub source: Option<IpAddr>,
}

/// When a probe runs and what its results mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// From start to start while the verdict is firm.
    pub interval: Duration,
    /// From start to start while a verdict is in doubt; never above `interval`.
    pub fastinter: Duration,
    /// After which a probe without an answer has failed.
    pub timeout: Duration,
    /// Consecutive successes that make a target `up`.
    pub rise: u8,
    /// Failures that make it `down`.
    pub fall: u8,
}

/// In which zones the names of each service lie.
#[derive(Clone, Debug, Default)]
pub struct ServiceZones {
    /// Zones of all services, one service's after the other's.
    zones: Vec<ZoneId>,
    /// Where those of each service start.
    starts: Vec<u32>,
}

impl ServiceZones {
    /// Those of a model's services.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        let mut index = Self::default();
        for service in &model.services {
            let start = index.zones.len();
            index.starts.push(start as u32);
            for fqdn in &service.fqdn {
                if !index.zones[start..].contains(&fqdn.zone) {
                    index.zones.push(fqdn.zone);
                }
            }
        }
        index
    }

    /// The zones of these services, each once.
    #[must_use]
    pub fn of(&self, services: impl IntoIterator<Item = ServiceId>) -> Vec<ZoneId> {
        let mut zones: Vec<ZoneId> = services
            .into_iter()
            .flat_map(|service| {
                let start = self.starts.get(service.index());
                let end = self.starts.get(service.index() + 1);
                let range = start.map_or(0, |start| *start as usize)
                    ..end.map_or(self.zones.len(), |end| *end as usize);
                &self.zones[range]
            })
            .copied()
            .collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }
}

impl Model {
    /// The service with this id.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.index()]
    }

    /// The server with this id.
    #[must_use]
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.index()]
    }

    /// The WAN link with this id.
    #[must_use]
    pub fn wan(&self, id: WanId) -> &Wan {
        &self.wans[id.index()]
    }

    /// The zone with this id.
    #[must_use]
    pub fn zone(&self, id: ZoneId) -> &Zone {
        &self.zones[id.index()]
    }

    /// All interfaces that matter, each once: those of the program and those of links.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<String> {
        let wans = self.wans.iter().filter_map(|wan| wan.interface.clone());
        wans.chain(self.settings.interfaces.iter().cloned())
            .collect()
    }

    /// The probe with this id.
    #[must_use]
    pub fn probe(&self, id: ProbeId) -> &Probe {
        &self.probes[id.index()]
    }
}
