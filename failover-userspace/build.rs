//! Builds the XDP program.
fn main() {}
