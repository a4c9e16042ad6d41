//! Gives up what the daemon does not need.
//!
//! Capabilities belong to threads, so this happens while there is only one. Kept are
//!
//! - `CAP_BPF`, `CAP_NET_ADMIN`: loading the program, and attaching it again to an
//!   interface that comes back,
//! - `CAP_PERFMON`: the verifier's full knowledge of the program while it is loaded; given up
//!   after that, but for the thread that loads it again on a reload,
//! - `CAP_NET_RAW`: ICMP probes, and probes bound to an interface,
//! - `CAP_NET_BIND_SERVICE`: port 53, opened with the first publication.
//!
//! Programs of checks get none of them; `nft`, which a thread of its own starts, gets
//! `CAP_NET_ADMIN` alone.
//!
//! Not kept is, among others, `CAP_DAC_OVERRIDE`: even root reads the configuration and
//! writes its state and socket by the permissions of files alone.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    set_capabilities, set_no_new_privs,
};

/// Before the program is loaded.
const TO_LOAD: CapabilitySet = TO_RUN.union(CapabilitySet::PERFMON);
/// From then on.
const TO_RUN: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Keeps what loading and running need, and no program we start ever gets more.
///
/// # Errors
///
/// What the kernel says.
pub fn keep_to_load() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(TO_LOAD)
}

/// Keeps nothing, on this thread: what it starts has no capability either, though it be root.
///
/// # Errors
///
/// What the kernel says.
pub fn keep_nothing() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(CapabilitySet::empty())
}

/// Keeps the right to change the network, on this thread, and gives it to the programs that it
/// starts: though they be root, they have nothing else, and though they be not, they have this.
///
/// # Errors
///
/// What the kernel says.
pub fn keep_to_configure_network() -> io::Result<()> {
    set_no_new_privs(true)?;
    keep(CapabilitySet::NET_ADMIN)?;
    let permitted = capabilities(None)?.permitted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable: permitted,
        },
    )?;
    // Where that is forbidden, or there is nothing to give: root's programs do not need it, and
    // others say what they lack.
    let _ = configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true);
    Ok(())
}

/// Keeps what running needs. Threads started earlier keep what they had.
///
/// # Errors
///
/// What the kernel says.
pub fn keep_to_run() -> io::Result<()> {
    keep(TO_RUN)
}

fn keep(wanted: CapabilitySet) -> io::Result<()> {
    let permitted = capabilities(None)?.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_configure_the_network_and_no_more() {
        std::thread::spawn(|| {
            let before = capabilities(None).unwrap().permitted;
            keep_to_configure_network().unwrap();
            let wanted = (before & CapabilitySet::NET_ADMIN).bits();
            let mut cat = std::process::Command::new("cat");
            let status = cat.arg("/proc/self/status").output().unwrap();
            let status = String::from_utf8(status.stdout).unwrap();
            for set in ["CapPrm", "CapEff"] {
                let line = format!("{set}:\t{wanted:016x}\n");
                assert!(status.contains(&line), "no {line:?} in {status}");
            }
            assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_kept_shrinks() {
        // On a thread of its own: capabilities belong to threads.
        std::thread::spawn(|| {
            let before = capabilities(None).unwrap().permitted;
            for (step, wanted) in [
                (keep_to_load as fn() -> io::Result<()>, TO_LOAD),
                (keep_to_run, TO_RUN),
                (keep_nothing, CapabilitySet::empty()),
            ] {
                step().unwrap();
                let after = capabilities(None).unwrap();
                assert_eq!(
                    (after.permitted, after.effective),
                    (before & wanted, before & wanted)
                );
                assert!(after.inheritable.is_empty());
            }
            assert!(rustix::thread::no_new_privs().unwrap());
        })
        .join()
        .unwrap();
    }
}
