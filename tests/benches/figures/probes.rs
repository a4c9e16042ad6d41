//! What probing many targets costs.
//!
//! The probing engine of the daemon, in a process of its own, against one listener that stands for
//! all targets (127.1.0.0/16, on the loopback of a namespace): it accepts, or refuses, or its
//! queue is full, so that connections time out. The first interval, with its quick first round,
//! is not in the figures.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use failover::model::{Egress, Probe, ProbeTarget, Timing};
use failover::probe::{Engine, ProbeKey, Report};
use failover_tests::figures::{self, Cell, Table, percentile};
use failover_tests::lab::{Handle, Host};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::Context;

/// The timeout of a probe.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Starts are counted in slots of this length.
const SLOT: Duration = Duration::from_millis(100);
/// The probing process has started and ended within this, beside what it measures.
const GRACE: Duration = Duration::from_secs(20);

/// What the targets do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Targets {
    Answering,
    Refusing,
    BlackHoled,
}

/// What is probed, told to the probing process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Task {
    /// Probe so many targets, and print the figures as JSON
    #[arg(long, hide = true, requires_all = ["port", "interval", "seconds"])]
    targets: Option<u32>,
    /// The port of all targets
    #[arg(long, hide = true)]
    port: Option<u16>,
    /// Seconds between probes of a target
    #[arg(long, hide = true)]
    interval: Option<u64>,
    /// Seconds to measure
    #[arg(long, hide = true)]
    seconds: Option<u64>,
}

/// What the probing process measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Probed {
    probes: u64,
    failed: u64,
    cpu_seconds: f64,
    seconds: f64,
    /// Largest resident set, in octets.
    memory: u64,
    late_p50_us: f64,
    late_p99_us: f64,
    late_worst_us: f64,
    /// Starts in a slot: the mean, and the most.
    starts_mean: f64,
    starts_most: u64,
}

impl Targets {
    const ALL: [Self; 3] = [Self::Answering, Self::Refusing, Self::BlackHoled];

    const fn name(self) -> &'static str {
        match self {
            Self::Answering => "answering",
            Self::Refusing => "refusing",
            Self::BlackHoled => "black hole",
        }
    }

    /// Whether a count of failures of so many probes is right.
    const fn is_right(self, failed: u64, probes: u64) -> bool {
        match self {
            Self::Answering => failed == 0,
            Self::Refusing | Self::BlackHoled => failed == probes,
        }
    }
}

/// All kinds of targets.
pub(crate) fn run(context: &Context) -> Result<Vec<Table>> {
    let (targets, interval, seconds) = if context.quick {
        (2_000, 2, 4)
    } else {
        (20_000, 10, 20)
    };
    let mut table = Table::new(
        format!("Probes: {targets} TCP targets every {interval} s, measured for {seconds} s"),
        &[
            "targets",
            "probes/s",
            "failed %",
            "CPU % of a core",
            "CPU µs per probe",
            "memory MB",
            "late µs: p50",
            "p99",
            "worst",
            "starts in 100 ms: mean",
            "most",
        ],
    );
    let lab = context.lab(&[])?;
    for kind in Targets::ALL {
        context.progress(&format!("probes of {} targets", kind.name()));
        let probed = probe(&lab, kind, targets, interval, seconds)
            .with_context(|| format!("{} targets", kind.name()))?;
        ensure!(
            probed.probes > 0 && kind.is_right(probed.failed, probed.probes),
            "{} targets: {} of {} probes failed",
            kind.name(),
            probed.failed,
            probed.probes
        );
        let probes = probed.probes as f64;
        table.row([
            Cell::text(kind.name()),
            Cell::figure(probes / probed.seconds, 0),
            Cell::figure(probed.failed as f64 / probes * 100.0, 0),
            Cell::figure(probed.cpu_seconds / probed.seconds * 100.0, 1),
            Cell::figure(probed.cpu_seconds / probes * 1e6, 1),
            Cell::figure(probed.memory as f64 / 1e6, 1),
            Cell::figure(probed.late_p50_us, 0),
            Cell::figure(probed.late_p99_us, 0),
            Cell::figure(probed.late_worst_us, 0),
            Cell::figure(probed.starts_mean, 0),
            Cell::count(probed.starts_most),
        ]);
    }
    table.note(format!(
        "timeout {} ms. CPU: of the probing process, which on a loopback does the targets' share \
         of the kernel's work as well. late: how much later than due a probe began.",
        TIMEOUT.as_millis()
    ));
    Ok(vec![table])
}

/// Runs the probing process beside its targets.
fn probe(lab: &Handle, kind: Targets, targets: u32, interval: u64, seconds: u64) -> Result<Probed> {
    let netns = lab.netns(Host::Client);
    let open = netns.enter(|| Port::open(kind))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--output",
            "/nonexistent",
            "--targets",
            &targets.to_string(),
        ])
        .args(["--port", &open.number.to_string()])
        .args(["--interval", &interval.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // Recorded in the lab, so that it ends with it.
    let mut child = lab.start_piped("probes", Host::Client, &mut command)?;
    let deadline = Instant::now() + Duration::from_secs(interval + seconds) + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            lab.stop_program("probes")?;
            anyhow::bail!("the probing process does not end");
        }
        thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the probing process failed");
    serde_json::from_slice(&output.stdout).context("figures of the probing process")
}

/// The port of all targets, as long as this lives.
struct Port {
    number: u16,
    _listener: TcpListener,
    /// What fills the queue.
    _waiting: Vec<TcpStream>,
}

impl Port {
    fn open(kind: Targets) -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let number = socket.local_addr()?.port();
        let mut waiting = Vec::new();
        match kind {
            Targets::Answering => {
                let accepting = socket.try_clone()?;
                // Until the process ends; an error is a connection that was reset before.
                thread::spawn(move || {
                    loop {
                        if accepting.accept().is_err() {
                            thread::sleep(Duration::from_micros(10));
                        }
                    }
                });
            }
            Targets::Refusing => {
                // A port that is taken and listens no more.
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, number));
                drop(socket);
                let taken =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                taken.bind(&address.into())?;
                return Ok(Self {
                    number,
                    _listener: taken.into(),
                    _waiting: waiting,
                });
            }
            Targets::BlackHoled => {
                rustix::net::listen(socket.as_fd(), 0)?;
                let target = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
                // Nobody accepts, and once the queue is full SYNs are dropped.
                while let Ok(stream) = TcpStream::connect_timeout(&target, TIMEOUT) {
                    waiting.push(stream);
                }
            }
        }
        Ok(Self {
            number,
            _listener: socket,
            _waiting: waiting,
        })
    }
}

impl Task {
    /// What the probing process does: `None` in any other process.
    pub(crate) fn run(&self) -> Option<Result<()>> {
        let (targets, port) = (self.targets?, self.port?);
        let interval = Duration::from_secs(self.interval?);
        let time = Duration::from_secs(self.seconds?);
        Some(probe_and_print(targets, port, interval, time))
    }
}

fn probe_and_print(targets: u32, port: u16, interval: Duration, time: Duration) -> Result<()> {
    let timing = Timing {
        interval,
        fastinter: Duration::from_millis(200),
        timeout: TIMEOUT,
        rise: 2,
        fall: 3,
    };
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 0));
    let probes: Vec<Probe> = (0..targets)
        .map(|nth| SocketAddr::from((Ipv4Addr::from(base + nth), port)))
        .map(|address| Probe {
            target: ProbeTarget::Tcp(address),
            egress: Egress::default(),
            timing,
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let probed = runtime.block_on(async {
        let (sender, mut reports) = mpsc::channel(4096);
        let handle = Engine::start(&probes, sender)?;
        measure(interval, &mut reports).await?;
        let probed = measure(time, &mut reports).await?;
        handle.shutdown().await;
        anyhow::Ok(probed)
    })?;
    println!("{}", serde_json::to_string(&probed)?);
    Ok(())
}

/// Receives reports for that long.
async fn measure(time: Duration, reports: &mut mpsc::Receiver<Report<ProbeKey>>) -> Result<Probed> {
    let own = std::process::id();
    let (begun, cpu) = (Instant::now(), figures::cpu_time(own)?);
    let (mut late, mut starts, mut failed) = (Vec::new(), Vec::new(), 0);
    while let Ok(report) =
        tokio::time::timeout(time.saturating_sub(begun.elapsed()), reports.recv()).await
    {
        let report = report.context("the engine ended")?;
        late.push(report.late.as_secs_f64() * 1e6);
        starts.push(report.started);
        failed += u64::from(report.outcome.is_err());
    }
    let (seconds, cpu) = (begun.elapsed(), figures::cpu_time(own)?.saturating_sub(cpu));
    late.sort_by(f64::total_cmp);
    let lateness = |percent| percentile(&late, percent).unwrap_or_default();
    let (starts_mean, starts_most) = spread(&starts, begun, seconds);
    Ok(Probed {
        probes: late.len() as u64,
        failed,
        cpu_seconds: cpu.as_secs_f64(),
        seconds: seconds.as_secs_f64(),
        memory: figures::memory(own, "VmHWM")?,
        late_p50_us: lateness(50.0),
        late_p99_us: lateness(99.0),
        late_worst_us: lateness(100.0),
        starts_mean,
        starts_most,
    })
}

/// How many probes begin in a slot: the mean, and the most.
fn spread(starts: &[Instant], begun: Instant, time: Duration) -> (f64, u64) {
    // The last probes have begun and not ended: their slots are not full.
    let slots = (time.saturating_sub(TIMEOUT).as_secs_f64() / SLOT.as_secs_f64()) as usize;
    let mut counts = vec![0_u64; slots];
    for start in starts {
        let Some(since) = start.checked_duration_since(begun) else {
            continue;
        };
        let slot = (since.as_secs_f64() / SLOT.as_secs_f64()) as usize;
        if let Some(count) = counts.get_mut(slot) {
            *count += 1;
        }
    }
    let sum: u64 = counts.iter().sum();
    let most = counts.iter().copied().max().unwrap_or_default();
    (sum as f64 / slots.max(1) as f64, most)
}
