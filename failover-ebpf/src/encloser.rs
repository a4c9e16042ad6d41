//! The closest encloser of a name that does not exist (RFC 4592 section 3.3.1).
//!
//! The table holds every name of our zones and all that lie above them. So, of the ancestors
//! of a name, those up to some number of labels are in the table, and the others are not: the
//! number is found by halving, in no more than seven looks, however many labels an attacker
//! makes up.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use failover_common::{layout::Node, question::MAX_LABELS};

use crate::{
    lookup::find_name,
    maps::{LABELS, setting},
    packet::{Noise, load},
    query::{HEADER_LEN, read_name},
};

/// No such slot.
pub(crate) const NONE: u32 = Node::NONE;
/// 2^7 labels are more than any name has.
const LOOKS: usize = 7;

/// The slot of the closest encloser of the name of `len` octets in the question of the message
/// at `dns`; [`NONE`]: there is none, or the name is not well-formed.
///
/// A function of its own, so that the registers of the usual way are not spent on it.
#[inline(never)]
pub(crate) fn find(context: *mut xdp_md, dns: usize, len: usize, generation: u64) -> u32 {
    let ctx = XdpContext::new(context);
    search(&ctx, dns, len, generation).unwrap_or(NONE)
}

#[inline(always)]
fn search(ctx: &XdpContext, dns: usize, len: usize, generation: u64) -> Option<u32> {
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
        match find_name(ctx, noise, &name, generation) {
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
