//! The XDP program: answers DNS queries for configured names, passes everything else.
//!
//! A packet goes through [`frame`] (Ethernet, IP, UDP), [`query`] (DNS header, question,
//! OPT), [`lookup`] (name, service, answer) and [`reply`] (the one place that changes a
//! packet), unless [`usual`] has answered it already. Each of them fails with the [`Counter`] that names
//! the reason; this file alone turns results into verdicts. [`maps`] holds every map and the rule of
//! their concurrency.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    reason = "as the xdp macro wants its functions, and makes them"
)]

mod frame;
mod headers;
mod lookup;
mod maps;
mod nodes;
mod packet;
mod query;
mod reply;
mod usual;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::error;
use failover_common::counters::Counter;

use packet::Window;
use usual::Outcome;

/// Why a packet is not answered.
enum Stop {
    /// It goes up the stack, unchanged.
    Pass(Counter),
    /// It was changed and cannot be completed: an error of this program.
    Broken,
}

/// Answers queries for the names of the snapshot: the usual ones at once. All else is the business
/// of [`failover_rest`].
#[xdp]
#[inline(always)]
fn failover(ctx: XdpContext) -> u32 {
    match usual::answer(&ctx, Window::new(&ctx)) {
        Outcome::Answered => verdict(&ctx, Ok(Counter::Answered)),
        Outcome::Outside => verdict(&ctx, Err(Stop::Pass(Counter::PassedName))),
        Outcome::Unusual => {
            // SAFETY: nothing is held that would have to be dropped; the other program is one of XDP,
            // too.
            unsafe { maps::REST.tail_call(&ctx, 0) };
            verdict(&ctx, Err(Stop::Pass(Counter::PassedStale)))
        }
        Outcome::Broken => verdict(&ctx, Err(Stop::Broken)),
    }
}

/// Answers what is not usual. A program of its own: the verifier has less to do with each of them, and
/// the compiler more registers for each.
#[xdp]
#[inline(always)]
fn failover_rest(ctx: XdpContext) -> u32 {
    verdict(&ctx, answer(&ctx))
}

/// Counts a packet, and returns what becomes of it.
#[inline(always)]
fn verdict(ctx: &XdpContext, result: Result<Counter, Stop>) -> u32 {
    match result {
        Ok(counter) => {
            maps::count(counter);
            xdp_action::XDP_TX
        }
        Err(Stop::Pass(counter)) => {
            maps::count(counter);
            xdp_action::XDP_PASS
        }
        Err(Stop::Broken) => {
            error!(ctx, "reply could not be completed");
            xdp_action::XDP_ABORTED
        }
    }
}

/// Runs the program that user space has put behind it. On the interfaces only while one program
/// takes the place of another: what is behind is replaced for all of them at once.
#[xdp]
fn failover_bridge(ctx: XdpContext) -> u32 {
    // SAFETY: nothing is held that would have to be dropped; the other program is one of XDP, too.
    unsafe { maps::BRIDGE.tail_call(&ctx, 0) };
    xdp_action::XDP_PASS
}

/// Passes everything: what the far end of a veth needs to receive native `XDP_TX`.
#[xdp]
fn failover_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Writes the kernel's ticks, which user space cannot see otherwise, into the packet. Never attached.
#[xdp]
fn failover_ticks(ctx: XdpContext) -> u32 {
    match packet::store(&ctx, 0, packet::ticks()) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn answer(ctx: &XdpContext) -> Result<Counter, Stop> {
    // The call for room, even if it fails, makes pointers into the packet invalid.
    let datagram = frame::parse(Window::new(ctx)).map_err(Stop::Pass)?;
    let frame = frame::locate(ctx, &datagram).map_err(Stop::Pass)?;
    let query = query::parse(ctx, &frame).map_err(Stop::Pass)?;
    let found = lookup::find(ctx, &frame, &query).map_err(Stop::Pass)?;
    reply::send(ctx, &frame, &query, &found)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// What the kernel is told: MIT (or Apache-2.0), and GPL-compatible for its helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
