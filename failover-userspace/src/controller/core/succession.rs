//! From the core of one model to that of the next.

use std::sync::Arc;
use std::time::Duration;

use super::{Command, Core, Event, Now, Phase, ProbeState, Subject, first_round};
use crate::dataplane::AttachedMode;
use crate::health::Pace;
use crate::model::{Lineage, Model, ProbeId, ServiceId, Succession};
use crate::probe::{LinkEvent, Report};
use crate::state::Kept;

impl Core {
    /// The core of another model, which knows whatever this one knows of what did not change:
    /// verdicts with their counts, what the operator said, since when things are as they are,
    /// answers, links, interfaces with the program, and all that was counted. What it cannot know
    /// is in `news`: the first outcomes of probes by the ids of the new model.
    ///
    /// Nothing of the model has been published: the next [`Core::settle`] asks for that, before
    /// anything else.
    #[must_use]
    pub fn successor(
        &self,
        model: Arc<Model>,
        succession: &Succession,
        news: Vec<Report>,
        now: Now,
    ) -> Self {
        let kept = self.kept_for(&model, succession);
        let mut core = Self::new(model, &kept, now);
        core.phase = Phase::FirstRound {
            deadline: now.at,
            awaited: 0,
        };
        core.generation = self.generation;
        core.outcomes.clone_from(&self.outcomes);
        core.inherit_probes(self, succession);
        core.inherit_services(self, succession);
        core.inherit_interfaces(self);
        for event in self.links.values() {
            core.on_link(event, now);
        }
        for subject in core.subjects() {
            core.refresh(subject, now);
        }
        for report in news {
            core.on_report(report, now);
        }
        // Only the outcome is news, and what has ended meanwhile.
        let is_admin = |command: &Command| matches!(command, Command::Log(Event::Admin(_)));
        core.commands.retain(is_admin);
        for subject in core.subjects() {
            core.inherit_since(self, subject, succession);
        }
        core
    }

    /// The probes of a successor that no probe of this core stands for: those whose first
    /// outcome is worth waiting for.
    #[must_use]
    pub fn begins(&self, successor: &Self, succession: &Succession) -> Vec<ProbeId> {
        let probes = (0..).map(ProbeId).zip(&succession.probes);
        probes
            .filter(|(id, _)| successor.pace(*id) != Pace::Paused)
            .filter(|(id, lineage)| self.parent(**lineage, successor.pace(*id)).is_none())
            .map(|(id, _)| id)
            .collect()
    }

    /// How long the first outcomes of these probes may take.
    #[must_use]
    pub fn first_round(&self, probes: &[ProbeId]) -> Duration {
        first_round(probes.iter().map(|id| self.model.probe(*id)))
    }

    /// The last news of an interface; `None`: it was never watched.
    #[must_use]
    pub fn link(&self, interface: &str) -> Option<&LinkEvent> {
        self.links.get(interface)
    }

    /// The interfaces that have the program, and how.
    #[must_use]
    pub fn attachments(&self) -> Vec<(String, AttachedMode)> {
        let interfaces = self.interfaces.iter();
        interfaces
            .filter_map(|interface| Some((interface.name.clone(), interface.mode?)))
            .collect()
    }

    /// What is to be kept over a restart.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let probes = self.probes.iter();
        let last = (0..).map(ServiceId).zip(&self.services);
        let last = last.filter(|(id, _)| self.needs_last(*id));
        Kept {
            verdicts: probes.map(|probe| probe.machine.verdict()).collect(),
            servers: self.servers.standings(),
            wans: self.wans.standings(),
            last: last
                .filter_map(|(id, service)| Some((id, service.last.clone()?)))
                .collect(),
        }
    }

    /// Whose outcomes count for a probe of the new model, which runs at this pace. What nobody
    /// wanted to know meanwhile is not known.
    fn parent(&self, lineage: Lineage, pace: Pace) -> Option<ProbeId> {
        let parent = lineage.parent()?;
        let known = self.pace(parent) != Pace::Paused || pace == Pace::Paused;
        known.then_some(parent)
    }

    fn kept_for(&self, model: &Model, succession: &Succession) -> Kept {
        let mut kept = Kept::nothing(model);
        for (standing, parent) in kept.servers.iter_mut().zip(&succession.servers) {
            if let Some(parent) = parent {
                standing.admin = self.servers.admin[parent.index()].clone();
            }
        }
        for (standing, parent) in kept.wans.iter_mut().zip(&succession.wans) {
            if let Some(parent) = parent {
                standing.admin = self.wans.admin[parent.index()].clone();
            }
        }
        kept
    }

    fn inherit_probes(&mut self, old: &Self, succession: &Succession) {
        for (id, lineage) in (0..).map(ProbeId).zip(&succession.probes) {
            let pace = self.pace(id);
            let Some(parent) = old.parent(*lineage, pace) else {
                continue;
            };
            let timing = self.model.probe(id).timing;
            let parent = &old.probes[parent.index()];
            let machine = parent.machine.adjusted(timing.rise, timing.fall);
            self.probes[id.index()] = ProbeState {
                pace: match pace {
                    Pace::Paused => Pace::Paused,
                    Pace::Normal | Pace::Fast => machine.pace(),
                },
                machine,
                last_error: parent.last_error.clone(),
                rtt: parent.rtt,
                last: parent.last,
                heard: true,
            };
        }
    }

    fn inherit_services(&mut self, old: &Self, succession: &Succession) {
        for (id, parent) in (0..).map(ServiceId).zip(&succession.services) {
            let Some(parent) = *parent else { continue };
            let state = &mut self.services[id.index()];
            let before = &old.services[parent.index()];
            state.decision.clone_from(&before.decision);
            state.since = before.since;
            state.generation = before.generation;
            // The same addresses, but in other records.
            let (service, was) = (self.model.service(id), old.model.service(parent));
            state.unpublished = before.unpublished
                || (service.ttl, service.max_answers) != (was.ttl, was.max_answers);
            state.last = before.last.clone().or_else(|| {
                let decision = before.decision.as_ref()?;
                decision.had_candidate().then(|| decision.answer.clone())
            });
        }
    }

    fn inherit_interfaces(&mut self, old: &Self) {
        for interface in &mut self.interfaces {
            let mut interfaces = old.interfaces.iter();
            if let Some(before) = interfaces.find(|before| before.name == interface.name) {
                *interface = before.clone();
            }
        }
    }

    /// A state that was before did not begin now; another one is news.
    fn inherit_since(&mut self, old: &Self, subject: Subject, succession: &Succession) {
        let before = match subject {
            Subject::Server(id) => succession.servers[id.index()].map(|parent| {
                let probes = self.model.server(id).probes.iter();
                let parents = probes.filter_map(|probe| succession.probes[probe.index()].parent());
                let is_same = parents.eq(old.model.server(parent).probes.iter().copied());
                (old.servers.standing(parent.index()), is_same)
            }),
            Subject::Wan(id) => {
                succession.wans[id.index()].map(|parent| (old.wans.standing(parent.index()), true))
            }
        };
        let is_new = before.is_none();
        let (before, is_same) = before.unwrap_or_default();
        let (subjects, index) = self.slot(subject);
        if subjects.effective[index] != before.effective {
            let event = self.event(subject, before.effective, is_new);
            self.commands.push(Command::Log(event));
        } else if is_same && let Some(since) = before.since {
            subjects.since[index] = since;
        }
    }
}
