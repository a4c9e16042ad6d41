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

use failover_common::settings::MAX_LISTEN;

/// The kernel gives up at a million instructions, and a loaded machine should not have to get
/// near it. Older kernels tell apart fewer equal paths and process up to three times as many.
#[test]
fn the_verifier_has_little_to_do() {
    if !lab::privileged() {
        return;
    }
    let usual = lab::model();
    let mut most = lab::model();
    let last = 1..=MAX_LISTEN;
    most.settings.listen = last
        .clone()
        .map(|last| lab::ip(&format!("203.0.113.{last}")))
        .chain(last.map(|last| lab::ip(&format!("2001:db8::{last}"))))
        .collect();
    for model in [usual, most] {
        let addresses = model.settings.listen.len();
        let mut lab = lab::Lab::unpublished(model);
        let usual = lab.plane.program().expect("program").info();
        let rest = lab.plane.rest_program().expect("program").info();
        for info in [usual, rest] {
            let info = info.expect("info");
            let processed = info.verified_instruction_count();
            println!(
                "{}: {processed:?} instructions processed with {addresses} addresses",
                info.name_as_str().unwrap_or_default()
            );
            assert!(processed.is_none_or(|processed| processed < 333_000));
        }
    }
}
