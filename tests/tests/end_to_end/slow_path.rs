//! What XDP passes, the daemon's own sockets answer; without XDP they answer everything.

use anyhow::{Result, ensure};
use failover_tests::lab::Config;
use failover_tests::lab::topology::{NS1, NS1_V6, NS2};
use failover_tests::privileged;

use crate::site::Site;

/// Options of dig; status, flags, and the sizes of answer and authority section.
type Row = (
    &'static [&'static str],
    &'static str,
    &'static str,
    usize,
    usize,
);

/// Queries that XDP answers.
const ANSWERED: &[Row] = &[
    (&["www.example.com", "A"], "NOERROR", "qr aa rd", 2, 2),
    (
        &["www.example.com", "A", "+nocookie"],
        "NOERROR",
        "qr aa rd",
        2,
        2,
    ),
    (&["www.example.com", "TXT"], "NOERROR", "qr aa rd", 0, 1),
    (&["www.example.com", "HTTPS"], "NOERROR", "qr aa rd", 0, 1),
    (&["example.com", "NS"], "NOERROR", "qr aa rd", 2, 0),
    (&["ns1.example.com", "A"], "NOERROR", "qr aa rd", 1, 2),
    (&["nobody.example.com", "A"], "NXDOMAIN", "qr aa rd", 0, 1),
    (
        &["a.b.c.nobody.example.com", "MX"],
        "NXDOMAIN",
        "qr aa rd",
        0,
        1,
    ),
];

/// Queries that XDP passes.
const PASSED: &[Row] = &[
    // Its serial number grows with every change.
    (&["example.com", "SOA"], "NOERROR", "qr aa rd", 1, 2),
    (
        &["www.example.com", "ANY", "+notcp"],
        "NOERROR",
        "qr aa rd",
        2,
        2,
    ),
    (
        &["www.example.com", "A", "+tcp"],
        "NOERROR",
        "qr aa rd",
        2,
        2,
    ),
    (&["example.org", "A"], "REFUSED", "qr rd", 0, 0),
    (
        &["www.example.com", "A", "+edns=1", "+noednsneg"],
        "BADVERS",
        "qr rd",
        0,
        0,
    ),
];

fn check(site: &Site, (args, status, flags, answer, authority): &Row) -> Result<()> {
    for server in [NS1, NS2, NS1_V6] {
        let dig = site.dig(server, args)?;
        let found = (dig.answer.len(), dig.authority.len());
        ensure!(
            dig.status == *status && dig.flags == *flags && found == (*answer, *authority),
            "{args:?} at {server}: {dig:?}"
        );
    }
    Ok(())
}

#[test]
fn what_xdp_passes_is_answered() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut site = Site::start("native", &Config::default())?;
    for row in ANSWERED {
        site.answered_by_xdp(3, |site| check(site, row))?;
    }
    let before = site.daemon.status()?.counters;
    for row in PASSED {
        check(&site, row)?;
    }
    let after = site.daemon.status()?.counters;
    ensure!(after.answered == before.answered, "{before:?} {after:?}");
    ensure!(
        after.slow_path - before.slow_path == 3 * PASSED.len() as u64,
        "{before:?} {after:?}"
    );
    Ok(())
}

#[test]
fn without_xdp_user_space_answers_everything() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let site = Site::start("off", &Config::default())?;
    ensure!(site.programs()?.is_empty());
    for row in ANSWERED.iter().chain(PASSED) {
        check(&site, row)?;
    }
    let counters = site.daemon.status()?.counters;
    ensure!(counters.answered == 0, "{counters:?}");
    Ok(())
}
