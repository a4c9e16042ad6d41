//! Checks: what `[check]`, a service and a server say, each over the one before.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use toml::de::DeValue;

use super::reader::{Field, List, Node, Table};
use super::report::{At, Report, Span};
use super::value::{self, HostName};
use crate::model::{ExecCheck, HttpCheck, HttpMethod, Name, ProbeTarget, Timing, Tls, Trust};

const MINIMUM_INTERVAL: Duration = Duration::from_millis(10);
const MINIMUM_TIMEOUT: Duration = Duration::from_millis(1);
/// Checks of one server.
const CHECK_LIMIT: usize = 16;

/// `type = …` of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    Tcp,
    Http,
    Https,
    Icmp,
    Exec,
}

const KINDS: [(&str, CheckKind); 5] = [
    ("tcp", CheckKind::Tcp),
    ("http", CheckKind::Http),
    ("https", CheckKind::Https),
    ("icmp", CheckKind::Icmp),
    ("exec", CheckKind::Exec),
];

const METHODS: [(&str, HttpMethod); 2] = [("GET", HttpMethod::Get), ("HEAD", HttpMethod::Head)];

const ANY_HTTP: &[CheckKind] = &[CheckKind::Http, CheckKind::Https];

/// The keys that not every type has, and the types that have them.
const SPECIAL_KEYS: [(&str, &[CheckKind]); 9] = [
    (
        "port",
        &[
            CheckKind::Tcp,
            CheckKind::Http,
            CheckKind::Https,
            CheckKind::Exec,
        ],
    ),
    ("path", ANY_HTTP),
    ("host", ANY_HTTP),
    ("method", ANY_HTTP),
    ("expect", ANY_HTTP),
    ("body", ANY_HTTP),
    ("ca_file", &[CheckKind::Https]),
    ("verify", &[CheckKind::Https]),
    ("command", &[CheckKind::Exec]),
];

impl CheckKind {
    fn word(self) -> &'static str {
        let found = KINDS.iter().find(|(_, kind)| *kind == self);
        found.map_or("", |(word, _)| word)
    }
}

/// A `check` table as written.
#[derive(Clone)]
pub(super) struct CheckSpec {
    span: Span,
    kind: Field<CheckKind>,
    interval: Field<Duration>,
    timeout: Field<Duration>,
    fastinter: Field<Duration>,
    rise: Field<u8>,
    fall: Field<u8>,
    options: Options,
    /// Whether `options` is all that was written.
    whole: bool,
    /// Those of [`SPECIAL_KEYS`] that are there, and where.
    special: Vec<(&'static str, &'static [CheckKind], Span)>,
}

/// `check` of a service or a server.
#[derive(Clone)]
pub(super) enum ChecksSpec {
    /// A table.
    One(Box<CheckSpec>),
    /// An array of tables.
    Several(Vec<CheckSpec>),
}

/// What only some types of checks have; `None`: the default.
#[derive(Clone, Debug, Default)]
struct Options {
    port: Option<At<NonZeroU16>>,
    path: Option<At<String>>,
    host: Option<At<HostName>>,
    method: Option<At<HttpMethod>>,
    expect: Option<At<List<RangeInclusive<u16>>>>,
    body: Option<At<String>>,
    ca_file: Option<At<PathBuf>>,
    verify: Option<At<bool>>,
    command: Option<At<List<String>>>,
}

impl Options {
    /// Those that are written, and whether all of them could be read.
    fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> (Self, bool) {
        let mut whole = true;
        let path = table.optional("path", report, value::request_path);
        let expect = table.optional("expect", report, value::list(value::status_codes));
        let options = Self {
            port: given(table.optional("port", report, value::positive), &mut whole),
            path: given(path, &mut whole),
            host: given(table.optional("host", report, value::host), &mut whole),
            method: given(
                table.optional("method", report, value::word(&METHODS)),
                &mut whole,
            ),
            expect: given(expect, &mut whole),
            body: given(
                table.optional("body", report, value::wanted_text),
                &mut whole,
            ),
            ca_file: given(table.optional("ca_file", report, value::path), &mut whole),
            verify: given(table.optional("verify", report, value::boolean), &mut whole),
            command: given(
                table.optional("command", report, value::command),
                &mut whole,
            ),
        };
        (options, whole)
    }
}

/// What is written; `whole` becomes false when it could not be read.
fn given<T>(field: Field<T>, whole: &mut bool) -> Option<At<T>> {
    match field {
        Field::Given(at) => Some(at),
        Field::Absent => None,
        Field::Bad => {
            *whole = false;
            None
        }
    }
}

impl CheckSpec {
    pub(super) fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut table = Table::open(node, report)?;
        let special = SPECIAL_KEYS.into_iter();
        let special = special
            .filter_map(|(key, kinds)| Some((key, kinds, table.key_span(key)?)))
            .collect();
        let (options, whole) = Options::read(&mut table, report);
        let spec = Self {
            span: node.span,
            kind: table.optional("type", report, value::word(&KINDS)),
            interval: table.optional("interval", report, value::duration(MINIMUM_INTERVAL)),
            timeout: table.optional("timeout", report, value::duration(MINIMUM_TIMEOUT)),
            fastinter: table.optional("fastinter", report, value::duration(MINIMUM_INTERVAL)),
            rise: table.optional("rise", report, value::count),
            fall: table.optional("fall", report, value::count),
            options,
            whole,
            special,
        };
        table.finish(report);
        Some(spec)
    }
}

impl ChecksSpec {
    pub(super) fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let DeValue::Array(array) = node.value else {
            return match node.value {
                DeValue::Table(_) => CheckSpec::read(node, report).map(Box::new).map(Self::One),
                _ => {
                    node.expected("a table, or an array of tables", report);
                    None
                }
            };
        };
        if array.is_empty() || array.len() > CHECK_LIMIT {
            let message = format!(
                "check: expected 1 to {CHECK_LIMIT} checks, found {}",
                array.len()
            );
            report.error(node.span, message);
            return None;
        }
        let list = value::list(CheckSpec::read)(node, report)?;
        Some(Self::Several(
            list.items.into_iter().map(|item| item.value).collect(),
        ))
    }
}

/// A check with everything inherited.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// Where it was written; nowhere when nothing but the defaults is known.
    span: Span,
    /// `None` after an error: what depends on it is not judged.
    kind: Option<CheckKind>,
    interval: Duration,
    /// Whether `interval` is what was meant: false after an error.
    interval_known: bool,
    timeout: Duration,
    /// As inherited; lowered to `interval` only in [`Check::timing`].
    fastinter: Duration,
    rise: u8,
    fall: u8,
    options: Options,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            span: Span::default(),
            kind: Some(CheckKind::Tcp),
            interval: Duration::from_secs(1),
            interval_known: true,
            timeout: Duration::from_millis(500),
            fastinter: Duration::from_millis(200),
            rise: 2,
            fall: 3,
            options: Options::default(),
        }
    }
}

/// What the check of a server is about.
pub(super) struct Subject<'a> {
    /// Name of the service.
    pub(super) service: &'a str,
    /// The service's names; `None`: they could not be read.
    pub(super) fqdn: Option<&'a [At<Name>]>,
    /// Name of the server.
    pub(super) server: &'a str,
    /// The address to be checked.
    pub(super) address: IpAddr,
    /// The server's port.
    pub(super) port: NonZeroU16,
}

/// The checks of a service or a server: what `spec` says over `inherited`.
///
/// A table without a type changes each inherited check. One with a type, or an array, takes
/// their place, and builds on the inherited check if there is but one, else on `defaults`.
pub(super) fn layered(
    inherited: Vec<Check>,
    defaults: &Check,
    spec: &Field<ChecksSpec>,
    report: &mut Report<'_>,
) -> Vec<Check> {
    let base = match inherited.as_slice() {
        [one] => one.clone(),
        _ => defaults.clone(),
    };
    match spec.value() {
        None => inherited,
        Some(ChecksSpec::One(spec)) if spec.kind.is_absent() => inherited
            .into_iter()
            .map(|check| check.overridden(spec, report))
            .collect(),
        Some(ChecksSpec::One(spec)) => vec![base.overridden(spec, report)],
        Some(ChecksSpec::Several(specs)) => specs
            .iter()
            .map(|spec| base.clone().overridden(spec, report))
            .collect(),
    }
}

impl Check {
    /// This check with what `spec` says instead. A `fastinter` written in `spec` may not
    /// be longer than the interval that holds there; an inherited one is lowered.
    pub(super) fn overridden(self, spec: &CheckSpec, report: &mut Report<'_>) -> Self {
        let kind = match &spec.kind {
            Field::Absent => self.kind,
            Field::Bad => None,
            Field::Given(kind) => Some(kind.value),
        };
        if let Some(kind) = kind {
            refuse_misplaced(spec, kind, report);
        }
        let options = self.options.overridden(&spec.options);
        let options = match kind {
            Some(kind) => options.of(kind),
            None => options,
        };
        let check = Self {
            span: spec.span,
            kind: kind.filter(|_| spec.whole),
            interval: spec.interval.value_or(self.interval),
            interval_known: match spec.interval {
                Field::Absent => self.interval_known,
                Field::Bad => false,
                Field::Given(_) => true,
            },
            timeout: spec.timeout.value_or(self.timeout),
            fastinter: spec.fastinter.value_or(self.fastinter),
            rise: spec.rise.value_or(self.rise),
            fall: spec.fall.value_or(self.fall),
            options,
        };
        if let Some(fastinter) = spec.fastinter.given()
            && check.interval_known
            && fastinter.value > check.interval
        {
            let message = format!(
                "fastinter: expected at most the interval, {}, found {}",
                humantime::format_duration(check.interval),
                report.quote(fastinter.span)
            );
            report.consequence(fastinter.span, message);
        }
        check
    }

    pub(super) fn timing(&self) -> Timing {
        Timing {
            interval: self.interval,
            fastinter: self.fastinter.min(self.interval),
            timeout: self.timeout,
            rise: self.rise,
            fall: self.fall,
        }
    }

    /// What is to be probed for `subject`; `None` after an error.
    pub(super) fn target(
        &self,
        subject: &Subject<'_>,
        files: &mut CaFiles,
        report: &mut Report<'_>,
    ) -> Option<ProbeTarget> {
        let port = self
            .options
            .port
            .as_ref()
            .map_or(subject.port, |port| port.value);
        let address = SocketAddr::new(subject.address, port.get());
        match self.kind? {
            CheckKind::Tcp => Some(ProbeTarget::Tcp(address)),
            CheckKind::Icmp => Some(ProbeTarget::Icmp(subject.address)),
            CheckKind::Http => self.http(address, subject, None, report),
            CheckKind::Https => {
                let trust = self.trust(files, report)?;
                self.http(address, subject, Some(trust), report)
            }
            CheckKind::Exec => self.exec(port, subject, report),
        }
    }

    fn http(
        &self,
        address: SocketAddr,
        subject: &Subject<'_>,
        trust: Option<Trust>,
        report: &mut Report<'_>,
    ) -> Option<ProbeTarget> {
        let options = &self.options;
        let host = self.host(subject, report)?;
        let method = options.method.as_ref().map(|method| method.value);
        let method = method.unwrap_or_default();
        if let (HttpMethod::Head, Some(body)) = (method, &options.body) {
            let message = "body: a response to HEAD has none, so expected no such key";
            report.error(body.span, message);
        }
        let expect = match &options.expect {
            Some(codes) => {
                if codes.value.written == 0 {
                    let message = "expect: expected at least one status code, found []";
                    report.error(codes.span, message);
                }
                codes
                    .value
                    .items
                    .iter()
                    .map(|codes| codes.value.clone())
                    .collect()
            }
            None => vec![200..=200],
        };
        let path = options.path.as_ref().map_or("/", |path| &path.value);
        Some(ProbeTarget::Http(Arc::new(HttpCheck {
            address,
            tls: trust.map(|trust| Tls {
                name: host.server_name,
                trust,
            }),
            method,
            host: host.header,
            path: path.to_owned(),
            expect,
            body: options.body.as_ref().map(|body| body.value.clone()),
        })))
    }

    /// The name that is asked for: by default the service's first that is no wildcard.
    fn host(&self, subject: &Subject<'_>, report: &mut Report<'_>) -> Option<HostName> {
        if let Some(host) = &self.options.host {
            return Some(host.value.clone());
        }
        let mut names = subject.fqdn?.iter().map(|name| name.value.to_string());
        let host = names
            .find(|name| !name.starts_with("*."))
            .and_then(|name| HostName::parse(&name));
        if host.is_none() {
            let message = "missing key \"host\": the service has no name that a host could have";
            report.consequence(self.span, message);
        }
        host
    }

    fn trust(&self, files: &mut CaFiles, report: &mut Report<'_>) -> Option<Trust> {
        let verify = self
            .options
            .verify
            .as_ref()
            .is_none_or(|verify| verify.value);
        match &self.options.ca_file {
            Some(file) if !verify => {
                let message = "ca_file: verify = false needs none, so expected no such key";
                report.error(file.span, message);
                None
            }
            Some(file) => files.trust(file, report),
            None if verify => Some(Trust::System),
            None => Some(Trust::Anybody),
        }
    }

    fn exec(
        &self,
        port: NonZeroU16,
        subject: &Subject<'_>,
        report: &mut Report<'_>,
    ) -> Option<ProbeTarget> {
        let Some(command) = &self.options.command else {
            report.consequence(
                self.span,
                "missing key \"command\": what an exec check runs",
            );
            return None;
        };
        if let Some(program) = command.value.items.first()
            && !Path::new(&program.value).exists()
        {
            let message = format!("command: there is no {}", report.quote(program.span));
            report.warn(program.span, message);
        }
        let words = command.value.items.iter();
        Some(ProbeTarget::Exec(Arc::new(ExecCheck {
            command: words.map(|word| word.value.clone()).collect(),
            service: subject.service.to_owned(),
            server: subject.server.to_owned(),
            address: subject.address,
            port,
        })))
    }
}

impl Options {
    fn overridden(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            port: other.port.or(self.port),
            path: other.path.or(self.path),
            host: other.host.or(self.host),
            method: other.method.or(self.method),
            expect: other.expect.or(self.expect),
            body: other.body.or(self.body),
            ca_file: other.ca_file.or(self.ca_file),
            verify: other.verify.or(self.verify),
            command: other.command.or(self.command),
        }
    }

    /// Without what checks of this type do not have.
    fn of(self, kind: CheckKind) -> Self {
        let has = |key| {
            let mut keys = SPECIAL_KEYS.iter();
            keys.any(|(special, kinds)| *special == key && kinds.contains(&kind))
        };
        Self {
            port: self.port.filter(|_| has("port")),
            path: self.path.filter(|_| has("path")),
            host: self.host.filter(|_| has("host")),
            method: self.method.filter(|_| has("method")),
            expect: self.expect.filter(|_| has("expect")),
            body: self.body.filter(|_| has("body")),
            ca_file: self.ca_file.filter(|_| has("ca_file")),
            verify: self.verify.filter(|_| has("verify")),
            command: self.command.filter(|_| has("command")),
        }
    }
}

/// A key that checks of this type do not have would do nothing.
fn refuse_misplaced(spec: &CheckSpec, kind: CheckKind, report: &mut Report<'_>) {
    for (key, kinds, span) in &spec.special {
        if kinds.contains(&kind) {
            continue;
        }
        let kinds: Vec<_> = kinds
            .iter()
            .map(|kind| format!("\"{}\"", kind.word()))
            .collect();
        let message = format!(
            "\"{key}\" has no place in a check of type \"{}\"; expected with type {}",
            kind.word(),
            kinds.join(" or ")
        );
        report.error(*span, message);
    }
}

/// Files with certificates, each read once.
pub(super) struct CaFiles {
    base: PathBuf,
    /// `None`: it is of no use, which has been reported.
    read: HashMap<PathBuf, Option<Arc<[CertificateDer<'static>]>>>,
}

impl CaFiles {
    /// Relative paths are relative to `base`.
    pub(super) fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            read: HashMap::new(),
        }
    }

    /// Trust in the CAs of a file, and in nobody else.
    pub(super) fn trust(&mut self, file: &At<PathBuf>, report: &mut Report<'_>) -> Option<Trust> {
        let path = self.base.join(&file.value);
        let certificates = self.read.entry(path.clone()).or_insert_with(|| {
            read_certificates(&path)
                .map_err(|error| {
                    let message = format!("ca_file: {}: {error}", path.display());
                    report.error(file.span, message);
                })
                .ok()
        });
        let certificates = certificates.clone()?;
        Some(Trust::File { path, certificates })
    }
}

/// The certificates of a PEM file, each of which may be a trust anchor.
fn read_certificates(path: &Path) -> Result<Arc<[CertificateDer<'static>]>, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot read the file: {error}"))?;
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(&content)) {
        let certificate = certificate.map_err(|error| format!("expected PEM: {error}"))?;
        roots
            .add(certificate.clone())
            .map_err(|error| format!("certificate {number} is of no use: {error}"))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err("expected certificates in PEM, found none".to_owned());
    }
    Ok(certificates.into())
}
