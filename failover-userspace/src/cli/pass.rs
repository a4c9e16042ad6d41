//! `failover xdp-pass`: for the lab.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::runtime;

use super::print;
use super::run::stop_signal;
use crate::dataplane::attach_pass;

/// Keeps the program that passes everything on the interfaces until SIGTERM or SIGINT.
pub(super) fn pass(interfaces: &[String]) -> Result<ExitCode> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let attached = interfaces.iter().map(|interface| {
            attach_pass(interface).with_context(|| format!("interface {interface}"))
        });
        let attached: Vec<_> = attached.collect::<Result<_>>()?;
        print("ready\n")?;
        stop.await;
        drop(attached);
        Ok(ExitCode::SUCCESS)
    })
}
