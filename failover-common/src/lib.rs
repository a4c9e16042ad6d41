//! What the XDP program and the daemon share: the layout of the BPF maps and the
//! arithmetic that both sides must do alike.
//!
//! The flow of one query through these types:
//!
//! 1. [`question`] hashes the question's name, whatever its case, a word at a time;
//! 2. the hash finds a [`layout::NameSlot`] in a [`layout::NameBucket`]: the name's service and its
//!    zone's [`layout::Tail`];
//! 3. the service's [`layout::ServiceCell`], one for each address type, holds two versions of a
//!    pointer; [`layout::Cell::select`] picks the one that belongs to the current generation;
//! 4. it points to a [`layout::Answer`]: address records to be copied, rotated by weight. Answers of
//!    few addresses stand beside the pointer once more, as [`layout::InlineAnswer`];
//! 5. other questions are answered by a [`layout::Tail`] alone: the name's [`layout::Node`] or
//!    its zone's [`layout::ZoneSlot`] points to it;
//! 6. [`cookie`] makes server cookies;
//! 7. [`checksum`] adds up what was copied and what was summed beforehand;
//! 8. [`counters`] count what became of the packet.
//!
//! Everything here is `no_std`, free of I/O and, apart from the byte order of packets,
//! independent of the machine.

#![no_std]

pub mod bench;
pub mod checksum;
pub mod cookie;
pub mod counters;
pub mod layout;
pub mod question;
pub mod settings;

/// Version of the map layout, for who looks into the maps: it stands in [`layout::State`].
pub const LAYOUT_VERSION: u32 = 5;
