use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use failover_common::counters::{Counters, ServiceHits};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::control::{self, Socket};
use crate::controller::testing::{link, probes, reference, report};
use crate::controller::{
    Asked, Basis, Controller, Core, Ended, Handover, Inputs, Load, Loaded, Now, Publish, Query,
    Set, Setup, Sources, Switched,
};
use crate::dataplane::{AttachedMode, Change, Error, Generation, Readings};
use crate::forward::Forwarder;
use crate::health::{AdminState, Carrier, Failure, Order, Pace};
use crate::journal::{Reader, Recorder};
use crate::metrics::Meters;
use crate::metrics::testing::Scrape;
use crate::model::{Model, ServiceId, XdpMode};
use crate::probe::{Begin, LinkEvent, ProbeKey, Report, Task};
use crate::protocol::{Removed, Reply, Request, Status, XdpState};
use crate::rights::Access;
use crate::state::{Kept, Saver, Store};
use crate::webhook::Webhooks;

/// A data plane that writes down what it is told.
#[derive(Clone, Default)]
pub(super) struct Fake {
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) generation: Generation,
    /// What refuses: an interface, or `open`, `switch` or `take over`.
    pub(super) refuses: &'static str,
    /// Where the program stays when the daemon ends.
    pub(super) outlives: &'static str,
    /// Publications after the first that are still to be refused.
    pub(super) failures: Arc<AtomicUsize>,
}

/// What takes its place after a reload; writes down when it is given up.
pub(super) struct Next(pub(super) Arc<Mutex<Vec<String>>>);

impl Drop for Next {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("next is gone".to_owned());
    }
}

impl Fake {
    /// Refuses so many publications after the first.
    pub(super) fn refusing(refusals: usize) -> Self {
        Self {
            failures: Arc::new(AtomicUsize::new(refusals)),
            ..Self::default()
        }
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    fn refuse(&self, what: &str) -> Result<(), Error> {
        if self.refuses == what {
            return Err(Error::Layout {
                map: "fake",
                what: "refusal",
            });
        }
        Ok(())
    }

    fn next(&mut self) -> Generation {
        self.generation = self.generation.next();
        self.generation
    }
}

impl Publish for Fake {
    type Next = Next;

    fn publish_all(&mut self, _: &Model, changes: &[Change]) -> Result<Generation, Error> {
        self.note(format!("publish all {}", changes.len()));
        Ok(self.next())
    }

    fn publish(&mut self, changes: &[Change]) -> Result<Generation, Error> {
        let fails = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(SeqCst, SeqCst, fails).is_ok() {
            self.note("refused".to_owned());
            return Err(Error::Layout {
                map: "fake",
                what: "refusal",
            });
        }
        self.note(format!("publish {}", changes.len()));
        Ok(self.next())
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn beat(&mut self, max_stale: Option<Duration>) {
        assert_eq!(max_stale, Some(Duration::from_secs(30)));
    }

    fn attach(&mut self, interface: &str, index: u32, _: XdpMode) -> Result<AttachedMode, Error> {
        self.refuse(interface)?;
        self.note(format!("attach {interface} {index}"));
        Ok(AttachedMode::Native)
    }

    fn open(&self, _: &mut Next) -> Result<(), Error> {
        self.refuse("open")
    }

    fn attach_next(
        &self,
        _: &mut Next,
        interface: &str,
        index: u32,
        _: XdpMode,
    ) -> Result<AttachedMode, Error> {
        self.refuse(interface)?;
        self.note(format!("attach next {interface} {index}"));
        Ok(AttachedMode::Generic)
    }

    fn switch(&mut self, next: Next, handover: &Handover<'_>) -> Result<Switched, Error> {
        self.refuse("switch")?;
        let addresses = handover.changes.iter().map(|change| {
            let name = &handover.model.service(change.service).name;
            let crate::wire::AddressAnswer::Records(records) = &change.a else {
                return format!("{name} -");
            };
            format!("{name} {}", records.rotated(0).count())
        });
        let addresses: Vec<_> = addresses.collect();
        self.note(format!("switch: {}", addresses.join(", ")));
        std::mem::forget(next);
        let (sender, retired) = oneshot::channel();
        let _ = sender.send(Ok(Readings::default()));
        let lost = self.refuse("take over").err();
        Ok(Switched {
            generation: self.next(),
            lost: lost
                .into_iter()
                .map(|error| ("eth0".to_owned(), error))
                .collect(),
            warnings: vec!["beware".to_owned()],
            retired: Some(retired),
        })
    }

    fn settle(&mut self, _: Readings) {
        self.note("settle".to_owned());
    }

    fn slow_path(&self) -> u64 {
        0
    }

    fn slow_path_counters(&self) -> Vec<(&'static str, u64)> {
        vec![("transfers", 4)]
    }

    fn detach(&mut self, interface: &str) {
        self.note(format!("detach {interface}"));
    }

    fn outlives(&self, interface: &str) -> bool {
        self.outlives == interface
    }

    fn tidy(&mut self) {}

    fn counters(&self) -> Result<Counters, Error> {
        Ok(Counters {
            answered: 3,
            passed_other: 2,
            ..Counters::default()
        })
    }

    fn service_hits(&self, _: ServiceId) -> Result<ServiceHits, Error> {
        Ok(ServiceHits { a: 2, aaaa: 1 })
    }
}

/// What the world is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Pace(ProbeKey, Pace),
    Add(Vec<(ProbeKey, Pace)>, Begin),
    Remove(Vec<ProbeKey>),
    Watch(BTreeSet<String>),
}

struct World(mpsc::UnboundedSender<Told>);

impl Sources for World {
    fn set_pace(&mut self, probe: ProbeKey, pace: Pace) {
        let _ = self.0.send(Told::Pace(probe, pace));
    }

    fn add(&mut self, probes: Vec<(ProbeKey, Task, Pace)>, begin: Begin) {
        let mut probes: Vec<_> = probes.iter().map(|(key, _, pace)| (*key, *pace)).collect();
        probes.sort_by_key(|(key, _)| *key);
        let _ = self.0.send(Told::Add(probes, begin));
    }

    fn remove(&mut self, probes: Vec<ProbeKey>) {
        let _ = self.0.send(Told::Remove(probes));
    }

    fn watch(&mut self, interfaces: BTreeSet<String>) {
        let _ = self.0.send(Told::Watch(interfaces));
    }
}

/// A load that was asked for, and where to say what it came to.
pub(super) type Job = (Basis, oneshot::Sender<Loaded<Next>>);

struct Loader(mpsc::UnboundedSender<Job>);

impl Load<Next> for Loader {
    fn load(&mut self, basis: Basis) -> oneshot::Receiver<Loaded<Next>> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.0.send((basis, sender));
        receiver
    }
}

/// A controller that runs, with the other ends of its channels.
pub(super) struct Running {
    pub(super) model: Arc<Model>,
    pub(super) models: watch::Receiver<Arc<Model>>,
    log: Arc<Mutex<Vec<String>>>,
    pub(super) reports: mpsc::Sender<Report<ProbeKey>>,
    pub(super) links: mpsc::Sender<LinkEvent>,
    pub(super) queries: mpsc::Sender<Asked>,
    pub(super) told: mpsc::UnboundedReceiver<Told>,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) recorder: Recorder,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) meters: Meters,
    pub(super) done: JoinHandle<anyhow::Result<Ended>>,
}

pub(super) fn start(dir: &Path, fake: &Fake) -> Running {
    start_with(dir, fake, reference())
}

pub(super) fn start_with(dir: &Path, fake: &Fake, mut model: Model) -> Running {
    model.settings.interfaces = vec!["eth0".to_owned()];
    let model = Arc::new(model);
    let (store, state) = Store::open(dir).unwrap();
    let kept = Kept::of(&state, &model);
    let core = Core::new(Arc::clone(&model), &kept, Now::read());
    let saver = Saver::start(store, Arc::clone(&model), kept, state.generation).unwrap();
    let recorder = Recorder::start(dir, Box::new(|_| {})).unwrap();
    let journal = recorder.journal().clone();
    let plane = Fake {
        generation: state.generation,
        ..fake.clone()
    };
    let (reports, reports_receiver) = mpsc::channel(64);
    let (links, links_receiver) = mpsc::channel(64);
    let (queries, queries_receiver) = mpsc::channel(64);
    let (told_sender, told) = mpsc::unbounded_channel();
    let (jobs_sender, jobs) = mpsc::unbounded_channel();
    let (models_sender, models) = watch::channel(Arc::clone(&model));
    let (stop, stopped) = oneshot::channel();
    let inputs = Inputs {
        reports: reports_receiver,
        links: links_receiver,
        queries: queries_receiver,
    };
    let meters = Meters::new(Now::read().wall, Webhooks::new());
    let counting = meters.clone();
    let run = move || {
        let controller = Controller::new(Setup {
            core,
            plane,
            forwarder: Forwarder::idle(),
            saver,
            journal,
            meters: counting,
            sources: Box::new(World(told_sender)),
            loader: Box::new(Loader(jobs_sender)),
            models: models_sender,
            detach_on_exit: false,
        });
        let stop = async {
            let _ = stopped.await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(controller.run(inputs, stop))
    };
    let done = tokio::task::spawn_blocking(run);
    Running {
        log: Arc::clone(&fake.log),
        model,
        reports,
        links,
        queries,
        recorder,
        told,
        jobs,
        models,
        stop,
        meters,
        done,
    }
}

/// What clients see of a journal.
pub(super) fn sources(journal: &Reader) -> control::Sources {
    control::Sources {
        journal: journal.clone(),
        webhooks: Webhooks::new(),
    }
}

impl Running {
    pub(super) async fn report(&self, name: &str, outcome: Result<(), Failure>) {
        for probe in probes(&self.model, name) {
            self.report_key(ProbeKey(probe.0), outcome.clone()).await;
        }
    }

    pub(super) async fn report_key(&self, probe: ProbeKey, outcome: Result<(), Failure>) {
        let report = report(crate::model::ProbeId(0), outcome).of(probe);
        // It may have ended before the last of them.
        let _ = self.reports.send(report).await;
    }

    pub(super) async fn ask(&self, query: Query) {
        let asked = Asked::of(&self.models.borrow(), query);
        self.queries.send(asked).await.unwrap();
    }

    pub(super) async fn first_round(&self) {
        self.links
            .send(link("eth0", Carrier::Up, Some(4)))
            .await
            .unwrap();
        for name in ["web-a", "web-b", "web-c", "wan1", "wan2"] {
            self.report(name, Ok(())).await;
        }
        self.status_at(1).await;
    }

    pub(super) async fn status(&self) -> Status {
        let (sender, receiver) = oneshot::channel();
        self.ask(Query::Status(0, sender)).await;
        receiver.await.unwrap().unwrap().status
    }

    /// The status when at least `publications` have happened since the start.
    pub(super) async fn status_at(&self, publications: usize) -> Status {
        for _ in 0..500 {
            let published = |line: &&String| line.starts_with("publish");
            if self.log().iter().filter(published).count() >= publications {
                return self.status().await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("not published: {:?}", self.log);
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_first_round_to_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let mut running = start(dir.path(), &fake);
    running.first_round().await;
    assert_eq!(running.log(), ["publish all 1", "attach eth0 4"]);

    running.report("web-b", Err(Failure::Refused)).await;
    let probe = probes(&running.model, "web-b")[0];
    let pace = Told::Pace(ProbeKey(probe.0), Pace::Fast);
    assert_eq!(running.told.recv().await, Some(pace));
    for _ in 0..3 {
        running.report("web-a", Err(Failure::Refused)).await;
        running.report("web-b", Err(Failure::Refused)).await;
    }
    let status = running.status_at(2).await;
    assert_eq!(status.generation, Generation(2));
    assert_eq!(
        status.services[0].answer,
        ["192.0.2.200".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(
        status.services[0].servers[0].last_error.as_deref(),
        Some("connection refused")
    );

    running.stop.send(()).unwrap();
    assert_eq!(running.done.await.unwrap().unwrap(), Ended::Stopped);
    assert_eq!(fake.log.lock().unwrap()[3..], ["detach eth0"]);

    // The next one starts from what was saved: it waits for its links alone.
    let fake = Fake::default();
    let running = start(dir.path(), &fake);
    running
        .links
        .send(link("eth0", Carrier::Up, Some(4)))
        .await
        .unwrap();
    let status = running.status_at(1).await;
    assert_eq!(status.generation, Generation(3));
    assert_eq!(status.services[0].tier, Some(crate::model::Tier::Backup2));
    running.stop.send(()).unwrap();
    running.done.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_the_start_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake {
        refuses: "eth0",
        ..Fake::default()
    };
    let running = start(dir.path(), &fake);
    running
        .links
        .send(link("eth0", Carrier::Up, Some(4)))
        .await
        .unwrap();
    for name in ["web-a", "web-b", "web-c", "wan1", "wan2"] {
        running.report(name, Ok(())).await;
    }
    let error = running.done.await.unwrap().unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "interface eth0 refuses the program: map fake: unexpected refusal"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::refusing(1);
    let running = start(dir.path(), &fake);
    running.first_round().await;
    for _ in 0..3 {
        running.report("web-a", Err(Failure::Refused)).await;
        running.report("web-b", Err(Failure::Refused)).await;
    }
    running.status_at(2).await;
    let counted = Scrape::of_meters(&running.meters);
    for (series, want) in [
        ("failover_publications_total result=published", 2.0),
        ("failover_publications_total result=refused", 1.0),
        ("failover_publication_duration_seconds_count", 2.0),
        // Of three servers, and of the targets of two links.
        ("failover_probe_duration_seconds_count kind=tcp", 3.0 + 3.0),
        ("failover_probe_duration_seconds_count kind=icmp", 2.0),
        // The same, and those that failed.
        ("failover_probe_lateness_seconds_count", 8.0 + 6.0),
        ("failover_events_total kind=server", 3.0 + 2.0),
    ] {
        assert_eq!(counted.get(series), want, "{series}");
    }
    assert!(counted.get("failover_heartbeat_timestamp_seconds") > 1e9);

    let (sender, receiver) = oneshot::channel();
    running.ask(Query::Metrics(0, sender)).await;
    let part = receiver.await.unwrap().unwrap();
    let overview = part.overview.unwrap();
    assert_eq!(overview.counters.answered, 3);
    assert_eq!(overview.slow_path, [("transfers", 4)]);
    assert_eq!(overview.outcomes[&("tcp", "refused")], 3 + 3);
    assert_eq!(part.services[0].hits, ServiceHits { a: 2, aaaa: 1 });
    assert!(Arc::ptr_eq(&part.model, &running.model));
    running.stop.send(()).unwrap();
    running.done.await.unwrap().unwrap();
}

/// Where the program outlives the daemon, it is left, unless it was told to detach.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_stays_where_it_can() {
    for (is_told, want) in [(false, &[][..]), (true, &["detach eth0"])] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake {
            outlives: "eth0",
            ..Fake::default()
        };
        let running = start(dir.path(), &fake);
        running.first_round().await;
        if is_told {
            let (sender, receiver) = oneshot::channel();
            running.ask(Query::Detach(sender)).await;
            assert_eq!(receiver.await.unwrap().interfaces, ["eth0"]);
        } else {
            running.stop.send(()).unwrap();
        }
        running.done.await.unwrap().unwrap();
        assert_eq!(fake.log.lock().unwrap()[2..], *want);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir.path().join("state"), &Fake::default());
    running.first_round().await;
    let path = dir.path().join("control.sock");
    let socket = Socket::bind(&path, &Access::default()).unwrap();
    let (stop, stops) = watch::channel(());
    let models = running.models.clone();
    let sources = sources(running.recorder.reader());
    let served = tokio::spawn(socket.serve(models, running.queries.clone(), sources, stops));

    // Two clients at once, the first one silent.
    let _silent = UnixStream::connect(&path).await.unwrap();
    let mut client = BufReader::new(UnixStream::connect(&path).await.unwrap());
    let mut exchange = async |line: &[u8]| {
        client.get_mut().write_all(line).await.unwrap();
        let mut reply = String::new();
        client.read_line(&mut reply).await.unwrap();
        serde_json::from_str::<Reply>(&reply).unwrap()
    };
    let line = |request: &Request| {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        line
    };

    let Reply::Status(status) = exchange(&line(&Request::Status {})).await else {
        panic!()
    };
    assert_eq!(
        (
            status.counters.rx,
            status.counters.answered,
            status.counters.passed
        ),
        (5, 3, 2)
    );
    assert_eq!(status.interfaces[0].xdp, XdpState::Native);
    assert_eq!(status.services[0].fqdn, ["www.example.com"]);

    let explain = |name: &str| {
        line(&Request::Explain {
            name: name.to_owned(),
        })
    };
    let Reply::Explain(explained) = exchange(&explain("WWW.example.com.")).await else {
        panic!()
    };
    assert_eq!((explained.wans.len(), explained.standings.len()), (2, 3));
    assert!(explained.published);
    let reply = exchange(&explain("nobody.example.com")).await;
    assert!(
        matches!(&reply, Reply::Error(why) if why.contains("nobody.example.com")),
        "{reply:?}"
    );

    let Reply::Stats(stats) = exchange(&line(&Request::Stats {})).await else {
        panic!()
    };
    assert_eq!(stats.counters["answered"], 3);
    assert_eq!(stats.slow_path["transfers"], 4);
    assert_eq!(stats.probes["tcp"]["success"], 6);
    assert_eq!((stats.services[0].a, stats.services[0].aaaa), (2, 1));

    for broken in ["{}\n", "status\n", "{\"request\":\"set\"}\n", "\n"] {
        let reply = exchange(broken.as_bytes()).await;
        assert!(matches!(reply, Reply::Error(_)), "{broken}: {reply:?}");
    }
    assert!(matches!(
        exchange(&line(&Request::Status {})).await,
        Reply::Status(_)
    ));

    let Reply::Detached(detached) = exchange(&line(&Request::Detach {})).await else {
        panic!()
    };
    assert_eq!(detached.interfaces, ["eth0"]);
    assert_eq!(detached.rules, Ok(Removed::Nothing));
    assert_eq!(running.done.await.unwrap().unwrap(), Ended::Detached);
    assert!(matches!(
        exchange(&line(&Request::Status {})).await,
        Reply::Error(_)
    ));
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
    assert!(!path.exists());
}

/// Over the socket, to the state file and back.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_is_published_and_saved() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let fake = Fake::default();
    let running = start(&state, &fake);
    running.first_round().await;
    let path = dir.path().join("control.sock");
    let socket = Socket::bind(&path, &Access::default()).unwrap();
    let (_stop, stops) = watch::channel(());
    tokio::spawn(socket.serve(
        running.models.clone(),
        running.queries.clone(),
        sources(running.recorder.reader()),
        stops,
    ));
    let mut client = BufReader::new(UnixStream::connect(&path).await.unwrap());
    let mut exchange = async |targets: &str, state, lasting| {
        let request = Request::Set {
            targets: targets.split(' ').map(str::to_owned).collect(),
            order: Order::new(state, lasting, Some("kernel".parse().unwrap())).unwrap(),
        };
        let mut line = serde_json::to_vec(&request).unwrap();
        line.push(b'\n');
        client.get_mut().write_all(&line).await.unwrap();
        let mut reply = String::new();
        client.read_line(&mut reply).await.unwrap();
        serde_json::from_str::<Reply>(&reply).unwrap()
    };

    let unknown = exchange("www/web-x", AdminState::Down, None).await;
    assert!(
        matches!(&unknown, Reply::Error(why) if why.contains("did you mean \"web-a\"?")),
        "{unknown:?}"
    );
    // One publication is refused; the reply waits for the next one.
    fake.failures.store(1, SeqCst);
    let hour = Some("1h".parse().unwrap());
    let Reply::Set(set) = exchange("www/web-a www/*b", AdminState::Drain, hour).await else {
        panic!()
    };
    assert!(
        set.published && set.saved && set.services[0].changed,
        "{set:?}"
    );
    assert_eq!(
        running.log(),
        ["publish all 1", "attach eth0 4", "refused", "publish 1"]
    );
    assert_eq!(set.targets.len(), 2);
    let admin = &set.targets[0].admin;
    assert_eq!(admin.by.as_deref(), Some(me().as_str()));
    // It is in the file although the daemon has not been stopped.
    let file = std::fs::read_to_string(state.join("state.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&file).unwrap();
    let saved = &saved["servers"]["www/web-a"];
    assert_eq!(
        [&saved["admin"], &saved["admin_reason"], &saved["admin_by"]],
        ["drain", "kernel", me().as_str()]
    );
    let status = running.status().await;
    assert_eq!(status.services[0].servers[0].admin, *admin);
    running.stop.send(()).unwrap();
    running.done.await.unwrap().unwrap();

    // And in the next daemon.
    let running = start(&state, &Fake::default());
    let status = running.status().await;
    assert_eq!(status.services[0].servers[0].admin, *admin);
    running.stop.send(()).unwrap();
    running.done.await.unwrap().unwrap();
}

/// Our user, as the daemon calls it.
fn me() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).unwrap();
    user.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_waits_for_the_first_publication() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), &Fake::default());
    let (sender, mut receiver) = oneshot::channel();
    let set = Set {
        targets: vec!["www/*".to_owned()],
        order: Order::new(AdminState::Maint, None, None).unwrap(),
        by: "alice".into(),
    };
    running.ask(Query::Set(set, sender)).await;
    // It has been taken in when the next query is answered.
    let status = running.status().await;
    assert_eq!(status.services[0].servers[0].admin.state, AdminState::Maint);
    assert!(receiver.try_recv().is_err());
    running.first_round().await;
    let (result, _saved) = receiver.await.unwrap().unwrap();
    assert!(
        result.published && result.generation > Generation(0),
        "{result:?}"
    );
    running.stop.send(()).unwrap();
    running.done.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_requests_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let (queries, _receiver) = mpsc::channel(1);
    let (_stop, stops) = watch::channel(());
    let recorder = Recorder::start(dir.path(), Box::new(|_| {})).unwrap();
    let socket = Socket::bind(&path, &Access::default()).unwrap();
    let sources = sources(recorder.reader());
    let (_models, models) = watch::channel(Arc::new(reference()));
    tokio::spawn(socket.serve(models, queries, sources, stops));
    let mut client = BufReader::new(UnixStream::connect(&path).await.unwrap());
    client
        .get_mut()
        .write_all(&[b'x'; crate::protocol::MAX_REQUEST + 1])
        .await
        .unwrap();
    let mut reply = String::new();
    client.read_line(&mut reply).await.unwrap();
    assert!(reply.contains("at most"), "{reply}");
    reply.clear();
    assert_eq!(client.read_line(&mut reply).await.unwrap_or(0), 0);
}

/// The data plane's report of names and of JSON: stable for scripts.
#[tokio::test(flavor = "multi_thread")]
async fn status_has_its_fields() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), &Fake::default());
    running.first_round().await;
    let status = serde_json::to_value(running.status().await).unwrap();
    let has = |value: &serde_json::Value, fields: &[&str]| {
        for field in fields {
            assert!(value.get(field).is_some(), "{field} in {value}");
        }
    };
    has(
        &status,
        &[
            "generation",
            "interfaces",
            "services",
            "wans",
            "counters",
            "listen",
        ],
    );
    assert_eq!(
        status["interfaces"][0],
        serde_json::json!({"name": "eth0", "xdp": "native"})
    );
    let service = &status["services"][0];
    has(
        service,
        &["name", "fqdn", "answer", "ttl", "servers", "reason"],
    );
    assert_eq!(service["tier"], "primary");
    assert_eq!(
        service["answer"],
        serde_json::json!(["198.51.100.134", "203.0.113.70"])
    );
    let server = &service["servers"][0];
    has(server, &["name", "address", "port", "since", "last_error"]);
    assert_eq!(
        [
            "priority",
            "offsite",
            "verdict",
            "admin",
            "effective",
            "rtt_us"
        ]
        .map(|field| server[field].clone()),
        [
            "primary".into(),
            false.into(),
            "up".into(),
            "auto".into(),
            "up".into(),
            serde_json::Value::from(310)
        ]
    );
    server["since"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    has(
        &status["wans"][0],
        &["name", "verdict", "admin", "effective", "targets"],
    );
    has(
        &status["counters"],
        &["rx", "answered", "passed", "slow_path"],
    );
}
