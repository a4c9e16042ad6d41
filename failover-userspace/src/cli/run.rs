//! `failover run`: puts the daemon together.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{Run, log};
use crate::answering::Answering;
use crate::config::{self, Overrides};
use crate::control::{Socket, Sources};
use crate::controller::{Controller, Core, Inputs, Now, Setup};
use crate::dataplane::DataPlane;
use crate::forward::Forwarder;
use crate::journal::{Entry, Recorder};
use crate::metrics::{self, Meters};
use crate::model::{Model, XdpMode};
use crate::privileges;
use crate::probe::{Engine, LinkWatcher};
use crate::state::{Kept, Saver, Store};
use crate::webhook::Webhooks;

/// Room for the events of links.
const LINK_EVENTS: usize = 1024;
/// Room for the queries of clients.
const QUERIES: usize = 64;
/// Room for reports of probes: half a second of them, and never little.
const REPORTS: std::ops::RangeInclusive<usize> = 1024..=65_536;
/// What tasks get to end.
const GRACE: Duration = Duration::from_secs(2);
/// What webhooks get to deliver what waits, when the daemon stops.
const WEBHOOK_GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Run) -> Result<ExitCode> {
    log::init()?;
    expect_configuration(&args.config)?;
    let overrides = Overrides {
        interfaces: args.interfaces.clone(),
        xdp: args.xdp.map(Into::into),
    };
    let mut loaded = match config::load_with(&args.config, &overrides) {
        Ok(loaded) => loaded,
        Err(errors) => {
            log::complain(&errors.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(socket) = &args.socket {
        loaded.model.settings.control_socket.clone_from(socket);
    }
    for warning in &loaded.warnings {
        warn!(at = %format_args!("{}:{}:{}", warning.file.display(), warning.line, warning.column), "{}", warning.message);
    }
    if loaded.model.settings.xdp == XdpMode::Off {
        loaded.model.settings.interfaces.clear();
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
    let plane = if model.settings.interfaces.is_empty() {
        info!("no XDP program: user space answers everything");
        None
    } else {
        Some(DataPlane::load(&model, state.generation).map_err(explain_refusal)?)
    };
    privileges::keep_to_run().context("give up privileges")?;
    let forwarder = Forwarder::start(&model)?;
    let saver = Saver::start(store, Arc::clone(&model), kept.clone(), state.generation)
        .with_context(in_dir)?;
    let webhooks = Webhooks::new();
    let told = Arc::clone(&webhooks);
    let tell = Box::new(move |entry: &Arc<Entry>| told.offer(entry));
    let recorder = Recorder::start(dir, tell).context("start the journal")?;
    let telling = Telling {
        recorder,
        webhooks,
        metrics,
    };

    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // The controller runs on this thread and may block it: tasks have the workers.
    let answering = Answering::new(plane, state.generation);
    let done = runtime.block_on(serve(
        model, socket, answering, forwarder, kept, saver, telling,
    ));
    runtime.shutdown_timeout(GRACE);
    done?;
    Ok(ExitCode::SUCCESS)
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
}

async fn serve(
    model: Arc<Model>,
    socket: Socket,
    mut answering: Answering,
    forwarder: Forwarder,
    kept: Kept,
    saver: Saver,
    telling: Telling,
) -> Result<()> {
    let Telling {
        recorder,
        webhooks,
        metrics,
    } = telling;
    let stop = stop_signal()?;
    webhooks.configure(&model);
    if let Some(plane) = answering.plane_mut() {
        follow_program_log(plane);
    }

    let (queries, queries_receiver) = mpsc::channel(QUERIES);
    let (stop_control, control_stops) = watch::channel(());
    let meters = Meters::new(Now::read().wall, Arc::clone(&webhooks));
    if let Some(metrics) = metrics {
        let serve = metrics.serve(meters.clone(), queries.clone(), control_stops.clone());
        tokio::spawn(serve);
    }
    let sources = Sources {
        journal: recorder.reader().clone(),
        webhooks: Arc::clone(&webhooks),
    };
    let control = tokio::spawn(socket.serve(Arc::clone(&model), queries, sources, control_stops));

    let (links, links_receiver) = mpsc::channel(LINK_EVENTS);
    let _watcher = LinkWatcher::start(watched(&model), links).context("watch interfaces")?;
    let room = model.probes.len().clamp(*REPORTS.start(), *REPORTS.end());
    let (reports, reports_receiver) = mpsc::channel(room);
    let core = Core::new(Arc::clone(&model), &kept, Now::read());
    let engine = Engine::start_with(&model.probes, |probe| core.pace(probe), reports)
        .context("start the probes")?;

    let controller = Controller::new(Setup {
        core,
        plane: answering,
        forwarder,
        saver,
        journal: recorder.journal().clone(),
        set_pace: Box::new(move |probe, pace| engine.set_pace(probe, pace)),
        meters,
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

/// All interfaces that matter, each once.
fn watched(model: &Model) -> BTreeSet<String> {
    let wans = model.wans.iter().filter_map(|wan| wan.interface.clone());
    wans.chain(model.settings.interfaces.iter().cloned())
        .collect()
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

/// Log records of the XDP program join ours.
fn follow_program_log(plane: &mut DataPlane) {
    let logger = match EbpfLogger::init(plane.ebpf_mut()) {
        Ok(logger) => logger,
        Err(error) => return debug!(%error, "the program does not log"),
    };
    #[expect(
        deprecated,
        reason = "the other constructor is unsafe; a logger keeps its descriptor"
    )]
    let logger = AsyncFd::with_interest(logger, Interest::READABLE);
    let mut logger = match logger {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "cannot follow the program's log"),
    };
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
}
