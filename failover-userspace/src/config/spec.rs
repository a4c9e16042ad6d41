//! The file as written: every section with the place of every value.
//!
//! Reading one value never looks at another; that is [`super::build`]'s work.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::access::WhoSpec;
use super::check::{CheckSpec, ChecksSpec};
use super::reader::{Field, List, Node, Table, Tables};
use super::report::{Report, Span};
use super::value;
use super::webhook::WebhookSpec;
use crate::model::{
    CookieSecret, Name, OnAllDown, Priority, ProbeTarget, SerialPolicy, Tier, XdpMode,
};

/// The whole file.
pub(super) struct Spec {
    pub(super) server: Field<ServerSpec>,
    pub(super) zones: Tables<ZoneSpec>,
    pub(super) check: Field<CheckSpec>,
    pub(super) wans: Tables<WanSpec>,
    pub(super) services: Tables<ServiceSpec>,
    pub(super) webhooks: Tables<WebhookSpec>,
    pub(super) port_forward: Field<PortForwardSpec>,
}

/// `[server]`.
#[derive(Clone)]
pub(super) struct ServerSpec {
    pub(super) interfaces: Field<List<String>>,
    pub(super) listen: Field<List<IpAddr>>,
    pub(super) port: Field<NonZeroU16>,
    pub(super) xdp: Field<XdpMode>,
    pub(super) edns_udp_size: Field<u16>,
    pub(super) nsid: Field<String>,
    pub(super) cookies: Field<bool>,
    pub(super) cookie_secret: Field<CookieSecret>,
    pub(super) control_socket: Field<PathBuf>,
    pub(super) control_read: Field<WhoSpec>,
    pub(super) control_change: Field<WhoSpec>,
    pub(super) state_dir: Field<PathBuf>,
    pub(super) bpf_dir: Field<PathBuf>,
    pub(super) max_stale: Field<Option<Duration>>,
    pub(super) metrics: Field<SocketAddr>,
}

/// `[[zone]]`.
pub(super) struct ZoneSpec {
    pub(super) name: Field<Name>,
    pub(super) file: Field<PathBuf>,
    pub(super) serial: Field<SerialPolicy>,
    pub(super) allow_transfer: Field<List<IpNet>>,
    pub(super) notify: Field<List<SocketAddr>>,
}

/// `[[wan]]`.
pub(super) struct WanSpec {
    pub(super) name: Field<String>,
    pub(super) interface: Field<String>,
    pub(super) source: Field<IpAddr>,
    pub(super) targets: Field<List<(String, ProbeTarget)>>,
    pub(super) min_up: Field<u16>,
}

/// `[[service]]`.
pub(super) struct ServiceSpec {
    pub(super) span: Span,
    pub(super) name: Field<String>,
    pub(super) fqdn: Field<List<Name>>,
    pub(super) ttl: Field<u32>,
    pub(super) port: Field<NonZeroU16>,
    pub(super) redundancy_only: Field<bool>,
    pub(super) on_all_down: Field<OnAllDownSpec>,
    pub(super) max_answers: Field<u16>,
    pub(super) wan: Field<List<WanAddressSpec>>,
    pub(super) check: Field<ChecksSpec>,
    pub(super) servers: Tables<BackendSpec>,
}

/// An element of a service's `wan`.
#[derive(Clone)]
pub(super) struct WanAddressSpec {
    pub(super) link: Field<String>,
    pub(super) address: Field<IpAddr>,
    pub(super) weight: Field<NonZeroU16>,
}

/// `[[service.server]]`.
pub(super) struct BackendSpec {
    pub(super) span: Span,
    pub(super) name: Field<String>,
    pub(super) address: Field<IpAddr>,
    pub(super) port: Field<NonZeroU16>,
    pub(super) priority: Field<Priority>,
    pub(super) offsite: Field<bool>,
    pub(super) weight: Field<NonZeroU16>,
    pub(super) check: Field<ChecksSpec>,
    pub(super) check_address: Field<IpAddr>,
    pub(super) via: Field<String>,
}

/// `[port_forward]`.
pub(super) struct PortForwardSpec {
    pub(super) enabled: Field<bool>,
    pub(super) snat: Field<bool>,
}

/// `on_all_down`.
#[derive(Clone)]
pub(super) enum OnAllDownSpec {
    Word(OnAllDown),
    Addresses(List<IpAddr>),
}

const XDP_MODES: [(&str, XdpMode); 4] = [
    ("auto", XdpMode::Auto),
    ("native", XdpMode::Native),
    ("generic", XdpMode::Generic),
    ("off", XdpMode::Off),
];

const SERIAL_POLICIES: [(&str, SerialPolicy); 2] =
    [("auto", SerialPolicy::Auto), ("file", SerialPolicy::File)];

const PRIORITIES: [(&str, Priority); 5] = [
    ("disabled", Priority::Disabled),
    ("primary", Priority::Tier(Tier::Primary)),
    ("backup", Priority::Tier(Tier::Backup)),
    ("backup2", Priority::Tier(Tier::Backup2)),
    ("backup3", Priority::Tier(Tier::Backup3)),
];

impl Spec {
    /// Reads the whole tree.
    pub(super) fn read(root: &DeTable<'_>, report: &mut Report<'_>) -> Self {
        let mut table = Table::root(root);
        let spec = Self {
            server: table.required("server", report, ServerSpec::read),
            zones: table.tables("zone", "[[zone]]", report, ZoneSpec::read),
            check: table.optional("check", report, CheckSpec::read),
            wans: table.tables("wan", "[[wan]]", report, WanSpec::read),
            services: table.tables("service", "[[service]]", report, ServiceSpec::read),
            webhooks: table.tables("notify", "[[notify]]", report, WebhookSpec::read),
            port_forward: table.optional("port_forward", report, PortForwardSpec::read),
        };
        table.unavailable("console", "the section [console]", report);
        table.finish(report);
        spec
    }
}

impl ServerSpec {
    fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut table = Table::open(node, report)?;
        let spec = Self {
            interfaces: table.optional("interfaces", report, value::list(value::interface)),
            listen: table.required("listen", report, value::list(value::address)),
            port: table.optional("port", report, value::positive),
            xdp: table.optional("xdp", report, value::word(&XDP_MODES)),
            edns_udp_size: table.optional("edns_udp_size", report, value::integer(512..=1232)),
            nsid: table.optional("nsid", report, value::nsid),
            cookies: table.optional("cookies", report, value::boolean),
            cookie_secret: table.optional("cookie_secret", report, value::cookie_secret),
            control_socket: table.optional("control_socket", report, value::path),
            control_read: table.optional("control_read", report, WhoSpec::read),
            control_change: table.optional("control_change", report, WhoSpec::read),
            state_dir: table.optional("state_dir", report, value::path),
            bpf_dir: table.optional("bpf_dir", report, value::path),
            max_stale: table.optional("max_stale", report, value::max_stale),
            metrics: table.optional("metrics", report, value::own_socket),
        };
        table.finish(report);
        Some(spec)
    }
}

impl ZoneSpec {
    fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Self {
        let spec = Self {
            name: table.required("name", report, value::domain_name),
            file: table.required("file", report, value::path),
            serial: table.optional("serial", report, value::word(&SERIAL_POLICIES)),
            allow_transfer: table.optional("allow_transfer", report, value::list(value::network)),
            notify: table.optional("notify", report, value::list(value::notify_target)),
        };
        table.finish(report);
        spec
    }
}

impl WanSpec {
    fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Self {
        let spec = Self {
            name: table.required("name", report, value::label),
            interface: table.optional("interface", report, value::interface),
            source: table.optional("source", report, value::address),
            targets: table.optional("targets", report, value::list(value::wan_target)),
            min_up: table.optional("min_up", report, value::integer(0..=u16::MAX)),
        };
        table.finish(report);
        spec
    }
}

impl ServiceSpec {
    fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Self {
        let spec = Self {
            span: table.span,
            name: table.required("name", report, value::label),
            fqdn: table.required("fqdn", report, value::list(value::domain_name)),
            ttl: table.optional("ttl", report, value::ttl),
            port: table.optional("port", report, value::positive),
            redundancy_only: table.optional("redundancy_only", report, value::boolean),
            on_all_down: table.optional("on_all_down", report, OnAllDownSpec::read),
            max_answers: table.optional("max_answers", report, value::integer(1..=u16::MAX)),
            wan: table.optional("wan", report, value::list(WanAddressSpec::read)),
            check: table.optional("check", report, ChecksSpec::read),
            servers: table.tables("server", "[[service.server]]", report, BackendSpec::read),
        };
        table.finish(report);
        spec
    }
}

impl WanAddressSpec {
    fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut table = Table::open(node, report)?;
        let spec = Self {
            link: table.required("link", report, value::label),
            address: table.required("address", report, value::address),
            weight: table.optional("weight", report, value::positive),
        };
        table.finish(report);
        Some(spec)
    }
}

impl BackendSpec {
    fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Self {
        let spec = Self {
            span: table.span,
            name: table.required("name", report, value::label),
            address: table.required("address", report, value::address),
            port: table.optional("port", report, value::positive),
            priority: table.optional("priority", report, value::word(&PRIORITIES)),
            offsite: table.optional("offsite", report, value::boolean),
            weight: table.optional("weight", report, value::positive),
            check: table.optional("check", report, ChecksSpec::read),
            check_address: table.optional("check_address", report, value::address),
            via: table.optional("via", report, value::label),
        };
        table.finish(report);
        spec
    }
}

impl PortForwardSpec {
    fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut table = Table::open(node, report)?;
        let spec = Self {
            enabled: table.required("enabled", report, value::boolean),
            snat: table.optional("snat", report, value::boolean),
        };
        table.finish(report);
        Some(spec)
    }
}

impl OnAllDownSpec {
    fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        match node.value {
            DeValue::Array(_) => {
                let addresses = value::list(value::address)(node, report)?;
                if addresses.written == 0 {
                    node.expected("addresses (\"empty\" answers none)", report);
                }
                Some(Self::Addresses(addresses))
            }
            DeValue::String(text) => match text.as_ref() {
                "primary" => Some(Self::Word(OnAllDown::Primary)),
                "last" => Some(Self::Word(OnAllDown::Last)),
                "empty" => Some(Self::Word(OnAllDown::Empty)),
                "servfail" => Some(Self::Word(OnAllDown::Servfail)),
                _ => Self::unknown(node, report),
            },
            _ => Self::unknown(node, report),
        }
    }

    fn unknown(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let what =
            "one of \"primary\", \"last\", \"empty\", \"servfail\", or an array of addresses";
        node.expected(what, report);
        None
    }
}
