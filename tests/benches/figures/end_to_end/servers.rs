//! The servers, each started on the name server's host with the same hundred names.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use failover::dataplane::BENCH_PROGRAMS;
use failover_tests::dns::{Client, Rtype};
use failover_tests::figures;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Daemon, Handle, XdpPass};
use failover_tests::peers::{Program, Settings};
use failover_tests::reference::{WAN1, WAN2};

use super::napi::{self, INTERFACE, Receiver, Side};
use super::{CLIENT, SERVER};
use crate::Context;
use crate::many::{Many, NAMES_PER_SERVICE};

/// How long a server may take to start.
const BOUND: Duration = Duration::from_secs(20);
/// The generator's address.
pub(crate) const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 129);

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    /// Addresses and ports swapped, transmitted by XDP: the limit.
    Bare,
    /// Ours.
    Failover,
    /// Ours with `xdp = "off"`.
    FailoverSockets,
    /// Knot DNS with AF_XDP sockets.
    KnotdXdp,
    /// Knot DNS.
    Knotd,
    /// NSD.
    Nsd,
    /// gdnsd.
    Gdnsd,
}

impl Server {
    pub(crate) const ALL: [Self; 7] = [
        Self::Bare,
        Self::Failover,
        Self::FailoverSockets,
        Self::KnotdXdp,
        Self::Knotd,
        Self::Nsd,
        Self::Gdnsd,
    ];

    /// The program that must be installed.
    pub(crate) fn program(self) -> Option<&'static str> {
        self.peer().map(Program::name)
    }

    /// Whether it has an XDP program of its own.
    pub(crate) const fn receives_by_xdp(self) -> bool {
        matches!(self, Self::Bare | Self::Failover | Self::KnotdXdp)
    }

    const fn peer(self) -> Option<Program> {
        match self {
            Self::Bare | Self::Failover | Self::FailoverSockets => None,
            Self::KnotdXdp | Self::Knotd => Some(Program::Knotd),
            Self::Nsd => Some(Program::Nsd),
            Self::Gdnsd => Some(Program::Gdnsd),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Failover => "failover (XDP)",
            Self::FailoverSockets => "failover (sockets)",
            Self::KnotdXdp => "knotd (AF_XDP)",
            Self::Knotd => "knotd (sockets)",
            Self::Nsd => "nsd",
            Self::Gdnsd => "gdnsd",
        })
    }
}

/// A server that answers.
pub(crate) struct Running {
    process: Process,
    /// Where the server has none itself: frames reach the kernel thread by it.
    pass: Option<XdpPass>,
    receiver: Receiver,
}

enum Process {
    Bare(Box<Ebpf>),
    Daemon(Box<Daemon>),
    Peer(Child),
}

/// Writes the configuration of our daemon and the zone of the others.
pub(crate) fn prepare(lab: &Handle) -> Result<()> {
    let many = Many {
        names: NAMES_PER_SERVICE,
        interfaces: &[INTERFACE],
    };
    many.configure(lab)?;
    let mut zone = fs::read_to_string(lab.dir().join("example.com.zone"))?;
    for index in 0..NAMES_PER_SERVICE {
        for address in [WAN1, WAN2] {
            writeln!(zone, "{}. 30 IN A {address}", Many::name(index))?;
        }
    }
    for program in [Program::Knotd, Program::Nsd] {
        fs::write(program.directory(lab)?.join("example.com.zone"), &zone)?;
    }
    // gdnsd names a zone by its file.
    let gdnsd = Program::Gdnsd.directory(lab)?.join("zones");
    fs::write(gdnsd.join("example.com"), &zone)?;
    Ok(())
}

impl Running {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(context: &Context, lab: &Handle, server: Server) -> Result<Self> {
        let before = napi::threads()?;
        let namespace = lab.netns(SERVER);
        let pass = (!server.receives_by_xdp())
            .then(|| XdpPass::attach(&namespace, INTERFACE))
            .transpose()?;
        let process = match server {
            Server::Bare => Process::Bare(Box::new(namespace.enter(bare)?)),
            Server::Failover => Process::daemon(context, lab, "native")?,
            Server::FailoverSockets => Process::daemon(context, lab, "off")?,
            Server::KnotdXdp | Server::Knotd | Server::Nsd | Server::Gdnsd => {
                let program = server.peer().context("a peer")?;
                Process::Peer(program.start(lab, SERVER, NS1, &settings(server))?)
            }
        };
        let mut running = Self {
            process,
            pass,
            receiver: Receiver::none(),
        };
        if !matches!(server, Server::Bare) {
            running.wait_until_answered(lab, server)?;
        }
        running.receiver = Receiver::start(lab, Side::Server, &before)?;
        Ok(running)
    }

    fn wait_until_answered(&mut self, lab: &Handle, server: Server) -> Result<()> {
        let mut client = Client::new(&lab.netns(CLIENT))?;
        let wanted: BTreeSet<IpAddr> = [WAN1, WAN2].into();
        let deadline = Instant::now() + BOUND;
        loop {
            if let (Process::Peer(process), Some(program)) = (&mut self.process, server.peer()) {
                program.check_running(lab, process)?;
            }
            let wait = Duration::from_millis(100);
            let reply = client.ask(NS1, &Many::name(0), Rtype::A, wait)?;
            if reply.is_some_and(|reply| reply.set() == wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no answer within {BOUND:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The kernel threads that receive for the server.
    pub(crate) const fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// CPU time of all processes on the server's host.
    #[expect(clippy::unused_self, reason = "there must be a server")]
    pub(crate) fn cpu_time(&self, lab: &Handle) -> Result<Duration> {
        let namespace = lab.netns(SERVER);
        let mut total = Duration::ZERO;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if namespace.contains(pid) {
                total += figures::cpu_time(pid)?;
            }
        }
        Ok(total)
    }

    /// Ends it and waits for that.
    pub(crate) fn stop(self, lab: &Handle) -> Result<()> {
        match self.process {
            Process::Bare(ebpf) => drop(ebpf),
            Process::Daemon(daemon) => daemon.stop()?,
            Process::Peer(_) => {
                for program in [Program::Knotd, Program::Nsd, Program::Gdnsd] {
                    lab.stop_program(program.name())?;
                }
                // knotd leaves its XDP program behind.
                if self.pass.is_none() {
                    lab.netns(SERVER)
                        .ip(&["link", "set", "dev", INTERFACE, "xdp", "off"])?;
                }
            }
        }
        Ok(())
    }
}

impl Process {
    fn daemon(context: &Context, lab: &Handle, xdp: &str) -> Result<Self> {
        let daemon = Daemon::start(lab, &context.daemon(xdp))?;
        Ok(Self::Daemon(Box::new(daemon)))
    }
}

/// The bare program on the interface of this namespace.
fn bare() -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().load(BENCH_PROGRAMS)?;
    let program: &mut Xdp = ebpf.program_mut("bare").context("bare")?.try_into()?;
    program.load()?;
    program.attach(INTERFACE, XdpMode::Driver)?;
    Ok(ebpf)
}

/// The zone, and as many workers as there are CPUs.
fn settings(server: Server) -> Settings {
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (server, sections) = match server {
        Server::KnotdXdp => (
            "    udp-max-payload: 1232\n".to_owned(),
            format!("xdp:\n    listen: {INTERFACE}\n{KNOT_ZONE}"),
        ),
        Server::Nsd => (
            format!("    server-count: {workers}\n    reuseport: yes\n"),
            "zone:\n    name: example.com\n    zonefile: example.com.zone\n".to_owned(),
        ),
        Server::Gdnsd => (format!("    udp_threads => {workers}\n"), String::new()),
        _ => (
            "    udp-max-payload: 1232\n".to_owned(),
            KNOT_ZONE.to_owned(),
        ),
    };
    Settings { server, sections }
}

const KNOT_ZONE: &str = r#"
template:
  - id: default
    storage: "{dir}"
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: example.com
    file: example.com.zone
"#;
