//! Programs: exit status 0 is a success.
//!
//! They are started by a thread of their own, for two reasons. Capabilities belong to threads,
//! and this one has none: whatever the daemon may do, and though it be root, a program that it
//! starts has the rights of its user over files and nothing else. And starting a process takes a
//! while, which would make other probes late.
//!
//! A program gets a process group, an environment, a working directory and standard files of
//! its own, and inherits nothing else. At its timeout the whole group is killed. What it leaves
//! running when it ends by itself is left alone.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Failure;
use crate::health::{ExecFailure, Outcome};
use crate::model::ExecCheck;
use crate::privileges;

/// Programs that run at once.
const MOST: usize = 64;
/// Octets of a program's output that are kept for people.
const OUTPUT_LIMIT: usize = 256;
/// What a killed program gets to be gone.
const BURIAL: Duration = Duration::from_secs(1);
/// Where programs look for programs.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The thread that starts programs; dropping it kills those that run.
#[derive(Debug)]
pub(super) struct Executor {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    check: Arc<ExecCheck>,
    timeout: Duration,
    reply: oneshot::Sender<Outcome>,
}

impl Executor {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (started, outcome) = std::sync::mpsc::channel();
        let thread = thread::Builder::new()
            .name("exec checks".to_owned())
            .spawn(move || {
                let built = privileges::keep_nothing()
                    .map_err(io::Error::from)
                    .and_then(|()| runtime::Builder::new_current_thread().enable_all().build());
                let (runtime, result) = match built {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = started.send(result);
                if let Some(runtime) = runtime {
                    runtime.block_on(work(receiver));
                }
            })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs the program; when this future is dropped, the program is killed.
    pub(super) async fn probe(&self, check: Arc<ExecCheck>, timeout: Duration) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            check,
            timeout,
            reply,
        };
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        let gone = || Failure::Local("the thread that starts programs has ended".to_owned());
        match outcome.await {
            Ok(outcome) if sent => outcome,
            _ => Err(gone()),
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs what comes until nobody can send more.
async fn work(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let permits = Arc::new(Semaphore::new(MOST));
    while let Some(mut job) = jobs.recv().await {
        let permits = Arc::clone(&permits);
        tokio::spawn(async move {
            // The wait is lateness, and no part of the timeout.
            let Ok(_permit) = permits.acquire().await else {
                return;
            };
            let outcome = tokio::select! {
                biased;
                () = job.reply.closed() => return,
                outcome = run(&job.check, job.timeout) => outcome,
            };
            let _ = job.reply.send(outcome);
        });
    }
}

async fn run(check: &ExecCheck, limit: Duration) -> Outcome {
    let begun = Instant::now();
    let (mut group, mut output) = start(check).map_err(|error| not_started(&error))?;
    let Ok(ended) = timeout(limit, output.read_until_end_of(&mut group)).await else {
        group.kill();
        let _ = timeout(BURIAL, group.0.wait()).await;
        return Err(ExecFailure::TimedOut(output.shown()).into());
    };
    let status = ended.map_err(|error| Failure::local("wait", &error))?;
    match failure(status, &output) {
        None => Ok(begun.elapsed()),
        Some(failure) => Err(failure.into()),
    }
}

fn failure(status: ExitStatus, output: &Output) -> Option<ExecFailure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(ExecFailure::Status(code, output.shown())),
        (None, signal) => Some(ExecFailure::Signal(
            signal.unwrap_or_default(),
            output.shown(),
        )),
    }
}

fn start(check: &ExecCheck) -> io::Result<(Group, Output)> {
    let (reader, writer) = io::pipe()?;
    let output = Output {
        pipe: Some(pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?),
        kept: Vec::new(),
    };
    let program = check.command.first().map_or("", String::as_str);
    let child = Command::new(program)
        .args(check.command.iter().skip(1))
        .env_clear()
        .envs(environment(check))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((Group(child), output))
}

fn environment(check: &ExecCheck) -> [(&'static str, impl AsRef<OsStr> + use<>); 5] {
    [
        ("PATH", SEARCH_PATH.to_owned()),
        ("FAILOVER_SERVICE", check.service.clone()),
        ("FAILOVER_SERVER", check.server.clone()),
        ("FAILOVER_ADDRESS", check.address.to_string()),
        ("FAILOVER_PORT", check.port.to_string()),
    ]
}

/// Want of processes, memory or descriptors is this host's; the rest is about the program.
fn not_started(error: &io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
            Failure::local("program", error)
        }
        _ => ExecFailure::NotStarted(error.to_string()).into(),
    }
}

impl From<ExecFailure> for Failure {
    fn from(failure: ExecFailure) -> Self {
        Self::Exec(failure)
    }
}

/// A program and all that it has started; killed when dropped before its end is known.
struct Group(Child);

impl Group {
    /// Kills the group of a program whose end is not known: only then the id is surely its own.
    fn kill(&self) {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program writes, to standard output and error alike.
struct Output {
    /// `None`: it was closed.
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
}

impl Output {
    /// Waits for the program's end. All its output is read, so that it never has to wait for us,
    /// but not to its end: another process may hold on to that.
    async fn read_until_end_of(&mut self, group: &mut Group) -> io::Result<ExitStatus> {
        let mut buffer = [0; 4096];
        loop {
            let Some(pipe) = &mut self.pipe else {
                return group.0.wait().await;
            };
            tokio::select! {
                // What it wrote before its end is read before its end is seen.
                biased;
                read = pipe.read(&mut buffer) => match read {
                    Ok(len) if len > 0 => self.keep(&buffer[..len]),
                    Ok(_) | Err(_) => self.pipe = None,
                },
                status = group.0.wait() => {
                    while let Some(Ok(len @ 1..)) = self.pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer))
                        && self.kept.len() < OUTPUT_LIMIT
                    {
                        self.keep(&buffer[..len]);
                    }
                    return status;
                }
            }
        }
    }

    fn keep(&mut self, read: &[u8]) {
        let room = OUTPUT_LIMIT - self.kept.len();
        self.kept.extend_from_slice(&read[..read.len().min(room)]);
    }

    /// One line of printable text.
    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests;
