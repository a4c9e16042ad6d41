//! What is measured where it happens, and kept until somebody asks.
//!
//! All [`Meters`] that are cloned from one another count the same. Nothing here waits: whoever
//! counts never notices a scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::PREFIX;
use super::webhooks::Receivers;
use crate::journal::Kind;
use crate::model::ProbeTarget;
use crate::probe::Report;
use crate::webhook::Webhooks;

/// Upper bounds, in seconds: from one answer to all services of a large link, and the first
/// publication of a million names.
const PUBLICATION: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0, 10.0,
];
/// Upper bounds, in seconds: from a server in the same rack to a program that takes its time.
const PROBE: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Upper bounds, in seconds: a few milliseconds are on purpose, see the engine.
const LATENESS: [f64; 9] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 10.0];

/// One label.
type Label = [(&'static str, &'static str); 1];
/// A gauge of seconds since 1970.
type Time = Gauge<f64, AtomicU64>;

/// What became of a reload of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new configuration is in force.
    Applied,
    /// The file has errors, or cannot be applied: nothing has changed.
    Refused,
}

impl Reload {
    const ALL: [Self; 2] = [Self::Applied, Self::Refused];

    const fn label(self) -> Label {
        [match self {
            Self::Applied => ("result", "applied"),
            Self::Refused => ("result", "refused"),
        }]
    }
}

/// What became of a publication.
#[derive(Clone, Copy)]
enum Publication {
    Published,
    Refused,
}

impl Publication {
    const ALL: [Self; 2] = [Self::Published, Self::Refused];

    const fn label(self) -> Label {
        [match self {
            Self::Published => ("result", "published"),
            Self::Refused => ("result", "refused"),
        }]
    }
}

/// Counts what happens.
#[derive(Clone)]
pub struct Meters {
    heartbeat: Time,
    publications: Family<Label, Counter>,
    publication: Histogram,
    probe: Family<Label, Histogram>,
    lateness: Histogram,
    events: Family<Label, Counter>,
    reloads: Family<Label, Counter>,
    reload_successful: Gauge,
    reload_success: Time,
    registry: Arc<Registry>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// Nothing has happened yet but the start of the daemon, with a configuration that it could
    /// read.
    #[must_use]
    pub fn new(start: Timestamp, webhooks: Arc<Webhooks>) -> Self {
        let probe: fn() -> Histogram = || Histogram::new(PROBE);
        let mut meters = Self {
            heartbeat: Time::default(),
            publications: Family::default(),
            publication: Histogram::new(PUBLICATION),
            probe: Family::new_with_constructor(probe),
            lateness: Histogram::new(LATENESS),
            events: Family::default(),
            reloads: Family::default(),
            reload_successful: Gauge::default(),
            reload_success: Time::default(),
            registry: Arc::default(),
        };
        // What may happen is there before it does: rates of it are zero, and not absent.
        prepare(
            &meters.publications,
            Publication::ALL.map(Publication::label),
        );
        prepare(
            &meters.probe,
            ProbeTarget::KINDS.map(|kind| [("kind", kind)]),
        );
        let kinds = Kind::ALL.iter().map(|kind| [("kind", kind.as_str())]);
        prepare(&meters.events, kinds);
        prepare(&meters.reloads, Reload::ALL.map(Reload::label));
        meters.reload_successful.set(1);
        meters.reload_success.set(seconds(start));
        let mut registry = meters.registry(start);
        registry.register_collector(Box::new(Receivers(webhooks)));
        meters.registry = Arc::new(registry);
        meters
    }

    /// The registry's help texts end in a full stop of its own.
    fn registry(&self, start: Timestamp) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register(
            "build",
            "Version of the daemon",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let started = Time::default();
        started.set(seconds(start));
        registry.register("start_time_seconds", "When the daemon started", started);
        registry.register(
            "heartbeat_timestamp_seconds",
            "When the controller last gave a sign of life; 0: not yet",
            self.heartbeat.clone(),
        );
        registry.register(
            "publications",
            "Publications of answers, and those that were refused",
            self.publications.clone(),
        );
        registry.register(
            "publication_duration_seconds",
            "How long publications took, from the decided answers to both paths answering them",
            self.publication.clone(),
        );
        registry.register(
            "probe_duration_seconds",
            "How long probes took that succeeded, by kind",
            self.probe.clone(),
        );
        registry.register(
            "probe_lateness_seconds",
            "How much later than due probes started",
            self.lateness.clone(),
        );
        registry.register(
            "events",
            "Events, as the journal has them, by kind",
            self.events.clone(),
        );
        registry.register(
            "reloads",
            "Reloads of the configuration, by what became of them",
            self.reloads.clone(),
        );
        registry.register(
            "config_last_reload_successful",
            "0: the last reload was refused; 1: it was applied, or there was none",
            self.reload_successful.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read",
            self.reload_success.clone(),
        );
        registry
    }

    /// The controller lives.
    pub fn beat(&self, at: Timestamp) {
        self.heartbeat.set(seconds(at));
    }

    /// Answers have been published, or refused.
    pub fn publication<T, E>(&self, result: &Result<T, E>, took: Duration) {
        let publication = match result {
            Ok(_) => Publication::Published,
            Err(_) => Publication::Refused,
        };
        self.publications.get_or_create(&publication.label()).inc();
        if result.is_ok() {
            self.publication.observe(took.as_secs_f64());
        }
    }

    /// A probe of this kind ([`ProbeTarget::kind`]) has been executed.
    pub fn probe(&self, kind: &'static str, report: &Report) {
        self.lateness.observe(report.late.as_secs_f64());
        if let Ok(took) = report.outcome {
            let label = [("kind", kind)];
            self.probe.get_or_create(&label).observe(took.as_secs_f64());
        }
    }

    /// Something has happened that the journal is told of.
    pub fn event(&self, kind: Kind) {
        self.events.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    /// The operator has asked for a reload, and that has become of it.
    pub fn reloaded(&self, reload: Reload, at: Timestamp) {
        self.reloads.get_or_create(&reload.label()).inc();
        let successful = reload == Reload::Applied;
        self.reload_successful.set(i64::from(successful));
        if successful {
            self.reload_success.set(seconds(at));
        }
    }

    /// Writes all of it as OpenMetrics.
    pub(super) fn encode(&self, writer: &mut impl fmt::Write) -> fmt::Result {
        encode_registry(writer, &self.registry)
    }
}

fn prepare<M>(family: &Family<Label, M>, labels: impl IntoIterator<Item = Label>) {
    for label in labels {
        drop(family.get_or_create(&label));
    }
}

/// Seconds since 1970.
pub(super) fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
