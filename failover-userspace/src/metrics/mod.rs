//! `/metrics`, for Prometheus.
//!
//! ```text
//!   controller ──count──► Meters ────────────┐
//!       ▲  │                                 ├─► OpenMetrics ─► Translator ─► client
//!       │  └─part, part, …─► Sample ─────────┘   (library)      (pieces)      (HTTP)
//!       └────Query::Metrics───┘
//! ```
//!
//! [`Meters`] count what happens where it happens, and can always be read. What only the
//! controller knows it is asked for, in parts, so that a scrape of many services does not keep it
//! from its work; if it does not answer, the scrape says so, and has the meters all the same:
//! with them the age of its last sign of life.
//!
//! Text leaves as it is made, a piece at a time; a client that does not read it is cut off.

mod encode;
mod format;
mod meters;
mod sample;
mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod webhooks;

pub use meters::{Meters, Reload};
pub use sample::{
    AnswerSample, Health, Heard, Overview, ServerSample, ServiceSample, TargetSample, WanSample,
};
pub use server::{Server, serve};

/// What all metrics begin with.
const PREFIX: &str = "failover";
