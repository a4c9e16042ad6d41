//! From a query to the answer of the current generation.

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, programs::XdpContext};
use failover_common::{
    counters::{Counter, ServiceHits},
    layout::{A_RECORD_LEN, AAAA_RECORD_LEN, AnswerHeader, Cell, Follow, NameSlot, Tail},
    question::MAX_NAME_WORDS,
};

use crate::{
    frame::Frame,
    maps::{
        ANSWERS, LARGE_ANSWERS, LONG_NAMES, NAMES, SERVICE_HITS, SERVICES, STATE, TAILS, setting,
        shared,
    },
    query::{Query, is_named},
};

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// Longest chain of the name table; the writer keeps to it.
const MAX_CHAIN: usize = 16;

/// Where the parts of a reply lie.
pub(crate) struct Found {
    /// Index of the answer, with [`Cell::LARGE`]. The answer itself is looked up again where
    /// it is copied: older verifiers lose track of which of two kinds of pointer they hold.
    pub answer: u32,
    /// How it is sent.
    pub header: AnswerHeader,
    /// Octets of one record.
    pub record_len: usize,
    /// What follows the answer, unless `header.follow` is [`Follow::Nothing`].
    pub tail: &'static Tail,
    /// This CPU's count of answers, which turns the rotation.
    pub hits: *mut u64,
}

/// Finds what answers the query.
#[inline(always)]
pub(crate) fn find(ctx: &XdpContext, frame: &Frame, query: &Query) -> Result<Found, Counter> {
    let state = STATE.get(0).ok_or(Counter::PassedStale)?;
    let generation = shared!(state.generation);
    if generation == 0 {
        return Err(Counter::PassedStale);
    }
    let slot = find_name(ctx, frame, query, generation)?;
    let valid_until = shared!(state.valid_until);
    // SAFETY: a helper without arguments.
    if valid_until != u64::MAX && unsafe { bpf_ktime_get_coarse_ns() } > valid_until {
        return Err(Counter::PassedStale);
    }
    let service = SERVICES.get(slot.service).ok_or(Counter::PassedName)?;
    let hits = SERVICE_HITS
        .get_ptr_mut(slot.service)
        .ok_or(Counter::PassedName)?;
    let (cell, hits, record_len) = match query.qtype {
        // SAFETY: fields of this CPU's map value.
        TYPE_A => (&service.a, unsafe { &raw mut (*hits).a }, A_RECORD_LEN),
        // SAFETY: as above.
        TYPE_AAAA => (
            &service.aaaa,
            unsafe { &raw mut (*hits).aaaa },
            AAAA_RECORD_LEN,
        ),
        _ => return Err(Counter::PassedType),
    };
    let index = select(cell, generation)?;
    let header = if index & Cell::LARGE == 0 {
        ANSWERS.get(index).ok_or(Counter::PassedOvertaken)?.header
    } else {
        LARGE_ANSWERS
            .get(index & !Cell::LARGE)
            .ok_or(Counter::PassedOvertaken)?
            .header
    };
    // The negative tail lies behind the positive one.
    let tail = slot.tail + u32::from(header.follow == Follow::Soa as u8);
    let tail = TAILS.get(tail).ok_or(Counter::PassedOvertaken)?;
    Ok(Found {
        answer: index,
        header,
        record_len,
        tail,
        hits,
    })
}

/// The slot of the query's name, if `generation` has it.
#[inline(always)]
fn find_name(
    ctx: &XdpContext,
    frame: &Frame,
    query: &Query,
    generation: u64,
) -> Result<&'static NameSlot, Counter> {
    let slot = find_tag(query, generation).ok_or(Counter::PassedName)?;
    if is_in_slot(ctx, frame, query, slot) {
        Ok(slot)
    } else {
        Err(Counter::PassedName)
    }
}

/// The slot whose tag is the query's. The writer sees to it that no two names of a chain
/// share a tag.
#[inline(always)]
fn find_tag(query: &Query, generation: u64) -> Option<&'static NameSlot> {
    let tag = query.hash.tag(query.name_len as u8);
    let mut index = query.hash.home(setting!(name_mask));
    for _ in 0..MAX_CHAIN {
        let slot = NAMES.get(index)?;
        if slot.tag == tag && NameSlot::is_alive(shared!(slot.born), shared!(slot.died), generation)
        {
            return Some(slot);
        }
        index = shared!(slot.next);
        if index == 0 {
            break;
        }
    }
    None
}

#[inline(always)]
fn is_in_slot(ctx: &XdpContext, frame: &Frame, query: &Query, slot: &NameSlot) -> bool {
    if query.name_len <= NameSlot::INLINE {
        return is_named(ctx, frame, query, words::<_, 4>(&slot.name));
    }
    match LONG_NAMES.get(words::<_, 4>(&slot.name)[0] as u32) {
        Some(name) => is_named(ctx, frame, query, words::<_, MAX_NAME_WORDS>(&name.name)),
        None => false,
    }
}

/// The octets of a name as words.
#[inline(always)]
fn words<const BYTES: usize, const WORDS: usize>(name: &[u8; BYTES]) -> &[u64; WORDS] {
    const { assert!(BYTES == WORDS * 8) };
    // SAFETY: as long, and aligned: names lie at multiples of 8 in values that are.
    unsafe { &*name.as_ptr().cast() }
}

/// The index of the answer that belongs to `generation`.
///
/// The writer overwrites the older version when it prepares the next generation. A reader
/// that was overtaken by two publications looks again, once.
#[inline(always)]
fn select(cell: &Cell, generation: u64) -> Result<u32, Counter> {
    let version = Cell::select(
        [shared!(cell.versions[0]), shared!(cell.versions[1])],
        generation,
    );
    if version != 0 {
        return Ok(Cell::index(version));
    }
    let generation = match STATE.get(0) {
        Some(state) => shared!(state.generation),
        None => 0,
    };
    match Cell::select(
        [shared!(cell.versions[0]), shared!(cell.versions[1])],
        generation,
    ) {
        0 => Err(Counter::PassedOvertaken),
        version => Ok(Cell::index(version)),
    }
}

/// Counts an answer and returns how many this CPU has given before.
#[inline(always)]
pub(crate) fn next_turn(hits: *mut u64) -> u64 {
    // SAFETY: a field of this CPU's value of `SERVICE_HITS`, see [`find`].
    unsafe {
        let turn = *hits;
        *hits = turn + 1;
        turn
    }
}

const _: () = assert!(size_of::<ServiceHits>() == 16);
