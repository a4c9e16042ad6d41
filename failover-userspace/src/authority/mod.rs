//! The slow path: a complete authoritative server, as a function from query to reply.
//!
//! Follow a query through [`Authority::answer`]: `query` parses it; what breaks the rules is
//! answered at once (RFC 8906); `resolve` walks our zones, in which `lookup` finds names, and
//! gathers sets of records, those of services from the [`Snapshot`]; `reply` writes them. The
//! transfer of a whole zone takes many messages: [`Transfer`].
//!
//! **What the XDP program would answer is answered here byte for byte the same**, but for the
//! rotation: replies for the addresses of a service are put together from the very same
//! [`crate::wire`] parts by the same rules of size.
//!
//! Pure: no sockets, no clock, no state. [`crate::listen`] is the shell around it.

mod cookies;
mod directory;
mod lookup;
mod query;
mod reply;
mod resolve;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::base::iana::Rtype;

use crate::model::{Model, Name, Zone, ZoneId};
use crate::wire::{AddressAnswer, AuthorityTail};
use cookies::Cookies;
pub use directory::{Below, Directory, Entry, More, Otherwise};
use lookup::Zones;
use query::{Cookie, Query, Soundness};
use reply::{Full, OptSettings, Rcode, Reply, Section, Set};
use resolve::{End, Outcome, Resolver, set};
pub use snapshot::Snapshot;
pub use transfer::Transfer;

/// `IN` (RFC 1035 section 3.2.4).
const CLASS_IN: u16 = 1;
/// `*` (RFC 1035 section 3.2.5).
const CLASS_ANY: u16 = 255;
/// MAILB and MAILA, obsolete (RFC 1035 section 3.2.3).
const MAIL_TYPES: [u16; 2] = [253, 254];
/// Types that are never asked for: OPT, NXNAME (RFC 9824 section 3.4), TKEY, TSIG.
const UNASKABLE_TYPES: [u16; 4] = [41, 128, 249, 250];

/// Everything that is answered, but for the health of servers. Immutable.
#[derive(Debug)]
pub struct Authority {
    zones: Zones,
    opt: OptSettings,
}

/// What is served from one moment on: a model's zones and the answers of its services belong
/// together, and are replaced together.
#[derive(Clone, Debug)]
pub struct Published {
    /// The zones.
    pub authority: Arc<Authority>,
    /// The answers of the same model's services.
    pub snapshot: Snapshot,
}

/// Where a query comes from, how, and when.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The client's address.
    pub client: IpAddr,
    /// How it came, and how the reply goes.
    pub transport: Transport,
    /// Seconds since 1970, modulo 2^32, as cookies carry them (RFC 9018 section 4.3).
    pub time: u32,
}

/// How a query came, and how the reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection.
    Tcp {
        /// How long an idle connection is kept, for those who ask (RFC 7828).
        idle: Duration,
    },
}

impl Published {
    /// See [`Authority::answer`].
    #[must_use]
    pub fn answer(&self, query: &[u8], origin: &Origin, turn: u64) -> Option<Vec<u8>> {
        self.authority.answer(&self.snapshot, query, origin, turn)
    }

    /// The serial number of a zone.
    #[must_use]
    pub fn serial(&self, zone: ZoneId) -> Option<u32> {
        let zone = self.authority.zones.by_id(zone)?;
        Some(self.authority.resolver(&self.snapshot, 0).serial(zone))
    }

    /// The same for the zone of this name.
    #[must_use]
    pub fn serial_of(&self, zone: &Name) -> Option<u32> {
        self.serial(self.authority.zones.at_apex(zone.as_slice())?)
    }
}

impl Authority {
    /// The authority for the zones and services of a model.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        Self {
            zones: Zones::new(model),
            opt: OptSettings {
                udp_size: model.settings.edns_udp_size,
                nsid: model.settings.nsid.clone().map(String::into_bytes),
                cookies: model.settings.cookies.map(Cookies::new),
            },
        }
    }

    /// The reply to a message, or `None` for one that gets none: a response, or one without
    /// a whole header.
    ///
    /// `snapshot` holds the answers of this model's services; `turn` decides which address of
    /// a service comes first, and should grow by one with each such reply. The transfer of a
    /// whole zone is more than a reply: see [`Transfer::of`].
    #[must_use]
    pub fn answer(
        &self,
        snapshot: &Snapshot,
        message: &[u8],
        origin: &Origin,
        turn: u64,
    ) -> Option<Vec<u8>> {
        let query = Query::parse(message)?;
        let mut reply = Reply::new(&query, &self.opt, origin);
        let rcode = match self.refusal(&query, origin) {
            Some(rcode) => rcode,
            None => {
                let resolver = self.resolver(snapshot, turn);
                match transfer::judge(resolver, &query, message, origin) {
                    Some(verdict) => verdict.reply(resolver, &mut reply),
                    None => respond(resolver, &query, &mut reply),
                }
            }
        };
        Some(reply.finish(rcode))
    }

    const fn resolver<'a>(&'a self, snapshot: &'a Snapshot, turn: u64) -> Resolver<'a> {
        Resolver {
            zones: &self.zones,
            snapshot,
            turn,
            changing: None,
        }
    }

    /// Why a query is answered without a look into the zones.
    fn refusal(&self, query: &Query<'_>, origin: &Origin) -> Option<Rcode> {
        // An opcode we do not know may have any format (RFC 8906 section 3.1.4).
        if query.opcode != 0 {
            return Some(Rcode::NotImp);
        }
        if query.soundness == Soundness::Malformed {
            return Some(Rcode::FormErr);
        }
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Some(Rcode::BadVers);
        }
        // Without cookies the option is unknown, and so ignored.
        let cookie = query.edns.and_then(|edns| edns.cookie);
        let cookie = cookie.zip(self.opt.cookies.as_ref());
        if let Some((Cookie::Malformed, _)) = cookie {
            return Some(Rcode::FormErr);
        }
        if query.soundness == Soundness::NoQuestion {
            // Only a cookie may be asked for so (RFC 7873 section 5.4).
            return Some(match cookie {
                None => Rcode::FormErr,
                Some((cookie, cookies)) if cookies.accept(cookie, origin) => Rcode::NoError,
                Some(_) => Rcode::BadCookie,
            });
        }
        let question = query.question.as_ref()?;
        match question.qtype {
            other if UNASKABLE_TYPES.contains(&other.to_int()) => Some(Rcode::FormErr),
            other if MAIL_TYPES.contains(&other.to_int()) => Some(Rcode::NotImp),
            _ if !matches!(question.qclass, CLASS_IN | CLASS_ANY) => Some(Rcode::Refused),
            _ => None,
        }
    }
}

/// Writes what answers the question.
fn respond(resolver: Resolver<'_>, query: &Query<'_>, reply: &mut Reply) -> Rcode {
    let Some(question) = &query.question else {
        return Rcode::FormErr;
    };
    let outcome = resolver.resolve(question);
    let is_servfail = matches!(
        outcome.end,
        End::Service {
            answer: AddressAnswer::Servfail,
            ..
        }
    );
    if is_servfail {
        return Rcode::ServFail;
    }
    // A reply about all classes is never authoritative (RFC 1034 section 3.7.1).
    if outcome.authoritative && question.qclass == CLASS_IN {
        reply.set_authoritative();
    }
    if write(resolver, question.name.len(), &outcome, reply).is_err() {
        reply.set_truncated();
    }
    outcome.rcode
}

/// Writes the sections. [`Full`]: something the client needs did not fit.
fn write(
    resolver: Resolver<'_>,
    name_len: usize,
    outcome: &Outcome<'_>,
    reply: &mut Reply,
) -> Result<(), Full> {
    for set in &outcome.answer {
        reply.push(Section::Answer, set)?;
    }
    match &outcome.end {
        End::Service { zone, answer } => write_service(resolver, zone, answer, name_len, reply),
        End::Positive(zone) => {
            write_positive(resolver, zone, &outcome.answer, reply);
            Ok(())
        }
        // The zone's name is part of the question's.
        End::Negative(zone) if outcome.answer.is_empty() => {
            write_negative(resolver, zone, name_len, reply)
        }
        End::Negative(zone) => {
            let ttl = zone.soa.ttl.min(zone.soa.minimum);
            reply.push(Section::Authority, &resolver.soa(zone, ttl))
        }
        End::Referral { zone, cut, ns } => {
            let ns = set(cut.clone(), ns);
            reply.push(Section::Authority, &ns)?;
            write_glue(resolver, zone, &ns, reply)
        }
        End::Nothing => Ok(()),
    }
}

/// What the XDP program sends: the whole tail, or its authority section, or none of it.
fn write_service(
    resolver: Resolver<'_>,
    zone: &Zone,
    answer: &AddressAnswer,
    name_len: usize,
    reply: &mut Reply,
) -> Result<(), Full> {
    match answer {
        AddressAnswer::Records(records) => {
            let mut octets = Vec::new();
            let mut count = 0;
            for record in records.rotated(resolver.turn) {
                octets.extend_from_slice(record);
                count += 1;
            }
            reply.push_octets(Section::Answer, count, &octets)?;
            let tail = AuthorityTail::positive(zone, name_len);
            let (authority, count) = tail.authority();
            if reply
                .push_octets(Section::Authority, count, authority)
                .is_ok()
            {
                let (additional, count) = tail.additional();
                // All of them or none; not being whole is no truncation (RFC 2181 section 9).
                let _ = reply.push_octets(Section::Additional, count, additional);
            }
            Ok(())
        }
        AddressAnswer::NoData => write_negative(resolver, zone, name_len, reply),
        AddressAnswer::Servfail => Ok(()),
    }
}

/// Without its SOA a negative answer says nothing.
fn write_negative(
    resolver: Resolver<'_>,
    zone: &Zone,
    name_len: usize,
    reply: &mut Reply,
) -> Result<(), Full> {
    let tail = AuthorityTail::negative(zone, name_len, resolver.serial(zone));
    let (authority, count) = tail.authority();
    reply.push_octets(Section::Authority, count, authority)
}

/// The zone's NS set and what is known of all hosts that were named, as far as it fits.
fn write_positive(resolver: Resolver<'_>, zone: &Zone, answer: &[Set<'_>], reply: &mut Reply) {
    let is_answered = |name: &[u8], rtype| {
        answer.iter().any(|set| {
            set.rtype() == Some(rtype) && set.owner.as_slice().eq_ignore_ascii_case(name)
        })
    };
    let ns = zone
        .records
        .rrset(zone.name.as_slice(), Rtype::NS)
        .filter(|_| !is_answered(zone.name.as_slice(), Rtype::NS))
        .map(|ns| set(zone.name.clone(), ns));
    if let Some(ns) = &ns
        && reply.push(Section::Authority, ns).is_err()
    {
        return;
    }
    let mut named = Vec::new();
    for (host, naming) in answer
        .iter()
        .chain(&ns)
        .flat_map(|set| set.hosts().map(move |host| (host, set)))
    {
        if named.contains(&host) {
            continue;
        }
        named.push(host);
        let bindings = resolver.bindings_of(host, naming);
        for more in resolver.addresses_of(host).into_iter().chain(bindings) {
            let is_there = more
                .rtype()
                .is_some_and(|rtype| is_answered(host.as_slice(), rtype));
            if !is_there && reply.push(Section::Additional, &more).is_err() {
                return;
            }
        }
    }
}

/// Addresses of the child's name servers: without those in the child itself it cannot be
/// reached (RFC 9471 section 3), others help.
fn write_glue(
    resolver: Resolver<'_>,
    zone: &Zone,
    ns: &Set<'_>,
    reply: &mut Reply,
) -> Result<(), Full> {
    let (needed, helpful): (Vec<_>, Vec<_>) = ns
        .hosts()
        .filter(|host| host.ends_with(&zone.name))
        .partition(|host| host.ends_with(&ns.owner));
    for host in needed {
        for addresses in resolver.addresses_of(host) {
            reply.push(Section::Additional, &addresses)?;
        }
    }
    for host in helpful {
        for addresses in resolver.addresses_of(host) {
            if reply.push(Section::Additional, &addresses).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
