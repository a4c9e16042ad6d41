//! How long a single query takes, with nothing else to do and beside many others.
//!
//! One client on the upstream router asks one query after the other; `dnsperf` makes the load.
//! Building the query and reading the reply are in the figure, for every server alike.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::charts::{Bar, Chart, Scale};
use failover_tests::command;
use failover_tests::dns::{Client, Rtype};
use failover_tests::figures::{Cell, Table, percentile};
use failover_tests::lab::Lab;
use failover_tests::lab::topology::NS1;
use failover_tests::peers;

use crate::Context;
use crate::end_to_end::{CLIENT, Running, Server, prepare, queries_file, write_queries};
use crate::many::Many;

/// Queries per second of the load: less than any of the servers manages.
const LOAD: u32 = 20_000;
/// Between two queries.
const PAUSE: Duration = Duration::from_micros(500);
/// A query that takes as long is lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Asks each server.
pub(crate) fn run(context: &Context) -> Result<Vec<Table>> {
    let seconds = if context.quick { 1 } else { 4 };
    let mut table = Table::new(
        format!("Latency: µs from query to reply over veth, for {seconds} s each"),
        &[
            "server", "load q/s", "queries", "lost", "p50", "p90", "p99", "max",
        ],
    );
    table.chart(Chart {
        name: "latency".to_owned(),
        title: "Latency of a single query".to_owned(),
        subtitle: format!(
            "From query to reply over veth, one query after the other, for {seconds} s; less is \
             better. On a shared machine the scheduler's delays are in the 99th percentile."
        ),
        section: Some("load: {load q/s} queries per second".into()),
        label: "{server}".into(),
        bars: vec![
            Bar::new("p50", "median"),
            Bar::new("p99", "99th percentile"),
        ],
        unit: "µs".to_owned(),
        scale: Scale::Logarithmic,
        rows: None,
        emphasis: Some("failover".to_owned()),
    });
    let lab = context.lab(&[])?;
    prepare(&lab)?;
    write_queries(&lab, "")?;
    let loads = if command::find("dnsperf").is_some() {
        &[0, LOAD][..]
    } else {
        table.leave_out("under load: dnsperf is not installed; `cargo xtask setup` installs it");
        &[0]
    };
    for server in Server::ALL {
        if server == Server::Bare {
            continue;
        }
        if let Some(why) = server.program().and_then(peers::missing) {
            table.leave_out(why);
            continue;
        }
        context.progress(&format!("latency of {server}"));
        let running = Running::start(context, &lab, server)?;
        for &load in loads {
            let asked = under_load(&lab, load, seconds)
                .with_context(|| format!("{server} with {load} queries per second"))?;
            let figure = |percent| Cell::figure(percentile(&asked.microseconds, percent), 0);
            table.row([
                Cell::text(server.to_string()),
                Cell::count(load.into()),
                Cell::count(asked.microseconds.len() as u64),
                Cell::count(asked.lost),
                figure(50.0),
                figure(90.0),
                figure(99.0),
                figure(100.0),
            ]);
        }
        running.stop(&lab)?;
    }
    table.note(
        "The kernel receives in a thread (threaded NAPI), whose wake-up is in every figure, and \
         the scheduler's delays on a shared machine are in p99 and max.",
    );
    table.leave_out("bare: it sends the query back, which is no reply");
    Ok(vec![table])
}

/// What became of the queries.
struct Asked {
    /// Sorted.
    microseconds: Vec<f64>,
    lost: u64,
}

/// Asks beside `load` queries per second.
fn under_load(lab: &Lab, load: u32, seconds: u32) -> Result<Asked> {
    if load == 0 {
        return ask(lab, seconds);
    }
    let mut dnsperf = command::command("dnsperf");
    // A second more, for its start and its end.
    let (server, time, load) = (NS1.to_string(), (seconds + 1).to_string(), load.to_string());
    dnsperf.args([
        "-s", &server, "-l", &time, "-Q", &load, "-c", "4", "-e", "-d",
    ]);
    dnsperf.arg(queries_file(lab));
    let netns = lab.netns(CLIENT);
    thread::scope(|scope| {
        let dnsperf = scope.spawn(|| netns.output(&mut dnsperf));
        thread::sleep(Duration::from_millis(500));
        let asked = ask(lab, seconds);
        dnsperf.join().expect("dnsperf does not panic")?;
        asked
    })
}

fn ask(lab: &Lab, seconds: u32) -> Result<Asked> {
    let mut client = Client::new(&lab.netns(CLIENT))?;
    let mut asked = Asked {
        microseconds: Vec::new(),
        lost: 0,
    };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds.into()) {
        let start = Instant::now();
        match client.ask(NS1, &Many::name(0), Rtype::A, TIMEOUT)? {
            Some(_) => asked.microseconds.push(start.elapsed().as_secs_f64() * 1e6),
            None => asked.lost += 1,
        }
        thread::sleep(PAUSE);
    }
    ensure!(!asked.microseconds.is_empty(), "no reply at all");
    asked.microseconds.sort_by(f64::total_cmp);
    Ok(asked)
}
