//! The way from one model to the next.
//!
//! ```text
//!  asked ──► loading ───────────► first round ──────────► switch ──► retiring ──► done
//!            a thread reads the   new probes run, new     one        the old program's
//!            files, fills maps    links are looked at     publication  last packets
//! ```
//!
//! Up to the switch nothing has changed for anybody: the old model is probed, decided and
//! published as always, and whatever goes wrong ends the reload without a trace. The core of
//! the new model is made at the switch, from what the old one knows at that moment and from
//! what the first round has brought.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::core::{Command, Core, Now};
use super::event::Event;
use super::ports::{Basis, Candidate, Handover, Loaded, Publish, Reload, Switched, WhenBusy};
use super::shell::{Controller, notify, refusal};
use crate::dataplane::{AttachedMode, Error, Readings};
use crate::health::Pace;
use crate::metrics;
use crate::model::{Difference, Lineage, Model, ProbeId, Succession};
use crate::probe::{Begin, ProbeKey, Report, Task};
use crate::protocol::Reloaded;

/// Warnings of one reload that are logged, at most.
const MOST_LOGGED: usize = 1000;
/// What the kernel gets to tell of interfaces that were not watched before.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// Who wants a reload, and where to say what has come of it.
struct Client {
    by: Arc<str>,
    reply: oneshot::Sender<Result<Reloaded, Vec<String>>>,
}

/// The reload that is under way, and the one after it.
pub(super) struct Reloads<N> {
    stage: Stage<N>,
    waiting: Option<Reload>,
}

enum Stage<N> {
    Idle,
    Loading {
        client: Client,
        loaded: oneshot::Receiver<Loaded<N>>,
    },
    Round(Box<Round<N>>),
    Retiring {
        client: Client,
        reloaded: Box<Reloaded>,
        retired: oneshot::Receiver<Result<Readings, Error>>,
    },
}

/// The first round of what is new.
struct Round<N> {
    client: Client,
    candidate: Candidate<N>,
    /// The probes that have begun.
    begun: HashMap<ProbeKey, ProbeId>,
    /// Those that nothing has been heard of.
    awaited: HashSet<ProbeKey>,
    /// What has been heard of the others.
    news: Vec<Report>,
    deadline: Instant,
}

/// A wait has ended.
pub(super) enum Step<N> {
    Loaded(Loaded<N>),
    /// `None`: what was counted is not known.
    Retired(Option<Readings>),
}

impl<N> Default for Reloads<N> {
    fn default() -> Self {
        Self {
            stage: Stage::Idle,
            waiting: None,
        }
    }
}

impl<N> Reloads<N> {
    /// Waits for what the reload waits for, if it does.
    pub(super) async fn step(&mut self) -> Step<N> {
        match &mut self.stage {
            Stage::Loading { loaded, .. } => {
                let ended = |_| Loaded::Refused(vec!["the loader has ended".to_owned()]);
                Step::Loaded(loaded.await.unwrap_or_else(ended))
            }
            Stage::Retiring { retired, .. } => match retired.await {
                Ok(Ok(readings)) => Step::Retired(Some(readings)),
                Ok(Err(error)) => {
                    let error = anyhow!(error);
                    warn!(error = format!("{error:#}"), "counters of the last program");
                    Step::Retired(None)
                }
                Err(_) => Step::Retired(None),
            },
            Stage::Idle | Stage::Round(_) => pending().await,
        }
    }

    /// When it has something to do, should nothing happen before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Round(round) => Some(round.deadline),
            Stage::Idle | Stage::Loading { .. } | Stage::Retiring { .. } => None,
        }
    }

    /// A probe that is not of the model has something to tell.
    pub(super) fn take_report(&mut self, report: Report<ProbeKey>) {
        if let Stage::Round(round) = &mut self.stage
            && let Some(id) = round.begun.get(&report.probe)
        {
            round.awaited.remove(&report.probe);
            round.news.push(report.of(*id));
        }
    }
}

impl<N> Round<N> {
    /// Whether the switch need not wait any longer.
    fn is_over(&self, core: &Core, now: Instant) -> bool {
        let is_known = |interface: &String| core.link(interface).is_some();
        now >= self.deadline
            || (self.awaited.is_empty() && self.candidate.model.interfaces().iter().all(is_known))
    }
}

impl<P: Publish> Controller<P> {
    /// Begins, or waits until it may.
    pub(super) fn reload(&mut self, reload: Reload) {
        let is_idle = matches!(self.reloads.stage, Stage::Idle);
        // Before the first publication there is nothing under way that could be in doubt.
        let may_wait = is_idle || reload.when_busy == WhenBusy::Wait;
        if !may_wait || self.reloads.waiting.is_some() {
            let busy = "a reload is under way: nothing has changed".to_owned();
            let _ = reload.reply.send(Err(vec![busy]));
            return;
        }
        self.reloads.waiting = Some(reload);
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, step: Option<Step<P::Next>>) -> Result<()> {
        match step {
            Some(Step::Loaded(loaded)) => self.loaded(loaded),
            Some(Step::Retired(readings)) => self.retired(readings),
            None => {}
        }
        if let Stage::Round(round) = &self.reloads.stage
            && round.is_over(&self.core, Instant::now())
        {
            self.switch()?;
        }
        if matches!(self.reloads.stage, Stage::Idle)
            && self.core.is_live()
            && let Some(reload) = self.reloads.waiting.take()
        {
            self.begin(Client {
                by: reload.by,
                reply: reload.reply,
            });
        }
        Ok(())
    }

    fn begin(&mut self, client: Client) {
        info!("reading the configuration again");
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now());
        notify(&states);
        let basis = Basis {
            model: Arc::clone(&self.core.model),
            generation: self.core.generation,
            attached: self.core.attachments(),
        };
        self.reloads.stage = Stage::Loading {
            client,
            loaded: self.loader.load(basis),
        };
    }

    fn loaded(&mut self, loaded: Loaded<P::Next>) {
        let Stage::Loading { client, .. } = std::mem::replace(&mut self.reloads.stage, Stage::Idle)
        else {
            return;
        };
        match loaded {
            Loaded::Refused(errors) => self.finish(client, Err(errors)),
            Loaded::Unchanged(warnings) => {
                let reloaded = Reloaded {
                    generation: self.core.generation,
                    difference: Difference::default(),
                    warnings,
                };
                self.finish(client, Ok(reloaded));
            }
            Loaded::Other(candidate) => self.start_round(client, *candidate),
        }
    }

    /// Opens what is new and lets its probes run.
    fn start_round(&mut self, client: Client, mut candidate: Candidate<P::Next>) {
        if let Err(error) = self.plane.open(&mut candidate.next) {
            drop(candidate);
            let error = anyhow!(error);
            return self.finish(client, Err(vec![format!("{error:#}")]));
        }
        let Candidate {
            model, succession, ..
        } = &candidate;
        let now = Now::read();
        let draft = self
            .core
            .successor(Arc::clone(model), succession, Vec::new(), now);
        let probes = self.core.begins(&draft, succession);
        let interfaces = model.interfaces();
        let is_known = |interface: &String| self.core.link(interface).is_some();
        let patience = if interfaces.iter().all(is_known) {
            Duration::ZERO
        } else {
            LINK_PATIENCE
        };
        let deadline = now.at + draft.first_round(&probes).max(patience);
        let begun: HashMap<_, _> = probes
            .into_iter()
            .map(|probe| (self.numbers.fresh(), probe))
            .collect();
        let added = begun.iter().map(|(key, probe)| {
            let pace = draft.pace(*probe);
            (*key, task(&mut candidate.tasks, &draft.model, *probe), pace)
        });
        let added: Vec<_> = added.collect();
        self.sources.add(added, Begin::AtOnce);
        self.sources.watch(interfaces);
        self.reloads.stage = Stage::Round(Box::new(Round {
            client,
            candidate,
            awaited: begun.keys().copied().collect(),
            begun,
            news: Vec::new(),
            deadline,
        }));
    }

    /// Goes over to the new model.
    fn switch(&mut self) -> Result<()> {
        let Stage::Round(round) = std::mem::replace(&mut self.reloads.stage, Stage::Idle) else {
            return Ok(());
        };
        let Round {
            client,
            mut candidate,
            begun,
            news,
            ..
        } = *round;
        let attached = match self.attach_new(&mut candidate) {
            Ok(attached) => attached,
            Err(error) => {
                drop(candidate);
                self.call_off(begun);
                self.finish(client, Err(vec![error]));
                return Ok(());
            }
        };
        let Candidate {
            model,
            difference,
            succession,
            mut warnings,
            tasks,
            next,
            others,
        } = candidate;
        let now = Now::read();
        let mut core = self
            .core
            .successor(Arc::clone(&model), &succession, news, now);
        for (interface, index, mode) in attached {
            core.attached(&interface, index, mode);
        }
        let (mut forwards, mut changes, mut commands) = (Vec::new(), Vec::new(), Vec::new());
        for command in core.settle(now) {
            match command {
                Command::ForwardAll(all) => forwards = all,
                Command::PublishAll(all) => changes = all,
                other => commands.push(other),
            }
        }
        let handover = Handover {
            model: &model,
            succession: &succession,
            changes: &changes,
        };
        let start = Instant::now();
        let switched = self.plane.switch(next, &handover);
        let generation = switched.as_ref().map(|switched| switched.generation);
        self.meters.publication(&generation, start.elapsed());
        let switched = match switched {
            Ok(switched) => switched,
            Err(error) => {
                self.call_off(begun);
                let error = anyhow!(error);
                self.finish(client, Err(vec![format!("{error:#}")]));
                return Ok(());
            }
        };
        let Switched {
            generation,
            lost,
            warnings: more,
            retired,
        } = switched;
        warnings.extend(more);
        for (interface, error) in lost {
            core.lost(&interface, now);
            let error = anyhow!(error);
            warnings.push(format!(
                "interface {interface}: the program could not be replaced: {error:#}; attaching it anew"
            ));
        }
        self.adopt_probes(&core, &succession, &begun, tasks);
        self.saver.adopt(Arc::clone(&model), core.kept());
        // What was set is published, by ids of the old model.
        self.waiting.dismiss(&self.core, generation);
        self.forwarder.replace(&model, forwards);
        others.follow(&model);
        self.models.send_replace(model);
        let old = std::mem::replace(&mut self.core, core);
        // With many names that takes a while.
        spawn_blocking(move || drop(old));
        self.published(generation);
        self.beat_soon();
        self.obey(commands, now)?;
        let reloaded = Reloaded {
            generation,
            difference,
            warnings,
        };
        match retired {
            Some(retired) => {
                self.reloads.stage = Stage::Retiring {
                    client,
                    reloaded: Box::new(reloaded),
                    retired,
                };
            }
            None => self.finish(client, Ok(reloaded)),
        }
        Ok(())
    }

    /// Attaches the new program to interfaces that have not had one by the configuration and
    /// exist. As long as nothing is published it passes everything.
    fn attach_new(
        &self,
        candidate: &mut Candidate<P::Next>,
    ) -> Result<Vec<(String, u32, AttachedMode)>, String> {
        let settings = &candidate.model.settings;
        let before = &self.core.model.settings.interfaces;
        let new = settings.interfaces.iter();
        let mut attached = Vec::new();
        for interface in new.filter(|interface| !before.contains(interface)) {
            let link = self.core.link(interface);
            let Some(index) = link.and_then(|link| link.index) else {
                continue;
            };
            let next = &mut candidate.next;
            match self.plane.attach_next(next, interface, index, settings.xdp) {
                Ok(mode) => attached.push((interface.clone(), index, mode)),
                Err(error) => return Err(refusal(interface, settings.xdp, error)),
            }
        }
        Ok(attached)
    }

    /// All is as it was.
    fn call_off(&mut self, begun: HashMap<ProbeKey, ProbeId>) {
        self.sources.remove(begun.into_keys().collect());
    }

    /// Lets the engine execute the probes of `core` and no others. Those that stay the same do
    /// not notice.
    fn adopt_probes(
        &mut self,
        core: &Core,
        succession: &Succession,
        begun: &HashMap<ProbeKey, ProbeId>,
        mut tasks: HashMap<ProbeId, Task>,
    ) {
        let begun: HashMap<ProbeId, ProbeKey> = begun.iter().map(|(key, id)| (*id, *key)).collect();
        let (mut wanted, mut adjusted) = (Vec::new(), Vec::new());
        let mut paces: Vec<(ProbeKey, Pace)> = Vec::new();
        let mut keys = Vec::with_capacity(succession.probes.len());
        for (id, lineage) in (0..).map(ProbeId).zip(&succession.probes) {
            let pace = core.pace(id);
            let known = match (begun.get(&id), lineage) {
                (Some(key), _) => Some(*key),
                (None, Lineage::Same(parent)) => Some(self.numbers.key(*parent)),
                (None, Lineage::Adjusted(_) | Lineage::New) => None,
            };
            let key = known.unwrap_or_else(|| self.numbers.fresh());
            keys.push(key);
            match (known, lineage) {
                (Some(key), _) => paces.push((key, pace)),
                (None, Lineage::New) => wanted.push((key, task(&mut tasks, &core.model, id), pace)),
                (None, _) => adjusted.push((key, task(&mut tasks, &core.model, id), pace)),
            }
        }
        self.sources.remove(self.numbers.replace(keys));
        self.sources.add(wanted, Begin::AtOnce);
        self.sources.add(adjusted, Begin::Spread);
        for (key, pace) in paces {
            self.sources.set_pace(key, pace);
        }
    }

    fn retired(&mut self, readings: Option<Readings>) {
        if let Some(readings) = readings {
            self.plane.settle(readings);
        }
        if let Stage::Retiring {
            client, reloaded, ..
        } = std::mem::replace(&mut self.reloads.stage, Stage::Idle)
        {
            self.finish(client, Ok(*reloaded));
        }
    }

    /// Tells everybody who is to know.
    fn finish(&mut self, client: Client, result: Result<Reloaded, Vec<String>>) {
        let now = Now::read();
        let Client { by, reply } = client;
        let (outcome, event) = match &result {
            Ok(reloaded) => {
                for warning in reloaded.warnings.iter().take(MOST_LOGGED) {
                    warn!("{warning}");
                }
                let event = Event::Reloaded {
                    by,
                    difference: reloaded.difference.to_string(),
                    generation: reloaded.generation,
                };
                (metrics::Reload::Applied, event)
            }
            Err(errors) => {
                let errors = errors.clone();
                (metrics::Reload::Refused, Event::NotReloaded { by, errors })
            }
        };
        self.meters.reloaded(outcome, now.wall);
        self.tell(&event, now);
        notify(&[NotifyState::Ready]);
        let _ = reply.send(result);
    }
}

/// The task of a probe, made now if it was not foreseen.
fn task(tasks: &mut HashMap<ProbeId, Task>, model: &Model, probe: ProbeId) -> Task {
    let prepared = tasks.remove(&probe);
    prepared.unwrap_or_else(|| Task::new(model.probe(probe)))
}
