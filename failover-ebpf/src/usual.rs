//! The usual query, answered without a detour: addresses of a name of a service, asked without
//! tags, options and padding.
//!
//! Nothing here decides anything of its own. What a query is, which answer is its and what a reply
//! says is what the modules say that all queries go through; here they meet lengths that are
//! constants, names and answers short enough for a loop without a variable end, and sums that user space
//! has worked out. So the verifier needs few checks, and the processor does a third of the work. Whatever
//! is not usual is left as it came, for the general way. No function is called here that the compiler
//! does not put in place: on some processors a return is as dear as fifty instructions.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use failover_common::{
    checksum::shift_odd64,
    counters::ServiceHits,
    layout::{
        A_RECORD_LEN, AAAA_RECORD_LEN, Cell, InlineAnswer, MAX_TURNS, NameSlot, RECORD_HEAD_LEN,
        ServiceCell, State, TAIL_LEN, TAIL_OPT_LEN, TURN_BITS, Tail, counts, size,
    },
    question::{NameHash, lower_case},
    settings::FAR_HOMES,
};

use crate::{
    frame::{ETHERNET_LEN, UDP_LEN, Usual},
    headers::{Turned, V4, V6},
    lookup::{Bucket, TYPE_A, TYPE_AAAA, inline_words, neighbour, next_turn},
    maps::{setting, shared, value_at, zero},
    nodes::may_end_ours,
    packet::{Window, bounded, opaque, read, ticks, write},
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
/// Octets of tail and OPT that are copied at once, from their end on. What is copied too much at their
/// start is written over by what comes before them.
const CHUNK: usize = 32;
/// Fewest octets of tail and OPT.
const SHORTEST_TAIL: usize = 40;
/// QR and AA in the flags of a header, as they lie in the packet.
const AUTHORITATIVE: u16 = 0x8400u16.to_be();

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

/// A type of address records.
trait Family {
    /// The addresses of an answer.
    type Addresses: 'static;
    /// Octets of one of them.
    const ADDRESS_LEN: usize;
    /// Octets of a record.
    const RECORD_LEN: usize = RECORD_HEAD_LEN + Self::ADDRESS_LEN;
    /// Most records of an answer: all but the last come twice.
    const MOST: usize = (size_of::<Self::Addresses>() / Self::ADDRESS_LEN).div_ceil(2);
    /// Type and class of the question, as they lie in the packet.
    const QUESTION: u32;
    /// What a record starts with: a pointer to the question's name, type and class.
    const RECORD_START: u64 =
        u64::from_le_bytes([0xc0, 12, 0, 0, 0, 0, 0, 0]) | (Self::QUESTION.to_le() as u64) << 16;
    /// Which of the numbers of [`ServiceHits`] counts the answers.
    const HITS: usize;

    /// What the service of a name answers.
    fn service(slot: &NameSlot) -> Option<&'static ServiceCell<Self::Addresses>>;
}

/// A records.
struct A;
/// AAAA records.
struct Aaaa;

impl Family for A {
    type Addresses = [u8; size::A_ADDRESSES];
    const ADDRESS_LEN: usize = A_RECORD_LEN - RECORD_HEAD_LEN;
    const QUESTION: u32 = in_class_in(TYPE_A);
    const HITS: usize = 0;

    #[inline(always)]
    fn service(slot: &NameSlot) -> Option<&'static ServiceCell<Self::Addresses>> {
        value_at!(SERVICES_A, ServiceCell<Self::Addresses>, slot.target)
    }
}

impl Family for Aaaa {
    type Addresses = [u8; size::AAAA_ADDRESSES];
    const ADDRESS_LEN: usize = AAAA_RECORD_LEN - RECORD_HEAD_LEN;
    const QUESTION: u32 = in_class_in(TYPE_AAAA);
    const HITS: usize = 1;

    #[inline(always)]
    fn service(slot: &NameSlot) -> Option<&'static ServiceCell<Self::Addresses>> {
        value_at!(SERVICES_AAAA, ServiceCell<Self::Addresses>, slot.target)
    }
}

/// A query of the usual kind.
struct Query {
    /// Octets of the name, from [`SHORTEST_NAME`] to [`LONGEST_NAME`].
    name_len: usize,
    /// The words of the name as it came, from its end on, with zeros before the name.
    name: [u64; WORDS],
    /// Hash of the name.
    hash: NameHash,
    /// Where it leads. Memory has been asked for it early, while there is other work to do.
    home: Bucket,
    /// DO: 1 or 0.
    dnssec_ok: usize,
}

impl Query {
    /// Whether the name has more than [`SHORT_WORDS`] words.
    #[inline(always)]
    fn is_long(&self) -> bool {
        self.name_len > 8 * SHORT_WORDS
    }

    /// Compares the name with one in lower case. Returns what the other one's sum, unfolded, lacks for
    /// that of the name as it is; `None`: it is another name.
    #[inline(always)]
    fn compare(&self, words: &[u64; WORDS]) -> Option<u64> {
        let differs = |index: usize| words[WORDS - 1 - index] != self.name[index].to_le();
        // The tag has the length: what is not there is not there in both.
        if (0..SHORT_WORDS).any(differs) || self.is_long() && (SHORT_WORDS..WORDS).any(differs) {
            self.compare_in_lower_case(words)
        } else {
            Some(0)
        }
    }

    #[inline(always)]
    fn compare_in_lower_case(&self, words: &[u64; WORDS]) -> Option<u64> {
        /// A multiple of 65535, which in ones' complement is 0.
        const NOTHING: u64 = 8 * 0xffff_ffff;
        let mut differ = 0;
        let mut sum = NOTHING;
        for index in 0..WORDS {
            let word = words[WORDS - 1 - index];
            differ |= word ^ lower_case(self.name[index].to_le());
            let more = word.to_le() ^ self.name[index];
            sum = sum - (more & 0xffff_ffff) - (more >> 32);
        }
        (differ == 0).then(|| shift_odd64(sum, self.name_len & 1 == 1))
    }

    /// Writes the name so that it ends at a place. Before it there are zeros, to be written over.
    #[inline(always)]
    fn write(&self, end: *mut u8) {
        for index in 0..SHORT_WORDS {
            write!(end, -8 * (index as isize + 1), self.name[index]);
        }
        if self.is_long() {
            for index in SHORT_WORDS..WORDS {
                write!(end, -8 * (index as isize + 1), self.name[index]);
            }
        }
    }
}

/// What the reply is made of.
struct Reply<F: Family> {
    slot: &'static NameSlot,
    answer: &'static InlineAnswer<F::Addresses>,
    tail: &'static Tail,
    /// Octets of the tail, without OPT.
    tail_len: usize,
    /// What the sum of the name in the slot lacks.
    case_sum: u64,
    /// This CPU's count of answers, which turns the rotation.
    hits: *mut u64,
}

/// What became of a packet. Numbers, so that no more than that goes from hand to hand.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// It is a reply now.
    Answered,
    /// It asks for a name that is in no zone of ours. That is usual as well, and needs no second look.
    Outside,
    /// It is not usual, or its answer is not.
    Unusual,
    /// It was changed and cannot be completed: an error of this program.
    Broken,
}

/// Answers a query of the usual kind; leaves all else as it is.
#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext, packet: Window) -> Outcome {
    let Some(start) = packet.at(0, question::<V4>()) else {
        return Outcome::Unusual;
    };
    if V4::is_ours(start) {
        return answer_over::<V4>(ctx, packet);
    }
    // Not as an offset of the other: nothing is to be read ahead for this.
    match packet.behind(0, 0, question::<V6>()) {
        Some(start) if V6::is_ours(start) => answer_over::<V6>(ctx, packet),
        _ => Outcome::Unusual,
    }
}

/// Answers a query over this version of IP.
#[inline(always)]
fn answer_over<N: Usual>(ctx: &XdpContext, packet: Window) -> Outcome {
    let additional = packet
        .at(dns::<N>(), HEADER_LEN)
        .and_then(|dns| additional_count(read!(dns, 2, u64), read!(dns, 10, u16)));
    match additional {
        Some(0) => answer_with::<N, 0>(ctx, packet),
        Some(_) => answer_with::<N, OPT_LEN>(ctx, packet),
        None => Outcome::Unusual,
    }
}

/// Answers a query with an OPT record of so many octets, or none.
#[inline(always)]
fn answer_with<N: Usual, const OPT: usize>(ctx: &XdpContext, packet: Window) -> Outcome {
    let Some((query, type_class)) = parse::<N, OPT>(packet) else {
        return Outcome::Unusual;
    };
    let Some(start) = packet.at(0, question::<N>()) else {
        return Outcome::Unusual;
    };
    if !N::is_right(start, packet.len()) {
        return Outcome::Unusual;
    }
    if type_class == A::QUESTION {
        return answer_of::<N, OPT, A>(ctx, &query);
    }
    // In this order, as one is asked more than the other.
    if opaque(type_class.into()) == u64::from(Aaaa::QUESTION) {
        return answer_of::<N, OPT, Aaaa>(ctx, &query);
    }
    Outcome::Unusual
}

/// Answers a query for records of this type.
#[inline(always)]
fn answer_of<N: Usual, const OPT: usize, F: Family>(ctx: &XdpContext, query: &Query) -> Outcome {
    let reply = match find::<F>(query) {
        Ok(reply) => reply,
        Err(outcome) => return outcome,
    };
    // The query's OPT makes room for ours.
    let growth = guess::<F>(usize::from(reply.answer.len) + reply.tail_len);
    if growth > MAX_HEAD_GROWTH || reply.tail_len + OPT < SHORTEST_TAIL {
        return Outcome::Unusual;
    }
    // SAFETY: the context is ours; packet pointers are made anew afterwards.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(growth as i32)) } != 0 {
        return Outcome::Unusual;
    }
    match write::<N, OPT, F>(Window::new(ctx), query, &reply, growth) {
        Some(()) => Outcome::Answered,
        None => Outcome::Broken,
    }
}

/// The growth. With very many names it is guessed to be that of the last answer: where that is right, the
/// processor knows where the packet will begin, and goes on writing it, before memory has said what the
/// name's answer is. Where it is wrong, that is a branch mispredicted: most services have as many addresses.
#[inline(always)]
fn guess<F: Family>(growth: usize) -> usize {
    if setting!(name_homes) < FAR_HOMES {
        return growth;
    }
    let Some(last) = value_at!(GROWTH, [u64; 2], *zero()) else {
        return growth;
    };
    // SAFETY: one of the two fields of this CPU's map value.
    let last = unsafe { (&raw const *last).cast_mut().cast::<u64>().add(F::HITS) };
    // SAFETY: as above.
    let guess = unsafe { *last };
    // The compiler must not see that they are the same: it would do without the guess.
    let guessed = opaque(guess) as usize;
    if opaque(growth as u64) == guess {
        return guessed;
    }
    // SAFETY: as above.
    unsafe { *last = growth as u64 };
    growth
}

/// Reads the message, if it may be a query of the usual kind. Returns it with type and class, as they
/// lie in the packet.
#[inline(always)]
fn parse<N: Usual, const OPT: usize>(packet: Window) -> Option<(Query, u32)> {
    // As in `query::parse`: a guess which a wrong one does not survive.
    let shortest = question::<N>() + SHORTEST_NAME + TYPE_CLASS_LEN + OPT;
    let more = opaque(packet.len().wrapping_sub(shortest) as u64) as usize;
    if more > LONGEST_NAME - SHORTEST_NAME {
        return None;
    }
    // Older verifiers forget what a number that lies on the stack was compared with.
    let name_len = bounded::<NAME_LIMIT>(SHORTEST_NAME + more);
    let end = packet.behind(name_len, question::<N>(), TYPE_CLASS_LEN + OPT)?;
    let mask = NAME_MASK.as_ptr().wrapping_add(name_len);
    // Before the name there are headers.
    let mut name = [0; WORDS];
    let mut hash = NameHash::default();
    let mut take = |index: usize| {
        name[index] = read!(end, -8 * (index as isize + 1), u64)
            & read!(mask, LONGEST_NAME - 8 * (index + 1), u64);
        hash = hash.add(name[index].to_le(), setting!(multipliers[index]));
    };
    for index in 0..SHORT_WORDS {
        take(index);
    }
    if name_len > 8 * SHORT_WORDS {
        for index in SHORT_WORDS..WORDS {
            take(index);
        }
    }
    let home = Bucket::home(hash)?;
    let dnssec_ok = if OPT == 0 {
        0
    } else {
        let word = read!(end, TYPE_CLASS_LEN, u64);
        let options_len = read!(end, TYPE_CLASS_LEN + 9, u16);
        bare_opt_of_version_0(word, options_len)?.dnssec_ok as usize
    };
    let query = Query {
        name_len,
        name,
        hash,
        home,
        dnssec_ok,
    };
    Some((query, read!(end, 0, u32)))
}

/// Finds what answers it, if that is usual, too.
#[inline(always)]
fn find<F: Family>(query: &Query) -> Result<Reply<F>, Outcome> {
    let state = value_at!(STATE, State, *zero()).ok_or(Outcome::Unusual)?;
    let generation = shared!(state.generation);
    if !State::is_valid(shared!(state.valid_until), ticks()) {
        return Err(Outcome::Unusual);
    }
    match query.home.find(query.hash, query.name_len) {
        Some((_, slot)) => at(query, slot, generation).ok_or(Outcome::Unusual),
        None if generation == 0 || may_end_ours(query.name[0]) => Err(Outcome::Unusual),
        None => Err(Outcome::Outside),
    }
}

/// What answers it by a slot that may be its.
#[inline(always)]
fn at<F: Family>(query: &Query, slot: &'static NameSlot, generation: u64) -> Option<Reply<F>> {
    let case_sum = query.compare(inline_words(slot))?;
    // There is none for the target of a node.
    let (pointer, answer) = newest(F::service(slot)?);
    if pointer > Cell::last_version(generation) || pointer & Cell::INLINE == 0 {
        return None;
    }
    let tail = value_at!(TAILS, Tail, slot.tail)?;
    let hits = value_at!(SERVICE_HITS, ServiceHits, slot.target)?;
    Some(Reply {
        slot,
        answer,
        tail,
        tail_len: usize::from(tail.header.len),
        case_sum,
        // SAFETY: one of the two fields of this CPU's map value.
        hits: unsafe { (&raw const *hits).cast_mut().cast::<u64>().add(F::HITS) },
    })
}

/// The newer of two versions: pointer, and the answer that may be beside it. Unless it is newer than a
/// generation, it is the one that this generation has, see [`Cell::select`].
#[inline(always)]
fn newest<Addresses>(
    cell: &'static ServiceCell<Addresses>,
) -> (u64, &'static InlineAnswer<Addresses>) {
    let [first, second] = &cell.pointers.versions;
    let first = shared!(*first);
    // Without a branch: both are below 2^63.
    let difference = opaque(first.wrapping_sub(shared!(*second)));
    let is_second = (difference.cast_signed() >> 63).cast_unsigned();
    const { assert!(ServiceCell::<Addresses>::STRIDE.is_power_of_two()) };
    let offset = is_second as usize & ServiceCell::<Addresses>::STRIDE;
    (
        first.wrapping_sub(difference & is_second),
        neighbour(&cell.first, offset),
    )
}

/// Writes the reply. What it was read from lies `growth` octets further on.
#[inline(always)]
fn write<N: Usual, const OPT: usize, F: Family>(
    packet: Window,
    query: &Query,
    reply: &Reply<F>,
    growth: usize,
) -> Option<()> {
    let answer = reply.answer;
    let name_len = query.name_len;
    let udp_len = (UDP_LEN + HEADER_LEN + name_len + TYPE_CLASS_LEN + growth + OPT) as u16;

    // What follows is written over what is read from first.
    let from = packet.behind(growth, 0, dns::<N>() + 4)?;
    let to = packet.at(0, question::<N>())?;
    // SAFETY: more than these headers is at both places.
    let (turned, headers_sum) = unsafe {
        let addresses = N::turn_frame(from, to, udp_len, growth);
        let turned = Turned::read(from.wrapping_add(dns::<N>() - UDP_LEN), AUTHORITATIVE);
        (turned, addresses + turned.sum())
    };

    // From the end on: each part starts with what may be too much of the one behind it.
    write_tail::<N, OPT>(packet, name_len + growth, query, reply)?;
    let end = packet.behind(
        name_len,
        question::<N>(),
        TYPE_CLASS_LEN + F::RECORD_LEN + SHORTEST_TAIL,
    )?;
    write_records::<F>(packet, end.wrapping_add(TYPE_CLASS_LEN), reply)?;
    write!(end, 0, F::QUESTION);
    query.write(end);

    let sums_index = if OPT == 0 { 0 } else { 1 + query.dnssec_ok };
    let sums = (&raw const reply.slot.sums).cast::<u16>();
    let names_sum = read!(sums, sums_index * size_of::<u16>(), u16);
    let sums = (&raw const answer.sums).cast::<u16>();
    let answer_sum = read!(sums, (name_len & 1) * size_of::<u16>(), u16);
    let sum = headers_sum + u64::from(names_sum) + u64::from(answer_sum) + reply.case_sum;
    let counts = [
        answer.counts,
        reply.tail.header.counts + counts(0, u16::from(OPT != 0)),
    ];
    // SAFETY: the headers are there.
    unsafe { turned.write(to.wrapping_add(dns::<N>() - UDP_LEN), udp_len, counts, sum) };
    Some(())
}

/// Writes all address records, from the one whose turn it is.
#[inline(always)]
fn write_records<F: Family>(packet: Window, records: *mut u8, reply: &Reply<F>) -> Option<()> {
    const { assert!(F::MOST <= 1 << TURN_BITS) };
    let answer = reply.answer;
    let turns = u64::from(answer.turns);
    let turn = next_turn(reply.hits);
    let turn = if turns == u64::from(MAX_TURNS) {
        turn & u64::from(MAX_TURNS - 1)
    } else {
        turn.checked_rem(turns).unwrap_or(0)
    };
    let first = answer.first >> ((turn as u32 * TURN_BITS) & (u32::BITS - 1));
    let first = first as usize & ((1 << TURN_BITS) - 1);
    let addresses = (&raw const answer.addresses)
        .cast::<u8>()
        .wrapping_add(first * F::ADDRESS_LEN);
    // As it lies in the packet.
    let count = usize::from(read!(&raw const answer.counts, 3, u8));
    let ttl = answer.ttl.to_le();
    let start = (F::RECORD_START | u64::from(ttl) << 48).to_le();
    let middle = (ttl >> 16 | (F::ADDRESS_LEN as u32) << 24).to_le();
    for index in 0..F::MOST {
        if index > 0 && index >= count {
            break;
        }
        let to = records.wrapping_add(index * F::RECORD_LEN);
        if (index + 1) * F::RECORD_LEN > F::RECORD_LEN + SHORTEST_TAIL {
            packet.holds(to, F::RECORD_LEN)?;
        }
        write!(to, 0, start);
        write!(to, 8, middle);
        let address = index * F::ADDRESS_LEN;
        if F::ADDRESS_LEN == 4 {
            write!(to, RECORD_HEAD_LEN, read!(addresses, address, u32));
        } else {
            write!(to, RECORD_HEAD_LEN, read!(addresses, address, u64));
            write!(to, RECORD_HEAD_LEN + 8, read!(addresses, address + 8, u64));
        }
    }
    Some(())
}

/// Writes tail and OPT behind `variable` octets of name and records.
#[inline(always)]
fn write_tail<N: Usual, const OPT: usize>(
    packet: Window,
    variable: usize,
    query: &Query,
    reply: &Reply<impl Family>,
) -> Option<()> {
    const LONGEST: usize = MAX_HEAD_GROWTH - A_RECORD_LEN + OPT_LEN;
    const { assert!(SHORTEST_TAIL > CHUNK && LONGEST <= 6 * CHUNK) };
    let tail = &reply.tail.bytes;
    let len = reply.tail_len + OPT;
    let last = if len <= 2 * CHUNK {
        write_chunks::<N, OPT, 2>(packet, variable, tail)
    } else if len <= 3 * CHUNK {
        write_chunks::<N, OPT, 3>(packet, variable, tail)
    } else if len <= 4 * CHUNK {
        write_chunks::<N, OPT, 4>(packet, variable, tail)
    } else if len <= 5 * CHUNK {
        write_chunks::<N, OPT, 5>(packet, variable, tail)
    } else {
        write_chunks::<N, OPT, 6>(packet, variable, tail)
    }?;
    if OPT != 0 {
        // The flags of OPT.
        write!(last, CHUNK - OPT_LEN + 7, (query.dnssec_ok << 7) as u8);
    }
    Some(())
}

/// Writes the last `CHUNKS` chunks of tail and OPT. Returns where the last one of them is.
#[inline(always)]
fn write_chunks<N: Usual, const OPT: usize, const CHUNKS: usize>(
    packet: Window,
    variable: usize,
    tail: &[u8; TAIL_LEN + TAIL_OPT_LEN],
) -> Option<*mut u8> {
    const { assert!(CHUNKS * CHUNK <= TAIL_LEN && OPT <= TAIL_OPT_LEN) };
    // As long as name, records and tail, less what is certain to be there of them.
    let before = bounded::<256>(variable.wrapping_sub((CHUNKS - 1) * CHUNK));
    let offset = question::<N>() + TYPE_CLASS_LEN + OPT - CHUNK;
    let to = packet.behind(before, offset, CHUNKS * CHUNK)?;
    let from = (&raw const *tail)
        .cast::<u8>()
        .wrapping_add(TAIL_LEN + OPT - CHUNKS * CHUNK);
    for word in 0..CHUNKS * CHUNK / 8 {
        write!(to, word * 8, read!(from, word * 8, u64));
    }
    Some(to.wrapping_add((CHUNKS - 1) * CHUNK))
}
