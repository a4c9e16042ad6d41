//! The core as tables of inputs and what follows; the shell with a fake data plane.

mod events;
mod forward;
mod reload;
mod rules;
mod set;
mod shell;
mod succession;
