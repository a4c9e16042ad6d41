//! What is not the addresses of a plain name of a service: other types, static records, names
//! that do not exist.
//!
//! **The closest encloser** (RFC 4592 section 3.3.1). The table holds every name of our zones and
//! all that lie above them. So, of the ancestors of a name, those up to some number of labels
//! are in the table, and the others are not: the number is found by halving, in no more than
//! seven looks, however many labels an attacker makes up.
//!
//! Functions of their own do the work, so that the registers of the usual way are not spent on it.
//! They return a single word.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use failover_common::{
    counters::Counter,
    layout::{NO_TAIL, NameSlot, Node},
    question::{Ends, MAX_LABELS, lower_case},
};

use crate::{
    frame::Frame,
    lookup::{Place, TYPE_A, TYPE_AAAA, find_name, select, slot},
    maps::{LABELS, NODES, TAILS, ZONES, setting},
    packet::{Noise, load},
    query::{HEADER_LEN, Query, read_name},
};

/// No such slot.
const NONE: u32 = Node::NONE;
/// 2^7 labels are more than any name has.
const LOOKS: usize = 7;
/// NXDOMAIN in the flags of a header, as it lies in the packet.
const NXDOMAIN: u16 = 3u16.to_be();

/// A [`Place`], or why there is none, in one word: the index of a tail in bits 32 to 55, and in
/// bits 0 to 31 a service or flags; what it is in bits 56 and up.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    /// User space answers names like this.
    const PASS_NAME: Self = Self(0);
    /// User space answers this type.
    const PASS_TYPE: Self = Self(1);
    /// Publications overtook the look-up.
    const OVERTAKEN: Self = Self(2);
    const SERVICE: u64 = 1 << 56;
    const REPLY: u64 = 2 << 56;
    const TAIL: u64 = 0xff_ffff;

    #[inline(always)]
    fn service(service: u32, tail: u32) -> Self {
        Self(Self::SERVICE | (u64::from(tail) & Self::TAIL) << 32 | u64::from(service))
    }

    #[inline(always)]
    fn reply(tail: u32, flags: u16) -> Self {
        Self(Self::REPLY | (u64::from(tail) & Self::TAIL) << 32 | u64::from(flags))
    }

    #[inline(always)]
    fn place(self) -> Result<Place, Counter> {
        let low = self.0 as u32;
        let tail = (self.0 >> 32 & Self::TAIL) as u32;
        if self.0 & Self::SERVICE != 0 {
            Ok(Place {
                service: low,
                tail,
                flags: 0,
            })
        } else if self.0 & Self::REPLY != 0 {
            Ok(Place {
                service: Node::NONE,
                tail,
                flags: low as u16,
            })
        } else if self.0 == Self::PASS_NAME.0 {
            Err(Counter::PassedName)
        } else if self.0 == Self::PASS_TYPE.0 {
            Err(Counter::PassedType)
        } else {
            Err(Counter::PassedOvertaken)
        }
    }
}

/// What answers the query, whose name is in slot `index`, or in none: [`Node::NONE`].
#[inline(always)]
pub(crate) fn find(
    ctx: &XdpContext,
    frame: &Frame,
    query: &Query,
    index: u32,
    generation: u64,
) -> Result<Place, Counter> {
    let question = query.name.len as u64 | u64::from(query.qtype) << 16;
    Word(find_word(ctx.ctx, frame.dns, question, index, generation)).place()
}

/// The denial of the zone of a tail.
#[inline(always)]
pub(crate) fn denial_beside(tail: u32, generation: u64) -> Result<u32, Counter> {
    match denial_beside_word(tail, generation) {
        NO_TAIL => Err(Counter::PassedOvertaken),
        tail => Ok(tail),
    }
}

#[inline(never)]
fn denial_beside_word(tail: u32, generation: u64) -> u32 {
    let tail = TAILS.get(tail);
    tail.and_then(|tail| denial(tail.header.zone, generation))
        .unwrap_or(NO_TAIL)
}

/// `question`: the length of its name, and its type from bit 16 on.
#[inline(never)]
fn find_word(context: *mut xdp_md, dns: usize, question: u64, index: u32, generation: u64) -> u64 {
    let ctx = XdpContext::new(context);
    let (len, qtype) = ((question & 0xff) as usize, (question >> 16) as u16);
    if is_for_user_space(qtype) {
        return Word::PASS_TYPE.0;
    }
    let word = match slot(index) {
        Some(slot) => at_name(slot, qtype, generation),
        None if !may_be_ours(&ctx, dns, len) => Word::PASS_NAME,
        None => match search(&ctx, dns, len).and_then(slot) {
            Some(slot) => below_name(slot, qtype, len, generation),
            None => Word::PASS_NAME,
        },
    };
    word.0
}

/// Types that are not data of a name (RFC 6895 section 3.1).
#[inline(always)]
fn is_for_user_space(qtype: u16) -> bool {
    const OPT: u16 = 41;
    qtype == OPT || (128..=255).contains(&qtype) || qtype == 0
}

/// What answers a type at a name of the table.
#[inline(always)]
fn at_name(slot: &NameSlot, qtype: u16, generation: u64) -> Word {
    let Some(node) = node_of(slot) else {
        return deny(zone_of(slot), 0, generation);
    };
    if node.service != Node::NONE && (qtype == TYPE_A || qtype == TYPE_AAAA) {
        return Word::service(node.service, slot.tail);
    }
    match reply_of(node, qtype) {
        Node::PASS => Word::PASS_TYPE,
        Node::DENY => deny(node.zone, 0, generation),
        tail => match TAILS.get(tail) {
            Some(reply) => Word::reply(tail, reply.header.flags),
            None => Word::OVERTAKEN,
        },
    }
}

/// What answers a name that does not exist below one of the table.
#[inline(always)]
fn below_name(slot: &NameSlot, qtype: u16, len: usize, generation: u64) -> Word {
    let Some(node) = node_of(slot) else {
        return deny(zone_of(slot), NXDOMAIN, generation);
    };
    match node.below {
        Node::PASS => Word::PASS_NAME,
        Node::DENY => deny(node.zone, NXDOMAIN, generation),
        service if qtype == TYPE_A || qtype == TYPE_AAAA => match ZONES.get(node.zone) {
            Some(zone) => Word::service(service, zone.tails + len as u32),
            None => Word::OVERTAKEN,
        },
        _ => deny(node.zone, 0, generation),
    }
}

/// The node of a name that is more than the name of a service.
#[inline(always)]
fn node_of(slot: &NameSlot) -> Option<&'static Node> {
    if slot.target & NameSlot::NODE == 0 {
        None
    } else {
        NODES.get(slot.target & !NameSlot::NODE)
    }
}

/// The zone of a plain name of a service.
#[inline(always)]
fn zone_of(slot: &NameSlot) -> u32 {
    TAILS.get(slot.tail).map_or(NONE, |tail| tail.header.zone)
}

/// What a node answers to a type without regard to its service.
#[inline(always)]
fn reply_of(node: &Node, qtype: u16) -> u32 {
    for index in 0..Node::TYPES {
        if node.types[index] == qtype {
            return node.replies[index];
        }
    }
    node.otherwise
}

/// The reply that a zone has no such data, or with `rcode` no such name.
#[inline(always)]
fn deny(zone: u32, rcode: u16, generation: u64) -> Word {
    match denial(zone, generation) {
        Some(tail) => match TAILS.get(tail) {
            Some(reply) => Word::reply(tail, reply.header.flags | rcode),
            None => Word::OVERTAKEN,
        },
        None => Word::OVERTAKEN,
    }
}

/// Index of a zone's denial.
#[inline(always)]
fn denial(zone: u32, generation: u64) -> Option<u32> {
    let [first, second] = &ZONES.get(zone)?.denial.versions;
    select([first, second], generation).ok()
}

/// Whether the name of `len` octets ends as the name of one of our zones does. Spares all others
/// the search.
#[inline(always)]
fn may_be_ours(ctx: &XdpContext, dns: usize, len: usize) -> bool {
    // Of a shorter name it is what precedes the question as well, which does no harm.
    let end = (dns & 0x7f) + HEADER_LEN + (len & 0xff);
    let Some(end) = end.checked_sub(8).and_then(|at| load::<u64>(ctx, at)) else {
        return false;
    };
    may_end_ours(end)
}

/// Whether the name of one of our zones may end with these eight octets, as they lie in the packet.
#[inline(always)]
pub(crate) fn may_end_ours(octets: u64) -> bool {
    let (word, bit) = Ends::place(lower_case(octets.to_le()));
    setting!(zone_ends.0[word & 7]) >> bit & 1 != 0
}

/// The slot of the closest encloser of the name of `len` octets in the question of the message
/// at `dns`; `None`: there is none, or the name is not well-formed.
#[inline(always)]
fn search(ctx: &XdpContext, dns: usize, len: usize) -> Option<u32> {
    let noise = Noise::new(ctx)?;
    let start = noise.bound::<0x7f>(dns) + HEADER_LEN;
    let len = noise.bound::<0xff>(len);
    let labels = read_labels(ctx, noise, start, len)?;
    let starts = LABELS.get(0)?;
    let mut found = NONE;
    // Ancestors of `low` labels are in the table, those of more than `high` are not.
    let mut low = 0;
    let mut high = noise.bound::<0x7f>((labels - 1).min(setting!(max_labels) as usize));
    for _ in 0..LOOKS {
        if low >= high {
            break;
        }
        let middle = noise.bound::<0x7f>((low + high).div_ceil(2));
        let above = usize::from(starts[noise.bound::<0x7f>(labels - middle)]);
        let (name, _) = read_name(ctx, noise, start + above, noise.bound::<0xff>(len - above))?;
        match find_name(ctx, noise, &name) {
            Some((index, _)) => {
                found = index;
                low = middle;
            }
            None => high = middle - 1,
        }
        found = noise.forget(u64::from(found)) as u32;
        low = noise.bound::<0x7f>(low);
        high = noise.bound::<0x7f>(high);
    }
    Some(found)
}

/// Writes down where the labels of a name start. Returns how many there are, at least one;
/// `None` for the root and for what is no name of `len` octets.
#[inline(always)]
fn read_labels(ctx: &XdpContext, noise: Noise, start: usize, len: usize) -> Option<usize> {
    let starts = LABELS.get_ptr_mut(0)?;
    let mut at = 0;
    let mut labels = 0;
    while labels < MAX_LABELS {
        let label: u8 = load(ctx, start + at)?;
        if label == 0 {
            break;
        }
        if label > 63 {
            return None;
        }
        // SAFETY: `labels` is less than the length of this CPU's value.
        unsafe { (*starts)[labels] = at as u8 };
        at = noise.bound::<0x1ff>(at + 1 + usize::from(label));
        labels += 1;
    }
    let last: u8 = load(ctx, start + at)?;
    (last == 0 && at + 1 == len && labels > 0).then(|| noise.bound::<0x7f>(labels))
}
