//! The program for what is not usual, where the program that answers finds it.
//!
//! The kernel empties a map of programs when no process has it open and it is not pinned, whichever
//! programs still refer to it. So it is pinned as long as one of them may outlive the daemon.

use aya::maps::{Map, ProgramArray};
use aya::programs::ProgramFd;

use super::{Error, Pins};

const MAP: &str = "REST";

/// The map with that program.
pub(super) struct Rest {
    map: Map,
    /// The kernel's number of it.
    id: u32,
}

impl Rest {
    /// The name of the map.
    pub(super) const MAP: &'static str = MAP;

    /// Puts the program into the map.
    pub(super) fn new(mut map: Map, program: &ProgramFd) -> Result<Self, Error> {
        let on_error = |source| Error::Map { map: MAP, source };
        let mut programs = ProgramArray::try_from(&mut map).map_err(on_error)?;
        programs.set(0, program, 0).map_err(on_error)?;
        let Map::ProgramArray(data) = &map else {
            return Err(Error::Layout {
                map: MAP,
                what: "type",
            });
        };
        let id = data.info().map_err(on_error)?.id();
        Ok(Self { map, id })
    }

    /// Lets the map outlive the daemon.
    pub(super) fn pin(&self, pins: &Pins) {
        pins.put_map(&self.map, self.id);
    }

    /// Lets it end with the daemon.
    pub(super) fn unpin(&self, pins: &Pins) {
        pins.remove_map(self.id);
    }

    /// The kernel's number of it.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }
}
