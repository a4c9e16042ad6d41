//! What the command line and the daemon say to each other over the unix socket.
//!
//! One JSON value per line: a [`Request`] from the client, a [`Reply`] from the daemon; as
//! many as the client likes, one after another. To [`Request::Events`] there are several
//! replies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataplane::{AttachedMode, Generation};
use crate::health::{Admin, AdminState, Carrier, Effective, Order, Verdict};
use crate::journal::{Entry, Filter};
use crate::model::{Difference, Priority, Tier};
use crate::policy::{ServerStanding, WanStanding};
use crate::rights::Right;

/// The longest request, in octets.
pub const MAX_REQUEST: usize = 1 << 16;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What is answered now, and what that rests on.
    Status {},
    /// Why a name is answered as it is.
    Explain {
        /// One of a service's names, or the name of a service.
        name: String,
    },
    /// Counters.
    Stats {},
    /// What has happened. The replies: a [`Reply::Event`] for each entry, the oldest first, and
    /// then [`Reply::UpToDate`].
    Events {
        /// Which entries.
        filter: Filter,
        /// Only so many of the newest.
        last: Option<usize>,
        /// Goes on with a [`Reply::Event`] for each entry as it comes, until the client hangs up
        /// or a [`Reply::Error`] says that there will be no more.
        follow: bool,
    },
    /// Set the admin state of servers and links, all of them or none.
    Set {
        /// `SERVICE/SERVER` or `wan/NAME`, with `*` and `?`.
        targets: Vec<String>,
        /// What to.
        order: Order,
    },
    /// Take the program off all interfaces and the rules of port forwarding out of the kernel, and
    /// end.
    Detach {},
    /// Read the configuration again and do as it says.
    Reload {},
}

impl Request {
    /// What it takes to be answered.
    #[must_use]
    pub const fn right(&self) -> Right {
        match self {
            Self::Status {} | Self::Explain { .. } | Self::Stats {} | Self::Events { .. } => {
                Right::Read
            }
            Self::Set { .. } | Self::Detach {} | Self::Reload {} => Right::Change,
        }
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Explain`].
    Explain(Box<Explain>),
    /// To [`Request::Stats`].
    Stats(Stats),
    /// To [`Request::Events`]: one entry.
    Event(Box<Entry>),
    /// To [`Request::Events`]: all that there was has been sent.
    UpToDate {},
    /// To [`Request::Set`].
    Set(SetResult),
    /// To [`Request::Detach`].
    Detached(Detached),
    /// To [`Request::Reload`].
    Reloaded(Box<Reloaded>),
    /// To [`Request::Reload`]: every error, and nothing has changed.
    NotReloaded(Vec<String>),
    /// Refused, and why.
    Error(String),
}

/// What has been taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// The interfaces that the program was taken off.
    pub interfaces: Vec<String>,
    /// The rules of port forwarding, or why they are still there.
    pub rules: Result<Removed, String>,
}

/// Of the rules of port forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removed {
    /// The table `inet failover`, which is gone now.
    Table,
    /// Nothing: there was none.
    Nothing,
}

/// `failover status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The published generation; 0: nothing published yet.
    pub generation: Generation,
    /// Where queries are answered.
    pub listen: Vec<SocketAddr>,
    /// The interfaces of the configuration.
    pub interfaces: Vec<InterfaceStatus>,
    /// The services.
    pub services: Vec<ServiceStatus>,
    /// The WAN links.
    pub wans: Vec<WanStatus>,
    /// Packets.
    pub counters: PacketCounters,
    /// Connections to the WAN addresses.
    #[serde(default)]
    pub port_forward: PortForwardStatus,
}

/// How port forwarding does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwardStatus {
    /// Whether the configuration asks for it.
    pub enabled: bool,
    /// Whether the kernel has the rules that the answers call for.
    pub applied: bool,
    /// What is wrong; `None`: nothing.
    pub error: Option<String>,
    /// How many addresses, each with a port, the kernel's rules forward.
    pub rules: usize,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How the program is attached.
    pub xdp: XdpState,
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpState {
    /// In the driver.
    Native,
    /// In the kernel's generic receive path.
    Generic,
    /// Not at all: nothing has been published yet, the interface is missing, or it refuses.
    Detached,
}

impl From<Option<AttachedMode>> for XdpState {
    fn from(mode: Option<AttachedMode>) -> Self {
        match mode {
            Some(AttachedMode::Native) => Self::Native,
            Some(AttachedMode::Generic) => Self::Generic,
            None => Self::Detached,
        }
    }
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The names it answers for.
    pub fqdn: Vec<String>,
    /// The tier that is answered; `None`: no tier has a candidate.
    pub tier: Option<Tier>,
    /// Why, in words.
    pub reason: String,
    /// What is answered; no addresses: see `rcode`.
    pub answer: Vec<IpAddr>,
    /// `NOERROR` or `SERVFAIL`.
    pub rcode: String,
    /// TTL of the addresses, in seconds.
    pub ttl: u32,
    /// When the answer last changed.
    pub since: Timestamp,
    /// The generation that brought it.
    pub generation: Generation,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name, unique within the service.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// Its port.
    pub port: NonZeroU16,
    /// Its tier, or disabled.
    pub priority: Priority,
    /// Whether its own address is answered.
    pub offsite: bool,
    /// What the checks say.
    pub verdict: Verdict,
    /// What the operator says.
    #[serde(flatten)]
    pub admin: Admin,
    /// What follows from both.
    pub effective: Effective,
    /// When `effective` last changed.
    pub since: Timestamp,
    /// Why the last probe failed, and of several checks which one; `None`: none did.
    pub last_error: Option<String>,
    /// How long the last probe took that succeeded, in microseconds; of several checks the
    /// slowest.
    pub rtt_us: Option<u64>,
    /// Its checks, all of which must pass; none when it is disabled.
    pub checks: Vec<CheckStatus>,
}

/// One check of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// What is checked, for example `tcp:192.0.2.1:80`.
    pub check: String,
    /// What it says.
    pub verdict: Verdict,
    /// Why the last probe failed; `None`: it did not.
    pub last_error: Option<String>,
    /// The same as one word from a fixed set, as in the counters of probes.
    pub reason: Option<String>,
    /// How long the last probe took that succeeded, in microseconds.
    pub rtt_us: Option<u64>,
}

/// One WAN link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanStatus {
    /// Its name.
    pub name: String,
    /// What the checks say.
    pub verdict: Verdict,
    /// What the operator says.
    #[serde(flatten)]
    pub admin: Admin,
    /// What follows from both.
    pub effective: Effective,
    /// When `effective` last changed.
    pub since: Timestamp,
    /// Its interface.
    pub interface: Option<String>,
    /// Whether its interface has carrier; `None`: not known yet.
    pub carrier: Option<Carrier>,
    /// Targets that must be up.
    pub min_up: usize,
    /// Its targets.
    pub targets: Vec<TargetStatus>,
}

/// One target of a WAN link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// As in the configuration.
    pub target: String,
    /// What the checks say.
    pub verdict: Verdict,
    /// Why the last probe failed; `None`: it did not.
    pub last_error: Option<String>,
    /// How long the last probe took that succeeded, in microseconds.
    pub rtt_us: Option<u64>,
}

/// Packets since the program was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounters {
    /// Seen by the XDP program.
    pub rx: u64,
    /// Answered by it.
    pub answered: u64,
    /// Passed by it.
    pub passed: u64,
    /// Answered by user space.
    pub slow_path: u64,
}

/// `failover explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The name that was asked for.
    pub name: String,
    /// The service it belongs to, as in [`Status`].
    pub service: ServiceStatus,
    /// The service's WAN addresses.
    pub wans: Vec<ExplainWan>,
    /// The part of each of `service.servers` in the answer.
    pub standings: Vec<ServerStanding>,
    /// Where connections to its IPv4 WAN addresses are forwarded; `None`: nowhere.
    #[serde(default)]
    pub forward_v4: Option<ExplainForward>,
    /// The same for IPv6.
    #[serde(default)]
    pub forward_v6: Option<ExplainForward>,
    /// Whether the published answer is the one decided.
    pub published: bool,
    /// Where XDP answers.
    pub interfaces: Vec<InterfaceStatus>,
}

/// Where connections are forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainForward {
    /// The tier of the servers.
    pub tier: Tier,
    /// Their names.
    pub servers: Vec<String>,
}

/// One WAN address of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainWan {
    /// The address.
    pub address: IpAddr,
    /// Its part in the answer.
    pub standing: WanStanding,
    /// Its link.
    pub link: WanStatus,
}

/// `failover stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The published generation.
    pub generation: Generation,
    /// Counters of the XDP program by name, in packets.
    pub counters: BTreeMap<String, u64>,
    /// Counters of user space by name: messages, connections, transfers.
    #[serde(default)]
    pub slow_path: BTreeMap<String, u64>,
    /// Answers by service.
    pub services: Vec<ServiceStats>,
    /// Probes by kind and outcome.
    pub probes: BTreeMap<String, BTreeMap<String, u64>>,
    /// Entries of the journal since the start.
    #[serde(default)]
    pub journal: JournalStats,
    /// Who is told of events over HTTP.
    #[serde(default)]
    pub webhooks: Vec<WebhookStats>,
}

/// Entries of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStats {
    /// Entered.
    pub recorded: u64,
    /// Not entered, as there were too many at once.
    pub lost: u64,
}

/// What became of the events for one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStats {
    /// Its name.
    pub name: String,
    /// Taken by it.
    pub sent: u64,
    /// Refused by it for good, or given up.
    pub failed: u64,
    /// Dropped, as newer ones needed the room.
    pub dropped: u64,
    /// Tries that failed and were made again.
    pub retries: u64,
    /// Waiting.
    pub queued: u64,
}

/// Answers of the XDP program for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its name.
    pub name: String,
    /// To queries for A.
    pub a: u64,
    /// To queries for AAAA.
    pub aaaa: u64,
}

/// `failover set`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetResult {
    /// The published generation.
    pub generation: Generation,
    /// Whether what follows from it is answered already; `false` when that takes longer than a
    /// client should wait, as while nothing has been published yet.
    pub published: bool,
    /// Whether it would outlive a crash: the state file has it.
    pub saved: bool,
    /// Everybody who was meant.
    pub targets: Vec<SetTarget>,
    /// The services that depend on them.
    pub services: Vec<SetService>,
}

/// A server or link that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTarget {
    /// `SERVICE/SERVER` or `wan/NAME`.
    pub target: String,
    /// What the operator said before.
    pub before: AdminState,
    /// Whether the order was news: another state, reason or end than before.
    pub changed: bool,
    /// What the operator says now.
    #[serde(flatten)]
    pub admin: Admin,
    /// What the checks say.
    pub verdict: Verdict,
    /// What follows from both.
    pub effective: Effective,
}

/// A service that depends on what was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetService {
    /// Its name.
    pub name: String,
    /// Whether it is answered otherwise than before.
    pub changed: bool,
    /// The tier that is answered; `None`: no tier has a candidate.
    pub tier: Option<Tier>,
    /// Why, in words.
    pub reason: String,
    /// What is answered; no addresses: see `rcode`.
    pub answer: Vec<IpAddr>,
    /// `NOERROR` or `SERVFAIL`.
    pub rcode: String,
}

/// `failover reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation that is published now.
    pub generation: Generation,
    /// What has changed; nothing, if the configuration says what it said before.
    pub difference: Difference,
    /// What an operator may want to look at.
    pub warnings: Vec<String>,
}
