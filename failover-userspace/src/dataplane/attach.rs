//! The program on its interfaces.

use aya::programs::XdpMode as AyaMode;
use aya::programs::xdp::XdpLinkId;
use serde::{Deserialize, Serialize};

use super::{DataPlane, Error};
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

/// One attachment.
#[derive(Debug)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// Its index; an interface that is deleted and made again has another one.
    pub index: u32,
    /// How.
    pub mode: AttachedMode,
    pub(super) link: XdpLinkId,
}

impl DataPlane {
    /// Attaches the program to an interface.
    ///
    /// With [`XdpMode::Auto`] natively, else generically. Attaching to the same interface
    /// again changes nothing; an interface that was made anew gets the program again.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, Error> {
        if let Some(attached) = self.attached.iter().find(|a| a.interface == interface) {
            if attached.index == index {
                return Ok(attached.mode);
            }
            self.detach(interface);
        }
        let modes: &[AttachedMode] = match mode {
            XdpMode::Auto => &[AttachedMode::Native, AttachedMode::Generic],
            XdpMode::Native => &[AttachedMode::Native],
            XdpMode::Generic => &[AttachedMode::Generic],
            XdpMode::Off => &[],
        };
        let mut refused = None;
        for mode in modes {
            let flags = match mode {
                AttachedMode::Native => AyaMode::Driver,
                AttachedMode::Generic => AyaMode::Skb,
            };
            match self.program()?.attach_to_if_index(index, flags) {
                Ok(link) => {
                    self.attached.push(Attached {
                        interface: interface.to_owned(),
                        index,
                        mode: *mode,
                        link,
                    });
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

    /// Removes the program from an interface, if it is there.
    pub fn detach(&mut self, interface: &str) {
        let Some(position) = self.attached.iter().position(|a| a.interface == interface) else {
            return;
        };
        let attached = self.attached.swap_remove(position);
        // The interface may be gone, and the attachment with it.
        if let Ok(program) = self.program() {
            let _ = program.detach(attached.link);
        }
    }

    /// Removes the program from all interfaces.
    pub fn detach_all(&mut self) {
        let interfaces: Vec<_> = self.attached.iter().map(|a| a.interface.clone()).collect();
        for interface in interfaces {
            self.detach(&interface);
        }
    }

    /// Where the program is attached.
    #[must_use]
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }
}
