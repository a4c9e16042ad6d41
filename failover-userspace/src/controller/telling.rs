//! What the controller tells: each event is a line of the log, and an entry of the journal.

use tracing::warn;

use super::core::Now;
use super::event::Event;
use super::ports::Publish;
use super::shell::Controller;
use crate::journal::Kind;

/// Events told of one step: news, and as many that are none. A log that is full of them helps
/// nobody.
const MOST_TOLD: usize = 1000;

impl<P: Publish> Controller<P> {
    /// One event: a line of the log, and an entry of the journal.
    pub(super) fn tell(&self, event: &Event, now: Now) {
        self.meters.event(event.kind());
        event.log(&self.core.model);
        let generation = match event {
            Event::Service { id, .. } => self.core.brought_by(*id),
            _ => None,
        };
        if let Some(news) = event.news(&self.core.model, generation) {
            self.journal.record(now.wall, news);
        }
    }

    /// Says how much has not been told.
    pub(super) fn omit(&self, told: &Told) {
        for (kind, count) in Kind::ALL.iter().zip(told.omitted) {
            if count > 0 {
                warn!(%kind, omitted = count, "more changes at once than fit a log");
                self.journal.omit(*kind, count);
            }
        }
    }
}

/// What has been told of one step, and what has not.
#[derive(Default)]
pub(super) struct Told {
    news: usize,
    routine: usize,
    /// News by kind.
    omitted: [u64; Kind::ALL.len()],
}

impl Told {
    pub(super) fn admits(&mut self, event: &Event) -> bool {
        let routine = event.is_routine();
        let count = if routine {
            &mut self.routine
        } else {
            &mut self.news
        };
        *count += 1;
        let admitted = *count <= MOST_TOLD;
        if !admitted && !routine {
            self.omitted[event.kind() as usize] += 1;
        }
        admitted
    }
}
