//! Values of the BPF maps.
//!
//! **Concurrency.** One writer (the daemon's data plane module) and many readers (the XDP
//! program on every CPU). A reader takes the [`State::generation`] once per packet and uses
//! only what belongs to it. The writer prepares everything for generation g + 1 in places
//! no reader looks at: free answers, free tails, the older version of a [`Cell`] or a
//! [`ServiceCell`]. Then it stores `generation = g + 1`: all of it becomes
//! visible in one step. What generation g + 1 no longer uses is written again only after
//! every program run that may have seen generation g has ended. Names are there before the first
//! generation, and stay.

/// Sizes of the two classes of answers: small ones are cheap to keep, large ones rare.
pub mod size {
    /// Addresses in a small answer.
    pub const SMALL_RECORDS: usize = 8;
    /// Octets of records in a small answer.
    pub const SMALL_ANSWER: usize = 128;
    /// Addresses in a large answer.
    pub const LARGE_RECORDS: usize = 64;
    /// Octets of records in a large answer.
    pub const LARGE_ANSWER: usize = LARGE_RECORDS * super::AAAA_RECORD_LEN;
    /// Octets of addresses beside a pointer: four of IPv4, of which three come twice.
    pub const A_ADDRESSES: usize = 28;
    /// The same of IPv6: three, of which two come twice, and what fills the cache lines.
    pub const AAAA_ADDRESSES: usize = 92;
}

/// Octets of an A record owned by the question's name: pointer, type, class, TTL, length, address.
pub const A_RECORD_LEN: usize = 16;
/// Octets of an AAAA record owned by the question's name.
pub const AAAA_RECORD_LEN: usize = 28;

/// Most octets of a [`Tail`]'s records: a dozen name servers with their addresses.
pub const TAIL_LEN: usize = 464;
/// Octets behind them, for an OPT record.
pub const TAIL_OPT_LEN: usize = 16;

/// One element: what all readers share.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct State {
    /// Number of the published snapshot; 0: nothing published.
    pub generation: u64,
    /// Until when the snapshot may be served, in the kernel's ticks (jiffies): the controller's
    /// heartbeat. `u64::MAX`: for ever; 0: there was none yet.
    pub valid_until: u64,
    /// [`crate::LAYOUT_VERSION`] of the writer.
    pub layout: u64,
    /// Seconds since 1970 at the last heartbeat, modulo 2^32: the time in server cookies.
    pub time: u64,
    /// A cache line of its own.
    pub reserved: [u64; 4],
}

/// Two versions of a pointer, each `generation << 26 | index`; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cell {
    /// The versions, in no particular order.
    pub versions: [u64; 2],
}

impl State {
    /// Whether the snapshot may still be served at `now`, in ticks.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid(valid_until: u64, now: u64) -> bool {
        now <= valid_until
    }
}

impl Cell {
    /// Bits of a version below its generation.
    pub const INDEX_BITS: u32 = 26;
    /// Set in a pointer of a [`ServiceCell`] that has its answer beside it.
    pub const INLINE: u64 = 1 << (Self::INDEX_BITS - 1);
    /// Set in the index of a large answer.
    pub const LARGE: u32 = 1 << (Self::INDEX_BITS - 2);
    const INDEX_MASK: u64 = Self::INLINE - 1;

    /// A version for `generation` (below 2^38) that points to `index`.
    #[inline(always)]
    #[must_use]
    pub const fn version(generation: u64, index: u32) -> u64 {
        generation << Self::INDEX_BITS | index as u64 & Self::INDEX_MASK
    }

    /// No version of `generation` or an older one is greater.
    #[inline(always)]
    #[must_use]
    pub const fn last_version(generation: u64) -> u64 {
        generation << Self::INDEX_BITS | Self::INLINE | Self::INDEX_MASK
    }

    /// The index in a version.
    #[inline(always)]
    #[must_use]
    pub const fn index(version: u64) -> u32 {
        (version & Self::INDEX_MASK) as u32
    }

    /// The newest version that is not newer than `generation`; 0: there is none, or not for
    /// certain.
    ///
    /// The versions are loaded one after the other. When the second publication since
    /// `generation` has replaced one of them, the other one may have been loaded before the
    /// first publication, and be older than the one that is gone.
    #[inline(always)]
    #[must_use]
    pub const fn select(versions: [u64; 2], generation: u64) -> u64 {
        let limit = Self::last_version(generation);
        let preparing = Self::last_version(generation + 1);
        let [a, b] = versions;
        if a > preparing || b > preparing {
            return 0;
        }
        let a = if a <= limit { a } else { 0 };
        let b = if b <= limit { b } else { 0 };
        if a > b { a } else { b }
    }
}

/// One name: 64 octets, one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NameSlot {
    /// [`crate::question::NameHash::tag`] of the name; 0: the slot is free.
    pub tag: u32,
    /// In the first slot of a bucket: the bucket with what else belongs here; 0: none.
    pub next: u32,
    /// Index of its service; with [`NameSlot::NODE`] of its node.
    pub target: u32,
    /// Index of the tail of its service's addresses.
    pub tail: u32,
    /// Of a name of up to [`NameSlot::INLINE`] octets, the folded sum of what all replies with
    /// addresses of its service have in common: the name, as it is here, the whole tail, how many
    /// records the header says that there are in authority and additional section, and the protocol.
    /// Without OPT; with OPT; with OPT and DO.
    pub sums: [u16; 3],
    /// Zero.
    pub reserved: u16,
    /// A name of up to [`NameSlot::INLINE`] octets, lower-cased, with zeros in front; of a longer
    /// one the first word is its index among the long names.
    pub name: [u8; Self::INLINE],
}

impl NameSlot {
    /// Longest name that is kept in its slot.
    pub const INLINE: usize = 40;
    /// Set in the target of a name that is more than the name of a service.
    pub const NODE: u32 = 1 << 31;
    /// A slot that holds nothing.
    pub const FREE: Self = Self {
        tag: 0,
        next: 0,
        target: 0,
        tail: 0,
        sums: [0; 3],
        reserved: 0,
        name: [0; Self::INLINE],
    };
}

/// Where a name is looked for: one of two slots, which are cache lines side by side.
///
/// The first [`crate::settings::Settings::name_homes`] buckets are found by hash; the others hold
/// what finds both slots taken, chained by `next`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NameBucket {
    /// The slots.
    pub slots: [NameSlot; Self::SLOTS],
}

impl NameBucket {
    /// Slots of a bucket.
    pub const SLOTS: usize = 2;
    /// Most buckets of a chain.
    pub const MAX_CHAIN: usize = 6;
    /// A bucket that holds nothing.
    pub const FREE: Self = Self {
        slots: [NameSlot::FREE; Self::SLOTS],
    };
}

/// The words of a name of more than [`NameSlot::INLINE`] octets.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct LongName {
    /// Lower-cased, with zeros in front.
    pub name: [u8; 8 * crate::question::MAX_NAME_WORDS],
}

/// A name that is more than the name of one service: it has static records, or names exist
/// below it, or what is asked of it is for user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Node {
    /// Index of the service whose addresses it has; [`Node::NONE`].
    pub service: u32,
    /// Index of its zone.
    pub zone: u32,
    /// What answers types that are not listed: [`Node::PASS`], [`Node::DENY`] (NODATA), or
    /// index of a tail.
    pub otherwise: u32,
    /// What answers names below it that do not exist: [`Node::PASS`], [`Node::DENY`]
    /// (NXDOMAIN), or the service of the wildcard.
    pub below: u32,
    /// Types, in host byte order; 0: none.
    pub types: [u16; Self::TYPES],
    /// What answers each of them, as `otherwise`.
    pub replies: [u32; Self::TYPES],
}

impl Node {
    /// Types a node has room for.
    pub const TYPES: usize = 8;
    /// No service.
    pub const NONE: u32 = u32::MAX;
    /// User space answers.
    pub const PASS: u32 = u32::MAX;
    /// It does not exist.
    pub const DENY: u32 = u32::MAX - 1;
}

/// One zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ZoneSlot {
    /// Versions of the index of its denial: the tail with its SOA.
    pub denial: Cell,
    /// Where tails for names made from a wildcard would start: that of a name of n octets is
    /// n further on.
    pub tails: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a service answers now to A. Each type has a map of its own: fewer pages that one type
/// needs.
pub type ServiceA = ServiceCell<[u8; size::A_ADDRESSES]>;
/// What a service answers now to AAAA.
pub type ServiceAaaa = ServiceCell<[u8; size::AAAA_ADDRESSES]>;

/// Two versions of an answer. Of A each is in a cache line of its own, the first one with the pointers;
/// of AAAA in two.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ServiceCell<Addresses> {
    /// Pointers to the answers, all below 2^63.
    pub pointers: Cell,
    /// The first version once more, if its pointer says so with [`Cell::INLINE`].
    pub first: InlineAnswer<Addresses>,
    /// Zero.
    pub reserved: [u64; 2],
    /// The second version.
    pub second: InlineAnswer<Addresses>,
}

impl<Addresses> ServiceCell<Addresses> {
    /// How far the second version lies behind the first one.
    pub const STRIDE: usize =
        core::mem::offset_of!(Self, second) - core::mem::offset_of!(Self, first);
}

/// An answer of few addresses, all of which are sent, NOERROR and the name servers behind them: all
/// that most queries need, in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InlineAnswer<Addresses> {
    /// What each record ends with: the addresses, in configured order, and then all but the last once
    /// more. So the records of every turn lie one behind the other.
    pub addresses: Addresses,
    /// TTL of the records, as on the wire.
    pub ttl: u32,
    /// How many records the header of the message says that there are in question and answer section;
    /// see [`counts`].
    pub counts: u32,
    /// Which record comes first, turn by turn: [`TURN_BITS`] bits each, from the lowest bits on, for
    /// [`MAX_TURNS`] turns.
    pub first: u32,
    /// Folded sum of `counts`, the question's type and class, and the records in whatever order:
    /// behind a name of an even number of octets, and of an odd one.
    pub sums: [u16; 2],
    /// Octets of all records.
    pub len: u16,
    /// After how many turns it is the first turn again: 1 to [`MAX_TURNS`].
    pub turns: u16,
}

/// Octets of a record in front of its address.
pub const RECORD_HEAD_LEN: usize = 12;
/// Bits that say which record of an [`InlineAnswer`] comes first: of four at most.
pub const TURN_BITS: u32 = 2;
/// Most turns of an [`InlineAnswer`].
pub const MAX_TURNS: u32 = u32::BITS / TURN_BITS;

/// Index of the answer without addresses.
pub const NO_ADDRESSES: u32 = 0;
/// Index of the tail without records.
pub const NO_TAIL: u32 = 0;

/// What follows the answer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Follow {
    /// Nothing.
    Nothing = 0,
    /// The name's tail: NS set and addresses.
    NameServers = 1,
    /// The zone's denial: SOA.
    Soa = 2,
}

/// How an answer is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AnswerHeader {
    /// The generation that published it.
    pub generation: u64,
    /// Flags of the reply in network byte order, without RD.
    pub flags: u16,
    /// Address records kept.
    pub records: u8,
    /// Address records sent, at most `records`.
    pub sent: u8,
    /// [`Follow`] as a number.
    pub follow: u8,
    /// Zero.
    pub reserved: u8,
    /// Folded sum of all records kept, in whatever order.
    pub sum: u16,
    /// Sum of the weights of all records; at least 1.
    pub weight_total: u32,
    /// How far one query advances in the weights; coprime to `weight_total`.
    pub weight_step: u32,
    /// Zero.
    pub reserved2: [u32; 2],
}

/// The address records of a service for one type, in `BYTES` octets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Answer<const RECORDS: usize, const BYTES: usize> {
    /// How it is sent.
    pub header: AnswerHeader,
    /// The records, each [`A_RECORD_LEN`] or [`AAAA_RECORD_LEN`] octets, as on the wire. Two of
    /// A are in one cache line with the header.
    pub bytes: [u8; BYTES],
    /// Sums of the weights up to and including each record; `u32::MAX` beyond the last.
    pub thresholds: [u32; RECORDS],
}

/// An answer with few addresses.
pub type SmallAnswer = Answer<{ size::SMALL_RECORDS }, { size::SMALL_ANSWER }>;
/// An answer with many addresses.
pub type LargeAnswer = Answer<{ size::LARGE_RECORDS }, { size::LARGE_ANSWER }>;

/// Lengths and sums of a [`Tail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TailHeader {
    /// Octets of all records.
    pub len: u16,
    /// Octets without the additional section; [`TailHeader::TOO_LARGE`]: it must not be left out.
    pub authority_len: u16,
    /// Records in the answer section.
    pub answer_count: u16,
    /// Records in the authority section.
    pub authority_count: u16,
    /// Records in the additional section, without OPT.
    pub additional_count: u16,
    /// Folded sum of what `authority_len` counts.
    pub authority_sum: u16,
    /// Folded sum of all records.
    pub sum: u16,
    /// Flags of a reply without addresses, in network byte order, without RD.
    pub flags: u16,
    /// Index of the zone.
    pub zone: u32,
    /// What each octet of the question's name adds to the sum, through `pointers`.
    pub sum_per_octet: u16,
    /// Where compression pointers lie that the length of the question's name is added to;
    /// [`TailHeader::NO_POINTER`] after the last.
    pub pointers: [u16; Self::POINTERS],
    /// How many records the header of the message says that there are in the authority and the
    /// additional section, without OPT: both numbers as on the wire.
    pub counts: u32,
}

impl TailHeader {
    /// As a length: more than any client takes, so that the query is passed.
    pub const TOO_LARGE: u16 = u16::MAX;
    /// No further pointer.
    pub const NO_POINTER: u16 = u16::MAX;
    /// Names of a SOA record: owner, primary name server, mailbox.
    pub const POINTERS: usize = 3;
    /// No records.
    pub const EMPTY: Self = Self {
        len: 0,
        authority_len: 0,
        answer_count: 0,
        authority_count: 0,
        additional_count: 0,
        authority_sum: 0,
        sum: 0,
        flags: 0,
        zone: 0,
        sum_per_octet: 0,
        pointers: [Self::NO_POINTER; Self::POINTERS],
        counts: 0,
    };
}

impl Default for TailHeader {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// What a reply carries behind the addresses of a service, or all that it carries.
///
/// There are three kinds. Behind addresses: authority and additional section for the names of
/// one zone and one length; compression pointers lead into the question, at a distance from its
/// end, so that one tail serves all names of that length. A zone's denial: the SOA; the length
/// of the name is added to its pointers when it is sent. A static reply: all sections of the
/// answer for one name and type.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tail {
    /// Lengths and sums.
    pub header: TailHeader,
    /// The records, as on the wire, the last of which ends at [`TAIL_LEN`]. Not less than 8 octets
    /// unless empty. Behind those that follow addresses our OPT record without options and DO.
    pub bytes: [u8; TAIL_LEN + TAIL_OPT_LEN],
}

impl Tail {
    /// No records.
    pub const EMPTY: Self = Self {
        header: TailHeader::EMPTY,
        bytes: [0; TAIL_LEN + TAIL_OPT_LEN],
    };

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        let (records, _) = self.bytes.split_at(TAIL_LEN);
        let start = records.len().checked_sub(self.header.len.into());
        start.map_or(&[], |start| &records[start..])
    }
}

/// How many records are in two sections, as the header of a message says it on the wire.
#[inline(always)]
#[must_use]
pub const fn counts(first: u16, second: u16) -> u32 {
    (first.to_be().to_le() as u32 | (second.to_be().to_le() as u32) << 16).to_le()
}

#[cfg(feature = "user")]
mod user {
    use super::{
        Answer, AnswerHeader, Cell, InlineAnswer, LongName, NameBucket, NameSlot, Node,
        ServiceCell, State, Tail, TailHeader, ZoneSlot, size,
    };

    macro_rules! pod {
        ($([$($generic:tt)*] $type:ty;)*) => {
            $(
                // SAFETY: `repr(C)` with integer fields and no padding (asserted by the
                // tests below): every bit pattern is valid.
                unsafe impl<$($generic)*> bytemuck::Zeroable for $type {}
                // SAFETY: as above.
                unsafe impl<$($generic)*> bytemuck::Pod for $type {}
            )*
        };
    }

    pod! {
        [] State; [] Cell; [] NameSlot; [] NameBucket; [] LongName; [] Node; [] ZoneSlot;
        [] ServiceCell<[u8; size::A_ADDRESSES]>; [] InlineAnswer<[u8; size::A_ADDRESSES]>;
        [] ServiceCell<[u8; size::AAAA_ADDRESSES]>; [] InlineAnswer<[u8; size::AAAA_ADDRESSES]>;
        [] AnswerHeader; [] TailHeader; [] Tail;
        [const R: usize, const B: usize] Answer<R, B>;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    #[test]
    fn sizes_without_padding() {
        assert_eq!(size_of::<State>(), 64);
        assert_eq!(size_of::<Cell>(), 16);
        assert_eq!(size_of::<NameSlot>(), 64);
        assert_eq!(size_of::<LongName>(), 256);
        assert_eq!(size_of::<NameBucket>(), 2 * 64);
        assert_eq!(size_of::<InlineAnswer<[u8; 28]>>(), 28 + 20);
        assert_eq!(ServiceA::STRIDE, 64);
        assert_eq!(ServiceAaaa::STRIDE, 128);
        assert_eq!(size_of::<ServiceA>(), 2 * 64);
        assert_eq!(size_of::<ServiceAaaa>(), 4 * 64);
        assert_eq!(size_of::<AnswerHeader>(), 32);
        assert_eq!(size_of::<Node>(), 64);
        assert_eq!(size_of::<ZoneSlot>(), 24);
        assert_eq!(size_of::<TailHeader>(), 32);
        assert_eq!(size_of::<SmallAnswer>(), 32 + 32 + 128);
        assert_eq!(size_of::<LargeAnswer>(), 32 + 256 + 1792);
        assert_eq!(size_of::<Tail>(), 512);
    }

    #[test]
    fn a_cell_shows_each_generation_its_own_version() {
        let old = Cell::version(5, 17);
        let new = Cell::version(9, 0);
        let rows = [
            ([0, 0], 9, 0),
            ([old, 0], 4, 0),
            ([old, 0], 5, old),
            ([old, new], 8, old),
            ([new, old], 8, old),
            ([old, new], 9, new),
            ([new, old], 10, new),
            ([new, Cell::version(10, 3)], 8, 0),
            // Loaded before publication 9 and after publication 10.
            ([old, Cell::version(10, 3)], 8, 0),
        ];
        for (versions, generation, want) in rows {
            assert_eq!(
                Cell::select(versions, generation),
                want,
                "{versions:x?} at {generation}"
            );
        }
        assert_eq!(
            Cell::index(Cell::version(u64::MAX >> 26, Cell::LARGE | 7) | Cell::INLINE),
            Cell::LARGE | 7
        );
        assert!(Cell::version(5, u32::MAX) | Cell::INLINE <= Cell::last_version(5));
        assert!(Cell::last_version(5) < Cell::version(6, 0));
    }

    /// A reader takes a generation, then each version of a cell at any later time.
    #[test]
    fn a_reader_that_is_overtaken_between_its_loads_gets_no_older_version() {
        const LAST: u64 = 8;
        for changes in 0..1 << LAST {
            // The cell and the published generation after each store of the writer.
            let mut cell = [Cell::version(1, 1), 0];
            let mut steps = vec![(1, cell)];
            for generation in 2..=LAST {
                if changes >> generation & 1 == 1 {
                    let older = usize::from(cell[1] < cell[0]);
                    cell[older] = Cell::version(generation, generation as u32);
                    steps.push((generation - 1, cell));
                }
                steps.push((generation, cell));
            }
            for (start, (generation, cell)) in steps.iter().enumerate() {
                let want = Cell::select(*cell, *generation);
                assert_ne!(want, 0);
                for (_, [first, _]) in &steps[start..] {
                    for (_, [_, second]) in &steps[start..] {
                        let got = Cell::select([*first, *second], *generation);
                        assert!(
                            got == 0 || got == want,
                            "{generation}: {first:x} {second:x}"
                        );
                        // What the usual way takes without a further look.
                        let newest = *first.max(second);
                        assert!(
                            newest > Cell::last_version(*generation) || newest == want,
                            "{generation}: {first:x} {second:x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_heartbeat_is_good_until_its_tick() {
        for (valid_until, now, want) in [
            (0, 1, false),
            (1000, 999, true),
            (1000, 1000, true),
            (1000, 1001, false),
            (u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(
                State::is_valid(valid_until, now),
                want,
                "{valid_until} at {now}"
            );
        }
    }
}
