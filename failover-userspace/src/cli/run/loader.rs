//! Reads the configuration, at the start and again, and makes what a reload needs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::explain_refusal;
use crate::answering::Next;
use crate::cli::Run;
use crate::config::{self, Diagnostics, Overrides, Running};
use crate::controller::{Basis, Candidate, Load, Loaded, Others};
use crate::forward::Forwarder;
use crate::metrics;
use crate::model::{CookieSecret, Lineage, Model, ProbeId, XdpMode, compare};
use crate::probe::Task;
use crate::webhook::Webhooks;

/// The configuration with what the command line says.
#[derive(Clone, Debug)]
pub(super) struct Source {
    file: PathBuf,
    overrides: Overrides,
    socket: Option<PathBuf>,
}

impl Source {
    pub(super) fn new(args: &Run) -> Result<Self> {
        let secret = CookieSecret::random().context("a secret for cookies")?;
        Ok(Self {
            file: args.config.clone(),
            overrides: Overrides {
                interfaces: args.interfaces.clone(),
                xdp: args.xdp.map(Into::into),
                cookie_secret: Some(secret),
            },
            socket: args.socket.clone(),
        })
    }

    /// For a daemon that starts.
    pub(super) fn load(&self) -> Result<config::Loaded, Diagnostics> {
        config::load_with(&self.file, &self.overrides).map(|loaded| self.complete(loaded))
    }

    /// For a daemon that runs.
    fn reload(&self, basis: &Basis) -> Result<config::Loaded, Diagnostics> {
        let mut running = Running::new(&basis.model.settings, basis.attached.clone());
        if self.socket.is_some() {
            running.control_socket = None;
        }
        let loaded = config::reload(&self.file, &self.overrides, &running)?;
        Ok(self.complete(loaded))
    }

    fn complete(&self, mut loaded: config::Loaded) -> config::Loaded {
        let settings = &mut loaded.model.settings;
        if let Some(socket) = &self.socket {
            settings.control_socket.clone_from(socket);
        }
        if settings.xdp == XdpMode::Off {
            settings.interfaces.clear();
        }
        loaded
    }
}

/// Who follows the configuration beside the controller.
#[derive(Debug)]
pub(super) struct Followers {
    pub(super) webhooks: Arc<Webhooks>,
    /// Takes what serves metrics instead of what does so.
    pub(super) metrics: UnboundedSender<Option<metrics::Server>>,
}

impl Followers {
    /// Prepares them for `new`: opens what it needs and `old` has not got.
    fn prepare(&self, old: &Model, new: &Model) -> Result<Others> {
        if new.port_forward.is_some() && old.port_forward.is_none() {
            Forwarder::examine()?;
        }
        let address = new.settings.metrics;
        let metrics = if address == old.settings.metrics {
            None
        } else {
            Some(address.map(metrics::Server::bind).transpose()?)
        };
        let webhooks = Arc::clone(&self.webhooks);
        let successor = self.metrics.clone();
        Ok(Others::new(move |model| {
            webhooks.configure(model);
            if let Some(server) = metrics {
                // Nobody serves any more when the daemon ends.
                let _ = successor.send(server);
            }
        }))
    }
}

/// Loads on a thread of its own.
///
/// Capabilities belong to threads, and this one keeps those that loading the XDP program needs,
/// while the rest of the daemon gives them up.
#[derive(Debug)]
pub(super) struct Loader {
    jobs: Sender<Job>,
}

type Job = (Basis, oneshot::Sender<Loaded<Next>>);

impl Loader {
    /// Starts the thread, with the capabilities of the one that calls.
    pub(super) fn start(source: Source, followers: Followers) -> io::Result<Self> {
        let (jobs, receiver) = channel();
        thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || work(&source, &followers, &receiver))?;
        Ok(Self { jobs })
    }
}

impl Load<Next> for Loader {
    fn load(&mut self, basis: Basis) -> oneshot::Receiver<Loaded<Next>> {
        let (reply, receiver) = oneshot::channel();
        // Without the thread the reply is lost, which is told.
        let _ = self.jobs.send((basis, reply));
        receiver
    }
}

fn work(source: &Source, followers: &Followers, jobs: &Receiver<Job>) {
    while let Ok((basis, reply)) = jobs.recv() {
        // Nobody waits any more when the daemon ends.
        let _ = reply.send(load(source, followers, &basis));
    }
}

fn load(source: &Source, followers: &Followers, basis: &Basis) -> Loaded<Next> {
    let shown = |diagnostics: &[config::Diagnostic]| -> Vec<String> {
        diagnostics.iter().map(ToString::to_string).collect()
    };
    let config::Loaded { model, warnings } = match source.reload(basis) {
        Ok(loaded) => loaded,
        Err(Diagnostics(errors)) => return Loaded::Refused(shown(&errors)),
    };
    let warnings = shown(&warnings);
    let (difference, succession) = compare(&basis.model, &model);
    if difference.is_empty() {
        return Loaded::Unchanged(warnings);
    }
    let others = match followers.prepare(&basis.model, &model) {
        Ok(others) => others,
        Err(error) => return Loaded::Refused(vec![format!("{error:#}")]),
    };
    let next = match Next::load(&model, basis.generation) {
        Ok(next) => next,
        Err(error) => return Loaded::Refused(vec![format!("{:#}", explain_refusal(error))]),
    };
    let probes = (0..).map(ProbeId).zip(&succession.probes);
    let other = probes.filter(|(_, lineage)| !matches!(lineage, Lineage::Same(_)));
    let other: Vec<ProbeId> = other.map(|(id, _)| id).collect();
    let tasks = Task::prepare(other.iter().map(|id| model.probe(*id)));
    Loaded::Other(Box::new(Candidate {
        tasks: other.into_iter().zip(tasks).collect(),
        model: Arc::new(model),
        difference,
        succession,
        warnings,
        next,
        others,
    }))
}
