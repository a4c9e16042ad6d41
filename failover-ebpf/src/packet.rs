//! Bounds-checked access to the packet: the only place that makes pointers into it. [`Window`] is for
//! offsets that are constants, [`at`] for all others.

use aya_ebpf::{helpers::generated::bpf_jiffies64, programs::XdpContext};

/// Hides an offset from the optimiser, so that the pointer that is checked against the end
/// of the packet is the one that is used: the verifier follows registers, not algebra.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // A real instruction: the kernel refuses line information for none.
    // SAFETY: the register comes out as it went in.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
    };
    value
}

/// `value`, which is less than `LIMIT`: the verifier is told by a mask that the optimiser cannot see to
/// be none.
#[inline(always)]
pub(crate) fn bounded<const LIMIT: usize>(value: usize) -> usize {
    const { assert!(LIMIT.is_power_of_two()) };
    opaque(value as u64) as usize & (LIMIT - 1)
}

/// A word that the verifier knows nothing about.
///
/// The verifier follows every branch with what it learned there: a length that is 14 here
/// and 18 there doubles the work on all code that follows, and the program soon exceeds what
/// a kernel accepts. [`Noise::bound`] leaves it nothing but an upper bound, so that the paths
/// become one again.
#[derive(Clone, Copy)]
pub(crate) struct Noise(u64);

impl Noise {
    /// Takes the first eight octets of the packet.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Option<Self> {
        load(ctx, 0).map(Self)
    }

    /// `value`, of which the verifier knows nothing any more.
    ///
    /// Old verifiers (6.1) keep an unknown word and a known one on the stack in two ways that
    /// never compare equal: what is constant on one path must be made unknown.
    #[inline(always)]
    pub(crate) fn forget(self, mut value: u64) -> u64 {
        // Not `pure`: the same value bounded for two loops must stay two registers.
        // SAFETY: the same word twice: the register comes out as it went in.
        unsafe {
            core::arch::asm!(
                "{0} ^= {1}",
                "{0} ^= {1}",
                inout(reg) value,
                in(reg) self.0,
                options(nomem, nostack, preserves_flags)
            );
        }
        value
    }

    /// `value`, all of whose bits are in `MASK`.
    #[inline(always)]
    pub(crate) fn bound<const MASK: usize>(self, value: usize) -> usize {
        self.forget(value as u64) as usize & MASK
    }
}

/// The kernel's ticks (jiffies). No call: the kernel makes it a load.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }
}

/// A pointer to the `T` at `offset`, if it lies wholly within the packet.
///
/// Packet data has no alignment; the machines that BPF's JIT runs on load unaligned words.
#[inline(always)]
pub(crate) fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + opaque(offset as u64) as usize;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}

/// Reads the `T` at `offset`.
#[inline(always)]
pub(crate) fn load<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    // SAFETY: `at` checked that the whole `T` lies within the packet.
    at(ctx, offset).map(|pointer: *mut T| unsafe { *pointer })
}

/// Writes the `T` at `offset`.
#[inline(always)]
pub(crate) fn store<T>(ctx: &XdpContext, offset: usize, value: T) -> Option<()> {
    // SAFETY: `at` checked that the whole `T` lies within the packet.
    at(ctx, offset).map(|pointer| unsafe { *pointer = value })
}

/// Where the packet starts and ends, until a helper changes that.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    start: usize,
    end: usize,
}

impl Window {
    /// The packet as it is now.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }

    /// Octets of the packet.
    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.end - self.start
    }

    /// The address of the octet at `offset`; `None` if fewer than `len` follow there. All that lies
    /// before, from the start of the packet on, is within it as well.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize, len: usize) -> Option<*mut u8> {
        let place = self.start + offset;
        (place + len <= self.end).then_some(place as *mut u8)
    }

    /// As [`Window::at`], and further on by `variable`, of which the verifier knows a bound.
    #[inline(always)]
    pub(crate) fn behind(self, variable: usize, offset: usize, len: usize) -> Option<*mut u8> {
        self.at(opaque(variable as u64) as usize + offset, len)
    }

    /// Whether `len` octets from a place on, which [`Window::at`] has found, are within the packet.
    #[inline(always)]
    pub(crate) fn holds(self, place: *mut u8, len: usize) -> Option<()> {
        (place as usize + len <= self.end).then_some(())
    }
}

/// Reads the `T` that starts `offset` octets from a place.
macro_rules! read {
    ($place:expr, $offset:expr, $type:ty) => {
        // SAFETY: a `Window` checked that it is there; the machines that BPF's JIT runs on load
        // unaligned words.
        unsafe { *$place.cast::<u8>().offset($offset as isize).cast::<$type>() }
    };
}
pub(crate) use read;

/// Writes a value that starts `offset` octets from a place.
macro_rules! write {
    ($place:expr, $offset:expr, $value:expr) => {{
        let value = $value;
        // SAFETY: as in `read`.
        unsafe { *$place.offset($offset as isize).cast() = value }
    }};
}
pub(crate) use write;
