//! From the file as written to the [`Model`]: everything that concerns more than one value.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use super::Overrides;
use super::access::WhoSpec;
use super::check::{CaFiles, Check};
use super::name::suffixes;
use super::port_forward;
use super::reader::{Field, List, Tables, closest};
use super::report::{At, Report, Span, Unique};
use super::service::Context;
use super::spec::{ServerSpec, Spec, WanSpec, ZoneSpec};
use super::value::{DNS_PORT, is_interface_name};
use super::webhook;
use super::zonefile::{self, ZoneFile};
use crate::model::{
    CookieSecret, Egress, Model, Name, Probe, ProbeId, SerialPolicy, Settings, Wan, WanId,
    WanTarget, XdpMode, Zone, ZoneId,
};
use crate::rights::{Access, Right, Who};

/// Listen addresses of one family.
const LISTEN_LIMIT: usize = 16;
/// `sun_path` less the final zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// The model, or `None` when the report has errors.
pub(super) fn build(
    spec: &Spec,
    base: &Path,
    overrides: &Overrides,
    report: &mut Report<'_>,
) -> Option<Model> {
    let settings = spec
        .server
        .given()
        .and_then(|server| settings(server, base, overrides, report));
    let defaults = match spec.check.value() {
        Some(check) => Check::default().overridden(check, report),
        None => Check::default(),
    };
    let mut ca_files = CaFiles::new(base);
    let mut probes = Probes::default();
    let (zones, index) = zones(&spec.zones, base, report);
    let (wans, links) = wans(&spec.wans, &defaults, &mut probes, report);
    let mut context = Context::new(&defaults, &links, &index, &mut probes, &mut ca_files);
    for service in &spec.services.items {
        context.add(service, report);
    }
    let (services, servers) = context.finish();
    let webhooks = webhook::build(&spec.webhooks, &services, base, &mut ca_files, report);
    let port_forward = port_forward::section(spec, settings.as_ref(), &services, &servers, report);
    if report.has_errors() {
        return None;
    }
    Some(Model {
        settings: settings?,
        port_forward,
        zones,
        wans,
        services,
        servers,
        probes: probes.list,
        webhooks,
    })
}

/// A position in one of the model's vectors as an id. More than 2^32 elements would need a
/// configuration of many gigabytes.
pub(super) fn id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Where the daemon has its files.
pub(super) struct Directories {
    pub(super) control_socket: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) bpf_dir: PathBuf,
}

impl Directories {
    pub(super) fn of(spec: &ServerSpec, base: &Path) -> Self {
        let path = |path: Option<&PathBuf>, default: &str| {
            path.map_or_else(|| PathBuf::from(default), |path| base.join(path))
        };
        Self {
            control_socket: path(spec.control_socket.value(), super::DEFAULT_CONTROL_SOCKET),
            state_dir: path(spec.state_dir.value(), "/var/lib/failover"),
            bpf_dir: path(spec.bpf_dir.value(), super::DEFAULT_BPF_DIR),
        }
    }
}

fn settings(
    server: &At<ServerSpec>,
    base: &Path,
    overrides: &Overrides,
    report: &mut Report<'_>,
) -> Option<Settings> {
    let spec = &server.value;
    let listen = spec
        .listen
        .value()
        .map(|list| list.items.as_slice())
        .unwrap_or_default();
    check_listen(server, report);
    check_metrics(spec, report);

    let mut unique = Unique::new("interface");
    let interfaces = spec
        .interfaces
        .value()
        .map(|list| list.items.as_slice())
        .unwrap_or_default();
    for interface in interfaces {
        unique.insert(interface.value.as_str(), interface.span, report);
    }
    for interface in overrides
        .interfaces
        .iter()
        .filter(|name| !is_interface_name(name))
    {
        let message = format!(
            "--interface: expected an interface name of 1 to 15 octets, found {interface:?}"
        );
        report.error(server.span, message);
    }

    let Directories {
        control_socket,
        state_dir,
        bpf_dir,
    } = Directories::of(spec, base);
    if let Some(written) = spec.control_socket.given()
        && control_socket.as_os_str().len() > SOCKET_PATH_LIMIT
    {
        let message = format!(
            "control_socket: expected a path of at most {SOCKET_PATH_LIMIT} octets, found {}",
            control_socket.display()
        );
        report.error(written.span, message);
    }

    let cookies = cookies(server, overrides, report);
    Some(Settings {
        interfaces: if overrides.interfaces.is_empty() {
            interfaces
                .iter()
                .map(|interface| interface.value.clone())
                .collect()
        } else {
            distinct(&overrides.interfaces)
        },
        listen: listen.iter().map(|address| address.value).collect(),
        port: spec.port.value_or(NonZeroU16::new(53)?),
        xdp: overrides.xdp.unwrap_or(spec.xdp.value_or(XdpMode::Auto)),
        edns_udp_size: spec.edns_udp_size.value_or(1232),
        nsid: spec.nsid.value().cloned(),
        cookies,
        control_socket,
        control: control(spec, report),
        state_dir,
        bpf_dir,
        max_stale: spec.max_stale.value_or(Some(Duration::from_secs(30))),
        metrics: spec.metrics.value().copied(),
    })
}

/// Who may use the control socket.
fn control(spec: &ServerSpec, report: &mut Report<'_>) -> Access {
    let access = Access {
        read: WhoSpec::resolve(&spec.control_read, Right::Read.key(), report),
        change: WhoSpec::resolve(&spec.control_change, Right::Change.key(), report),
    };
    if let (Who::All, Some(written)) = (&access.change, spec.control_change.given()) {
        let message = "control_change: every user of this host may change what is answered, and end the daemon";
        report.warn(written.span, message);
    }
    access
}

/// The key of server cookies; by default one that is made up for each run.
fn cookies(
    server: &At<ServerSpec>,
    overrides: &Overrides,
    report: &mut Report<'_>,
) -> Option<CookieSecret> {
    let spec = &server.value;
    if !spec.cookies.value_or(true) {
        if let Some(secret) = spec.cookie_secret.given() {
            let message = "cookie_secret: cookies are off, so expected none";
            report.error(secret.span, message);
        }
        return None;
    }
    let secret = spec.cookie_secret.value().copied();
    match secret.or(overrides.cookie_secret) {
        Some(secret) => Some(secret),
        None => match CookieSecret::random() {
            Ok(secret) => Some(secret),
            Err(error) => {
                let message = format!("cookies: no random numbers: {error}");
                report.error(server.span, message);
                None
            }
        },
    }
}

fn distinct(names: &[String]) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !distinct.contains(name) {
            distinct.push(name.clone());
        }
    }
    distinct
}

fn check_listen(server: &At<ServerSpec>, report: &mut Report<'_>) {
    let Some(listen) = server.value.listen.given() else {
        return;
    };
    if listen.value.written == 0 {
        report.error(
            listen.span,
            "listen: expected at least one address, found []",
        );
    }
    let mut unique = Unique::new("listen address");
    let (mut v4, mut v6) = (0, 0);
    for address in &listen.value.items {
        unique.insert(address.value, address.span, report);
        let (count, family) = match address.value {
            IpAddr::V4(_) => (&mut v4, "IPv4"),
            IpAddr::V6(_) => (&mut v6, "IPv6"),
        };
        *count += 1;
        if *count == LISTEN_LIMIT + 1 {
            let message = format!(
                "listen: expected at most {LISTEN_LIMIT} {family} addresses, found one more: {}",
                report.quote(address.span)
            );
            report.error(address.span, message);
        }
    }
}

/// The name server's sockets are opened later, and must find their addresses free.
fn check_metrics(spec: &ServerSpec, report: &mut Report<'_>) {
    let Some(metrics) = spec.metrics.given() else {
        return;
    };
    let (address, port) = (metrics.value.ip(), metrics.value.port());
    let listen = spec.listen.value().map_or(&[][..], |list| &list.items);
    let shared = address.is_unspecified() || listen.iter().any(|listen| listen.value == address);
    if shared && port == spec.port.value().map_or(DNS_PORT, |port| port.get()) {
        let message = format!(
            "metrics: expected another port than the name server's, found {}",
            metrics.value
        );
        report.consequence(metrics.span, message);
    }
}

/// Equal probes are one probe.
#[derive(Default)]
pub(super) struct Probes {
    list: Vec<Probe>,
    ids: HashMap<Probe, ProbeId>,
}

impl Probes {
    pub(super) fn id_of(&mut self, probe: Probe) -> ProbeId {
        let next = ProbeId(id(self.list.len()));
        *self.ids.entry(probe).or_insert_with_key(|probe| {
            self.list.push(probe.clone());
            next
        })
    }
}

/// The links by name.
pub(super) struct Links {
    /// In the order of their names, so that the same one is always suggested.
    ids: BTreeMap<String, WanId>,
    egress: Vec<Egress>,
    /// Whether every link has a readable name.
    complete: bool,
}

impl Links {
    /// The link called `name`; an unknown one is reported.
    pub(super) fn find(
        &self,
        name: &At<String>,
        key: &str,
        report: &mut Report<'_>,
    ) -> Option<WanId> {
        let found = self.ids.get(&name.value).copied();
        if found.is_none() && self.complete {
            let quoted = report.quote(name.span);
            let mut message = format!("{key}: expected the name of a [[wan]], found {quoted}");
            let names: Vec<&str> = self.ids.keys().map(String::as_str).take(64).collect();
            if let Some(meant) = closest(&name.value, &names) {
                message += &format!(", did you mean \"{meant}\"?");
            }
            report.consequence(name.span, message);
        }
        found
    }

    pub(super) fn egress(&self, id: WanId) -> Egress {
        self.egress.get(id.index()).cloned().unwrap_or_default()
    }
}

fn wans(
    specs: &Tables<WanSpec>,
    defaults: &Check,
    probes: &mut Probes,
    report: &mut Report<'_>,
) -> (Vec<Wan>, Links) {
    let mut wans = Vec::with_capacity(specs.items.len());
    let mut links = Links {
        ids: BTreeMap::new(),
        egress: Vec::new(),
        complete: specs.complete,
    };
    let mut names = Unique::new("WAN link");
    for spec in &specs.items {
        let name = match spec.name.given() {
            Some(name) => {
                names.insert(name.value.as_str(), name.span, report);
                links.ids.insert(name.value.clone(), WanId(id(wans.len())));
                name.value.clone()
            }
            None => {
                links.complete = false;
                String::new()
            }
        };
        let egress = Egress {
            interface: spec.interface.value().cloned(),
            source: spec.source.value().copied(),
        };
        let mut targets = Vec::new();
        let mut labels = Unique::new("target");
        let written = spec.targets.value();
        for target in written.into_iter().flat_map(|list| &list.items) {
            let (label, probe) = &target.value;
            labels.insert(probe, target.span, report);
            check_family(&egress, probe.address(), target.span, "targets", report);
            let probe = Probe {
                target: probe.clone(),
                egress: egress.clone(),
                timing: defaults.timing(),
            };
            targets.push(WanTarget {
                label: label.clone(),
                probe: probes.id_of(probe),
            });
        }
        let min_up = check_min_up(spec, report);
        links.egress.push(egress);
        wans.push(Wan {
            name,
            interface: spec.interface.value().cloned(),
            targets,
            min_up,
        });
    }
    (wans, links)
}

/// A probe cannot leave from an address of the other family.
pub(super) fn check_family(
    egress: &Egress,
    target: IpAddr,
    span: Span,
    key: &str,
    report: &mut Report<'_>,
) {
    let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    if let Some(source) = egress.source
        && source.is_ipv4() != target.is_ipv4()
    {
        let message = format!(
            "{key}: the link's source {source} is {}, so expected an {0} target, found {target}",
            family(source)
        );
        report.error(span, message);
    }
}

/// 1 to the number of targets; 0 when there are none.
fn check_min_up(spec: &WanSpec, report: &mut Report<'_>) -> usize {
    let targets = match spec.targets.given() {
        Some(list) => list.value.written,
        None if spec.targets.is_absent() => 0,
        None => return 0,
    };
    let Some(min_up) = spec.min_up.given() else {
        return targets.min(1);
    };
    let wanted = usize::from(min_up.value);
    if wanted > targets || (wanted == 0 && targets > 0) {
        let expected = match targets {
            0 => "0, as the link has no targets".to_owned(),
            1 => "1, as the link has one target".to_owned(),
            _ => format!("1 to {targets}, the number of targets"),
        };
        report.consequence(
            min_up.span,
            format!("min_up: expected {expected}, found {wanted}"),
        );
    }
    wanted
}

/// The zones by name.
pub(super) struct ZoneIndex {
    ids: HashMap<Bytes, ZoneId>,
    files: Vec<Option<ZoneFile>>,
    /// Whether every zone has a readable name.
    complete: bool,
}

impl ZoneIndex {
    /// The closest enclosing zone of a service's name, in which nothing clashes with it.
    pub(super) fn place(&self, name: &At<Name>, report: &mut Report<'_>) -> Option<ZoneId> {
        let Some(zone) = suffixes(&name.value)
            .find_map(|suffix| self.ids.get(suffix))
            .copied()
        else {
            if self.complete {
                let quoted = report.quote(name.span);
                report.consequence(name.span, format!("fqdn: {quoted} lies in no [[zone]]"));
            }
            return None;
        };
        let file = self.files.get(zone.index()).and_then(Option::as_ref);
        if let Some(clash) = file.and_then(|file| file.clash(&name.value)) {
            let quoted = report.quote(name.span);
            report.error(name.span, format!("fqdn: {quoted} {clash}"));
        }
        Some(zone)
    }
}

fn zones(specs: &Tables<ZoneSpec>, base: &Path, report: &mut Report<'_>) -> (Vec<Zone>, ZoneIndex) {
    let mut zones = Vec::with_capacity(specs.items.len());
    let mut index = ZoneIndex {
        ids: HashMap::new(),
        files: Vec::new(),
        complete: specs.complete,
    };
    let mut names = Unique::new("zone");
    if specs.items.is_empty() && specs.complete {
        report.warn(Span::default(), "no [[zone]]: every query will be refused");
    }
    for spec in &specs.items {
        let Some(name) = spec.name.given() else {
            index.complete = false;
            continue;
        };
        names.insert(&name.value, name.span, report);
        index.ids.insert(
            Bytes::copy_from_slice(name.value.as_slice()),
            ZoneId(id(index.files.len())),
        );
        let (file, zone) = match spec.file.given() {
            Some(file) => read_zone(&name.value, file, spec, base, report),
            None => (None, None),
        };
        index.files.push(file);
        zones.extend(zone);
    }
    (zones, index)
}

fn read_zone(
    name: &Name,
    file: &At<PathBuf>,
    spec: &ZoneSpec,
    base: &Path,
    report: &mut Report<'_>,
) -> (Option<ZoneFile>, Option<Zone>) {
    let (allow_transfer, notify) = transfers(spec, report);
    let path = base.join(&file.value);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) => {
            report.error(
                file.span,
                format!("file: cannot read {}: {error}", path.display()),
            );
            return (None, None);
        }
    };
    let (zone_file, authority, findings) = zonefile::read(name, &path, &content);
    report.absorb(findings.errors, findings.warnings);
    let zone = authority.map(|authority| Zone {
        name: name.clone(),
        file: path,
        soa: authority.soa,
        ns_ttl: authority.ns_ttl,
        name_servers: authority.name_servers,
        records: Arc::new(authority.records),
        serial: spec.serial.value_or(SerialPolicy::Auto),
        allow_transfer,
        notify,
    });
    (Some(zone_file), zone)
}

/// Who may transfer a zone, and who is told of its changes: where `notify` says nothing, the
/// single addresses of `allow_transfer`.
fn transfers(spec: &ZoneSpec, report: &mut Report<'_>) -> (Vec<IpNet>, Vec<SocketAddr>) {
    let allowed = distinct_items(&spec.allow_transfer, "network", report);
    if let Some(notify) = spec.notify.given() {
        if spec.allow_transfer.is_absent() && notify.value.written > 0 {
            let message = "notify: nobody may transfer the zone, as it has no allow_transfer";
            report.warn(notify.span, message);
        }
        return (allowed, distinct_items(&spec.notify, "target", report));
    }
    let hosts = allowed
        .iter()
        .filter(|network| network.prefix_len() == network.max_prefix_len())
        .map(|host| SocketAddr::new(host.addr(), DNS_PORT))
        .collect();
    (allowed, hosts)
}

/// The elements of a list in which none may occur twice.
fn distinct_items<T: Copy + Eq + Hash>(
    list: &Field<List<T>>,
    what: &'static str,
    report: &mut Report<'_>,
) -> Vec<T> {
    let mut unique = Unique::new(what);
    let items = list.value().map_or(&[][..], |list| &list.items);
    for item in items {
        unique.insert(item.value, item.span, report);
    }
    items.iter().map(|item| item.value).collect()
}
