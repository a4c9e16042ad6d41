//! The shell around [`Schedule`]: executes probes when they are due.
//!
//! It has a thread and a single-threaded runtime of its own, so that nothing else in the
//! daemon makes probes late, and because the hand-offs between the workers of a
//! multi-threaded runtime cost as much as the probes themselves.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::ClientConfig;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::{trace, warn};

use super::exec::Executor;
use super::schedule::{Begin, Finished, ProbeKey, Schedule, Start};
use super::throttle::Throttle;
use super::{Failure, http, icmp, limit, tcp, tls};
use crate::health::{Outcome, Pace};
use crate::model::{Probe, ProbeId, ProbeTarget};

/// Starts between two looks at what has happened meanwhile.
const BURST: usize = 64;

/// Least time between two looks at what is due. With many probes, several start and end per
/// wake-up, which costs far less; few ones are hardly ever due this close to each other.
const TICK: Duration = Duration::from_millis(4);

/// Trouble of this host's own is logged once per period.
const WARN_PERIOD: Duration = Duration::from_secs(10);

/// One execution of a probe: of one of a model, or of one that is being executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<Id = ProbeId> {
    /// Which probe.
    pub probe: Id,
    /// When it began.
    pub started: Instant,
    /// How much later than it was due; includes the wait for a free socket.
    pub late: Duration,
    /// How long the target took to answer, or why there was no answer.
    pub outcome: Outcome,
}

impl<Id> Report<Id> {
    /// The same under another name.
    #[must_use]
    pub fn of<Other>(self, probe: Other) -> Report<Other> {
        Report {
            probe,
            started: self.started,
            late: self.late,
            outcome: self.outcome,
        }
    }
}

/// Executes probes; see [`Engine::start`].
#[derive(Debug)]
pub struct Engine {
    tasks: HashMap<ProbeKey, Arc<Task>>,
    /// `None`: no probe has started a program yet.
    executor: Option<Arc<Executor>>,
    schedule: Schedule,
    /// How many sockets there may be at once.
    slots: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    reports: mpsc::Sender<Report<ProbeKey>>,
    local_trouble: Throttle,
}

/// A probe, and what its executions need beside it, made once.
#[derive(Debug)]
pub struct Task {
    probe: Probe,
    /// `None`: without TLS.
    client: Option<Arc<ClientConfig>>,
}

/// What becomes of probes while others go on.
#[derive(Debug)]
enum Command {
    SetPace(ProbeKey, Pace),
    Add(Vec<(ProbeKey, Task, Pace)>, Begin),
    Remove(Vec<ProbeKey>),
}

/// Steers a running [`Engine`]; dropping it ends the engine.
#[derive(Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    /// Dropping it ends the engine.
    alive: oneshot::Sender<()>,
    /// Closed when the engine has ended.
    ended: oneshot::Receiver<()>,
}

impl Handle {
    /// Changes how often a probe runs, from its last start on; returns at once.
    ///
    /// The outcome of a probe that is paused while it runs is not reported, but a report
    /// already sent may still wait in the channel.
    pub fn set_pace(&self, probe: ProbeKey, pace: Pace) {
        self.send(Command::SetPace(probe, pace));
    }

    /// Has more probes executed, so often; returns at once. Keys that were used before must not
    /// be used again.
    pub fn add(&self, probes: Vec<(ProbeKey, Task, Pace)>, begin: Begin) {
        self.send(Command::Add(probes, begin));
    }

    /// Ends the executions of probes; returns at once. A report already sent may still wait in
    /// the channel.
    pub fn remove(&self, probes: Vec<ProbeKey>) {
        self.send(Command::Remove(probes));
    }

    fn send(&self, command: Command) {
        // Fails only after the engine has ended, which the reports' receiver sees.
        let _ = self.commands.send(command);
    }

    /// Ends the engine and all its executions; returns when their sockets are closed.
    pub async fn shutdown(self) {
        let Self {
            commands,
            alive,
            ended,
        } = self;
        drop((commands, alive));
        // Never sent to: it is closed.
        let _ = ended.await;
    }
}

impl Engine {
    /// Starts to execute `probes`, whose keys are their indices, and to send what comes of it.
    ///
    /// The first execution of each comes at once (0.1 ms apart), the later ones are spread over
    /// the probe's interval. They leave through the network namespace of the calling thread.
    /// While `reports` is full the engine waits, and probes get late: give it room for half a
    /// second of reports. It is closed when the engine has ended, for whatever reason.
    ///
    /// Raises the process's soft limit of open files to the hard one.
    ///
    /// # Errors
    ///
    /// If there is no thread or no file descriptor to be had for it.
    pub fn start(probes: &[Probe], reports: mpsc::Sender<Report<ProbeKey>>) -> io::Result<Handle> {
        Self::start_with(probes, |_| Pace::Normal, reports)
    }

    /// [`Self::start`] with another pace than the normal one for some of the probes, from the
    /// beginning on: a probe that is [`Pace::Paused`] is not executed even once.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(
        probes: &[Probe],
        pace: impl Fn(ProbeKey) -> Pace,
        reports: mpsc::Sender<Report<ProbeKey>>,
    ) -> io::Result<Handle> {
        Self::start_limited(probes, pace, reports, limit::sockets())
    }

    fn start_limited(
        probes: &[Probe],
        pace: impl Fn(ProbeKey) -> Pace,
        reports: mpsc::Sender<Report<ProbeKey>>,
        slots: usize,
    ) -> io::Result<Handle> {
        let tasks = Task::prepare(probes);
        let executor = tasks.iter().any(Task::is_program).then(Executor::start);
        let now = Instant::now();
        let mut schedule = Schedule::new(probes.iter().map(|probe| probe.timing), now);
        for probe in (0..).map(ProbeKey).take(probes.len()) {
            schedule.set_pace(probe, pace(probe), now);
        }
        let (sender, commands) = mpsc::unbounded_channel();
        let engine = Self {
            tasks: (0..)
                .map(ProbeKey)
                .zip(tasks.into_iter().map(Arc::new))
                .collect(),
            executor: executor.transpose()?.map(Arc::new),
            schedule,
            slots,
            commands,
            reports,
            local_trouble: Throttle::new(WARN_PERIOD),
        };
        let (built, outcome) = std::sync::mpsc::channel();
        let (alive, dropped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        thread::Builder::new()
            .name("probes".to_owned())
            .spawn(move || {
                // Dropped last, when the runtime and all sockets are gone.
                let _ending: oneshot::Sender<()> = ending;
                // Built here, as dropping a runtime on the caller's thread could panic.
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                let (runtime, result) = match runtime {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = built.send(result);
                let Some(runtime) = runtime else { return };
                runtime.block_on(async {
                    tokio::select! {
                        _ = dropped => {}
                        () = engine.run() => {}
                    }
                });
                drop(runtime);
            })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Handle {
            commands: sender,
            alive,
            ended,
        })
    }

    /// Runs until the handle or the receiver of the reports is gone.
    async fn run(mut self) {
        let mut running = FuturesUnordered::new();
        let mut look_again = Instant::now();
        let mut timer = pin!(sleep_until(look_again.into()));
        loop {
            let now = Instant::now();
            let most = self.slots.min(running.len() + BURST);
            let look = now >= look_again;
            while look
                && running.len() < most
                && let Some(start) = self.schedule.start(now)
            {
                // Whatever is scheduled has a task.
                if let Some(task) = self.tasks.get(&start.probe) {
                    running.push(execute(Arc::clone(task), self.executor.clone(), start));
                }
                look_again = now + TICK;
            }
            let slot_is_free = running.len() < self.slots;
            let next = self.schedule.next_due().filter(|_| slot_is_free);
            if let Some(next) = next {
                set(timer.as_mut(), next.max(look_again));
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some((task, report)) = running.next() => {
                    let finished = self.schedule.finish(report.probe, Instant::now());
                    self.log(&task.probe, &report);
                    if finished == Finished::Report && self.reports.send(report).await.is_err() {
                        return;
                    }
                }
                () = self.reports.closed() => return,
                () = &mut timer, if next.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::SetPace(probe, pace) => self.schedule.set_pace(probe, pace, now),
            Command::Add(probes, begin) => {
                if self.executor.is_none() && probes.iter().any(|(_, task, _)| task.is_program()) {
                    match Executor::start() {
                        Ok(executor) => self.executor = Some(Arc::new(executor)),
                        Err(error) => warn!(%error, "no thread that starts programs"),
                    }
                }
                let timings = probes.iter();
                let timings = timings.map(|(key, task, _)| (*key, task.probe.timing));
                self.schedule.add(&timings.collect::<Vec<_>>(), begin, now);
                for (key, task, pace) in probes {
                    self.tasks.insert(key, Arc::new(task));
                    self.schedule.set_pace(key, pace, now);
                }
            }
            Command::Remove(probes) => {
                for probe in probes {
                    self.schedule.remove(probe);
                    self.tasks.remove(&probe);
                }
            }
        }
    }

    fn log(&mut self, probe: &Probe, report: &Report<ProbeKey>) {
        match &report.outcome {
            Ok(rtt) => trace!(target = %probe.target, ?rtt, late = ?report.late, "probe"),
            Err(failure) => {
                trace!(target = %probe.target, %failure, late = ?report.late, "probe");
                if let Failure::Local(error) = failure
                    && let Some(suppressed) = self.local_trouble.admit(Instant::now())
                {
                    warn!(target = %probe.target, %error, suppressed, "cannot probe");
                }
            }
        }
    }
}

fn set(timer: Pin<&mut Sleep>, deadline: Instant) {
    if timer.deadline() != deadline.into() {
        timer.reset(deadline.into());
    }
}

async fn execute(
    task: Arc<Task>,
    executor: Option<Arc<Executor>>,
    Start { probe, due }: Start,
) -> (Arc<Task>, Report<ProbeKey>) {
    let started = Instant::now();
    let report = Report {
        probe,
        started,
        late: started.saturating_duration_since(due),
        outcome: task.outcome(executor, started).await,
    };
    (task, report)
}

impl Task {
    /// What is needed for these probes, in their order.
    ///
    /// May take a while: it reads the system's trust store.
    #[must_use]
    pub fn prepare<'a>(probes: impl IntoIterator<Item = &'a Probe>) -> Vec<Self> {
        let mut clients = tls::Clients::default();
        let probes = probes.into_iter();
        probes
            .map(|probe| Self::with(probe, &mut clients))
            .collect()
    }

    /// What is needed for one probe. May take a while, too.
    #[must_use]
    pub fn new(probe: &Probe) -> Self {
        Self::with(probe, &mut tls::Clients::default())
    }

    fn with(probe: &Probe, clients: &mut tls::Clients) -> Self {
        let tls = match &probe.target {
            ProbeTarget::Http(check) => check.tls.as_ref(),
            ProbeTarget::Tcp(_) | ProbeTarget::Icmp(_) | ProbeTarget::Exec(_) => None,
        };
        Self {
            client: tls.map(|tls| clients.of(&tls.trust)),
            probe: probe.clone(),
        }
    }

    const fn is_program(&self) -> bool {
        matches!(self.probe.target, ProbeTarget::Exec(_))
    }

    async fn outcome(&self, executor: Option<Arc<Executor>>, started: Instant) -> Outcome {
        let Probe {
            target,
            egress,
            timing,
        } = &self.probe;
        let limit = timing.timeout;
        match target {
            ProbeTarget::Tcp(address) => within(limit, tcp::probe(*address, egress)).await,
            ProbeTarget::Icmp(address) => within(limit, icmp::probe(*address, egress)).await,
            ProbeTarget::Http(check) => {
                let client = self.client.clone();
                // Boxed: it is large, and the others should not be.
                Box::pin(http::probe(check, client, egress, started + limit)).await
            }
            ProbeTarget::Exec(check) => match executor {
                Some(executor) => executor.probe(Arc::clone(check), limit).await,
                None => Err(Failure::Local("no thread that starts programs".to_owned())),
            },
        }
    }
}

async fn within<T>(
    limit: Duration,
    probe: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, probe)
        .await
        .unwrap_or(Err(Failure::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Egress, ExecCheck, HttpCheck, HttpMethod, Timing, Tls, Trust};
    use crate::probe::testing::BlackHole;
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::net::TcpListener;

    const INTERVAL: Duration = Duration::from_millis(100);
    const FASTINTER: Duration = Duration::from_millis(20);

    fn tcp(address: SocketAddr) -> Probe {
        let timing = Timing {
            interval: INTERVAL,
            fastinter: FASTINTER,
            timeout: Duration::from_millis(60),
            rise: 2,
            fall: 3,
        };
        Probe {
            target: ProbeTarget::Tcp(address),
            egress: Egress::default(),
            timing,
        }
    }

    /// The same for a target that is to answer, however busy the machine is.
    fn patient(mut probe: Probe) -> Probe {
        probe.timing.timeout = Duration::from_secs(30);
        probe
    }

    /// A listener that accepts for ever, and its address.
    async fn listener() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        address
    }

    /// An address that refuses.
    async fn refusing() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[tokio::test]
    async fn each_target_has_its_outcome_every_interval() {
        let hole = BlackHole::new();
        let probes = [
            patient(tcp(listener().await)),
            patient(tcp(refusing().await)),
            tcp(hole.address()),
        ];
        let (sender, mut reports) = mpsc::channel(16);
        let handle = Engine::start(&probes, sender).unwrap();
        // When each was due, which a busy machine does not change.
        let mut dues: HashMap<ProbeKey, Vec<Instant>> = HashMap::new();
        while dues.len() < 3 || dues.values().any(|dues| dues.len() < 6) {
            let report = reports.recv().await.unwrap();
            let due = report.started - report.late;
            dues.entry(report.probe).or_default().push(due);
            match report.probe.0 {
                0 => assert!(report.outcome.is_ok(), "{report:?}"),
                1 => assert_eq!(report.outcome, Err(Failure::Refused)),
                _ => assert_eq!(report.outcome, Err(Failure::TimedOut)),
            }
        }
        for dues in dues.values() {
            let gaps = dues.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.min().unwrap() >= INTERVAL / 4, "{dues:?}");
        }
        handle.shutdown().await;
        assert!(reports.recv().await.is_none());
    }

    #[tokio::test]
    async fn each_kind_is_executed() {
        let target = refusing().await;
        let http = |tls| {
            ProbeTarget::Http(Arc::new(HttpCheck {
                address: target,
                tls,
                method: HttpMethod::Get,
                host: "www.example.com".to_owned(),
                path: "/".to_owned(),
                expect: vec![200..=200],
                body: None,
            }))
        };
        let tls = Tls {
            name: "www.example.com".try_into().unwrap(),
            trust: Trust::Anybody,
        };
        let exec = ProbeTarget::Exec(Arc::new(ExecCheck {
            command: vec!["/nonexistent/check".to_owned()],
            service: "www".to_owned(),
            server: "web-a".to_owned(),
            address: target.ip(),
            port: target.port().try_into().unwrap(),
        }));
        let kinds = [http(None), http(Some(tls)), exec, ProbeTarget::Tcp(target)];
        let probes = kinds.map(|kind| {
            patient(Probe {
                target: kind,
                ..tcp(target)
            })
        });
        let (sender, mut reports) = mpsc::channel(16);
        let handle = Engine::start(&probes, sender).unwrap();
        let mut labels = HashMap::new();
        while labels.len() < probes.len() {
            let report = reports.recv().await.unwrap();
            labels.insert(report.probe.0, report.outcome.unwrap_err().label());
        }
        let want = [
            (0, "refused"),
            (1, "refused"),
            (2, "exec_not_started"),
            (3, "refused"),
        ];
        assert_eq!(labels, HashMap::from(want));
        handle.shutdown().await;
    }

    #[tokio::test]
    async fn pace() {
        let probes = [
            tcp(listener().await),
            tcp(listener().await),
            tcp(listener().await),
        ];
        let (sender, mut reports) = mpsc::channel(16);
        let paused = |probe| {
            if probe == ProbeKey(2) {
                Pace::Paused
            } else {
                Pace::Normal
            }
        };
        let handle = Engine::start_with(&probes, paused, sender).unwrap();
        handle.set_pace(ProbeKey(1), Pace::Fast);
        let mut counts = [0; 3];
        while counts[0] < 4 {
            counts[reports.recv().await.unwrap().probe.0 as usize] += 1;
        }
        assert!(counts[1] > counts[0], "{counts:?}");
        assert_eq!(counts[2], 0);
        handle.set_pace(ProbeKey(2), Pace::Normal);
        while reports.recv().await.unwrap().probe != ProbeKey(2) {}
    }

    #[tokio::test]
    async fn probes_are_added_and_removed() {
        let exec = |program: &str| Probe {
            target: ProbeTarget::Exec(Arc::new(ExecCheck {
                command: vec![program.to_owned()],
                service: "www".to_owned(),
                server: "web-a".to_owned(),
                address: Ipv4Addr::LOCALHOST.into(),
                port: 80.try_into().unwrap(),
            })),
            ..patient(tcp(([127, 0, 0, 1], 80).into()))
        };
        let first = [
            patient(tcp(listener().await)),
            patient(tcp(refusing().await)),
        ];
        let (sender, mut reports) = mpsc::channel(16);
        let handle = Engine::start(&first, sender).unwrap();
        while reports.recv().await.unwrap().probe != ProbeKey(1) {}
        // The first that start a program.
        let more = [exec("/bin/true"), exec("/bin/false")];
        let keys = [7, 8].map(ProbeKey);
        let tasks = keys.into_iter().zip(Task::prepare(&more));
        let mut added: Vec<_> = tasks.map(|(key, task)| (key, task, Pace::Normal)).collect();
        added.extend(
            Task::prepare(&more[..1])
                .into_iter()
                .map(|task| (ProbeKey(9), task, Pace::Paused)),
        );
        handle.add(added, Begin::AtOnce);
        handle.remove(vec![ProbeKey(1)]);
        let mut labels = HashMap::new();
        while labels.len() < 2 {
            let report = reports.recv().await.unwrap();
            if keys.contains(&report.probe) {
                let label = report.outcome.err().map(|failure| failure.label());
                labels.insert(report.probe, label);
            }
        }
        assert_eq!(
            labels,
            HashMap::from([(keys[0], None), (keys[1], Some("exec_status"))])
        );
        // What was reported before it was removed may still have been on its way.
        let mut rounds = 0;
        while rounds < 3 {
            let report = reports.recv().await.unwrap();
            rounds += usize::from(report.probe == ProbeKey(0));
            assert_ne!(report.probe, ProbeKey(9));
            assert!(rounds < 2 || report.probe != ProbeKey(1));
        }
        handle.shutdown().await;
    }

    #[tokio::test]
    async fn sockets_are_bounded_and_waiting_is_lateness() {
        let hole = BlackHole::new();
        let probes = [
            tcp(hole.address()),
            tcp(hole.address()),
            patient(tcp(listener().await)),
        ];
        let (sender, mut reports) = mpsc::channel(16);
        let _handle = Engine::start_limited(&probes, |_| Pace::Normal, sender, 1).unwrap();
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(reports.recv().await.unwrap());
        }
        assert_eq!(
            order
                .iter()
                .map(|report| report.probe.0)
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert!(order[2].outcome.is_ok(), "{:?}", order[2]);
        assert!(
            order[2].late >= Duration::from_millis(110),
            "{:?}",
            order[2]
        );
    }

    #[tokio::test]
    async fn ends_with_its_handle_or_its_receiver() {
        let probes = [tcp(refusing().await)];
        let (sender, mut reports) = mpsc::channel(1);
        drop(Engine::start(&probes, sender).unwrap());
        while reports.recv().await.is_some() {}

        let (sender, reports) = mpsc::channel(1);
        let handle = Engine::start(&[], sender).unwrap();
        drop(reports);
        handle.ended.await.unwrap_err();
    }
}
