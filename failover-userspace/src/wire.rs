//! Precomputed answers: what the XDP program copies into replies.
//!
//! A reply is question, [`AddressAnswer`], [`AuthorityTail`] and OPT. The answer's records
//! are owned by the question's name (a pointer to offset 12) and so depend on the service
//! alone. The tail's names are compressed against the zone's name inside the question: they
//! depend on the zone and on the length of the question's name, and on nothing else.

use std::net::IpAddr;
use std::num::NonZeroU16;

use domain::base::iana::Rtype;
use failover_common::checksum;
use failover_common::layout::{
    self, AnswerHeader, Follow, InlineAnswer, MAX_TURNS, RECORD_HEAD_LEN, TURN_BITS, TailHeader,
    size,
};

use crate::model::{Name, Service, ServiceId, Zone, ZoneId};
use crate::policy::{Answer, Weighted};

/// QR and AA.
const AUTHORITATIVE: u16 = 0x8400;
/// Protocol number of UDP.
const UDP: u16 = 17;
/// QR and RCODE 2.
const SERVFAIL: u16 = 0x8002;
/// Octets of an OPT record without options.
const OPT_LEN: usize = 11;
/// Which octet of it has DO, and which bit of that octet it is.
const DNSSEC_OK_PLACE: usize = 7;
const DNSSEC_OK: u8 = 0x80;
/// `IN`.
const CLASS_IN: u16 = 1;
/// A compression pointer's two upper bits (RFC 1035 section 4.1.4).
const POINTER: u16 = 0xc000;
/// Where the question's name lies in every message.
const QUESTION: u16 = 12;

/// The two types of address records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Octets of one record owned by the question's name.
    #[must_use]
    pub const fn record_len(self) -> usize {
        match self {
            Self::V4 => layout::A_RECORD_LEN,
            Self::V6 => layout::AAAA_RECORD_LEN,
        }
    }

    /// Whether an address is of this family.
    pub(crate) const fn holds(self, address: IpAddr) -> bool {
        matches!(
            (self, address),
            (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_))
        )
    }
}

/// What a service answers to one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressAnswer {
    /// Addresses.
    Records(Records),
    /// NOERROR without addresses.
    NoData,
    /// SERVFAIL.
    Servfail,
}

/// What one service answers from a publication on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The service.
    pub service: ServiceId,
    /// Its answer to A.
    pub a: AddressAnswer,
    /// Its answer to AAAA.
    pub aaaa: AddressAnswer,
}

/// Address records with their rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    sent: u8,
    weight_step: u32,
    thresholds: Vec<u32>,
    bytes: Vec<u8>,
}

impl AddressAnswer {
    /// The answer of `service` to one type of query, given who is answered.
    #[must_use]
    pub fn new(service: &Service, answer: &Answer, family: Family) -> Self {
        match answer {
            Answer::Addresses(addresses) => {
                let addresses: Vec<_> = addresses
                    .iter()
                    .filter(|a| family.holds(a.address))
                    .collect();
                if addresses.is_empty() {
                    Self::NoData
                } else {
                    Self::Records(Records::new(
                        service,
                        &addresses[..addresses.len().min(size::LARGE_RECORDS)],
                    ))
                }
            }
            Answer::Empty => Self::NoData,
            Answer::Servfail => Self::Servfail,
        }
    }

    /// Whether the answer fits [`layout::SmallAnswer`].
    #[must_use]
    pub fn is_small(&self) -> bool {
        match self {
            Self::Records(records) => {
                records.thresholds.len() <= size::SMALL_RECORDS
                    && records.bytes.len() <= size::SMALL_ANSWER
            }
            Self::NoData | Self::Servfail => true,
        }
    }

    /// The answer as it is kept beside the pointer to it, if it is short enough and nothing about
    /// it is unusual.
    #[must_use]
    pub fn inline<const OCTETS: usize>(&self) -> Option<InlineAnswer<[u8; OCTETS]>> {
        match self {
            Self::Records(records) => records.inline(),
            Self::NoData | Self::Servfail => None,
        }
    }

    /// The answer as a map value. `is_small` decides which one.
    #[must_use]
    pub fn encode<const RECORDS: usize, const BYTES: usize>(
        &self,
        generation: u64,
    ) -> layout::Answer<RECORDS, BYTES> {
        let mut value: layout::Answer<RECORDS, BYTES> = bytemuck::Zeroable::zeroed();
        value.thresholds = [u32::MAX; RECORDS];
        let header = AnswerHeader {
            generation,
            flags: AUTHORITATIVE.to_be(),
            weight_total: 1,
            weight_step: 1,
            ..AnswerHeader::default()
        };
        value.header = match self {
            Self::Records(records) => {
                value.thresholds[..records.thresholds.len()].copy_from_slice(&records.thresholds);
                value.bytes[..records.bytes.len()].copy_from_slice(&records.bytes);
                AnswerHeader {
                    records: records.thresholds.len() as u8,
                    sent: records.sent,
                    follow: Follow::NameServers as u8,
                    sum: checksum::sum(&records.bytes),
                    weight_total: records.thresholds.last().copied().unwrap_or(1),
                    weight_step: records.weight_step,
                    ..header
                }
            }
            Self::NoData => AnswerHeader {
                follow: Follow::Soa as u8,
                ..header
            },
            Self::Servfail => AnswerHeader {
                flags: SERVFAIL.to_be(),
                follow: Follow::Nothing as u8,
                ..header
            },
        };
        value
    }
}

impl Records {
    /// TTL of the records, in seconds.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        // Behind pointer, type and class.
        self.bytes
            .get(6..10)
            .and_then(|ttl| ttl.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    }

    /// The records of one reply, each as on the wire, owned by the question's name: from the
    /// one that comes first on this `turn`, as many as are sent.
    pub fn rotated(&self, turn: u64) -> impl Iterator<Item = &[u8]> {
        self.each()
            .cycle()
            .skip(self.first(turn))
            .take(usize::from(self.sent))
    }

    /// The addresses of one reply, see [`Records::rotated`].
    pub fn addresses(&self, turn: u64) -> impl Iterator<Item = IpAddr> {
        self.rotated(turn).filter_map(address_of)
    }

    /// All addresses, in configured order, also those that one reply has no room for.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.each().filter_map(address_of)
    }

    /// The records, each as on the wire, in configured order.
    fn each(&self) -> std::slice::Chunks<'_, u8> {
        let count = self.thresholds.len().max(1);
        self.bytes.chunks((self.bytes.len() / count).max(1))
    }

    /// Which record comes first on this turn, by the rule of the XDP program.
    fn first(&self, turn: u64) -> usize {
        let total = u64::from(self.thresholds.last().copied().unwrap_or(1));
        let place = turn.wrapping_mul(u64::from(self.weight_step)) % total.max(1);
        self.thresholds
            .partition_point(|threshold| u64::from(*threshold) <= place)
    }

    /// See [`AddressAnswer::inline`].
    fn inline<const OCTETS: usize>(&self) -> Option<InlineAnswer<[u8; OCTETS]>> {
        let turns = self.thresholds.last().copied()?;
        if usize::from(self.sent) != self.thresholds.len() || turns > MAX_TURNS {
            return None;
        }
        let mut addresses = [0; OCTETS];
        let mut rest = &mut addresses[..];
        let again = self.each().take(self.thresholds.len() - 1);
        for record in self.each().chain(again) {
            let address = &record[RECORD_HEAD_LEN..];
            rest.split_off_mut(..address.len())?
                .copy_from_slice(address);
        }
        // As many turns as there is room for, if that is some number of rounds: saves a division.
        let turns = if MAX_TURNS.is_multiple_of(turns) {
            MAX_TURNS
        } else {
            turns
        };
        let first = (0..turns).fold(0, |first, turn| {
            let record = self.first(turn.into()) as u32;
            first | record << (turn * TURN_BITS)
        });
        let counts = layout::counts(1, self.sent.into());
        // Type and class of the records are those of the question.
        let question = u64::from(checksum::sum(&self.bytes[2..6]));
        let sum = checksum::fold(question + u64::from(checksum::sum(&self.bytes)));
        Some(InlineAnswer {
            addresses,
            ttl: self.ttl().to_be(),
            counts,
            first,
            sums: [false, true].map(|odd| {
                let sum = u64::from(checksum::shift_odd(sum, odd));
                checksum::fold(u64::from(counts) + sum)
            }),
            len: self.bytes.len() as u16,
            turns: turns as u16,
        })
    }

    fn new(service: &Service, addresses: &[&Weighted]) -> Self {
        let divisor = addresses
            .iter()
            .fold(0, |d, a| gcd(d, u32::from(a.weight.get())));
        let mut total = 0;
        let thresholds: Vec<u32> = addresses
            .iter()
            .map(|address| {
                total += u32::from(address.weight.get()) / divisor;
                total
            })
            .collect();
        let mut bytes = Vec::with_capacity(addresses.len() * layout::AAAA_RECORD_LEN);
        for address in addresses {
            put_u16(&mut bytes, POINTER | QUESTION);
            put_address(&mut bytes, service.ttl, address.address);
        }
        let sent = service
            .max_answers
            .map_or(addresses.len(), |max| max.min(addresses.len()));
        Self {
            sent: sent as u8,
            weight_step: step(total, thresholds.len() as u32),
            thresholds,
            bytes,
        }
    }
}

/// The address of a record that is owned by the question's name.
fn address_of(record: &[u8]) -> Option<IpAddr> {
    // Behind the record's head, see `put_address`.
    let octets = record.get(12..)?;
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// How far a query advances among `total` weights of `records` records.
///
/// A step coprime to `total` visits every weight once in `total` queries. Equal weights go
/// round in order; unequal ones take about the golden section of the total, which spreads
/// the turns of a heavy record.
fn step(total: u32, records: u32) -> u32 {
    if total == records {
        return 1;
    }
    let golden = (u64::from(total) * 618 / 1000) as u32;
    (golden.max(1)..total)
        .find(|step| gcd(*step, total) == 1)
        .unwrap_or(1)
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Authority and additional section of the replies for names of one zone and one length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorityTail {
    bytes: Vec<u8>,
    authority_len: usize,
    authority_count: u16,
    additional_count: u16,
}

impl AuthorityTail {
    /// Octets of the largest tail.
    const MAX: usize = layout::TAIL_LEN;

    /// What follows addresses: the NS set and its in-zone addresses. What does not fit is
    /// left out, the last additional records first, each set of them whole (RFC 2181 section 9).
    #[must_use]
    pub fn positive(zone: &Zone, name_len: usize) -> Self {
        let names = Compressor {
            zone: &zone.name,
            name_len,
        };
        let mut tail = Self::default();
        for server in &zone.name_servers {
            names.put(&mut tail.bytes, &zone.name);
            let mut target = Vec::new();
            names.put(&mut target, &server.name);
            put_record_head(&mut tail.bytes, Rtype::NS, zone.ns_ttl, target.len());
            tail.bytes.extend(target);
            tail.authority_count += 1;
        }
        if tail.bytes.len() > Self::MAX {
            return Self::default();
        }
        tail.authority_len = tail.bytes.len();
        for server in &zone.name_servers {
            for family in Family::ALL {
                let start = tail.bytes.len();
                let set = server.addresses.iter().filter(|(a, _)| family.holds(*a));
                for (address, ttl) in set.clone() {
                    names.put(&mut tail.bytes, &server.name);
                    put_address(&mut tail.bytes, *ttl, *address);
                }
                if tail.bytes.len() > Self::MAX {
                    tail.bytes.truncate(start);
                    return tail;
                }
                tail.additional_count += set.count() as u16;
            }
        }
        tail
    }

    /// What follows NODATA and NXDOMAIN: the SOA with the TTL of negative answers (RFC 2308
    /// section 3).
    #[must_use]
    pub fn negative(zone: &Zone, name_len: usize, serial: u32) -> Self {
        let bytes = DenialRecord::new(zone, name_len, serial).bytes;
        Self {
            authority_len: bytes.len(),
            bytes,
            authority_count: 1,
            additional_count: 0,
        }
    }

    /// The authority section and how many records it has.
    #[must_use]
    pub fn authority(&self) -> (&[u8], u16) {
        (&self.bytes[..self.authority_len], self.authority_count)
    }

    /// The additional section, without OPT, and how many records it has.
    #[must_use]
    pub fn additional(&self) -> (&[u8], u16) {
        (&self.bytes[self.authority_len..], self.additional_count)
    }

    /// A positive tail as a map value. Behind it is our OPT record, which says that we take
    /// `edns_udp_size` octets.
    #[must_use]
    pub fn encode(&self, zone: ZoneId, edns_udp_size: u16) -> layout::Tail {
        let mut value = tail(
            &self.bytes,
            TailHeader {
                authority_len: self.authority_len as u16,
                authority_count: self.authority_count,
                additional_count: self.additional_count,
                counts: layout::counts(self.authority_count, self.additional_count),
                authority_sum: checksum::sum(&self.bytes[..self.authority_len]),
                zone: zone.0,
                ..TailHeader::EMPTY
            },
        );
        let opt = opt(edns_udp_size);
        value.bytes[layout::TAIL_LEN..][..opt.len()].copy_from_slice(&opt);
        value
    }
}

/// Our OPT record without options and DO (RFC 6891 section 6.1.2).
fn opt(udp_size: u16) -> [u8; OPT_LEN] {
    let [high, low] = udp_size.to_be_bytes();
    [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]
}

/// What [`layout::NameSlot::sums`] says of the names of one length, of which the names themselves are
/// not part yet.
#[derive(Clone, Copy, Debug)]
pub struct TailSums([u16; 3]);

impl TailSums {
    /// The sums of a tail, and of OPT behind it, for names of `name_len` octets.
    #[must_use]
    pub fn new(name_len: usize, tail: &layout::Tail) -> Self {
        // From the question on: name, type and class, an even number of octets of addresses, the tail,
        // and OPT.
        let mut octets = vec![0; name_len + 4];
        octets.extend(tail.records());
        let opt = octets.len();
        let sum = |octets: &[u8], opt_count| {
            let parts = [
                u64::from(checksum::sum(octets)),
                u64::from(UDP.to_be()),
                u64::from(tail.header.counts),
                u64::from(layout::counts(0, opt_count)),
            ];
            checksum::fold(parts.iter().sum())
        };
        let without = sum(&octets, 0);
        octets.extend(&tail.bytes[layout::TAIL_LEN..][..OPT_LEN]);
        let with = sum(&octets, 1);
        octets[opt + DNSSEC_OK_PLACE] |= DNSSEC_OK;
        Self([without, with, sum(&octets, 1)])
    }

    /// The same with a name.
    #[must_use]
    pub fn with(self, name: &Name) -> [u16; 3] {
        let name = checksum::sum(&name.as_slice().to_ascii_lowercase());
        self.0
            .map(|sum| checksum::fold(u64::from(sum) + u64::from(name)))
    }
}

/// A map value with these octets; `header` lacks what follows from them. What does not fit is
/// too large for every client, so that user space answers.
fn tail(octets: &[u8], header: TailHeader) -> layout::Tail {
    let mut value = layout::Tail {
        header,
        ..layout::Tail::EMPTY
    };
    let start = layout::TAIL_LEN.checked_sub(octets.len());
    match start.map(|start| &mut value.bytes[start..layout::TAIL_LEN]) {
        Some(place) => {
            place.copy_from_slice(octets);
            value.header.len = octets.len() as u16;
            value.header.sum = checksum::sum(octets);
        }
        None => {
            value.header.len = TailHeader::TOO_LARGE;
            value.header.authority_len = TailHeader::TOO_LARGE;
        }
    }
    value
}

/// The SOA record of denials.
struct DenialRecord {
    bytes: Vec<u8>,
    /// Where its compression pointers lie.
    pointers: Vec<usize>,
}

impl DenialRecord {
    fn new(zone: &Zone, name_len: usize, serial: u32) -> Self {
        let names = Compressor {
            zone: &zone.name,
            name_len,
        };
        let soa = &zone.soa;
        let mut data = Vec::new();
        let in_data = [&soa.mname, &soa.rname].map(|name| names.put(&mut data, name));
        for number in [serial, soa.refresh, soa.retry, soa.expire, soa.minimum] {
            put_u32(&mut data, number);
        }
        let mut bytes = Vec::new();
        let owner = names.put(&mut bytes, &zone.name);
        put_record_head(&mut bytes, Rtype::SOA, soa.ttl.min(soa.minimum), data.len());
        let data_start = bytes.len();
        bytes.extend(data);
        let in_data = in_data.into_iter().flatten().map(|at| data_start + at);
        Self {
            bytes,
            pointers: owner.into_iter().chain(in_data).collect(),
        }
    }
}

/// A zone's denial as a map value: the SOA, to whose compression pointers the length of the
/// question's name is to be added.
#[must_use]
pub fn denial(id: ZoneId, zone: &Zone, serial: u32) -> layout::Tail {
    // As in the answer to a question for the zone's name; its length is taken off again.
    let mut record = DenialRecord::new(zone, zone.name.len(), serial);
    let mut header = TailHeader {
        authority_len: TailHeader::TOO_LARGE,
        authority_count: 1,
        flags: AUTHORITATIVE.to_be(),
        zone: id.0,
        ..TailHeader::EMPTY
    };
    for (place, at) in header.pointers.iter_mut().zip(&record.pointers) {
        *place = *at as u16;
        let pointer = u16::from_be_bytes([record.bytes[*at], record.bytes[at + 1]]);
        let moved = pointer.wrapping_sub(zone.name.len() as u16);
        record.bytes[*at..at + 2].copy_from_slice(&moved.to_be_bytes());
        // What one more octet adds to the sum of native words.
        let octet = [[0, 1], [1, 0]][at % 2];
        header.sum_per_octet += u16::from_ne_bytes(octet);
    }
    tail(&record.bytes, header)
}

/// All that follows the question in the reply to one name and type that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticReply {
    /// Flags with QR, without RD.
    pub flags: u16,
    /// Records in the answer, authority and additional sections, without OPT.
    pub counts: [u16; 3],
    /// The records.
    pub octets: Vec<u8>,
}

impl StaticReply {
    /// The reply as a map value.
    #[must_use]
    pub fn encode(&self, zone: ZoneId) -> layout::Tail {
        let [answer_count, authority_count, additional_count] = self.counts;
        tail(
            &self.octets,
            TailHeader {
                authority_len: TailHeader::TOO_LARGE,
                answer_count,
                authority_count,
                additional_count,
                flags: self.flags.to_be(),
                zone: zone.0,
                ..TailHeader::EMPTY
            },
        )
    }

    /// Whether it fits a map value.
    #[must_use]
    pub const fn is_small(&self) -> bool {
        self.octets.len() <= layout::TAIL_LEN
    }
}

/// Writes names, compressed against the zone's name at the end of the question's name.
struct Compressor<'a> {
    zone: &'a Name,
    name_len: usize,
}

impl Compressor<'_> {
    /// Labels up to the longest suffix shared with the zone, then a pointer to it. Returns where
    /// in `out` the pointer lies, if there is one.
    fn put(&self, out: &mut Vec<u8>, name: &Name) -> Option<usize> {
        let zone_start = usize::from(QUESTION) + self.name_len - self.zone.len();
        // Suffixes of the zone and where they lie in the message; the root is not worth a pointer.
        let mut suffix_start = zone_start;
        let suffixes: Vec<(Name, usize)> = self
            .zone
            .iter_suffixes()
            .map(|suffix| {
                let start = suffix_start;
                suffix_start += suffix.first().len() + 1;
                (suffix, start)
            })
            .filter(|(suffix, _)| !suffix.is_root())
            .collect();
        for rest in name.iter_suffixes() {
            if let Some((_, start)) = suffixes.iter().find(|(suffix, _)| *suffix == rest) {
                put_u16(out, POINTER | *start as u16);
                return Some(out.len() - 2);
            }
            let label = rest.first();
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_slice());
        }
        None
    }
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

/// Type, class, TTL and length of data (RFC 1035 section 3.2.1).
fn put_record_head(out: &mut Vec<u8>, rtype: Rtype, ttl: u32, len: usize) {
    put_u16(out, rtype.to_int());
    put_u16(out, CLASS_IN);
    put_u32(out, ttl);
    put_u16(out, len as u16);
}

/// All of an address record but its owner.
fn put_address(out: &mut Vec<u8>, ttl: u32, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            put_record_head(out, Rtype::A, ttl, 4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            put_record_head(out, Rtype::AAAA, ttl, 16);
            out.extend(address.octets());
        }
    }
}

/// A weight of one.
pub const WEIGHT_ONE: NonZeroU16 = NonZeroU16::MIN;

#[cfg(test)]
mod tests;
