//! What answers after a reload.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::authority::Authority;
use crate::dataplane::{AttachedMode, DataPlane, Error, Generation};
use crate::listen::Listener;
use crate::model::{Model, ServiceZones, XdpMode};
use crate::notify::{self, Targets};

/// Both paths for another model, complete but for what depends on health.
pub struct Next {
    /// `None`: `xdp = "off"`, or no interface to attach it to.
    pub(super) plane: Option<DataPlane>,
    pub(super) authority: Arc<Authority>,
    pub(super) zones: ServiceZones,
    pub(super) targets: Targets,
    /// All addresses that are to be served.
    pub(super) listen: Vec<SocketAddr>,
    /// Those that are not served yet.
    pub(super) listener: Listener,
}

impl Next {
    /// Makes it. Takes seconds with a million names, and changes nothing for anybody.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the program or its maps.
    pub fn load(model: &Model, last: Generation) -> Result<Self, Error> {
        let plane = if model.settings.interfaces.is_empty() {
            None
        } else {
            let mut plane = DataPlane::load(model, last)?;
            plane.fill(model)?;
            plane.load_bridge()?;
            Some(plane)
        };
        Ok(Self {
            plane,
            authority: Arc::new(Authority::new(model)),
            zones: ServiceZones::new(model),
            targets: notify::targets(model),
            listen: model.settings.listen_sockets().collect(),
            listener: Listener::default(),
        })
    }

    /// Opens what is not open yet, inside a tokio runtime. What arrives there waits.
    pub(super) fn open(&mut self, is_open: impl Fn(&SocketAddr) -> bool) -> Result<(), Error> {
        let missing = self.listen.iter().filter(|address| !is_open(address));
        self.listener = Listener::bind(missing.copied())?;
        if let Some(plane) = &mut self.plane {
            plane.follow_log();
        }
        Ok(())
    }

    /// Attaches the program to an interface that has none. Until the switch it passes everything.
    pub(super) fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, Error> {
        let plane = self.plane.as_mut().ok_or(Error::Off)?;
        plane.attach(interface, index, mode)
    }
}
