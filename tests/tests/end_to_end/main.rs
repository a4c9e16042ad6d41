//! The daemon in the lab, with real programs: `dig`, `dnsperf`, `ip`, `bpftool`.
//!
//! Whatever takes time is waited for; the bounds only end a test that has failed anyway.

mod checks;
mod commands;
mod conformance;
mod dig;
mod events;
mod failover;
mod flood;
mod forward;
mod hostile_tcp;
mod interface;
mod load;
mod maps;
mod metrics;
mod reference;
mod reload;
mod restart;
mod service_manager;
mod set;
mod site;
mod slow_path;
mod transcripts;
mod transfer;
