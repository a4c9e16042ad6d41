//! The two-instruction XDP program that the far ends of the daemon's interfaces need: a frame
//! that native XDP sends back over veth (`XDP_TX`) arrives only if the peer runs XDP as well.
//!
//! Raw system calls, so that the lab needs neither aya nor a BPF compiler.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::netns::Netns;

/// `r0 = XDP_PASS; exit`: opcode, registers, offset (2 bytes), immediate (4 bytes).
const PASS: [[u8; 8]; 2] = [mov64_r0(2), [0x95, 0, 0, 0, 0, 0, 0, 0]];

const fn mov64_r0(value: i32) -> [u8; 8] {
    let [a, b, c, d] = value.to_ne_bytes();
    [0xb7, 0, 0, 0, a, b, c, d]
}

const LICENSE: &CStr = c"Dual MIT/GPL";

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// An `XDP_PASS` program on an interface; gone when this is dropped, or our process is.
#[derive(Debug)]
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// Attaches the program in native mode.
    ///
    /// # Errors
    ///
    /// When there is no such interface, its driver has no XDP, or for want of privileges.
    pub fn attach(netns: &Netns, interface: &str) -> Result<Self> {
        netns
            .enter(|| {
                let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
                let index = netdevice::name_to_index(any.as_fd(), interface)?;
                Ok(Self {
                    _link: link(load()?, index)?,
                })
            })
            .with_context(|| format!("cannot attach XDP_PASS to {interface} in {}", netns.name()))
    }
}

fn load() -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..8].copy_from_slice(b"lab_pass");
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: 2,
        insns: PASS.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: BPF_XDP,
    };
    // SAFETY: the command reads a `ProgLoad`, whose pointers are to constants of the lengths it
    // states, and returns a new descriptor.
    unsafe { bpf(BPF_PROG_LOAD, &attr) }
}

fn link(program: OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: interface,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the command reads a `LinkCreate` and returns a new descriptor.
    let link = unsafe { bpf(BPF_LINK_CREATE, &attr) };
    // The link holds the program from here on.
    drop(program);
    link
}

/// bpf(2), for commands that return a descriptor.
///
/// # Safety
///
/// `attr` is the attribute that `command` reads, every pointer in it is valid as the command
/// wants it, and the command returns a new descriptor.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    let attr: *const T = attr;
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `attr`; the caller vouches for the rest.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
