//! The rules: from inputs to what is to be published, without I/O.
//!
//! Here is what comes of probes: verdicts and states. `services` has what comes of those, `interfaces`
//! the program's place, `succession` the way to another model.

mod interfaces;
mod services;
mod succession;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::admin::Expiries;
use super::event::Event;
use crate::dataplane::{Change, Generation};
use crate::health::{
    Admin, Carrier, Effective, Failure, Machine, Pace, Targets, Verdict, effective, link_verdict,
    server_verdict,
};
use crate::model::{Model, Probe, ProbeId, ServerId, ServiceId, WanId};
use crate::policy::{Forward, View};
use crate::probe::{LinkEvent, Report};
use crate::state::{Kept, Record, Standing};
use interfaces::InterfaceState;
use services::ServiceState;

/// How much later than its first probe's timeout the first round may end: the probes of the
/// first round start one after another.
const ROUND_GRACE: Duration = Duration::from_millis(50);
/// Between two starts of the first round, at most.
const ROUND_STEP: Duration = Duration::from_micros(100);

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For intervals.
    pub at: Instant,
    /// For people.
    pub wall: Timestamp,
}

impl Now {
    /// What the clocks say; the one for people in milliseconds.
    #[must_use]
    pub fn read() -> Self {
        let wall = Timestamp::now();
        Self {
            at: Instant::now(),
            wall: Timestamp::from_millisecond(wall.as_millisecond()).unwrap_or(wall),
        }
    }
}

/// What happens to the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A probe was executed.
    Probe(Report),
    /// An interface came, went, or changed its carrier.
    Link(LinkEvent),
    /// The operator spoke.
    Admin(Subject, Admin),
}

/// What has a verdict and an admin state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A server.
    Server(ServerId),
    /// A WAN link.
    Wan(WanId),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Publish the names and all answers: the first publication. Then [`Core::published`].
    PublishAll(Vec<Change>),
    /// Publish these answers in one step. Then [`Core::published`] or [`Core::refused`].
    Publish(Vec<Change>),
    /// Forward connections to the WAN addresses of all services so.
    ForwardAll(Vec<Forward>),
    /// Forward those to these services' so.
    Forward(Vec<(ServiceId, Forward)>),
    /// Attach the program. Then [`Core::attached`] or [`Core::not_attached`].
    Attach {
        /// The interface's name.
        interface: String,
        /// Its index.
        index: u32,
    },
    /// Forget the program on an interface that is gone.
    Forget {
        /// The interface's name.
        interface: String,
    },
    /// Run a probe so often.
    SetPace(ProbeId, Pace),
    /// Keep this over a restart.
    Save(Record),
    /// Tell the operator.
    Log(Event),
}

/// All state.
#[derive(Debug)]
pub struct Core {
    pub(super) model: Arc<Model>,
    pub(super) index: Index,
    pub(super) probes: Vec<ProbeState>,
    pub(super) servers: Subjects,
    pub(super) wans: Subjects,
    /// Of each link; `None`: not known yet.
    pub(super) carriers: Vec<Option<Carrier>>,
    pub(super) services: Vec<ServiceState>,
    pub(super) interfaces: Vec<InterfaceState>,
    /// The last news of each interface that was ever watched.
    links: BTreeMap<String, LinkEvent>,
    pub(super) generation: Generation,
    /// Probes by kind and outcome.
    pub(super) outcomes: BTreeMap<(&'static str, &'static str), u64>,
    /// When admin states end.
    pub(super) expiries: Expiries,
    /// The last time that [`Core::settle`] was told.
    seen: Now,
    phase: Phase,
    /// Services that depend on what has changed.
    dirty: Vec<ServiceId>,
    /// Services whose answers are being published.
    in_flight: Vec<ServiceId>,
    /// Services whose connections go somewhere else now.
    rerouted: Vec<ServiceId>,
    pub(super) commands: Vec<Command>,
}

/// Who depends on what.
#[derive(Debug)]
pub(super) struct Index {
    /// Of each probe.
    users: Vec<Vec<Subject>>,
    /// Of each link.
    pub(super) services: Vec<Vec<ServiceId>>,
    /// Of each interface.
    wans: HashMap<String, Vec<WanId>>,
}

#[derive(Debug)]
pub(super) struct ProbeState {
    pub(super) machine: Machine,
    pub(super) last_error: Option<Failure>,
    pub(super) rtt: Option<Duration>,
    /// When the last result came.
    pub(super) last: Option<Timestamp>,
    pace: Pace,
    /// The first round need not wait for it.
    heard: bool,
}

/// Servers or links, each by its index.
#[derive(Debug)]
pub(super) struct Subjects {
    pub(super) admin: Vec<Admin>,
    pub(super) verdict: Vec<Verdict>,
    pub(super) effective: Vec<Effective>,
    pub(super) since: Vec<Timestamp>,
    /// Saved before the restart.
    kept: Vec<Standing>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The first round runs: nothing has been published. Ends at the deadline, or when
    /// nothing is awaited any more: probes, and the state of interfaces.
    FirstRound { deadline: Instant, awaited: usize },
    /// Answers are published as they change, but not before `not_before`.
    Live { not_before: Option<Instant> },
}

impl Subjects {
    fn new(kept: Vec<Standing>, now: Now) -> Self {
        Self {
            admin: kept.iter().map(|standing| standing.admin.clone()).collect(),
            verdict: vec![Verdict::Unknown; kept.len()],
            effective: vec![Effective::Unknown; kept.len()],
            since: vec![now.wall; kept.len()],
            kept,
        }
    }

    fn standing(&self, index: usize) -> Standing {
        Standing {
            admin: self.admin[index].clone(),
            effective: self.effective[index],
            since: Some(self.since[index]),
        }
    }

    fn standings(&self) -> Vec<Standing> {
        let indices = 0..self.admin.len();
        indices.map(|index| self.standing(index)).collect()
    }

    /// Sets the verdict; tells whether verdict and effective state have changed.
    fn set(&mut self, index: usize, verdict: Verdict, restoring: bool, now: Now) -> (bool, bool) {
        let before = (self.verdict[index], self.effective[index]);
        let after = (verdict, effective(self.admin[index].state, verdict));
        (self.verdict[index], self.effective[index]) = after;
        if before.1 != after.1 {
            let kept = &self.kept[index];
            let same = restoring && kept.effective == after.1;
            self.since[index] = kept.since.filter(|_| same).unwrap_or(now.wall);
        }
        (before.0 != after.0, before.1 != after.1)
    }
}

impl Index {
    fn new(model: &Model) -> Self {
        let mut index = Self {
            users: vec![Vec::new(); model.probes.len()],
            services: vec![Vec::new(); model.wans.len()],
            wans: HashMap::new(),
        };
        for (server, id) in model.servers.iter().zip((0..).map(ServerId)) {
            for probe in &server.probes {
                index.users[probe.index()].push(Subject::Server(id));
            }
        }
        for (wan, id) in model.wans.iter().zip((0..).map(WanId)) {
            for target in &wan.targets {
                let users = &mut index.users[target.probe.index()];
                if users.last() != Some(&Subject::Wan(id)) {
                    users.push(Subject::Wan(id));
                }
            }
            if let Some(interface) = &wan.interface {
                index.wans.entry(interface.clone()).or_default().push(id);
            }
        }
        for (service, id) in model.services.iter().zip((0..).map(ServiceId)) {
            for address in &service.wan {
                let services = &mut index.services[address.wan.index()];
                if services.last() != Some(&id) {
                    services.push(id);
                }
            }
        }
        index
    }
}

/// How long the first probes of these may take, one starting after the other.
pub(super) fn first_round<'a>(probes: impl IntoIterator<Item = &'a Probe>) -> Duration {
    let (mut round, mut timeout, mut interval) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for probe in probes {
        round += ROUND_STEP;
        timeout = timeout.max(probe.timing.timeout);
        interval = interval.max(probe.timing.interval);
    }
    timeout + round.min(interval) + ROUND_GRACE
}

impl Core {
    /// Nothing is published, and the first round of probes starts now. Verdicts in `kept`
    /// need not be waited for.
    #[must_use]
    pub fn new(model: Arc<Model>, kept: &Kept, now: Now) -> Self {
        let index = Index::new(&model);
        let probes: Vec<ProbeState> = model
            .probes
            .iter()
            .zip(&kept.verdicts)
            .map(|(probe, verdict)| ProbeState {
                machine: Machine::restore(probe.timing.rise, probe.timing.fall, *verdict),
                last_error: None,
                rtt: None,
                last: None,
                pace: Pace::Normal,
                heard: *verdict != Verdict::Unknown,
            })
            .collect();
        let interfaces = model.settings.interfaces.iter().cloned();
        let interfaces = interfaces.map(InterfaceState::new);
        let carriers = model.wans.iter().map(|wan| match wan.interface {
            Some(_) => None,
            None => Some(Carrier::NotWatched),
        });
        let services = (0..).map(ServiceId).take(model.services.len());
        let services = services.map(|id| ServiceState {
            decision: None,
            forward: None,
            last: kept.last.get(&id).cloned(),
            since: now.wall,
            generation: Generation(0),
            unpublished: false,
            dirty: false,
        });
        let (servers, wans) = (kept.servers.clone(), kept.wans.clone());
        let mut core = Self {
            phase: Phase::FirstRound {
                deadline: now.at + first_round(&model.probes),
                awaited: model.interfaces().len()
                    + probes.iter().filter(|probe| !probe.heard).count(),
            },
            probes,
            servers: Subjects::new(servers, now),
            wans: Subjects::new(wans, now),
            carriers: carriers.collect(),
            services: services.collect(),
            interfaces: interfaces.collect(),
            links: BTreeMap::new(),
            generation: Generation(0),
            outcomes: BTreeMap::new(),
            expiries: Expiries::default(),
            seen: now,
            dirty: Vec::new(),
            in_flight: Vec::new(),
            rerouted: Vec::new(),
            commands: Vec::new(),
            index,
            model,
        };
        let expired = core.restore_admins(now);
        for subject in core.subjects() {
            core.refresh(subject, now);
        }
        for probe in (0..).map(ProbeId).take(core.probes.len()) {
            core.repace(probe, now);
        }
        // What has been so all along is no news, and the paces are asked for.
        core.commands.clear();
        for event in expired {
            core.tell_admin(event);
        }
        core
    }

    /// How often a probe runs.
    #[must_use]
    pub fn pace(&self, probe: ProbeId) -> Pace {
        self.probes[probe.index()].pace
    }

    /// Whether the first publication has been asked for.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// Takes something in; [`Core::settle`] tells what follows.
    pub fn input(&mut self, input: Input, now: Now) {
        match input {
            Input::Probe(report) => self.on_report(report, now),
            Input::Link(event) => self.on_link(&event, now),
            Input::Admin(subject, admin) => self.on_admin(subject, admin, now),
        }
    }

    /// What is to be done now, in this order.
    #[must_use]
    pub fn settle(&mut self, now: Now) -> Vec<Command> {
        self.seen = now;
        self.expire(now);
        let mut commands = Vec::new();
        match self.phase {
            Phase::FirstRound { deadline, awaited } if awaited == 0 || now.at >= deadline => {
                self.phase = Phase::Live { not_before: None };
                self.dirty.clear();
                let all = (0..).map(ServiceId).take(self.services.len());
                // Services that a reload left alone are published with the others.
                let changes = all.filter_map(|id| self.decide(id, now).or_else(|| self.change(id)));
                let changes = changes.collect();
                // Before anybody is told to come.
                commands.extend(self.forward_all());
                commands.push(Command::PublishAll(changes));
            }
            Phase::Live { not_before } if not_before.is_none_or(|time| now.at >= time) => {
                self.phase = Phase::Live { not_before: None };
                let dirty = std::mem::take(&mut self.dirty);
                let changes: Vec<Change> = dirty
                    .into_iter()
                    .filter_map(|id| self.decide(id, now))
                    .collect();
                if !changes.is_empty() {
                    commands.push(Command::Publish(changes));
                }
                commands.extend(self.forward_some());
            }
            Phase::FirstRound { .. } | Phase::Live { .. } => {}
        }
        if self.is_live() {
            self.want_attached(now);
        }
        commands.append(&mut self.commands);
        commands
    }

    /// When [`Core::settle`] has something to do, should nothing happen before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::FirstRound { deadline, .. } => Some(deadline),
            Phase::Live { not_before } => not_before,
        };
        let retries = self
            .interfaces
            .iter()
            .filter_map(|interface| interface.retry);
        let expiry = self.expiries.next_after(self.seen);
        phase.into_iter().chain(retries).chain(expiry).min()
    }

    /// The states decisions rest on.
    pub(super) fn view(&self) -> View<'_> {
        View {
            servers: &self.servers.effective,
            wans: &self.wans.effective,
        }
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> + use<> {
        let servers = (0..).map(ServerId).take(self.model.servers.len());
        let wans = (0..).map(WanId).take(self.model.wans.len());
        servers.map(Subject::Server).chain(wans.map(Subject::Wan))
    }

    fn on_report(&mut self, report: Report, now: Now) {
        let Some(probe) = self.probes.get_mut(report.probe.index()) else {
            return;
        };
        let kind = self.model.probe(report.probe).target.kind();
        let outcome = report
            .outcome
            .as_ref()
            .err()
            .map_or("success", Failure::label);
        *self.outcomes.entry((kind, outcome)).or_default() += 1;
        if probe.pace == Pace::Paused {
            // Sent before it was paused.
            return;
        }
        probe.last = Some(now.wall);
        let flip = match report.outcome {
            Ok(rtt) => {
                probe.rtt = Some(rtt);
                probe.last_error = None;
                probe.machine.on_outcome(true)
            }
            // Says nothing about the target; the engine has warned.
            Err(error @ Failure::Local(_)) => {
                probe.last_error = Some(error);
                None
            }
            Err(error) => {
                probe.last_error = Some(error);
                probe.machine.on_outcome(false)
            }
        };
        self.hear(report.probe);
        self.repace(report.probe, now);
        if let Some(flip) = flip {
            let record = Record::Verdict(report.probe, flip.to);
            self.commands.push(Command::Save(record));
            self.refresh_users(report.probe, now);
        }
    }

    pub(super) fn slot(&mut self, subject: Subject) -> (&mut Subjects, usize) {
        match subject {
            Subject::Server(id) => (&mut self.servers, id.index()),
            Subject::Wan(id) => (&mut self.wans, id.index()),
        }
    }

    pub(super) fn probes_of(&self, subject: Subject) -> Vec<ProbeId> {
        match subject {
            Subject::Server(id) => self.model.server(id).probes.clone(),
            Subject::Wan(id) => {
                let targets = self.model.wan(id).targets.iter();
                targets.map(|target| target.probe).collect()
            }
        }
    }

    pub(super) fn admin(&self, subject: Subject) -> &Admin {
        match subject {
            Subject::Server(id) => &self.servers.admin[id.index()],
            Subject::Wan(id) => &self.wans.admin[id.index()],
        }
    }

    /// The first round need not wait for this probe any more.
    fn hear(&mut self, probe: ProbeId) {
        if !std::mem::replace(&mut self.probes[probe.index()].heard, true) {
            self.await_one_less();
        }
    }

    const fn await_one_less(&mut self) {
        if let Phase::FirstRound { awaited, .. } = &mut self.phase {
            *awaited = awaited.saturating_sub(1);
        }
    }

    /// How often a probe runs: not at all if nobody who uses it is to be checked, else as
    /// its machine says.
    pub(super) fn repace(&mut self, id: ProbeId, now: Now) {
        let users = &self.index.users[id.index()];
        let checked = users
            .iter()
            .any(|user| self.admin(*user).state.is_checked());
        let timing = self.model.probe(id).timing;
        let probe = &mut self.probes[id.index()];
        let before = probe.pace;
        if checked && before == Pace::Paused {
            // What it was before says little: the first probe decides.
            probe.machine = Machine::new(timing.rise, timing.fall);
            probe.last_error = None;
            probe.rtt = None;
            probe.last = None;
        }
        probe.pace = if checked {
            probe.machine.pace()
        } else {
            Pace::Paused
        };
        let pace = probe.pace;
        if pace == before {
            return;
        }
        self.commands.push(Command::SetPace(id, pace));
        if pace == Pace::Paused {
            // Maintenance may end while the daemon is down.
            let record = Record::Verdict(id, Verdict::Unknown);
            self.commands.push(Command::Save(record));
            self.hear(id);
        } else if before == Pace::Paused {
            self.refresh_users(id, now);
        }
    }

    fn refresh_users(&mut self, probe: ProbeId, now: Now) {
        for i in 0..self.index.users[probe.index()].len() {
            self.refresh(self.index.users[probe.index()][i], now);
        }
    }

    /// Derives verdict and effective state, and notes who depends on them.
    pub(super) fn refresh(&mut self, subject: Subject, now: Now) {
        let verdict = self.verdict(subject);
        let restoring = !self.is_live();
        let (subjects, index) = self.slot(subject);
        let from = subjects.effective[index];
        let (turned, changed) = subjects.set(index, verdict, restoring, now);
        if changed {
            match subject {
                Subject::Server(id) => self.touch(self.model.server(id).service),
                Subject::Wan(id) => {
                    for i in 0..self.index.services[id.index()].len() {
                        self.touch(self.index.services[id.index()][i]);
                    }
                }
            }
            self.save(subject);
        }
        if turned || changed {
            let event = self.event(subject, from, !self.is_live());
            self.commands.push(Command::Log(event));
        }
    }

    fn verdict(&self, subject: Subject) -> Verdict {
        let verdict = |probe: ProbeId| self.probes[probe.index()].machine.verdict();
        match subject {
            Subject::Server(id) => {
                server_verdict(self.model.server(id).probes.iter().copied().map(verdict))
            }
            Subject::Wan(id) => self.carriers[id.index()].map_or(Verdict::Unknown, |carrier| {
                link_verdict(carrier, self.targets(id), self.model.wan(id).min_up)
            }),
        }
    }

    fn targets(&self, id: WanId) -> Targets {
        let targets = self.model.wan(id).targets.iter();
        targets
            .map(|target| self.probes[target.probe.index()].machine.verdict())
            .collect()
    }

    pub(super) fn save(&mut self, subject: Subject) {
        let record = match subject {
            Subject::Server(id) => Record::Server(id, self.servers.standing(id.index())),
            Subject::Wan(id) => Record::Wan(id, self.wans.standing(id.index())),
        };
        self.commands.push(Command::Save(record));
    }

    /// That a server or a link is not any more as it was; or `first`, that it is as it is.
    fn event(&self, subject: Subject, from: Effective, first: bool) -> Event {
        let with_error = |failing: Option<ProbeId>| {
            let error = failing.and_then(|probe| self.probes[probe.index()].last_error.clone());
            failing.zip(error)
        };
        match subject {
            Subject::Server(id) => Event::Server {
                id,
                from,
                verdict: self.servers.verdict[id.index()],
                admin: self.servers.admin[id.index()].clone(),
                effective: self.servers.effective[id.index()],
                failed: with_error(self.failing(id)),
                first,
            },
            Subject::Wan(id) => {
                let targets = self.model.wan(id).targets.iter();
                let targets = targets.map(|target| target.probe);
                Event::Wan {
                    id,
                    from,
                    verdict: self.wans.verdict[id.index()],
                    admin: self.wans.admin[id.index()].clone(),
                    effective: self.wans.effective[id.index()],
                    carrier: self.carriers[id.index()],
                    targets: self.targets(id),
                    failed: with_error(self.failing_of(targets)),
                    first,
                }
            }
        }
    }

    /// The check that explains a server's state.
    pub(super) fn failing(&self, server: ServerId) -> Option<ProbeId> {
        self.failing_of(self.model.server(server).probes.iter().copied())
    }

    /// Of probes whose last execution failed the first that says down, else the first.
    fn failing_of(&self, probes: impl Iterator<Item = ProbeId> + Clone) -> Option<ProbeId> {
        let failed = probes.filter(|probe| self.probes[probe.index()].last_error.is_some());
        let is_down =
            |probe: &ProbeId| self.probes[probe.index()].machine.verdict() == Verdict::Down;
        failed
            .clone()
            .find(is_down)
            .or_else(|| failed.clone().next())
    }
}
