//! What a package has beside the daemon, made from the daemon's own command line.
//!
//! - [`manual`]: a page for each command, and that of the configuration file;
//! - [`completions`]: for bash, zsh and fish.
//!
//! The other directories beside this one hold what is written by hand: the systemd unit, Debian's
//! control files and maintainer scripts, the example configuration. `cargo xtask dist` puts
//! everything together.

pub mod completions;
pub mod manual;

/// The command line as users see it: without hidden commands, which every generator of
/// completions would offer.
#[must_use]
pub fn command() -> clap::Command {
    let whole = failover::cli::command();
    let visible: Vec<_> = whole
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .cloned()
        .collect();
    let arguments: Vec<_> = whole.get_arguments().cloned().collect();
    let about = whole.get_about().cloned().unwrap_or_default();
    clap::Command::new("failover")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .args(arguments)
        .subcommand_required(true)
        .subcommand_help_heading("COMMANDS")
        .disable_help_subcommand(true)
        .subcommands(visible)
}
