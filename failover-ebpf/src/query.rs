//! The DNS message: a standard query with one question and at most an OPT record.

use aya_ebpf::programs::XdpContext;
use failover_common::{
    checksum::add64,
    cookie::{self, CLIENT_LEN, SERVER_LEN, SERVER_LENS},
    counters::Counter,
    question::{MAX_NAME_LEN, MAX_NAME_WORDS, NameHash, first_octets, lower_case, zero_octets},
};

use crate::{
    frame::Frame,
    maps::setting,
    packet::{Noise, load},
};

/// Octets of a DNS header (RFC 1035 section 4.1.1).
pub(crate) const HEADER_LEN: usize = 12;
/// Octets of type and class after the question's name.
pub(crate) const TYPE_CLASS_LEN: usize = 4;
/// Octets of an OPT record without options (RFC 6891 section 6.1.2).
pub(crate) const OPT_LEN: usize = 11;
/// Octets of an OPT record with our COOKIE option.
const OPT_COOKIE_LEN: usize = OPT_LEN + 4 + CLIENT_LEN + SERVER_LEN;
/// Options we look at; a query with more is passed.
const MAX_OPTIONS: usize = 8;

/// UDP payload that every client takes (RFC 1035 section 2.3.4).
pub(crate) const CLASSIC_SIZE: usize = 512;
/// `IN`, in network byte order.
const CLASS_IN: u16 = 1u16.to_be();

/// A query for one name.
pub(crate) struct Query {
    /// The question's name.
    pub name: Name,
    /// Sum of the name as it came, unfolded, as if it ended at an even offset.
    pub name_sum: u64,
    /// Type and class, as they lie in the packet.
    pub type_class: u32,
    /// Type in host byte order.
    pub qtype: u16,
    /// The OPT record.
    pub edns: Edns,
}

/// A name in the packet: the question's, or an ancestor of it.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    /// Where it starts in the packet.
    pub start: usize,
    /// Octets of it.
    pub len: usize,
    /// Octets of it in whole words.
    pub whole_len: usize,
    /// The rest of it, its first octets, as a lower-cased word.
    pub first_word: u64,
    /// Hash of it in lower case.
    pub hash: NameHash,
}

/// What an OPT record says, if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Edns {
    /// Octets of our own OPT record: 0 without one, more than [`OPT_LEN`] with a cookie.
    pub opt_len: usize,
    /// The requestor's UDP payload size, in octets.
    pub size: u16,
    /// DO (RFC 3225): 1 or 0.
    pub dnssec_ok: u64,
    /// The client cookie as it lies in the packet, if ours is to be sent.
    pub client_cookie: u64,
}

/// No OPT record.
pub(crate) const NO_EDNS: Edns = Edns {
    opt_len: 0,
    size: 0,
    dnssec_ok: 0,
    client_cookie: 0,
};

impl Edns {
    /// The longest message that is sent in reply.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        if self.opt_len == 0 {
            CLASSIC_SIZE
        } else {
            usize::from(self.size)
                .max(CLASSIC_SIZE)
                .min(usize::from(setting!(edns_udp_size)))
        }
    }
}

/// Parses the DNS message of a frame.
#[inline(always)]
pub(crate) fn parse(ctx: &XdpContext, frame: &Frame) -> Result<Query, Counter> {
    let additional = parse_header(ctx, frame)?;
    let question = frame.dns + HEADER_LEN;
    // At most 12 + 255 + 4 octets and an OPT record with its options.
    let rest = frame
        .message_len
        .checked_sub(HEADER_LEN + TYPE_CLASS_LEN)
        .ok_or(Counter::PassedLength)?;
    let (name_len, edns) = if additional == 0 {
        (rest, NO_EDNS)
    } else if let Some(edns) = bare_opt_at_end(ctx, frame) {
        (rest - OPT_LEN, edns?)
    } else {
        let name_len = frame.noise.bound::<0x1ff>(scan_name(ctx, question)?);
        let opt = question + name_len + TYPE_CLASS_LEN;
        (
            name_len,
            parse_opt(ctx, frame.noise, opt, frame.dns + frame.message_len)?,
        )
    };
    if name_len == 0 || name_len > MAX_NAME_LEN {
        return Err(Counter::PassedQuestion);
    }
    read_question(
        ctx,
        frame,
        question,
        frame.noise.bound::<0xff>(name_len),
        edns,
    )
}

/// Returns ARCOUNT, 0 or 1.
#[inline(always)]
fn parse_header(ctx: &XdpContext, frame: &Frame) -> Result<u16, Counter> {
    let word: u64 = load(ctx, frame.dns + 2).ok_or(Counter::PassedLength)?;
    let additional: u16 = load(ctx, frame.dns + 10).ok_or(Counter::PassedLength)?;
    additional_count(word, additional).ok_or(Counter::PassedHeader)
}

/// ARCOUNT, 0 or 1, of a standard query: one masked compare over flags and counts, as they lie
/// in the packet.
#[inline(always)]
pub(crate) fn additional_count(word: u64, additional: u16) -> Option<u16> {
    // QR, opcode and TC clear; QDCOUNT 1, ANCOUNT and NSCOUNT 0.
    const MASK: u64 = u64::from_le_bytes([0xfa, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    const WANT: u64 = u64::from_le_bytes([0, 0, 0, 1, 0, 0, 0, 0]);
    const NONE: u16 = 0u16.to_be();
    const ONE: u16 = 1u16.to_be();
    if word.to_le() & MASK != WANT {
        return None;
    }
    match additional {
        NONE => Some(0),
        ONE => Some(1),
        _ => None,
    }
}

/// The OPT record without options that ends the message, if that is what ends it.
///
/// A guess: the name must turn out to end where it leaves room for. No configured name has
/// a zero octet before its end, so a wrong guess finds no name.
#[inline(always)]
fn bare_opt_at_end(ctx: &XdpContext, frame: &Frame) -> Option<Result<Edns, Counter>> {
    if frame.message_len < HEADER_LEN + 1 + TYPE_CLASS_LEN + OPT_LEN || frame.message_len > 512 {
        return None;
    }
    let opt = frame.dns + frame.message_len - OPT_LEN;
    bare_opt(load(ctx, opt)?, load(ctx, opt + 9)?)
}

/// The OPT record with these first eight octets and last two, if it has no options.
#[inline(always)]
fn bare_opt(word: u64, options_len: u16) -> Option<Result<Edns, Counter>> {
    let word = word.to_le();
    (word & 0xff_ffff == 0x29_0000 && options_len == 0).then(|| edns(word))
}

/// The same of version 0 only: one masked compare.
#[inline(always)]
pub(crate) fn bare_opt_of_version_0(word: u64, options_len: u16) -> Option<Edns> {
    const OWNER_TYPE_VERSION: u64 = 0x00ff_0000_00ff_ffff;
    let word = word.to_le();
    if word & OWNER_TYPE_VERSION != 0x29_0000 || options_len != 0 {
        return None;
    }
    edns(word).ok()
}

/// The fields of an OPT record's first eight octets: owner, type, size, extended rcode, version, DO.
#[inline(always)]
fn edns(word: u64) -> Result<Edns, Counter> {
    if (word >> 48) as u8 != 0 {
        return Err(Counter::PassedEdnsVersion);
    }
    Ok(Edns {
        opt_len: OPT_LEN,
        size: ((word >> 24) as u16).swap_bytes(),
        dnssec_ok: word >> 63,
        client_cookie: 0,
    })
}

/// The length of the name at `question`, when an OPT record follows it.
#[inline(always)]
fn scan_name(ctx: &XdpContext, question: usize) -> Result<usize, Counter> {
    for index in 0..MAX_NAME_WORDS {
        // Never beyond the packet: type, class and OPT follow the name.
        let word: u64 = load(ctx, question + index * 8).ok_or(Counter::PassedQuestion)?;
        let zeros = zero_octets(word.to_le());
        if zeros != 0 {
            return Ok(index * 8 + first_marked(zeros) + 1);
        }
    }
    Err(Counter::PassedQuestion)
}

/// Index of the lowest octet whose bit 7 is set.
#[inline(always)]
fn first_marked(marks: u64) -> usize {
    // BPF counts no trailing zeros. Below the lowest mark, set bit 0 of every octet; the
    // multiplication adds these bits up in the highest octet.
    let below = (marks & marks.wrapping_neg()).wrapping_sub(1) & 0x0101_0101_0101_0101;
    (below.wrapping_mul(0x0101_0101_0101_0101) >> 56) as usize - 1
}

/// The OPT record at `opt`, with options, up to `end` of the message.
#[inline(always)]
fn parse_opt(ctx: &XdpContext, noise: Noise, opt: usize, end: usize) -> Result<Edns, Counter> {
    let word: u64 = load(ctx, opt).ok_or(Counter::PassedOpt)?;
    let word = word.to_le();
    let options_len: u16 = load(ctx, opt + 9).ok_or(Counter::PassedOpt)?;
    if word & 0xff_ffff != 0x29_0000
        || opt + OPT_LEN + usize::from(u16::from_be(options_len)) != end
    {
        return Err(Counter::PassedOpt);
    }
    let mut edns = edns(word)?;
    edns.client_cookie = noise.forget(0);
    let mut option = opt + OPT_LEN;
    for _ in 0..MAX_OPTIONS {
        if option == end {
            return Ok(edns);
        }
        let code: u16 = load(ctx, option).ok_or(Counter::PassedOpt)?;
        let len: u16 = load(ctx, option + 2).ok_or(Counter::PassedOpt)?;
        let (code, len) = (u16::from_be(code), usize::from(u16::from_be(len)));
        if must_be_answered(code) {
            return Err(Counter::PassedEdnsOption);
        }
        // Only the first cookie counts (RFC 7873 section 5.2).
        if code == cookie::OPTION && setting!(cookies) != 0 && edns.opt_len == OPT_LEN {
            if len != CLIENT_LEN
                && !(CLIENT_LEN + SERVER_LENS.start()..=CLIENT_LEN + SERVER_LENS.end())
                    .contains(&len)
            {
                return Err(Counter::PassedEdnsOption);
            }
            let client_cookie: u64 = load(ctx, option + 4).ok_or(Counter::PassedOpt)?;
            edns.client_cookie = noise.forget(client_cookie);
            edns.opt_len = OPT_COOKIE_LEN;
        }
        edns.opt_len = noise.bound::<0x3f>(edns.opt_len);
        option += 4 + len;
        if option > end {
            return Err(Counter::PassedOpt);
        }
        option = noise.bound::<0x1fff>(option);
    }
    if option == end {
        Ok(edns)
    } else {
        Err(Counter::PassedEdnsOption)
    }
}

/// Whether user space answers this option. A server that does not implement an option
/// ignores it (RFC 6891 section 6.1.2).
#[inline(always)]
fn must_be_answered(code: u16) -> bool {
    code < 32 && setting!(passed_options) >> code & 1 != 0
}

/// Reads name, type and class.
#[inline(always)]
fn read_question(
    ctx: &XdpContext,
    frame: &Frame,
    question: usize,
    name_len: usize,
    edns: Edns,
) -> Result<Query, Counter> {
    let noise = frame.noise;
    let (name, name_sum) =
        read_name(ctx, noise, question, name_len).ok_or(Counter::PassedQuestion)?;
    let type_class: u32 = load(ctx, question + name_len).ok_or(Counter::PassedQuestion)?;
    let qtype = type_in(type_class).ok_or(Counter::PassedClass)?;
    let edns = Edns {
        opt_len: noise.bound::<0x3f>(edns.opt_len),
        size: noise.forget(u64::from(edns.size)) as u16,
        dnssec_ok: noise.forget(edns.dnssec_ok),
        client_cookie: noise.forget(edns.client_cookie),
    };
    Ok(Query {
        name,
        name_sum,
        type_class,
        qtype,
        edns,
    })
}

/// A type and class IN, as they lie in the packet.
#[inline(always)]
pub(crate) const fn in_class_in(qtype: u16) -> u32 {
    (qtype.to_be() as u32 | (CLASS_IN as u32) << 16).to_le()
}

/// The type, in host byte order, of type and class as they lie in the packet, if the class is IN.
#[inline(always)]
pub(crate) fn type_in(type_class: u32) -> Option<u16> {
    let [qtype, class] = [type_class.to_le() as u16, (type_class.to_le() >> 16) as u16];
    (class == CLASS_IN.to_le()).then(|| qtype.swap_bytes())
}

/// Reads a name of `len` octets once: hash, first word, and its unfolded sum, as if its last word
/// started at an even offset.
#[inline(always)]
pub(crate) fn read_name(
    ctx: &XdpContext,
    noise: Noise,
    start: usize,
    len: usize,
) -> Option<(Name, u64)> {
    let mut hash = NameHash::default();
    let mut sum = 0;
    let whole_len = len & !7;
    // What the loop teaches the verifier about its end must not stick to the length.
    let loop_end = noise.bound::<0xf8>(whole_len);
    let mut offset = 0;
    while offset < loop_end {
        let word: u64 = load(ctx, word_place(start + len, offset))?;
        sum = add64(sum, word);
        hash = hash.add(
            word.to_le(),
            setting!(multipliers[(offset / 8) & (MAX_NAME_WORDS - 1)]),
        );
        offset += 8;
    }
    let mut first_word = 0;
    if len & 7 != 0 {
        // The word in which the name starts; what precedes it there is at the least the DNS header.
        let word: u64 = load(ctx, word_place(start + len, whole_len))?;
        let word = first_octets(word.to_le(), len & 7);
        sum = add64(sum, word.to_le());
        first_word = lower_case(word);
        hash = hash.add(
            first_word,
            setting!(multipliers[(whole_len / 8) & (MAX_NAME_WORDS - 1)]),
        );
    }
    let name = Name {
        start,
        len,
        whole_len,
        first_word: noise.forget(first_word),
        hash,
    };
    Some((name, noise.forget(sum)))
}

/// Where the word is that ends `offset` octets before `end`.
#[inline(always)]
fn word_place(end: usize, offset: usize) -> usize {
    // Never negative, which the verifier is told by a mask.
    (end - 8 - offset) & 0x1ff
}

/// Whether a name is the one with these words.
///
/// `words` may be longer than the name; the tag has compared the lengths.
#[inline(always)]
pub(crate) fn is_named<const WORDS: usize>(
    ctx: &XdpContext,
    noise: Noise,
    name: &Name,
    words: &[u64; WORDS],
) -> bool {
    let loop_end = noise.bound::<0xf8>(name.whole_len);
    let end = name.start + name.len;
    let mut index = 0;
    while index < WORDS {
        if index * 8 >= loop_end {
            break;
        }
        match load::<u64>(ctx, word_place(end, index * 8)) {
            Some(word) if lower_case(word.to_le()) == words[WORDS - 1 - index] => {}
            _ => return false,
        }
        index += 1;
    }
    name.whole_len == name.len || (index < WORDS && words[WORDS - 1 - index] == name.first_word)
}
