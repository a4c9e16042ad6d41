//! What probing costs: `probe_load [TARGETS [INTERVAL_S [SECONDS]]]`.
//!
//! Probes that many TCP targets (127.x.y.z, one listener in a child process), and prints
//! the CPU time and memory of this process, and how late the probes were. The first
//! interval, with its quick first round, is measured apart.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use anyhow::{Context, Result};
use failover::model::{Egress, Probe, ProbeTarget, Timing};
use failover::probe::{Engine, Report};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "listen") {
        return listen();
    }
    let number =
        |nth: usize, default: u64| arguments.get(nth).map_or(Ok(default), |text| text.parse());
    let (targets, interval, seconds) = (number(0, 20_000)?, number(1, 10)?, number(2, 20)?);

    let mut listener = Command::new(env::current_exe()?)
        .arg("listen")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut port = String::new();
    io::BufRead::read_line(
        &mut io::BufReader::new(listener.stdout.take().context("stdout")?),
        &mut port,
    )?;
    let port = port.trim().parse()?;

    let timing = Timing {
        interval: Duration::from_secs(interval),
        fastinter: Duration::from_millis(200),
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 3,
    };
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 0));
    let probes: Vec<Probe> = (0..u32::try_from(targets)?)
        .map(|nth| SocketAddr::from((Ipv4Addr::from(base + nth), port)))
        .map(|address| Probe {
            target: ProbeTarget::Tcp(address),
            egress: Egress::default(),
            timing,
        })
        .collect();

    let (sender, mut reports) = mpsc::channel(4096);
    let handle = Engine::start(&probes, sender)?;
    measure("warm-up", timing.interval, &mut reports).await?;
    measure("steady", Duration::from_secs(seconds), &mut reports).await?;
    handle.shutdown().await;
    listener.kill()?;
    listener.wait()?;
    Ok(())
}

/// Accepts connections until it is killed.
fn listen() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    println!("{}", listener.local_addr()?.port());
    loop {
        // A connection that was reset before it was accepted is an error.
        let _ = listener.accept();
    }
}

async fn measure(what: &str, time: Duration, reports: &mut mpsc::Receiver<Report>) -> Result<()> {
    let (begun, cpu) = (Instant::now(), cpu_time()?);
    let (mut late, mut rtt, mut failed) = (Vec::new(), Vec::new(), 0);
    while let Ok(report) =
        tokio::time::timeout(time.saturating_sub(begun.elapsed()), reports.recv()).await
    {
        let report = report.context("the engine ended")?;
        late.push(report.late);
        match report.outcome {
            Ok(took) => rtt.push(took),
            Err(failure) => {
                failed += 1;
                if failed == 1 {
                    println!("first failure: {failure}");
                }
            }
        }
    }
    let cpu = (cpu_time()? - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let at = |sorted: &mut Vec<Duration>, percent: usize| {
        sorted.sort_unstable();
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what}: {} probes, {failed} failed, {:.1} % of a core, {} | late p50 {:?} p99 {:?} max {:?} | rtt p50 {:?} p99 {:?}",
        late.len(),
        cpu * 100.0,
        memory()?,
        at(&mut late, 50),
        at(&mut late, 99),
        at(&mut late, 100),
        at(&mut rtt, 50),
        at(&mut rtt, 99),
    );
    Ok(())
}

/// User and system time of this process.
fn cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .context("stat")?
        .split_whitespace()
        .collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_secs(ticks) / 100)
}

/// Peak and present resident memory of this process.
fn memory() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name| {
        status
            .lines()
            .find(|line: &&str| line.starts_with(name))
            .unwrap_or_default()
    };
    Ok(format!("{}, {}", field("VmHWM"), field("VmRSS")).replace('\t', " "))
}
