//! The one owner of all state: verdicts, admin states, answers, and the data plane.
//!
//! ```text
//!   probe reports ─┐            ┌─────────┐  Command   ┌───────┐──► data plane (Publish)
//!   link events ───┼─► Input ──►│  Core   ├───────────►│ shell │──► paces of probes
//!   admin states ──┘            │ (pure)  │            │       │──► log, journal, state file
//!                               └────▲────┘            └───▲───┘
//!                                    └────── Query ────────┘ status, explain, stats, detach
//! ```
//!
//! The [`Core`] holds the rules and no I/O: inputs go in, time is an argument, and
//! [`Core::settle`] says what is to be done. All inputs that wait are taken in before
//! anything is published, so that whatever changes together is published together. Only
//! what depends on an input is looked at again.
//!
//! The [`Controller`] is the shell: one task that waits, feeds the core, and does what it
//! says. Everybody else sends it a [`Query`].

mod core;
mod event;
mod sample;
mod shell;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;

pub use self::core::{Command, Core, Input, Now, Subject};
pub use event::Event;
pub use sample::MetricsPart;
pub use shell::{Controller, Ended, Inputs, Publish, Query, Setup};
pub use view::{Part, StatsPart};
