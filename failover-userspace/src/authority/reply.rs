//! Writing replies: sections as far as they fit, then OPT.

use domain::base::message_builder::HashCompressor;
use domain::base::rdata::ComposeRecordData;
use domain::base::wire::Composer;
use domain::dep::octseq::{OctetsBuilder, Truncate};
use failover_common::cookie;

use super::cookies::Cookies;
use super::query::{HEADER_LEN, Query};
use super::{Origin, Transport};
use crate::model::{Name, RecordData};

/// UDP payload that every client takes (RFC 1035 section 2.3.4).
const CLASSIC_SIZE: u16 = 512;
/// `IN`.
const CLASS_IN: u16 = 1;
const QR: u8 = 0x80;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
/// NSID (RFC 5001 section 2.3).
const OPTION_NSID: u16 = 3;
/// edns-tcp-keepalive (RFC 7828 section 3.1).
const OPTION_KEEPALIVE: u16 = 11;

/// What the OPT records of our replies say.
#[derive(Clone, Debug)]
pub(super) struct OptSettings {
    /// Largest UDP payload we send and announce.
    pub(super) udp_size: u16,
    /// The content of NSID.
    pub(super) nsid: Option<Vec<u8>>,
    /// Makes server cookies.
    pub(super) cookies: Option<Cookies>,
}

/// The sections that records are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// A set of records to be sent.
#[derive(Clone, Debug)]
pub(super) struct Set<'a> {
    pub(super) owner: Name,
    pub(super) ttl: u32,
    pub(super) data: std::borrow::Cow<'a, [RecordData]>,
}

/// It does not fit; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A code for a reply (RFC 1035 section 4.1.1, RFC 6891 section 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    YxDomain = 6,
    NotAuth = 9,
    BadVers = 16,
    BadCookie = 23,
}

/// A reply in the making: header and question, then records section by section.
pub(super) struct Reply {
    target: HashCompressor<Vec<u8>>,
    /// Octets before the OPT record at most.
    limit: usize,
    questions: u16,
    counts: [u16; 3],
    opt: Vec<u8>,
    flags: u8,
}

impl Reply {
    pub(super) fn new(query: &Query<'_>, settings: &OptSettings, origin: &Origin) -> Self {
        let transport = origin.transport;
        let opt = opt_record(query, settings, origin);
        let room = match (transport, &query.edns) {
            (Transport::Tcp { .. }, _) => u16::MAX,
            (Transport::Udp, None) => CLASSIC_SIZE,
            (Transport::Udp, Some(edns)) => edns.size.max(CLASSIC_SIZE).min(settings.udp_size),
        };
        let mut header = Vec::with_capacity(usize::from(CLASSIC_SIZE));
        header.extend(query.id);
        header.resize(HEADER_LEN, 0);
        let mut reply = Self {
            target: HashCompressor::new(header),
            limit: usize::from(room).saturating_sub(opt.len()),
            questions: 0,
            counts: [0; 3],
            opt,
            flags: QR | query.opcode << 3 | u8::from(query.recursion_desired),
        };
        if let Some(question) = &query.question {
            let (_, type_class) = question.octets.split_at(question.name.len());
            infallible(reply.target.append_compressed_name(&question.name));
            infallible(reply.target.append_slice(type_class));
            reply.questions = 1;
        }
        reply
    }

    pub(super) fn set_authoritative(&mut self) {
        self.flags |= AA;
    }

    pub(super) fn set_truncated(&mut self) {
        self.flags |= TC;
    }

    /// Records that are ready for the wire, all or none.
    pub(super) fn push_octets(
        &mut self,
        section: Section,
        count: u16,
        octets: &[u8],
    ) -> Result<(), Full> {
        if self.target.as_slice().len() + octets.len() > self.limit {
            return Err(Full);
        }
        infallible(self.target.append_slice(octets));
        self.counts[section as usize] += count;
        Ok(())
    }

    /// A set with compressed names, whole or not at all.
    pub(super) fn push(&mut self, section: Section, set: &Set<'_>) -> Result<(), Full> {
        let start = self.target.as_slice().len();
        let mut count = 0_u16;
        for data in set.data.iter() {
            infallible(self.target.append_compressed_name(&set.owner));
            let rtype = domain::base::rdata::RecordData::rtype(data);
            for number in [rtype.to_int(), CLASS_IN] {
                infallible(self.target.append_slice(&number.to_be_bytes()));
            }
            infallible(self.target.append_slice(&set.ttl.to_be_bytes()));
            infallible(data.compose_len_rdata(&mut self.target));
            count = count.saturating_add(1);
            if self.target.as_slice().len() > self.limit {
                self.target.truncate(start);
                return Err(Full);
            }
        }
        self.counts[section as usize] += count;
        Ok(())
    }

    pub(super) fn finish(mut self, rcode: Rcode) -> Vec<u8> {
        let rcode = rcode as u8;
        let mut octets = self.target.into_target();
        if !self.opt.is_empty() {
            // Upper bits of the code.
            self.opt[5] = rcode >> 4;
            octets.append(&mut self.opt);
            self.counts[Section::Additional as usize] += 1;
        }
        octets[2] = self.flags;
        octets[3] = rcode & 0xf;
        let counts = [
            self.questions,
            self.counts[0],
            self.counts[1],
            self.counts[2],
        ];
        for (place, count) in octets[4..HEADER_LEN].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        octets
    }
}

/// Our OPT record, if the query has one: our size, version 0, DO as it came.
fn opt_record(query: &Query<'_>, settings: &OptSettings, origin: &Origin) -> Vec<u8> {
    let Some(edns) = query.edns else {
        return Vec::new();
    };
    let mut options = Vec::new();
    let mut option = |code: u16, content: &[u8]| {
        options.extend(code.to_be_bytes());
        options.extend((content.len() as u16).to_be_bytes());
        options.extend(content);
    };
    if edns.nsid
        && let Some(nsid) = &settings.nsid
    {
        option(OPTION_NSID, nsid);
    }
    if edns.keepalive
        && let Transport::Tcp { idle } = origin.transport
    {
        // In units of 100 ms (RFC 7828 section 3.1).
        let units = u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX);
        option(OPTION_KEEPALIVE, &units.to_be_bytes());
    }
    if let Some(cookies) = &settings.cookies
        && let Some(content) = edns.cookie.and_then(|cookie| cookies.reply(cookie, origin))
    {
        option(cookie::OPTION, &content);
    }
    let [size_high, size_low] = settings.udp_size.to_be_bytes();
    let dnssec_ok = u8::from(edns.dnssec_ok) << 7;
    let mut opt = vec![0, 0, 41, size_high, size_low, 0, 0, dnssec_ok, 0];
    opt.extend((options.len() as u16).to_be_bytes());
    opt.extend(options);
    opt
}

/// Writing to a `Vec` never fails.
pub(super) fn infallible(result: Result<(), std::convert::Infallible>) {
    match result {
        Ok(()) => {}
        Err(never) => match never {},
    }
}
