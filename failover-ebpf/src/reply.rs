//! The reply: how large it is, whether it may go out, and the writing of it.
//!
//! The only module that changes a packet. Room for the records is made at the front, which
//! is cheap (`bpf_xdp_adjust_head`): headers and question move towards the start. Where a
//! driver has no such room, or not enough of it, it is made at the end.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use failover_common::{
    checksum::{add64, shift_odd64},
    cookie::{self, CLIENT_LEN, OPTION, SERVER_LEN},
    counters::Counter,
    layout::{A_RECORD_LEN, AAAA_RECORD_LEN, Answer, Cell, TAIL_LEN, Tail, TailHeader, counts},
    question::MAX_NAME_LEN,
};

use crate::{
    Stop,
    frame::{Frame, IPV4_LEN, IPV6_LEN, UDP_LEN},
    headers::{self, Message, Network, Turned, V4, V6, body_sum},
    lookup::{Found, next_turn},
    maps::{ANSWERS, LARGE_ANSWERS, STATE, setting, shared},
    packet::{self, Noise, load, opaque, store},
    query::{Edns, HEADER_LEN, Name, OPT_LEN, Query, TYPE_CLASS_LEN},
};

/// Growth at the front that every driver with headroom allows: 256 octets less the kernel's
/// `struct xdp_frame`.
pub(crate) const MAX_HEAD_GROWTH: usize = 192;
/// Longest question.
const MAX_QUESTION: usize = MAX_NAME_LEN + TYPE_CLASS_LEN;
/// Where the response code is.
const RCODE: u16 = 0x000fu16.to_be();
/// It says that the server failed.
const SERVFAIL: u16 = 2u16.to_be();
/// It says that the name does not exist.
const NXDOMAIN: u16 = 3u16.to_be();

/// Sections of a reply.
#[derive(Clone, Copy)]
struct Plan {
    /// Address records sent.
    sent: usize,
    /// Octets of the answer section.
    answer_len: usize,
    /// Octets copied from the tail.
    tail_len: usize,
    /// Sum of what is copied from the tail, unfolded.
    tail_sum: u64,
    /// Records in the answer section.
    answer_count: u16,
    /// Records in the authority section.
    authority_count: u16,
    /// Records in the additional section, with OPT.
    additional_count: u16,
    /// Octets of the OPT record.
    opt_len: usize,
}

impl Plan {
    /// Octets after the question.
    #[inline(always)]
    fn records_len(&self) -> usize {
        self.answer_len + self.tail_len + self.opt_len
    }

    /// The same with nothing for the verifier to tell apart, see [`Noise`].
    #[inline(always)]
    fn bounded(self, noise: Noise) -> Self {
        Self {
            sent: noise.bound::<0x7f>(self.sent),
            answer_len: noise.bound::<0x7ff>(self.answer_len),
            tail_len: noise.bound::<0x1ff>(self.tail_len),
            opt_len: noise.bound::<0x3f>(self.opt_len),
            tail_sum: noise.forget(self.tail_sum),
            answer_count: noise.forget(u64::from(self.answer_count)) as u16,
            authority_count: noise.forget(u64::from(self.authority_count)) as u16,
            additional_count: noise.forget(u64::from(self.additional_count)) as u16,
        }
    }
}

/// Sends the reply, or leaves the packet as it is.
#[inline(always)]
pub(crate) fn send(
    ctx: &XdpContext,
    frame: &Frame,
    query: &Query,
    found: &Found,
) -> Result<Counter, Stop> {
    // The look-up has taught the verifier about the length; see [`Noise`].
    let query = &Query {
        name: Name {
            len: frame.noise.bound::<0xff>(query.name.len),
            ..query.name
        },
        ..*query
    };
    let plan = plan(frame.noise, query, found)
        .map_err(Stop::Pass)?
        .bounded(frame.noise);
    let question_end = frame.dns + HEADER_LEN + query.name.len + TYPE_CLASS_LEN;
    let shift = make_room(ctx, frame, question_end + plan.records_len()).map_err(Stop::Pass)?;
    let shift = frame.noise.bound::<0xff>(shift);
    write(ctx, frame, query, found, &plan, shift).ok_or(Stop::Broken)?;
    Ok(if plan.sent > 0 {
        Counter::Answered
    } else if plan.answer_count > 0 {
        Counter::AnsweredStatic
    } else {
        match found.flags & RCODE {
            NXDOMAIN => Counter::AnsweredNxdomain,
            SERVFAIL => Counter::AnsweredServfail,
            _ => Counter::AnsweredNodata,
        }
    })
}

/// Decides what the reply carries: what does not fit the client is left out in the order of
/// RFC 2181 section 9; if the answer itself does not fit, user space truncates.
#[inline(always)]
fn plan(noise: Noise, query: &Query, found: &Found) -> Result<Plan, Counter> {
    let opt_len = query.edns.opt_len;
    let room = noise.bound::<0x7ff>(query.edns.room());
    let sent = found.sent;
    let answer_len = sent * found.record_len;
    let opt_count = u16::from(opt_len != 0);
    let fixed = HEADER_LEN + query.name.len + TYPE_CLASS_LEN + answer_len + opt_len;
    let bare = Plan {
        sent,
        answer_len,
        tail_len: 0,
        tail_sum: 0,
        answer_count: sent as u16,
        authority_count: 0,
        additional_count: opt_count,
        opt_len,
    };
    if fixed > room {
        return Err(Counter::PassedTooLarge);
    }
    let tail = &found.tail.header;
    let (len, authority_len) = (usize::from(tail.len), usize::from(tail.authority_len));
    if fixed + len <= room {
        let moved = query.name.len as u64 * u64::from(tail.sum_per_octet);
        return Ok(Plan {
            tail_len: len,
            tail_sum: u64::from(tail.sum) + moved,
            answer_count: sent as u16 + tail.answer_count,
            authority_count: tail.authority_count,
            additional_count: tail.additional_count + opt_count,
            ..bare
        });
    }
    if fixed + authority_len <= room {
        return Ok(Plan {
            tail_len: authority_len,
            tail_sum: u64::from(tail.authority_sum),
            authority_count: tail.authority_count,
            ..bare
        });
    }
    // Without its SOA a negative answer says nothing, and a static reply has no parts.
    if sent == 0 {
        Err(Counter::PassedTooLarge)
    } else {
        Ok(bare)
    }
}

/// Makes the packet `len` octets long. Returns by how much its contents moved towards the
/// end, seen from its start.
#[inline(always)]
fn make_room(ctx: &XdpContext, frame: &Frame, len: usize) -> Result<usize, Counter> {
    let growth = len as i64 - frame.len as i64;
    if growth == 0 {
        return Ok(0);
    }
    if growth > 0 && growth <= MAX_HEAD_GROWTH as i64 {
        // SAFETY: the context is ours; all packet pointers are made anew afterwards.
        if unsafe { bpf_xdp_adjust_head(ctx.ctx, -growth as i32) } == 0 {
            return Ok(growth as usize);
        }
    }
    // SAFETY: as above.
    match unsafe { bpf_xdp_adjust_tail(ctx.ctx, growth as i32) } {
        0 => Ok(0),
        _ => Err(Counter::PassedNoRoom),
    }
}

/// Writes the reply. Every access lies within the room that was made.
#[inline(always)]
fn write(
    ctx: &XdpContext,
    frame: &Frame,
    query: &Query,
    found: &Found,
    plan: &Plan,
    shift: usize,
) -> Option<()> {
    let question_len = query.name.len + TYPE_CLASS_LEN;
    let message_len = HEADER_LEN + question_len + plan.records_len();
    let udp_len = (message_len + UDP_LEN) as u16;

    // Headers first: what is moved later would be written over them.
    let turned = read_headers(ctx, shift + frame.udp, found.flags)?;
    write_ethernet(ctx, frame, shift)?;
    let address_sum = write_ip(ctx, frame, shift, udp_len)?;
    move_question(ctx, frame, question_len, shift)?;

    let mut at = frame.dns + HEADER_LEN + question_len;
    let answer_sum = if found.answer & Cell::LARGE == 0 {
        let answer = ANSWERS.get(found.answer)?;
        write_answer(ctx, frame.noise, at, answer, plan, found)?
    } else {
        let answer = LARGE_ANSWERS.get(found.answer & !Cell::LARGE)?;
        write_answer(ctx, frame.noise, at, answer, plan, found)?
    };
    at += plan.answer_len;
    write_tail(ctx, frame.noise, at, found.tail, plan.tail_len)?;
    if plan.sent == 0 {
        move_pointers(ctx, frame.noise, at, found.tail, query.name.len)?;
    }
    at += plan.tail_len;
    let opt_sum = if plan.opt_len == 0 {
        0
    } else {
        write_opt(ctx, frame, at, query.edns)?
    };

    let records_sum = query.name_sum + u64::from(query.type_class) + answer_sum + plan.tail_sum;
    let message = Message {
        turned,
        counts: [
            counts(1, plan.answer_count),
            counts(plan.authority_count, plan.additional_count),
        ],
        udp_len,
        sum: address_sum
            + turned.sum()
            + body_sum(records_sum, opt_sum, query.name.len, plan.tail_len),
    };
    let headers: *mut [u8; UDP_LEN + HEADER_LEN] = packet::at(ctx, frame.udp)?;
    // SAFETY: `at` checked the whole of it.
    unsafe { message.write(headers.cast()) };
    Some(())
}

/// What the reply has from UDP and DNS header of the query.
#[inline(always)]
fn read_headers(ctx: &XdpContext, at: usize, flags: u16) -> Option<Turned> {
    let headers: *const [u8; UDP_LEN + HEADER_LEN] = packet::at(ctx, at)?;
    // SAFETY: `at` checked the whole of it.
    Some(unsafe { Turned::read(headers.cast(), flags) })
}

/// Addresses swapped, tags and type kept.
#[inline(always)]
fn write_ethernet(ctx: &XdpContext, frame: &Frame, shift: usize) -> Option<()> {
    // The first eight octets, and the last eight.
    let from: *const [u8; 14] = packet::at(ctx, shift)?;
    // SAFETY: `at` checked the whole header; see there on alignment.
    let (start, end) = unsafe { (*from.cast::<u64>(), *from.cast::<u8>().add(6).cast::<u64>()) };
    // Two tags and what follows them, or one, or none: all of it is moved.
    let tags = if frame.l2_len > 14 {
        load::<u64>(ctx, shift + 14)?
    } else {
        0
    };
    let (start, end) = headers::ethernet(start, end);
    let to: *mut [u8; 14] = packet::at(ctx, 0)?;
    // SAFETY: as above.
    unsafe {
        *to.cast::<u64>() = start;
        *to.cast::<u8>().add(6).cast::<u64>() = end;
    }
    if frame.l2_len > 14 {
        store(ctx, 14, tags)?;
    }
    Some(())
}

/// Moves the question, `len` octets, towards the start by `shift`. What precedes it is
/// written later.
#[inline(always)]
fn move_question(ctx: &XdpContext, frame: &Frame, len: usize, shift: usize) -> Option<()> {
    if shift == 0 {
        return Some(());
    }
    // Read before anything is written over it, written last. It may start in the header.
    let end = frame.dns + HEADER_LEN + len - 8;
    let last: u64 = load(ctx, shift + end)?;
    let loop_end = frame.noise.bound::<0x1ff>(len) as i64 - 8;
    let mut offset = 0;
    while offset < MAX_QUESTION && (offset as i64) < loop_end {
        let at = frame.dns + HEADER_LEN + offset;
        let word: u64 = load(ctx, shift + at)?;
        store(ctx, at, word)?;
        offset += 8;
    }
    store(ctx, end, last)
}

/// The address records of either type. Returns their sum.
#[inline(always)]
fn write_answer<const RECORDS: usize, const BYTES: usize>(
    ctx: &XdpContext,
    noise: Noise,
    at: usize,
    answer: &Answer<RECORDS, BYTES>,
    plan: &Plan,
    found: &Found,
) -> Option<u64> {
    if found.record_len == A_RECORD_LEN {
        write_records::<RECORDS, BYTES, A_RECORD_LEN>(ctx, noise, at, answer, plan, found)
    } else {
        write_records::<RECORDS, BYTES, AAAA_RECORD_LEN>(ctx, noise, at, answer, plan, found)
    }
}

/// The address records, `LEN` octets each, from the one whose turn it is. Returns their sum.
#[inline(always)]
fn write_records<const RECORDS: usize, const BYTES: usize, const LEN: usize>(
    ctx: &XdpContext,
    noise: Noise,
    at: usize,
    answer: &Answer<RECORDS, BYTES>,
    plan: &Plan,
    found: &Found,
) -> Option<u64> {
    let turn = next_turn(found.hits);
    let records = usize::from(answer.header.records);
    let mut record = noise.bound::<0xff>(first_record(answer, turn));
    let loop_end = noise.bound::<0x7f>(plan.sent);
    let mut sum = 0;
    let mut to = at;
    for count in 0..RECORDS {
        if count >= loop_end {
            break;
        }
        let from = record * LEN;
        if from > BYTES - LEN {
            return None;
        }
        // SAFETY: `from` leaves room for a record.
        let source = unsafe { answer.bytes.as_ptr().add(from) };
        sum = copy_words::<2>(source, packet::at(ctx, to)?, sum);
        if LEN == AAAA_RECORD_LEN {
            // SAFETY: 12 more octets of the record.
            let (word, half) =
                unsafe { (*source.add(16).cast::<u64>(), *source.add(24).cast::<u32>()) };
            store(ctx, to + 16, word)?;
            store(ctx, to + 24, half)?;
            sum = add64(sum, word) + u64::from(half);
        }
        to += LEN;
        record = noise.bound::<0xff>(select(record + 1, records));
    }
    Some(noise.forget(sum))
}

/// `value` if it is less than `limit`, else 0, without a branch for the verifier to follow.
#[inline(always)]
fn select(value: usize, limit: usize) -> usize {
    value & less(value as u64, limit as u64).wrapping_neg() as usize
}

/// 1 if `a` is less than `b` (both below 2^63), else 0, without a branch.
#[inline(always)]
fn less(a: u64, b: u64) -> u64 {
    opaque(a.wrapping_sub(b)) >> 63
}

/// Which record comes first on this turn: each in proportion to its weight.
#[inline(always)]
pub(crate) fn first_record<const RECORDS: usize, const BYTES: usize>(
    answer: &Answer<RECORDS, BYTES>,
    turn: u64,
) -> usize {
    let header = &answer.header;
    let total = u64::from(header.weight_total);
    let place = turn
        .wrapping_mul(u64::from(header.weight_step))
        .checked_rem(total)
        .unwrap_or(0);
    if header.weight_total == u32::from(header.records) {
        return place as usize & 0xff;
    }
    // A binary search without a branch; thresholds beyond the last record are out of reach.
    const { assert!(RECORDS.is_power_of_two()) };
    let mut record = 0;
    let mut step = RECORDS / 2;
    while step > 0 {
        let threshold = answer.thresholds[(record + step - 1) & (RECORDS - 1)];
        record += step & less(place, u64::from(threshold)).wrapping_sub(1) as usize;
        step /= 2;
    }
    record
}

/// Copies `WORDS` words from a map value into the packet and adds them to the sum.
#[inline(always)]
fn copy_words<const WORDS: usize>(
    source: *const u8,
    target: *mut [u64; WORDS],
    mut sum: u64,
) -> u64 {
    let source: *const [u64; WORDS] = source.cast();
    for index in 0..WORDS {
        // SAFETY: the callers checked both places; see `packet::at` on alignment.
        unsafe {
            let word = (*source)[index];
            (*target)[index] = word;
            sum = add64(sum, word);
        }
    }
    sum
}

/// The first `len` octets of a tail.
#[inline(always)]
fn write_tail(ctx: &XdpContext, noise: Noise, at: usize, tail: &Tail, len: usize) -> Option<()> {
    // Of one that is too large nothing is copied.
    let start = TAIL_LEN.saturating_sub(usize::from(tail.header.len));
    let start = noise.bound::<0x1ff>(start);
    let chunks_end = noise.bound::<0x1e0>(len & !31);
    let mut done = 0;
    while done + 32 <= TAIL_LEN && done < chunks_end {
        copy_chunk::<4>(ctx, at, tail, start, done)?;
        done += 32;
    }
    if len & 16 != 0 {
        copy_chunk::<2>(ctx, at, tail, start, len & !31)?;
    }
    if len & 8 != 0 {
        copy_chunk::<1>(ctx, at, tail, start, len & !15)?;
    }
    if len & 7 != 0 {
        // The word that ends with the tail overlaps what was copied before.
        copy_chunk::<1>(ctx, at, tail, start, len.checked_sub(8)?)?;
    }
    Some(())
}

/// Copies `WORDS` words at `offset` of a tail whose records start at `start`, and `at` in the packet.
#[inline(always)]
fn copy_chunk<const WORDS: usize>(
    ctx: &XdpContext,
    at: usize,
    tail: &Tail,
    start: usize,
    offset: usize,
) -> Option<()> {
    let from = opaque((start + offset) as u64) as usize;
    if from > TAIL_LEN - WORDS * 8 {
        return None;
    }
    // SAFETY: checked above.
    let source = unsafe { tail.bytes.as_ptr().add(from) };
    copy_words::<WORDS>(source, packet::at(ctx, at + offset)?, 0);
    Some(())
}

/// Adds the length of the question's name to the compression pointers of a denial.
#[inline(always)]
fn move_pointers(
    ctx: &XdpContext,
    noise: Noise,
    at: usize,
    tail: &Tail,
    name_len: usize,
) -> Option<()> {
    for place in tail.header.pointers {
        if place == TailHeader::NO_POINTER {
            break;
        }
        let place = at + noise.bound::<0x1ff>(usize::from(place));
        let pointer = u16::from_be(load(ctx, place)?);
        store(ctx, place, pointer.wrapping_add(name_len as u16).to_be())?;
    }
    Some(())
}

/// Our OPT record: our size, version 0, DO as it came, a cookie. Returns its sum.
#[inline(always)]
fn write_opt(ctx: &XdpContext, frame: &Frame, at: usize, edns: Edns) -> Option<u64> {
    let word = headers::opt(setting!(edns_udp_size), edns.dnssec_ok);
    let options_len = (edns.opt_len - OPT_LEN) as u8;
    store(ctx, at, word)?;
    store(ctx, at + 8, 0u16)?;
    store(ctx, at + 10, options_len)?;
    let sum = add64(0, word) + u64::from(u16::from_ne_bytes([options_len, 0]));
    if options_len == 0 {
        return Some(sum);
    }
    // It starts at an odd octet of the record.
    Some(sum + shift_odd64(write_cookie(ctx, frame, at + OPT_LEN, edns)?, true))
}

/// Our COOKIE option: the client cookie and a new server cookie (RFC 9018). Returns its sum.
#[inline(always)]
fn write_cookie(ctx: &XdpContext, frame: &Frame, at: usize, edns: Edns) -> Option<u64> {
    const HEAD: u32 = u32::from_be_bytes([0, OPTION as u8, 0, (CLIENT_LEN + SERVER_LEN) as u8]);
    let head = HEAD.to_be();
    let client = edns.client_cookie;
    let stamp = cookie::stamp(shared!(STATE.get(0)?.time) as u32);
    let is_v4 = frame.ip_len == IPV4_LEN;
    let hash = hash_cookie(ctx.ctx, frame.l2_len, is_v4, client, stamp);
    store(ctx, at, head)?;
    store(ctx, at + 4, client)?;
    store(ctx, at + 12, stamp.to_le())?;
    store(ctx, at + 20, hash.to_le())?;
    let sum = add64(add64(u64::from(head), client), stamp.to_le());
    Some(add64(sum, hash.to_le()))
}

/// The hash of a server cookie for whom the reply's IP header at `ip` sends it to.
///
/// A function of its own, so that the registers of the usual way are not spent on it.
#[inline(never)]
fn hash_cookie(context: *mut xdp_md, ip: usize, is_v4: bool, client: u64, stamp: u64) -> u64 {
    const DESTINATION_V4: usize = 16;
    const DESTINATION_V6: usize = 24;
    let ctx = &XdpContext::new(context);
    let ip = ip & 0x1f;
    let address = if is_v4 {
        load(ctx, ip + DESTINATION_V4).map(|word: u32| [u64::from(word), 0])
    } else {
        load(ctx, ip + DESTINATION_V6)
    };
    // There always is one.
    let [a0, a1]: [u64; 2] = address.unwrap_or_default();
    let secret = [
        setting!(cookie_secret[0]).to_le(),
        setting!(cookie_secret[1]).to_le(),
    ];
    cookie::hash(
        secret,
        client.to_le(),
        stamp,
        [a0.to_le(), a1.to_le()],
        is_v4,
    )
}

/// The IP header: addresses swapped, TTL and lengths set. Returns the sum of the pseudo header's
/// addresses, unfolded (RFC 768; RFC 8200 section 8.1).
#[inline(always)]
fn write_ip(ctx: &XdpContext, frame: &Frame, shift: usize, udp_len: u16) -> Option<u64> {
    // What the way here compared it with is forgotten: older verifiers follow ways that there are not.
    let to = frame.noise.bound::<0x1f>(frame.l2_len);
    let from = shift + to;
    let sum = if frame.ip_len == IPV4_LEN {
        turn_ip::<V4>(ctx, from, to, udp_len)?
    } else {
        turn_ip::<V6>(ctx, from, to, udp_len)?
    };
    Some(frame.noise.forget(sum))
}

/// Turns an IP header. Returns the sum of the addresses.
#[inline(always)]
fn turn_ip<N: Network>(ctx: &XdpContext, from: usize, to: usize, udp_len: u16) -> Option<u64> {
    // No header of IP is longer than that of IPv6, and a UDP header and more follow.
    let from: *const [u8; IPV6_LEN] = packet::at(ctx, from)?;
    let to: *mut [u8; IPV6_LEN] = packet::at(ctx, to)?;
    const { assert!(N::LEN <= IPV6_LEN && IPV6_LEN <= IPV4_LEN + UDP_LEN + HEADER_LEN) };
    // SAFETY: `at` checked both places.
    Some(unsafe { N::turn(from.cast(), to.cast(), udp_len) })
}
