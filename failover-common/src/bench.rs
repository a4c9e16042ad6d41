//! Map values of the benchmark's own programs (`failover-ebpf/src/bench.rs`).

/// Most octets of a query: two VLAN tags, IPv6, UDP, and a name of 255 octets with OPT.
pub const TEMPLATE_LEN: usize = 352;
/// Templates that one measurement goes through, as a rule at most.
pub const MAX_TEMPLATES: usize = 1024;

/// A query as it arrives.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Template {
    /// Octets of the frame.
    pub len: u64,
    /// The frame.
    pub bytes: [u8; TEMPLATE_LEN],
}

/// The state of one measurement; one element, one CPU.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Run {
    /// How many templates there are.
    pub templates: u64,
    /// The template that comes next.
    pub next: u64,
    /// Where the frame started on the first turn; 0: there was none yet.
    pub origin: u64,
    /// Where the program under test left the start of the frame.
    pub start: u64,
    /// Turns.
    pub turns: u64,
}

/// The key of the *textbook* program: 260 octets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TextbookKey {
    /// Type of the question, in network byte order.
    pub qtype: u16,
    /// Class of the question, in network byte order.
    pub class: u16,
    /// Its name, padded with zeros.
    pub name: [u8; 256],
}

/// What the *textbook* program answers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TextbookRecord {
    /// The address, as its octets lie in a packet.
    pub address: u32,
    /// The TTL, in network byte order.
    pub ttl: u32,
}

#[cfg(feature = "user")]
mod user {
    use super::{Run, Template, TextbookKey, TextbookRecord};

    macro_rules! pod {
        ($($type:ty),*) => {
            $(
                // SAFETY: `repr(C)` with integer fields of falling or equal alignment, whose
                // sizes add up without padding: every bit pattern is valid.
                unsafe impl bytemuck::Zeroable for $type {}
                // SAFETY: as above.
                unsafe impl bytemuck::Pod for $type {}
            )*
        };
    }

    pod!(Run, Template, TextbookKey, TextbookRecord);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_without_padding() {
        assert_eq!(size_of::<Template>(), 8 + TEMPLATE_LEN);
        assert_eq!(size_of::<Run>(), 5 * 8);
        assert_eq!(size_of::<TextbookKey>(), 260);
        assert_eq!(size_of::<TextbookRecord>(), 8);
    }
}
