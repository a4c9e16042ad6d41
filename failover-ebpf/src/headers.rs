//! The headers of a reply, from those of the query: in words as they lie in the packet, without
//! access to it.

use failover_common::checksum::{add64, fold, shift_odd64};

use crate::{
    frame::{ETH_P_IP, ETH_P_IPV6, IPV4_LEN, IPV6_LEN, UDP, UDP_LEN},
    packet::{read, write},
};

/// TTL and hop limit of replies.
const TTL: u8 = 64;
/// TTL and protocol of replies over IPv4, as they lie in the packet.
const TTL_PROTOCOL: u16 = u16::from_ne_bytes([TTL, UDP]);
/// RD in the flags of a header, as they lie in the packet.
const RD: u16 = 0x0100u16.to_be();

/// The first eight octets of an Ethernet header and its last eight, with the addresses swapped.
#[inline(always)]
pub(crate) fn ethernet(start: u64, end: u64) -> (u64, u64) {
    const ADDRESS: u64 = 0xffff_ffff_ffff;
    (
        end & ADDRESS | start << 48,
        start & ADDRESS | end & !ADDRESS,
    )
}

/// Two words as one: the processor has fewer stores to make.
#[inline(always)]
const fn joined(first: u32, second: u32) -> u64 {
    (first.to_le() as u64 | (second.to_le() as u64) << 32).to_le()
}

/// The same of two half words.
#[inline(always)]
const fn joined_halves(first: u16, second: u16) -> u32 {
    (first.to_le() as u32 | (second.to_le() as u32) << 16).to_le()
}

/// A version of IP.
pub(crate) trait Network {
    /// Octets of its header without options or extension headers.
    const LEN: usize;

    /// Reads the header at `from` and writes that of the reply at `to`: addresses swapped, TTL and
    /// lengths set. Both may be the same place. Returns the sum of the pseudo header's addresses,
    /// unfolded (RFC 768; RFC 8200 section 8.1).
    ///
    /// # Safety
    ///
    /// [`Network::LEN`] octets are in the packet at both places.
    unsafe fn turn(from: *const u8, to: *mut u8, udp_len: u16) -> u64;

    /// Does the same with the whole of a frame up to there: Ethernet without tags, and IP with a
    /// true checksum. The reply is `growth` octets longer. Not at the same place.
    ///
    /// # Safety
    ///
    /// An Ethernet header and [`Network::LEN`] octets are in the packet at both places.
    unsafe fn turn_frame(from: *const u8, to: *mut u8, udp_len: u16, growth: usize) -> u64;
}

/// Reads the addresses of Ethernet at `from` and writes them at `to`, swapped, and `ethertype` behind
/// them.
///
/// # Safety
///
/// An Ethernet header is in the packet at both places.
#[inline(always)]
unsafe fn turn_ethernet(from: *const u8, to: *mut u8, ethertype: u16) {
    // Words that are longer than what is wanted of them: what follows is written over the rest.
    let (destination, source) = (read!(from, 0, u64), read!(from, 6, u64));
    write!(to, 0, source);
    write!(to, 6, destination);
    write!(to, 12, ethertype);
}

/// IPv4.
pub(crate) struct V4;
/// IPv6.
pub(crate) struct V6;

impl Network for V4 {
    const LEN: usize = IPV4_LEN;

    #[inline(always)]
    unsafe fn turn(from: *const u8, to: *mut u8, udp_len: u16) -> u64 {
        // Version and type of service; identification and fragment.
        let start = read!(from, 0, u16);
        let total_len = (udp_len + IPV4_LEN as u16).to_be();
        let id = read!(from, 4, u32);
        let [source, destination] = read!(from, 12, [u32; 2]);
        let addresses = u64::from(source) + u64::from(destination);
        let sum = addresses + u64::from(start) + u64::from(id) + u64::from(TTL_PROTOCOL);
        let checksum = !fold(sum + u64::from(total_len));
        write!(to, 0, joined(joined_halves(start, total_len), id));
        let ttl_checksum = joined_halves(TTL_PROTOCOL, checksum);
        write!(to, 8, joined(ttl_checksum, destination));
        write!(to, 16, source);
        addresses
    }

    #[inline(always)]
    unsafe fn turn_frame(from: *const u8, to: *mut u8, udp_len: u16, growth: usize) -> u64 {
        /// A multiple of 65535, which in ones' complement is 0.
        const NOTHING: u64 = 0xffff * 0x1_0002;
        // SAFETY: the caller's.
        unsafe { turn_ethernet(from, to, ETH_P_IP) };
        // From the version on to the fragment.
        write!(to, 14, read!(from, 14, u64));
        write!(to, 16, (udp_len + IPV4_LEN as u16).to_be());
        // The query's checksum was right: what has changed is length and TTL (RFC 1624).
        let ttl_checksum = u64::from(read!(from, 22, u32));
        let more = u64::from(TTL_PROTOCOL) + u64::from((growth as u16).to_be());
        write!(to, 22, TTL_PROTOCOL);
        write!(to, 24, !fold(NOTHING + more - ttl_checksum));
        let [source, destination] = read!(from, 26, [u32; 2]);
        write!(to, 26, destination);
        write!(to, 30, source);
        u64::from(source) + u64::from(destination)
    }
}

impl Network for V6 {
    const LEN: usize = IPV6_LEN;

    #[inline(always)]
    unsafe fn turn(from: *const u8, to: *mut u8, udp_len: u16) -> u64 {
        // Version, traffic class and flow label.
        let start = read!(from, 0, u32);
        let mut sum = 0;
        for part in read!(from, 8, [u32; 8]) {
            sum += u64::from(part);
        }
        let [s0, s1, d0, d1] = read!(from, 8, [u64; 4]);
        let next_hop = u16::from_ne_bytes([UDP, TTL]);
        write!(
            to,
            0,
            joined(start, joined_halves(udp_len.to_be(), next_hop))
        );
        write!(to, 8, [d0, d1, s0, s1]);
        sum
    }

    #[inline(always)]
    unsafe fn turn_frame(from: *const u8, to: *mut u8, udp_len: u16, _: usize) -> u64 {
        // SAFETY: the caller's.
        unsafe {
            turn_ethernet(from, to, ETH_P_IPV6);
            Self::turn(from.add(14), to.add(14), udp_len)
        }
    }
}

/// What the UDP and the DNS header of a reply have from those of the query.
#[derive(Clone, Copy)]
pub(crate) struct Turned {
    /// Source and destination port of the query, as they lie in the packet.
    ports: u32,
    /// ID and flags of the reply, as they lie in the packet.
    id_flags: u32,
}

impl Turned {
    /// Reads the headers of a query. The reply has these flags (in network byte order), and its RD.
    ///
    /// # Safety
    ///
    /// UDP header, ID and flags are in the packet there.
    #[inline(always)]
    pub(crate) unsafe fn read(from: *const u8, flags: u16) -> Self {
        let id_flags = read!(from, UDP_LEN, u32);
        let flags = u32::from(flags.to_le()) << 16;
        let recursion_desired = u32::from(RD.to_le()) << 16;
        Self {
            ports: read!(from, 0, u32),
            id_flags: (id_flags.to_le() & (0xffff | recursion_desired) | flags).to_le(),
        }
    }

    /// The unfolded sum of it.
    #[inline(always)]
    pub(crate) fn sum(&self) -> u64 {
        u64::from(self.ports) + u64::from(self.id_flags)
    }

    /// Writes UDP and DNS header of a reply. `sum` is the unfolded sum, below 2^47, of all that the
    /// checksum is over but for the length.
    ///
    /// # Safety
    ///
    /// They are in the packet at this place.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, at: *mut u8, udp_len: u16, counts: [u32; 2], sum: u64) {
        /// A multiple of 65535, which in ones' complement is 0.
        const NOTHING: u64 = 0xffff << 32;
        let udp_len = udp_len.to_be();
        // The length is once in the pseudo header, and once in the header itself.
        let sum = sum + 2 * u64::from(udp_len);
        let [source @ .., d0, d1] = self.ports.to_ne_bytes();
        write!(at, 0, u16::from_ne_bytes([d0, d1]));
        write!(at, 2, u16::from_ne_bytes(source));
        write!(at, 4, udp_len);
        // The complement. A sum that is 0 is written as 65535 (RFC 768), as it comes out of this.
        write!(at, 6, fold(NOTHING - sum));
        write!(at, UDP_LEN, self.id_flags);
        write!(at, UDP_LEN + 4, counts[0]);
        write!(at, UDP_LEN + 8, counts[1]);
    }
}

/// What the UDP and the DNS header of a reply say.
pub(crate) struct Message {
    /// What they have from the query.
    pub turned: Turned,
    /// Records in the four sections, see [`failover_common::layout::counts`].
    pub counts: [u32; 2],
    /// Octets of UDP header and message.
    pub udp_len: u16,
    /// Unfolded sum of everything else, see [`Turned::sum`] and [`body_sum`], and the addresses of the
    /// pseudo header.
    pub sum: u64,
}

impl Message {
    /// Writes both headers, with the checksum over everything.
    ///
    /// # Safety
    ///
    /// They are in the packet at this place.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, at: *mut u8) {
        let [counts, more_counts] = self.counts;
        let sum = self.sum
            + u64::from(u16::from(UDP).to_be())
            + u64::from(counts)
            + u64::from(more_counts);
        // SAFETY: the caller's.
        unsafe { self.turned.write(at, self.udp_len, self.counts, sum) };
    }
}

/// The unfolded sum of all that follows the DNS header. `records_sum` is that of question, answer
/// and tail as if the name ended at an even offset, `opt_sum` that of OPT as if it started at one.
#[inline(always)]
pub(crate) fn body_sum(records_sum: u64, opt_sum: u64, name_len: usize, tail_len: usize) -> u64 {
    let odd = name_len & 1 == 1;
    // Of the longest answers, and of cookies, so much that it could not be shifted and folded.
    let (records_sum, opt_sum) = (add64(0, records_sum), add64(0, opt_sum));
    shift_odd64(records_sum, odd) + shift_odd64(opt_sum, odd ^ (tail_len & 1 == 1))
}

/// The first eight octets of an OPT record, without options, that says `size` and DO.
#[inline(always)]
pub(crate) fn opt(size: u16, dnssec_ok: u64) -> u64 {
    (0x29_0000 | u64::from(size.swap_bytes()) << 24 | dnssec_ok << 63).to_le()
}
