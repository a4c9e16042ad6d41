//! From a fault to the first changed answer on the wire.
//!
//! The reference case in the lab, the daemon with native XDP. A client asks every two
//! milliseconds; the clock runs from the start of the fault to the first reply with the new
//! addresses. What it takes to kill a process or to run `ip` or `failover set` is in the figure.
//! The faults take turns, and begin at moments that are spread over the interval of the probes.
//! Nearly all of it is waiting, so several labs do it side by side.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use failover_tests::charts::{Bar, Chart, Scale};
use failover_tests::dns::Client;
use failover_tests::figures::{Cell, Quartiles, Table};
use failover_tests::lab::topology::{NS1, NS2};
use failover_tests::lab::{Config, Daemon, Handle, Host, Lab, LinkState, Server, Wan};
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2};

use crate::{Context, publication};

/// Longer than any failover may take.
const BOUND: Duration = Duration::from_secs(20);
/// Fractions of it, of growing multiples, are spread evenly.
const GOLDEN_RATIO: f64 = 0.618_034;

/// What the probes are told.
struct Settings {
    name: &'static str,
    check: &'static str,
    interval: Duration,
    fastinter: Duration,
    timeout: Duration,
    fall: u32,
    /// How many labs share the repetitions.
    labs: u32,
}

const SETTINGS: [Settings; 2] = [
    Settings {
        name: "default",
        check: "",
        interval: Duration::from_secs(1),
        fastinter: Duration::from_millis(200),
        timeout: Duration::from_millis(500),
        fall: 3,
        labs: 2,
    },
    Settings {
        name: "fast",
        check: "interval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2",
        interval: Duration::from_millis(100),
        fastinter: Duration::from_millis(100),
        timeout: Duration::from_millis(100),
        fall: 2,
        labs: 1,
    },
];

/// What happens, what undoes it, who is asked, and what is answered then.
struct Fault {
    name: &'static str,
    kind: Kind,
    strike: fn(&Handle, &Daemon) -> Result<()>,
    repair: fn(&Handle, &Daemon) -> Result<()>,
    server: IpAddr,
    answer: &'static [IpAddr],
}

/// Where faults happen: a lab with its daemon, and who asks it.
struct Scene {
    daemon: Daemon,
    client: Client,
    /// Taken down last.
    lab: Lab,
}

/// How the daemon learns of a fault.
#[derive(Clone, Copy)]
enum Kind {
    /// Each probe fails at once.
    Refused,
    /// Each probe fails when its time is over.
    TimedOut,
    /// The kernel says it, or the operator.
    Told,
}

const FAULTS: [Fault; 4] = [
    Fault {
        name: "port refused",
        kind: Kind::Refused,
        strike: |lab, _| lab.kill(Server::WebA),
        repair: |lab, _| lab.revive(Server::WebA),
        server: NS1,
        answer: &[OFFSITE],
    },
    Fault {
        name: "black hole",
        kind: Kind::TimedOut,
        strike: |lab, _| lab.black_hole(Server::WebA),
        repair: |lab, _| lab.revive(Server::WebA),
        server: NS1,
        answer: &[OFFSITE],
    },
    Fault {
        name: "carrier lost",
        kind: Kind::Told,
        strike: |lab, _| lab.set_link(Wan::Wan1, LinkState::Down),
        repair: |lab, _| lab.set_link(Wan::Wan1, LinkState::Up),
        server: NS2,
        answer: &[WAN2],
    },
    Fault {
        name: "forced state",
        kind: Kind::Told,
        strike: |_, daemon| set(daemon, "down"),
        repair: |_, daemon| set(daemon, "auto"),
        server: NS1,
        answer: &[OFFSITE],
    },
];

/// `failover set` for web-a.
fn set(daemon: &Daemon, state: &str) -> Result<()> {
    daemon.query(&["set", "www/web-a", state]).map(drop)
}

impl Settings {
    fn in_words(&self) -> String {
        let Self {
            name,
            interval,
            timeout,
            fastinter,
            fall,
            ..
        } = self;
        format!(
            "{name}: interval {interval:?}, timeout {timeout:?}, fastinter {fastinter:?}, fall {fall}"
        )
    }

    /// The longest that detection takes by these settings: the fault comes right after a probe.
    fn worst(&self, kind: Kind) -> Option<Duration> {
        let more = self.fall - 1;
        match kind {
            Kind::Refused => Some(self.interval + self.fastinter * more),
            // A probe that outlasts the interval is followed at once.
            Kind::TimedOut => {
                let turn = self.fastinter.max(self.timeout);
                Some(self.interval + turn * more + self.timeout)
            }
            Kind::Told => None,
        }
    }
}

/// Measures every fault with both settings.
pub(crate) fn run(context: &Context) -> Result<Vec<Table>> {
    let repetitions = if context.quick { 5 } else { 20 };
    let mut table = Table::new(
        format!("Failover: ms from the fault to the new answer on the wire, {repetitions} times"),
        &[
            "fault",
            "settings",
            "median",
            "worst",
            "by the settings at worst",
            "back: median",
            "back: worst",
        ],
    );
    table.chart(chart(repetitions));
    for (settings, times) in SETTINGS.iter().zip(measure(context, repetitions)?) {
        for (fault, times) in FAULTS.iter().zip(times) {
            let (gone, back) = (quartiles(&times.gone), quartiles(&times.back));
            table.row([
                Cell::text(fault.name),
                Cell::text(settings.name),
                Cell::median(gone, 0),
                Cell::figure(gone.map(|q| q.max), 0),
                Cell::figure(settings.worst(fault.kind).map(milliseconds), 0),
                Cell::median(back, 0),
                Cell::figure(back.map(|q| q.max), 0),
            ]);
        }
    }
    context.progress("publication alone");
    let published = quartiles(&publication::on_the_wire(context, repetitions)?);
    table.row([
        Cell::text("verdict (publication alone)"),
        Cell::none(),
        Cell::median(published, 2),
        Cell::figure(published.map(|q| q.max), 2),
        Cell::none(),
        Cell::none(),
        Cell::none(),
    ]);
    table.note(
        "default: interval 1s, timeout 500ms, fastinter 200ms, fall 3. fast: interval 100ms, \
         timeout 100ms, fall 2. The client asks every 2 ms and more often for the last row, whose \
         clock starts when the controller has a new verdict. Forced state: from the start of \
         `failover set`. Two labs with the default settings and one with the fast ones, side by side.",
    );
    table.leave_out(
        "other name servers: of those that are compared with, only gdnsd checks the health of \
         servers, at intervals too long for this run",
    );
    Ok(vec![table])
}

/// What the faults take; publication alone has a chart of its own.
fn chart(repetitions: u32) -> Chart {
    let [default, fast] = SETTINGS.each_ref().map(Settings::in_words);
    Chart {
        name: "failover".to_owned(),
        title: "Failover".to_owned(),
        subtitle: format!(
            "From the fault to the new answer on the wire, {repetitions} times each; less is \
             better. {default}. {fast}."
        ),
        section: Some("{settings} settings".into()),
        label: "{fault}".into(),
        bars: vec![Bar::new("median", "median"), Bar::new("worst", "worst")],
        unit: "ms".to_owned(),
        scale: Scale::Linear,
        rows: None,
        emphasis: None,
    }
}

/// How long a fault took to be answered, and its end.
#[derive(Clone, Default)]
struct Times {
    gone: Vec<Duration>,
    back: Vec<Duration>,
}

/// The times of each fault, for each of the settings.
fn measure(context: &Context, repetitions: u32) -> Result<Vec<Vec<Times>>> {
    context.progress("starting the labs");
    let mut scenes = Vec::new();
    for (index, settings) in SETTINGS.iter().enumerate() {
        for first in 0..settings.labs {
            scenes.push((index, first, Scene::start(context, settings)?));
        }
    }
    let total = repetitions * SETTINGS.len() as u32;
    let done = AtomicU32::new(0);
    let play = |settings: &Settings, first: u32, scene: &mut Scene| {
        let mut times = vec![Times::default(); FAULTS.len()];
        for repetition in (first..repetitions).step_by(settings.labs as usize) {
            scene.play(settings, repetition, &mut times)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            context.progress(&format!("round {done} of {total}"));
        }
        anyhow::Ok(times)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = scenes
            .iter_mut()
            .map(|(index, first, scene)| {
                let play = || play(&SETTINGS[*index], *first, scene);
                (*index, scope.spawn(play))
            })
            .collect();
        let mut all = vec![vec![Times::default(); FAULTS.len()]; SETTINGS.len()];
        for (index, thread) in threads {
            let times = thread.join().expect("measuring does not panic")?;
            for (all, times) in all[index].iter_mut().zip(times) {
                all.gone.extend(times.gone);
                all.back.extend(times.back);
            }
        }
        Ok(all)
    })
}

impl Scene {
    /// A lab of its own, with a daemon that answers.
    fn start(context: &Context, settings: &Settings) -> Result<Self> {
        let lab = context.lab(&[Server::WebB])?;
        lab.configure(&Config {
            check: settings.check.to_owned(),
            ..Config::default()
        })?;
        let mut daemon = Daemon::start(&lab, &context.daemon("native"))?;
        daemon.wait_for("first publication", BOUND, |status| {
            let mut interfaces = status.interfaces.iter();
            status.generation > 0 && interfaces.all(|interface| interface.xdp == "native")
        })?;
        let client = Client::new(&lab.netns(Host::Client))?;
        Ok(Self {
            daemon,
            client,
            lab,
        })
    }

    /// Each fault once.
    fn play(&mut self, settings: &Settings, repetition: u32, times: &mut [Times]) -> Result<()> {
        let Self {
            daemon,
            client,
            lab,
        } = self;
        let both = [WAN1, WAN2].into();
        for (fault, times) in FAULTS.iter().zip(times) {
            let phase = (f64::from(repetition) * GOLDEN_RATIO).fract();
            // The verdict is no longer in doubt after two intervals.
            thread::sleep(settings.interval.mul_f64(phase) + settings.fastinter * 2);
            let answer = fault.answer.iter().copied().collect();
            let mut time = |wanted, change: fn(&Handle, &Daemon) -> Result<()>| {
                client
                    .time_change(fault.server, NAME, wanted, BOUND, || change(lab, daemon))
                    .context(fault.name)
            };
            times.gone.push(time(&answer, fault.strike)?);
            times.back.push(time(&both, fault.repair)?);
        }
        Ok(())
    }
}

fn quartiles(times: &[Duration]) -> Option<Quartiles> {
    Quartiles::of(times.iter().copied().map(milliseconds).collect())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
