//! The one owner of all state: verdicts, admin states, answers, and the data plane.
//!
//! ```text
//!   probe reports ─┐            ┌─────────┐  Command   ┌───────┐──► data plane (Publish)
//!   link events ───┼─► Input ──►│  Core   ├───────────►│ shell │──► paces of probes
//!   admin states ──┘            │ (pure)  │            │       │──► log, journal, state file
//!                               └────▲────┘            └───▲───┘
//!                                    └────── Query ────────┘ status, set, reload …
//! ```
//!
//! The [`Core`] holds the rules and no I/O: inputs go in, time is an argument, and
//! [`Core::settle`] says what is to be done. All inputs that wait are taken in before
//! anything is published, so that whatever changes together is published together. Only
//! what depends on an input is looked at again.
//!
//! The [`Controller`] is the shell: one task that waits, feeds the core, and does what it
//! says. Everybody else sends it a [`Query`].
//!
//! A reload makes another core for another model: `reload` is the way there, during which
//! this one does its work as always, and `numbers` keeps track of the probes.

mod admin;
mod core;
mod event;
mod numbers;
mod ports;
mod reload;
mod sample;
mod set;
mod shell;
mod target;
mod telling;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;

pub use self::core::{Command, Core, Input, Now, Subject};
pub use event::{AdminEvent, Event};
pub use ports::{
    Asked, Basis, Candidate, Handover, Inputs, Load, Loaded, Others, Publish, Query, Reload,
    Sources, Switched, WhenBusy,
};
pub use sample::MetricsPart;
pub use set::{Set, SetReply};
pub use shell::{Controller, Ended, Setup};
pub use target::UnknownTargets;
pub use view::{Part, StatsPart};
