//! The usual query, answered without a detour: addresses of a name of a service, asked without
//! tags, options and padding.
//!
//! Nothing here decides anything of its own. What a query is, which answer is its and what a reply
//! says comes from the modules that all queries go through; here they meet lengths that are
//! constants, and names and answers short enough for a loop without a variable end. So the
//! verifier needs few checks and little [`Noise`], and the processor does half the work. Whatever is
//! not usual is left as it came, for the general way. No function is called here that the compiler
//! does not put in place: on some processors a return is as dear as fifty instructions.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use failover_common::{
    checksum::add64,
    counters::Counter,
    layout::{
        A_RECORD_LEN, AAAA_RECORD_LEN, AnswerHeader, Cell, Follow, NO_TAIL, NameSlot, SmallAnswer,
        State, TAIL_LEN, Tail, size::SMALL_ANSWER,
    },
    question::{NameHash, first_octets, lower_case},
};

use crate::{
    Stop,
    frame::{Datagram, ETHERNET_LEN, UDP_LEN},
    headers::{self, Message, Network, body_sum},
    lookup::{TYPE_A, TYPE_AAAA, find_tag, next_turn, select, words},
    maps::{ANSWERS, SERVICE_HITS, SERVICES, STATE, TAILS, setting, shared},
    nodes::may_end_ours,
    packet::{Noise, Window, opaque, read, ticks, write},
    query::{
        CLASSIC_SIZE, Edns, HEADER_LEN, NO_EDNS, OPT_LEN, TYPE_CLASS_LEN, additional_count,
        bare_opt_of_version_0, in_class_in,
    },
    reply::{MAX_HEAD_GROWTH, first_record},
};

/// Octets of the longest name that is looked for here, and its words.
const LONGEST_NAME: usize = NameSlot::INLINE;
const WORDS: usize = LONGEST_NAME / 8;
/// More than its length.
const NAME_LIMIT: usize = 2 * LONGEST_NAME;
// What is sent here fits every client.
const _: () =
    assert!(HEADER_LEN + LONGEST_NAME + TYPE_CLASS_LEN + MAX_HEAD_GROWTH + OPT_LEN <= CLASSIC_SIZE);
/// What is asked.
const A_IN: u32 = in_class_in(TYPE_A);
const AAAA_IN: u32 = in_class_in(TYPE_AAAA);
/// Octets of a tail that are copied at once.
const CHUNK: usize = 32;

/// Where the DNS header of a frame with this network header starts.
const fn dns<N: Network>() -> usize {
    ETHERNET_LEN + size_of::<N::Header>() + UDP_LEN
}

/// Where its question starts.
const fn question<N: Network>() -> usize {
    dns::<N>() + HEADER_LEN
}

/// A query of the usual kind.
struct Query {
    /// Octets of the name, at most [`LONGEST_NAME`].
    name_len: usize,
    /// The words of the name from its end on, as they came; the first with what precedes the name.
    name: [u64; WORDS],
    /// The same in lower case, and zeros before the name.
    key: [u64; WORDS],
    /// Hash of the key.
    hash: NameHash,
    /// Sum of the name, unfolded, as if it ended at an even offset.
    name_sum: u64,
    /// Type and class, as they lie in the packet.
    type_class: u32,
    /// Whether the type is AAAA: 1 or 0.
    is_v6: usize,
    /// OPT.
    edns: Edns,
}

/// What the reply is made of.
struct Reply {
    answer: &'static SmallAnswer,
    tail: &'static Tail,
    /// Octets of each address record.
    record_len: usize,
    /// Octets of all of them.
    answer_len: usize,
    /// Octets of the tail: 0, or [`CHUNK`] and more.
    tail_len: usize,
    /// This CPU's count of answers, which turns the rotation.
    hits: *mut u64,
}

/// What is there for a query.
enum Found {
    /// The usual.
    Reply(Reply),
    /// Nothing: no zone of ours ends as the name does. That is usual as well, and needs no second look.
    Outside,
    /// Something else, or nothing.
    Unusual,
}

impl Reply {
    /// Octets of the records, without OPT.
    #[inline(always)]
    fn records_len(&self) -> usize {
        self.answer_len + self.tail_len
    }
}

/// Answers a query of the usual kind; leaves all else as it is: `None`.
#[inline(always)]
pub(crate) fn answer<N: Network>(
    ctx: &XdpContext,
    packet: Window,
    datagram: &Datagram,
) -> Result<Option<Counter>, Stop> {
    let Some(query) = parse::<N>(packet, datagram) else {
        return Ok(None);
    };
    let reply = match find(&query) {
        Found::Reply(reply) => reply,
        Found::Outside => return Err(Stop::Pass(Counter::PassedName)),
        Found::Unusual => return Ok(None),
    };
    // The query's OPT makes room for ours.
    let growth = reply.records_len();
    if growth > MAX_HEAD_GROWTH {
        return Ok(None);
    }
    // SAFETY: the context is ours; packet pointers are made anew afterwards.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(growth as i32)) } != 0 {
        return Ok(None);
    }
    write::<N>(ctx, &query, &reply, growth).ok_or(Stop::Broken)?;
    Ok(Some(Counter::Answered))
}

/// Reads the message, if it is a query of the usual kind.
#[inline(always)]
fn parse<N: Network>(packet: Window, datagram: &Datagram) -> Option<Query> {
    if !datagram.is_unpadded() {
        return None;
    }
    let dns = packet.at(dns::<N>(), HEADER_LEN)?;
    let additional = additional_count(read!(dns, 2, u64), read!(dns, 10, u16))?;
    // As in `query::parse`: a guess which a wrong one does not survive.
    let opt_len = if additional == 0 { 0 } else { OPT_LEN };
    let name_len = datagram
        .message_len
        .wrapping_sub(HEADER_LEN + TYPE_CLASS_LEN + opt_len);
    if name_len == 0 || name_len > LONGEST_NAME {
        return None;
    }
    let (end, edns) = if additional == 0 {
        let end = packet.behind::<NAME_LIMIT>(name_len, question::<N>(), TYPE_CLASS_LEN)?;
        (end, NO_EDNS)
    } else {
        let len = TYPE_CLASS_LEN + OPT_LEN;
        let end = packet.behind::<NAME_LIMIT>(name_len, question::<N>(), len)?;
        let word = read!(end, TYPE_CLASS_LEN, u64);
        let options_len = read!(end, TYPE_CLASS_LEN + 9, u16);
        (end, bare_opt_of_version_0(word, options_len)?)
    };
    // What the length was compared with would keep ways apart, see [`Noise`].
    let noise = Noise::of(read!(end, -8, u64));
    let type_class = read!(end, 0, u32);
    let is_v6 = match type_class {
        A_IN => 0,
        AAAA_IN => 1,
        _ => return None,
    };
    let mut query = Query {
        name_len,
        // Before the name there are headers.
        name: core::array::from_fn(|index| read!(end, -8 * (index as isize + 1), u64)),
        key: [0; WORDS],
        hash: NameHash::new(setting!(seed)),
        name_sum: 0,
        type_class,
        is_v6: opaque(is_v6) as usize,
        edns,
    };
    for index in 0..WORDS {
        if index * 8 >= name_len {
            break;
        }
        let word = query.name[index].to_le();
        let word = if index * 8 + 8 <= name_len {
            word
        } else {
            first_octets(word, name_len - index * 8)
        };
        query.name_sum = add64(query.name_sum, word.to_le());
        query.key[index] = lower_case(word);
        query.hash = query.hash.add(query.key[index]);
    }
    query.name_len = noise.bound::<{ NAME_LIMIT - 1 }>(name_len);
    Some(query)
}

/// Finds what answers it, if that is usual, too.
#[inline(always)]
fn find(query: &Query) -> Found {
    let Some(state) = STATE.get(0) else {
        return Found::Unusual;
    };
    let generation = shared!(state.generation);
    if generation == 0 || !State::is_valid(shared!(state.valid_until), ticks()) {
        return Found::Unusual;
    }
    match find_tag(query.hash, query.name_len, generation) {
        Some((_, slot)) => at(query, slot, generation).map_or(Found::Unusual, Found::Reply),
        None if may_end_ours(query.name[0]) => Found::Unusual,
        None => Found::Outside,
    }
}

/// What answers it by a slot that may be its.
#[inline(always)]
fn at(query: &Query, slot: &NameSlot, generation: u64) -> Option<Reply> {
    let name = words::<{ NameSlot::INLINE }, WORDS>(&slot.name);
    for (word, key) in name.iter().rev().zip(&query.key) {
        if word != key {
            return None;
        }
    }
    if slot.target & NameSlot::NODE != 0 {
        return None;
    }
    let service = SERVICES.get(slot.target)?;
    let cell = if query.is_v6 == 0 {
        &service.a
    } else {
        &service.aaaa
    };
    let index = select(cell, generation).ok()?;
    if index & Cell::LARGE != 0 {
        return None;
    }
    let answer = ANSWERS.get(index)?;
    let AnswerHeader {
        records,
        sent,
        follow,
        ..
    } = answer.header;
    // Only of all records together the sum is known.
    if sent == 0 || sent != records {
        return None;
    }
    let tail = if follow == Follow::NameServers as u8 {
        slot.tail
    } else {
        NO_TAIL
    };
    let tail = TAILS.get(tail)?;
    let tail_len = usize::from(tail.header.len);
    if tail_len < CHUNK && tail_len != 0 {
        return None;
    }
    let record_len = A_RECORD_LEN + query.is_v6 * (AAAA_RECORD_LEN - A_RECORD_LEN);
    let answer_len = usize::from(sent) * record_len;
    let hits = SERVICE_HITS.get_ptr_mut(slot.target)?;
    Some(Reply {
        answer,
        tail,
        record_len,
        answer_len,
        tail_len,
        // SAFETY: one of the two fields of this CPU's map value.
        hits: unsafe { hits.cast::<u64>().add(query.is_v6) },
    })
}

/// Writes the reply. What it was read from lies `growth` octets further on.
#[inline(always)]
fn write<N: Network>(ctx: &XdpContext, query: &Query, reply: &Reply, growth: usize) -> Option<()> {
    let name_len = query.name_len;
    let edns = &query.edns;
    let udp_len =
        UDP_LEN + HEADER_LEN + name_len + TYPE_CLASS_LEN + reply.records_len() + edns.opt_len;
    let udp_len = udp_len as u16;

    // What follows is written over what is read from first.
    let packet = Window::new(ctx);
    let from = packet.behind::<256>(growth, 0, dns::<N>() + 4)?;
    let to = packet.at(0, question::<N>())?;
    let (start, end) = headers::ethernet(read!(from, 0, u64), read!(from, 6, u64));
    write!(to, 0, start);
    write!(to, 6, end);
    let (header, address_sum) = N::reply(read!(from, ETHERNET_LEN, N::Header), udp_len);
    write!(to, ETHERNET_LEN, header);
    let ports = read!(from, dns::<N>() - UDP_LEN, [u16; 2]);
    let id_flags = read!(from, dns::<N>(), u32);

    let end = packet.behind::<NAME_LIMIT>(name_len, question::<N>(), TYPE_CLASS_LEN)?;
    for index in 0..WORDS {
        // May start within the DNS header, which is written later.
        if index * 8 < name_len {
            write!(end, -8 * (index as isize + 1), query.name[index]);
        }
    }
    write!(end, 0, query.type_class);
    let answer = question::<N>() + TYPE_CLASS_LEN;
    if reply.record_len == A_RECORD_LEN {
        write_records::<A_RECORD_LEN>(packet, answer, name_len, reply)?;
    } else {
        write_records::<AAAA_RECORD_LEN>(packet, answer, name_len, reply)?;
    }
    write_tail(packet, answer, name_len + reply.answer_len, reply)?;
    let opt_sum = if edns.opt_len == 0 {
        0
    } else {
        let opt = packet.behind::<512>(name_len + reply.records_len(), answer, OPT_LEN)?;
        let word = headers::opt(setting!(edns_udp_size), edns.dnssec_ok);
        write!(opt, 0, word);
        write!(opt, 8, 0u16);
        write!(opt, 10, 0u8);
        add64(0, word)
    };

    let AnswerHeader {
        flags, sent, sum, ..
    } = reply.answer.header;
    let tail = &reply.tail.header;
    let records_sum =
        query.name_sum + u64::from(query.type_class) + u64::from(sum) + u64::from(tail.sum);
    let opt_count = u16::from(edns.opt_len != 0);
    let message = Message {
        ports,
        id_flags,
        flags,
        counts: [
            1u16.to_be(),
            u16::from(sent).to_be(),
            tail.authority_count.to_be(),
            (tail.additional_count + opt_count).to_be(),
        ],
        udp_len,
        address_sum,
        body_sum: body_sum(records_sum, opt_sum, name_len, reply.tail_len),
    };
    let (udp, id_flags, counts) = message.headers();
    write!(to, dns::<N>() - UDP_LEN, udp);
    write!(to, dns::<N>(), id_flags);
    write!(to, dns::<N>() + 4, counts);
    Some(())
}

/// Writes all address records, `LEN` octets each, from the one whose turn it is.
#[inline(always)]
fn write_records<const LEN: usize>(
    packet: Window,
    answer: usize,
    name_len: usize,
    reply: &Reply,
) -> Option<()> {
    let records = usize::from(reply.answer.header.records);
    let mut record = first_record(reply.answer, next_turn(reply.hits));
    for index in 0..SMALL_ANSWER / LEN {
        if index >= records {
            break;
        }
        let to = packet.behind::<NAME_LIMIT>(name_len, answer + index * LEN, LEN)?;
        // There is room for so many, which the verifier does not know.
        const { assert!((SMALL_ANSWER / LEN).is_power_of_two()) };
        let from = (record & (SMALL_ANSWER / LEN - 1)) * LEN;
        let from = (&raw const reply.answer.bytes)
            .cast_mut()
            .cast::<u8>()
            .wrapping_add(from);
        write!(to, 0, read!(from, 0, u64));
        write!(to, 8, read!(from, 8, u64));
        if LEN == AAAA_RECORD_LEN {
            write!(to, 16, read!(from, 16, u64));
            write!(to, 24, read!(from, 24, u32));
        }
        record = below(record + 1, records);
    }
    Some(())
}

/// `value` if it is less than `limit`, else 0, without a branch: whose turn it is cannot be guessed.
#[inline(always)]
fn below(value: usize, limit: usize) -> usize {
    let less = opaque(value.wrapping_sub(limit) as u64).cast_signed() >> 63;
    value & less as usize
}

/// Writes the tail, `variable` octets behind `offset`.
#[inline(always)]
fn write_tail(packet: Window, offset: usize, variable: usize, reply: &Reply) -> Option<()> {
    let len = reply.tail_len;
    if len == 0 {
        return Some(());
    }
    let tail = (&raw const reply.tail.bytes).cast::<u8>().cast_mut();
    for done in (0..MAX_HEAD_GROWTH / CHUNK * CHUNK).step_by(CHUNK) {
        if done + CHUNK > len {
            break;
        }
        let to = packet.behind::<512>(variable, offset + done, CHUNK)?;
        copy_chunk(tail.wrapping_add(done), to);
    }
    // The last octets; some of them have been copied before.
    let done = opaque(len.wrapping_sub(CHUNK) as u64) as usize & 0xff;
    const { assert!(0xff + CHUNK <= TAIL_LEN) };
    let to = packet.behind::<512>(variable + done, offset, CHUNK)?;
    copy_chunk(tail.wrapping_add(done), to);
    Some(())
}

#[inline(always)]
fn copy_chunk(from: *mut u8, to: *mut u8) {
    for word in 0..CHUNK / 8 {
        write!(to, word * 8, read!(from, word * 8, u64));
    }
}
