//! DNS server failover: the daemon behind the `failover` command.
//!
//! Follow the data: [`config`] reads TOML and zone files into a [`model`]; [`probe`]
//! executes the model's health tests and watches links; [`health`] turns results into
//! verdicts; [`policy`] decides from verdicts who is answered; [`wire`] turns that into
//! ready-made answers; [`dataplane`] publishes them to the XDP program, atomically. What
//! that passes up, [`authority`] answers from the same snapshot, over the sockets of
//! [`listen`]; [`notify`] tells secondaries to fetch it; [`answering`] publishes to both.
//! [`controller`] owns all state and drives the chain; [`state`] is what outlives a restart, and
//! so does the [`journal`] of events, of which [`webhook`] tells others; [`control`] is the unix
//! socket behind `failover status` and the other commands in [`cli`], in the words of
//! [`protocol`]; [`rights`] says who may use it for what; [`metrics`] is what
//! Prometheus gets. [`privileges`] gives up what the daemon does
//! not need.
//!
//! `health`, `policy`, `wire` and `authority` are pure: no sockets, no clock, no async, no aya.

pub mod answering;
pub mod authority;
pub mod cli;
pub mod config;
pub mod control;
pub mod controller;
pub mod dataplane;
pub mod forward;
pub mod health;
pub mod journal;
pub mod listen;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod policy;
pub mod privileges;
pub mod probe;
pub mod protocol;
pub mod rights;
pub mod state;
pub mod webhook;
pub mod wire;
