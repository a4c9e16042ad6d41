//! `failover run`: puts the daemon together.

mod hangups;
mod loader;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{Run, log};
use crate::answering::Answering;
use crate::control::{self, Socket};
use crate::controller::{Controller, Core, Inputs, Now, Setup, Sources};
use crate::dataplane::{DataPlane, Pins};
use crate::forward::Forwarder;
use crate::health::Pace;
use crate::journal::{Entry, Recorder};
use crate::metrics::{self, Meters};
use crate::model::{Model, ProbeId, Settings};
use crate::privileges;
use crate::probe::{Begin, Engine, Handle, LinkWatcher, ProbeKey, Task};
use crate::state::{Kept, Saver, Store};
use crate::webhook::Webhooks;
use hangups::Hangups;
use loader::{Followers, Loader, Source};

/// Room for the events of links.
const LINK_EVENTS: usize = 1024;
/// Room for the queries of clients.
const QUERIES: usize = 64;
/// Room for reports of probes: half a second of them, however many there come to be.
const REPORTS: usize = 65_536;
/// What tasks get to end.
const GRACE: Duration = Duration::from_secs(2);
/// What webhooks get to deliver what waits, when the daemon stops.
const WEBHOOK_GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Run) -> Result<ExitCode> {
    log::init()?;
    expect_configuration(&args.config)?;
    let hangups = Hangups::remember()?;
    let source = Source::new(args)?;
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(errors) => {
            log::complain(&errors.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    for warning in &loaded.warnings {
        warn!(at = %format_args!("{}:{}:{}", warning.file.display(), warning.line, warning.column), "{}", warning.message);
    }
    let model = Arc::new(loaded.model);

    let socket = Socket::bind(&model.settings.control_socket, &model.settings.control)?;
    let metrics = model.settings.metrics.map(metrics::Server::bind);
    let metrics = metrics.transpose()?;
    // Capabilities belong to threads: what is given up must be before there are any.
    privileges::keep_to_load().context("give up privileges")?;
    let dir = &model.settings.state_dir;
    let in_dir = || format!("state_dir {}", dir.display());
    let (store, state) = Store::open(dir).with_context(in_dir)?;
    let kept = Kept::of(&state, &model);
    let pins = open_pins(&model);
    let plane = if model.settings.interfaces.is_empty() {
        info!("no XDP program: user space answers everything");
        None
    } else {
        Some(DataPlane::load(&model, state.generation).map_err(explain_refusal)?)
    };
    let webhooks = Webhooks::new();
    let (metrics_successor, metrics_successors) = mpsc::unbounded_channel();
    let followers = Followers {
        webhooks: Arc::clone(&webhooks),
        metrics: metrics_successor,
    };
    let loader = Loader::start(source, followers).context("start a thread")?;
    privileges::keep_to_run().context("give up privileges")?;
    let forwarder = Forwarder::start(&model)?;
    let saver = Saver::start(store, Arc::clone(&model), kept.clone(), state.generation)
        .with_context(in_dir)?;
    let told = Arc::clone(&webhooks);
    let tell = Box::new(move |entry: &Arc<Entry>| told.offer(entry));
    let recorder = Recorder::start(dir, tell).context("start the journal")?;
    let telling = Telling {
        recorder,
        webhooks,
        metrics,
        metrics_successors,
    };

    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // The controller runs on this thread and may block it: tasks have the workers.
    let done = runtime.block_on(serve(Parts {
        model,
        socket,
        answering: Answering::new(plane, state.generation, pins),
        forwarder,
        kept,
        saver,
        loader,
        hangups,
        telling,
        detach_on_exit: args.detach_on_exit,
    }));
    runtime.shutdown_timeout(GRACE);
    done?;
    Ok(ExitCode::SUCCESS)
}

/// Where attachments outlive the daemon; without a program, only what an earlier run has left.
fn open_pins(model: &Model) -> Option<Arc<Pins>> {
    let Settings {
        bpf_dir,
        interfaces,
        ..
    } = &model.settings;
    match Pins::open(bpf_dir, !interfaces.is_empty()) {
        Ok(pins) => pins.map(Arc::new),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "bpf_dir: the program does not outlive the daemon");
            None
        }
    }
}

/// Whoever starts a daemon that has just been installed learns what is left to do.
fn expect_configuration(file: &Path) -> Result<()> {
    if file.try_exists().is_ok_and(|exists| !exists) {
        bail!(
            "there is no configuration at {}: write one, as failover.toml(5) says, or name another \
             with -c",
            file.display()
        );
    }
    Ok(())
}

/// What tells others how it is.
struct Telling {
    recorder: Recorder,
    webhooks: Arc<Webhooks>,
    metrics: Option<metrics::Server>,
    /// What takes its place after reloads.
    metrics_successors: mpsc::UnboundedReceiver<Option<metrics::Server>>,
}

/// What is made before there are tasks.
struct Parts {
    model: Arc<Model>,
    socket: Socket,
    answering: Answering,
    forwarder: Forwarder,
    kept: Kept,
    saver: Saver,
    loader: Loader,
    hangups: Hangups,
    telling: Telling,
    detach_on_exit: bool,
}

async fn serve(parts: Parts) -> Result<()> {
    let Parts {
        model,
        socket,
        mut answering,
        forwarder,
        kept,
        saver,
        loader,
        hangups,
        telling,
        detach_on_exit,
    } = parts;
    let Telling {
        recorder,
        webhooks,
        metrics,
        metrics_successors,
    } = telling;
    let stop = stop_signal()?;
    webhooks.configure(&model);
    if let Some(plane) = answering.plane_mut() {
        plane.follow_log();
    }

    let (models, models_receiver) = watch::channel(Arc::clone(&model));
    let (queries, queries_receiver) = mpsc::channel(QUERIES);
    let (stop_control, control_stops) = watch::channel(());
    hangups.reload(queries.clone())?;
    let meters = Meters::new(Now::read().wall, Arc::clone(&webhooks));
    tokio::spawn(metrics::serve(
        metrics,
        metrics_successors,
        meters.clone(),
        queries.clone(),
        control_stops.clone(),
    ));
    let sources = control::Sources {
        journal: recorder.reader().clone(),
        webhooks: Arc::clone(&webhooks),
    };
    let control = tokio::spawn(socket.serve(models_receiver, queries, sources, control_stops));

    let (links, links_receiver) = mpsc::channel(LINK_EVENTS);
    let watcher = LinkWatcher::start(model.interfaces(), links).context("watch interfaces")?;
    let (reports, reports_receiver) = mpsc::channel(REPORTS);
    let core = Core::new(Arc::clone(&model), &kept, Now::read());
    let pace = |probe: ProbeKey| core.pace(ProbeId(probe.0));
    let engine = Engine::start_with(&model.probes, pace, reports).context("start the probes")?;

    let controller = Controller::new(Setup {
        core,
        plane: answering,
        forwarder,
        saver,
        journal: recorder.journal().clone(),
        meters,
        sources: Box::new(World { engine, watcher }),
        loader: Box::new(loader),
        models,
        detach_on_exit,
    });
    let inputs = Inputs {
        reports: reports_receiver,
        links: links_receiver,
        queries: queries_receiver,
    };
    let ended = controller.run(inputs, stop).await;
    // So that who listens hears the end, too.
    recorder.stop(GRACE);
    let _ = stop_control.send(());
    let control = tokio::time::timeout(GRACE, control);
    let _ = tokio::join!(control, webhooks.stop(WEBHOOK_GRACE));
    ended.map(drop)
}

/// What the controller hears of the world.
struct World {
    engine: Handle,
    watcher: LinkWatcher,
}

impl Sources for World {
    fn set_pace(&mut self, probe: ProbeKey, pace: Pace) {
        self.engine.set_pace(probe, pace);
    }

    fn add(&mut self, probes: Vec<(ProbeKey, Task, Pace)>, begin: Begin) {
        self.engine.add(probes, begin);
    }

    fn remove(&mut self, probes: Vec<ProbeKey>) {
        self.engine.remove(probes);
    }

    fn watch(&mut self, interfaces: BTreeSet<String>) {
        self.watcher.watch(interfaces);
    }
}

fn explain_refusal(error: crate::dataplane::Error) -> anyhow::Error {
    let error = anyhow!(error);
    let not_permitted = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    });
    if not_permitted {
        error.context(
            "loading the XDP program needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        )
    } else {
        error
    }
}

/// Ready on SIGTERM or SIGINT.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
