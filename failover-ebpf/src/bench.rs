//! What `cargo xtask bench` compares the XDP program with, and what hands out the packets.
//!
//! `BPF_PROG_TEST_RUN` with a repeat count gives every turn the buffer as the turn before
//! left it: a responder would be asked its own reply. So the program that is run is
//! [`wrapper`]: it makes the buffer a fresh query again and tail-calls the program under
//! test. What the wrapper costs is measured with [`empty`] and subtracted.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    reason = "as the xdp macro wants its functions, and makes them"
)]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, HashMap, PerCpuArray, ProgramArray},
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_store_bytes},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use failover_common::{
    bench::{MAX_TEMPLATES, Run, TEMPLATE_LEN, Template, TextbookKey, TextbookRecord},
    checksum::fold,
};

/// The program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// What is asked.
#[btf_map]
static TEMPLATES: Array<Template, MAX_TEMPLATES> = Array::new();
/// The state of the measurement.
#[btf_map]
static RUN: Array<Run, 1> = Array::new();
/// What [`textbook`] answers; its size is set by the loader.
#[btf_map]
static RECORDS: HashMap<TextbookKey, TextbookRecord, 1> = HashMap::new();

/// How many replies came to [`sink`].
#[btf_map]
static REPLIES: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Makes the buffer a fresh query and hands it to the program under test.
#[xdp]
fn wrapper(ctx: XdpContext) -> u32 {
    if restore(&ctx).is_some() {
        // SAFETY: nothing here waits to be dropped.
        unsafe { TARGET.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Puts the next template where the first frame lay, with the headroom that it had.
///
/// Calls the same helpers on every turn, whatever the program under test did to the size:
/// giving room back costs no more than changing nothing.
#[inline(always)]
fn restore(ctx: &XdpContext) -> Option<()> {
    let run = RUN.get_ptr_mut(0)?;
    // SAFETY: a map value of ours; measurements run on one thread.
    let (shift, next) = unsafe {
        // A pointer stored in a map is loaded as a number, and numbers can be compared with
        // those of earlier turns.
        let start = &raw mut (*run).start;
        start.write_volatile(ctx.data() as u64);
        let start = start.read_volatile();
        if (*run).origin == 0 {
            (*run).origin = start;
        }
        let next = (*run).next;
        (*run).next = if next + 1 < (*run).templates {
            next + 1
        } else {
            0
        };
        ((*run).origin.wrapping_sub(start) as i32, next)
    };
    let template = TEMPLATES.get(next as u32)?;
    let len = template.len as u32;
    // SAFETY: the context is ours; packet pointers are made anew afterwards.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, shift) } != 0 {
        return None;
    }
    let growth = len as i32 - frame_len(ctx);
    // SAFETY: as above.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, growth) } != 0 {
        return None;
    }
    if len == 0 || len as usize > TEMPLATE_LEN {
        return None;
    }
    // SAFETY: `len` octets of the template.
    if unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, template.bytes.as_ptr().cast_mut().cast(), len) }
        != 0
    {
        return None;
    }
    // An atomic addition also waits until all that was written has reached the cache. Else
    // the program under test would pay for reading what is still on the way there, which no
    // packet from a network card is.
    // SAFETY: an aligned word of the map value. The BPF target has no atomic operations in
    // `core`.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({turns} + 0) += {one}",
            turns = in(reg) &raw mut (*run).turns,
            one = in(reg) 1u64,
            options(nostack)
        );
    }
    Some(())
}

/// Nothing: what the wrapper and the call cost.
#[xdp]
fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The least that a responder can do: addresses and ports swapped, and back.
#[xdp]
fn bare(ctx: XdpContext) -> u32 {
    match swap(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

/// The same with a reply that is longer than the query.
#[xdp]
fn grow(ctx: XdpContext) -> u32 {
    match swap(&ctx) {
        // SAFETY: the context is ours; no packet pointer is used any more.
        Some(()) if unsafe { bpf_xdp_adjust_tail(ctx.ctx, 64) } == 0 => xdp_action::XDP_TX,
        _ => xdp_action::XDP_PASS,
    }
}

const ETH_P_IP: u16 = 0x0800u16.to_be();
const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
const ETH_P_8021Q: u16 = 0x8100u16.to_be();
const UDP: u8 = 17;
const DNS_PORT: u16 = 53u16.to_be();

/// A pointer to the `T` at `offset`, if it lies wholly within the packet.
#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}

/// Octets of the frame.
#[inline(always)]
fn frame_len(ctx: &XdpContext) -> i32 {
    let mut len = ctx.data_end() - ctx.data();
    // The verifier accepts the end less the start, but not what the optimiser would make of a
    // longer sum.
    // SAFETY: the register comes out as it went in.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) len, options(pure, nomem, nostack)) };
    len as i32
}

/// Swaps MAC addresses, IP addresses and ports of a datagram to the DNS port.
#[inline(always)]
fn swap(ctx: &XdpContext) -> Option<()> {
    // SAFETY: `at` checked the place.
    let ethertype = |offset| at::<u16>(ctx, offset).map(|place| unsafe { *place });
    match ethertype(12)? {
        ETH_P_8021Q => match ethertype(16)? {
            ETH_P_IP => swap_at::<18, 9, 12, 1, 20>(ctx),
            ETH_P_IPV6 => swap_at::<18, 6, 8, 4, 40>(ctx),
            _ => None,
        },
        ETH_P_IP => swap_at::<14, 9, 12, 1, 20>(ctx),
        ETH_P_IPV6 => swap_at::<14, 6, 8, 4, 40>(ctx),
        _ => None,
    }
}

/// [`swap`] for an IP header at `IP` with the protocol at `PROTOCOL` and addresses of `WORDS`
/// 32-bit words at `ADDRESSES`, `LEN` octets long.
#[inline(always)]
fn swap_at<
    const IP: usize,
    const PROTOCOL: usize,
    const ADDRESSES: usize,
    const WORDS: usize,
    const LEN: usize,
>(
    ctx: &XdpContext,
) -> Option<()> {
    let ports = at::<[u16; 2]>(ctx, IP + LEN)?;
    let start = ctx.data() as *mut u8;
    // SAFETY: all of it lies before the ports, which `at` checked.
    unsafe {
        if *start.add(IP + PROTOCOL) != UDP || (*ports)[1] != DNS_PORT {
            return None;
        }
        let macs = start.cast::<[[u16; 3]; 2]>();
        *macs = [(*macs)[1], (*macs)[0]];
        let addresses = start.add(IP + ADDRESSES).cast::<[[u32; WORDS]; 2]>();
        *addresses = [(*addresses)[1], (*addresses)[0]];
        *ports = [(*ports)[1], (*ports)[0]];
    }
    Some(())
}

/// What an ordinary XDP DNS server does, as several published ones do it: over IPv4 without
/// tags, A only, case-sensitive, one address.
#[xdp]
fn textbook(ctx: XdpContext) -> u32 {
    match answer(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

const IP: usize = 14;
const UDP_AT: usize = IP + 20;
const DNS: usize = UDP_AT + 8;
const QUESTION: usize = DNS + 12;

/// An A record owned by the question's name.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct ARecord {
    owner: u16,
    rtype: u16,
    class: u16,
    ttl: u32,
    len: u16,
    address: u32,
}

/// An OPT record without options.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Opt {
    owner: u8,
    rtype: u16,
    size: u16,
    ttl: u32,
    len: u16,
}

/// A key that can be cleared in words.
#[repr(align(8))]
struct AlignedKey(TextbookKey);

#[inline(always)]
fn answer(ctx: &XdpContext) -> Option<()> {
    let headers = at::<[u8; QUESTION]>(ctx, 0)?.cast::<u8>();
    // SAFETY: within the headers, which `at` checked.
    let has_opt = unsafe {
        let half = |offset| *headers.add(offset).cast::<u16>();
        if half(12) != ETH_P_IP
            || *headers.add(IP) != 0x45
            || *headers.add(IP + 9) != UDP
            || half(UDP_AT + 2) != DNS_PORT
            // QR and opcode clear, one question.
            || *headers.add(DNS + 2) & 0xf8 != 0
            || half(DNS + 4) != 1u16.to_be()
        {
            return None;
        }
        half(DNS + 10) != 0
    };

    let mut key = MaybeUninit::<AlignedKey>::uninit();
    let words = key.as_mut_ptr().cast::<u64>();
    for word in 0..size_of::<AlignedKey>() / 8 {
        // Volatile: else it becomes a call of a function that clears one octet at a time,
        // which no C compiler would do.
        // SAFETY: within the key.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: all of it was written, and every bit pattern is valid.
    let AlignedKey(key) = unsafe { key.assume_init_mut() };
    let end = ctx.data_end();
    let mut cursor = ctx.data() + QUESTION;
    let mut name_len = 0;
    for octet in &mut key.name[..255] {
        if cursor + 1 > end {
            return None;
        }
        // SAFETY: checked above.
        *octet = unsafe { *(cursor as *const u8) };
        cursor += 1;
        name_len += 1;
        if *octet == 0 {
            break;
        }
    }
    if cursor + 4 > end {
        return None;
    }
    // SAFETY: checked above.
    [key.qtype, key.class] = unsafe { *(cursor as *const [u16; 2]) };
    let key: &TextbookKey = key;
    // SAFETY: a copy is made at once, of a value that nobody writes during a measurement.
    let record = unsafe { *RECORDS.get(key)? };

    let records = QUESTION + name_len + 4;
    let len = records + size_of::<ARecord>() + if has_opt { size_of::<Opt>() } else { 0 };
    let growth = len as i32 - frame_len(ctx);
    // SAFETY: the context is ours; packet pointers are made anew below.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, growth) } != 0 {
        return None;
    }

    let answer = ARecord {
        owner: 0xc00cu16.to_be(),
        rtype: 1u16.to_be(),
        class: 1u16.to_be(),
        ttl: record.ttl,
        len: 4u16.to_be(),
        address: record.address,
    };
    let opt = Opt {
        owner: 0,
        rtype: 41u16.to_be(),
        size: 512u16.to_be(),
        ttl: 0,
        len: 0,
    };
    // SAFETY: `at` checked the places.
    unsafe {
        *at::<ARecord>(ctx, records)? = answer;
        if has_opt {
            *at::<Opt>(ctx, records + size_of::<ARecord>())? = opt;
        }
        // Flags, question and answer, no authority.
        let header = at::<[u16; 6]>(ctx, DNS)?;
        (*header)[1] = 0x8400u16.to_be() | (*header)[1] & 0x0100u16.to_be();
        (*header)[3] = 1u16.to_be();
        (*header)[5] = u16::from(has_opt).to_be();
    }
    swap_at::<IP, 9, 12, 1, 20>(ctx)?;
    // SAFETY: `at` checked the places.
    unsafe {
        let udp = at::<[u16; 4]>(ctx, UDP_AT)?;
        (*udp)[2] = ((len - UDP_AT) as u16).to_be();
        (*udp)[3] = 0;
        let header = at::<[u16; 10]>(ctx, IP)?;
        (*header)[1] = ((len - IP) as u16).to_be();
        (*header)[4] = 0x4011u16.to_be();
        (*header)[5] = 0;
        let mut sum = 0;
        for word in &*header {
            sum += u64::from(*word);
        }
        (*header)[5] = !fold(sum);
    }
    Some(())
}

/// Transmits the next template. Run with live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) it is a
/// generator of queries that leave by an interface. All templates have the frame's length.
#[xdp]
fn flood(ctx: XdpContext) -> u32 {
    match write_template(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// The frame comes back from the pool with the reply in it, so all of it is written anew.
#[inline(always)]
fn write_template(ctx: &XdpContext) -> Option<()> {
    let run = RUN.get_ptr_mut(0)?;
    // SAFETY: a map value of ours; one thread generates.
    let next = unsafe {
        let next = (*run).next;
        (*run).next = if next + 1 < (*run).templates {
            next + 1
        } else {
            0
        };
        next
    };
    let template = TEMPLATES.get(next as u32)?;
    let len = template.len as u32;
    if len == 0 || len as usize > TEMPLATE_LEN {
        return None;
    }
    // SAFETY: `len` octets of the template.
    let written =
        unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, template.bytes.as_ptr().cast_mut().cast(), len) };
    (written == 0).then_some(())
}

/// Counts replies over IPv4 and drops them, so that a generator takes as little as it can from
/// the machine that the server needs; passes everything else.
#[xdp]
fn sink(ctx: XdpContext) -> u32 {
    match count_reply(&ctx) {
        Some(()) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn count_reply(ctx: &XdpContext) -> Option<()> {
    let ports = at::<[u16; 2]>(ctx, UDP_AT)?;
    let start = ctx.data() as *const u8;
    // SAFETY: all of it lies before the ports, which `at` checked.
    let is_reply = unsafe {
        *start.add(12).cast::<u16>() == ETH_P_IP
            && *start.add(IP + 9) == UDP
            && (*ports)[0] == DNS_PORT
    };
    let replies = REPLIES.get_ptr_mut(0)?;
    if is_reply {
        // SAFETY: this CPU's value; XDP programs do not interrupt each other on one CPU.
        unsafe { *replies += 1 };
    }
    is_reply.then_some(())
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// See the license of the program that is measured.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
