//! `failover stats`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::client::unexpected;
use super::text::{header, table};
use super::{print, print_json};
use crate::protocol::{Reply, Request, Stats};

pub(super) fn stats(args: &super::Stats) -> Result<ExitCode> {
    let mut client = args.daemon.connect()?;
    let Reply::Stats(stats) = client.ask(&Request::Stats {})? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&stats)?;
    } else {
        print(&shown(&stats)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(stats: &Stats) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "generation {}\n", stats.generation)?;

    let mut rows = vec![header(["PACKETS", "COUNT"])];
    let counters = stats.counters.iter();
    rows.extend(counters.map(|(name, count)| vec![name.clone(), count.to_string()]));
    text += &table("", &rows);

    let mut rows = vec![header(["SLOW PATH", "COUNT"])];
    let counters = stats.slow_path.iter();
    rows.extend(counters.map(|(name, count)| vec![name.clone(), count.to_string()]));
    text += "\n";
    text += &table("", &rows);

    let mut rows = vec![header(["SERVICE", "A", "AAAA"])];
    rows.extend(stats.services.iter().map(|service| {
        vec![
            service.name.clone(),
            service.a.to_string(),
            service.aaaa.to_string(),
        ]
    }));
    text += "\n";
    text += &table("", &rows);

    let mut rows = vec![header(["PROBES", "OUTCOME", "COUNT"])];
    for (kind, outcomes) in &stats.probes {
        let outcomes = outcomes.iter();
        rows.extend(
            outcomes.map(|(outcome, count)| vec![kind.clone(), outcome.clone(), count.to_string()]),
        );
    }
    text += "\n";
    text += &table("", &rows);

    let rows = [
        header(["EVENTS", "COUNT"]),
        vec!["recorded".to_owned(), stats.journal.recorded.to_string()],
        vec!["lost".to_owned(), stats.journal.lost.to_string()],
    ];
    text += "\n";
    text += &table("", &rows);

    if !stats.webhooks.is_empty() {
        let mut rows = vec![header([
            "WEBHOOK", "SENT", "FAILED", "DROPPED", "RETRIES", "QUEUED",
        ])];
        rows.extend(stats.webhooks.iter().map(|webhook| {
            let counts = [
                webhook.sent,
                webhook.failed,
                webhook.dropped,
                webhook.retries,
                webhook.queued,
            ];
            let counts = counts.iter().map(ToString::to_string);
            std::iter::once(webhook.name.clone())
                .chain(counts)
                .collect()
        }));
        text += "\n";
        text += &table("", &rows);
    }
    Ok(text)
}
