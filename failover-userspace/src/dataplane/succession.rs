//! From one data plane to the next.
//!
//! The maps are made for one model, so another model needs another data plane. It is loaded and
//! filled while the old one answers, and takes over in this order:
//!
//! 1. [`DataPlane::stage_all`]: the new one has all answers, which nobody can see.
//! 2. [`DataPlane::approach`]: on one interface after the other a bridge takes the place of the
//!    old program, and leads to it. To replace a program takes the kernel milliseconds, but each
//!    packet finds one.
//! 3. [`DataPlane::withdraw`]: the old one passes everything to user space, on all interfaces.
//! 4. User space gets the new answers. Then [`DataPlane::commit`]: the new one has them too; and
//!    the bridge leads to it, on all interfaces at once.
//! 5. [`DataPlane::land`]: on one interface after the other the new program takes the place of the
//!    bridge.
//! 6. [`DataPlane::retire`]: when every run of the old program has ended, its counters are read
//!    and its maps are freed.
//!
//! So whoever has seen an answer of the new model, on any interface or from user space, never sees
//! one of the old model after that; and between the two user space answers alone for no longer
//! than a few stores and the replacement of one pointer take.

use aya::programs::xdp::{XdpLink, XdpLinkId};

use super::grace::wait_for_readers;
use super::{
    Attached, BRIDGE_PROGRAM_NAME, Change, DataPlane, Error, Generation, PROGRAM_NAME, Place,
    Readings, Staged, on_bridge, program,
};

/// Where a bridge has the place of a program.
#[must_use = "the bridge is to make room"]
#[derive(Debug, Default)]
pub struct Bridged {
    attached: Vec<Attached>,
    refused: Vec<(String, Error)>,
}

impl DataPlane {
    /// Prepares the first publication of a data plane that has been filled: the answers of all
    /// services, in the generation after `last`. Of zones that some earlier generation has
    /// changed last, `changed` has it, by [`ZoneId`](crate::model::ZoneId).
    pub fn stage_all(
        &mut self,
        last: Generation,
        changes: &[Change],
        changed: &[Option<Generation>],
    ) -> Result<Staged, Error> {
        self.tables.stage_all(last, changes, changed)
    }

    /// Loads the bridge, which [`DataPlane::approach`] needs.
    pub fn load_bridge(&mut self) -> Result<(), Error> {
        Ok(program(&mut self.ebpf, BRIDGE_PROGRAM_NAME)?.load()?)
    }

    /// Puts a bridge to the program of `old` in the place of that program, on those of its
    /// interfaces that are among these, and frees the others.
    ///
    /// After an error nothing has changed.
    pub fn approach(&mut self, old: &mut Self, interfaces: &[String]) -> Result<Bridged, Error> {
        // Those that are pinned stay it.
        self.pins.clone_from(&old.pins);
        if let Some(pins) = &self.pins {
            self.rest.pin(pins);
        }
        self.bridge
            .set(0, old.program()?.fd()?, 0)
            .map_err(on_bridge)?;
        let mut bridged = Bridged::default();
        for Attached { place, link } in std::mem::take(&mut old.attached) {
            let is_kept = interfaces.contains(&place.interface);
            if !is_kept {
                old.unpin(&place);
            }
            let from = program(&mut old.ebpf, PROGRAM_NAME)?;
            let Ok(link) = from.take_link(link) else {
                continue;
            };
            // Dropping the link detaches the program.
            if is_kept {
                let link = self.attach_to(BRIDGE_PROGRAM_NAME, link);
                self.put(&mut bridged, place, link);
            }
        }
        Ok(bridged)
    }

    /// Makes visible what was prepared, also behind the bridge.
    pub fn commit(&mut self, staged: Staged, bridged: Option<&Bridged>) -> Generation {
        let generation = self.tables.commit(staged);
        if bridged.is_some()
            && let Err(error) = self.lead_here()
        {
            // Each interface gets the program a moment later.
            tracing::warn!(error = &error as &dyn std::error::Error, "bridge");
        }
        generation
    }

    fn lead_here(&mut self) -> Result<(), Error> {
        let own = program(&mut self.ebpf, PROGRAM_NAME)?;
        self.bridge.set(0, own.fd()?, 0).map_err(on_bridge)
    }

    /// Passes everything from now on: the last thing that is ever published here.
    pub fn withdraw(&mut self) {
        self.tables.withdraw();
    }

    /// Puts the program in the place of the bridge. Returns the interfaces that have refused any of
    /// this, and are without a program now.
    pub fn land(&mut self, bridged: Bridged) -> Vec<(String, Error)> {
        let mut landed = Bridged {
            attached: Vec::new(),
            refused: bridged.refused,
        };
        for Attached { place, link } in bridged.attached {
            let link = program(&mut self.ebpf, BRIDGE_PROGRAM_NAME)
                .and_then(|bridge| Ok(bridge.take_link(link)?))
                .and_then(|link| self.attach_to(PROGRAM_NAME, link));
            self.put(&mut landed, place, link);
        }
        // Nobody comes this way any more, and the program should not hold itself.
        let _ = self.bridge.clear_index(&0);
        if let Ok(bridge) = program(&mut self.ebpf, BRIDGE_PROGRAM_NAME) {
            let _ = bridge.unload();
        }
        self.attached.append(&mut landed.attached);
        landed.refused
    }

    fn attach_to(&mut self, name: &'static str, link: XdpLink) -> Result<XdpLinkId, Error> {
        Ok(program(&mut self.ebpf, name)?.attach_to_link(link)?)
    }

    /// A program has this place now, or has been refused.
    fn put(&self, bridged: &mut Bridged, place: Place, link: Result<XdpLinkId, Error>) {
        match link {
            Ok(link) => bridged.attached.push(Attached { place, link }),
            Err(error) => {
                self.unpin(&place);
                bridged.refused.push((place.interface, error));
            }
        }
    }

    /// Waits until no packet is in the program any more, which is on no interface; then frees it
    /// and its maps. Blocks for milliseconds, with many names longer.
    pub fn retire(self) -> Result<Readings, Error> {
        wait_for_readers();
        if let Some(pins) = &self.pins {
            self.rest.unpin(pins);
        }
        self.meters.readings()
    }
}
