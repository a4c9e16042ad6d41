//! Zone files (RFC 1035 section 5): what a zone says of itself, and which names it has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use domain::base::iana::{Class, Rtype};
use domain::base::name::FlattenInto;
use domain::base::rdata::{ComposeRecordData, ParseRecordData};
use domain::base::{ParsedName, Record};
use domain::dep::octseq::Parser;
use domain::rdata::ZoneRecordData;
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};

use super::diagnostic::Diagnostic;
use super::entries::{RawEntry, entries};
use super::name::{lower_cased, suffixes};
use super::report::quote;
use super::shorthand::{SpelledOut, spell_out};
use crate::model::{self, Name, NameServer, RecordData, Soa, ZoneData};

/// RFC 2181 section 8.
const TTL_LIMIT: u32 = (1 << 31) - 1;
/// How deep files may include files.
const INCLUDE_DEPTH: usize = 8;
/// How many files one zone may include.
const INCLUDE_LIMIT: usize = 1000;

/// A zone file, read, and the files it includes.
#[derive(Debug)]
pub(super) struct ZoneFile {
    /// All sets, by lower-cased owner in wire format, each node by type.
    nodes: HashMap<Bytes, BTreeMap<Rtype, Rrset>>,
    apex: Name,
    /// The zone file, then what it includes, in order.
    files: Vec<PathBuf>,
}

/// What every answer from a zone carries.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) soa: Soa,
    pub(super) ns_ttl: u32,
    pub(super) name_servers: Vec<NameServer>,
    pub(super) records: ZoneData,
}

/// The records of one name and type.
#[derive(Debug)]
struct Rrset {
    ttl: u32,
    data: Vec<RecordData>,
    /// Where the first record stands.
    place: Place,
}

/// A place in one of the files of a zone.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Index into [`ZoneFile::files`].
    file: usize,
    line: usize,
    column: usize,
}

/// Where what is missing would stand.
const START: Place = Place {
    file: 0,
    line: 1,
    column: 1,
};

/// What was found while reading a zone file.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Reads `content`. Without an [`Authority`] there are errors among the findings.
pub(super) fn read(
    apex: &Name,
    path: &Path,
    content: &[u8],
) -> (ZoneFile, Option<Authority>, Findings) {
    let mut reader = Reader {
        zone: ZoneFile {
            nodes: HashMap::new(),
            apex: apex.clone(),
            files: vec![path.to_path_buf()],
        },
        including: vec![0],
        findings: Findings::default(),
    };
    let mut scanner = Zonefile::new();
    scanner.set_origin(apex.clone());
    scanner.set_default_class(Class::IN);
    reader.read_entries(content, scanner, 0);
    reader.drop_duplicates();
    reader.check_cnames();
    reader.check_dnames_and_wildcards();
    let authority = reader.authority();
    (reader.zone, authority, reader.findings)
}

impl ZoneFile {
    fn rrset(&self, owner: &[u8], rtype: Rtype) -> Option<&Rrset> {
        self.nodes.get(owner)?.get(&rtype)
    }

    /// Why `name`, which lies in this zone, cannot be the name of a service.
    pub(super) fn clash(&self, name: &Name) -> Option<String> {
        for rtype in [Rtype::A, Rtype::AAAA, Rtype::CNAME] {
            if let Some(rrset) = self.rrset(name.as_slice(), rtype) {
                let place = self.show(rrset.place);
                return Some(format!("has {rtype} in the zone file, {place}"));
            }
        }
        for ancestor in
            suffixes(name).take_while(|suffix| suffix.len() > self.apex.as_slice().len())
        {
            if let Some(rrset) = self.rrset(ancestor, Rtype::NS) {
                let place = self.show(rrset.place);
                return Some(format!("lies below a delegation, zone file {place}"));
            }
        }
        for ancestor in suffixes(name).skip(1) {
            if let Some(rrset) = self.rrset(ancestor, Rtype::DNAME) {
                let place = self.show(rrset.place);
                return Some(format!("lies below a DNAME, zone file {place}"));
            }
        }
        None
    }

    fn show(&self, place: Place) -> String {
        match self.files.get(place.file) {
            Some(file) if place.file > 0 => format!("{} line {}", file.display(), place.line),
            _ => format!("line {}", place.line),
        }
    }

    /// The sets without their places; none are left here.
    fn take_records(&mut self) -> ZoneData {
        let sets = self.nodes.iter_mut().flat_map(|(owner, node)| {
            let owner = Name::from_octets(owner.clone()).unwrap_or_else(|_| Name::root_bytes());
            node.iter_mut().map(move |(rtype, rrset)| {
                let set = model::Rrset {
                    rtype: *rtype,
                    ttl: rrset.ttl,
                    data: std::mem::take(&mut rrset.data),
                };
                (owner.clone(), set)
            })
        });
        ZoneData::new(&self.apex, sets)
    }
}

struct Reader {
    zone: ZoneFile,
    /// The file that is being read, and before it those that include it.
    including: Vec<usize>,
    findings: Findings,
}

impl Reader {
    fn diagnostic(&self, place: Place, message: String) -> Diagnostic {
        Diagnostic {
            file: self.zone.files[place.file].clone(),
            line: place.line,
            column: place.column,
            message,
        }
    }

    fn error(&mut self, place: Place, message: impl Into<String>) {
        let diagnostic = self.diagnostic(place, message.into());
        self.findings.errors.push(diagnostic);
    }

    fn warn(&mut self, place: Place, message: impl Into<String>) {
        let diagnostic = self.diagnostic(place, message.into());
        self.findings.warnings.push(diagnostic);
    }

    /// Where an entry of the file that is being read stands.
    fn place(&self, line: usize, column: usize) -> Place {
        Place {
            file: self.including.last().copied().unwrap_or_default(),
            line,
            column,
        }
    }

    /// Feeds the scanner entry by entry; after an error it goes on from the state
    /// before the bad one. The scanner has seen `scanned_lines` of other files.
    fn read_entries(&mut self, content: &[u8], mut scanner: Zonefile, mut scanned_lines: usize) {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        for raw in entries(content) {
            let place = self.place(raw.line, raw.column);
            if let Some(flaw) = raw.flaw {
                self.error(place, format!("{flaw}: {}", quote_octets(raw.text)));
                continue;
            }
            let before = scanner.clone();
            let origin = scanner.origin();
            let spelled = spell_out(raw.text, origin.as_ref().unwrap_or(&self.zone.apex));
            scanner.extend_from_slice(&spelled.text);
            if !raw.text.ends_with(b"\n") {
                scanner.extend_from_slice(b"\n");
            }
            match scanner.next_entry() {
                Ok(None) => {}
                Ok(Some(Entry::Record(record))) => self.take_record(record, raw, place),
                Ok(Some(Entry::Include { path, origin })) => {
                    // RFC 1035 section 5.1: what the included file does to the origin does
                    // not come back.
                    let mut included = scanner.clone();
                    if let Some(origin) = origin {
                        included.set_origin(origin);
                    }
                    let lines = scanned_lines + newlines(raw.text);
                    self.include(path.as_ref(), included, lines, place);
                }
                Err(error) => {
                    let (line, column, message) =
                        explain(&error.to_string(), scanned_lines, raw, &spelled);
                    self.error(self.place(line, column), message);
                    scanner = before;
                    continue;
                }
            }
            scanned_lines += newlines(raw.text);
        }
    }

    /// Reads a file named by `$INCLUDE`, relative to the file that names it.
    fn include(&mut self, path: &str, scanner: Zonefile, scanned_lines: usize, place: Place) {
        let path = match self.zone.files[place.file].parent() {
            Some(parent) => parent.join(path),
            None => PathBuf::from(path),
        };
        let is_open = |file: &usize| self.zone.files[*file] == path;
        let refused = if self.including.iter().any(is_open) {
            Some("includes itself".to_owned())
        } else if self.including.len() > INCLUDE_DEPTH {
            Some(format!("is more than {INCLUDE_DEPTH} files deep"))
        } else if self.zone.files.len() > INCLUDE_LIMIT {
            Some(format!("is one of more than {INCLUDE_LIMIT} files"))
        } else {
            None
        };
        if let Some(refused) = refused {
            self.error(place, format!("$INCLUDE: {} {refused}", path.display()));
            return;
        }
        match std::fs::read(&path) {
            Ok(content) => {
                self.including.push(self.zone.files.len());
                self.zone.files.push(path);
                self.read_entries(&content, scanner, scanned_lines);
                self.including.pop();
            }
            Err(error) => {
                let message = format!("$INCLUDE: cannot read {}: {error}", path.display());
                self.error(place, message);
            }
        }
    }

    fn take_record(&mut self, record: ScannedRecord, raw: RawEntry<'_>, place: Place) {
        let record: Record<domain::base::Name<Bytes>, RecordData> = record.flatten_into();
        if !is_well_formed(&record) {
            let quoted = quote_octets(raw.text.trim_ascii());
            let message = format!("a name with an empty label, or data too long, in {quoted}");
            self.error(place, message);
            return;
        }
        let owner = lower_cased(record.owner().as_slice());
        let ttl = record.ttl().as_secs();
        let rtype = record.rtype();
        if !suffixes(&owner).any(|suffix| suffix == self.zone.apex.as_slice()) {
            let message = format!(
                "{} lies outside the zone {}",
                dotted(&owner),
                dotted(&self.zone.apex)
            );
            self.error(place, message);
            return;
        }
        if record.class() != Class::IN {
            let message = format!("expected class IN, found {}", record.class());
            self.error(place, message);
            return;
        }
        if ttl > TTL_LIMIT {
            let message = format!("expected a TTL of at most {TTL_LIMIT}, found {ttl}");
            self.error(place, message);
            return;
        }
        let shown = dotted(&owner);
        let node = self.zone.nodes.entry(owner.into_octets()).or_default();
        let rrset = node.entry(rtype).or_insert_with(|| Rrset {
            ttl,
            data: Vec::new(),
            place,
        });
        rrset.data.push(record.into_data());
        if rrset.ttl != ttl {
            let lowest = rrset.ttl.min(ttl);
            rrset.ttl = lowest;
            let message = format!(
                "{shown} {rtype}: records of one set have different TTLs (RFC 2181 section 5.2), taking the lowest, {lowest}"
            );
            self.warn(place, message);
        }
    }

    /// RFC 2181 section 5: a set has no record twice.
    fn drop_duplicates(&mut self) {
        let mut found = Vec::new();
        for (owner, node) in &mut self.zone.nodes {
            for (rtype, rrset) in node.iter_mut().filter(|(_, rrset)| rrset.data.len() > 1) {
                let mut seen = HashSet::new();
                let is_first: Vec<bool> = rrset.data.iter().map(|data| seen.insert(data)).collect();
                if is_first.contains(&false) {
                    let mut is_first = is_first.into_iter();
                    rrset.data.retain(|_| is_first.next().unwrap_or(true));
                    let owner = dotted(&lower_cased(owner));
                    let message = format!("{owner} {rtype}: a record is there twice");
                    found.push((rrset.place, message));
                }
            }
        }
        for (place, message) in found {
            self.warn(place, message);
        }
    }

    /// RFC 1034 section 3.6.2: a CNAME is alone at its name.
    fn check_cnames(&mut self) {
        let mut found = Vec::new();
        for (owner, node) in &self.zone.nodes {
            let Some(cname) = node.get(&Rtype::CNAME) else {
                continue;
            };
            let company = node
                .keys()
                .find(|rtype| !matches!(**rtype, Rtype::CNAME | Rtype::RRSIG | Rtype::NSEC));
            let owner = dotted(&lower_cased(owner));
            if let Some(rtype) = company {
                let message = format!("{owner} has both CNAME and {rtype}");
                found.push((cname.place, message));
            }
            if cname.data.len() > 1 {
                found.push((cname.place, format!("{owner} has more than one CNAME")));
            }
        }
        for (place, message) in found {
            self.error(place, message);
        }
    }

    /// RFC 6672 section 2.4: one DNAME, and nothing below it. RFC 4592 sections 4.2 and 4.4:
    /// what a wildcard with NS or DNAME means is left undefined.
    fn check_dnames_and_wildcards(&mut self) {
        let apex_len = self.zone.apex.len();
        let mut found = Vec::new();
        for (owner, node) in &self.zone.nodes {
            let name = lower_cased(owner);
            let shown = dotted(&name);
            for rtype in [Rtype::NS, Rtype::DNAME] {
                if let Some(rrset) = node.get(&rtype)
                    && owner.starts_with(b"\x01*")
                {
                    found.push((rrset.place, format!("{shown} is a wildcard with {rtype}")));
                }
            }
            if let Some(dname) = node.get(&Rtype::DNAME)
                && dname.data.len() > 1
            {
                found.push((dname.place, format!("{shown} has more than one DNAME")));
            }
            let above = suffixes(&name)
                .skip(1)
                .take_while(|suffix| suffix.len() >= apex_len)
                .find_map(|suffix| self.zone.rrset(suffix, Rtype::DNAME));
            if let (Some(dname), Some(first)) = (above, node.values().next()) {
                let message = format!(
                    "{shown} lies below a DNAME, {}",
                    self.zone.show(dname.place)
                );
                found.push((first.place, message));
            }
        }
        for (place, message) in found {
            self.error(place, message);
        }
    }

    /// SOA, NS set and the in-zone addresses of its members. What an unreadable record may
    /// have caused to miss is not reported.
    fn authority(&mut self) -> Option<Authority> {
        let is_whole = self.findings.errors.is_empty();
        let apex = dotted(&self.zone.apex);
        let mut missing = Vec::new();
        let soa = self.soa();
        if soa.is_none()
            && self
                .zone
                .rrset(self.zone.apex.as_slice(), Rtype::SOA)
                .is_none()
        {
            missing.push((START, format!("no SOA record at {apex}")));
        }
        let mut misplaced = Vec::new();
        for (owner, node) in &self.zone.nodes {
            if let Some(rrset) = node.get(&Rtype::SOA) {
                if *owner != self.zone.apex.as_slice() {
                    let message = format!("expected SOA only at {apex}");
                    misplaced.push((rrset.place, message));
                } else if rrset.data.len() > 1 {
                    let message = format!("expected one SOA at {apex}, found {}", rrset.data.len());
                    misplaced.push((rrset.place, message));
                }
            }
        }
        let mut name_servers = Vec::new();
        let ns = self.zone.rrset(self.zone.apex.as_slice(), Rtype::NS);
        if ns.is_none() {
            missing.push((START, format!("no NS record at {apex}")));
        }
        for data in ns.into_iter().flat_map(|ns| &ns.data) {
            let ZoneRecordData::Ns(target) = data else {
                continue;
            };
            let name = lower_cased(target.nsdname().as_slice());
            let addresses = self.addresses(&name);
            let in_zone = suffixes(&name).any(|suffix| suffix == self.zone.apex.as_slice());
            if in_zone && addresses.is_empty() {
                let place = ns.map_or(START, |ns| ns.place);
                let message = format!(
                    "name server {} has no A or AAAA record in its zone",
                    dotted(&name)
                );
                missing.push((place, message));
            }
            name_servers.push(NameServer { name, addresses });
        }
        let ns_ttl = ns.map(|ns| ns.ttl);
        for (place, message) in misplaced {
            self.error(place, message);
        }
        if is_whole {
            for (place, message) in missing {
                self.error(place, message);
            }
        }
        if !self.findings.errors.is_empty() {
            return None;
        }
        Some(Authority {
            soa: soa?,
            ns_ttl: ns_ttl?,
            name_servers,
            records: self.zone.take_records(),
        })
    }

    fn soa(&self) -> Option<Soa> {
        let rrset = self.zone.rrset(self.zone.apex.as_slice(), Rtype::SOA)?;
        let Some(ZoneRecordData::Soa(soa)) = rrset.data.first() else {
            return None;
        };
        Some(Soa {
            ttl: rrset.ttl,
            mname: lower_cased(soa.mname().as_slice()),
            rname: lower_cased(soa.rname().as_slice()),
            serial: soa.serial().into_int(),
            refresh: soa.refresh().as_secs(),
            retry: soa.retry().as_secs(),
            expire: soa.expire().as_secs(),
            minimum: soa.minimum().as_secs(),
        })
    }

    /// Addresses of a name of this zone, IPv4 first.
    fn addresses(&self, name: &Name) -> Vec<(IpAddr, u32)> {
        let mut addresses = Vec::new();
        for rtype in [Rtype::A, Rtype::AAAA] {
            let Some(rrset) = self.zone.rrset(name.as_slice(), rtype) else {
                continue;
            };
            addresses.extend(rrset.data.iter().filter_map(|data| match data {
                ZoneRecordData::A(a) => Some((IpAddr::V4(a.addr()), rrset.ttl)),
                ZoneRecordData::Aaaa(aaaa) => Some((IpAddr::V6(aaaa.addr()), rrset.ttl)),
                _ => None,
            }));
        }
        addresses
    }
}

/// Whether the record survives a round through wire format: the scanner lets some names
/// pass that are none, such as `a..b`.
fn is_well_formed(record: &Record<domain::base::Name<Bytes>, RecordData>) -> bool {
    let mut wire = Vec::new();
    if domain::base::Name::from_octets(record.owner().as_slice()).is_err()
        || record.data().compose_rdata(&mut wire).is_err()
        || wire.len() > usize::from(u16::MAX)
    {
        return false;
    }
    let mut parser = Parser::from_ref(wire.as_slice());
    let parsed: Result<Option<ZoneRecordData<_, ParsedName<_>>>, _> =
        ZoneRecordData::parse_rdata(record.rtype(), &mut parser);
    matches!(parsed, Ok(Some(_))) && parser.remaining() == 0
}

/// Turns the scanner's `line:column: message` into the place of the offending word in the
/// file. The scanner has seen `scanned_lines` before `raw`, which it reads as `spelled`, and
/// stands behind the word.
fn explain(
    error: &str,
    scanned_lines: usize,
    raw: RawEntry<'_>,
    spelled: &SpelledOut<'_>,
) -> (usize, usize, String) {
    let mut parts = error.splitn(3, ':');
    let mut number = || {
        parts
            .next()
            .and_then(|part| part.trim().parse::<usize>().ok())
    };
    let (line, column) = (number().unwrap_or(1), number().unwrap_or(1));
    let message = parts.next().unwrap_or(error).trim();
    if message.starts_with("different class") {
        let message = format!(
            "expected class IN in {}",
            quote_octets(raw.text.trim_ascii())
        );
        return (raw.line, raw.column, message);
    }
    let message = match message {
        "expected rtype" => "expected a TTL such as 3600 or 1h, a class or a record type",
        "expected decimal number" | "decimal number overflow" if raw.text.starts_with(b"$") => {
            "expected a TTL such as 3600 or 1h"
        }
        "unknown record type with concrete data" => {
            r"expected data of this type in the form \# LENGTH HEXADECIMAL (RFC 3597)"
        }
        other => other,
    };
    let lines: Vec<&[u8]> = raw
        .text
        .trim_ascii_end()
        .split(|octet| *octet == b'\n')
        .collect();
    let index = line.saturating_sub(scanned_lines + 1);
    let is_behind = index >= lines.len();
    let index = index.min(lines.len() - 1);
    let text = lines[index];
    if is_behind && message == "unexpected end of entry" {
        let quoted = quote_octets(raw.text.trim_ascii());
        return (
            raw.line + index,
            text.len().max(1),
            format!("{message}: {quoted}"),
        );
    }
    let is_space = |at: usize| text.get(at).is_none_or(u8::is_ascii_whitespace);
    let end_of_data = text
        .iter()
        .position(|octet| *octet == b';')
        .unwrap_or(text.len());
    let mut start = if is_behind {
        text[..end_of_data].trim_ascii_end().len()
    } else {
        let column = spelled.column(index, column.saturating_sub(1));
        column.min(text.len())
    };
    if is_space(start) && start > 0 && !is_space(start - 1) {
        start -= 1;
    }
    while start > 0 && !is_space(start) && !is_space(start - 1) {
        start -= 1;
    }
    let word = text[start..]
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    (
        raw.line + index,
        start + 1,
        format!("{message}, found {}", quote_octets(word)),
    )
}

fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|octet| **octet == b'\n').count()
}

fn quote_octets(octets: &[u8]) -> String {
    quote(&String::from_utf8_lossy(octets))
}

/// A name as messages show it, with the final dot.
pub(super) fn dotted(name: &Name) -> String {
    name.fmt_with_dot().to_string()
}
