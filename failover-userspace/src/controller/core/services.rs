//! What services answer, and where their connections go.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Command, Core, Event, Now, Phase};
use crate::dataplane::{Change, Generation};
use crate::model::{OnAllDown, ServiceId};
use crate::policy::{self, Answer, Decision, Forward};
use crate::state::Record;
use crate::wire::{AddressAnswer, Family};

/// Until a publication that was refused is tried again.
const PUBLISH_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(in crate::controller) struct ServiceState {
    pub(in crate::controller) decision: Option<Decision>,
    /// Where connections to its WAN addresses go, if they are forwarded.
    pub(in crate::controller) forward: Option<Forward>,
    /// Last answer that had a candidate; kept for services that may need it.
    pub(in crate::controller) last: Option<Answer>,
    /// When the answer changed.
    pub(in crate::controller) since: Timestamp,
    /// What brought the answer.
    pub(in crate::controller) generation: Generation,
    /// The answer has been decided, but not published.
    pub(in crate::controller) unpublished: bool,
    /// It is in [`Core::dirty`].
    pub(in crate::controller) dirty: bool,
}

impl Core {
    /// What [`Core::settle`] asked to publish has been published.
    pub fn published(&mut self, generation: Generation) {
        self.generation = generation;
        for id in self.in_flight.drain(..) {
            let service = &mut self.services[id.index()];
            service.generation = generation;
            service.unpublished = false;
        }
    }

    /// What [`Core::settle`] asked to publish has not been published: it asks again soon.
    pub fn refused(&mut self, now: Now) {
        self.phase = Phase::Live {
            not_before: Some(now.at + PUBLISH_RETRY),
        };
        for id in std::mem::take(&mut self.in_flight) {
            self.touch(id);
        }
    }

    /// The generation that brought a service's answer; `None`: it has not been published.
    pub(in crate::controller) fn brought_by(&self, id: ServiceId) -> Option<Generation> {
        let service = &self.services[id.index()];
        (!service.unpublished).then_some(service.generation)
    }

    /// The service's answer may have changed.
    pub(super) fn touch(&mut self, id: ServiceId) {
        let service = &mut self.services[id.index()];
        if !std::mem::replace(&mut service.dirty, true) {
            self.dirty.push(id);
        }
    }

    /// Decides what a service answers; what is to be published, if that has changed.
    pub(super) fn decide(&mut self, id: ServiceId, now: Now) -> Option<Change> {
        let model = Arc::clone(&self.model);
        let service = model.service(id);
        let needs_last = self.needs_last(id);
        let state = &self.services[id.index()];
        let decision = policy::decide(service, &model, self.view(), state.last.as_ref());
        let state = &mut self.services[id.index()];
        state.dirty = false;
        if needs_last && decision.had_candidate() && state.last.as_ref() != Some(&decision.answer) {
            state.last = Some(decision.answer.clone());
            let record = Record::Last(id, decision.answer.clone());
            self.commands.push(Command::Save(record));
        }
        let before = state.decision.as_ref();
        // The answer on the wire follows from this one and from what never changes.
        let changed = before.is_none_or(|before| before.answer != decision.answer);
        if changed {
            state.since = now.wall;
            state.unpublished = true;
        }
        let unpublished = state.unpublished;
        if state.decision.as_ref() != Some(&decision) {
            let event = Event::Service {
                id,
                before: state.decision.replace(decision.clone()),
                decision,
            };
            self.commands.push(Command::Log(event));
        }
        self.reroute(id);
        if !unpublished {
            return None;
        }
        self.in_flight.push(id);
        self.change(id)
    }

    pub(super) fn needs_last(&self, id: ServiceId) -> bool {
        self.model.service(id).on_all_down == OnAllDown::Last
    }

    /// What has been decided, on the wire.
    pub(super) fn change(&self, id: ServiceId) -> Option<Change> {
        let service = self.model.service(id);
        let decision = self.services[id.index()].decision.as_ref()?;
        Some(Change {
            service: id,
            a: AddressAnswer::new(service, &decision.answer, Family::V4),
            aaaa: AddressAnswer::new(service, &decision.answer, Family::V6),
        })
    }

    /// Decides where a service's connections go.
    pub(super) fn reroute(&mut self, id: ServiceId) {
        if self.model.port_forward.is_none() {
            return;
        }
        let forward = policy::forward(self.model.service(id), &self.model, self.view());
        let before = &mut self.services[id.index()].forward;
        if before.as_ref() != Some(&forward) {
            *before = Some(forward);
            self.rerouted.push(id);
        }
    }

    /// Where all connections go, if they are forwarded at all.
    pub(super) fn forward_all(&mut self) -> Option<Command> {
        self.rerouted.clear();
        self.model.port_forward?;
        let all = self.services.iter();
        let all = all.map(|service| service.forward.clone().unwrap_or_default());
        Some(Command::ForwardAll(all.collect()))
    }

    /// Where those connections go that go somewhere else now.
    pub(super) fn forward_some(&mut self) -> Option<Command> {
        let rerouted = std::mem::take(&mut self.rerouted).into_iter();
        let forwards: Vec<_> = rerouted
            .filter_map(|id| Some((id, self.services[id.index()].forward.clone()?)))
            .collect();
        (!forwards.is_empty()).then_some(Command::Forward(forwards))
    }
}
