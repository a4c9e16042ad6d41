//! The veth pair between server and generators, and the kernel threads that receive from it.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use failover_tests::command;
use failover_tests::figures;
use failover_tests::lab::{Handle, Host};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{CLIENT, SERVER};

/// The name of the interface at both ends.
pub(crate) const INTERFACE: &str = "wan1";

/// An end of the pair.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// Keeps to the last CPU.
    Server,
    /// Keeps to the first CPU.
    Client,
}

/// The kernel threads that receive for one end; they end with its XDP program.
pub(crate) struct Receiver {
    threads: BTreeSet<u32>,
}

impl Side {
    const fn host(self) -> Host {
        match self {
            Self::Server => SERVER,
            Self::Client => CLIENT,
        }
    }

    /// The CPU that this side keeps to.
    pub(crate) fn cpu(self) -> usize {
        match self {
            Self::Server => std::thread::available_parallelism().map_or(0, |count| count.get() - 1),
            Self::Client => 0,
        }
    }
}

impl Receiver {
    /// Hands receiving over to kernel threads. The interface must have its XDP program, and none
    /// but `before` may have had a thread.
    pub(crate) fn start(lab: &Handle, side: Side, before: &BTreeSet<u32>) -> Result<Self> {
        let namespace = lab.netns(side.host());
        let file = format!("/sys/class/net/{INTERFACE}/threaded");
        // `ip netns exec` mounts the namespace's own /sys, which has its interfaces.
        let mut write = command::command("ip");
        write.args(["netns", "exec", namespace.name(), "sh", "-c"]);
        command::output(write.arg(format!("echo 1 > {file}")))
            .context("receive in a kernel thread (threaded NAPI)")?;
        let threads = threads()?.difference(before).copied().collect();
        let receiver = Self { threads };
        ensure!(
            !receiver.threads.is_empty(),
            "no kernel thread receives for {INTERFACE}"
        );
        let mut cpu = CpuSet::new();
        cpu.set(side.cpu());
        for &thread in &receiver.threads {
            let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
            sched_setaffinity(thread, &cpu).context("bind a kernel thread to a CPU")?;
        }
        Ok(receiver)
    }

    /// None yet.
    pub(crate) const fn none() -> Self {
        Self {
            threads: BTreeSet::new(),
        }
    }

    /// Their nice value: 0 leaves an overloaded server a share of its CPU, -20 lets nothing else
    /// delay what they do.
    pub(crate) fn set_priority(&self, nice: i32) -> Result<()> {
        for &thread in &self.threads {
            let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
            setpriority_process(thread, nice).context("the priority of a kernel thread")?;
        }
        Ok(())
    }

    /// What they have used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let times = self.threads.iter().map(|&thread| figures::cpu_time(thread));
        times.sum()
    }
}

/// The kernel threads that receive for interfaces of this name, in any namespace.
pub(crate) fn threads() -> Result<BTreeSet<u32>> {
    let mut threads = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end meanwhile.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&format!("napi/{INTERFACE}-")) {
            threads.insert(pid);
        }
    }
    Ok(threads)
}

/// How many frames the server's interface has sent.
pub(crate) fn sent(lab: &Handle) -> Result<u64> {
    let mut show = command::command("ip");
    let namespace = lab.netns(SERVER);
    show.args([
        "-n",
        namespace.name(),
        "-s",
        "-j",
        "link",
        "show",
        INTERFACE,
    ]);
    let link: serde_json::Value = serde_json::from_str(&command::output(&mut show)?)?;
    let packets = link[0]["stats64"]["tx"]["packets"].as_u64();
    packets.context("no count of sent packets")
}

/// How often it is looked whether the server sends.
const SAMPLE: Duration = Duration::from_millis(10);
/// More frames than this in a sample are replies to a generator.
const SENDS: u64 = 50;

/// Runs `generate`; returns also for how long the server's interface was sending meanwhile, if it was.
pub(crate) fn while_sending<T>(
    lab: &Handle,
    generate: impl FnOnce() -> Result<T>,
) -> Result<(T, Option<Duration>)> {
    let ended = AtomicBool::new(false);
    let namespace = lab.netns(SERVER);
    let watch = || {
        let (mut first, mut last) = (None, None);
        let (mut before, mut then) = (sent_here()?, Instant::now());
        while !ended.load(Ordering::Relaxed) {
            thread::sleep(SAMPLE);
            let (sent, now) = (sent_here()?, Instant::now());
            if sent.saturating_sub(before) > SENDS {
                first = first.or(Some(then));
                last = Some(now);
            }
            (before, then) = (sent, now);
        }
        Ok(first.zip(last).map(|(first, last)| last - first))
    };
    thread::scope(|scope| {
        let watching = scope.spawn(|| namespace.enter(watch));
        let generated = generate();
        ended.store(true, Ordering::Relaxed);
        let time: Result<_> = watching.join().expect("watching does not panic");
        Ok((generated?, time?))
    })
}

/// How many frames the interface has sent, read inside its namespace.
fn sent_here() -> Result<u64> {
    let interfaces = fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut lines = interfaces.lines();
    let fields = lines.find_map(|line| line.trim().strip_prefix(INTERFACE)?.strip_prefix(':'));
    // Eight fields of what was received, then octets and packets.
    let sent = fields.and_then(|fields| fields.split_whitespace().nth(9)?.parse().ok());
    sent.context("no count of sent packets")
}
