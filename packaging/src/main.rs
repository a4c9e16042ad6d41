//! `failover-documents DIR DATE`: writes manual pages and completions as they stand below
//! `/usr/share`. The date is that of the pages, as in 2026-11-22.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use failover_packaging::{completions, manual};

fn main() -> Result<()> {
    let usage = "usage: failover-documents DIR DATE";
    let mut arguments = std::env::args_os().skip(1);
    let share = arguments.next().map(PathBuf::from).context(usage)?;
    let date = arguments.next().and_then(|date| date.into_string().ok());
    manual::write(&share.join("man"), &date.context(usage)?)?;
    completions::write(&share)
}
