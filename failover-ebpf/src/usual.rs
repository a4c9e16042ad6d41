//! The usual query, answered without a detour: addresses of a name of a service, asked without
//! tags, options and padding.
//!
//! Nothing here decides anything of its own. What a query is, which answer is its and what a reply
//! says is what the modules say that all queries go through; here they meet lengths that are
//! constants, names and answers short enough for a loop without a variable end, and sums that user space
//! has worked out. So the verifier needs few checks, and the processor does a third of the work. Whatever is
//! not usual is left as it came, for the general way. No function is called here that the compiler
//! does not put in place: on some processors a return is as dear as fifty instructions.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use failover_common::{
    checksum::shift_odd64,
    counters::{Counter, ServiceHits},
    layout::{
        A_RECORD_LEN, AAAA_RECORD_LEN, Cell, InlineAnswer, NameSlot, ServiceCell, ServiceSlot,
        ServiceVersion, State, TAIL_LEN, Tail, counts,
    },
    question::{NameHash, lower_case, may_have_upper_case},
};

use crate::{
    Stop,
    frame::{ETHERNET_LEN, UDP_LEN, Usual},
    headers::{self, AUTHORITATIVE, Message, Turned, V4, V6, joined},
    lookup::{TYPE_A, TYPE_AAAA, find_tag, inline_words, neighbour, next_turn},
    maps::{STATE, setting, shared, value_at},
    nodes::may_end_ours,
    packet::{Noise, Window, bounded, opaque, read, ticks, write},
    query::{
        CLASSIC_SIZE, HEADER_LEN, OPT_LEN, TYPE_CLASS_LEN, additional_count, bare_opt_of_version_0,
        in_class_in,
    },
    reply::MAX_HEAD_GROWTH,
};

/// Octets of the longest name that is looked for here, and its words.
const LONGEST_NAME: usize = NameSlot::INLINE;
const WORDS: usize = LONGEST_NAME / 8;
/// Words that are read of every name. The others are those of long ones.
const SHORT_WORDS: usize = 3;
/// Octets of the shortest one: all words that every name has lie behind the IP header, even if they
/// start before the name.
const SHORTEST_NAME: usize = 8 * SHORT_WORDS - HEADER_LEN - UDP_LEN;
/// More than its length.
const NAME_LIMIT: usize = 64;
// What is sent here fits every client.
const _: () =
    assert!(HEADER_LEN + LONGEST_NAME + TYPE_CLASS_LEN + MAX_HEAD_GROWTH + OPT_LEN <= CLASSIC_SIZE);
/// What is asked.
const A_IN: u32 = in_class_in(TYPE_A);
const AAAA_IN: u32 = in_class_in(TYPE_AAAA);
/// Octets of a tail that are copied at once; a reply has no fewer of tail and OPT.
const CHUNK: usize = 40;
/// Octets that follow the question of every reply.
const FEWEST_RECORDS: usize = A_RECORD_LEN + CHUNK;

/// Which of [`LONGEST_NAME`] octets are a name's that ends with them: so many from its length on.
static NAME_MASK: [u8; LONGEST_NAME + NAME_LIMIT] = {
    let mut mask = [0xff; LONGEST_NAME + NAME_LIMIT];
    let mut index = 0;
    while index < LONGEST_NAME {
        mask[index] = 0;
        index += 1;
    }
    mask
};

/// Where the DNS header of a frame with this network header starts.
const fn dns<N: Usual>() -> usize {
    ETHERNET_LEN + N::LEN + UDP_LEN
}

/// Where its question starts.
const fn question<N: Usual>() -> usize {
    dns::<N>() + HEADER_LEN
}

/// A query of the usual kind.
struct Query {
    /// Octets of the name, from [`SHORTEST_NAME`] to [`LONGEST_NAME`].
    name_len: usize,
    /// The words of the name in lower case, from its end on, with zeros before the name.
    name: [u64; WORDS],
    /// Not 0 if there may have been letters in upper case.
    upper_case: u64,
    /// If so: what made them lower-case, by exclusive or.
    case: [u64; WORDS],
    /// Hash of the name in lower case.
    hash: NameHash,
    /// Type and class, as they lie in the packet.
    type_class: u32,
    /// Whether the type is AAAA: 1 or 0.
    is_v6: usize,
    /// DO: 1 or 0.
    dnssec_ok: usize,
    /// See [`Noise`].
    noise: Noise,
}

impl Query {
    /// Whether the name has more than [`SHORT_WORDS`] words.
    #[inline(always)]
    fn is_long(&self) -> bool {
        // What the length was compared with would keep ways apart.
        self.noise.forget(self.name_len as u64) > 8 * SHORT_WORDS as u64
    }

    /// Takes a word of the name as it came.
    #[inline(always)]
    fn take(&mut self, index: usize, word: u64) {
        self.name[index] = word;
        self.upper_case |= may_have_upper_case(word.to_le());
        self.hash = self.hash.add(word.to_le(), setting!(multipliers[index]));
    }

    /// Makes the name lower-case. Words that are not there are zero.
    #[inline(always)]
    fn lower_case(&mut self) {
        self.hash = NameHash::default();
        for index in 0..WORDS {
            let word = lower_case(self.name[index].to_le());
            self.case[index] = word.to_le() ^ self.name[index];
            self.name[index] = word.to_le();
            self.hash = self.hash.add(word, setting!(multipliers[index]));
        }
    }

    /// Whether these are the words of the name in lower case.
    #[inline(always)]
    fn is_named(&self, words: &[u64; WORDS]) -> bool {
        let mut differ = 0;
        for index in 0..WORDS {
            differ |= words[WORDS - 1 - index] ^ self.name[index].to_le();
        }
        differ == 0
    }

    /// Writes the name, as it came, so that it ends at a place.
    #[inline(always)]
    fn write(&self, end: *mut u8) {
        if self.noise.forget(self.upper_case) == 0 {
            self.write_words(end, |index| self.name[index]);
        } else {
            self.write_words(end, |index| self.name[index] ^ self.case[index]);
        }
    }

    #[inline(always)]
    fn write_words(&self, end: *mut u8, word: impl Fn(usize) -> u64) {
        for index in 0..SHORT_WORDS {
            write!(end, -8 * (index as isize + 1), word(index));
        }
        if self.is_long() {
            for index in SHORT_WORDS..WORDS {
                write!(end, -8 * (index as isize + 1), word(index));
            }
        }
    }

    /// What has to be added to the sum of the name in lower case for that of the name as it is,
    /// unfolded, as if it ended at an even offset.
    #[inline(always)]
    fn case_sum(&self) -> u64 {
        /// A multiple of 65535, which in ones' complement is 0.
        const NOTHING: u64 = 8 * 0xffff_ffff;
        let mut sum = NOTHING;
        for more in self.case {
            sum = sum - (more & 0xffff_ffff) - (more >> 32);
        }
        sum
    }
}

/// What the reply is made of.
struct Reply {
    slot: &'static NameSlot,
    answer: &'static InlineAnswer,
    tail: &'static Tail,
    /// Octets of all address records.
    answer_len: usize,
    /// Octets of the tail, without OPT.
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

/// Answers a query of the usual kind; leaves all else as it is: `None`.
#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext, packet: Window) -> Result<Option<Counter>, Stop> {
    let Some(start) = packet.at(0, question::<V4>()) else {
        return Ok(None);
    };
    if V4::is_usual(start, packet.len()) {
        return answer_over::<V4>(ctx, packet);
    }
    match packet.at(0, question::<V6>()) {
        Some(start) if V6::is_usual(start, packet.len()) => answer_over::<V6>(ctx, packet),
        _ => Ok(None),
    }
}

/// Answers a query over this version of IP.
#[inline(always)]
fn answer_over<N: Usual>(ctx: &XdpContext, packet: Window) -> Result<Option<Counter>, Stop> {
    let additional = packet
        .at(dns::<N>(), HEADER_LEN)
        .and_then(|dns| additional_count(read!(dns, 2, u64), read!(dns, 10, u16)));
    match additional {
        Some(0) => answer_with::<N, 0>(ctx, packet),
        Some(_) => answer_with::<N, OPT_LEN>(ctx, packet),
        None => Ok(None),
    }
}

/// Answers a query with an OPT record of so many octets, or none.
#[inline(always)]
fn answer_with<N: Usual, const OPT: usize>(
    ctx: &XdpContext,
    packet: Window,
) -> Result<Option<Counter>, Stop> {
    let Some(query) = parse::<N, OPT>(packet) else {
        return Ok(None);
    };
    let reply = match find(&query) {
        Found::Reply(reply) => reply,
        Found::Outside => return Err(Stop::Pass(Counter::PassedName)),
        Found::Unusual => return Ok(None),
    };
    // The query's OPT makes room for ours.
    let growth = reply.answer_len + reply.tail_len;
    if growth > MAX_HEAD_GROWTH || reply.tail_len + OPT < CHUNK {
        return Ok(None);
    }
    // SAFETY: the context is ours; packet pointers are made anew afterwards.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(growth as i32)) } != 0 {
        return Ok(None);
    }
    write::<N, OPT>(ctx, &query, &reply, growth).ok_or(Stop::Broken)?;
    Ok(Some(Counter::Answered))
}

/// Reads the message, if it is a query of the usual kind.
#[inline(always)]
fn parse<N: Usual, const OPT: usize>(packet: Window) -> Option<Query> {
    // As in `query::parse`: a guess which a wrong one does not survive.
    let name_len = packet
        .len()
        .wrapping_sub(question::<N>() + TYPE_CLASS_LEN + OPT);
    if name_len.wrapping_sub(SHORTEST_NAME) > LONGEST_NAME - SHORTEST_NAME {
        return None;
    }
    let name_len = bounded::<NAME_LIMIT>(name_len);
    let end = packet.at(name_len + question::<N>(), TYPE_CLASS_LEN + OPT)?;
    let dnssec_ok = if OPT == 0 {
        0
    } else {
        let word = read!(end, TYPE_CLASS_LEN, u64);
        let options_len = read!(end, TYPE_CLASS_LEN + 9, u16);
        bare_opt_of_version_0(word, options_len)?.dnssec_ok as usize
    };
    // What is compared would keep ways apart.
    let noise = Noise::of(read!(end, -8, u64));
    let type_class = read!(end, 0, u32);
    let is_v6 = match type_class {
        A_IN => 0,
        AAAA_IN => 1,
        _ => return None,
    };
    let mask = NAME_MASK.as_ptr().wrapping_add(name_len);
    // Before the name there are headers.
    let word = |index: usize| {
        read!(end, -8 * (index as isize + 1), u64)
            & read!(mask, LONGEST_NAME - 8 * (index + 1), u64)
    };
    let mut query = Query {
        name_len,
        name: [0; WORDS],
        upper_case: 0,
        case: [0; WORDS],
        hash: NameHash::default(),
        type_class,
        is_v6: noise.bound::<1>(is_v6),
        dnssec_ok,
        noise,
    };
    for index in 0..SHORT_WORDS {
        query.take(index, word(index));
    }
    if query.is_long() {
        for index in SHORT_WORDS..WORDS {
            query.take(index, word(index));
        }
    }
    if query.upper_case != 0 {
        query.lower_case();
    }
    query.name_len = query.noise.bound::<{ NAME_LIMIT - 1 }>(name_len);
    Some(query)
}

/// Finds what answers it, if that is usual, too.
#[inline(always)]
fn find(query: &Query) -> Found {
    let Some(state) = STATE.get(0) else {
        return Found::Unusual;
    };
    let generation = shared!(state.generation);
    if !State::is_valid(shared!(state.valid_until), ticks()) {
        return Found::Unusual;
    }
    match find_tag(query.noise, query.hash, query.name_len) {
        Some((_, slot)) => at(query, slot, generation).map_or(Found::Unusual, Found::Reply),
        None if generation == 0 || may_end_ours(query.name[0]) => Found::Unusual,
        None => Found::Outside,
    }
}

/// What answers it by a slot that may be its.
#[inline(always)]
fn at(query: &Query, slot: &'static NameSlot, generation: u64) -> Option<Reply> {
    if !query.is_named(inline_words(slot)) {
        return None;
    }
    // There is none for the target of a node.
    let service = value_at!(SERVICES, ServiceSlot, slot.target)?;
    let cell = neighbour(&service.a, query.is_v6 * size_of::<ServiceCell>());
    let version = newest(query.noise, cell);
    let pointer = shared!(version.pointer);
    if pointer > Cell::last_version(generation) || pointer & Cell::INLINE == 0 {
        return None;
    }
    let answer = &version.inline;
    let tail = value_at!(TAILS, Tail, slot.tail)?;
    let hits = value_at!(SERVICE_HITS, ServiceHits, slot.target)?;
    Some(Reply {
        slot,
        answer,
        tail,
        answer_len: usize::from(answer.len),
        tail_len: usize::from(tail.header.len),
        // SAFETY: one of the two fields of this CPU's map value.
        hits: unsafe { (&raw const *hits).cast_mut().cast::<u64>().add(query.is_v6) },
    })
}

/// The newer of two versions. Unless it is newer than a generation, it is the one that this generation
/// has, see [`Cell::select`]. A branch, and a good guess: services change seldom, and many at once.
#[inline(always)]
fn newest(noise: Noise, cell: &'static ServiceCell) -> &'static ServiceVersion {
    let [first, second] = &cell.versions;
    let is_second = shared!(first.pointer) < shared!(second.pointer);
    let offset = if is_second {
        size_of::<ServiceVersion>()
    } else {
        0
    };
    neighbour(
        first,
        noise.bound::<{ size_of::<ServiceVersion>() }>(offset),
    )
}

/// Writes the reply. What it was read from lies `growth` octets further on.
#[inline(always)]
fn write<N: Usual, const OPT: usize>(
    ctx: &XdpContext,
    query: &Query,
    reply: &Reply,
    growth: usize,
) -> Option<()> {
    let name_len = query.name_len;
    let udp_len = (UDP_LEN + HEADER_LEN + name_len + TYPE_CLASS_LEN + growth + OPT) as u16;

    // What follows is written over what is read from first, and the question's words may start
    // in the headers of UDP and DNS, which are written last.
    let packet = Window::new(ctx);
    let from = packet.at(bounded::<256>(growth), dns::<N>() + 4)?;
    let to = packet.at(0, question::<N>())?;
    // SAFETY: more than these headers is at both places.
    let (turned, addresses) = unsafe {
        headers::turn_ethernet(from, to);
        let addresses = N::turn(
            from.wrapping_add(ETHERNET_LEN),
            to.wrapping_add(ETHERNET_LEN),
            udp_len,
        );
        let turned = Turned::read(from.wrapping_add(dns::<N>() - UDP_LEN), AUTHORITATIVE);
        (turned, addresses)
    };

    let end = packet.at(
        bounded::<NAME_LIMIT>(name_len) + question::<N>(),
        TYPE_CLASS_LEN + FEWEST_RECORDS,
    )?;
    query.write(end);
    write!(end, 0, query.type_class);
    let records = end.wrapping_add(TYPE_CLASS_LEN);
    if query.is_v6 == 0 {
        write_records::<A_RECORD_LEN>(packet, records, reply)?;
    } else {
        write_records::<AAAA_RECORD_LEN>(packet, records, reply)?;
    }
    let offset = question::<N>() + TYPE_CLASS_LEN;
    let last = write_tail::<OPT>(packet, name_len + reply.answer_len, offset, reply)?;
    if OPT != 0 {
        // The flags of OPT.
        write!(last, CHUNK - OPT_LEN + 7, (query.dnssec_ok << 7) as u8);
    }

    let sums = (&raw const reply.slot.sums).cast::<u16>();
    let sums_index = if OPT == 0 { 0 } else { 1 + query.dnssec_ok };
    let names_sum = read!(sums, sums_index * size_of::<u16>(), u16);
    let mut odd_sum = u64::from(reply.answer.sum);
    if query.upper_case != 0 {
        odd_sum += query.case_sum();
    }
    let message = Message {
        turned,
        counts: [
            counts(1, reply.answer.records.into()),
            reply.tail.header.counts + counts(0, u16::from(OPT != 0)),
        ],
        udp_len,
        sum: turned.sum(addresses) + u64::from(names_sum) + shift_odd64(odd_sum, name_len & 1 == 1),
    };
    // SAFETY: the headers are there.
    unsafe { message.write(to.wrapping_add(dns::<N>() - UDP_LEN)) };
    Some(())
}

/// Writes all address records, `LEN` octets each, from the one whose turn it is.
#[inline(always)]
fn write_records<const LEN: usize>(packet: Window, records: *mut u8, reply: &Reply) -> Option<()> {
    const HEAD_LEN: usize = InlineAnswer::HEAD_LEN;
    let answer = reply.answer;
    let count = usize::from(answer.records);
    let turn = next_turn(reply.hits);
    let turns = u64::from(answer.turns);
    let last_turn = turns.wrapping_sub(1);
    let turn = if turns & last_turn == 0 {
        turn & last_turn
    } else {
        turn.checked_rem(turns).unwrap_or(0)
    };
    let most = const { InlineAnswer::ADDRESSES_LEN / (LEN - HEAD_LEN) };
    const { assert!((InlineAnswer::ADDRESSES_LEN / (LEN - HEAD_LEN)).is_power_of_two()) };
    let first = read!((&raw const answer.first).cast::<u8>(), 0, u64)
        >> ((turn as u32 * InlineAnswer::TURN_BITS) & (u64::BITS - 1));
    let mut record = first as usize & (most - 1);
    for index in 0..most {
        if index > 0 && index >= count {
            break;
        }
        let to = records.wrapping_add(index * LEN);
        if (index + 1) * LEN > FEWEST_RECORDS {
            packet.holds(to, LEN)?;
        }
        let address = (&raw const answer.addresses)
            .cast::<u8>()
            .wrapping_add((record & (most - 1)) * (LEN - HEAD_LEN));
        write!(to, 0, answer.start);
        if LEN == A_RECORD_LEN {
            write!(to, 8, joined(answer.middle, read!(address, 0, u32)));
        } else {
            write!(to, 8, answer.middle);
            write!(to, HEAD_LEN, read!(address, 0, u64));
            write!(to, HEAD_LEN + 8, read!(address, 8, u64));
        }
        record = below(record + 1, count);
    }
    Some(())
}

/// `value` if it is less than `limit`, else 0, without a branch: whose turn it is cannot be guessed.
#[inline(always)]
fn below(value: usize, limit: usize) -> usize {
    let less = opaque(value.wrapping_sub(limit) as u64).cast_signed() >> 63;
    value & less as usize
}

/// Writes tail and OPT, `variable` octets behind `offset`. Returns where the last [`CHUNK`] octets are.
#[inline(always)]
fn write_tail<const OPT: usize>(
    packet: Window,
    variable: usize,
    offset: usize,
    reply: &Reply,
) -> Option<*mut u8> {
    let len = reply.tail_len + OPT;
    let tail = (&raw const reply.tail.bytes).cast::<u8>();
    let to = packet.at(bounded::<512>(variable) + offset, CHUNK)?;
    for done in (0..MAX_HEAD_GROWTH + OPT - CHUNK).step_by(CHUNK) {
        if done + CHUNK >= len {
            break;
        }
        let to = to.wrapping_add(done);
        if done > 0 {
            packet.holds(to, CHUNK)?;
        }
        copy_chunk(tail.wrapping_add(done), to);
    }
    // The last octets; some of them have been copied before.
    let done = bounded::<256>(len - CHUNK);
    const { assert!(255 + CHUNK <= TAIL_LEN) };
    let last = packet.at(bounded::<512>(variable + done) + offset, CHUNK)?;
    copy_chunk(tail.wrapping_add(done), last);
    Some(last)
}

#[inline(always)]
fn copy_chunk(from: *const u8, to: *mut u8) {
    for word in 0..CHUNK / 8 {
        write!(to, word * 8, read!(from, word * 8, u64));
    }
}
