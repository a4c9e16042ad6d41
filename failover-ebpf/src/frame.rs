//! Ethernet, IP and UDP: is this a datagram to the name server?

use aya_ebpf::programs::XdpContext;
use failover_common::{checksum, counters::Counter, settings::MAX_LISTEN};

use crate::{
    headers::{Network, V4, V6},
    maps::{setting, shared},
    packet::{Noise, Window, bounded, opaque, read},
};

/// Octets of an Ethernet header without tags.
pub(crate) const ETHERNET_LEN: usize = 14;
const VLAN_TAG_LEN: usize = 4;
/// Octets of an IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// Octets of an IPv6 header.
pub(crate) const IPV6_LEN: usize = 40;
/// Octets of a UDP header.
pub(crate) const UDP_LEN: usize = 8;
/// Longest frame that may carry padding: the shortest that Ethernet allows, tags removed or not.
const LONGEST_PADDED: usize = 64;
/// Bound on the UDP length of a query: name, OPT and eight options of usual size.
const LONGEST_DATAGRAM: usize = 0x1000;
/// `IPPROTO_UDP`.
pub(crate) const UDP: u8 = 17;

/// Ethertype of IPv4, in network byte order.
pub(crate) const ETH_P_IP: u16 = 0x0800u16.to_be();
/// Ethertype of IPv6, in network byte order.
pub(crate) const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
const ETH_P_8021Q: u16 = 0x8100u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8u16.to_be();

/// A UDP datagram to our port at one of our addresses, whose lengths agree.
pub(crate) struct Datagram {
    /// Octets before the IP header: Ethernet with its tags.
    l2_len: usize,
    /// Octets of the IP header: [`IPV4_LEN`], without options, or [`IPV6_LEN`], without
    /// extension headers.
    ip_len: usize,
    /// Octets of the DNS message, less than [`LONGEST_DATAGRAM`].
    pub message_len: usize,
    /// Octets of the frame behind it.
    pub padding: usize,
}

/// Where the parts of a [`Datagram`] lie.
///
/// One struct for IPv4 and IPv6, told apart by a number, so that the verifier goes through
/// what follows once.
pub(crate) struct Frame {
    /// See [`Datagram`].
    pub l2_len: usize,
    /// See [`Datagram`].
    pub ip_len: usize,
    /// Octets before the UDP header.
    pub udp: usize,
    /// Octets before the DNS header.
    pub dns: usize,
    /// Octets of the DNS message.
    pub message_len: usize,
    /// Octets of the frame, with padding.
    pub len: usize,
    /// See [`Noise`].
    pub noise: Noise,
}

/// Parses a frame with up to two tags.
#[inline(always)]
pub(crate) fn parse(packet: Window) -> Result<Datagram, Counter> {
    // Long enough for the headers of any datagram.
    let start = packet
        .at(0, ETHERNET_LEN + IPV4_LEN + UDP_LEN)
        .ok_or(Counter::PassedOther)?;
    match ethertype(start, ETHERNET_LEN) {
        ETH_P_IP => parse_v4(packet, ETHERNET_LEN),
        ETH_P_IPV6 => parse_v6(packet, ETHERNET_LEN),
        tag if is_tag(tag) => parse_tagged(packet),
        _ => Err(Counter::PassedOther),
    }
}

/// Parses a frame that has a tag.
#[inline(always)]
fn parse_tagged(packet: Window) -> Result<Datagram, Counter> {
    let mut l2_len = ETHERNET_LEN + VLAN_TAG_LEN;
    let start = packet
        .at(0, ETHERNET_LEN + 2 * VLAN_TAG_LEN)
        .ok_or(Counter::PassedOther)?;
    let mut inner = ethertype(start, l2_len);
    if is_tag(inner) {
        l2_len += VLAN_TAG_LEN;
        inner = ethertype(start, l2_len);
        if is_tag(inner) {
            return Err(Counter::PassedVlan);
        }
    }
    match inner {
        ETH_P_IP => parse_v4(packet, l2_len),
        ETH_P_IPV6 => parse_v6(packet, l2_len),
        _ => Err(Counter::PassedOther),
    }
}

/// What the last two octets of an Ethernet header of `l2_len` octets say.
#[inline(always)]
fn ethertype(start: *mut u8, l2_len: usize) -> u16 {
    read!(start, l2_len - 2, u16)
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD
}

/// Parses IPv4 and UDP behind `l2_len` octets.
#[inline(always)]
fn parse_v4(packet: Window, l2_len: usize) -> Result<Datagram, Counter> {
    let headers = network(packet, l2_len, IPV4_LEN + UDP_LEN)?;
    // TTL, protocol, checksum; version to total length; identification and fragment.
    let ttl = read!(headers, 8, u32);
    if (ttl.to_le() >> 8) as u8 != UDP {
        return Err(Counter::PassedOther);
    }
    let start = read!(headers, 0, u32);
    if start.to_le() as u8 != 0x45 {
        return Err(Counter::PassedIpOptions);
    }
    let id = read!(headers, 4, u32);
    if u32::from_be(id) & 0x3fff != 0 {
        return Err(Counter::PassedFragment);
    }
    let [source_port, port] = read!(headers, 20, [u16; 2]);
    if port != setting!(port) {
        return Err(Counter::PassedOther);
    }
    let [source, destination] = read!(headers, 12, [u32; 2]);
    if !listens_v4(destination) {
        return Err(Counter::PassedNotOurs);
    }
    if !is_unicast(packet.at(0, ETHERNET_LEN).ok_or(Counter::PassedOther)?) {
        return Err(Counter::PassedMulticast);
    }
    if source_port == 0 || is_bad_source_v4(source) {
        return Err(Counter::PassedSource);
    }
    let sum = u64::from(start)
        + u64::from(id)
        + u64::from(ttl)
        + u64::from(source)
        + u64::from(destination);
    if !checksum::is_right(sum) {
        return Err(Counter::PassedChecksum);
    }
    let udp_len = usize::from(u16::from_be(read!(headers, 24, u16)));
    let total_len = (u32::from_be(start) & 0xffff) as usize;
    finish(packet, l2_len, IPV4_LEN, total_len, udp_len)
}

/// Parses IPv6 and UDP behind `l2_len` octets.
#[inline(always)]
fn parse_v6(packet: Window, l2_len: usize) -> Result<Datagram, Counter> {
    let headers = network(packet, l2_len, IPV6_LEN + UDP_LEN)?;
    let next = read!(headers, 4, u32);
    if (next.to_le() >> 16) as u8 != UDP {
        return Err(Counter::PassedOther);
    }
    let [source_port, port] = read!(headers, IPV6_LEN, [u16; 2]);
    if port != setting!(port) {
        return Err(Counter::PassedOther);
    }
    let [source, destination] = read!(headers, 8, [[u64; 2]; 2]);
    if !listens_v6(destination) {
        return Err(Counter::PassedNotOurs);
    }
    if !is_unicast(packet.at(0, ETHERNET_LEN).ok_or(Counter::PassedOther)?) {
        return Err(Counter::PassedMulticast);
    }
    if source_port == 0 || is_bad_source_v6(source) {
        return Err(Counter::PassedSource);
    }
    if read!(headers, 0, u8) >> 4 != 6 {
        return Err(Counter::PassedOther);
    }
    let [udp_len, checksum] = read!(headers, IPV6_LEN + 4, [u16; 2]);
    if checksum == 0 {
        // RFC 8200 section 8.1: the UDP checksum is not optional.
        return Err(Counter::PassedChecksum);
    }
    let payload_len = usize::from(u16::from_be(next.to_le() as u16));
    let udp_len = usize::from(u16::from_be(udp_len));
    finish(packet, l2_len, IPV6_LEN, IPV6_LEN + payload_len, udp_len)
}

/// The address of the network header, which `len` octets can be read from.
#[inline(always)]
fn network(packet: Window, l2_len: usize, len: usize) -> Result<*mut u8, Counter> {
    let place = if l2_len == ETHERNET_LEN {
        packet.at(ETHERNET_LEN, len)
    } else {
        packet.behind(bounded::<32>(l2_len), 0, len)
    };
    place.ok_or(Counter::PassedOther)
}

/// The lengths of frame, IP and UDP agree.
#[inline(always)]
fn finish(
    packet: Window,
    l2_len: usize,
    ip_len: usize,
    total_len: usize,
    udp_len: usize,
) -> Result<Datagram, Counter> {
    let len = packet.len();
    let used = l2_len + ip_len + udp_len;
    if total_len != ip_len + udp_len || !(UDP_LEN..LONGEST_DATAGRAM).contains(&udp_len) {
        return Err(Counter::PassedLength);
    }
    let message_len = udp_len - UDP_LEN;
    if len == used {
        return Ok(Datagram {
            l2_len,
            ip_len,
            message_len,
            padding: 0,
        });
    }
    if len < used || len > LONGEST_PADDED {
        return Err(Counter::PassedLength);
    }
    Ok(Datagram {
        l2_len,
        ip_len,
        message_len,
        padding: len - used,
    })
}

/// Where the parts of the datagram lie.
#[inline(always)]
pub(crate) fn locate(ctx: &XdpContext, datagram: &Datagram) -> Result<Frame, Counter> {
    let noise = Noise::new(ctx).ok_or(Counter::PassedOther)?;
    let udp = noise.bound::<0x3f>(datagram.l2_len + datagram.ip_len);
    let len = datagram.l2_len + datagram.ip_len + UDP_LEN + datagram.message_len + datagram.padding;
    Ok(Frame {
        l2_len: noise.bound::<0x1f>(datagram.l2_len),
        ip_len: noise.bound::<0x3f>(datagram.ip_len),
        udp,
        dns: udp + UDP_LEN,
        message_len: noise.bound::<0xfff>(datagram.message_len),
        len: noise.bound::<0x1fff>(len),
        noise,
    })
}

/// Frames that [`parse`] accepts and that have neither tags nor padding, recognised in fewer steps and
/// without a reason for all others.
pub(crate) trait Usual: Network {
    /// Whether it is of the kind, and sent to us. [`Network::LEN`] octets and the headers around them,
    /// up to the DNS header's end, can be read from the `start` of the frame.
    fn is_ours(start: *mut u8) -> bool;

    /// Whether all else is right about such a frame of `len` octets.
    fn is_right(start: *mut u8, len: usize) -> bool;
}

impl Usual for V4 {
    #[inline(always)]
    fn is_ours(start: *mut u8) -> bool {
        /// Ethertype, version and header length.
        const TYPE_VERSION: u64 = u64::from_le_bytes([8, 0, 0x45, 0, 0, 0, 0, 0]);
        const TYPE_VERSION_MASK: u64 = u64::from_le_bytes([255, 255, 255, 0, 0, 0, 0, 0]);
        /// More fragments and offset; protocol.
        const FRAGMENT_PROTOCOL: u32 = u32::from_le_bytes([0, 0, 0, UDP]);
        const FRAGMENT_PROTOCOL_MASK: u32 = u32::from_le_bytes([0x3f, 255, 0, 255]);
        const UDP_AT: usize = ETHERNET_LEN + IPV4_LEN;

        let word = read!(start, ETHERNET_LEN - 2, u64).to_le();
        if word & TYPE_VERSION_MASK != TYPE_VERSION {
            return false;
        }
        let word = read!(start, ETHERNET_LEN + 6, u32).to_le();
        if word & FRAGMENT_PROTOCOL_MASK != FRAGMENT_PROTOCOL {
            return false;
        }
        read!(start, UDP_AT + 2, u16) == setting!(port)
            && listens_v4(read!(start, ETHERNET_LEN + 16, u32))
    }

    #[inline(always)]
    fn is_right(start: *mut u8, len: usize) -> bool {
        const UDP_AT: usize = ETHERNET_LEN + IPV4_LEN;

        if !is_unicast(start)
            || read!(start, UDP_AT, u16) == 0
            // Read once more: takes less than to get it out of the word.
            || is_bad_start_v4(shared!(*start.wrapping_add(ETHERNET_LEN + 12)))
        {
            return false;
        }
        let [source, destination] = read!(start, ETHERNET_LEN + 12, [u32; 2]);
        let sum = u64::from(read!(start, ETHERNET_LEN, u32))
            + u64::from(read!(start, ETHERNET_LEN + 4, u32))
            + u64::from(read!(start, ETHERNET_LEN + 8, u32))
            + u64::from(source)
            + u64::from(destination);
        checksum::is_right(sum)
            && ETHERNET_LEN + be(read!(start, ETHERNET_LEN + 2, u16)) == len
            && UDP_AT + be(read!(start, UDP_AT + 4, u16)) == len
    }
}

impl Usual for V6 {
    #[inline(always)]
    fn is_ours(start: *mut u8) -> bool {
        /// Ethertype and version.
        const TYPE_VERSION: u32 = u32::from_le_bytes([0x86, 0xdd, 0x60, 0]);
        const TYPE_VERSION_MASK: u32 = u32::from_le_bytes([255, 255, 0xf0, 0]);
        const UDP_AT: usize = ETHERNET_LEN + IPV6_LEN;

        let word = read!(start, ETHERNET_LEN - 2, u32).to_le();
        if word & TYPE_VERSION_MASK != TYPE_VERSION || read!(start, ETHERNET_LEN + 6, u8) != UDP {
            return false;
        }
        read!(start, UDP_AT + 2, u16) == setting!(port)
            && listens_v6(read!(start, ETHERNET_LEN + 24, [u64; 2]))
    }

    #[inline(always)]
    fn is_right(start: *mut u8, len: usize) -> bool {
        const UDP_AT: usize = ETHERNET_LEN + IPV6_LEN;

        is_unicast(start)
            && read!(start, UDP_AT, u16) != 0
            && !is_bad_source_v6(read!(start, ETHERNET_LEN + 8, [u64; 2]))
            // The UDP checksum is not optional.
            && read!(start, UDP_AT + 6, u16) != 0
            && UDP_AT + be(read!(start, ETHERNET_LEN + 4, u16)) == len
            && UDP_AT + be(read!(start, UDP_AT + 4, u16)) == len
    }
}

/// A length as it lies in the packet.
#[inline(always)]
fn be(len: u16) -> usize {
    usize::from(u16::from_be(len))
}

/// The frame was sent to one station.
#[inline(always)]
fn is_unicast(start: *mut u8) -> bool {
    read!(start, 0, u8) & 1 == 0
}

#[inline(always)]
fn listens_v4(address: u32) -> bool {
    if setting!(listen_v4_len) == 0 {
        return false;
    }
    // Those that are not in use say what the first one says.
    for index in 0..MAX_LISTEN {
        if setting!(listen_v4[index]) == address {
            return true;
        }
    }
    false
}

#[inline(always)]
fn listens_v6(address: [u64; 2]) -> bool {
    if setting!(listen_v6_len) == 0 {
        return false;
    }
    for index in 0..MAX_LISTEN {
        if setting!(listen_v6[index][0]) == address[0]
            && setting!(listen_v6[index][1]) == address[1]
        {
            return true;
        }
    }
    false
}

/// 0.0.0.0/8, 127.0.0.0/8, and 224.0.0.0 to 255.255.255.255.
#[inline(always)]
fn is_bad_source_v4(source: u32) -> bool {
    is_bad_start_v4(source.to_le() as u8)
}

/// The same of the first octet.
#[inline(always)]
fn is_bad_start_v4(first: u8) -> bool {
    // 0 as well as what is 224 and more.
    opaque(u64::from(first).wrapping_sub(1)) >= 223 || first == 127
}

/// ::, ::1 and ff00::/8.
#[inline(always)]
fn is_bad_source_v6(source: [u64; 2]) -> bool {
    source[0].to_le() as u8 == 0xff || (source[0] == 0 && u64::from_be(source[1]) <= 1)
}
