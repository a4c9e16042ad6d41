//! Both paths as one: what is published goes to the XDP program and to the slow path, which
//! tells secondaries of it.

use std::sync::Arc;
use std::time::Duration;

use failover_common::counters::{Counters, ServiceHits};
use tokio::sync::{oneshot, watch};

use crate::authority::{Authority, Published, Snapshot};
use crate::controller::Publish;
use crate::dataplane::{AttachedMode, Change, DataPlane, Error, Generation};
use crate::listen::{Counters as Replies, Listener};
use crate::model::{Model, ServiceId, ServiceZones, XdpMode};
use crate::notify;

/// The XDP program, if there is one, and the sockets of the name server.
pub struct Answering {
    /// `None`: `xdp = "off"`, or no interface to attach it to.
    plane: Option<DataPlane>,
    generation: Generation,
    sockets: Option<Sockets>,
    replies: Arc<Replies>,
}

/// The slow path while it runs.
struct Sockets {
    zones: ServiceZones,
    published: watch::Sender<Arc<Published>>,
    /// The sockets are closed when this is dropped.
    _open: oneshot::Sender<()>,
}

impl Answering {
    /// Answers nothing before the first publication. Generations continue after `last`.
    #[must_use]
    pub fn new(plane: Option<DataPlane>, last: Generation) -> Self {
        Self {
            plane,
            generation: last,
            sockets: None,
            replies: Arc::default(),
        }
    }

    /// The XDP program's side.
    pub fn plane_mut(&mut self) -> Option<&mut DataPlane> {
        self.plane.as_mut()
    }

    /// Opens the sockets, inside a tokio runtime.
    fn listen(&mut self, model: &Model, changes: &[Change]) -> Result<(), Error> {
        let settings = &model.settings;
        let listener = Listener::bind(&settings.listen, settings.port.get())?;
        let (published, reader) = watch::channel(Arc::new(Published {
            authority: Arc::new(Authority::new(model)),
            snapshot: Snapshot::new(self.generation, changes),
        }));
        tokio::spawn(notify::run(notify::targets(model), reader.clone()));
        let (open, closed) = oneshot::channel();
        let replies = Arc::clone(&self.replies);
        tokio::spawn(listener.serve(reader, replies, async {
            // An error says that the sender is gone, which is what we wait for.
            let _ = closed.await;
        }));
        self.sockets = Some(Sockets {
            zones: ServiceZones::new(model),
            published,
            _open: open,
        });
        Ok(())
    }
}

impl Publish for Answering {
    fn publish_all(&mut self, model: &Model, changes: &[Change]) -> Result<Generation, Error> {
        self.generation = match &mut self.plane {
            Some(plane) => plane.publish_all(model, changes)?,
            None => self.generation.next(),
        };
        self.listen(model, changes)?;
        Ok(self.generation)
    }

    fn publish(&mut self, changes: &[Change]) -> Result<Generation, Error> {
        self.generation = match &mut self.plane {
            Some(plane) => plane.publish(changes)?,
            None => self.generation.next(),
        };
        if let Some(sockets) = &self.sockets {
            let zones = sockets
                .zones
                .of(changes.iter().map(|change| change.service));
            sockets.published.send_modify(|published| {
                *published = Arc::new(Published {
                    authority: Arc::clone(&published.authority),
                    snapshot: published.snapshot.next(self.generation, changes, &zones),
                });
            });
        }
        Ok(self.generation)
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn beat(&mut self, max_stale: Option<Duration>) {
        if let Some(plane) = &mut self.plane {
            plane.beat(max_stale);
        }
    }

    fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, Error> {
        match &mut self.plane {
            Some(plane) => plane.attach(interface, index, mode),
            None => Err(Error::Off),
        }
    }

    fn detach(&mut self, interface: &str) {
        if let Some(plane) = &mut self.plane {
            plane.detach(interface);
        }
    }

    fn counters(&self) -> Result<Counters, Error> {
        self.plane
            .as_ref()
            .map_or(Ok(Counters::default()), DataPlane::counters)
    }

    fn service_hits(&self, service: ServiceId) -> Result<ServiceHits, Error> {
        self.plane
            .as_ref()
            .map_or(Ok(ServiceHits::default()), |plane| {
                plane.service_hits(service)
            })
    }

    fn slow_path(&self) -> u64 {
        self.replies.slow_path()
    }

    fn slow_path_counters(&self) -> Vec<(&'static str, u64)> {
        self.replies.named()
    }
}
