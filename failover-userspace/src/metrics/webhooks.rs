//! What became of the events for webhooks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::Families;
use crate::protocol::WebhookStats;
use crate::webhook::Webhooks;

/// All receivers together: some may come and go with the configuration.
#[derive(Debug)]
pub(super) struct Receivers(pub(super) Arc<Webhooks>);

impl Collector for Receivers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let sum = |of: fn(&WebhookStats) -> u64| stats.iter().map(of).sum::<u64>();
        let mut families = Families(encoder);
        families.counter(
            "webhooks",
            "Events on their way to webhooks, by what became of them.",
            [
                ("sent", sum(|stats| stats.sent)),
                ("failed", sum(|stats| stats.failed)),
                ("dropped", sum(|stats| stats.dropped)),
            ]
            .map(|(result, count)| ([("result", result)], count)),
        )?;
        families.gauge(
            "webhooks_queued",
            "Events that wait for a webhook.",
            [([], sum(|stats| stats.queued))],
        )
    }
}
