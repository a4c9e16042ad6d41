//! Transfers of whole zones: AXFR (RFC 5936), and IXFR (RFC 1995) without its increments.
//!
//! Who may transfer a zone gets all of it over a connection: the SOA, all records, the SOA
//! again, in as many messages as it takes. It comes out of one [`Published`], and so is of one
//! generation from the first record to the last, whatever is published meanwhile. Over IXFR
//! those who have the zone already get the SOA alone, and so does everybody over UDP: the sign
//! to come again over TCP (RFC 1995 section 2).

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::Arc;

use domain::base::iana::Rtype;
use domain::base::message_builder::TreeCompressor;
use domain::base::rdata::{ComposeRecordData, RecordData as _};
use domain::base::wire::Composer;
use domain::base::{Message, Serial};
use domain::dep::octseq::{OctetsBuilder, Truncate};
use domain::rdata::Soa;

use super::query::{HEADER_LEN, Query};
use super::reply::{Full, Rcode, Reply, Section, Set, infallible};
use super::resolve::Resolver;
use super::{CLASS_IN, Origin, Published, Transport};
use crate::model::{Name, RecordData, Zone, ZoneId};

/// Octets of a message, unless one record takes more: pointers reach no further (RFC 1035
/// section 4.1.4).
const MESSAGE_SIZE: usize = 16 * 1024;
/// Octets that fit behind the length of a message on a connection.
const MESSAGE_LIMIT: usize = u16::MAX as usize;

/// What a query for a transfer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An error.
    Refused(Rcode),
    /// The SOA alone.
    SoaOnly(ZoneId),
    /// The whole zone.
    Whole(ZoneId),
}

/// What the client gets; `None`: it asks for something else than a transfer.
///
/// `message` is what `query` was parsed from, and follows the rules of the format.
pub(super) fn judge(
    resolver: Resolver<'_>,
    query: &Query<'_>,
    message: &[u8],
    origin: &Origin,
) -> Option<Verdict> {
    let question = query.question.as_ref()?;
    let refused = |rcode| Some(Verdict::Refused(rcode));
    let is_udp = origin.transport == Transport::Udp;
    match question.qtype {
        // Not defined (RFC 5936 section 4.2).
        Rtype::AXFR if is_udp => return refused(Rcode::Refused),
        Rtype::AXFR | Rtype::IXFR => {}
        _ => return None,
    }
    if question.qclass != CLASS_IN {
        return refused(Rcode::Refused);
    }
    // RFC 5936 section 2.2.1: NOTAUTH where there is no such zone, REFUSED where there is one.
    let Some(id) = resolver.zones.at_apex(question.lower.as_slice()) else {
        return refused(Rcode::NotAuth);
    };
    let zone = resolver.zones.by_id(id)?;
    if !zone.may_transfer(origin.client) {
        return refused(Rcode::Refused);
    }
    if question.qtype == Rtype::AXFR {
        return Some(Verdict::Whole(id));
    }
    let Some(known) = client_serial(message) else {
        return refused(Rcode::FormErr);
    };
    let order = known.partial_cmp(&Serial(resolver.serial(zone)));
    let is_current = matches!(order, Some(Ordering::Equal | Ordering::Greater));
    Some(if is_udp || is_current {
        Verdict::SoaOnly(id)
    } else {
        Verdict::Whole(id)
    })
}

/// The serial number that an IXFR query says the client has.
fn client_serial(message: &[u8]) -> Option<Serial> {
    let message = Message::from_octets(message).ok()?;
    let mut known = message.authority().ok()?.limit_to_in::<Soa<_>>();
    Some(known.next()?.ok()?.data().serial())
}

impl Verdict {
    /// Writes what is told in one reply. A whole zone is not, see [`Transfer::of`].
    pub(super) fn reply(self, resolver: Resolver<'_>, reply: &mut Reply) -> Rcode {
        match self {
            Self::Refused(rcode) => rcode,
            Self::SoaOnly(zone) => {
                let Some(zone) = resolver.zones.by_id(zone) else {
                    return Rcode::ServFail;
                };
                reply.set_authoritative();
                if reply
                    .push(Section::Answer, &resolver.soa(zone, zone.soa.ttl))
                    .is_err()
                {
                    reply.set_truncated();
                }
                Rcode::NoError
            }
            Self::Whole(_) => Rcode::Refused,
        }
    }
}

/// A whole zone, message by message, all of one generation.
///
/// It makes each message when it is asked for it, and keeps nothing but its place.
#[derive(Debug)]
pub struct Transfer {
    published: Arc<Published>,
    zone: ZoneId,
    serial: u32,
    frame: Frame,
    /// 0: the SOA; then each name of the zone; then the SOA again.
    step: usize,
    /// Records of this step that have been sent.
    sent: usize,
    failed: bool,
}

impl Transfer {
    /// The transfer that a message asks for and may have; `None`: [`Published::answer`] has the
    /// reply to it.
    #[must_use]
    pub fn of(published: &Arc<Published>, message: &[u8], origin: &Origin) -> Option<Self> {
        let query = Query::parse(message)?;
        let authority = &published.authority;
        if authority.refusal(&query, origin).is_some() {
            return None;
        }
        let resolver = authority.resolver(&published.snapshot, 0);
        let Verdict::Whole(zone) = judge(resolver, &query, message, origin)? else {
            return None;
        };
        let mut empty = Reply::new(&query, &authority.opt, origin);
        empty.set_authoritative();
        let question = query.question.as_ref()?;
        Some(Self {
            published: Arc::clone(published),
            zone,
            serial: published.serial(zone)?,
            frame: Frame::new(empty.finish(Rcode::NoError), &question.name),
            step: 0,
            sent: 0,
            failed: false,
        })
    }

    /// The zone.
    #[must_use]
    pub fn zone(&self) -> Option<&Zone> {
        self.published.authority.zones.by_id(self.zone)
    }

    /// The serial number it is sent with.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether it has ended before its time: a record is too long for any message.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }
}

impl Iterator for Transfer {
    type Item = Vec<u8>;

    /// The next message. One with an error is the last (RFC 5936 section 2.2).
    fn next(&mut self) -> Option<Vec<u8>> {
        let published = Arc::clone(&self.published);
        let resolver = published.authority.resolver(&published.snapshot, 0);
        let zone = resolver.zones.by_id(self.zone)?;
        let names = resolver.zones.contents(self.zone);
        let last = names.len() + 1;
        if self.step > last {
            return None;
        }
        let mut message = self.frame.open();
        while self.step <= last {
            let sets = match self.step.checked_sub(1).and_then(|at| names.get(at)) {
                Some(name) => resolver.contents(zone, name),
                None => vec![resolver.soa(zone, zone.soa.ttl)],
            };
            let records = sets
                .iter()
                .flat_map(|set| set.data.iter().map(move |data| (set, data)));
            for (set, data) in records.skip(self.sent) {
                if message.push(set, data).is_ok() {
                    self.sent += 1;
                } else if message.records > 0 {
                    return Some(message.close());
                } else {
                    self.step = last + 1;
                    self.failed = true;
                    return Some(self.frame.error(Rcode::ServFail));
                }
            }
            self.step += 1;
            self.sent = 0;
        }
        Some(message.close())
    }
}

/// What all messages of a transfer have in common.
#[derive(Debug)]
struct Frame {
    /// Header and question. RFC 5936 section 2.2.1 leaves it open whether the messages after
    /// the first repeat it.
    head: Vec<u8>,
    /// The question's name, as it came.
    name: Name,
    /// The OPT record, if the query has one.
    opt: Vec<u8>,
}

impl Frame {
    /// From a reply without records and the name in its question.
    fn new(mut reply: Vec<u8>, name: &Name) -> Self {
        // Type and class follow the name.
        let opt = reply.split_off(HEADER_LEN + name.len() + 4);
        Self {
            head: reply,
            name: name.clone(),
            opt,
        }
    }

    fn open(&self) -> Page<'_> {
        let (header, question) = self.head.split_at(HEADER_LEN);
        let mut target = TreeCompressor::new(Vec::with_capacity(MESSAGE_SIZE));
        infallible(target.append_slice(header));
        infallible(target.append_compressed_name(&self.name));
        infallible(target.append_slice(&question[self.name.len()..]));
        Page {
            frame: self,
            target,
            records: 0,
        }
    }

    fn error(&self, rcode: Rcode) -> Vec<u8> {
        let mut message = [self.head.as_slice(), self.opt.as_slice()].concat();
        message[3] |= rcode as u8;
        message
    }
}

/// A message in the making.
///
/// Names are compressed with regard to upper and lower case (RFC 5936 section 3.4), which a
/// [`TreeCompressor`] does and the one of ordinary replies does not.
struct Page<'a> {
    frame: &'a Frame,
    target: TreeCompressor<Vec<u8>>,
    records: u16,
}

impl Page<'_> {
    /// A record, whole or not at all; the first may be of any length that fits.
    fn push(&mut self, set: &Set<'_>, data: &RecordData) -> Result<(), Full> {
        let limit = if self.records == 0 {
            MESSAGE_LIMIT
        } else {
            MESSAGE_SIZE
        };
        let start = self.target.as_slice().len();
        infallible(self.target.append_compressed_name(&set.owner));
        for number in [data.rtype().to_int(), CLASS_IN] {
            infallible(self.target.append_slice(&number.to_be_bytes()));
        }
        infallible(self.target.append_slice(&set.ttl.to_be_bytes()));
        infallible(data.compose_len_rdata(&mut self.target));
        if self.target.as_slice().len() + self.frame.opt.len() > limit {
            self.target.truncate(start);
            return Err(Full);
        }
        self.records += 1;
        Ok(())
    }

    fn close(self) -> Vec<u8> {
        let mut octets = self.target.into_target();
        octets[6..8].copy_from_slice(&self.records.to_be_bytes());
        octets.extend(&self.frame.opt);
        octets
    }
}
