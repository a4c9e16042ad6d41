//! Services and their servers: from the file as written to the model.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::build::{Links, Probes, ZoneIndex, check_family, id};
use super::check::{CaFiles, Check, Subject, layered};
use super::report::{At, Report, Unique};
use super::spec::{BackendSpec, OnAllDownSpec, ServiceSpec};
use crate::model::{
    Egress, Fqdn, Name, OnAllDown, Priority, Probe, ProbeId, ProbeTarget, Server, Service,
    ServiceId, Site, Tier, WanAddress,
};

/// Addresses in one answer, IPv4 and IPv6 together.
const ANSWER_LIMIT: usize = 64;
/// `wan/NAME` on the command line is a link.
const RESERVED_NAME: &str = "wan";

/// What a service refers to, and the services so far.
pub(super) struct Context<'a> {
    defaults: &'a Check,
    links: &'a Links,
    zones: &'a ZoneIndex,
    probes: &'a mut Probes,
    ca_files: &'a mut CaFiles,
    names: Unique<&'a str>,
    fqdns: Unique<&'a Name>,
    services: Vec<Service>,
    servers: Vec<Server>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        defaults: &'a Check,
        links: &'a Links,
        zones: &'a ZoneIndex,
        probes: &'a mut Probes,
        ca_files: &'a mut CaFiles,
    ) -> Self {
        Self {
            defaults,
            links,
            zones,
            probes,
            ca_files,
            names: Unique::new("service"),
            fqdns: Unique::new("fqdn"),
            services: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// Checks a service and adds it; after an error what is added is of no account.
    pub(super) fn add(&mut self, spec: &'a ServiceSpec, report: &mut Report<'_>) {
        if let Some(name) = spec.name.given() {
            self.names.insert(&name.value, name.span, report);
            if name.value == RESERVED_NAME {
                let message = "name: \"wan\" means the links in `failover set wan/NAME`; expected another name";
                report.error(name.span, message);
            }
        }
        let fqdn = self.fqdns(spec, report);
        let wan = self.wan_addresses(spec, report);
        check_port(spec, report);
        let first = id(self.servers.len());
        self.add_servers(spec, report);
        let servers = first..id(self.servers.len());
        check_candidates(spec, report);
        check_answer_size(spec, report);

        let port = spec
            .port
            .value()
            .or_else(|| spec.servers.items.first()?.port.value())
            .copied();
        self.services.push(Service {
            name: spec.name.value().cloned().unwrap_or_default(),
            fqdn,
            ttl: spec.ttl.value_or(30),
            port: port.unwrap_or(NonZeroU16::MIN),
            redundancy_only: spec.redundancy_only.value_or(false),
            on_all_down: on_all_down(spec, report),
            max_answers: spec.max_answers.value().copied().map(usize::from),
            wan,
            servers,
        });
    }

    pub(super) fn finish(self) -> (Vec<Service>, Vec<Server>) {
        (self.services, self.servers)
    }

    fn fqdns(&mut self, spec: &'a ServiceSpec, report: &mut Report<'_>) -> Vec<Fqdn> {
        let Some(list) = spec.fqdn.given() else {
            return Vec::new();
        };
        if list.value.written == 0 {
            report.error(list.span, "fqdn: expected at least one name, found []");
        }
        let mut fqdns = Vec::with_capacity(list.value.items.len());
        for name in &list.value.items {
            self.fqdns.insert(&name.value, name.span, report);
            if let Some(zone) = self.zones.place(name, report) {
                fqdns.push(Fqdn {
                    name: name.value.clone(),
                    zone,
                });
            }
        }
        fqdns
    }

    fn wan_addresses(&self, spec: &ServiceSpec, report: &mut Report<'_>) -> Vec<WanAddress> {
        let mut unique = Unique::new("WAN address");
        let mut addresses = Vec::new();
        for item in spec.wan.value().into_iter().flat_map(|list| &list.items) {
            let link = item.value.link.given();
            let wan = link.and_then(|link| self.links.find(link, "link", report));
            let Some(address) = item.value.address.given() else {
                continue;
            };
            unique.insert(address.value, address.span, report);
            if let Some(wan) = wan {
                let weight = item.value.weight.value_or(NonZeroU16::MIN);
                addresses.push(WanAddress {
                    wan,
                    address: address.value,
                    weight,
                });
            }
        }
        addresses
    }

    fn add_servers(&mut self, spec: &ServiceSpec, report: &mut Report<'_>) {
        let service = ServiceId(id(self.services.len()));
        let inherited = vec![self.defaults.clone()];
        let checks = layered(inherited, self.defaults, &spec.check, report);
        let mut names = Unique::new("server");
        let mut answered = HashMap::new();
        for server in &spec.servers.items {
            if let Some(name) = server.name.given() {
                names.insert(name.value.as_str(), name.span, report);
            }
            check_site(spec, server, report);
            warn_answered_twice(server, &mut answered, report);
            let checks = layered(checks.clone(), self.defaults, &server.check, report);
            let egress = self.egress(server, report);
            let priority = server.priority.value_or(Priority::Tier(Tier::Primary));
            let port = server.port.value().or(spec.port.value()).copied();
            let (Some(address), Some(port)) = (server.address.value().copied(), port) else {
                continue;
            };
            let name = server.name.value().map_or("", String::as_str);
            let probes = match priority {
                Priority::Disabled => Vec::new(),
                Priority::Tier(_) => {
                    let subject = Subject {
                        service: spec.name.value().map_or("", String::as_str),
                        fqdn: spec.fqdn.value().map(|list| list.items.as_slice()),
                        server: name,
                        address: server.check_address.value().copied().unwrap_or(address),
                        port,
                    };
                    self.probes_of(&checks, &subject, &egress, report)
                }
            };
            self.servers.push(Server {
                name: name.to_owned(),
                service,
                address,
                port,
                priority,
                site: site(server),
                weight: server.weight.value_or(NonZeroU16::MIN),
                probes,
            });
        }
    }

    /// The probes that execute these checks, each once.
    fn probes_of(
        &mut self,
        checks: &[Check],
        subject: &Subject<'_>,
        egress: &Egress,
        report: &mut Report<'_>,
    ) -> Vec<ProbeId> {
        let mut ids = Vec::with_capacity(checks.len());
        for check in checks {
            let Some(target) = check.target(subject, self.ca_files, report) else {
                continue;
            };
            let egress = match &target {
                // Programs find their own way.
                ProbeTarget::Exec(_) => Egress::default(),
                _ => egress.clone(),
            };
            let id = self.probes.id_of(Probe {
                target,
                egress,
                timing: check.timing(),
            });
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// How the probes of a server leave: through `via`, or as the host routes them.
    fn egress(&self, server: &BackendSpec, report: &mut Report<'_>) -> Egress {
        let Some(via) = server.via.given() else {
            return Egress::default();
        };
        let Some(wan) = self.links.find(via, "via", report) else {
            return Egress::default();
        };
        let egress = self.links.egress(wan);
        if let Some(checked) = server.check_address.given().or(server.address.given()) {
            check_family(&egress, checked.value, via.span, "via", report);
        }
        egress
    }
}

fn site(server: &BackendSpec) -> Site {
    if server.offsite.value_or(false) {
        Site::Offsite
    } else {
        Site::Onsite
    }
}

/// WAN addresses need the service's port, and so do servers without their own.
fn check_port(spec: &ServiceSpec, report: &mut Report<'_>) {
    let needed = !spec.wan.is_absent()
        || spec
            .servers
            .items
            .iter()
            .any(|server| server.port.is_absent());
    if spec.port.is_absent() && needed && !spec.servers.items.is_empty() {
        let message =
            "missing key \"port\": the port of the WAN addresses and of servers without their own";
        report.consequence(spec.span, message);
    }
}

/// An onsite server is reached through WAN addresses.
fn check_site(spec: &ServiceSpec, server: &BackendSpec, report: &mut Report<'_>) {
    let without_wan = match spec.wan.given() {
        Some(list) => list.value.written == 0,
        None => spec.wan.is_absent(),
    };
    let onsite = server.offsite.is_absent() || server.offsite.value() == Some(&false);
    if without_wan && onsite {
        let name = server.name.value().map(String::as_str).unwrap_or_default();
        let message = format!(
            "server \"{name}\" is onsite, but its service has no `wan` addresses; add them, or `offsite = true`"
        );
        report.consequence(server.span, message);
    }
}

/// A set has no record twice (RFC 2181 section 5), whatever its weights say.
fn warn_answered_twice(
    server: &BackendSpec,
    answered: &mut HashMap<(Tier, IpAddr), At<IpAddr>>,
    report: &mut Report<'_>,
) {
    let (Site::Offsite, Some(address)) = (site(server), server.address.given()) else {
        return;
    };
    let tier = match server.priority.value_or(Priority::Tier(Tier::Primary)) {
        Priority::Tier(tier) => tier,
        Priority::Disabled => return,
    };
    if let Some(first) = answered.insert((tier, address.value), *address) {
        let line = report.line(first.span.start);
        let message = format!(
            "{} is also the address of an offsite {tier} server on line {line}; it is answered once",
            address.value
        );
        report.warn(address.span, message);
    }
}

/// A service must have a server, and one that can be answered some day.
fn check_candidates(spec: &ServiceSpec, report: &mut Report<'_>) {
    if !spec.servers.complete {
        return;
    }
    if spec.servers.items.is_empty() {
        report.consequence(
            spec.span,
            "missing [[service.server]]: a service needs at least one",
        );
        return;
    }
    if spec
        .servers
        .items
        .iter()
        .all(|server| server.priority.value() == Some(&Priority::Disabled))
    {
        let message = "no server of this service can ever be answered: all are disabled";
        report.consequence(spec.span, message);
    }
}

/// The largest answer that the service can give must fit the limit.
fn check_answer_size(spec: &ServiceSpec, report: &mut Report<'_>) {
    let wan = spec.wan.value().map_or(0, |list| list.written);
    for tier in Tier::ALL {
        let in_tier = || {
            spec.servers.items.iter().filter(|server| {
                server.priority.value_or(Priority::Tier(Tier::Primary)) == Priority::Tier(tier)
            })
        };
        let offsite = in_tier()
            .filter(|server| site(server) == Site::Offsite)
            .count();
        let onsite = in_tier().count() > offsite;
        let addresses = offsite + if onsite { wan } else { 0 };
        if addresses > ANSWER_LIMIT {
            let message = format!(
                "expected at most {ANSWER_LIMIT} addresses in one answer, found {addresses} in tier {tier}"
            );
            report.error(spec.span, message);
        }
    }
}

fn on_all_down(spec: &ServiceSpec, report: &mut Report<'_>) -> OnAllDown {
    let Some(written) = spec.on_all_down.given() else {
        return OnAllDown::Primary;
    };
    match &written.value {
        OnAllDownSpec::Word(word) => word.clone(),
        OnAllDownSpec::Addresses(list) => {
            let mut unique = Unique::new("address");
            for address in &list.items {
                unique.insert(address.value, address.span, report);
            }
            if list.written > ANSWER_LIMIT {
                let message = format!(
                    "on_all_down: expected at most {ANSWER_LIMIT} addresses, found {}",
                    list.written
                );
                report.error(written.span, message);
            }
            OnAllDown::Addresses(list.items.iter().map(|address| address.value).collect())
        }
    }
}
