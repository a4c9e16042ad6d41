//! Set-up, lab, demo, tests and benchmark.
fn main() {}
