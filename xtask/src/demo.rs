//! `cargo xtask demo`: the reference case, played through and checked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use failover_tests::command;
use failover_tests::dig::Dig;
use failover_tests::dns::{Client, Rtype};
use failover_tests::lab::topology::{NS1, NS2};
use failover_tests::lab::{
    Config, Counters, Daemon, Host, Lab, LinkState, Options, Output, Purpose, Server, Wan,
};
use failover_tests::reference::{NAME, OFFSITE, WAN1, WAN2, differences};

use crate::{Xdp, privilege, run};

/// How long any change may take; generous.
const BOUND: Duration = Duration::from_secs(20);

/// Queries of each state beside dig's, all of them to be answered by XDP.
const QUERIES: u64 = 20;

/// Plays the table through; fails if anything is not as it should be.
pub(crate) fn demo(xdp: Option<Xdp>, built: bool) -> Result<()> {
    let binary = run::prepare(built)?;
    let mut args = vec!["demo", "--built"];
    args.extend(xdp.iter().flat_map(|xdp| ["--xdp", xdp.name()]));
    privilege::ensure_root(&args)?;

    let lab = Lab::start(Purpose::Demo, run::serve_program()?, &[Server::WebB])?;
    let options = Options {
        binary,
        xdp: xdp.map(|xdp| xdp.name().to_owned()),
        more: Vec::new(),
        output: Output::Log,
    };
    let mut demo = Demo::start(lab, options)?;
    demo.play()?;
    demo.summary()
}

struct Demo {
    // Before the lab, so that it is dropped before it.
    daemon: Daemon,
    client: Client,
    lab: Lab,
    options: Options,
    failures: Vec<String>,
    times: Vec<(String, Duration)>,
}

impl Demo {
    fn start(lab: Lab, options: Options) -> Result<Self> {
        let daemon = start_daemon(&lab, &options)?;
        let client = Client::new(&lab.netns(Host::Client))?;
        Ok(Self {
            daemon,
            client,
            lab,
            options,
            failures: Vec::new(),
            times: Vec::new(),
        })
    }

    fn play(&mut self) -> Result<()> {
        let modes = self.daemon.status()?.interfaces;
        let modes = modes
            .iter()
            .map(|interface| format!("{} {}", interface.name, interface.xdp));
        println!("XDP: {}", modes.collect::<Vec<_>>().join(", "));

        self.show(
            "192.168.10.10 answers on port 80 (192.168.10.11 does not)",
            NS1,
            &[WAN1, WAN2],
        )?;

        self.restart(&Config {
            redundancy_only: true,
            ..Config::default()
        })?;
        self.show("the same, redundancy_only", NS1, &[WAN1])?;

        self.time("wan1 loses its carrier", NS2, &[WAN2], |lab| {
            lab.set_link(Wan::Wan1, LinkState::Down)
        })?;
        self.show("the same, redundancy_only, wan1 down", NS2, &[WAN2])?;
        self.time("wan1 comes back", NS2, &[WAN1], |lab| {
            lab.set_link(Wan::Wan1, LinkState::Up)
        })?;

        self.restart(&Config::default())?;
        self.wait(&[WAN1, WAN2])?;
        self.time("192.168.10.10 refuses", NS1, &[OFFSITE], |lab| {
            lab.kill(Server::WebA)
        })?;
        self.show("primary and backup down", NS1, &[OFFSITE])?;
        self.time("192.168.10.10 comes back", NS1, &[WAN1, WAN2], |lab| {
            lab.revive(Server::WebA)
        })?;

        self.time("192.168.10.10 is a black hole", NS1, &[OFFSITE], |lab| {
            lab.black_hole(Server::WebA)
        })?;
        self.time("192.168.10.10 comes back", NS1, &[WAN1, WAN2], |lab| {
            lab.revive(Server::WebA)
        })?;

        self.time(
            "wan1 and wan2 lose their carriers",
            NS1,
            &[OFFSITE],
            |lab| {
                lab.set_link(Wan::Wan1, LinkState::Down)?;
                lab.set_link(Wan::Wan2, LinkState::Down)
            },
        )?;
        self.show(
            "wan1 and wan2 down (the query comes by the third way)",
            NS1,
            &[OFFSITE],
        )?;
        self.time("wan1 and wan2 come back", NS1, &[WAN1, WAN2], |lab| {
            lab.set_link(Wan::Wan1, LinkState::Up)?;
            lab.set_link(Wan::Wan2, LinkState::Up)
        })
    }

    fn restart(&mut self, config: &Config) -> Result<()> {
        self.daemon.stop()?;
        self.lab.configure(config)?;
        self.daemon = start_daemon(&self.lab, &self.options)?;
        Ok(())
    }

    /// Waits until the daemon says that it answers `want`.
    fn wait(&mut self, want: &[IpAddr]) -> Result<()> {
        let want = set(want);
        let what = format!("answer {want:?} of {NAME}");
        let wanted = |status: &failover_tests::lab::Status| {
            status
                .service("www")
                .is_ok_and(|service| service.answer == want)
        };
        self.daemon.wait_for(&what, BOUND, wanted).map(drop)
    }

    /// Makes a change and measures how long it takes until the new answer is on the wire.
    fn time(
        &mut self,
        what: &str,
        server: IpAddr,
        want: &[IpAddr],
        change: impl FnOnce(&Lab) -> Result<()> + Send,
    ) -> Result<()> {
        let (lab, wanted) = (&self.lab, set(want));
        let took = self
            .client
            .time_change(server, NAME, &wanted, BOUND, || change(lab))?;
        println!(
            "\n>>> {what}: answered anew after {:.0} ms",
            took.as_secs_f64() * 1e3
        );
        self.times
            .push((format!("{what} → {}", joined(want)), took));
        Ok(())
    }

    /// Shows and checks one state.
    fn show(&mut self, title: &str, server: IpAddr, want: &[IpAddr]) -> Result<()> {
        println!("\n=== {title}");
        self.wait(want)?;
        let before = self.daemon.status()?.counters;

        let mut dig = command::command("dig");
        dig.arg(format!("@{server}"))
            .args([NAME, "A", "+tries=1", "+timeout=2"]);
        println!("$ {}", command::display(&dig));
        let output = self.lab.netns(Host::Client).output(&mut dig)?;
        println!("{}", output.trim());
        let mut wrong = differences(&Dig::parse(&output)?, &set(want));

        for _ in 0..QUERIES {
            let reply = self
                .client
                .ask(server, NAME, Rtype::A, Duration::from_secs(1))?;
            if reply.context("a query was lost")?.set() != set(want) {
                wrong.push("one of the queries after dig's got another answer".to_owned());
            }
        }
        wrong.extend(self.check_counters(before, QUERIES + 1)?);

        if wrong.is_empty() {
            println!(
                "ok: as it should be, and XDP answered all {} queries",
                QUERIES + 1
            );
        }
        for wrong in wrong {
            println!("MISMATCH: {wrong}");
            self.failures.push(format!("{title}: {wrong}"));
        }
        Ok(())
    }

    /// What the counters say against XDP having answered `queries` and user space none.
    fn check_counters(&mut self, before: Counters, queries: u64) -> Result<Option<String>> {
        let answered = |now: Counters| now.answered.wrapping_sub(before.answered);
        // The counters may be a moment late.
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut now = self.daemon.status()?.counters;
        while answered(now) < queries && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
            now = self.daemon.status()?.counters;
        }
        let slow_path = now.slow_path.wrapping_sub(before.slow_path);
        let right = answered(now) == queries && slow_path == 0;
        Ok((!right).then(|| {
            format!(
                "of {queries} queries XDP answered {} and user space {slow_path}",
                answered(now)
            )
        }))
    }

    fn summary(&self) -> Result<()> {
        println!("\nFrom the change to the new answer on the wire:");
        for (what, time) in &self.times {
            println!("  {:>6.0} ms  {what}", time.as_secs_f64() * 1e3);
        }
        if self.failures.is_empty() {
            println!("\nAll five states are as they should be.");
            return Ok(());
        }
        bail!("not as it should be:\n  {}", self.failures.join("\n  "))
    }
}

fn start_daemon(lab: &Lab, options: &Options) -> Result<Daemon> {
    let mut daemon = Daemon::start(lab, options)?;
    daemon.wait_for("first publication", BOUND, |status| status.generation > 0)?;
    Ok(daemon)
}

fn joined(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(", ")
}

fn set(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
}
