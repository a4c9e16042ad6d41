//! `failover set`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use jiff::Timestamp;

use super::client::unexpected;
use super::status::addresses;
use super::text::{Cell, emphasis, left, of_state, table};
use super::{Cli, print, print_json};
use crate::health::{AdminState, Order};
use crate::protocol::{Reply, Request, SetResult, SetTarget};

/// Services listed, at most: more help nobody.
const MOST_SERVICES: usize = 20;

/// Reads an admin state.
pub(super) fn state() -> impl TypedValueParser<Value = AdminState> {
    let words = AdminState::ALL.map(AdminState::as_str);
    PossibleValuesParser::new(words).try_map(|word| word.parse::<AdminState>())
}

pub(super) fn set(args: &super::Set) -> Result<ExitCode> {
    let order = Order::new(args.state, args.lasting, args.reason.clone());
    let order = match order {
        Ok(order) => order,
        Err(error) => Cli::command()
            .error(ErrorKind::ArgumentConflict, error)
            .exit(),
    };
    let mut client = args.daemon.connect()?;
    let request = Request::Set {
        targets: args.targets.clone(),
        order,
    };
    let Reply::Set(result) = client.ask(&request)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&result)?;
    } else {
        print(&shown(&result, Timestamp::now())?)?;
    }
    if !result.saved {
        writeln!(
            io::stderr(),
            "failover: set, but not saved yet: a crash would forget it, see the daemon's log"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(result: &SetResult, now: Timestamp) -> Result<String, std::fmt::Error> {
    let rows = result.targets.iter().map(|target| {
        vec![
            Cell::from(target.target.clone()),
            change(target),
            Cell::from("effective"),
            of_state(target.effective),
            Cell::from(until(target, now)),
        ]
    });
    let mut text = table("", &rows.collect::<Vec<_>>());
    if result.services.is_empty() {
        return Ok(text);
    }
    text.push('\n');
    if !result.published {
        writeln!(
            text,
            "not published yet; `failover status` shows when it is"
        )?;
        return Ok(text);
    }
    // What has changed comes first, should there be too many.
    let (changed, same): (Vec<_>, Vec<_>) =
        result.services.iter().partition(|service| service.changed);
    let rows = changed.into_iter().chain(same).take(MOST_SERVICES);
    let rows = rows.map(|service| {
        vec![
            Cell::from(service.name.clone()),
            if service.changed {
                Cell::new("now", emphasis())
            } else {
                Cell::from("still")
            },
            Cell::from(addresses(&service.answer, &service.rcode)),
            Cell::from(service.reason.clone()),
        ]
    });
    text += &table("", &rows.collect::<Vec<_>>());
    if let Some(more @ 1..) = result.services.len().checked_sub(MOST_SERVICES) {
        writeln!(text, "… and {more} more services, see `failover status`")?;
    }
    Ok(text)
}

/// Old and new state.
fn change(target: &SetTarget) -> Cell {
    let SetTarget { before, admin, .. } = target;
    if target.changed {
        Cell::new(format!("{before} → {}", admin.state), emphasis())
    } else {
        Cell::from(format!("{} already", admin.state))
    }
}

fn until(target: &SetTarget, now: Timestamp) -> String {
    target.admin.until.map_or_else(String::new, |until| {
        let left = left(until, now);
        let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
        format!("until {until} ({left})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Generation;
    use crate::health::{Admin, Effective, Verdict};
    use crate::model::Tier;
    use crate::protocol::SetService;

    fn target(name: &str, before: AdminState, after: AdminState, changed: bool) -> SetTarget {
        SetTarget {
            target: name.to_owned(),
            before,
            changed,
            admin: after.into(),
            verdict: Verdict::Up,
            effective: Effective::Drain,
        }
    }

    fn service(name: &str, changed: bool) -> SetService {
        SetService {
            name: name.to_owned(),
            changed,
            tier: Some(Tier::Primary),
            reason: "why".to_owned(),
            answer: vec!["192.0.2.1".parse().unwrap()],
            rcode: "NOERROR".to_owned(),
        }
    }

    fn plain(result: &SetResult) -> String {
        let text = shown(result, Timestamp::UNIX_EPOCH).unwrap();
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_line_for_each() {
        let mut timed = target("www/web-a", AdminState::Auto, AdminState::Drain, true);
        timed.admin = Admin {
            until: Some(Timestamp::from_millisecond(7_200_400).unwrap()),
            ..timed.admin
        };
        let mut result = SetResult {
            generation: Generation(2),
            published: true,
            saved: true,
            targets: vec![
                timed,
                target("mail/b", AdminState::Drain, AdminState::Drain, false),
                target("wan/1", AdminState::Drain, AdminState::Drain, true),
            ],
            services: vec![service("mail", false), service("www", true)],
        };
        assert_eq!(
            plain(&result),
            "\
www/web-a  auto → drain   effective  drain  until 1970-01-01T02:00:00Z (2h00m)
mail/b     drain already  effective  drain
wan/1      drain → drain  effective  drain

www   now    192.0.2.1  why
mail  still  192.0.2.1  why
"
        );

        result.published = false;
        let text = plain(&result);
        assert!(text.contains("\nnot published yet"), "{text}");
        assert!(!text.contains("192.0.2.1"), "{text}");

        result.published = true;
        result.targets.clear();
        result.services = (0..25)
            .map(|n| service(&format!("s{n}"), n == 24))
            .collect();
        let text = plain(&result);
        assert!(text.starts_with("\ns24"), "{text}");
        assert_eq!(text.lines().count(), 1 + MOST_SERVICES + 1, "{text}");
        assert!(
            text.ends_with("… and 5 more services, see `failover status`\n"),
            "{text}"
        );
    }
}
