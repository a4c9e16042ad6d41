//! What a publication and a reload cost with few and with many names, and what so many names
//! take.
//!
//! Publications are made in this process, by the parts that the daemon consists of: the
//! controller's core decides, the policy and the wire format follow, and [`Answering`] publishes
//! to the XDP program and to the slow path, whose sockets are open. The clock runs from the new
//! verdict to the first run of the XDP program (`BPF_PROG_TEST_RUN`) that gives the new answer.
//! The start, and the memory, are those of the daemon itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use failover::answering::Answering;
use failover::config;
use failover::controller::{Command, Core, Input, Now, Publish as _, Subject};
use failover::dataplane::{DataPlane, Generation};
use failover::health::{AdminState, Carrier};
use failover::model::{Model, ProbeId, ServerId, XdpMode};
use failover::probe::{LinkEvent, Report};
use failover::state::Kept;
use failover_tests::charts::{Bar, Chart, Scale};
use failover_tests::dns::{Client, Rtype};
use failover_tests::figures::{self, Cell, Quartiles, Table};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Daemon, Handle, Host};
use failover_tests::reference::{OFFSITE, WAN1, WAN2};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::time::{ClockId, clock_gettime};

use crate::Context;
use crate::many::{Many, NAMES_PER_SERVICE, wire};
use crate::packet_cost::frame::{Frame, Question};
use crate::reload;

/// Longer than a start with a million names may take.
const BOUND: Duration = Duration::from_secs(60);
/// `A`.
const A: u16 = 1;

/// What changes.
#[derive(Clone, Copy)]
enum Change {
    /// The only primary server of the first service is forced down, and back.
    Service,
    /// `wan1` loses its carrier, and gets it back.
    Wan,
}

/// The controller's core and what it publishes to.
struct Controller {
    model: Arc<Model>,
    core: Core,
    answering: Answering,
    /// For the tasks of the slow path.
    runtime: tokio::runtime::Runtime,
}

/// One publication.
struct Published {
    time: Duration,
    cpu: Duration,
    services: usize,
}

impl Controller {
    /// Loads the lab's configuration and publishes all of it, everything being up.
    fn start(lab: &Handle) -> Result<Self> {
        let loaded = config::load(&lab.config_file()).map_err(|errors| anyhow::anyhow!("{errors}"));
        let model = Arc::new(loaded?.model);
        let plane = DataPlane::load(&model, Generation(0))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let now = Now::read();
        let mut controller = Self {
            core: Core::new(Arc::clone(&model), &Kept::nothing(&model), now),
            answering: Answering::new(Some(plane), Generation(0), None),
            model,
            runtime,
        };
        for probe in (0..).map(ProbeId).take(controller.model.probes.len()) {
            let report = Report {
                probe,
                started: now.at,
                late: Duration::ZERO,
                outcome: Ok(Duration::from_micros(300)),
            };
            controller.core.input(Input::Probe(report), now);
        }
        controller.core.input(link("wan2", Carrier::Up), now);
        ensure!(
            controller.take_in(link("wan1", Carrier::Up))? == controller.model.services.len(),
            "not all services were published"
        );
        controller.answering.beat(None);
        Ok(controller)
    }

    /// Takes something in and publishes what follows; returns how many services change.
    fn take_in(&mut self, input: Input) -> Result<usize> {
        let _inside = self.runtime.enter();
        let now = Now::read();
        self.core.input(input, now);
        let mut services = 0;
        for command in self.core.settle(now) {
            let generation = match command {
                Command::PublishAll(changes) => {
                    services += changes.len();
                    self.answering.publish_all(&self.model, &changes)?
                }
                Command::Publish(changes) => {
                    services += changes.len();
                    self.answering.publish(&changes)?
                }
                // The log, the state file, the paces of probes: later than what is measured.
                _ => continue,
            };
            self.core.published(generation);
        }
        Ok(services)
    }

    /// The XDP program's reply to a frame.
    fn reply(&mut self, query: &[u8]) -> Result<Vec<u8>> {
        let mut reply = vec![0; 2048];
        let plane = self.answering.plane_mut().context("XDP is on")?;
        let result = plane.program()?.test_run(TestRunOptions {
            data_in: Some(query),
            data_out: Some(&mut reply),
            ..TestRunOptions::new()
        })?;
        reply.truncate(result.data_size_out as usize);
        Ok(reply)
    }

    /// Makes a change and runs `query` until `address` is answered, or is not any more.
    fn publish(&mut self, input: Input, query: &[u8], shown: Shown) -> Result<Published> {
        let (start, cpu) = (Instant::now(), own_cpu_time());
        let services = self.take_in(input)?;
        while shown.address_in(&self.reply(query)?) != shown.wanted {
            ensure!(start.elapsed() < BOUND, "the answer does not change");
        }
        Ok(Published {
            time: start.elapsed(),
            cpu: own_cpu_time().saturating_sub(cpu),
            services,
        })
    }
}

/// An address by which an answer is known.
#[derive(Clone, Copy)]
struct Shown {
    address: IpAddr,
    wanted: bool,
}

impl Shown {
    fn address_in(self, reply: &[u8]) -> bool {
        match self.address {
            IpAddr::V4(address) => reply.windows(4).any(|four| four == address.octets()),
            IpAddr::V6(address) => reply.windows(16).any(|all| all == address.octets()),
        }
    }
}

impl Change {
    const ALL: [Self; 2] = [Self::Service, Self::Wan];

    const fn name(self) -> &'static str {
        match self {
            Self::Service => "one service",
            Self::Wan => "wan1",
        }
    }

    /// How often it is made.
    const fn repetitions(self, quick: bool) -> u32 {
        match (self, quick) {
            (Self::Service, false) => 200,
            (Self::Wan, false) | (Self::Service, true) => 20,
            (Self::Wan, true) => 6,
        }
    }

    /// What the core is told at an odd turn, and at an even one.
    fn input(self, gone: bool) -> Input {
        match (self, gone) {
            (Self::Service, true) => {
                Input::Admin(Subject::Server(ServerId(0)), AdminState::Down.into())
            }
            (Self::Service, false) => {
                Input::Admin(Subject::Server(ServerId(0)), AdminState::Auto.into())
            }
            (Self::Wan, true) => link("wan1", Carrier::Down),
            (Self::Wan, false) => link("wan1", Carrier::Up),
        }
    }

    /// A name that it concerns, of the last service that changes.
    fn name_asked(self, many: Many) -> String {
        Many::name(match self {
            Self::Service => 0,
            Self::Wan => (many.carried_services() - 1) * NAMES_PER_SERVICE,
        })
    }
}

fn link(interface: &str, carrier: Carrier) -> Input {
    Input::Link(LinkEvent {
        interface: interface.to_owned(),
        carrier,
        index: Some(1),
    })
}

/// Publication, start and memory, for each number of names.
pub(crate) fn run(context: &Context) -> Result<Vec<Table>> {
    let sizes: &[usize] = if context.quick {
        &[1, 1_000]
    } else {
        &[1, 1_000, 100_000, 1_000_000]
    };
    let mut publications = Table::new(
        "Publication: from a verdict to the new answer",
        &[
            "what changes",
            "services",
            "names loaded",
            "times",
            "µs",
            "99 % µs",
            "worst µs",
            "CPU µs",
            "CPU µs per service",
        ],
    );
    publications.chart(Chart {
        name: "publication".to_owned(),
        title: "Publication against names loaded".to_owned(),
        subtitle: "From a verdict to the first run of the XDP program that gives the new answer; \
                   less is better. services: those whose answers change."
            .to_owned(),
        section: Some("what changes: {what changes}".into()),
        label: "names: {names loaded}, services: {services}".into(),
        bars: vec![Bar::new("µs", "median"), Bar::new("worst µs", "worst")],
        unit: "µs".to_owned(),
        scale: Scale::Logarithmic,
        rows: None,
        emphasis: None,
    });
    let mut starts = Table::new(
        "Start: the daemon from its start to its first answer, and what it takes then",
        &[
            "names",
            "services",
            "s",
            "CPU s",
            "daemon MB",
            "at most MB",
            "maps MB",
            "octets per name: daemon",
            "maps",
        ],
    );
    let mut reloads = reload::table();
    let mut alone = None;
    for &names in sizes {
        context.progress(&format!("publications with {names} names"));
        publish(context, names, &mut publications)?;
        context.progress(&format!("start and reload with {names} names"));
        start(context, names, &mut alone, &mut starts, &mut reloads)?;
    }
    publications.note(
        "Medians, ± half the spread of the middle half. Included: the controller's core, policy, \
         wire format, the maps of the XDP program, the snapshot of the slow path, and one run of \
         the program by BPF_PROG_TEST_RUN. Not included: the probe or netlink message. CPU: of \
         all threads.",
    );
    starts.note(
        "Probes of the first round included; the configuration file is read, not cached. daemon: \
         anonymous memory; at most: the largest resident set. Per name: less what one name takes.",
    );
    if context.quick {
        publications.leave_out("100 000 and 1 000 000 names: --quick");
        starts.leave_out("100 000 and 1 000 000 names: --quick");
        reloads.leave_out("100 000 and 1 000 000 names: --quick");
    }
    Ok(vec![publications, starts, reloads])
}

/// The rows of one number of names.
fn publish(context: &Context, names: usize, table: &mut Table) -> Result<()> {
    let lab = context.lab(&[])?;
    let many = Many {
        names,
        interfaces: &[],
    };
    many.configure(&lab)?;
    // Inside, for the sockets of the slow path.
    let measured = lab.netns(Host::Ns).enter(|| {
        let mut controller = Controller::start(&lab)?;
        Change::ALL
            .into_iter()
            .map(|change| {
                let repetitions = change.repetitions(context.quick);
                Ok((change, repeat(&mut controller, change, many, repetitions)?))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    for (change, published) in measured {
        let microseconds = |of: fn(&Published) -> Duration| {
            let figures = published.iter().map(|p| of(p).as_secs_f64() * 1e6);
            let mut figures: Vec<f64> = figures.collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let services = published.first().map_or(0, |p| p.services);
        let time = microseconds(|p| p.time);
        let most = figures::percentile(&time, 99.0);
        let (time, cpu) = (Quartiles::of(time), Quartiles::of(microseconds(|p| p.cpu)));
        table.row([
            Cell::text(change.name()),
            Cell::count(services as u64),
            Cell::count(names as u64),
            Cell::count(published.len() as u64),
            Cell::spread(time, 0),
            Cell::figure(most, 0),
            Cell::figure(time.map(|q| q.max), 0),
            Cell::spread(cpu, 0),
            Cell::figure(cpu.map(|q| q.median / services as f64), 2),
        ]);
    }
    Ok(())
}

fn repeat(
    controller: &mut Controller,
    change: Change,
    many: Many,
    repetitions: u32,
) -> Result<Vec<Published>> {
    let query = Frame::v4(Question::new(wire(&change.name_asked(many)), A).bytes()).bytes();
    let shown = |wanted| Shown {
        address: WAN1,
        wanted,
    };
    ensure!(
        shown(true).address_in(&controller.reply(&query)?),
        "{} is not answered before the change",
        change.name_asked(many)
    );
    // An even number, so that all is as it was.
    (0..repetitions.next_multiple_of(2))
        .map(|repetition| {
            let gone = repetition % 2 == 0;
            // Grace periods of the publication before are over.
            thread::sleep(Duration::from_millis(20));
            controller.publish(change.input(gone), &query, shown(!gone))
        })
        .collect()
}

/// CPU time of this process, all its threads.
fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The start of the daemon with that many names, and then a reload; `alone` is what one name
/// takes.
fn start(
    context: &Context,
    names: usize,
    alone: &mut Option<(u64, u64)>,
    table: &mut Table,
    reloads: &mut Table,
) -> Result<()> {
    let lab = context.lab(&[])?;
    let many = Many {
        names,
        interfaces: &["wan1"],
    };
    many.configure(&lab)?;
    let mut client = Client::new(&lab.netns(Host::Inet))?;
    let both: BTreeSet<IpAddr> = [WAN1, WAN2].into();
    let begun = Instant::now();
    let daemon = Daemon::start(&lab, &context.daemon("native"))?;
    client.time_until(NS1, &Many::name(0), Rtype::A, &both, BOUND)?;
    let took = begun.elapsed();

    let pid = daemon.pid();
    let cpu = figures::cpu_time(pid)?;
    let memory = |field| figures::memory(pid, field);
    let (daemon_octets, most) = (memory("RssAnon")?, memory("VmHWM")?);
    let map_octets = figures::map_memory(pid)?;
    let (base, map_base) = *alone.get_or_insert((daemon_octets, map_octets));
    let megabytes = |octets: u64| octets as f64 / 1e6;
    let per_name = |octets: u64, base: u64| {
        (names > 1).then(|| octets.saturating_sub(base) as f64 / (names - 1) as f64)
    };
    table.row([
        Cell::count(names as u64),
        Cell::count(many.services() as u64),
        Cell::figure(took.as_secs_f64(), 2),
        Cell::figure(cpu.as_secs_f64(), 2),
        Cell::figure(megabytes(daemon_octets), 1),
        Cell::figure(megabytes(most), 1),
        Cell::figure(megabytes(map_octets), 1),
        Cell::figure(per_name(daemon_octets, base), 0),
        Cell::figure(per_name(map_octets, map_base), 0),
    ]);
    reload::measure(&lab, &daemon, &mut client, many, reloads)
}

/// From a verdict to the first new reply on the wire, one name loaded: a client asks as fast as it
/// is answered, over veth, by native XDP.
pub(crate) fn on_the_wire(context: &Context, repetitions: u32) -> Result<Vec<Duration>> {
    let lab = context.lab(&[])?;
    let many = Many {
        names: 1,
        interfaces: &[],
    };
    many.configure(&lab)?;
    lab.netns(Host::Ns).enter(|| {
        let mut controller = Controller::start(&lab)?;
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let index = netdevice::name_to_index(&any, "wan1")?;
        controller
            .answering
            .attach("wan1", index, XdpMode::Native)?;
        let mut client = Client::new(&lab.netns(Host::Inet))?;
        let mut times = Vec::new();
        for repetition in 0..repetitions {
            let gone = repetition % 2 == 0;
            let wanted = if gone {
                [OFFSITE].into()
            } else {
                [WAN1, WAN2].into()
            };
            let asks = AtomicBool::new(false);
            let (start, seen) = thread::scope(|scope| {
                let seen = scope.spawn(|| first_reply(&mut client, &wanted, &asks));
                while !asks.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_millis(20));
                let start = Instant::now();
                let published = controller.take_in(Change::Service.input(gone));
                let seen = seen.join().expect("a client does not panic");
                published.and_then(|_| Ok((start, seen?)))
            })?;
            times.push(seen.saturating_duration_since(start));
        }
        Ok(times)
    })
}

/// Asks without a pause; returns when the first reply with the wanted addresses came.
fn first_reply(
    client: &mut Client,
    wanted: &BTreeSet<IpAddr>,
    asks: &AtomicBool,
) -> Result<Instant> {
    let begun = Instant::now();
    while begun.elapsed() < BOUND {
        let reply = client.ask(NS1, &Many::name(0), Rtype::A, Duration::from_millis(20))?;
        let now = Instant::now();
        asks.store(true, Ordering::Relaxed);
        if reply.is_some_and(|reply| reply.set() == *wanted) {
            return Ok(now);
        }
    }
    anyhow::bail!("{wanted:?} is not answered within {BOUND:?}")
}
