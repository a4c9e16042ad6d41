//! From results of probes to what the policy may rely on.
//!
//! The [`Outcome`] of each probe goes into that target's [`Machine`], which holds its
//! [`Verdict`] and the [`Pace`] of the probes to come. The verdicts of a server's checks make
//! the server's verdict: [`server_verdict`]. Those of a link's targets
//! and its [`Carrier`] make the link's verdict: [`link_verdict`]. The operator's
//! [`AdminState`] on top makes the [`Effective`] state: [`effective`]; [`Admin`] is that state with
//! who ordered it, why, and for how long.
//!
//! Pure: no sockets, no clock. The machines count probes, not time; how long a verdict
//! takes is decided by whoever schedules the probes.

mod admin;
mod link;
mod machine;
mod outcome;
mod server;
mod state;

pub use admin::{Admin, AdminReason, BadLasting, BadReason, EndlessAuto, Lasting, Order};
pub use link::{Carrier, Targets, link_verdict};
pub use machine::{Flip, Machine, Pace};
pub use outcome::{ExecFailure, Failure, HttpFailure, Outcome, TlsFailure};
pub use server::server_verdict;
pub use state::{AdminState, Effective, UnknownAdminState, Verdict, effective};
