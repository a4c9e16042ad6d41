//! Ethernet, IP and UDP: is this a datagram to the name server?

use aya_ebpf::programs::XdpContext;
use failover_common::{checksum::fold, counters::Counter, settings::MAX_LISTEN};

use crate::{
    maps::setting,
    packet::{self, Noise, load},
};

const ETHERNET_LEN: usize = 14;
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

const ETH_P_IP: u16 = 0x0800u16.to_be();
const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
const ETH_P_8021Q: u16 = 0x8100u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8u16.to_be();

/// A UDP datagram to our port at one of our addresses: where its parts lie.
///
/// One struct for IPv4 and IPv6, told apart by a number, so that the verifier goes through
/// what follows once.
pub(crate) struct Frame {
    /// Octets before the IP header: Ethernet with its tags.
    pub l2_len: usize,
    /// Octets of the IP header: [`IPV4_LEN`], without options, or [`IPV6_LEN`], without
    /// extension headers.
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

/// Parses the headers of the packet.
#[inline(always)]
pub(crate) fn parse(ctx: &XdpContext) -> Result<Frame, Counter> {
    let mut l2_len = ETHERNET_LEN;
    let mut ethertype: u16 = load(ctx, ETHERNET_LEN - 2).ok_or(Counter::PassedOther)?;
    if is_tag(ethertype) {
        l2_len += VLAN_TAG_LEN;
        ethertype = load(ctx, ETHERNET_LEN + 2).ok_or(Counter::PassedOther)?;
        if is_tag(ethertype) {
            l2_len += VLAN_TAG_LEN;
            ethertype = load(ctx, ETHERNET_LEN + 6).ok_or(Counter::PassedOther)?;
            if is_tag(ethertype) {
                return Err(Counter::PassedVlan);
            }
        }
    }
    match ethertype {
        ETH_P_IP => parse_v4(ctx, l2_len),
        ETH_P_IPV6 => parse_v6(ctx, l2_len),
        _ => Err(Counter::PassedOther),
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD
}

#[inline(always)]
fn parse_v4(ctx: &XdpContext, l2_len: usize) -> Result<Frame, Counter> {
    // Header and UDP header in one check.
    let headers: *const [u8; IPV4_LEN + UDP_LEN] =
        packet::at(ctx, l2_len).ok_or(Counter::PassedOther)?;
    macro_rules! field {
        ($at:literal as $type:ty) => {
            // SAFETY: within the headers that `at` checked; see there on alignment.
            unsafe { *headers.cast::<u8>().add($at).cast::<$type>() }
        };
    }
    // TTL, protocol, checksum; version to total length; identification and fragment.
    let ttl = field!(8 as u32);
    if (ttl.to_le() >> 8) as u8 != UDP {
        return Err(Counter::PassedOther);
    }
    let start = field!(0 as u32);
    if start.to_le() as u8 != 0x45 {
        return Err(Counter::PassedIpOptions);
    }
    let id = field!(4 as u32);
    if u32::from_be(id) & 0x3fff != 0 {
        return Err(Counter::PassedFragment);
    }
    let ports = [field!(20 as u16), field!(22 as u16)];
    if ports[1] != setting!(port) {
        return Err(Counter::PassedOther);
    }
    let addresses = field!(12 as u64).to_le();
    let addresses = [addresses as u32, (addresses >> 32) as u32];
    if !listens_v4(addresses[1]) {
        return Err(Counter::PassedNotOurs);
    }
    is_unicast(ctx)?;
    if ports[0] == 0 || is_bad_source_v4(addresses[0]) {
        return Err(Counter::PassedSource);
    }
    let sum = u64::from(start)
        + u64::from(id)
        + u64::from(ttl)
        + u64::from(addresses[0])
        + u64::from(addresses[1]);
    if fold(sum) != 0xffff {
        return Err(Counter::PassedChecksum);
    }
    let udp_len = usize::from(u16::from_be(field!(24 as u16)));
    let total_len = (u32::from_be(start) & 0xffff) as usize;
    finish(ctx, l2_len, IPV4_LEN, total_len, udp_len)
}

#[inline(always)]
fn parse_v6(ctx: &XdpContext, l2_len: usize) -> Result<Frame, Counter> {
    let next: u32 = load(ctx, l2_len + 4).ok_or(Counter::PassedOther)?;
    if (next.to_le() >> 16) as u8 != UDP {
        return Err(Counter::PassedOther);
    }
    let ports: [u16; 2] = [
        load(ctx, l2_len + IPV6_LEN).ok_or(Counter::PassedOther)?,
        load(ctx, l2_len + IPV6_LEN + 2).ok_or(Counter::PassedOther)?,
    ];
    if ports[1] != setting!(port) {
        return Err(Counter::PassedOther);
    }
    let words: *const [u64; 4] = packet::at(ctx, l2_len + 8).ok_or(Counter::PassedOther)?;
    // SAFETY: `at` checked all four words.
    let [s0, s1, d0, d1] = unsafe { [(*words)[0], (*words)[1], (*words)[2], (*words)[3]] };
    let (source, destination) = ([s0, s1], [d0, d1]);
    if !listens_v6(destination) {
        return Err(Counter::PassedNotOurs);
    }
    is_unicast(ctx)?;
    if ports[0] == 0 || is_bad_source_v6(source) {
        return Err(Counter::PassedSource);
    }
    let start: u32 = load(ctx, l2_len).ok_or(Counter::PassedOther)?;
    if start.to_le() as u8 >> 4 != 6 {
        return Err(Counter::PassedOther);
    }
    let lengths: u32 = load(ctx, l2_len + IPV6_LEN + 4).ok_or(Counter::PassedOther)?;
    if lengths.to_le() >> 16 == 0 {
        // RFC 8200 section 8.1: the UDP checksum is not optional.
        return Err(Counter::PassedChecksum);
    }
    let udp_len = usize::from(u16::from_be(lengths.to_le() as u16));
    let payload_len = usize::from(u16::from_be(next.to_le() as u16));
    finish(ctx, l2_len, IPV6_LEN, IPV6_LEN + payload_len, udp_len)
}

/// The lengths of frame, IP and UDP agree.
#[inline(always)]
fn finish(
    ctx: &XdpContext,
    l2_len: usize,
    ip_len: usize,
    total_len: usize,
    udp_len: usize,
) -> Result<Frame, Counter> {
    let len = packet::len(ctx);
    let used = l2_len + total_len;
    if total_len != ip_len + udp_len
        || !(UDP_LEN..LONGEST_DATAGRAM).contains(&udp_len)
        || (len != used && (len < used || len > LONGEST_PADDED))
    {
        return Err(Counter::PassedLength);
    }
    let noise = Noise::new(ctx).ok_or(Counter::PassedOther)?;
    let udp = noise.bound::<0x3f>(l2_len + ip_len);
    Ok(Frame {
        l2_len: noise.bound::<0x1f>(l2_len),
        ip_len: noise.bound::<0x3f>(ip_len),
        udp,
        dns: udp + UDP_LEN,
        message_len: noise.bound::<0xfff>(udp_len - UDP_LEN),
        len: noise.bound::<0x1fff>(len),
        noise,
    })
}

/// The frame was sent to one station.
#[inline(always)]
fn is_unicast(ctx: &XdpContext) -> Result<(), Counter> {
    let first: u8 = load(ctx, 0).ok_or(Counter::PassedOther)?;
    if first & 1 == 0 {
        Ok(())
    } else {
        Err(Counter::PassedMulticast)
    }
}

#[inline(always)]
fn listens_v4(address: u32) -> bool {
    for index in 0..MAX_LISTEN {
        if index as u32 >= setting!(listen_v4_len) {
            break;
        }
        if setting!(listen_v4[index]) == address {
            return true;
        }
    }
    false
}

#[inline(always)]
fn listens_v6(address: [u64; 2]) -> bool {
    for index in 0..MAX_LISTEN {
        if index as u32 >= setting!(listen_v6_len) {
            break;
        }
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
    let first = source.to_le() as u8;
    first == 0 || first == 127 || first >= 224
}

/// ::, ::1 and ff00::/8.
#[inline(always)]
fn is_bad_source_v6(source: [u64; 2]) -> bool {
    source[0].to_le() as u8 == 0xff || (source[0] == 0 && u64::from_be(source[1]) <= 1)
}
