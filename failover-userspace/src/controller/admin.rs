//! What the operator says takes effect, and ends when its time is over.
//!
//! The end is a moment of the clock for people, as an operator means it and as it must outlive
//! a restart. The other clock is only asked to wake the controller in time; whatever the clock for
//! people does meanwhile, [`Core::settle`] goes by what it says then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::core::{Command, Core, Now, Subject};
use super::event::{AdminEvent, Event};
use crate::health::{Admin, AdminState};

/// When admin states end, and whose.
#[derive(Debug, Default)]
pub(super) struct Expiries(BTreeSet<(Timestamp, Subject)>);

impl Expiries {
    fn replace(&mut self, subject: Subject, before: &Admin, after: &Admin) {
        if let Some(until) = before.until {
            self.0.remove(&(until, subject));
        }
        if let Some(until) = after.until {
            self.0.insert((until, subject));
        }
    }

    fn due(&self, now: Timestamp) -> Option<Subject> {
        let (until, subject) = self.0.first()?;
        (*until <= now).then_some(*subject)
    }

    /// When the next one is due, as far as the clocks agree.
    pub(super) fn next_after(&self, seen: Now) -> Option<Instant> {
        let (until, _) = self.0.first()?;
        let left = until.duration_since(seen.wall);
        let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
        seen.at.checked_add(left)
    }
}

impl Core {
    /// Takes an admin state, if it says anything new.
    pub(super) fn on_admin(&mut self, subject: Subject, admin: Admin, now: Now) {
        let (subjects, index) = self.slot(subject);
        let Some(admin) = admin.replacing(&subjects.admin[index]) else {
            return;
        };
        let before = std::mem::replace(&mut subjects.admin[index], admin.clone());
        self.expiries.replace(subject, &before, &admin);
        let state = before.state;
        self.tell_admin(AdminEvent {
            subject,
            before: state,
            after: admin,
        });
        if self.admin(subject).state == state {
            return;
        }
        for probe in self.probes_of(subject) {
            self.repace(probe, now);
        }
        self.refresh(subject, now);
    }

    /// Ends what is due.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some(subject) = self.expiries.due(now.wall) {
            self.on_admin(subject, Admin::expired(now.wall), now);
        }
    }

    /// Of what was kept over a restart, ends what has become due meanwhile, and remembers when
    /// the rest does. Nothing rests on it yet.
    pub(super) fn restore_admins(&mut self, now: Now) -> Vec<AdminEvent> {
        let mut expired = Vec::new();
        for subject in self.subjects() {
            let before = self.admin(subject).clone();
            if before.is_due(now.wall) {
                let after = Admin::expired(now.wall);
                let (subjects, index) = self.slot(subject);
                subjects.admin[index] = after.clone();
                expired.push(AdminEvent {
                    subject,
                    before: before.state,
                    after,
                });
            } else {
                self.expiries
                    .replace(subject, &AdminState::Auto.into(), &before);
            }
        }
        expired
    }

    /// Has it kept, even if nothing follows from it, and logged.
    pub(super) fn tell_admin(&mut self, event: AdminEvent) {
        self.save(event.subject);
        self.commands.push(Command::Log(Event::Admin(event)));
    }
}
