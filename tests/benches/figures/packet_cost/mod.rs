//! Cost per packet: our XDP program against the least a responder can do, and against what
//! an ordinary XDP DNS server does, in the same run.
//!
//! The programs compared with are in `failover-ebpf/src/bench.rs`:
//!
//! | program | what it does |
//! |---|---|
//! | *empty* | nothing: the cost of the measurement itself, subtracted from all others |
//! | *bare* | addresses and ports swapped, transmitted |
//! | *grow* | *bare*, and the packet grows by 64 octets |
//! | *textbook* | name copied octet by octet into a 260-octet key, one hash look-up, one A record and OPT, UDP checksum zero |
//! | *failover* | ours: the full answer, true checksums |
//!
//! How a figure comes about: the program handles some 100 000 packets in one
//! `BPF_PROG_TEST_RUN`, each a query put there afresh by a wrapper program; the CPU time of
//! the thread is divided by the packets. All programs take turns, case by case, round by
//! round, in an order that rotates. A ratio is (ours − empty) / (other − empty) of one round;
//! the table has the median over the rounds, and how far the middle half of them strays.
//! After a part of the rounds everything is loaded anew: the same program costs a tenth more or
//! less at other places in memory, and a million names a third.
//! Before a case is timed, every program's replies to all its queries are looked at; after
//! each measurement, our program's counters must say that it answered every packet.

mod cases;
pub(crate) mod frame;
mod names;
pub(crate) mod programs;
mod report;

use anyhow::{Context as _, Result, ensure};
use failover_tests::figures::Table;

use crate::Context;
use cases::{Case, Expect, Sets};
use programs::{Bench, Program};
use report::Measured;

/// Replies of one program that are looked at in one case.
const MOST_VERIFIED: usize = 2048;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// How often everything is loaded.
    loads: usize,
    /// Rounds with each load.
    rounds: usize,
    /// Packets of one measurement.
    packets: u32,
    /// Largest table of names.
    most_names: usize,
}

impl Effort {
    const FULL: Self = Self {
        loads: 3,
        rounds: 5,
        packets: 200_000,
        most_names: 1_000_000,
    };
    const QUICK: Self = Self {
        loads: 1,
        rounds: 7,
        packets: 50_000,
        most_names: 1_000,
    };

    const fn total_rounds(self) -> usize {
        self.loads * self.rounds
    }
}

/// Measures all cases.
pub(crate) fn run(context: &Context) -> Result<Vec<Table>> {
    // On a thread of its own, which stays on one processor.
    std::thread::scope(|scope| scope.spawn(|| measure_all(context)).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map(|table| vec![table])
}

fn measure_all(context: &Context) -> Result<Table> {
    ensure!(
        std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")
            .is_ok_and(|value| value.trim() == "0"),
        "kernel.bpf_stats_enabled is on and would be measured too: sysctl kernel.bpf_stats_enabled=0"
    );
    programs::stay_on_one_cpu()?;
    let effort = if context.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let cases: Vec<Case> = cases::all(effort.most_names)
        .into_iter()
        .filter(|case| {
            context
                .case
                .as_ref()
                .is_none_or(|text| case.name.contains(text))
        })
        .collect();
    ensure!(!cases.is_empty(), "no such case");
    let most_queries = cases.iter().map(|case| case.queries.len()).max();
    let mut measured: Vec<Measured> = cases.iter().map(Measured::new).collect();
    let mut programs = None;
    for load in 0..effort.loads {
        let mut sets = Sets::load(&cases, |set| {
            let (names, len) = (set.names, set.len);
            context.progress(&format!("loading {names} × {len} octets"));
        })?;
        let mut bench = Bench::load(most_queries.unwrap_or(0))?;
        for case in &cases {
            verify(&mut bench, &mut sets, case).with_context(|| case.name.clone())?;
        }
        for round in load * effort.rounds..(load + 1) * effort.rounds {
            let total = effort.total_rounds();
            context.progress(&format!("round {} of {total}", round + 1));
            for offset in 0..cases.len() {
                let index = (round + offset) % cases.len();
                measure(
                    &mut bench,
                    &mut sets,
                    &cases[index],
                    round,
                    effort.packets,
                    &mut measured[index],
                )
                .with_context(|| cases[index].name.clone())?;
            }
        }
        programs = Some(sets.program_info()?);
    }
    let mut table = report::table(effort, programs.context("one load")?, &measured);
    if context.quick {
        table.leave_out(format!(
            "tables of more than {} names: --quick",
            effort.most_names
        ));
    }
    Ok(table)
}

/// Every program's reply to every query of a case, or to some of very many.
fn verify(bench: &mut Bench, sets: &mut Sets, case: &Case) -> Result<()> {
    let set = sets.of(case);
    bench.ask(&case.queries)?;
    for program in Program::ALL {
        let Some(expect) = case.expect(program) else {
            continue;
        };
        bench.put_under_test(program, set)?;
        let step = case.queries.len().div_ceil(MOST_VERIFIED);
        for (index, query) in case.queries.iter().enumerate().step_by(step) {
            let (verdict, reply) = bench.one(index, query)?;
            expect
                .check(query, verdict, &reply)
                .with_context(|| format!("{program}, query {index}"))?;
        }
    }
    Ok(())
}

/// One round of a case: all programs, one after the other.
fn measure(
    bench: &mut Bench,
    sets: &mut Sets,
    case: &Case,
    round: usize,
    packets: u32,
    measured: &mut Measured,
) -> Result<()> {
    let set = sets.of(case);
    bench.ask(&case.queries)?;
    for offset in 0..Program::ALL.len() {
        let program = Program::ALL[(round + offset) % Program::ALL.len()];
        let Some(expect) = case.expect(program) else {
            continue;
        };
        bench.put_under_test(program, set)?;
        let before = set.plane.counters()?;
        let (verdict, ns) = bench.many(packets)?;
        ensure!(
            verdict == expect.verdict(),
            "{program} returned {verdict} at last"
        );
        if program == Program::Failover {
            let after = set.plane.counters()?;
            let count = |c: &failover_common::counters::Counters| match expect {
                Expect::Pass => c.total_passed(),
                Expect::Swapped | Expect::Answers(_) => c.total_answered(),
            };
            ensure!(
                count(&after) - count(&before) == u64::from(packets),
                "not every packet had the same fate"
            );
        }
        measured.add(program, ns);
    }
    measured.end_round();
    Ok(())
}
