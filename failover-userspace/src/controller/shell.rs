//! The shell around the core: waits, feeds it, and does what it says.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::Event;
use super::core::{Command, Core, Input, Now};
use super::numbers::Numbers;
use super::ports::{Asked, Inputs, Load, Publish, Query, Sources};
use super::reload::Reloads;
use super::sample::MetricsPart;
use super::set::Waiting;
use super::telling::Told;
use crate::dataplane::{self, Change, Generation};
use crate::forward::Forwarder;
use crate::journal::Journal;
use crate::metrics::Meters;
use crate::model::{Model, XdpMode};
use crate::probe::{ProbeKey, Report};
use crate::protocol::Detached;
use crate::state::Saver;

/// Inputs taken in before anything is published, at most.
const MOST_AT_ONCE: usize = 1 << 16;
/// What the first rules of port forwarding get to be in place before anybody is answered.
const FIRST_RULES: Duration = Duration::from_secs(2);
/// Between two heartbeats, at most.
const BEAT: Duration = Duration::from_secs(1);

/// How long a start may still take, said with every beat before the first publication: that waits
/// for a round of probes, and so for whatever timeouts are configured.
const START: Duration = Duration::from_secs(60);

/// What a controller is made of.
pub struct Setup<P: Publish> {
    /// The state.
    pub core: Core,
    /// Where answers go.
    pub plane: P,
    /// Where it is told where connections go.
    pub forwarder: Forwarder,
    /// What outlives a restart goes there.
    pub saver: Saver,
    /// What an operator may want to know later goes there.
    pub journal: Journal,
    /// Count what happens.
    pub meters: Meters,
    /// The other ends of the inputs. The keys of probes are their ids.
    pub sources: Box<dyn Sources>,
    /// Makes what reloads need.
    pub loader: Box<dyn Load<P::Next>>,
    /// The model, for all who follow it.
    pub models: watch::Sender<Arc<Model>>,
    /// The program is not to outlive the daemon.
    pub detach_on_exit: bool,
}

/// Why the controller has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was told to detach.
    Detached,
}

/// The task that owns all state.
pub struct Controller<P: Publish> {
    pub(super) core: Core,
    pub(super) plane: P,
    pub(super) forwarder: Forwarder,
    pub(super) saver: Saver,
    pub(super) journal: Journal,
    pub(super) meters: Meters,
    pub(super) sources: Box<dyn Sources>,
    pub(super) loader: Box<dyn Load<P::Next>>,
    pub(super) models: watch::Sender<Arc<Model>>,
    pub(super) numbers: Numbers,
    pub(super) reloads: Reloads<P::Next>,
    detach_on_exit: bool,
    next_beat: Instant,
    ready: bool,
    /// The last publication was refused.
    refused: bool,
    pub(super) waiting: Waiting,
}

impl<P: Publish> Controller<P> {
    /// A controller that has not begun.
    #[must_use]
    pub fn new(setup: Setup<P>) -> Self {
        let Setup {
            core,
            plane,
            forwarder,
            saver,
            journal,
            meters,
            sources,
            loader,
            models,
            detach_on_exit,
        } = setup;
        Self {
            numbers: Numbers::new(core.model.probes.len()),
            core,
            plane,
            forwarder,
            saver,
            journal,
            meters,
            sources,
            loader,
            models,
            detach_on_exit,
            reloads: Reloads::default(),
            next_beat: Instant::now(),
            ready: false,
            refused: false,
            waiting: Waiting::default(),
        }
    }

    /// There is something else to beat for.
    pub(super) fn beat_soon(&mut self) {
        self.next_beat = Instant::now();
    }

    /// Between two heartbeats.
    fn pulse(&self) -> Duration {
        let max_stale = self.core.model.settings.max_stale;
        let quarter = max_stale.map(|max_stale| max_stale / 4);
        let half = sd_notify::watchdog_enabled().map(|watchdog| watchdog / 2);
        let beat = [quarter, half].into_iter().flatten();
        // Not a busy loop, whatever is configured.
        beat.fold(BEAT, Duration::min).max(Duration::from_millis(1))
    }

    /// Runs until `stop` is ready or [`Query::Detach`] comes; then saves the state. The program
    /// stays on the interfaces where it can, unless it was told otherwise.
    ///
    /// # Errors
    ///
    /// If the first publication or the first attachment is refused, or a source of inputs ends.
    pub async fn run(
        mut self,
        mut inputs: Inputs,
        stop: impl Future<Output = ()>,
    ) -> Result<Ended> {
        self.tell(&Event::Started, Now::read());
        let ended = self.work(&mut inputs, stop).await;
        notify(&[NotifyState::Stopping]);
        // With what was made for it.
        self.reloads = Reloads::default();
        self.leave();
        let why = match &ended {
            Ok(Ended::Stopped) => Ok("told to stop"),
            Ok(Ended::Detached) => Ok("told to detach"),
            Err(error) => Err(format!("{error:#}")),
        };
        self.tell(&Event::Stopped { why }, Now::read());
        self.saver.stop(self.plane.generation());
        ended
    }

    async fn work(&mut self, inputs: &mut Inputs, stop: impl Future<Output = ()>) -> Result<Ended> {
        notify(&[NotifyState::Status("waiting for the first round of probes")]);
        let mut stop = pin!(stop);
        loop {
            let wakes = [
                self.core.wake_at(),
                self.waiting.deadline(),
                self.reloads.wake_at(),
            ];
            let wake_at = wakes
                .into_iter()
                .flatten()
                .fold(self.next_beat, Instant::min);
            let (mut query, mut step) = (None, None);
            tokio::select! {
                biased;
                () = &mut stop => return Ok(Ended::Stopped),
                link = inputs.links.recv() => {
                    let link = link.context("the link watcher has ended")?;
                    self.core.input(Input::Link(link), Now::read());
                }
                report = inputs.reports.recv() => {
                    let report = report.context("the probe engine has ended")?;
                    self.take_report(report, Now::read());
                }
                Some(asked) = inputs.queries.recv() => query = Some(asked),
                next = self.reloads.step() => step = Some(next),
                () = sleep_until(wake_at.into()) => {}
            }
            self.take_waiting(inputs);
            self.settle()?;
            // Not only when nothing else happens.
            let query = query.or_else(|| inputs.queries.try_recv().ok());
            if let Some(query) = query
                && self.answer(query)? == Some(Ended::Detached)
            {
                return Ok(Ended::Detached);
            }
            self.go_on(step)?;
            let now = Instant::now();
            if now >= self.next_beat {
                self.beat();
                notify(&[NotifyState::Watchdog]);
                if !self.ready {
                    let microseconds = u32::try_from(START.as_micros()).unwrap_or(u32::MAX);
                    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
                }
                self.next_beat = now + self.pulse();
            }
        }
    }

    /// Whatever has already happened is published in one step.
    fn take_waiting(&mut self, inputs: &mut Inputs) {
        let now = Now::read();
        for _ in 0..MOST_AT_ONCE {
            if let Ok(link) = inputs.links.try_recv() {
                self.core.input(Input::Link(link), now);
            } else if let Ok(report) = inputs.reports.try_recv() {
                self.take_report(report, now);
            } else {
                break;
            }
        }
    }

    /// A probe is of the model, or of the one that is to come, or was of one before.
    fn take_report(&mut self, report: Report<ProbeKey>, now: Now) {
        let Some(id) = self.numbers.id(report.probe) else {
            return self.reloads.take_report(report);
        };
        let report = report.of(id);
        self.meters
            .probe(self.core.model.probe(id).target.kind(), &report);
        self.core.input(Input::Probe(report), now);
    }

    fn beat(&mut self) {
        self.plane.beat(self.core.model.settings.max_stale);
        self.meters.beat(Timestamp::now());
    }

    fn settle(&mut self) -> Result<()> {
        let now = Now::read();
        let commands = self.core.settle(now);
        self.obey(commands, now)
    }

    pub(super) fn obey(&mut self, commands: Vec<Command>, now: Now) -> Result<()> {
        let mut told = Told::default();
        // Told when what led to it has been.
        let mut outcome = None;
        for command in commands {
            match command {
                Command::PublishAll(changes) => {
                    self.beat();
                    let generation = self
                        .publish_all(&changes)
                        .context("the first publication")?;
                    self.published(generation);
                    info!(%generation, services = changes.len(), "first publication");
                }
                Command::Publish(changes) => match self.publish(&changes) {
                    Ok(generation) => {
                        self.published(generation);
                        debug!(%generation, services = changes.len(), "published");
                        if std::mem::take(&mut self.refused) {
                            outcome = Some(Event::Published { generation });
                        }
                    }
                    Err(error) => {
                        self.core.refused(now);
                        let error = format!("{:#}", anyhow!(error));
                        let services = changes.len();
                        if std::mem::replace(&mut self.refused, true) {
                            debug!(error, services, "publication refused again");
                        } else {
                            outcome = Some(Event::Refused { services, error });
                        }
                    }
                },
                Command::ForwardAll(forwards) => {
                    self.forwarder.replace(&self.core.model, forwards);
                    let first = !self.ready && !self.forwarder.found_rules();
                    if first && !self.forwarder.wait(FIRST_RULES) {
                        warn!("port forwarding is not in place yet: answering nevertheless");
                    }
                }
                Command::Forward(forwards) => self.forwarder.change(forwards),
                Command::Attach { interface, index } => self.attach(&interface, index, now)?,
                Command::Forget { interface: name } => {
                    self.plane.detach(&name);
                    self.tell(&Event::Gone { name }, now);
                }
                Command::SetPace(probe, pace) => {
                    self.sources.set_pace(self.numbers.key(probe), pace);
                }
                Command::Save(record) => self.saver.record(record),
                Command::Log(event) => {
                    if told.admits(&event) {
                        self.tell(&event, now);
                    } else {
                        self.meters.event(event.kind());
                    }
                }
            }
        }
        self.omit(&told);
        if let Some(event) = outcome {
            self.tell(&event, now);
        }
        if self.core.is_live() && !self.ready {
            self.ready = true;
            self.plane.tidy();
            notify(&[NotifyState::Ready, NotifyState::Status("answering")]);
            let generation = self.plane.generation();
            self.tell(&Event::Ready { generation }, now);
        }
        self.waiting.answer(&self.core, now.at);
        Ok(())
    }

    fn publish_all(&mut self, changes: &[Change]) -> Result<Generation, dataplane::Error> {
        let start = Instant::now();
        let result = self.plane.publish_all(&self.core.model, changes);
        self.meters.publication(&result, start.elapsed());
        result
    }

    fn publish(&mut self, changes: &[Change]) -> Result<Generation, dataplane::Error> {
        let start = Instant::now();
        let result = self.plane.publish(changes);
        self.meters.publication(&result, start.elapsed());
        result
    }

    pub(super) fn published(&mut self, generation: Generation) {
        self.core.published(generation);
        self.saver.published(generation);
    }

    fn attach(&mut self, interface: &str, index: u32, now: Now) -> Result<()> {
        let mode = self.core.model.settings.xdp;
        match self.plane.attach(interface, index, mode) {
            Ok(mode) => {
                self.core.attached(interface, index, mode);
                let name = interface.to_owned();
                self.tell(&Event::Attached { name, index, mode }, now);
            }
            Err(error) => {
                if !self.ready {
                    bail!(refusal(interface, mode, error));
                }
                let error = format!("{:#}", anyhow!(error));
                let is_news = self.core.not_attached(interface, now);
                let name = interface.to_owned();
                if is_news {
                    self.tell(&Event::NotAttached { name, index, error }, now);
                } else {
                    debug!(
                        interface,
                        index, error, "interface still refuses the program"
                    );
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, asked: Asked) -> Result<Option<Ended>> {
        if !asked.is_of(&self.core.model) {
            return Ok(None);
        }
        match asked.query {
            Query::Status(from, reply) => {
                let counters = self.plane.counters();
                let slow_path = self.plane.slow_path();
                let part = counters.map(|counters| self.core.status(from, &counters, slow_path));
                let _ = reply.send(part.map(|mut part| {
                    part.status.port_forward = self.forwarder.status();
                    part
                }));
            }
            Query::Explain(name, service, reply) => {
                let _ = reply.send(self.core.explain(name, service));
            }
            Query::Stats(from, reply) => {
                let hits = |service| self.plane.service_hits(service);
                let counters = self.plane.counters();
                let stats = counters.and_then(|counters| self.core.stats(from, &counters, hits));
                let _ = reply.send(stats.map(|mut part| {
                    let counters = self.plane.slow_path_counters().into_iter();
                    part.stats.slow_path = counters.map(|(name, n)| (name.to_owned(), n)).collect();
                    part
                }));
            }
            Query::Metrics(from, reply) => {
                let _ = reply.send(self.metrics(from));
            }
            Query::Set(set, reply) => {
                let now = Now::read();
                match self.core.set(&set, now) {
                    Ok(done) => {
                        self.settle()?;
                        let saved = self.saver.flush();
                        self.waiting.push(done, saved, reply, now.at);
                        self.waiting.answer(&self.core, now.at);
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Query::Reload(reload) => self.reload(reload),
            Query::Detach(reply) => {
                let interfaces = self.detach_all();
                let rules = self.forwarder.remove();
                let _ = reply.send(Detached {
                    interfaces,
                    rules: rules.map_err(|error| error.to_string()),
                });
                return Ok(Some(Ended::Detached));
            }
        }
        Ok(None)
    }

    fn metrics(&self, from: usize) -> Result<MetricsPart, dataplane::Error> {
        let hits = |service| self.plane.service_hits(service);
        let mut part = self.core.metrics(from, hits)?;
        if from == 0 {
            let (counters, slow_path) = (self.plane.counters()?, self.plane.slow_path_counters());
            part.overview = Some(self.core.overview(counters, slow_path));
        }
        Ok(part)
    }

    /// Takes the program off its interfaces; says off which.
    fn detach_all(&mut self) -> Vec<String> {
        self.detach(|_| true)
    }

    /// Takes the program off the interfaces where it is not to stay, or cannot.
    fn leave(&mut self) {
        let all = self.detach_on_exit;
        self.detach(|plane_stays| all || !plane_stays);
        if self
            .core
            .interfaces
            .iter()
            .any(|interface| interface.mode.is_some())
        {
            info!("XDP answers on for max_stale; `failover detach` takes the program off");
        }
    }

    /// Takes the program off interfaces, by whether it would outlive the daemon there.
    fn detach(&mut self, is_meant: impl Fn(bool) -> bool) -> Vec<String> {
        let attached = self.core.interfaces.iter_mut();
        let attached = attached.filter(|interface| interface.mode.is_some());
        let meant = attached.filter(|interface| is_meant(self.plane.outlives(&interface.name)));
        let meant: Vec<String> = meant
            .map(|interface| {
                interface.mode = None;
                interface.name.clone()
            })
            .collect();
        for interface in &meant {
            self.plane.detach(interface);
            let name = interface.clone();
            self.tell(&Event::Detached { name }, Now::read());
        }
        meant
    }
}

/// Why an interface cannot have the program, with a hint.
pub(super) fn refusal(interface: &str, mode: XdpMode, error: dataplane::Error) -> String {
    let hint = match mode {
        XdpMode::Native => "; its driver may not support native XDP: try xdp = \"auto\"",
        XdpMode::Auto | XdpMode::Generic | XdpMode::Off => "",
    };
    let error = anyhow!(error);
    format!("interface {interface} refuses the program: {error:#}{hint}")
}

/// Tells systemd, if it listens.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "sd_notify");
    }
}
