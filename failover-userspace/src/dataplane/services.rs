//! What services answer now: versions of pointers to answers, and short answers beside them.
//!
//! Such an answer has no place of its own: it lies with the version of the pointer that leads to it,
//! and is written over with that version. The older of two versions may still have readers as long as
//! the grace period of the publication before has not passed. Then the new version goes without;
//! the program takes the long way to the same answer, until [`Services::catch_up`].

use std::collections::HashMap;
use std::mem::offset_of;

use failover_common::layout::{Cell, InlineAnswer, ServiceA, ServiceAaaa, ServiceCell, size};

use super::grace::Ticket;
use super::mapped::Mapped;
use crate::wire::{AddressAnswer, Change};

/// The maps of services, and which services may have readers where the next answer goes.
pub(super) struct Services {
    a: Mapped<ServiceA>,
    aaaa: Mapped<ServiceAaaa>,
    /// By service: what the readers of the version that is now the older one have ended with.
    changed: Vec<Ticket>,
    /// By service: answers that went without.
    missing: HashMap<u32, Missing>,
}

/// Answers, of a service's two, that are to be beside their pointers and are not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    a: Option<InlineAnswer<[u8; size::A_ADDRESSES]>>,
    aaaa: Option<InlineAnswer<[u8; size::AAAA_ADDRESSES]>>,
}

impl Services {
    /// Nothing has been published in these maps yet.
    pub(super) fn new(a: Mapped<ServiceA>, aaaa: Mapped<ServiceAaaa>) -> Self {
        Self {
            changed: vec![Ticket::default(); a.len() as usize],
            missing: HashMap::new(),
            a,
            aaaa,
        }
    }

    /// Writes a version that leads to the answers of a change, `pointers` to A and AAAA, over the older
    /// one, `over` being the grace periods that have passed. Returns the versions that are the older
    /// ones then, 0 if there are none, and what is not beside its pointer.
    pub(super) fn put(
        &mut self,
        change: &Change,
        pointers: [u64; 2],
        over: Ticket,
    ) -> ([u64; 2], Missing) {
        let service = change.service.0;
        let is_free = self.changed[service as usize] <= over;
        let [a, aaaa] = pointers;
        let (old_a, missing_a) = put(&mut self.a, service, a, &change.a, is_free);
        let (old_aaaa, missing_aaaa) = put(&mut self.aaaa, service, aaaa, &change.aaaa, is_free);
        let missing = Missing {
            a: missing_a,
            aaaa: missing_aaaa,
        };
        ([old_a, old_aaaa], missing)
    }

    /// What [`Services::put`] has written has been published; its grace period has this ticket.
    pub(super) fn published(&mut self, service: u32, ticket: Ticket, missing: Missing) {
        self.changed[service as usize] = ticket;
        if missing.a.is_some() || missing.aaaa.is_some() {
            self.missing.insert(service, missing);
        } else if !self.missing.is_empty() {
            self.missing.remove(&service);
        }
    }

    /// Writes what is missing and can be written now.
    pub(super) fn catch_up(&mut self, over: Ticket) {
        if self.missing.is_empty() {
            return;
        }
        let Self {
            a,
            aaaa,
            changed,
            missing,
        } = self;
        missing.retain(|service, missing| {
            if changed[*service as usize] > over {
                return true;
            }
            make_up(a, *service, missing.a.as_ref());
            make_up(aaaa, *service, missing.aaaa.as_ref());
            false
        });
    }

    /// How many of the two answers of a service lie beside the pointers to them.
    pub(super) fn inline_answers(&self, service: u32) -> usize {
        let is_inline = |cell: Cell| newest(cell).1 & Cell::INLINE != 0;
        [
            self.a.read(service).pointers,
            self.aaaa.read(service).pointers,
        ]
        .into_iter()
        .filter(|cell| is_inline(*cell))
        .count()
    }
}

/// Writes a version over the older one, with the answer beside it if that `is_free`, and can be there.
/// Returns the version that is the older one then, and what is not beside the pointer.
fn put<const OCTETS: usize>(
    services: &mut Mapped<ServiceCell<[u8; OCTETS]>>,
    service: u32,
    mut pointer: u64,
    answer: &AddressAnswer,
    is_free: bool,
) -> (u64, Option<InlineAnswer<[u8; OCTETS]>>)
where
    ServiceCell<[u8; OCTETS]>: bytemuck::Pod,
    InlineAnswer<[u8; OCTETS]>: bytemuck::Pod,
{
    let [first, second] = services.read(service).pointers.versions;
    let older = usize::from(second < first);
    let mut missing = answer.inline();
    if is_free && let Some(answer) = missing.take() {
        write(services, service, older, &answer);
        pointer |= Cell::INLINE;
    }
    services.publish(service, pointer_offset(older), pointer);
    (first.max(second), missing)
}

/// Writes an answer beside the newest version, and says there that it is.
fn make_up<const OCTETS: usize>(
    services: &mut Mapped<ServiceCell<[u8; OCTETS]>>,
    service: u32,
    answer: Option<&InlineAnswer<[u8; OCTETS]>>,
) where
    ServiceCell<[u8; OCTETS]>: bytemuck::Pod,
    InlineAnswer<[u8; OCTETS]>: bytemuck::Pod,
{
    let Some(answer) = answer else { return };
    let (place, pointer) = newest(services.read(service).pointers);
    write(services, service, place, answer);
    services.publish(service, pointer_offset(place), pointer | Cell::INLINE);
}

/// Writes an answer beside one of the versions, whose pointer does not say so yet.
fn write<const OCTETS: usize>(
    services: &mut Mapped<ServiceCell<[u8; OCTETS]>>,
    service: u32,
    place: usize,
    answer: &InlineAnswer<[u8; OCTETS]>,
) where
    ServiceCell<[u8; OCTETS]>: bytemuck::Pod,
    InlineAnswer<[u8; OCTETS]>: bytemuck::Pod,
{
    let first = offset_of!(ServiceCell<[u8; OCTETS]>, first);
    let offset = first + place * ServiceCell::<[u8; OCTETS]>::STRIDE;
    services.write_part(service, offset, answer);
}

/// Where the pointer of a version is in a service's cell, in octets.
const fn pointer_offset(place: usize) -> usize {
    offset_of!(ServiceA, pointers) + place * size_of::<u64>()
}
const _: () = assert!(offset_of!(ServiceA, pointers) == offset_of!(ServiceAaaa, pointers));

/// Place and value of the newest version.
const fn newest(cell: Cell) -> (usize, u64) {
    let [first, second] = cell.versions;
    if first < second {
        (1, second)
    } else {
        (0, first)
    }
}
