//! Single values: from TOML to our types, or a reported error and `None`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::name;
use super::reader::{List, Node, closest};
use super::report::{At, Report};
use crate::model::{CookieSecret, Name, ProbeTarget};

/// The longest name of a service, server or link, in octets.
const NAME_LIMIT: usize = 128;
/// The longest NSID, in octets: it must leave room in the smallest reply.
const NSID_LIMIT: usize = 128;
/// The longest name of a network interface, in octets (IFNAMSIZ less the final zero).
const INTERFACE_NAME_LIMIT: usize = 15;
/// Where name servers listen.
pub(super) const DNS_PORT: u16 = 53;
/// Octets of the text that a body must contain.
const WANTED_TEXT_LIMIT: usize = 1024;
/// RFC 2181 section 8.
const TTL_LIMIT: u64 = (1 << 31) - 1;

pub(super) fn string<'a>(node: Node<'a>, report: &mut Report<'_>) -> Option<&'a str> {
    let text = node.value.as_str();
    if text.is_none() {
        node.expected("a string", report);
    }
    text
}

pub(super) fn boolean(node: Node<'_>, report: &mut Report<'_>) -> Option<bool> {
    let value = node.value.as_bool();
    if value.is_none() {
        node.expected("true or false", report);
    }
    value
}

/// An integer in `range`.
pub(super) fn integer(
    range: RangeInclusive<u16>,
) -> impl FnOnce(Node<'_>, &mut Report<'_>) -> Option<u16> {
    move |node, report| {
        let value = small_integer(node.value).filter(|value| range.contains(value));
        if value.is_none() {
            let what = format!("an integer from {} to {}", range.start(), range.end());
            node.expected(&what, report);
        }
        value
    }
}

fn small_integer(value: &DeValue<'_>) -> Option<u16> {
    let DeValue::Integer(integer) = value else {
        return None;
    };
    u16::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A port or a weight: 1 to 65535.
pub(super) fn positive(node: Node<'_>, report: &mut Report<'_>) -> Option<NonZeroU16> {
    integer(1..=u16::MAX)(node, report).and_then(NonZeroU16::new)
}

/// 1 to 255.
pub(super) fn count(node: Node<'_>, report: &mut Report<'_>) -> Option<u8> {
    integer(1..=255)(node, report).and_then(|value| u8::try_from(value).ok())
}

/// A duration in `range`; `Duration::ZERO` passes when `zero` says what it means.
fn duration_in(
    node: Node<'_>,
    range: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let Some(text) = node.value.as_str() else {
        node.expected(
            "a duration: a string with a unit, such as \"500ms\" or \"2s\"",
            report,
        );
        return None;
    };
    let Ok(duration) = humantime::parse_duration(text) else {
        node.expected(
            "a duration with a unit, such as \"500ms\" or \"2s\"",
            report,
        );
        return None;
    };
    if !range.contains(&duration) {
        let (low, high) = (range.start(), range.end());
        let what = format!(
            "a duration from {} to {}",
            humantime::format_duration(*low),
            humantime::format_duration(*high)
        );
        node.expected(&what, report);
        return None;
    }
    Some(duration)
}

/// A duration of at least `minimum` and at most a day.
pub(super) fn duration(
    minimum: Duration,
) -> impl FnOnce(Node<'_>, &mut Report<'_>) -> Option<Duration> {
    move |node, report| duration_in(node, minimum..=Duration::from_secs(86_400), report)
}

/// Age after which answers are stale, counted in seconds; zero means never.
pub(super) fn max_stale(node: Node<'_>, report: &mut Report<'_>) -> Option<Option<Duration>> {
    let duration = duration_in(
        node,
        Duration::ZERO..=Duration::from_secs(365 * 86_400),
        report,
    )?;
    if !duration.is_zero() && duration < Duration::from_secs(1) {
        node.expected("at least \"1s\", or \"0s\" for no limit", report);
        return None;
    }
    Some((!duration.is_zero()).then_some(duration))
}

/// A TTL: whole seconds below 2^31.
pub(super) fn ttl(node: Node<'_>, report: &mut Report<'_>) -> Option<u32> {
    let duration = duration_in(
        node,
        Duration::ZERO..=Duration::from_secs(TTL_LIMIT),
        report,
    )?;
    if duration.subsec_nanos() != 0 {
        node.expected("a duration of whole seconds", report);
        return None;
    }
    u32::try_from(duration.as_secs()).ok()
}

/// One of a set of words.
pub(super) fn word<T: Copy>(
    words: &[(&'static str, T)],
) -> impl FnOnce(Node<'_>, &mut Report<'_>) -> Option<T> {
    move |node, report| {
        let text = node.value.as_str().unwrap_or_default();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mut what = format!("one of \"{}\"", words.join("\", \""));
        if let Some(word) = closest(text, &words) {
            what += &format!(" (did you mean \"{word}\"?)");
        }
        node.expected(&what, report);
        None
    }
}

/// An address that a host can have: no group, nobody's.
pub(super) fn address(node: Node<'_>, report: &mut Report<'_>) -> Option<IpAddr> {
    let Some(address) = node.value.as_str().and_then(|text| text.parse().ok()) else {
        node.expected(
            "an IP address in quotes, such as \"192.0.2.1\" or \"2001:db8::1\"",
            report,
        );
        return None;
    };
    if let Err(kind) = unicast(address) {
        node.expected(&format!("the address of a host, not {kind}"), report);
        return None;
    }
    Some(address)
}

/// An address, or a network without host bits.
pub(super) fn network(node: Node<'_>, report: &mut Report<'_>) -> Option<IpNet> {
    let text = node.value.as_str().unwrap_or_default();
    let network: Option<IpNet> = if text.contains('/') {
        text.parse().ok()
    } else {
        text.parse().ok().map(|address: IpAddr| address.into())
    };
    let Some(network) = network else {
        node.expected(
            "an IP address or a network in quotes, such as \"192.0.2.53\" or \"2001:db8::/32\"",
            report,
        );
        return None;
    };
    let (address, all) = (network.addr(), network.trunc());
    if network != all {
        let what = format!("\"{all}\" for the network or \"{address}\" for the one address");
        node.expected(&what, report);
        return None;
    }
    let is_one = network.prefix_len() == network.max_prefix_len();
    // "0.0.0.0/0" and "::/0" are everybody.
    if (is_one || !address.is_unspecified())
        && let Err(kind) = unicast(address)
    {
        node.expected(&format!("addresses of hosts, not {kind}"), report);
        return None;
    }
    Some(network)
}

/// Where NOTIFY goes: an address, with or without port.
pub(super) fn notify_target(node: Node<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let text = node.value.as_str().unwrap_or_default();
    let target = text
        .parse()
        .map(|address: IpAddr| SocketAddr::new(address, DNS_PORT))
        .or_else(|_| text.parse())
        .ok()
        .filter(|target| target.port() != 0 && !is_scoped(target));
    let Some(target) = target else {
        node.expected(
            "\"ADDRESS\", \"ADDRESS:PORT\" or \"[IPV6]:PORT\", such as \"192.0.2.53\" or \"[2001:db8::1]:5300\"",
            report,
        );
        return None;
    };
    if let Err(kind) = unicast(target.ip()) {
        node.expected(&format!("the address of a host, not {kind}"), report);
        return None;
    }
    Some(target)
}

/// An address of this host, or all of them, and a port to listen on.
pub(super) fn own_socket(node: Node<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let text = node.value.as_str().unwrap_or_default();
    let socket = text
        .parse()
        .ok()
        .filter(|socket: &SocketAddr| socket.port() != 0 && !is_scoped(socket));
    let Some(socket) = socket else {
        node.expected(
            "\"ADDRESS:PORT\" or \"[IPV6]:PORT\", such as \"127.0.0.1:9153\" or \"[::1]:9153\"",
            report,
        );
        return None;
    };
    if !socket.ip().is_unspecified()
        && let Err(kind) = unicast(socket.ip())
    {
        node.expected(&format!("an address of this host, not {kind}"), report);
        return None;
    }
    Some(socket)
}

/// Refuses addresses that no host has, and says what they are.
fn unicast(address: IpAddr) -> Result<(), &'static str> {
    if address.is_unspecified() {
        return Err("the unspecified address");
    }
    if address.is_multicast() {
        return Err("a multicast address");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Err("the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err("an IPv4-mapped one; write it as IPv4")
        }
        _ => Ok(()),
    }
}

/// What a link is judged by: `icmp:ADDRESS` or `tcp:ADDRESS:PORT`, with its text.
pub(super) fn wan_target(node: Node<'_>, report: &mut Report<'_>) -> Option<(String, ProbeTarget)> {
    let text = node.value.as_str().unwrap_or_default();
    let target = match text.split_once(':') {
        Some(("icmp", address)) => address.parse().ok().map(ProbeTarget::Icmp),
        Some(("tcp", address)) => address
            .parse()
            .ok()
            .filter(|address: &SocketAddr| address.port() != 0 && !is_scoped(address))
            .map(ProbeTarget::Tcp),
        _ => None,
    };
    let Some(target) = target else {
        node.expected(
            "\"icmp:ADDRESS\", \"tcp:ADDRESS:PORT\" or \"tcp:[IPV6]:PORT\"",
            report,
        );
        return None;
    };
    if let Err(kind) = unicast(target.address()) {
        node.expected(&format!("the address of a host, not {kind}"), report);
        return None;
    }
    Some((text.to_owned(), target))
}

/// Scopes (`%eth0`) come from the link's interface, never from the address.
fn is_scoped(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0)
}

/// The name of a service, a server or a link, as commands will use it.
pub(super) fn label(node: Node<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = string(node, report)?;
    let fits = !text.is_empty() && text.len() <= NAME_LIMIT;
    if !fits
        || text
            .chars()
            .any(|c| c == '/' || c.is_whitespace() || c.is_control())
    {
        node.expected(
            "a name of 1 to 128 octets without '/' and white space",
            report,
        );
        return None;
    }
    Some(text.to_owned())
}

/// The name of a network interface.
pub(super) fn interface(node: Node<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = string(node, report)?;
    if !is_interface_name(text) {
        node.expected(
            "an interface name of 1 to 15 octets, such as \"eth0\"",
            report,
        );
        return None;
    }
    Some(text.to_owned())
}

/// Whether the kernel would take this as an interface's name.
pub(super) fn is_interface_name(text: &str) -> bool {
    (1..=INTERFACE_NAME_LIMIT).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text
            .chars()
            .any(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
}

/// A path that is not empty.
pub(super) fn path(node: Node<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let text = string(node, report)?;
    if text.is_empty() || text.contains('\0') {
        node.expected("a path", report);
        return None;
    }
    Some(PathBuf::from(text))
}

/// The apex of a zone.
pub(super) fn domain_name(node: Node<'_>, report: &mut Report<'_>) -> Option<Name> {
    let text = string(node, report)?;
    match name::parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            node.expected(&format!("a domain name ({error})"), report);
            None
        }
    }
}

/// What we answer to NSID (RFC 5001).
pub(super) fn nsid(node: Node<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = string(node, report)?;
    let printable = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    if text.is_empty() || text.len() > NSID_LIMIT || !printable {
        node.expected(
            &format!("1 to {NSID_LIMIT} printable ASCII characters"),
            report,
        );
        return None;
    }
    Some(text.to_owned())
}

/// 32 hexadecimal digits; they are never shown.
pub(super) fn cookie_secret(node: Node<'_>, report: &mut Report<'_>) -> Option<CookieSecret> {
    let text = string(node, report)?;
    let is_hex = text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(secret) if is_hex => Some(CookieSecret(secret.to_be_bytes())),
        _ => {
            let key = node.key;
            let message = format!("{key}: expected 32 hexadecimal digits, found something else");
            report.error(node.span, message);
            None
        }
    }
}

/// Whom a request is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName {
    /// As in the Host header (RFC 9110 section 7.2).
    pub(super) header: String,
    /// As in a certificate.
    pub(super) server_name: ServerName<'static>,
}

impl HostName {
    /// A host name or an IP address, without port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let server_name = ServerName::try_from(text.to_owned()).ok()?;
        let header = match text.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            Ok(IpAddr::V4(_)) | Err(_) => text.to_owned(),
        };
        Some(Self {
            header,
            server_name,
        })
    }
}

/// Whom a request is meant for.
pub(super) fn host(node: Node<'_>, report: &mut Report<'_>) -> Option<HostName> {
    let host = HostName::parse(string(node, report)?);
    if host.is_none() {
        node.expected(
            "a host name or an IP address, without port, such as \"www.example.com\"",
            report,
        );
    }
    host
}

/// Path and query of a request, as they are sent.
pub(super) fn request_path(node: Node<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = string(node, report)?;
    let fits = text.starts_with('/') && !text.contains('#');
    if !fits || PathAndQuery::try_from(text).is_err() {
        node.expected(
            "a path that starts with '/', percent-encoded where needed, such as \"/health?deep=1\"",
            report,
        );
        return None;
    }
    Some(text.to_owned())
}

/// Text that a body must contain.
pub(super) fn wanted_text(node: Node<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = string(node, report)?;
    if text.is_empty() || text.len() > WANTED_TEXT_LIMIT {
        let what = format!("a text of 1 to {WANTED_TEXT_LIMIT} octets");
        node.expected(&what, report);
        return None;
    }
    Some(text.to_owned())
}

/// One status code of a final response, or a range of them.
pub(super) fn status_codes(node: Node<'_>, report: &mut Report<'_>) -> Option<RangeInclusive<u16>> {
    let all = 200..=599;
    let codes = match node.value {
        DeValue::String(text) => text
            .split_once('-')
            .and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?)),
        other => small_integer(other).map(|code| code..=code),
    };
    let fits = |codes: &RangeInclusive<u16>| {
        !codes.is_empty() && all.contains(codes.start()) && all.contains(codes.end())
    };
    let codes = codes.filter(fits);
    if codes.is_none() {
        node.expected(
            "a status code from 200 to 599, such as 204, or a range of them, such as \"200-399\"",
            report,
        );
    }
    codes
}

/// An absolute path, and arguments.
pub(super) fn command(node: Node<'_>, report: &mut Report<'_>) -> Option<List<String>> {
    let word = |node: Node<'_>, report: &mut Report<'_>| {
        let text = string(node, report)?;
        if text.contains('\0') {
            node.expected("a text without NUL", report);
            return None;
        }
        Some(text.to_owned())
    };
    let words = list(word)(node, report)?;
    let program = words.items.first();
    if program.is_none_or(|program| !program.value.starts_with('/'))
        && words.items.len() == words.written
    {
        let what = "the absolute path of a program, and its arguments, such as [\"/usr/local/bin/check\", \"-v\"]";
        node.expected(what, report);
        return None;
    }
    Some(words)
}

/// An array, each element read by `read`; the bad ones are reported and left out.
pub(super) fn list<'a, T>(
    mut read: impl FnMut(Node<'a>, &mut Report<'_>) -> Option<T>,
) -> impl FnOnce(Node<'a>, &mut Report<'_>) -> Option<List<T>> {
    move |node, report| {
        let DeValue::Array(array) = node.value else {
            node.expected("an array: write it in [ ]", report);
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for value in array {
            let element = Node {
                key: node.key,
                value: value.get_ref(),
                span: value.span().into(),
            };
            if let Some(value) = read(element, report) {
                items.push(At {
                    value,
                    span: element.span,
                });
            }
        }
        Some(List {
            items,
            written: array.len(),
        })
    }
}
