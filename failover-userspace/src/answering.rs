//! Both paths as one: what is published goes to the XDP program and to the slow path, which
//! tells secondaries of it.
//!
//! A reload makes the [`Next`] of both for another model, and [`Answering::switch`] goes over to
//! it in one publication; how that keeps the order of generations is told in
//! [`crate::dataplane`]. `tally` counts on over all of them.

mod next;
mod serials;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use failover_common::counters::{Counters, ServiceHits};
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::authority::{Authority, Published, Snapshot};
use crate::controller::{Handover, Publish, Switched};
use crate::dataplane::{AttachedMode, Change, DataPlane, Error, Generation, Pins, Readings};
use crate::listen::{Counters as Replies, Listener, Sockets};
use crate::model::{Model, ServiceId, ServiceZones, XdpMode};
use crate::notify::{self, Targets};
pub use next::Next;
use tally::Tally;

/// The XDP program, if there is one, and the sockets of the name server.
pub struct Answering {
    /// `None`: `xdp = "off"`, or no interface to attach it to.
    plane: Option<DataPlane>,
    generation: Generation,
    slow_path: Option<SlowPath>,
    replies: Arc<Replies>,
    tally: Tally,
    /// `None`: attachments end with the daemon.
    pins: Option<Arc<Pins>>,
}

/// The slow path while it runs.
struct SlowPath {
    zones: ServiceZones,
    published: watch::Sender<Arc<Published>>,
    targets: watch::Sender<Targets>,
    /// They are closed when this is dropped.
    sockets: Sockets,
}

impl Answering {
    /// Answers nothing before the first publication. Generations continue after `last`. With
    /// `pins` the program outlives the daemon.
    #[must_use]
    pub fn new(mut plane: Option<DataPlane>, last: Generation, pins: Option<Arc<Pins>>) -> Self {
        if let (Some(plane), Some(pins)) = (&mut plane, &pins) {
            plane.pin(Arc::clone(pins));
        }
        Self {
            pins,
            plane,
            generation: last,
            slow_path: None,
            replies: Arc::default(),
            tally: Tally::default(),
        }
    }

    /// The XDP program's side.
    pub fn plane_mut(&mut self) -> Option<&mut DataPlane> {
        self.plane.as_mut()
    }

    /// Opens the sockets, inside a tokio runtime.
    fn listen(&mut self, model: &Model, changes: &[Change]) -> Result<(), Error> {
        let listener = Listener::bind(model.settings.listen_sockets())?;
        let (published, reader) = watch::channel(Arc::new(Published {
            authority: Arc::new(Authority::new(model)),
            snapshot: Snapshot::new(self.generation, changes),
        }));
        let (targets, targets_reader) = watch::channel(notify::targets(model));
        tokio::spawn(notify::run(targets_reader, reader.clone()));
        let mut sockets = Sockets::new(reader, Arc::clone(&self.replies));
        sockets.open(listener);
        self.slow_path = Some(SlowPath {
            zones: ServiceZones::new(model),
            published,
            targets,
            sockets,
        });
        Ok(())
    }
}

impl Publish for Answering {
    type Next = Next;

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
        if let Some(slow_path) = &self.slow_path {
            let zones = slow_path
                .zones
                .of(changes.iter().map(|change| change.service));
            slow_path.published.send_modify(|published| {
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
        let plane = self.plane.as_mut().ok_or(Error::Off)?;
        plane.attach(interface, index, mode)
    }

    fn detach(&mut self, interface: &str) {
        if let Some(plane) = &mut self.plane {
            plane.detach(interface);
        }
    }

    fn outlives(&self, interface: &str) -> bool {
        let plane = self.plane.as_ref();
        plane.is_some_and(|plane| plane.outlives(interface))
    }

    fn tidy(&mut self) {
        let Some(pins) = &self.pins else { return };
        let removed = match &self.plane {
            Some(plane) => plane.tidy(pins),
            None => pins.keep(&[], None),
        };
        if removed > 0 {
            info!(removed, "what an earlier run had left on other interfaces");
        }
    }

    fn counters(&self) -> Result<Counters, Error> {
        self.tally.counters(self.plane.as_ref())
    }

    fn service_hits(&self, service: ServiceId) -> Result<ServiceHits, Error> {
        self.tally.service_hits(self.plane.as_ref(), service)
    }

    fn slow_path(&self) -> u64 {
        self.replies.slow_path()
    }

    fn slow_path_counters(&self) -> Vec<(&'static str, u64)> {
        self.replies.named()
    }

    fn open(&self, next: &mut Next) -> Result<(), Error> {
        let is_open = |address: &SocketAddr| {
            let slow_path = self.slow_path.as_ref();
            slow_path.is_some_and(|slow_path| slow_path.sockets.has(address))
        };
        next.open(is_open)
    }

    fn attach_next(
        &self,
        next: &mut Next,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<AttachedMode, Error> {
        next.attach(interface, index, mode)
    }

    fn switch(&mut self, next: Next, handover: &Handover<'_>) -> Result<Switched, Error> {
        let Handover {
            model,
            succession,
            changes,
        } = *handover;
        let slow_path = self.slow_path.as_mut().ok_or(Error::Unpublished)?;
        let Next {
            plane,
            authority,
            zones,
            targets,
            listen,
            listener,
        } = next;
        let before = Arc::clone(&slow_path.published.borrow());
        let changed = before.snapshot.unchanged(model, succession, changes);
        let staged = match plane {
            Some(mut plane) => {
                plane.beat(model.settings.max_stale);
                let staged = plane.stage_all(self.generation, changes, &changed)?;
                Some((plane, staged))
            }
            None => None,
        };
        let generation = self.generation.next();
        let after = Arc::new(Published {
            authority,
            snapshot: Snapshot::succeeding(generation, changes, &changed),
        });
        let warnings = serials::warnings(model, succession, &before, &after);

        // The order is that of `dataplane::succession`. What can fail comes first.
        let mut arriving = None;
        if let Some((mut plane, staged)) = staged {
            let bridged = match &mut self.plane {
                Some(old) => Some(plane.approach(old, &model.settings.interfaces)?),
                None => None,
            };
            arriving = Some((plane, staged, bridged));
        }
        let mut old = self.plane.take();
        if let Some(old) = &mut old {
            old.withdraw();
        }
        slow_path.targets.send_replace(targets);
        slow_path.published.send_replace(after);
        self.generation = generation;
        let mut lost = Vec::new();
        self.plane = arriving.map(|(mut plane, staged, bridged)| {
            plane.commit(staged, bridged.as_ref());
            lost = bridged.map_or_else(Vec::new, |bridged| plane.land(bridged));
            if let Some(pins) = &self.pins {
                plane.pin(Arc::clone(pins));
            }
            plane
        });
        slow_path.zones = zones;
        slow_path.sockets.open(listener);
        slow_path.sockets.keep(&listen);
        self.tally.succeed(old.as_ref(), &succession.services);
        Ok(Switched {
            generation,
            lost,
            warnings,
            retired: old.map(retire),
        })
    }

    fn settle(&mut self, readings: Readings) {
        self.tally.settle(&readings);
    }
}

/// Lets the last packets leave a data plane and frees it, on a thread of its own.
fn retire(mut old: DataPlane) -> oneshot::Receiver<Result<Readings, Error>> {
    old.detach_all();
    let (sender, receiver) = oneshot::channel();
    let spawned = thread::Builder::new()
        .name("retire".to_owned())
        .spawn(move || {
            // Nobody asks any more when the daemon ends.
            let _ = sender.send(old.retire());
        });
    if let Err(error) = spawned {
        // It has been freed with the closure.
        tracing::warn!(%error, "no thread that counts what the last program did");
    }
    receiver
}
