//! The reference case as a network, as plain data.
//!
//! ```text
//!                              ┌──────┐
//!    client ───────────────────┤      ├─────────────────── offsite 192.0.2.200
//!    192.0.2.18                │      │
//!                              │ inet │ 192.0.2.53, 192.0.2.54 (targets of the WAN checks)
//!    198.51.100.130, .134  wan1│      │
//!         ┌────────────────────┤ .129 │
//!         │                wan2│      │
//!    ┌────┴─┐ 203.0.113.66,.70 │      │
//!    │  ns  ├──────────────────┤ .65  │
//!    └┬──┬─┬┘               oob│      │
//!     │  │ └───────────────────┤      │  100.64.0.0/30, the third way
//!     │  │                     └──────┘
//!     │  └─ lan-b ── web-b 192.168.10.11
//!     └──── lan-a ── web-a 192.168.10.10
//! ```
//!
//! - `ns` runs the daemon. What leaves it from an address of a WAN link leaves by that link.
//! - `inet` takes a WAN link down by setting its own end down, so that `ns` loses the carrier. Its
//!   backup routes then lead to the same addresses through `oob`, which is how a client still
//!   gets an answer with both WAN links down.
//! - Each IPv4 network has an IPv6 network beside it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The name server's address on wan1, ns1.example.com.
pub const NS1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 130));
/// The name server's address on wan2, ns2.example.com.
pub const NS2: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));
/// The name server's IPv6 address on wan1.
pub const NS1_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x130));
/// The name server's IPv6 address on wan2.
pub const NS2_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x66));

/// The interfaces of `ns` that the XDP program is attached to.
pub const INTERFACES: [&str; 3] = ["wan1", "wan2", "oob"];

/// A machine of the lab, each in a namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Asks.
    Client,
    /// Answers: the name server and router of the site.
    Ns,
    /// Everything between: the upstream router of all the others.
    Inet,
    /// The primary web server.
    WebA,
    /// The backup web server.
    WebB,
    /// The web server at another site.
    Offsite,
}

impl Host {
    /// Every host.
    pub const ALL: [Self; 6] = [
        Self::Client,
        Self::Ns,
        Self::Inet,
        Self::WebA,
        Self::WebB,
        Self::Offsite,
    ];

    /// The host's name, which is part of its namespace's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Ns => "ns",
            Self::Inet => "inet",
            Self::WebA => "web-a",
            Self::WebB => "web-b",
            Self::Offsite => "offsite",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A WAN link of `ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wan {
    /// The first.
    Wan1,
    /// The second.
    Wan2,
}

impl Wan {
    /// The link's name and that of its interface, at both ends.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wan1 => "wan1",
            Self::Wan2 => "wan2",
        }
    }
}

/// A TCP server that can be killed and revived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// 192.168.10.10, primary.
    WebA,
    /// 192.168.10.11, backup.
    WebB,
    /// 192.0.2.200, backup2.
    Offsite,
    /// 192.0.2.53, a target of both WAN checks.
    TargetA,
    /// 192.0.2.54, the other.
    TargetB,
}

impl Server {
    /// Every server.
    pub const ALL: [Self; 5] = [
        Self::WebA,
        Self::WebB,
        Self::Offsite,
        Self::TargetA,
        Self::TargetB,
    ];

    /// The server's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebA => "web-a",
            Self::WebB => "web-b",
            Self::Offsite => "offsite",
            Self::TargetA => "target-a",
            Self::TargetB => "target-b",
        }
    }

    /// The host it runs on.
    #[must_use]
    pub const fn host(self) -> Host {
        match self {
            Self::WebA => Host::WebA,
            Self::WebB => Host::WebB,
            Self::Offsite => Host::Offsite,
            Self::TargetA | Self::TargetB => Host::Inet,
        }
    }

    /// What it listens on. The web servers answer on every address of their host.
    #[must_use]
    pub const fn listens_on(self) -> &'static str {
        match self {
            Self::WebA | Self::WebB | Self::Offsite => "[::]:80",
            Self::TargetA => "192.0.2.53:53",
            Self::TargetB => "192.0.2.54:53",
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|server| server.name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("no server of that name; there are {names}")
            })
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|host| host.name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("no host of that name; there are {names}")
            })
    }
}

/// One end of a cable.
pub(super) struct End {
    pub(super) host: Host,
    pub(super) interface: &'static str,
    pub(super) addresses: &'static [&'static str],
}

const fn end(host: Host, interface: &'static str, addresses: &'static [&'static str]) -> End {
    End {
        host,
        interface,
        addresses,
    }
}

/// The cables, each a veth pair.
pub(super) const CABLES: &[(End, End)] = &[
    (
        end(
            Host::Ns,
            "wan1",
            &[
                "198.51.100.130/28",
                "198.51.100.134/28",
                "2001:db8:1::130/64",
                "2001:db8:1::134/64",
            ],
        ),
        end(
            Host::Inet,
            "wan1",
            &["198.51.100.129/28", "2001:db8:1::129/64"],
        ),
    ),
    (
        end(
            Host::Ns,
            "wan2",
            &[
                "203.0.113.66/28",
                "203.0.113.70/28",
                "2001:db8:2::66/64",
                "2001:db8:2::70/64",
            ],
        ),
        end(
            Host::Inet,
            "wan2",
            &["203.0.113.65/28", "2001:db8:2::65/64"],
        ),
    ),
    (
        end(Host::Ns, "oob", &["100.64.0.2/30", "2001:db8:64::2/64"]),
        end(Host::Inet, "oob", &["100.64.0.1/30", "2001:db8:64::1/64"]),
    ),
    (
        end(
            Host::Client,
            "eth0",
            &["192.0.2.18/28", "2001:db8:18::18/64"],
        ),
        end(
            Host::Inet,
            "client",
            &["192.0.2.17/28", "2001:db8:18::17/64"],
        ),
    ),
    (
        end(
            Host::Offsite,
            "eth0",
            &["192.0.2.200/28", "2001:db8:200::200/64"],
        ),
        end(
            Host::Inet,
            "offsite",
            &["192.0.2.193/28", "2001:db8:200::193/64"],
        ),
    ),
    (
        end(
            Host::Ns,
            "lan-a",
            &["192.168.10.1/32", "2001:db8:10::1/128"],
        ),
        end(
            Host::WebA,
            "eth0",
            &["192.168.10.10/24", "2001:db8:10::10/64"],
        ),
    ),
    (
        end(
            Host::Ns,
            "lan-b",
            &["192.168.10.1/32", "2001:db8:10::1/128"],
        ),
        end(
            Host::WebB,
            "eth0",
            &["192.168.10.11/24", "2001:db8:10::11/64"],
        ),
    ),
];

/// Addresses of the WAN checks' TCP targets, on the loopback of `inet`.
pub(super) const TARGETS: [&str; 2] = ["192.0.2.53/32", "192.0.2.54/32"];

/// `ip` commands that complete each host, by host.
pub(super) const ROUTES: &[(Host, &[&str])] = &[
    (
        Host::Client,
        &[
            "route add default via 192.0.2.17",
            "-6 route add default via 2001:db8:18::17",
        ],
    ),
    (
        Host::Offsite,
        &[
            "route add default via 192.0.2.193",
            "-6 route add default via 2001:db8:200::193",
        ],
    ),
    (
        Host::WebA,
        &[
            "route add default via 192.168.10.1",
            "-6 route add default via 2001:db8:10::1",
        ],
    ),
    (
        Host::WebB,
        &[
            "route add default via 192.168.10.1",
            "-6 route add default via 2001:db8:10::1",
        ],
    ),
    // The third way to the site, taken while a WAN link is down.
    (
        Host::Inet,
        &[
            "route add 198.51.100.128/28 via 100.64.0.2 metric 2000",
            "route add 203.0.113.64/28 via 100.64.0.2 metric 2000",
            "-6 route add 2001:db8:1::/64 via 2001:db8:64::2 metric 2000",
            "-6 route add 2001:db8:2::/64 via 2001:db8:64::2 metric 2000",
        ],
    ),
    (
        Host::Ns,
        &[
            "route add 192.168.10.10/32 dev lan-a",
            "route add 192.168.10.11/32 dev lan-b",
            "-6 route add 2001:db8:10::10/128 dev lan-a",
            "-6 route add 2001:db8:10::11/128 dev lan-b",
            // The offsite server is reached by the third way, whatever the WAN links do.
            "route add 192.0.2.200/32 via 100.64.0.1",
            "-6 route add 2001:db8:200::200/128 via 2001:db8:64::1",
            "route add default via 198.51.100.129 dev wan1 metric 100",
            "route add default via 203.0.113.65 dev wan2 metric 200",
            "route add default via 100.64.0.1 dev oob metric 300",
            "-6 route add default via 2001:db8:1::129 dev wan1 metric 100",
            "-6 route add default via 2001:db8:2::65 dev wan2 metric 200",
            "-6 route add default via 2001:db8:64::1 dev oob metric 300",
            // What has an address of a WAN link, or is bound to it, leaves by it.
            "route add default via 198.51.100.129 dev wan1 table 101",
            "route add default via 203.0.113.65 dev wan2 table 102",
            "-6 route add default via 2001:db8:1::129 dev wan1 table 101",
            "-6 route add default via 2001:db8:2::65 dev wan2 table 102",
            // What this host itself forwards to a server has such an address at first, too.
            "route add 192.168.10.10/32 dev lan-a table 101",
            "route add 192.168.10.11/32 dev lan-b table 101",
            "route add 192.168.10.10/32 dev lan-a table 102",
            "route add 192.168.10.11/32 dev lan-b table 102",
            "-6 route add 2001:db8:10::10/128 dev lan-a table 101",
            "-6 route add 2001:db8:10::11/128 dev lan-b table 101",
            "-6 route add 2001:db8:10::10/128 dev lan-a table 102",
            "-6 route add 2001:db8:10::11/128 dev lan-b table 102",
            "rule add pref 101 from 198.51.100.128/28 lookup 101",
            "rule add pref 102 from 203.0.113.64/28 lookup 102",
            "rule add pref 103 oif wan1 lookup 101",
            "rule add pref 104 oif wan2 lookup 102",
            "-6 rule add pref 101 from 2001:db8:1::/64 lookup 101",
            "-6 rule add pref 102 from 2001:db8:2::/64 lookup 102",
            "-6 rule add pref 103 oif wan1 lookup 101",
            "-6 rule add pref 104 oif wan2 lookup 102",
        ],
    ),
];

/// Settings under `/proc/sys/net` of every host, made before it has interfaces.
pub(super) const SYSCTLS: &[(&str, &str)] = &[
    // Addresses are usable at once, and stay while the link is down.
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/keep_addr_on_down", "1"),
    ("ipv6/conf/default/keep_addr_on_down", "1"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    // A link without carrier is not routed through.
    ("ipv4/conf/all/ignore_routes_with_linkdown", "1"),
    ("ipv4/conf/default/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/all/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/default/ignore_routes_with_linkdown", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // As systemd sets it on every Debian: ICMP echo sockets without raw sockets.
    ("ipv4/ping_group_range", "0 2147483647"),
];

/// Settings of the hosts that route.
pub(super) const ROUTER_SYSCTLS: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
