//! `failover explain`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use super::client::unexpected;
use super::status::priority;
use super::text::{age, left, mode, rtt, table};
use super::{print, print_json};
use crate::health::{Admin, AdminState, Effective, Verdict};
use crate::policy::{ServerStanding, WanStanding};
use crate::protocol::{Explain, Reply, Request, ServerStatus, ServiceStatus, XdpState};

pub(super) fn explain(args: &super::Explain) -> Result<ExitCode> {
    let mut client = args.daemon.connect()?;
    let request = Request::Explain {
        name: args.name.clone(),
    };
    let Reply::Explain(explain) = client.ask(&request)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&explain)?;
    } else {
        print(&shown(&explain, Timestamp::now())?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(explain: &Explain, now: Timestamp) -> Result<String, std::fmt::Error> {
    let Explain { service, .. } = explain;
    let mut text = String::new();
    let (names, ttl) = (service.fqdn.join(", "), service.ttl);
    writeln!(
        text,
        "{}: service {} ({names}), TTL {ttl} s",
        explain.name, service.name
    )?;

    if !explain.wans.is_empty() {
        writeln!(
            text,
            "\nWAN addresses, used while an onsite server is answered"
        )?;
        let rows = explain.wans.iter().map(|wan| {
            let link = &wan.link;
            let ago = age(link.since, now);
            let standing = wan_standing(wan.standing, link.effective).to_owned();
            vec![
                wan.address.to_string(),
                link.name.clone(),
                standing,
                format!(
                    "{} for {ago}{}",
                    link.effective,
                    why(link.verdict, &link.admin, None, now)
                ),
            ]
        });
        text += &table("  ", &rows.collect::<Vec<_>>());
    }

    writeln!(text, "\nservers")?;
    let rows = service
        .servers
        .iter()
        .zip(&explain.standings)
        .map(|(server, standing)| {
            let site = if server.offsite { "offsite" } else { "onsite" };
            let ago = age(server.since, now);
            let error = server.last_error.as_deref();
            vec![
                server.name.clone(),
                SocketAddr::new(server.address, server.port.get()).to_string(),
                format!("{} {site}", priority(server.priority)),
                server_standing(*standing, server.effective).to_owned(),
                format!(
                    "{} for {ago}{}",
                    server.effective,
                    why(server.verdict, &server.admin, error, now)
                ),
            ]
        });
    text += &table("  ", &rows.collect::<Vec<_>>());

    let rows: Vec<_> = service.servers.iter().flat_map(checks).collect();
    if !rows.is_empty() {
        writeln!(text, "\nchecks, all of which a server must pass")?;
        text += &table("  ", &rows);
    }

    let mut rows = vec![
        vec!["decision".to_owned(), service.reason.clone()],
        vec!["A".to_owned(), answer(service, std::net::IpAddr::is_ipv4)],
        vec![
            "AAAA".to_owned(),
            answer(service, std::net::IpAddr::is_ipv6),
        ],
        vec!["published".to_owned(), published(explain, now)],
        vec!["answered by".to_owned(), answered_by(explain)],
    ];
    rows.extend(forwarded(explain).map(|to| vec!["forwarded".to_owned(), to]));
    text += "\n";
    text += &table("", &rows);
    Ok(text)
}

/// A row for each check of a server.
fn checks(server: &ServerStatus) -> impl Iterator<Item = Vec<String>> {
    server.checks.iter().map(|check| {
        let last = match &check.last_error {
            Some(error) => error.clone(),
            None => rtt(check.rtt_us),
        };
        vec![
            server.name.clone(),
            check.check.clone(),
            check.verdict.to_string(),
            last,
        ]
    })
}

fn answer(service: &ServiceStatus, family: fn(&std::net::IpAddr) -> bool) -> String {
    let addresses = service.answer.iter().filter(|address| family(address));
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    match (addresses.is_empty(), service.rcode.as_str()) {
        (false, _) => addresses.join(", "),
        (true, "NOERROR") => "no address (NODATA)".to_owned(),
        (true, rcode) => rcode.to_owned(),
    }
}

fn published(explain: &Explain, now: Timestamp) -> String {
    let service = &explain.service;
    if explain.published {
        let (since, ago) = (service.since, age(service.since, now));
        format!("by generation {}, {since} ({ago} ago)", service.generation)
    } else {
        "not yet".to_owned()
    }
}

fn answered_by(explain: &Explain) -> String {
    let attached = explain
        .interfaces
        .iter()
        .filter(|interface| interface.xdp != XdpState::Detached);
    let attached: Vec<String> = attached
        .map(|interface| format!("{} ({})", interface.name, mode(interface)))
        .collect();
    if attached.is_empty() {
        "user space: the program is attached to no interface".to_owned()
    } else {
        format!("XDP on {}", attached.join(", "))
    }
}

/// Where connections to the WAN addresses go.
fn forwarded(explain: &Explain) -> Option<String> {
    let families = [("IPv4", &explain.forward_v4), ("IPv6", &explain.forward_v6)];
    let forwarded = families.into_iter().filter_map(|(family, to)| {
        let to = to.as_ref()?;
        let (tier, servers) = (to.tier, to.servers.join(", "));
        Some(format!("{family} connections to {servers} ({tier})"))
    });
    let forwarded: Vec<String> = forwarded.collect();
    (!forwarded.is_empty()).then(|| forwarded.join("; "))
}

/// Why a state is as it is: the last error, or the operator's word over what the checks say.
fn why(verdict: Verdict, admin: &Admin, error: Option<&str>, now: Timestamp) -> String {
    let error = error.map_or_else(String::new, |error| format!(": {error}"));
    if admin.state == AdminState::Auto {
        return error;
    }
    let mut text = format!(" (admin {}", admin.state);
    if let Some(by) = &admin.by {
        text += &format!(" by {by}");
    }
    if let Some(until) = admin.until {
        text += &format!(", {} left", left(until, now));
    }
    if let Some(reason) = &admin.reason {
        text += &format!(": {reason}");
    }
    text + &format!("; verdict {verdict}{error})")
}

const fn wan_standing(standing: WanStanding, effective: Effective) -> &'static str {
    match standing {
        WanStanding::Answered if effective.is_up() => "answered",
        WanStanding::Answered => "answered although its link is not up",
        WanStanding::NotFirst => "not the first (redundancy_only)",
        WanStanding::NoOnsite => "not answered: no onsite server is",
        WanStanding::NotUp => "not answered: its link is not up",
    }
}

const fn server_standing(standing: ServerStanding, effective: Effective) -> &'static str {
    match standing {
        ServerStanding::Answered if effective.is_up() => "answered",
        ServerStanding::Answered => "answered although not up",
        ServerStanding::LowerTier => "not answered: a higher tier wins",
        ServerStanding::Disabled => "not answered: disabled",
        ServerStanding::NotUp => "not answered: not up",
        ServerStanding::NoWan => "not answered: no WAN address is on a link that is up",
    }
}
