//! The headers of a reply, from those of the query: in words as they lie in the packet, without
//! access to it.

use failover_common::checksum::{add64, fold, shift_odd64};

use crate::frame::{IPV4_LEN, IPV6_LEN, UDP};

/// TTL and hop limit of replies.
const TTL: u8 = 64;
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

/// A version of IP.
pub(crate) trait Network {
    /// Its header without options or extension headers.
    type Header: Copy;

    /// The header of the reply: addresses swapped, TTL and lengths set. With it the sum of the
    /// pseudo header's addresses, unfolded (RFC 768; RFC 8200 section 8.1).
    fn reply(header: Self::Header, udp_len: u16) -> (Self::Header, u64);
}

/// IPv4.
pub(crate) struct V4;
/// IPv6.
pub(crate) struct V6;

impl Network for V4 {
    type Header = [u32; IPV4_LEN / 4];

    #[inline(always)]
    fn reply(header: Self::Header, udp_len: u16) -> (Self::Header, u64) {
        let [start, id, _, source, destination] = header;
        let total_len = udp_len + IPV4_LEN as u16;
        let start = start & 0xffff | u32::from(total_len.to_be()) << 16;
        let ttl = u32::from(TTL) | u32::from(UDP) << 8;
        let addresses = u64::from(source) + u64::from(destination);
        let checksum = !fold(u64::from(start) + u64::from(id) + u64::from(ttl) + addresses);
        let ttl = ttl | u32::from(checksum) << 16;
        ([start, id, ttl, destination, source], addresses)
    }
}

impl Network for V6 {
    type Header = [u64; IPV6_LEN / 8];

    #[inline(always)]
    fn reply(header: Self::Header, udp_len: u16) -> (Self::Header, u64) {
        let [start, s0, s1, d0, d1] = header;
        let rest = u32::from(udp_len.to_be()) | u32::from(UDP) << 16 | u32::from(TTL) << 24;
        let start = start & 0xffff_ffff | u64::from(rest) << 32;
        let addresses = add64(add64(add64(add64(0, s0), s1), d0), d1);
        ([start, d0, d1, s0, s1], addresses)
    }
}

/// What the UDP and the DNS header of a reply say.
pub(crate) struct Message {
    /// Source and destination port of the query.
    pub ports: [u16; 2],
    /// ID and flags of the query.
    pub id_flags: u32,
    /// Flags of the reply in network byte order, without RD.
    pub flags: u16,
    /// Records in the four sections, each in network byte order.
    pub counts: [u16; 4],
    /// Octets of UDP header and message.
    pub udp_len: u16,
    /// Unfolded sum of the pseudo header's addresses.
    pub address_sum: u64,
    /// Unfolded sum of what follows the DNS header, see [`body_sum`].
    pub body_sum: u64,
}

/// UDP and DNS header: 8, 4 and 8 octets.
pub(crate) type Headers = (u64, u32, u64);

impl Message {
    /// The headers, with the checksum over everything.
    #[inline(always)]
    pub(crate) fn headers(&self) -> Headers {
        let flags = u32::from(self.flags.to_le()) << 16;
        let recursion_desired = u32::from(RD.to_le()) << 16;
        let id_flags = self.id_flags & (0xffff | recursion_desired) | flags;
        let [questions, answers, authority, additional] = self.counts.map(u64::from);
        let counts = questions | answers << 16 | authority << 32 | additional << 48;
        let [source, destination] = self.ports;
        let sum = self.address_sum
            + u64::from(source)
            + u64::from(destination)
            + u64::from(u16::from(UDP).to_be())
            // Once in the pseudo header, once in the header itself.
            + 2 * u64::from(self.udp_len.to_be())
            + u64::from(id_flags)
            + self.body_sum;
        let checksum = match !fold(add64(sum, counts)) {
            0 => 0xffff,
            checksum => checksum,
        };
        let udp = u64::from(destination)
            | u64::from(source) << 16
            | u64::from(self.udp_len.to_be()) << 32
            | u64::from(checksum) << 48;
        (udp, id_flags, counts)
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
