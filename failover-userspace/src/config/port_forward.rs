//! `[port_forward]`, and what it asks of services and of the kernel.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;

use super::report::{At, Report, Span};
use super::spec::{ServiceSpec, Spec};
use crate::model::{PortForward, Priority, ProbeId, Server, Service, Settings, Site, Tier};

/// The kernel's settings.
const SETTINGS: &str = "/proc/sys/net";

/// The section, if it is enabled.
pub(super) fn section(
    spec: &Spec,
    settings: Option<&Settings>,
    services: &[Service],
    servers: &[Server],
    report: &mut Report<'_>,
) -> Option<PortForward> {
    let section = spec.port_forward.given()?;
    if !section.value.enabled.value_or(false) {
        return None;
    }
    let services: Vec<_> = spec.services.items.iter().zip(services).collect();
    check_shared(&services, servers, report);
    check_name_server(&services, settings, report);
    let forwarded = forwarded(&services, servers, report);
    warn_kernel(section.span, &forwarded, Path::new(SETTINGS), report);
    Some(PortForward {
        snat: section.value.snat.value_or(false),
    })
}

/// A service as written, and as it is in the model.
type Both<'a> = (&'a ServiceSpec, &'a Service);

/// Its WAN addresses with the port.
fn places<'a>((spec, service): &Both<'a>) -> impl Iterator<Item = At<SocketAddr>> + use<'a> {
    let port = service.port.get();
    let written = spec.wan.value().map(|list| list.items.as_slice());
    let addresses = written.unwrap_or_default().iter();
    addresses
        .filter_map(|item| item.value.address.given())
        .map(move |address| At {
            value: SocketAddr::new(address.value, port),
            span: address.span,
        })
}

/// What of a server decides which connections it gets, and when.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Backend {
    address: SocketAddr,
    tier: Tier,
    weight: NonZeroU16,
    checks: Vec<ProbeId>,
}

fn servers_of<'a>(service: &Service, servers: &'a [Server]) -> impl Iterator<Item = &'a Server> {
    service
        .server_ids()
        .filter_map(|id| servers.get(id.index()))
}

/// The servers behind its WAN addresses of one family, in an order of their own.
fn backends(service: &Service, servers: &[Server], family: IpAddr) -> Vec<Backend> {
    let onsite = servers_of(service, servers).filter(|server| {
        server.site == Site::Onsite && server.address.is_ipv4() == family.is_ipv4()
    });
    let backend = |server: &Server| {
        let Priority::Tier(tier) = server.priority else {
            return None;
        };
        let mut checks = server.probes.clone();
        checks.sort_unstable();
        Some(Backend {
            address: SocketAddr::new(server.address, server.port.get()),
            tier,
            weight: server.weight,
            checks,
        })
    };
    let mut backends: Vec<Backend> = onsite.filter_map(backend).collect();
    backends.sort_unstable();
    backends
}

/// A connection says no name: services that share a WAN address and port must share their
/// servers, too.
fn check_shared(services: &[Both<'_>], servers: &[Server], report: &mut Report<'_>) {
    let mut owners: HashMap<SocketAddr, (usize, Span)> = HashMap::new();
    for (index, both) in services.iter().enumerate() {
        for place in places(both) {
            let (owner, first) = match owners.entry(place.value) {
                Entry::Occupied(owner) => *owner.get(),
                Entry::Vacant(entry) => {
                    entry.insert((index, place.span));
                    continue;
                }
            };
            let (spec, service) = services[owner];
            // Servers that could not be read have been reported.
            let whole = [both.0, spec].iter().all(|spec| spec.servers.complete)
                && [*both, services[owner]]
                    .iter()
                    .all(|(spec, service)| service.servers.len() == spec.servers.items.len());
            let of = |service| backends(service, servers, place.value.ip());
            if owner == index || !whole || of(both.1) == of(service) {
                continue;
            }
            let message = format!(
                "{} port {} is also a WAN address of service \"{}\", on line {}, which has other servers behind it; \
                 with port forwarding, expected the same onsite servers with the same checks",
                place.value.ip(),
                place.value.port(),
                service.name,
                report.line(first.start),
            );
            report.error(place.span, message);
        }
    }
}

/// Queries over TCP must reach the name server.
fn check_name_server(services: &[Both<'_>], settings: Option<&Settings>, report: &mut Report<'_>) {
    let Some(settings) = settings else {
        return;
    };
    let taken = services.iter().flat_map(places).filter(|place| {
        let (address, port) = (place.value.ip(), place.value.port());
        settings.listen.contains(&address) && settings.port.get() == port
    });
    for place in taken {
        let message = format!(
            "the name server listens on {} port {}: with port forwarding, expected another address or port",
            place.value.ip(),
            place.value.port(),
        );
        report.error(place.span, message);
    }
}

/// The addresses that are forwarded; one that leads nowhere is warned of.
fn forwarded(services: &[Both<'_>], servers: &[Server], report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut forwarded = Vec::new();
    for both in services {
        let is_onsite = |server: &Server| server.site == Site::Onsite;
        let onsite = servers_of(both.1, servers).any(is_onsite);
        for place in places(both) {
            let address = place.value.ip();
            if !backends(both.1, servers, address).is_empty() {
                forwarded.push(address);
            } else if onsite {
                let message = format!(
                    "connections to {address} are not forwarded: no onsite server has an {} address",
                    family_of(address)
                );
                report.warn(place.span, message);
            }
        }
    }
    forwarded
}

const fn family_of(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// What is forwarded has to be let through. `net` is the directory of the kernel's settings.
fn warn_kernel(span: Span, forwarded: &[IpAddr], net: &Path, report: &mut Report<'_>) {
    for (family, key) in [
        ("IPv4", "ipv4/ip_forward"),
        ("IPv6", "ipv6/conf/all/forwarding"),
    ] {
        if !forwarded
            .iter()
            .any(|address| family_of(*address) == family)
        {
            continue;
        }
        // Where there is no such setting, there is no such protocol.
        let value = std::fs::read_to_string(net.join(key)).unwrap_or_else(|_| "0".to_owned());
        if value.trim() == "0" {
            let name = key.replace('/', ".");
            let message = format!(
                "the kernel does not forward {family}: connections are not forwarded until `sysctl -w net.{name}=1`"
            );
            report.warn(span, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The warnings where these addresses are forwarded and the kernel's settings are these.
    fn warnings(forwarded: &[&str], settings: &[(&str, &str)]) -> Vec<String> {
        let net = tempfile::tempdir().unwrap();
        for (key, value) in settings {
            let file = net.path().join(key);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, value).unwrap();
        }
        let forwarded: Vec<IpAddr> = forwarded.iter().map(|it| it.parse().unwrap()).collect();
        let mut report = Report::new(Path::new("failover.toml"), "");
        warn_kernel(Span::default(), &forwarded, net.path(), &mut report);
        let (_, warnings) = report.into_findings();
        warnings.into_iter().map(|found| found.message).collect()
    }

    #[test]
    fn only_families_that_are_forwarded_are_looked_at() {
        const V4: (&str, &str) = ("ipv4/ip_forward", "0\n");
        const V6: (&str, &str) = ("ipv6/conf/all/forwarding", "0\n");
        let on = |(key, _)| (key, "1\n");
        let text = |family: &str, name: &str| {
            format!(
                "the kernel does not forward {family}: connections are not forwarded until `sysctl -w net.{name}=1`"
            )
        };
        let (v4, v6) = (
            text("IPv4", "ipv4.ip_forward"),
            text("IPv6", "ipv6.conf.all.forwarding"),
        );
        let both = ["198.51.100.134", "2001:db8::1"];
        let (v4, v6) = (v4.as_str(), v6.as_str());
        assert_eq!(warnings(&both, &[V4, V6]), [v4, v6]);
        assert_eq!(warnings(&both, &[on(V4), V6]), [v6]);
        assert_eq!(warnings(&both, &[on(V4), on(V6)]), [""; 0]);
        assert_eq!(warnings(&both[..1], &[V4, V6]), [v4]);
        // The kernel does not know IPv6.
        assert_eq!(warnings(&both, &[on(V4)]), [v6]);
        assert_eq!(warnings(&[], &[V4, V6]), [""; 0]);
    }
}
