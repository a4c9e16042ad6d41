//! What asks: `dnsperf`, `kxdpgun`, and live frames of our own.

use std::fmt::{self, Write as _};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use failover::dataplane::BENCH_PROGRAMS;
use failover_common::bench::{self, TEMPLATE_LEN};
use failover_tests::command;
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Handle, Host, Lab};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::napi::{self, INTERFACE, Receiver, Side};
use super::servers::{CLIENT_ADDRESS, Server};
use super::{CLIENT, SERVER};
use crate::many::{Many, NAMES_PER_SERVICE, wire};
use crate::packet_cost::frame::{Frame, LISTEN_V4, Question};
use crate::packet_cost::programs::{Run, Template};

/// Queries per second that kxdpgun is told to send; the last is more than it can.
const RATES: [u32; 4] = [50_000, 100_000, 200_000, 100_000_000];
/// Frames of one system call: some tens of milliseconds.
const CHUNK: u32 = 65_536;
/// Frames that go out together; as many as fit into a queue of veth.
const BATCH: u32 = 64;
/// How often kxdpgun is started when nothing comes back: once in dozens of runs it ends without a word,
/// whoever it asks.
const ATTEMPTS: u32 = 3;
/// Names of one length, so that all frames have one length.
const ASKED: std::ops::Range<usize> = 10..NAMES_PER_SERVICE;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Generator {
    /// Waits for replies: never more than a few hundred queries are under way.
    Dnsperf,
    /// Sends by AF_XDP, whether replies come or not.
    Kxdpgun,
    /// Our own.
    LiveFrames,
}

/// What a generator counted.
pub(crate) struct Counted {
    pub queries: u64,
    pub replies: u64,
    pub time: Duration,
}

/// A generator that may start.
pub(crate) enum Ready {
    Dnsperf,
    Kxdpgun,
    LiveFrames(Box<LiveFrames>),
}

impl Generator {
    pub(crate) const ALL: [Self; 3] = [Self::LiveFrames, Self::Kxdpgun, Self::Dnsperf];

    /// The program that must be installed.
    pub(crate) const fn program(self) -> Option<&'static str> {
        match self {
            Self::Dnsperf => Some("dnsperf"),
            Self::Kxdpgun => Some("kxdpgun"),
            Self::LiveFrames => None,
        }
    }

    /// Whether there is anything to measure: dnsperf takes a query that comes back for no reply,
    /// and live frames leave a server that uses sockets no time to answer.
    pub(crate) const fn suits(self, server: Server) -> bool {
        match self {
            Self::Dnsperf => !matches!(server, Server::Bare),
            Self::Kxdpgun => true,
            Self::LiveFrames => server.receives_by_xdp(),
        }
    }

    /// Queries per second to try, one after the other: a server that is asked more than it can
    /// answer answers less. 0: as many as there can be.
    pub(crate) const fn rates(self) -> &'static [u32] {
        match self {
            Self::Kxdpgun => &RATES,
            Self::Dnsperf | Self::LiveFrames => &[0],
        }
    }

    /// The nice value of the server's kernel thread.
    pub(crate) const fn receiver_priority(self) -> i32 {
        match self {
            Self::Dnsperf | Self::Kxdpgun => 0,
            Self::LiveFrames => -20,
        }
    }

    /// Puts the XDP program onto the far end that the generator needs.
    pub(crate) fn prepare(self, lab: &mut Lab) -> Result<Ready> {
        Ok(match self {
            Self::Dnsperf => {
                write_queries(lab, "")?;
                Ready::Dnsperf
            }
            Self::Kxdpgun => {
                write_queries(lab, " E")?;
                lab.detach_pass(INTERFACE);
                Ready::Kxdpgun
            }
            Self::LiveFrames => {
                lab.detach_pass(INTERFACE);
                Ready::LiveFrames(Box::new(LiveFrames::new(lab)?))
            }
        })
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dnsperf => "dnsperf",
            Self::Kxdpgun => "kxdpgun",
            Self::LiveFrames => "live frames",
        })
    }
}

impl Ready {
    /// Asks for that long, at one of the [rates](Generator::rates).
    pub(crate) fn generate(&mut self, lab: &Handle, rate: u32, time: Duration) -> Result<Counted> {
        let seconds = time.as_secs().max(1).to_string();
        let rate = rate.to_string();
        let queries = queries_file(lab);
        let client = lab.netns(CLIENT);
        match self {
            Self::Dnsperf => {
                let mut dnsperf = command::command("dnsperf");
                let server = NS1.to_string();
                dnsperf.args(["-s", &server, "-l", &seconds, "-c", "8", "-q", "200"]);
                dnsperf.args(["-t", "1", "-e", "-d"]).arg(queries);
                // It waits for lost queries in the end, and says that it took as long.
                let (report, time) = napi::while_sending(lab, || client.output(&mut dnsperf))?;
                Ok(Counted {
                    queries: number_after(&report, "Queries sent:")?,
                    replies: number_after(&report, "Queries completed:")?,
                    time: time.context("the server sent nothing")?,
                })
            }
            Self::Kxdpgun => {
                let mut kxdpgun = command::command("kxdpgun");
                kxdpgun.args(["-t", &seconds, "-Q", &rate, "-b", "64", "-i"]);
                kxdpgun.arg(queries).args(["-I", INTERFACE]);
                kxdpgun.args(["-l", &CLIENT_ADDRESS.to_string(), &NS1.to_string()]);
                for _ in 0..ATTEMPTS {
                    // On a busy machine it runs for longer than it was told, and than it says.
                    let (report, time) = napi::while_sending(lab, || client.output(&mut kxdpgun))?;
                    if let Some(time) = time {
                        return Ok(Counted {
                            queries: number_after(&report, "total queries:")?,
                            replies: number_after(&report, "total replies:")?,
                            time,
                        });
                    }
                    eprintln!("\nkxdpgun got nothing, and said {report:?}: once more");
                }
                bail!("the server sent nothing, {ATTEMPTS} times")
            }
            Self::LiveFrames(frames) => client.enter(|| frames.generate(time)),
        }
    }

    /// Leaves the far end as it was.
    pub(crate) fn finish(self, lab: &mut Lab) -> Result<()> {
        if matches!(self, Self::Dnsperf) {
            return Ok(());
        }
        drop(self);
        // kxdpgun may leave its program behind.
        lab.netns(CLIENT)
            .ip(&["link", "set", "dev", INTERFACE, "xdp", "off"])?;
        lab.attach_pass(INTERFACE)
    }
}

/// What is asked by dnsperf and kxdpgun.
pub(crate) fn queries_file(lab: &Handle) -> std::path::PathBuf {
    lab.dir().join("many.txt")
}

/// Writes what is asked, each line with these flags.
pub(crate) fn write_queries(lab: &Handle, flags: &str) -> Result<()> {
    let mut queries = String::new();
    for index in ASKED {
        writeln!(queries, "{} A{flags}", Many::name(index))?;
    }
    Ok(fs::write(queries_file(lab), queries)?)
}

/// The first number after `name`.
fn number_after<T: std::str::FromStr>(report: &str, name: &str) -> Result<T> {
    let word = report
        .split_once(name)
        .and_then(|(_, rest)| rest.split_whitespace().next());
    let number = word.and_then(|word| word.parse().ok());
    number.with_context(|| format!("no number after {name:?} in {report}"))
}

/// Queries by `BPF_PROG_TEST_RUN`, replies counted and dropped by XDP.
pub(crate) struct LiveFrames {
    ebpf: Ebpf,
    run: Array<MapData, Run>,
    replies: PerCpuArray<MapData, u64>,
    frame: Vec<u8>,
    interface: u32,
}

impl LiveFrames {
    fn new(lab: &Handle) -> Result<Self> {
        let before = napi::threads()?;
        let macs = [mac(lab, SERVER)?, mac(lab, CLIENT)?].concat();
        let macs = macs.try_into().ok().context("MAC addresses")?;
        let (mut ebpf, interface) = lab.netns(CLIENT).enter(|| {
            let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let interface = netdevice::name_to_index(&any, INTERFACE)?;
            let mut ebpf = EbpfLoader::new().load(BENCH_PROGRAMS)?;
            program(&mut ebpf, "flood")?.load()?;
            let sink = program(&mut ebpf, "sink")?;
            sink.load()?;
            sink.attach(INTERFACE, XdpMode::Driver)?;
            Ok((ebpf, interface))
        })?;
        let mut take = |name| ebpf.take_map(name).context(name);
        let mut templates = Array::<_, Template>::try_from(take("TEMPLATES")?)?;
        let run = Array::try_from(take("RUN")?)?;
        let replies = PerCpuArray::try_from(take("REPLIES")?)?;
        let mut frame = Vec::new();
        for (slot, index) in (0..).zip(ASKED) {
            frame = query(index, macs);
            let mut template = bench::Template {
                len: frame.len() as u64,
                bytes: [0; TEMPLATE_LEN],
            };
            template.bytes[..frame.len()].copy_from_slice(&frame);
            templates.set(slot, Template(template), 0)?;
        }
        let receiver = Receiver::start(lab, Side::Client, &before)?;
        receiver.set_priority(Generator::LiveFrames.receiver_priority())?;
        Ok(Self {
            run,
            replies,
            frame,
            interface,
            ebpf,
        })
    }

    /// Inside the generator's namespace.
    fn generate(&mut self, time: Duration) -> Result<Counted> {
        let mut cpu = CpuSet::new();
        cpu.set(Side::Client.cpu());
        sched_setaffinity(None, &cpu)?;
        let run = bench::Run {
            templates: ASKED.len() as u64,
            ..bench::Run::default()
        };
        self.run.set(0, Run(run), 0)?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let len = self.frame.len() as u32;
        let context = [0, len, 0, self.interface, 0, 0].map(u32::to_ne_bytes);
        let before = self.replies()?;
        let begun = Instant::now();
        let mut queries = 0;
        while begun.elapsed() < time {
            program(&mut self.ebpf, "flood")?.test_run(TestRunOptions {
                data_in: Some(&self.frame),
                ctx_in: Some(context.as_flattened()),
                repeat: CHUNK,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })?;
            queries += u64::from(CHUNK);
        }
        let time = begun.elapsed();
        // The last ones are under way.
        std::thread::sleep(Duration::from_millis(5));
        let replies = self.replies()? - before;
        ensure!(replies > 0, "no reply to {queries} queries");
        Ok(Counted {
            queries,
            replies,
            time,
        })
    }

    fn replies(&self) -> Result<u64> {
        Ok(self.replies.get(&0, 0)?.iter().sum())
    }
}

/// A query for a name, from a port of its own, between the two ends.
fn query(index: usize, macs: [u8; 12]) -> Vec<u8> {
    let question = Question::new(wire(&Many::name(index)), 1);
    let client = (CLIENT_ADDRESS, 40_000 + index as u16);
    Frame::v4(question.bytes())
        .between(macs, client, LISTEN_V4)
        .bytes()
}

/// The address of the pair's end on a host.
fn mac(lab: &Handle, host: Host) -> Result<[u8; 6]> {
    let mut show = command::command("ip");
    let namespace = lab.netns(host);
    show.args(["-n", namespace.name(), "-j", "link", "show", INTERFACE]);
    let link: serde_json::Value = serde_json::from_str(&command::output(&mut show)?)?;
    let text = link[0]["address"].as_str().context("no MAC address")?;
    let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
    let octets = octets.collect::<Result<Vec<_>, _>>()?;
    octets.try_into().ok().context("no MAC address")
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).context(name)?.try_into()?)
}
