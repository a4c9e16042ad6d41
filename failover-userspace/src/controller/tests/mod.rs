//! The core as tables of inputs and what follows; the shell with a fake data plane.

mod rules;
mod shell;
