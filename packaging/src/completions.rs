//! Completions for shells, each in the file where its shell looks for it.

use std::fs;
use std::path::Path;

use anyhow::Result;
use clap_complete::{Shell, generate};

/// The shells, and where below `/usr/share` their completions are looked for.
const FILES: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/failover"),
    (Shell::Zsh, "zsh/vendor-completions/_failover"),
    (Shell::Fish, "fish/vendor_completions.d/failover.fish"),
];

/// Writes the completions below `share`.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write(share: &Path) -> Result<()> {
    for (shell, file) in FILES {
        let file = share.join(file);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut text = Vec::new();
        generate(shell, &mut crate::command(), "failover", &mut text);
        fs::write(file, text)?;
    }
    Ok(())
}
