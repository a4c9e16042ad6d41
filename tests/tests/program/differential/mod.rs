//! XDP against the slow path: a large number of generated queries to both, from one snapshot.
//!
//! `data` has the configuration and its zones. `names` knows their names and makes others from
//! them; `queries` puts queries together, with OPT records from `edns`; `snapshot` publishes to
//! both; `tally` counts, and has the table of what XDP promises to answer.

mod edns;
mod names;
mod queries;
mod random;
mod snapshot;
mod tally;

use std::env;
use std::fmt::Write as _;
use std::time::Instant;

use crate::lab::{PASS, TX, privileged};
use crate::packet::check_frame;
use names::Names;
use queries::{Queries, Query};
use snapshot::Both;
use tally::Tally;

/// How many queries are asked unless this variable says another number.
const QUERIES: &str = "FAILOVER_DIFFERENTIAL_QUERIES";
const DEFAULT_QUERIES: u64 = 120_000;
/// What they are made from unless this variable says another number.
const SEED: &str = "FAILOVER_DIFFERENTIAL_SEED";
const DEFAULT_SEED: u64 = 1;
/// How often answers change in the test of that.
const ROUNDS: u64 = 20;
/// It asks one of so many of the queries.
const CHANGING_SHARE: u64 = 5;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |n| n.parse().expect("a number"))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut hex, octet| {
        write!(hex, "{octet:02x}").expect("memory");
        hex
    })
}

/// Says which query it was when a test fails.
struct Asking<'a> {
    number: u64,
    query: &'a Query,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Query { subject, edns, .. } = self.query;
            eprintln!(
                "query {} of {SEED}={}: {subject:?}, EDNS {}\n{}",
                self.number,
                number(SEED, DEFAULT_SEED),
                edns::VARIANTS[*edns].name,
                hex(&self.query.message)
            );
        }
    }
}

/// Asks both: the program passes the packet as it is, or replies with the slow path's octets.
fn compare(both: &Both, query: &Query, tally: &mut Tally) {
    let (verdict, after) = both.lab.run(&query.frame);
    let slow_path = both.slow_path(query);
    match verdict {
        PASS => assert_eq!(hex(&after), hex(&query.frame), "changed"),
        TX => {
            let (_, reply) = check_frame(&query.frame, &after);
            assert!(
                both.is_slow_path(query, reply, slow_path.as_deref()),
                "XDP replies\n{}\nthe slow path\n{}",
                hex(reply),
                slow_path.as_deref().map_or("nothing".to_owned(), hex)
            );
        }
        other => panic!("verdict {other}"),
    }
    tally.add(query, slow_path.as_deref(), verdict == TX);
}

#[test]
fn xdp_passes_or_replies_as_the_slow_path_does() {
    if !privileged() {
        return;
    }
    let start = Instant::now();
    let both = Both::all_up();
    let rng = random::from_seed(number(SEED, DEFAULT_SEED));
    let queries = Queries::new(Names::new(&both.lab.model), rng);
    let mut tally = Tally::default();
    for (number, query) in (0..number(QUERIES, DEFAULT_QUERIES)).zip(queries) {
        let query = &query;
        let _asking = Asking { number, query };
        compare(&both, query, &mut tally);
    }
    println!("{tally}\n{:.1} s", start.elapsed().as_secs_f64());
    tally.assert_is_broad();
    tally.assert_promises();
}

#[test]
fn xdp_and_the_slow_path_change_together() {
    if !privileged() {
        return;
    }
    let mut both = Both::all_up();
    let seed = number(SEED, DEFAULT_SEED);
    let mut states = random::from_seed(!seed);
    let mut queries = Queries::new(Names::new(&both.lab.model), random::from_seed(seed));
    let count = number(QUERIES, DEFAULT_QUERIES) / CHANGING_SHARE / ROUNDS;
    let mut tally = Tally::default();
    let mut changes = 0;
    for round in 0..ROUNDS {
        for (number, query) in (round * count..).zip(queries.by_ref().take(count as usize)) {
            let query = &query;
            let _asking = Asking { number, query };
            compare(&both, query, &mut tally);
        }
        changes += both.toss(&mut states);
    }
    println!("{changes} changes\n{tally}");
    assert!(changes as u64 > ROUNDS, "{changes} changes only");
    tally.assert_promises();
}
