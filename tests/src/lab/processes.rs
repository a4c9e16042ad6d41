//! The processes of a lab, each recorded in a file so that any process can stop it.
//!
//! A process is only ever signalled while it is inside the lab's namespace that it was started
//! in: an id that the kernel has given to somebody else is left alone.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use super::{Handle, Host};

/// How long a process may take to stop before it is killed.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// When a process started, in clock ticks since boot; with its id it names it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StartTime(u64);

/// When the process started; `None` when there is no such process.
pub(super) fn start_time(pid: u32) -> Option<StartTime> {
    stat(pid, 22).map(StartTime)
}

/// CPU time of the process and its threads, in user space and in the kernel for it.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    /// Clock ticks per second in `/proc`, as on every Linux on x86-64 (`USER_HZ`).
    const TICKS: u64 = 100;
    let ticks = stat(pid, 14)? + stat(pid, 15)?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// A field of `/proc/PID/stat`, counted as proc(5) does, from the third on.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field - 3)?.parse().ok()
}

/// How a process is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// By SIGTERM, and SIGKILL when that does not help.
    Politely,
    /// By SIGKILL.
    Kill,
}

/// Starts a program on a host. Its output goes to a log unless the command says otherwise.
///
/// It gets a process group of its own, so that Ctrl-C reaches only us and the end is orderly.
pub(super) fn start(lab: &Handle, name: &str, host: Host, command: &mut Command) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let log = File::options()
        .create(true)
        .append(true)
        .open(lab.log(name))?;
    command.stdout(log.try_clone()?).stderr(log);
    spawn(
        lab,
        name,
        host,
        command.stdin(Stdio::null()).process_group(0),
    )
}

/// Starts a program on a host, its output as the command says.
pub(super) fn spawn(lab: &Handle, name: &str, host: Host, command: &mut Command) -> Result<Child> {
    let child = lab.netns(host).spawn(command)?;
    fs::write(file(lab, name), format!("{} {host}", child.id()))?;
    Ok(child)
}

/// The id of a process of the lab, if it runs.
pub(super) fn running(lab: &Handle, name: &str) -> Option<u32> {
    let (pid, host) = recorded(lab, name)?;
    lab.netns(host).contains(pid).then_some(pid)
}

fn recorded(lab: &Handle, name: &str) -> Option<(u32, Host)> {
    let record = fs::read_to_string(file(lab, name)).ok()?;
    let (pid, host) = record.split_once(' ')?;
    Some((pid.parse().ok()?, host.parse().ok()?))
}

/// Stops a process of the lab and waits for its end; returns whether it ran.
pub(super) fn stop(lab: &Handle, name: &str, how: Stop) -> Result<bool> {
    let process = Process::running(lab, name);
    if let Some(process) = &process {
        let signal = match how {
            Stop::Politely => Signal::TERM,
            Stop::Kill => Signal::KILL,
        };
        if !process.signal_and_wait(signal)? && !process.signal_and_wait(Signal::KILL)? {
            bail!("{name} (process {}) does not end", process.pid);
        }
    }
    fs::remove_file(file(lab, name)).ok();
    Ok(process.is_some())
}

/// A running process of the lab, held so that its id is not given to another one unnoticed.
struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    fn running(lab: &Handle, name: &str) -> Option<Self> {
        let (id, host) = recorded(lab, name)?;
        let pid = Pid::from_raw(id.try_into().ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now, so that what is inside is what we hold.
        lab.netns(host).contains(id).then_some(Self { pid, fd })
    }

    /// Whether the process was gone in time, and with it its sockets: a process leaves its
    /// namespace before it closes them, so that says nothing yet.
    fn signal_and_wait(&self, signal: Signal) -> Result<bool> {
        // It may have ended by itself a moment ago.
        pidfd_send_signal(&self.fd, signal).ok();
        let mut ended = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = retry_on_intr(|| poll(&mut ended, Some(&PATIENCE)));
        if ready.context("cannot wait for a process")? == 0 {
            return Ok(false);
        }
        // Where it is a child of ours, leave no zombie behind.
        waitpid(Some(self.pid), WaitOptions::NOHANG).ok();
        Ok(true)
    }
}

/// The names of all recorded processes.
pub(super) fn names(lab: &Handle) -> Vec<String> {
    let entries = fs::read_dir(lab.dir().join("processes"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn file(lab: &Handle, name: &str) -> PathBuf {
    lab.dir().join("processes").join(name)
}
