//! Manual pages: of the commands, from the command line; of the configuration, written by hand.

use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;

/// failover.toml(5), but for version and date.
pub const CONFIGURATION: &str = include_str!("../manual/failover.toml.5");

/// failover(8), but for version, date and the list of commands.
const DAEMON: &str = include_str!("../manual/failover.8");

/// Where in these pages the list of commands goes.
const COMMANDS: &str = "@COMMANDS@\n";

/// The end of the other commands' pages.
const SEE_ALSO: &str = ".SH \"SEE ALSO\"\n.BR failover (8),\n.BR failover.toml (5)\n";

/// Writes the pages, of that date, into `man5` and `man8` below `man`.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write(man: &Path, date: &str) -> Result<()> {
    let (man5, man8) = (man.join("man5"), man.join("man8"));
    fs::create_dir_all(&man5)?;
    fs::create_dir_all(&man8)?;
    fs::write(man5.join("failover.toml.5"), dated(CONFIGURATION, date))?;

    let mut command = crate::command();
    command.build();
    let mut list = Vec::new();
    page(&command, date).render_subcommands_section(&mut list)?;
    let text = dated(DAEMON, date).replace(COMMANDS, &String::from_utf8(list)?);
    fs::write(man8.join("failover.8"), text)?;
    for command in command.get_subcommands() {
        let mut text = Vec::new();
        page(command, date).render(&mut text)?;
        text.extend(SEE_ALSO.as_bytes());
        fs::write(
            man8.join(format!("failover-{}.8", command.get_name())),
            text,
        )?;
    }
    Ok(())
}

fn page(command: &Command, date: &str) -> Man {
    Man::new(command.clone())
        .section("8")
        .date(date)
        .source(concat!("Failover ", env!("CARGO_PKG_VERSION")))
        .manual("System administration")
}

fn dated(page: &str, date: &str) -> String {
    page.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@DATE@", date)
}
