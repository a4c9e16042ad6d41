//! From a [`Sample`] to metrics: which there are, and what they are called.
//!
//! There is a series for each service and each server, never for each name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use failover_common::counters::Counter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::PREFIX;
use super::format::{Sink, Translator};
use super::meters::{Meters, seconds};
use super::sample::{Heard, Sample, ServerSample, ServiceSample, TargetSample, WanSample};
use crate::dataplane::AttachedMode;
use crate::health::{AdminState, Carrier, Failure, Verdict};
use crate::model::{Priority, Probe, ProbeId, ProbeTarget, Server, Service, Site, Wan, WanTarget};

/// Writes a scrape; `None`: the controller did not answer.
pub(super) fn write<S: Sink>(
    meters: &Meters,
    sample: Option<Sample>,
    mut translator: Translator<S>,
) -> fmt::Result {
    meters.encode(&mut translator)?;
    encode(sample, &mut translator)?;
    encode_eof(&mut translator)?;
    translator.finish()
}

fn encode(sample: Option<Sample>, writer: &mut impl fmt::Write) -> fmt::Result {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register(
        "controller_responding",
        "1: the controller has answered this scrape in time; 0: what only it knows is missing",
        ConstGauge::new(i64::from(sample.is_some())),
    );
    if let Some(sample) = sample {
        registry.register_collector(Box::new(sample));
    }
    encode_registry(writer, &registry)
}

/// Metrics one after the other, each with all its series.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

/// The labels of one series.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Families<'_> {
    pub(super) fn gauge<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Gauge,
            series
                .into_iter()
                .map(|(labels, value)| (labels, ConstGauge::new(value))),
        )
    }

    /// `_total` is put to the name.
    pub(super) fn counter<'a, const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Counter,
            series
                .into_iter()
                .map(|(labels, value)| (labels, ConstCounter::new(value))),
        )
    }

    fn family<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl IntoIterator<Item = (Labels<'a, N>, impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, metric) in series {
            if labels.is_empty() {
                return metric.encode(family);
            }
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.daemon(&mut families)?;
        self.of_services(&mut families)?;
        self.of_servers(&mut families)?;
        self.of_wans(&mut families)?;
        self.of_targets(&mut families)?;
        self.probes(&mut families)?;
        self.packets(&mut families)?;
        self.slow_path(&mut families)
    }
}

impl Sample {
    fn daemon(&self, families: &mut Families<'_>) -> fmt::Result {
        let overview = &self.overview;
        families.gauge(
            "generation",
            "Number of the published snapshot of answers; 0: none yet.",
            [([], overview.generation.0)],
        )?;
        let attached = overview.interfaces.iter().flat_map(|(interface, mode)| {
            [
                ("native", Some(AttachedMode::Native)),
                ("generic", Some(AttachedMode::Generic)),
            ]
            .map(|(word, in_mode)| {
                (
                    [("interface", interface.as_str()), ("mode", word)],
                    u32::from(*mode == in_mode),
                )
            })
        });
        families.gauge(
            "interface_attached",
            "1: the XDP program is attached to the interface in this mode.",
            attached,
        )
    }

    fn of_services(&self, families: &mut Families<'_>) -> fmt::Result {
        let services = || {
            let services = self.model.services.iter().zip(&self.services);
            services.map(|(service, sample)| (service_label(service), sample))
        };
        let answers = || services().filter_map(|(label, sample)| Some((label, sample.answer?)));
        families.gauge(
            "service_tier",
            "Tier that is answered: 1 primary, 2 backup, 3 backup2, 4 backup3; 0: none has a \
             candidate.",
            answers().map(|(label, answer)| {
                let tier = answer.tier.map_or(0, |tier| tier as u32 + 1);
                ([label], tier)
            }),
        )?;
        families.gauge(
            "service_all_down",
            "1: no tier has a candidate, and on_all_down decides what is answered.",
            answers().map(|(label, answer)| ([label], u32::from(answer.tier.is_none()))),
        )?;
        families.gauge(
            "service_addresses",
            "Addresses that are answered, IPv4 and IPv6.",
            answers().map(|(label, answer)| ([label], answer.addresses as u64)),
        )?;
        families.counter(
            "service_answers",
            "Answers of the XDP program for the service, by type of the question.",
            services().flat_map(|(label, ServiceSample { hits, .. })| {
                [("A", hits.a), ("AAAA", hits.aaaa)]
                    .map(|(qtype, count)| ([label, ("type", qtype)], count))
            }),
        )
    }

    fn of_servers(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge(
            "server_up",
            "1: the server may be answered, by its checks and the operator.",
            self.servers().map(|([service, name], server, sample)| {
                let priority = ("priority", priority(server));
                let site = ("site", site(server));
                let up = sample.health.effective.is_up();
                ([service, name, priority, site], u32::from(up))
            }),
        )?;
        families.gauge(
            "server_verdict",
            "1: this is what the checks say of the server.",
            self.servers().flat_map(|([service, name], _, sample)| {
                verdicts(sample.health.verdict).map(|(verdict, is)| ([service, name, verdict], is))
            }),
        )?;
        families.gauge(
            "server_admin_state",
            "1: this is what the operator says of the server.",
            self.servers().flat_map(|([service, name], _, sample)| {
                admin_states(sample.health.admin).map(|(state, is)| ([service, name, state], is))
            }),
        )?;
        families.gauge(
            "server_last_probe_timestamp_seconds",
            "When the last result of a check of the server came, of several checks the oldest; 0: \
             none yet. Only of servers that are checked.",
            self.servers()
                .filter_map(|(labels, _, sample)| Some((labels, heard(sample.heard)?))),
        )?;
        families.gauge(
            "server_probe_interval_seconds",
            "Interval of the server's checks, of several the longest; the timeout, where that is \
             longer. Only of servers that are checked.",
            self.servers().filter_map(|(labels, server, sample)| {
                heard(sample.heard)?;
                let intervals = server.probes.iter().map(|probe| self.interval(*probe));
                Some((labels, intervals.max()?.as_secs_f64()))
            }),
        )
    }

    /// Labels, server and sample.
    fn servers(&self) -> impl Iterator<Item = (Labels<'_, 2>, &Server, &ServerSample)> {
        let services = self.model.services.iter();
        let servers = services.flat_map(|service| {
            service.server_ids().map(|id| {
                let server = self.model.server(id);
                ([service_label(service), ("server", &*server.name)], server)
            })
        });
        servers
            .zip(&self.servers)
            .map(|((labels, server), sample)| (labels, server, sample))
    }

    fn of_wans(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge(
            "wan_up",
            "1: the WAN link may be used, by its carrier, its targets and the operator.",
            self.wans()
                .map(|(label, _, wan)| ([label], u32::from(wan.health.effective.is_up()))),
        )?;
        families.gauge(
            "wan_verdict",
            "1: this is what carrier and targets say of the WAN link.",
            self.wans().flat_map(|(label, _, wan)| {
                verdicts(wan.health.verdict).map(|(verdict, is)| ([label, verdict], is))
            }),
        )?;
        families.gauge(
            "wan_admin_state",
            "1: this is what the operator says of the WAN link.",
            self.wans().flat_map(|(label, _, wan)| {
                admin_states(wan.health.admin).map(|(state, is)| ([label, state], is))
            }),
        )?;
        families.gauge(
            "wan_carrier",
            "1: the interface of the WAN link has carrier. Only of links that have an interface.",
            self.wans().filter_map(|(label, model, wan)| {
                let interface = model.interface.as_deref()?;
                let carrier = match wan.carrier? {
                    Carrier::NotWatched => return None,
                    Carrier::Up => 1,
                    Carrier::Down => 0_u32,
                };
                Some(([label, ("interface", interface)], carrier))
            }),
        )?;
        families.gauge(
            "wan_targets_required",
            "Targets of the WAN link that must be up.",
            self.wans()
                .map(|(label, model, _)| ([label], model.min_up as u64)),
        )
    }

    /// Label, link and sample.
    fn wans(&self) -> impl Iterator<Item = ((&'static str, &str), &Wan, &WanSample)> {
        let wans = self.model.wans.iter().zip(&self.overview.wans);
        wans.map(|(wan, sample)| (("wan", &*wan.name), wan, sample))
    }

    fn of_targets(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge(
            "wan_target_up",
            "1: the target of the WAN link answers.",
            self.targets()
                .map(|(labels, _, sample)| (labels, u32::from(sample.verdict == Verdict::Up))),
        )?;
        families.gauge(
            "wan_target_last_probe_timestamp_seconds",
            "When the last result of a probe of the target came; 0: none yet. Only of targets that \
             are probed.",
            self.targets()
                .filter_map(|(labels, _, sample)| Some((labels, heard(sample.heard)?))),
        )?;
        families.gauge(
            "wan_target_probe_interval_seconds",
            "Interval of the probes of the target; their timeout, where that is longer. Only of \
             targets that are probed.",
            self.targets().filter_map(|(labels, target, sample)| {
                heard(sample.heard)?;
                Some((labels, self.interval(target.probe).as_secs_f64()))
            }),
        )
    }

    /// Labels, target and sample.
    fn targets(&self) -> impl Iterator<Item = (Labels<'_, 2>, &WanTarget, &TargetSample)> {
        self.wans().flat_map(|(label, wan, sample)| {
            let targets = wan.targets.iter().zip(&sample.targets);
            targets
                .map(move |(target, sample)| ([label, ("target", &*target.label)], target, sample))
        })
    }

    fn probes(&self, families: &mut Families<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for kind in ProbeTarget::KINDS {
            counts.insert((kind, "success"), 0);
            let failures = Failure::LABELS.into_iter();
            let usual = failures.filter(|label| usually_fails_by(kind, label));
            counts.extend(usual.map(|label| ((kind, label), 0)));
        }
        counts.extend(&self.overview.outcomes);
        families.counter(
            "probes",
            "Probes by kind and outcome: success, or the reason of the failure.",
            counts
                .into_iter()
                .map(|((kind, outcome), count)| ([("kind", kind), ("outcome", outcome)], count)),
        )
    }

    fn packets(&self, families: &mut Families<'_>) -> fmt::Result {
        let counters = &self.overview.counters;
        let counted = |counter: &Counter| counters.get(*counter);
        families.counter(
            "xdp_answers",
            "Queries that the XDP program has answered, by kind of the answer.",
            Counter::ALL.iter().filter_map(|counter| {
                let kind = answer_kind(*counter)?;
                Some(([("kind", kind)], counted(counter)))
            }),
        )?;
        families.counter(
            "xdp_passes",
            "Packets that the XDP program has passed up the stack, by reason; other: no query to \
             our port.",
            Counter::ALL.iter().filter_map(|counter| {
                let reason = counter.name().strip_prefix("passed_")?;
                Some(([("reason", reason)], counted(counter)))
            }),
        )
    }

    fn slow_path(&self, families: &mut Families<'_>) -> fmt::Result {
        let of = |name: &str| {
            let mut counters = self.overview.slow_path.iter();
            counters.find(|(counter, _)| *counter == name)
        };
        let count = |name: &str| of(name).map_or(0, |(_, count)| *count);
        families.counter(
            "slow_path_replies",
            "Replies sent by user space.",
            SLOW_PATH_REPLIES.map(|(transport, name)| ([("transport", transport)], count(name))),
        )?;
        for (name, metric, help) in SLOW_PATH {
            families.counter(metric, help, [([], count(name))])?;
        }
        Ok(())
    }

    /// Between two results of a probe there is no more than twice that.
    fn interval(&self, probe: ProbeId) -> Duration {
        let Probe { timing, .. } = self.model.probe(probe);
        timing.interval.max(timing.timeout)
    }
}

/// Transport, and the name of its counter.
const SLOW_PATH_REPLIES: [(&str, &str); 2] = [("udp", "udp_replies"), ("tcp", "tcp_replies")];

/// The other counters of user space: name, metric, help.
const SLOW_PATH: [(&str, &str, &str); 4] = [
    (
        "ignored",
        "slow_path_ignored_messages",
        "Messages to user space that got no reply.",
    ),
    (
        "connections",
        "slow_path_connections",
        "TCP connections accepted by user space.",
    ),
    (
        "evicted",
        "slow_path_evicted_connections",
        "TCP connections closed by user space to make room for others.",
    ),
    (
        "transfers",
        "slow_path_transfers",
        "Whole zones sent by user space.",
    ),
];

fn service_label(service: &Service) -> (&'static str, &str) {
    ("service", &service.name)
}

const fn priority(server: &Server) -> &'static str {
    match server.priority {
        Priority::Disabled => "disabled",
        Priority::Tier(tier) => tier.as_str(),
    }
}

const fn site(server: &Server) -> &'static str {
    match server.site {
        Site::Onsite => "onsite",
        Site::Offsite => "offsite",
    }
}

/// Each verdict, and whether it is this one.
fn verdicts(verdict: Verdict) -> [((&'static str, &'static str), u32); 3] {
    [Verdict::Up, Verdict::Down, Verdict::Unknown]
        .map(|each| (("verdict", each.as_str()), u32::from(each == verdict)))
}

/// Each admin state, and whether it is this one.
fn admin_states(state: AdminState) -> [((&'static str, &'static str), u32); 5] {
    AdminState::ALL.map(|each| (("state", each.as_str()), u32::from(each == state)))
}

/// Seconds since 1970, 0 for never; `None`: not checked.
fn heard(heard: Heard) -> Option<f64> {
    match heard {
        Heard::NotChecked => None,
        Heard::Never => Some(0.0),
        Heard::At(time) => Some(seconds(time)),
    }
}

/// Whether probes of that kind ([`ProbeTarget::kind`]) fail for that reason
/// ([`Failure::label`]) in the way of things; such counters are there before it happens.
fn usually_fails_by(kind: &str, label: &str) -> bool {
    let network = matches!(label, "refused" | "reset" | "unreachable");
    let http = matches!(label, "connect_timeout" | "response_timeout");
    label == "local"
        || match kind {
            "exec" => label.starts_with("exec_"),
            "http" => network || http || label.starts_with("http_"),
            "https" => network || http || label.starts_with("http_") || label.starts_with("tls_"),
            _ => network || label == "timeout",
        }
}

/// The kind of answer that a counter counts; `None`: it counts something else.
fn answer_kind(counter: Counter) -> Option<&'static str> {
    match counter {
        Counter::Answered => Some("addresses"),
        counter => counter.name().strip_prefix("answered_"),
    }
}

#[cfg(test)]
mod tests;
