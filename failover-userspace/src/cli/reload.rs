//! `failover reload`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::client::unexpected;
use super::text::{count, table};
use super::{print, print_json};
use crate::model::{Altered, Changes};
use crate::protocol::{Reloaded, Reply, Request};

/// A million names take seconds; checks of what is new may take as long as their timeout.
const PATIENCE: Duration = Duration::from_secs(900);
/// Names of a list that are shown to people.
const MOST_NAMES: usize = 10;

pub(super) fn reload(args: &super::Reload) -> Result<ExitCode> {
    let mut client = match (args.daemon.connect(), args.daemon.mistakes()) {
        (Ok(client), _) => client,
        // The daemon could not read it either.
        (Err(_), Some(errors)) => {
            let errors: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
            return refused(args, &errors);
        }
        (Err(error), None) => return Err(error),
    };
    client.wait_for(PATIENCE)?;
    match client.ask(&Request::Reload {})? {
        Reply::Reloaded(reloaded) => {
            if args.json {
                print_json(&reloaded)?;
            } else {
                print(&shown(&reloaded)?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Reply::NotReloaded(errors) => refused(args, &errors),
        _ => Err(unexpected()),
    }
}

fn refused(args: &super::Reload, errors: &[String]) -> Result<ExitCode> {
    if args.json {
        print_json(&json!({ "errors": errors }))?;
    } else {
        let mut out = io::stderr().lock();
        for error in errors {
            writeln!(out, "{error}")?;
        }
        writeln!(out, "failover: not reloaded: nothing has changed")?;
    }
    Ok(ExitCode::FAILURE)
}

fn shown(reloaded: &Reloaded) -> Result<String, std::fmt::Error> {
    let Reloaded {
        generation,
        difference,
        warnings,
    } = reloaded;
    let mut text = String::new();
    for warning in warnings {
        writeln!(text, "warning: {warning}")?;
    }
    if difference.is_empty() {
        writeln!(text, "nothing has changed")?;
        return Ok(text);
    }
    let mut rows = Vec::new();
    for (section, keys) in difference.sections() {
        if !keys.is_empty() {
            rows.push(vec![section.to_owned(), part(keys, "altered", ", ")]);
        }
    }
    for (kind, changes) in difference.kinds() {
        if !changes.is_empty() {
            rows.push(vec![kind.to_owned(), summary(changes)]);
        }
    }
    text += &table("", &rows);
    writeln!(text, "generation {generation}")?;
    Ok(text)
}

/// As in `1 added (api), 2 removed (old1, old2), 1 altered (www: ttl, servers)`.
fn summary(changes: &Changes) -> String {
    let altered = changes.altered.iter();
    let altered: Vec<_> = altered
        .map(|Altered { name, keys }| format!("{name}: {}", keys.join(", ")))
        .collect();
    let parts = [
        (&changes.added, "added", ", "),
        (&changes.removed, "removed", ", "),
        (&altered, "altered", "; "),
    ];
    let parts = parts.into_iter().filter(|(names, ..)| !names.is_empty());
    let parts: Vec<_> = parts
        .map(|(names, what, between)| part(names, what, between))
        .collect();
    parts.join(", ")
}

fn part(names: &[String], what: &str, between: &str) -> String {
    format!("{} {what} ({})", count(names.len()), list(names, between))
}

fn list(names: &[String], between: &str) -> String {
    let shown = &names[..names.len().min(MOST_NAMES)];
    let mut text = shown.join(between);
    let more = names.len() - shown.len();
    if more > 0 {
        let _ = write!(text, "{between}and {} more", count(more));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Generation;
    use crate::model::Difference;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn altered(name: &str, keys: &[&str]) -> Altered {
        Altered {
            name: name.to_owned(),
            keys: names(keys),
        }
    }

    #[test]
    fn what_has_changed_is_said() {
        let many: Vec<String> = (0..10_000).map(|number| format!("s{number}")).collect();
        let reloaded = Reloaded {
            generation: Generation(7),
            difference: Difference {
                settings: names(&["listen", "nsid"]),
                services: Changes {
                    added: names(&["api"]),
                    removed: names(&["old1", "old2"]),
                    altered: vec![altered("www", &["ttl", "servers"]), altered("x", &["fqdn"])],
                },
                servers: Changes {
                    added: many,
                    ..Changes::default()
                },
                ..Difference::default()
            },
            warnings: names(&["zone example.com: beware"]),
        };
        let want = "\
warning: zone example.com: beware
settings  2 altered (listen, nsid)
services  1 added (api), 2 removed (old1, old2), 2 altered (www: ttl, servers; x: fqdn)
servers   10 000 added (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, and 9 990 more)
generation 7
";
        assert_eq!(shown(&reloaded).unwrap(), want);
        let unchanged = Reloaded {
            difference: Difference::default(),
            ..reloaded
        };
        let want = "warning: zone example.com: beware\nnothing has changed\n";
        assert_eq!(shown(&unchanged).unwrap(), want);
    }
}
