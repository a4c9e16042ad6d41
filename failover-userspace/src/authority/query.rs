//! From octets to a query, or to what is wrong with it.

use bytes::Bytes;
use domain::base::iana::Rtype;
use failover_common::cookie::{self, CLIENT_LEN, SERVER_LEN, SERVER_LENS};

use crate::model::Name;

/// Octets of a header (RFC 1035 section 4.1.1).
pub(super) const HEADER_LEN: usize = 12;
/// Longest name in wire format.
const NAME_LIMIT: usize = 255;
/// NSID (RFC 5001 section 2.3).
const OPTION_NSID: u16 = 3;
/// edns-tcp-keepalive (RFC 7828 section 3.1).
const OPTION_KEEPALIVE: u16 = 11;

/// A message that is to be answered, one way or another.
#[derive(Debug)]
pub(super) struct Query<'a> {
    /// ID, as it came.
    pub(super) id: [u8; 2],
    /// What is to be done.
    pub(super) opcode: u8,
    /// RD, which replies copy.
    pub(super) recursion_desired: bool,
    /// The one question, if it could be read.
    pub(super) question: Option<Question<'a>>,
    /// The OPT record, if there is one that could be read.
    pub(super) edns: Option<Edns>,
    /// Whether it follows the rules.
    pub(super) soundness: Soundness,
}

/// Whether a message follows the rules of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Soundness {
    /// One question, no records but additional ones, at most one OPT, nothing behind.
    Sound,
    /// The same without a question.
    NoQuestion,
    /// Anything else.
    Malformed,
}

/// The question.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// Name, type and class, as they came.
    pub(super) octets: &'a [u8],
    /// The name, as it came.
    pub(super) name: Name,
    /// The name in lower case.
    pub(super) lower: Name,
    /// Type.
    pub(super) qtype: Rtype,
    /// Class.
    pub(super) qclass: u16,
}

/// What an OPT record says (RFC 6891 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns {
    /// The requestor's UDP payload size.
    pub(super) size: u16,
    /// EDNS version.
    pub(super) version: u8,
    /// DO (RFC 3225).
    pub(super) dnssec_ok: bool,
    /// Asks for NSID.
    pub(super) nsid: bool,
    /// Asks for the idle timeout.
    pub(super) keepalive: bool,
    /// Its first COOKIE option; the others count for nothing (RFC 7873 section 5.2).
    pub(super) cookie: Option<Cookie>,
}

/// A COOKIE option (RFC 7873 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookie {
    /// Of a length that none can have.
    Malformed,
    /// With a client cookie alone.
    Client([u8; CLIENT_LEN]),
    /// With a server cookie; `None`: not of the length of ours.
    Both([u8; CLIENT_LEN], Option<[u8; SERVER_LEN]>),
}

impl Cookie {
    fn new(option: &[u8]) -> Self {
        match option.split_first_chunk() {
            Some((client, [])) => Self::Client(*client),
            Some((client, server)) if SERVER_LENS.contains(&server.len()) => {
                Self::Both(*client, server.try_into().ok())
            }
            _ => Self::Malformed,
        }
    }
}

impl<'a> Query<'a> {
    /// Reads a message. `None`: it is too short to have a header, or it is a response, and who
    /// replies to those can be made to talk to himself for ever.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, _) = message.split_first_chunk::<HEADER_LEN>()?;
        let [id0, id1, flags, _, counts @ ..] = *header;
        if flags & 0x80 != 0 {
            return None;
        }
        let [questions, answers, authorities, additionals] =
            [0, 2, 4, 6].map(|at| u16::from_be_bytes([counts[at], counts[at + 1]]));
        let mut query = Self {
            id: [id0, id1],
            opcode: flags >> 3 & 0xf,
            recursion_desired: flags & 1 != 0,
            question: None,
            edns: None,
            soundness: Soundness::Malformed,
        };
        let mut reader = Reader {
            message,
            at: HEADER_LEN,
        };
        match questions {
            0 => {}
            1 => query.question = reader.question(),
            _ => return Some(query),
        }
        // IXFR carries the client's SOA (RFC 1995 section 3).
        let is_transfer = query
            .question
            .as_ref()
            .is_some_and(|question| question.qtype == Rtype::IXFR);
        let records = usize::from(answers) + usize::from(authorities);
        let is_plain = answers == 0 && (authorities == 0 || is_transfer);
        if (query.question.is_some() || questions == 0)
            && reader.skip_records(records).is_some()
            && reader
                .additional(usize::from(additionals), &mut query.edns)
                .is_some()
            && reader.at == message.len()
            && is_plain
        {
            query.soundness = match questions {
                0 => Soundness::NoQuestion,
                _ => Soundness::Sound,
            };
        }
        Some(query)
    }
}

/// Walks a message.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let octets = self.take(2)?;
        Some(u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// A question whose name is not compressed: there is nothing before it to point to.
    fn question(&mut self) -> Option<Question<'a>> {
        let start = self.at;
        loop {
            let label = usize::from(*self.take(1)?.first()?);
            if label > 63 {
                return None;
            }
            self.take(label)?;
            if self.at - start > NAME_LIMIT {
                return None;
            }
            if label == 0 {
                break;
            }
        }
        let octets = &self.message[start..self.at];
        let name = Name::from_octets(Bytes::copy_from_slice(octets)).ok()?;
        // Length octets are at most 63, below 'A'.
        let lower = Name::from_octets(Bytes::from(octets.to_ascii_lowercase())).ok()?;
        let qtype = Rtype::from_int(self.u16()?);
        let qclass = self.u16()?;
        Some(Question {
            octets: &self.message[start..self.at],
            name,
            lower,
            qtype,
            qclass,
        })
    }

    /// Passes an owner name; whether it is the root, uncompressed.
    fn skip_name(&mut self) -> Option<bool> {
        let start = self.at;
        loop {
            match *self.take(1)?.first()? {
                0 => return Some(self.at == start + 1),
                label @ 1..=63 => self.take(usize::from(label))?,
                0xc0.. => {
                    self.take(1)?;
                    return Some(false);
                }
                _ => return None,
            };
            if self.at - start > NAME_LIMIT {
                return None;
            }
        }
    }

    fn skip_records(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            self.skip_name()?;
            self.take(8)?;
            let len = self.u16()?;
            self.take(usize::from(len))?;
        }
        Some(())
    }

    /// Additional records: the OPT goes to `edns`, others are passed over. A second OPT, one
    /// with an owner or with options that overrun it are errors (RFC 6891 section 6.1.1).
    fn additional(&mut self, count: usize, edns: &mut Option<Edns>) -> Option<()> {
        for _ in 0..count {
            let owned_by_root = self.skip_name()?;
            let rtype = Rtype::from_int(self.u16()?);
            let size = self.u16()?;
            let ttl = self.take(4)?;
            let len = self.u16()?;
            let data = self.take(usize::from(len))?;
            if rtype != Rtype::OPT {
                continue;
            }
            if edns.is_some() {
                return None;
            }
            let edns = edns.insert(Edns {
                size,
                version: ttl[1],
                dnssec_ok: ttl[2] & 0x80 != 0,
                nsid: false,
                keepalive: false,
                cookie: None,
            });
            if !owned_by_root {
                return None;
            }
            let mut options = Reader {
                message: data,
                at: 0,
            };
            while options.at < data.len() {
                let code = options.u16()?;
                let len = options.u16()?;
                let content = options.take(usize::from(len))?;
                match code {
                    cookie::OPTION => {
                        edns.cookie.get_or_insert(Cookie::new(content));
                    }
                    OPTION_NSID => edns.nsid = true,
                    OPTION_KEEPALIVE => edns.keepalive = true,
                    _ => {}
                }
            }
        }
        Some(())
    }
}
