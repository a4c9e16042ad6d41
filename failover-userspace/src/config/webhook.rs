//! `[[notify]]`: who is told of events over HTTP.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glob::Pattern;
use hyper::Uri;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, HeaderValue,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::uri::Scheme;
use toml::de::DeValue;

use super::check::CaFiles;
use super::reader::{Field, List, Node, Table, Tables};
use super::report::{At, Report, Span, Unique};
use super::value::{self, HostName};
use crate::journal::Kind;
use crate::model::{Secret, Service, Tls, Trust, Webhook};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MINIMUM_TIMEOUT: Duration = Duration::from_millis(100);
/// Headers that are ours to say.
const RESERVED: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
];

/// `[[notify]]` as written.
pub(super) struct WebhookSpec {
    name: Field<String>,
    url: Field<Url>,
    events: Field<List<Kind>>,
    services: Field<List<Pattern>>,
    headers: Field<Vec<(HeaderName, HeaderValue)>>,
    bearer_token_file: Field<PathBuf>,
    timeout: Field<Duration>,
    ca_file: Field<PathBuf>,
    verify: Field<bool>,
}

/// Where to, by `http` or `https`.
#[derive(Clone)]
struct Url {
    is_https: bool,
    host: HostName,
    /// Unless it is the scheme's.
    port: Option<u16>,
    path: String,
}

impl WebhookSpec {
    pub(super) fn read(mut table: Table<'_>, report: &mut Report<'_>) -> Self {
        let kinds: Vec<(&'static str, Kind)> = Kind::ALL
            .iter()
            .filter(|kind| **kind != Kind::Lost)
            .map(|kind| (kind.as_str(), *kind))
            .collect();
        let kind = |node: Node<'_>, report: &mut Report<'_>| value::word(&kinds)(node, report);
        let spec = Self {
            name: table.optional("name", report, value::label),
            url: table.required("url", report, Url::read),
            events: table.optional("events", report, value::list(kind)),
            services: table.optional("services", report, value::list(pattern)),
            headers: table.optional("headers", report, headers),
            bearer_token_file: table.optional("bearer_token_file", report, value::path),
            timeout: table.optional("timeout", report, value::duration(MINIMUM_TIMEOUT)),
            ca_file: table.optional("ca_file", report, value::path),
            verify: table.optional("verify", report, value::boolean),
        };
        table.finish(report);
        spec
    }
}

impl Url {
    fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let text = value::string(node, report)?;
        let url = Self::parse(text);
        if url.is_none() {
            node.expected(
                "\"http://HOST/…\" or \"https://HOST/…\", with or without port, without user and fragment",
                report,
            );
        }
        url
    }

    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let is_https = *uri.scheme()? == Scheme::HTTPS;
        let known = is_https || *uri.scheme()? == Scheme::HTTP;
        // A port that is no number is none to `port`.
        let has_port = !authority.as_str().ends_with(authority.host());
        let port = authority.port_u16();
        let odd = text.contains('#')
            || authority.as_str().contains('@')
            || (has_port && port.is_none_or(|port| port == 0));
        if !known || odd {
            return None;
        }
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Some(Self {
            is_https,
            host: HostName::parse(bare.unwrap_or(host))?,
            port,
            path: uri.path_and_query()?.as_str().to_owned(),
        })
    }

    /// Host and port as in the Host header.
    fn authority(&self) -> String {
        let host = &self.host.header;
        self.port
            .map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    /// The host as it is looked up.
    fn host(&self) -> &str {
        let host = &*self.host.header;
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
    }

    fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback())
    }
}

/// A pattern of names.
fn pattern(node: Node<'_>, report: &mut Report<'_>) -> Option<Pattern> {
    let pattern = Pattern::new(value::string(node, report)?);
    pattern
        .map_err(|error| {
            let what = format!("the name of a service, or a pattern such as \"www*\" ({error})");
            node.expected(&what, report);
        })
        .ok()
}

/// A table of headers. Their values may be secrets: they are not quoted.
fn headers(node: Node<'_>, report: &mut Report<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let DeValue::Table(entries) = node.value else {
        node.expected("a table, such as { X-Token = \"…\" }", report);
        return None;
    };
    let mut headers = Vec::new();
    let mut whole = true;
    for (key, value) in entries {
        let mut error = |span: Span, message: String| {
            report.error(span, format!("headers: {message}"));
            whole = false;
        };
        let written: &str = key.get_ref();
        let name = match HeaderName::from_bytes(written.as_bytes()) {
            Ok(name) if RESERVED.contains(&name) => {
                error(
                    key.span().into(),
                    format!("\"{written}\" is not to be chosen"),
                );
                continue;
            }
            Ok(name) => name,
            Err(_) => {
                let message =
                    "expected the name of a header, such as X-Token, found something else"
                        .to_owned();
                error(key.span().into(), message);
                continue;
            }
        };
        let text = value.get_ref().as_str();
        match text.and_then(header_value) {
            Some(value) => headers.push((name, value)),
            None => {
                let message = format!("{written}: expected a string of visible ASCII characters");
                error(value.span().into(), message);
            }
        }
    }
    whole.then_some(headers)
}

/// A value that is never shown.
fn header_value(text: &str) -> Option<HeaderValue> {
    let visible = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    let mut value = HeaderValue::from_str(text).ok().filter(|_| visible)?;
    value.set_sensitive(true);
    Some(value)
}

/// Who is told; after an error what comes back is of no account.
pub(super) fn build(
    specs: &Tables<WebhookSpec>,
    services: &[Service],
    base: &Path,
    ca_files: &mut CaFiles,
    report: &mut Report<'_>,
) -> Vec<Webhook> {
    let mut names = Unique::new("name of [[notify]], by default its host:");
    let mut webhooks = Vec::new();
    for spec in &specs.items {
        check_services(spec, services, report);
        let token = token(spec, base, report);
        let Some(url) = spec.url.given() else {
            continue;
        };
        // A URL may be a secret, but not whom it leads to.
        let (name, span) = match spec.name.given() {
            Some(name) => (name.value.clone(), name.span),
            None => (url.value.authority(), url.span),
        };
        names.insert(name.clone(), span, report);
        let tls = tls(spec, url, ca_files, report);
        let mut headers = spec.headers.value().cloned().unwrap_or_default();
        headers.extend(token.map(|token| (AUTHORIZATION, token)));
        let default_port = if url.value.is_https { 443 } else { 80 };
        webhooks.push(Webhook {
            name,
            host: url.value.host().to_owned(),
            port: url.value.port.unwrap_or(default_port),
            tls,
            authority: url.value.authority(),
            path: Secret(url.value.path.clone()),
            headers,
            timeout: spec.timeout.value_or(DEFAULT_TIMEOUT),
            kinds: spec.events.value().map(values),
            services: spec.services.value().map(values).unwrap_or_default(),
        });
    }
    webhooks
}

fn values<T: Clone>(list: &List<T>) -> Vec<T> {
    list.items.iter().map(|item| item.value.clone()).collect()
}

fn span_and_length<T>(list: &At<List<T>>) -> (Span, usize) {
    (list.span, list.value.written)
}

fn check_services(spec: &WebhookSpec, services: &[Service], report: &mut Report<'_>) {
    let written = [
        ("services", spec.services.given().map(span_and_length)),
        ("events", spec.events.given().map(span_and_length)),
    ];
    for (key, list) in written {
        if let Some((span, 0)) = list {
            let message = format!("{key}: expected at least one, found []; left out, it means all");
            report.error(span, message);
        }
    }
    let patterns = spec.services.value().into_iter();
    for pattern in patterns.flat_map(|list| &list.items) {
        if !services
            .iter()
            .any(|service| pattern.value.matches(&service.name))
        {
            let quoted = report.quote(pattern.span);
            report.warn(
                pattern.span,
                format!("services: no [[service]] is called {quoted}"),
            );
        }
    }
}

fn tls(
    spec: &WebhookSpec,
    url: &At<Url>,
    ca_files: &mut CaFiles,
    report: &mut Report<'_>,
) -> Option<Tls> {
    if !url.value.is_https {
        for (key, span) in [
            ("ca_file", spec.ca_file.given().map(|file| file.span)),
            ("verify", spec.verify.given().map(|verify| verify.span)),
        ] {
            if let Some(span) = span {
                let message = format!("{key}: expected only with an https URL");
                report.error(span, message);
            }
        }
        return None;
    }
    let trust = match (spec.ca_file.given(), spec.verify.value_or(true)) {
        (Some(file), true) => ca_files.trust(file, report)?,
        (Some(file), false) => {
            let message = "ca_file: verify = false needs none, so expected no such key";
            report.error(file.span, message);
            return None;
        }
        (None, true) => Trust::System,
        (None, false) => Trust::Anybody,
    };
    Some(Tls {
        name: url.value.host.server_name.clone(),
        trust,
    })
}

/// The value of the Authorization header, from a file.
fn token(spec: &WebhookSpec, base: &Path, report: &mut Report<'_>) -> Option<HeaderValue> {
    let file = spec.bearer_token_file.given()?;
    let headers = spec.headers.value().into_iter().flatten();
    if headers.into_iter().any(|(name, _)| *name == AUTHORIZATION) {
        let message = "bearer_token_file: \"Authorization\" is among the headers, so expected none";
        report.error(file.span, message);
    }
    if let Some(url) = spec.url.value()
        && !url.is_https
        && !url.is_loopback()
    {
        let message = "bearer_token_file: the token goes over the network in the clear";
        report.warn(file.span, message);
    }
    let path = base.join(&file.value);
    let token = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read the file: {error}"))
        .and_then(|text| {
            let token = text.trim();
            let is_word = !token.is_empty() && !token.contains(char::is_whitespace);
            let value = header_value(&format!("Bearer {token}")).filter(|_| is_word);
            value.ok_or_else(|| "expected one word of visible ASCII characters".to_owned())
        });
    match token {
        Ok(token) => Some(token),
        Err(error) => {
            let message = format!("bearer_token_file: {}: {error}", path.display());
            report.error(file.span, message);
            None
        }
    }
}
