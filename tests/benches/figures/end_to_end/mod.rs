//! Replies per second over veth, and what they cost: ours, the least that XDP can do, and other
//! name servers, with the same names, each asked by the same generators.
//!
//! The name server's host and its upstream router are joined by one veth pair. Received frames are
//! handled by a kernel thread (threaded NAPI), so that the server's share of the kernel's work can
//! be told from the generator's: CPU time is that of this thread and of all processes on the
//! server's host. Replies are counted on the server's interface as well as by the generator.

mod generators;
mod napi;
mod servers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use failover_tests::charts::{Bar, Chart, Scale};
use failover_tests::figures::{Cell, Quartiles, Table};
use failover_tests::lab::{Host, Lab};
use failover_tests::peers;

use crate::Context;
use generators::{Generator, Ready};
pub(crate) use generators::{queries_file, write_queries};
pub(crate) use servers::{Running, Server, prepare};

/// How much is measured.
struct Effort {
    rounds: u32,
    seconds: u32,
}

/// One run of a generator.
struct Run {
    replies_per_second: f64,
    /// Of the queries that were sent.
    answered_percent: f64,
    /// Replies that left the server's interface, per second.
    counted_per_second: f64,
    /// CPU seconds of the server for a million replies.
    cpu_per_million: f64,
    /// How busy the kernel thread that receives is.
    receiver_busy_percent: f64,
}

/// Every server that there is, asked by every generator that there is.
pub(crate) fn run(context: &Context) -> Result<Vec<Table>> {
    let effort = if context.quick {
        Effort {
            rounds: 1,
            seconds: 1,
        }
    } else {
        Effort {
            rounds: 3,
            seconds: 2,
        }
    };
    let Effort { rounds, seconds } = effort;
    let mut table = Table::new(
        format!("End to end: replies over veth, median of {rounds} rounds of {seconds} s"),
        &[
            "server",
            "generator",
            "replies/s",
            "by failover",
            "answered %",
            "counted at the server/s",
            "CPU s per million",
            "receiver busy %",
        ],
    );
    table.chart(Chart {
        name: "end-to-end".to_owned(),
        title: "Replies per second, end to end".to_owned(),
        subtitle: format!(
            "100 names, A with EDNS, over one veth pair, median of {rounds} rounds; more is \
             better. bare: an XDP program that only swaps addresses, the limit. Compare servers \
             that are asked by the same generator."
        ),
        section: Some("asked by {generator}".into()),
        label: "{server}".into(),
        bars: vec![Bar::new("replies/s", "replies")],
        unit: "replies per second".to_owned(),
        scale: Scale::Linear,
        rows: None,
        emphasis: Some("failover".to_owned()),
    });
    let mut is_installed = |program: Option<&str>| {
        let why = program.and_then(peers::missing);
        let installed = why.is_none();
        why.into_iter().for_each(|why| table.leave_out(why));
        installed
    };
    let mut servers = Server::ALL.to_vec();
    servers.retain(|server| is_installed(server.program()));
    let mut generators = Generator::ALL.to_vec();
    generators.retain(|generator| is_installed(generator.program()));
    table.leave_out("bare by dnsperf: it sends the query back, which dnsperf takes for no reply");
    table.leave_out(
        "servers that use sockets by live frames: the generator takes one CPU and the kernel's \
         receiving the other, which on two leaves them no time to answer",
    );

    let mut lab = context.lab(&[])?;
    prepare(&lab)?;
    let mut runs: BTreeMap<(Server, Generator), Vec<Run>> = BTreeMap::new();
    let mut rates: BTreeMap<(Server, Generator), Vec<u32>> = BTreeMap::new();
    for round in 0..rounds {
        for &server in &servers {
            context.progress(&format!("round {} of {rounds}: {server}", round + 1));
            let running =
                Running::start(context, &lab, server).with_context(|| format!("start {server}"))?;
            for &generator in &generators {
                if !generator.suits(server) {
                    continue;
                }
                let pair = (server, generator);
                let rates = rates
                    .entry(pair)
                    .or_insert_with(|| generator.rates().to_vec());
                let best = measure(&mut lab, &running, generator, rates, seconds)
                    .with_context(|| format!("{server} by {generator}"))?;
                runs.entry(pair).or_default().push(best);
            }
            running.stop(&lab)?;
        }
    }

    for &generator in &generators {
        let of = |server: Server, figure: fn(&Run) -> f64| {
            let runs = runs.get(&(server, generator))?;
            Quartiles::of(runs.iter().map(figure).collect())
        };
        let ours = of(Server::Failover, |run| run.replies_per_second);
        for &server in &servers {
            if !generator.suits(server) {
                continue;
            }
            let replies = of(server, |run| run.replies_per_second);
            let ratio = replies
                .zip(ours)
                .map(|(theirs, ours)| theirs.median / ours.median);
            table.row([
                Cell::text(server.to_string()),
                Cell::text(generator.to_string()),
                Cell::spread(replies, 0),
                Cell::figure(ratio, 2),
                Cell::median(of(server, |run| run.answered_percent), 1),
                Cell::median(of(server, |run| run.counted_per_second), 0),
                Cell::spread(of(server, |run| run.cpu_per_million), 2),
                Cell::median(of(server, |run| run.receiver_busy_percent), 0),
            ]);
        }
    }
    table.note(
        "by failover: replies by those of failover (XDP), same generator. kxdpgun: the best of 50 000, \
         100 000, 200 000 and unlimited queries per second, for 1 s each, in the first round, and \
         in the others of the two that were best then. dnsperf and kxdpgun: by the time that \
         the server's interface was sending. live frames: our own \
         generator, BPF_PROG_TEST_RUN with live frames on one CPU, its replies counted and dropped \
         by an XDP program. CPU: of the server's processes and of the kernel thread that receives \
         for it (the receiver). Where neither the receiver nor a process is busy, the generator or \
         the wake-ups between the CPUs were the limit, and only the CPU time compares the servers.",
    );
    Ok(vec![table])
}

/// Lets a generator ask for some seconds, and of several rates takes the one with most replies.
/// Leaves the two best for the next time.
fn measure(
    lab: &mut Lab,
    running: &Running,
    generator: Generator,
    rates: &mut Vec<u32>,
    seconds: u32,
) -> Result<Run> {
    running
        .receiver()
        .set_priority(generator.receiver_priority())?;
    let mut ready = generator.prepare(lab)?;
    let time = Duration::from_secs(seconds.into()) / if rates.len() > 1 { seconds } else { 1 };
    let runs = rates
        .iter()
        .map(|rate| Ok((*rate, measure_rate(lab, running, &mut ready, *rate, time)?)))
        .collect::<Result<Vec<_>>>();
    ready.finish(lab)?;
    let mut runs = runs?;
    runs.sort_by(|(_, a), (_, b)| b.replies_per_second.total_cmp(&a.replies_per_second));
    *rates = runs.iter().take(2).map(|(rate, _)| *rate).collect();
    let best = runs.into_iter().next().map(|(_, run)| run);
    best.context("a generator has a rate")
}

fn measure_rate(
    lab: &Lab,
    running: &Running,
    ready: &mut Ready,
    rate: u32,
    time: Duration,
) -> Result<Run> {
    let sent_before = napi::sent(lab)?;
    let (cpu_before, receiver_before) = (running.cpu_time(lab)?, running.receiver().cpu_time()?);
    let begun = Instant::now();
    let counted = ready.generate(lab, rate, time)?;
    let took = begun.elapsed().as_secs_f64();
    let (cpu_after, receiver_after) = (running.cpu_time(lab)?, running.receiver().cpu_time()?);
    let sent = napi::sent(lab)?.saturating_sub(sent_before) as f64;
    let receiver = receiver_after.saturating_sub(receiver_before).as_secs_f64();
    let cpu = cpu_after.saturating_sub(cpu_before).as_secs_f64() + receiver;
    Ok(Run {
        replies_per_second: counted.replies as f64 / counted.time.as_secs_f64(),
        answered_percent: counted.replies as f64 / counted.queries as f64 * 100.0,
        counted_per_second: sent / counted.time.as_secs_f64(),
        cpu_per_million: cpu / (sent / 1e6),
        receiver_busy_percent: receiver / took * 100.0,
    })
}

/// The lab's hosts at both ends.
pub(crate) const SERVER: Host = Host::Ns;
pub(crate) const CLIENT: Host = Host::Inet;
