//! Every map of the program.
//!
//! User space writes all of them but the counters, and only where no reader looks; see
//! [`failover_common::layout`] for the rule. Words that may change while we read are read
//! once, whole and volatile.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use failover_common::{
    counters::{Counter, Counters, ServiceHits},
    layout::{
        LargeAnswer, LongName, NameBucket, Node, ServiceA, ServiceAaaa, SmallAnswer, State, Tail,
        ZoneSlot,
    },
    question::MAX_LABELS,
    settings::Settings,
};

/// `BPF_F_MMAPABLE`: user space writes by plain stores.
const MMAPABLE: usize = 1 << 10;

/// Generation and heartbeat.
#[btf_map]
pub(crate) static STATE: Array<State, 1, MMAPABLE> = Array::new();

// Sizes are set by the loader.

/// The hash table of names.
#[btf_map]
pub(crate) static NAMES: Array<NameBucket, 1, MMAPABLE> = Array::new();
/// Names that do not fit in their slot.
#[btf_map]
pub(crate) static LONG_NAMES: Array<LongName, 1, MMAPABLE> = Array::new();
/// Names that are more than names of a service.
#[btf_map]
pub(crate) static NODES: Array<Node, 1, MMAPABLE> = Array::new();
/// Zones by id.
#[btf_map]
pub(crate) static ZONES: Array<ZoneSlot, 1, MMAPABLE> = Array::new();
/// What services answer to A, by id.
#[btf_map]
pub(crate) static SERVICES_A: Array<ServiceA, 1, MMAPABLE> = Array::new();
/// What services answer to AAAA, by id.
#[btf_map]
pub(crate) static SERVICES_AAAA: Array<ServiceAaaa, 1, MMAPABLE> = Array::new();
/// Answers of few addresses.
#[btf_map]
pub(crate) static ANSWERS: Array<SmallAnswer, 1, MMAPABLE> = Array::new();
/// Answers of many addresses.
#[btf_map]
pub(crate) static LARGE_ANSWERS: Array<LargeAnswer, 1, MMAPABLE> = Array::new();
/// What replies carry behind addresses, or without any.
#[btf_map]
pub(crate) static TAILS: Array<Tail, 2, MMAPABLE> = Array::new();
/// What became of the packets.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
/// Where each label of the name at hand starts.
#[btf_map]
pub(crate) static LABELS: PerCpuArray<[u8; MAX_LABELS + 1], 1> = PerCpuArray::new();
/// Answers given, by service; the last element counts all others.
#[btf_map]
pub(crate) static SERVICE_HITS: PerCpuArray<ServiceHits, 1> = PerCpuArray::new();

/// By how much the last answers grew, A and AAAA.
#[btf_map]
pub(crate) static GROWTH: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// The program for what is not usual.
#[btf_map]
pub(crate) static REST: ProgramArray<1> = ProgramArray::new();
/// Where the bridge leads.
#[btf_map]
pub(crate) static BRIDGE: ProgramArray<1> = ProgramArray::new();

/// Written by the loader.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::NONE;

/// The program's settings.
#[inline(always)]
pub(crate) fn settings() -> *const Settings {
    &raw const SETTINGS
}

/// The value of a map at an index that stands in a value of another map, read where it stands:
/// `value_at!(TAILS, Tail, slot.tail)`. What goes through the stack comes later.
macro_rules! value_at {
    ($map:ident, $type:ty, $index:expr) => {
        // SAFETY: the map's key is a `u32`, and `$type` its value. The index is never written while it
        // can be read.
        unsafe {
            aya_ebpf::helpers::bpf_map_lookup_elem(
                (&raw const $crate::maps::$map).cast_mut().cast(),
                (&raw const $index).cast(),
            )
            .cast::<$type>()
            .as_ref()
        }
    };
}
pub(crate) use value_at;

/// An index of 0 where a map may be told to read it, see [`value_at`].
#[inline(always)]
pub(crate) fn zero() -> &'static u32 {
    // SAFETY: a field of a static that is never written while the program runs.
    unsafe { &*(&raw const (*settings()).zero).cast() }
}

/// Reads one setting: `setting!(port)`.
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: a field of a static that is never written while the program runs;
        // volatile, because the loader replaces the value that the compiler sees.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::maps::settings()).$($field)+) }
    };
}
pub(crate) use setting;

/// Reads a word of a map value that user space may write at the same time.
macro_rules! shared {
    ($place:expr) => {
        // SAFETY: a place inside a map value; the word is read once and whole.
        unsafe { core::ptr::read_volatile(&raw const $place) }
    };
}
pub(crate) use shared;

/// Counts a packet on this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(counters) = value_at!(COUNTERS, Counters, *zero()) {
        let counters = (&raw const *counters).cast_mut().cast::<u64>();
        // SAFETY: a field of this CPU's value; XDP programs do not interrupt each other on
        // one CPU.
        unsafe { *counters.add(counter as usize) += 1 };
    }
}
