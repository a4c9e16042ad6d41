//! From a query to the answer of the current generation.

use aya_ebpf::programs::XdpContext;
use failover_common::{
    counters::{Counter, ServiceHits},
    layout::{
        A_RECORD_LEN, AAAA_RECORD_LEN, Cell, Follow, NO_ADDRESSES, NO_TAIL, NameBucket, NameSlot,
        Node, ServiceCell, State, Tail,
    },
    question::{MAX_NAME_WORDS, NameHash},
};

use crate::{
    frame::Frame,
    maps::{
        ANSWERS, LARGE_ANSWERS, LONG_NAMES, NAMES, SERVICE_HITS, SERVICES_A, SERVICES_AAAA, STATE,
        TAILS, setting, shared,
    },
    nodes,
    packet::{self, Noise, opaque},
    query::{Name, Query, is_named},
};

pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_AAAA: u16 = 28;
/// Where the parts of a reply lie.
pub(crate) struct Found {
    /// Index of the answer, with [`Cell::LARGE`]. The answer itself is looked up again where
    /// it is copied: older verifiers lose track of which of two kinds of pointer they hold.
    pub answer: u32,
    /// Flags of the reply in network byte order, without RD.
    pub flags: u16,
    /// How many address records are sent.
    pub sent: usize,
    /// Octets of one address record.
    pub record_len: usize,
    /// What follows them.
    pub tail: &'static Tail,
    /// This CPU's count of answers, which turns the rotation.
    pub hits: *mut u64,
}

/// What is at the name of a query.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Index of the service whose addresses are asked for; [`Node::NONE`]: a tail is the reply.
    pub service: u32,
    /// Index of the tail of these addresses, or of that reply.
    pub tail: u32,
    /// Flags of that reply.
    pub flags: u16,
}

/// Indices and numbers of a reply.
struct Choice {
    answer: u32,
    flags: u16,
    sent: u8,
    tail: u32,
    /// Where it is counted.
    counted: u32,
}

/// Finds what answers the query.
#[inline(always)]
pub(crate) fn find(ctx: &XdpContext, frame: &Frame, query: &Query) -> Result<Found, Counter> {
    let state = STATE.get(0).ok_or(Counter::PassedStale)?;
    let generation = shared!(state.generation);
    if generation == 0 {
        return Err(Counter::PassedStale);
    }
    let noise = frame.noise;
    let place = find_place(ctx, frame, query, generation)?;
    // The ways here have taught the verifier what no longer matters.
    let place = Place {
        service: noise.forget(u64::from(place.service)) as u32,
        tail: noise.forget(u64::from(place.tail)) as u32,
        flags: noise.forget(u64::from(place.flags)) as u16,
    };
    if !State::is_valid(shared!(state.valid_until), packet::ticks()) {
        return Err(Counter::PassedStale);
    }
    let is_v6 = query.qtype == TYPE_AAAA;
    let choice = if place.service == Node::NONE {
        Choice {
            answer: NO_ADDRESSES,
            flags: place.flags,
            sent: 0,
            tail: place.tail,
            counted: setting!(services),
        }
    } else {
        choose_addresses(&place, is_v6, generation)?
    };
    let is_v6 = noise.bound::<1>(usize::from(is_v6));
    let hits = SERVICE_HITS
        .get_ptr_mut(noise.forget(u64::from(choice.counted)) as u32)
        .ok_or(Counter::PassedName)?;
    let tail = noise.forget(u64::from(choice.tail)) as u32;
    Ok(Found {
        answer: noise.forget(u64::from(choice.answer)) as u32,
        flags: noise.forget(u64::from(choice.flags)) as u16,
        sent: noise.bound::<0x7f>(usize::from(choice.sent)),
        record_len: A_RECORD_LEN + is_v6 * (AAAA_RECORD_LEN - A_RECORD_LEN),
        tail: TAILS.get(tail).ok_or(Counter::PassedOvertaken)?,
        // SAFETY: one of the two fields of this CPU's map value.
        hits: unsafe { hits.cast::<u64>().add(is_v6) },
    })
}

/// What is at the name of the query. Only addresses at plain names of services are found
/// here; all else is the business of [`nodes`].
#[inline(always)]
fn find_place(
    ctx: &XdpContext,
    frame: &Frame,
    query: &Query,
    generation: u64,
) -> Result<Place, Counter> {
    let slot = find_name(ctx, frame.noise, &query.name);
    let index = match slot {
        Some((_, slot))
            if slot.target & NameSlot::NODE == 0
                && (query.qtype == TYPE_A || query.qtype == TYPE_AAAA) =>
        {
            return Ok(Place {
                service: slot.target,
                tail: slot.tail,
                flags: 0,
            });
        }
        Some((index, _)) => index,
        None => Node::NONE,
    };
    nodes::find(ctx, frame, query, index, generation)
}

/// The addresses of a service.
#[inline(always)]
fn choose_addresses(place: &Place, is_v6: bool, generation: u64) -> Result<Choice, Counter> {
    let index = if is_v6 {
        select_version(SERVICES_AAAA.get(place.service), generation)?
    } else {
        select_version(SERVICES_A.get(place.service), generation)?
    };
    let header = if index & Cell::LARGE == 0 {
        ANSWERS.get(index).ok_or(Counter::PassedOvertaken)?.header
    } else {
        LARGE_ANSWERS
            .get(index & !Cell::LARGE)
            .ok_or(Counter::PassedOvertaken)?
            .header
    };
    let tail = if header.follow == Follow::NameServers as u8 {
        place.tail
    } else if header.follow == Follow::Soa as u8 {
        nodes::denial_beside(place.tail, generation)?
    } else {
        NO_TAIL
    };
    Ok(Choice {
        answer: index,
        flags: header.flags,
        sent: header.sent,
        tail,
        counted: place.service,
    })
}

/// The index of the answer of a service.
#[inline(always)]
fn select_version<Addresses>(
    cell: Option<&ServiceCell<Addresses>>,
    generation: u64,
) -> Result<u32, Counter> {
    let [first, second] = &cell.ok_or(Counter::PassedName)?.pointers.versions;
    select([first, second], generation)
}

/// The slot of a name and its index, if the table has it.
#[inline(always)]
pub(crate) fn find_name(
    ctx: &XdpContext,
    noise: Noise,
    name: &Name,
) -> Option<(u32, &'static NameSlot)> {
    let (index, slot) = Bucket::home(name.hash)?.find(name.hash, name.len)?;
    is_in_slot(ctx, noise, name, slot).then_some((index, slot))
}

/// A bucket of names, and what has been read of it: the memory that it is in may be far away.
#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    index: u32,
    first: &'static NameSlot,
    /// The tag of the first slot.
    tag: u64,
}

impl Bucket {
    /// Where a name with this hash is looked for first.
    #[inline(always)]
    pub(crate) fn home(hash: NameHash) -> Option<Self> {
        Self::read(hash.home(setting!(name_homes)))
    }

    #[inline(always)]
    fn read(index: u32) -> Option<Self> {
        let [first, _] = &NAMES.get(index)?.slots;
        Some(Self {
            index,
            first,
            tag: shared!(first.tag).into(),
        })
    }

    /// The slot, and its index, here or in what is chained to it, whose tag is that of the name with
    /// this hash and length. The writer sees to it that no two names of a chain share a tag.
    #[inline(always)]
    pub(crate) fn find(mut self, hash: NameHash, len: usize) -> Option<(u32, &'static NameSlot)> {
        const SLOT_LEN: usize = size_of::<NameSlot>();
        // 64 bits, or it would be made 32 before each use.
        let tag = opaque(hash.tag(len as u8).into());
        for _ in 0..NameBucket::MAX_CHAIN {
            // 1 if it is not the first: without a branch.
            let other = opaque((self.tag ^ tag).wrapping_neg()) >> 63;
            let slot = neighbour(self.first, other as usize * SLOT_LEN);
            if u64::from(shared!(slot.tag)) == tag {
                let index = self.index * NameBucket::SLOTS as u32 + other as u32;
                return Some((index, slot));
            }
            match self.first.next {
                0 => break,
                next => self = Self::read(next)?,
            }
        }
        None
    }
}

/// What lies `offset` octets behind a part of a map value: another of its kind.
#[inline(always)]
pub(crate) fn neighbour<T>(first: &'static T, offset: usize) -> &'static T {
    let first: *const T = first;
    // SAFETY: the verifier sees to it that it is in the same map value, whose parts are all alike.
    unsafe { &*first.wrapping_byte_add(offset) }
}

/// The slot with this index.
#[inline(always)]
pub(crate) fn slot(index: u32) -> Option<&'static NameSlot> {
    let [first, second] = &NAMES.get(index / NameBucket::SLOTS as u32)?.slots;
    Some(if index & 1 == 0 { first } else { second })
}

#[inline(always)]
fn is_in_slot(ctx: &XdpContext, noise: Noise, name: &Name, slot: &NameSlot) -> bool {
    if name.len <= NameSlot::INLINE {
        return is_named(ctx, noise, name, inline_words(slot));
    }
    match LONG_NAMES.get(inline_words(slot)[0] as u32) {
        Some(long) => is_named(ctx, noise, name, words::<_, MAX_NAME_WORDS>(&long.name)),
        None => false,
    }
}

/// The words of the name in a slot.
#[inline(always)]
pub(crate) fn inline_words(slot: &NameSlot) -> &[u64; NameSlot::INLINE / 8] {
    words(&slot.name)
}

/// The octets of a name as words.
#[inline(always)]
fn words<const BYTES: usize, const WORDS: usize>(name: &[u8; BYTES]) -> &[u64; WORDS] {
    const { assert!(BYTES == WORDS * 8) };
    // SAFETY: as long, and aligned: names lie at multiples of 8 in values that are.
    unsafe { &*name.as_ptr().cast() }
}

/// The index of the answer that belongs to `generation`, of two versions of a pointer.
///
/// The writer overwrites the older version when it prepares the next generation. A reader
/// that was overtaken by two publications looks again, once.
#[inline(always)]
pub(crate) fn select([first, second]: [&u64; 2], generation: u64) -> Result<u32, Counter> {
    let version = Cell::select([shared!(*first), shared!(*second)], generation);
    if version != 0 {
        return Ok(Cell::index(version));
    }
    let generation = match STATE.get(0) {
        Some(state) => shared!(state.generation),
        None => 0,
    };
    match Cell::select([shared!(*first), shared!(*second)], generation) {
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
