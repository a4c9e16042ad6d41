//! What a reload costs with few and with many names, and whoever asks meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::dns::{Client, Rtype};
use failover_tests::figures::{self, Cell, Table};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Daemon, Handle};
use failover_tests::reference::OFFSITE;

use crate::many::Many;

/// Who waits longer has lost his query.
const LOST: Duration = Duration::from_secs(5);
/// One more service.
const ADDED: &str = "
[[service]]
name = \"added\"
fqdn = [\"added.example.com\"]
port = 80
[[service.server]]
name = \"offsite\"
address = \"192.0.2.200\"
priority = \"primary\"
offsite = true
";

/// What somebody sees who asks one query after the other.
#[derive(Default)]
struct Seen {
    queries: u64,
    lost: u64,
    slowest: Duration,
}

/// An empty table.
pub(crate) fn table() -> Table {
    let mut table = Table::new(
        "Reload: one more service, until all of it has changed",
        &[
            "names",
            "s",
            "CPU s",
            "daemon MB: before",
            "at most",
            "after",
            "queries meanwhile",
            "lost",
            "slowest µs",
        ],
    );
    table.note(
        "From the command to its end: the file is read, other maps are filled, the program is \
         replaced, the old maps are freed. daemon: resident set. Queries: one after the other, for \
         a name that is there before and after.",
    );
    table
}

/// Adds a service to a daemon that runs with these names.
pub(crate) fn measure(
    lab: &Handle,
    daemon: &Daemon,
    client: &mut Client,
    many: Many,
    table: &mut Table,
) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(lab.config_file())?;
    file.write_all(ADDED.as_bytes())?;
    let pid = daemon.pid();
    // The largest resident set is counted from here.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("clear_refs")?;
    let before = figures::memory(pid, "VmRSS")?;
    let cpu = daemon.cpu_time()?;
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let (took, seen) = thread::scope(|scope| {
        let seen = scope.spawn(|| ask(client, &done));
        let reloaded = daemon.query(&["reload"]);
        let took = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        let seen = seen.join().expect("a client does not panic")?;
        ensure!(reloaded?.contains("services  1 added (added)"));
        Ok((took, seen))
    })?;
    let cpu = daemon.cpu_time()?.saturating_sub(cpu);
    let (most, after) = (
        figures::memory(pid, "VmHWM")?,
        figures::memory(pid, "VmRSS")?,
    );
    let offsite: BTreeSet<IpAddr> = [OFFSITE].into();
    client.time_until(NS1, "added.example.com", Rtype::A, &offsite, LOST)?;
    let megabytes = |octets: u64| Cell::figure(octets as f64 / 1e6, 1);
    table.row([
        Cell::count(many.names as u64),
        Cell::figure(took.as_secs_f64(), 2),
        Cell::figure(cpu.as_secs_f64(), 2),
        megabytes(before),
        megabytes(most),
        megabytes(after),
        Cell::count(seen.queries),
        Cell::count(seen.lost),
        Cell::figure(seen.slowest.as_secs_f64() * 1e6, 0),
    ]);
    Ok(())
}

fn ask(client: &mut Client, done: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let reply = client.ask(NS1, &Many::name(0), Rtype::A, LOST)?;
        seen.queries += 1;
        seen.lost += u64::from(reply.is_none_or(|reply| reply.addresses.is_empty()));
        seen.slowest = seen.slowest.max(asked.elapsed());
    }
    Ok(seen)
}
