//! Probes: executes the model's health tests and watches links.
//!
//! [`Schedule`] decides when each probe runs, and knows nothing else. The [`Engine`] asks
//! it, executes probes (each kind in a module of its own), and sends a [`Report`] of each to whoever turns
//! results into verdicts. The [`LinkWatcher`] does the same for the carrier of interfaces.
//!
//! ```text
//!                     ┌──────────────── Engine, one task ────────────────┐
//!  Handle::set_pace ─►│ Schedule ─► executions (tcp, http, …; ≤ slots)   │─► Report
//!                     └────────────────────────┬─────────────────────────┘
//!                                              └─► exec: programs, on a thread of its own
//!  rtnetlink ────────► LinkWatcher ─────────────────────────────────► LinkEvent
//! ```
//!
//! A reload adds probes to a running engine and removes others; the rest go on as they were. So
//! the engine calls a probe by a [`ProbeKey`], which outlives the model.
//!
//! Nothing here knows what a result means: no rise, no fall, no verdict.

mod egress;
mod engine;
mod exec;
mod failure;
mod http;
mod icmp;
mod limit;
mod link;
mod schedule;
mod tcp;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
mod tls;

// Webhooks speak HTTP and TLS in the same way.
pub(crate) use http::{AGENT, HEAD_LIMIT, before, failure as http_failure};
pub(crate) use tls::{Clients, connect as tls_connect};

pub use engine::{Engine, Handle, Report, Task};
pub use link::{LinkEvent, LinkWatcher};
pub use schedule::{Begin, Finished, ProbeKey, Schedule, Start};

use crate::health::Failure;
