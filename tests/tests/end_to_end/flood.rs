//! A flood of queries for names that do not exist.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use failover_tests::lab::topology::NS1;
use failover_tests::lab::{Config, Host};
use failover_tests::{command, privileged};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;

use crate::load::{field, number};
use crate::site::Site;

/// How many names are asked for, each once per flood: four seconds of what dnsperf may send.
const NAMES: u64 = 200_000;
/// The daemon may use one part in so many of a CPU: it has its probes to make.
const CPU_SHARE: u32 = 10;
/// One query in so many may reach user space: the driver may have had no room for the reply.
const PASSED_SHARE: u64 = 1000;
/// What the names lie under: the zone, and names in it that exist.
const PARENTS: [&str; 4] = [
    "example.com",
    "example.com",
    "www.example.com",
    "mail.example.com",
];
const TYPES: [&str; 4] = ["A", "AAAA", "MX", "TXT"];

/// Floods by what the queries carry, as options of dnsperf.
const FLOODS: [(&str, &[&str]); 3] = [
    ("without EDNS", &[]),
    ("with EDNS", &["-e"]),
    ("with cookies", &["-e", "-E", "10:0011223344556677"]),
];

#[test]
fn random_names_do_not_reach_user_space() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    let queries = site.lab.dir().join("random.txt");
    fs::write(&queries, random_queries())?;
    for (what, options) in FLOODS {
        flood(&mut site, &queries, what, options)?;
    }
    Ok(())
}

/// Sends every query once.
fn flood(site: &mut Site, queries: &Path, what: &str, options: &[&str]) -> Result<()> {
    let mut dnsperf = command::command("dnsperf");
    dnsperf
        .args(["-s", &NS1.to_string(), "-n", "1", "-c", "4"])
        .args(["-Q", "50000", "-d"])
        .arg(queries)
        .args(options);

    let (before, cpu_before) = (Seen::now(site)?, site.daemon.cpu_time()?);
    let start = Instant::now();
    let report = site.lab.netns(Host::Client).output(&mut dnsperf)?;
    let took = start.elapsed();
    let (after, cpu_after) = (Seen::now(site)?, site.daemon.cpu_time()?);

    let denied = after.answered_nxdomain - before.answered_nxdomain;
    let passed = after.slow_path - before.slow_path;
    let cpu = cpu_after - cpu_before;
    println!(
        "{what}: {} names a second; answered_nxdomain +{denied}, slow_path +{passed}; CPU of the \
         daemon {cpu:?} in {took:.2?}",
        field(&report, "Queries per second:")?
    );
    assert_eq!(number(&report, "Queries sent:")?, NAMES, "{report}");
    assert_eq!(number(&report, "Queries completed:")?, NAMES, "{report}");
    assert_eq!(number(&report, "Queries lost:")?, 0, "{report}");
    let codes = field(&report, "Response codes:")?;
    assert_eq!(codes, format!("NXDOMAIN {NAMES} (100.00%)"), "{report}");
    assert!(passed <= NAMES / PASSED_SHARE);
    assert_eq!(denied + passed, NAMES);
    assert!(cpu <= took / CPU_SHARE);
    Ok(())
}

/// Who has answered how much.
struct Seen {
    /// NXDOMAIN by XDP.
    answered_nxdomain: u64,
    /// Anything by user space.
    slow_path: u64,
}

impl Seen {
    fn now(site: &Site) -> Result<Self> {
        let stats = site.daemon.query(&["stats", "--json"])?;
        let stats: Value = serde_json::from_str(&stats)?;
        let answered_nxdomain = stats["counters"]["answered_nxdomain"].as_u64();
        Ok(Self {
            answered_nxdomain: answered_nxdomain.context("no answered_nxdomain")?,
            slow_path: site.daemon.status()?.counters.slow_path,
        })
    }
}

/// Queries for different names without records, at many depths; the same in each run.
fn random_queries() -> String {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[0; 32]);
    let mut queries = String::new();
    for number in 0..NAMES {
        // Most are short, some have dozens of labels.
        let labels = match rng.random_range(0..10) {
            0..6 => 1,
            6..9 => rng.random_range(2..6),
            _ => rng.random_range(6..25),
        };
        for _ in 1..labels {
            write!(queries, "{:x}.", rng.random::<u16>()).expect("a String takes everything");
        }
        let parent = PARENTS[rng.random_range(0..PARENTS.len())];
        let qtype = TYPES[rng.random_range(0..TYPES.len())];
        writeln!(
            queries,
            "{:x}-{number}.{parent} {qtype}",
            rng.random::<u32>()
        )
        .expect("a String takes everything");
    }
    queries
}
