//! The program on its interfaces.

use std::sync::Arc;

use aya::programs::XdpMode as AyaMode;
use aya::programs::xdp::XdpLinkId;
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::{DataPlane, Error, Pins};
use crate::model::XdpMode;

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's generic receive path.
    Generic,
}

/// Where the program is, and how.
#[derive(Debug)]
pub struct Place {
    /// The interface's name.
    pub interface: String,
    /// Its index; an interface that is deleted and made again has another one.
    pub index: u32,
    /// How.
    pub mode: AttachedMode,
    /// Whether it outlives the daemon.
    pub pinned: bool,
}

/// One attachment.
#[derive(Debug)]
pub struct Attached {
    /// Where.
    pub place: Place,
    pub(super) link: XdpLinkId,
}

impl AttachedMode {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

    const fn flags(self) -> AyaMode {
        match self {
            Self::Native => AyaMode::Driver,
            Self::Generic => AyaMode::Skb,
        }
    }
}

impl DataPlane {
    /// From now on attachments outlive the daemon, where they can.
    pub fn pin(&mut self, pins: Arc<Pins>) {
        self.rest.pin(&pins);
        self.pins = Some(pins);
        for Attached { mut place, link } in std::mem::take(&mut self.attached) {
            let link = if place.pinned {
                Ok((link, true))
            } else {
                self.pinned(link, place.index, place.mode)
            };
            match link {
                Ok((link, pinned)) => {
                    place.pinned = pinned;
                    self.attached.push(Attached { place, link });
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    let interface = place.interface;
                    warn!(interface, error, "the program is not there any more");
                }
            }
        }
    }

    /// Attaches the program to an interface, in the place of that of an earlier daemon if there
    /// is one.
    ///
    /// With [`XdpMode::Auto`] natively, else generically. Attaching to the same interface
    /// again changes nothing; an interface that was made anew gets the program again.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, Error> {
        let place = self.attached().find(|place| place.interface == interface);
        match place.map(|place| (place.index, place.mode)) {
            Some((before, mode)) if before == index => return Ok(mode),
            Some(_) => self.detach(interface),
            None => {}
        }
        let modes: &[AttachedMode] = match mode {
            XdpMode::Auto => &[AttachedMode::Native, AttachedMode::Generic],
            XdpMode::Native => &[AttachedMode::Native],
            XdpMode::Generic => &[AttachedMode::Generic],
            XdpMode::Off => &[],
        };
        if let Some(mode) = self.take_over(interface, index, modes)? {
            return Ok(mode);
        }
        let mut refused = None;
        for mode in modes {
            match self.program()?.attach_to_if_index(index, mode.flags()) {
                Ok(link) => {
                    let (link, pinned) = self.pinned(link, index, *mode)?;
                    let place = Place {
                        interface: interface.to_owned(),
                        index,
                        mode: *mode,
                        pinned,
                    };
                    self.attached.push(Attached { place, link });
                    return Ok(*mode);
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.map_or(
            Error::Layout {
                map: "XDP",
                what: "mode",
            },
            Error::Program,
        ))
    }

    /// Takes the place of the program of an earlier daemon. What it has left in another mode is
    /// in the way.
    fn take_over(
        &mut self,
        interface: &str,
        index: u32,
        modes: &[AttachedMode],
    ) -> Result<Option<AttachedMode>, Error> {
        let Some(pins) = self.pins.clone() else {
            return Ok(None);
        };
        for mode in AttachedMode::ALL {
            let Some(link) = pins.get(index, mode) else {
                continue;
            };
            if !modes.contains(&mode) {
                pins.remove(index, mode);
                continue;
            }
            match self.program()?.attach_to_link(link) {
                Ok(link) => {
                    info!(interface, "in the place of the program of an earlier run");
                    let place = Place {
                        interface: interface.to_owned(),
                        index,
                        mode,
                        pinned: true,
                    };
                    self.attached.push(Attached { place, link });
                    return Ok(Some(mode));
                }
                // Of an interface that is gone and has left its index to this one.
                Err(error) => {
                    debug!(interface, %error, "an earlier run's program");
                    pins.remove(index, mode);
                }
            }
        }
        Ok(None)
    }

    /// Pins a link if that is wanted; tells whether it is pinned.
    fn pinned(
        &mut self,
        link: XdpLinkId,
        index: u32,
        mode: AttachedMode,
    ) -> Result<(XdpLinkId, bool), Error> {
        let Some(pins) = self.pins.clone() else {
            return Ok((link, false));
        };
        let program = self.program()?;
        let link = program.take_link(link)?;
        match pins.put(link, index, mode) {
            Some(link) => Ok((program.attach_to_link(link)?, true)),
            None => Ok((program.attach_to_if_index(index, mode.flags())?, false)),
        }
    }

    /// Whether the program stays on an interface when the daemon ends.
    #[must_use]
    pub fn outlives(&self, interface: &str) -> bool {
        self.attached()
            .any(|place| place.interface == interface && place.pinned)
    }

    /// Removes the program from an interface, if it is there.
    pub fn detach(&mut self, interface: &str) {
        let Some(position) = self
            .attached()
            .position(|place| place.interface == interface)
        else {
            return;
        };
        let attached = self.attached.swap_remove(position);
        self.unpin(&attached.place);
        // The interface may be gone, and the attachment with it.
        if let Ok(program) = self.program() {
            let _ = program.detach(attached.link);
        }
    }

    /// Lets an attachment end with its link.
    pub(super) fn unpin(&self, place: &Place) {
        if let Some(pins) = self.pins.as_ref().filter(|_| place.pinned) {
            pins.remove(place.index, place.mode);
        }
    }

    /// Removes the program from all interfaces.
    pub fn detach_all(&mut self) {
        let interfaces: Vec<_> = self
            .attached()
            .map(|place| place.interface.clone())
            .collect();
        for interface in interfaces {
            self.detach(&interface);
        }
        if let Some(pins) = &self.pins {
            self.rest.unpin(pins);
        }
    }

    /// Removes all that has been pinned of this network namespace but for this data plane. Returns
    /// how many attachments that were.
    pub fn tidy(&self, pins: &Pins) -> usize {
        let attached: Vec<_> = self
            .attached()
            .map(|place| (place.index, place.mode))
            .collect();
        pins.keep(&attached, Some(self.rest.id()))
    }

    /// Where the program is attached.
    pub fn attached(&self) -> impl Iterator<Item = &Place> {
        self.attached.iter().map(|attached| &attached.place)
    }
}
