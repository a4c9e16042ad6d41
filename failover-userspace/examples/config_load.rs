//! How long a configuration of a million names takes to load: all in one service, then in a
//! service each. `cargo run --release -p failover-userspace --example config_load`

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use failover::config;

const NAMES: usize = 1_000_000;
const REFERENCE: &str = include_str!("../../examples/reference.toml");
const ZONE: &str = include_str!("../../examples/example.com.zone");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut names = String::new();
    let mut services = String::new();
    for n in 0..NAMES {
        writeln!(names, "\"n{n}.example.com\",")?;
        writeln!(
            services,
            "[[service]]\nname = \"s{n}\"\nfqdn = [\"n{n}.example.com\"]\nport = 80\n\
             [[service.server]]\nname = \"a\"\naddress = \"192.0.2.1\"\noffsite = true"
        )?;
    }
    load(
        "one service",
        &REFERENCE.replace("\"www.example.com\"", &names),
    )?;
    load("a service each", &format!("{REFERENCE}\n{services}"))
}

fn load(what: &str, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("failover.toml");
    fs::write(&file, text)?;
    fs::write(dir.path().join("example.com.zone"), ZONE)?;
    let start = Instant::now();
    let model = config::load(&file)?.model;
    let names: usize = model.services.iter().map(|s| s.fqdn.len()).sum();
    println!("{what}: {names} names in {:?}", start.elapsed());
    Ok(())
}
