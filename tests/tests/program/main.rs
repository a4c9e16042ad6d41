//! The XDP program under `BPF_PROG_TEST_RUN`: packets in, packets out.

mod answers;
mod differential;
mod flip;
mod lab;
mod layout;
mod mutations;
mod names;
mod packet;
mod passes;
mod publication;
mod rotation;
mod succession;

/// The kernel gives up at a million instructions, and a loaded machine should not have to get
/// near it. Older kernels tell apart fewer equal paths and process up to three times as many.
#[test]
fn the_verifier_has_little_to_do() {
    if !lab::privileged() {
        return;
    }
    let mut lab = lab::Lab::usual();
    let info = lab.plane.program().expect("program").info().expect("info");
    let processed = info.verified_instruction_count();
    println!("{processed:?} instructions processed");
    assert!(processed.is_none_or(|processed| processed < 333_000));
}
