//! Answers of few addresses, kept beside the pointers of their service.
//!
//! Such an answer has no place of its own: it lies with the version of the pointer that leads to it,
//! and is written over with that version. The older of two versions may still have readers as long as
//! the grace period of the publication before has not passed. Then the new version goes without;
//! the program takes the long way to the same answer, until [`Inline::catch_up`].

use std::collections::HashMap;
use std::mem::offset_of;

use failover_common::layout::{Cell, InlineAnswer, ServiceCell, ServiceSlot, ServiceVersion};

use super::grace::Ticket;
use super::mapped::Mapped;
use crate::wire::Family;

/// What a service has answered last, for each family, if it is to be beside the pointer.
pub(super) type Answers = [Option<InlineAnswer>; 2];

/// Which services may have readers where the next answer goes.
#[derive(Default)]
pub(super) struct Inline {
    /// By service: what the readers of the version that is now the older one have ended with.
    changed: Vec<Ticket>,
    /// By service: answers that went without.
    missing: HashMap<u32, Answers>,
}

impl Inline {
    /// Nothing has been published of so many services.
    pub(super) fn new(services: u32) -> Self {
        Self {
            changed: vec![Ticket::default(); services as usize],
            missing: HashMap::new(),
        }
    }

    /// Whether nobody reads the older versions of a service any more.
    pub(super) fn is_free(&self, service: u32, over: Ticket) -> bool {
        self.changed
            .get(service as usize)
            .is_some_and(|changed| *changed <= over)
    }

    /// A publication has changed a service; its grace period has this ticket. `missing` has what could
    /// not be written.
    pub(super) fn changed(&mut self, service: u32, ticket: Ticket, missing: Answers) {
        self.changed[service as usize] = ticket;
        if missing.iter().any(Option::is_some) {
            self.missing.insert(service, missing);
        } else if !self.missing.is_empty() {
            self.missing.remove(&service);
        }
    }

    /// Writes what is missing and can be written now.
    pub(super) fn catch_up(&mut self, services: &mut Mapped<ServiceSlot>, over: Ticket) {
        if self.missing.is_empty() {
            return;
        }
        let Self { changed, missing } = self;
        missing.retain(|service, answers| {
            if changed[*service as usize] > over {
                return true;
            }
            let slot = services.read(*service);
            for (family, answer) in Family::ALL.into_iter().zip(answers) {
                let Some(answer) = answer else { continue };
                // Nobody has been told yet that it is there.
                let (place, pointer) = newest(cell(&slot, family).pointers());
                write(services, *service, family, place, answer);
                services.publish(
                    *service,
                    version_offset(family, place),
                    pointer | Cell::INLINE,
                );
            }
            false
        });
    }
}

/// Writes an answer beside one of the versions, whose pointer does not say so yet.
pub(super) fn write(
    services: &mut Mapped<ServiceSlot>,
    service: u32,
    family: Family,
    place: usize,
    answer: &InlineAnswer,
) {
    let offset = version_offset(family, place) + offset_of!(ServiceVersion, inline);
    services.write_part(service, offset, answer);
}

/// What a service answers to queries of a family.
pub(super) const fn cell(slot: &ServiceSlot, family: Family) -> &ServiceCell {
    match family {
        Family::V4 => &slot.a,
        Family::V6 => &slot.aaaa,
    }
}

/// Where the pointer of a version is in a slot, in octets.
pub(super) const fn version_offset(family: Family, place: usize) -> usize {
    let cell = match family {
        Family::V4 => offset_of!(ServiceSlot, a),
        Family::V6 => offset_of!(ServiceSlot, aaaa),
    };
    cell + place * size_of::<ServiceVersion>() + offset_of!(ServiceVersion, pointer)
}

/// Whether what a cell says last lies beside the pointer to it.
pub(super) fn is_inline(cell: &ServiceCell) -> bool {
    newest(cell.pointers()).1 & Cell::INLINE != 0
}

fn newest(cell: Cell) -> (usize, u64) {
    let [first, second] = cell.versions;
    if first < second {
        (1, second)
    } else {
        (0, first)
    }
}
