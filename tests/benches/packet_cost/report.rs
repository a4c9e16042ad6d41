//! Figures, as a table and as JSON.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::Effort;
use crate::cases::Case;
use crate::programs::{Program, ProgramInfo};

/// A case's figures, round by round.
pub(crate) struct Measured {
    case: String,
    names: usize,
    /// By the order of [`Program::ALL`]; in nanoseconds.
    rounds: Vec<[Option<f64>; Program::ALL.len()]>,
    current: [Option<f64>; Program::ALL.len()],
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(case: &Case) -> Self {
        Self {
            case: case.name.clone(),
            names: case.set.names,
            rounds: vec![],
            current: Default::default(),
        }
    }

    /// Notes the cost of a program in this round.
    pub(crate) fn add(&mut self, program: Program, ns: f64) {
        self.current[program as usize] = Some(ns);
    }

    /// The next figures belong to the next round.
    pub(crate) fn end_round(&mut self) {
        self.rounds.push(std::mem::take(&mut self.current));
    }

    fn ns(&self, program: Program) -> Option<Quartiles> {
        self.over(|round| round[program as usize])
    }

    /// What a program costs beyond the empty one.
    fn net(&self, program: Program) -> Option<Quartiles> {
        self.over(|round| net(round, program))
    }

    /// Our cost by another program's.
    fn ratio(&self, program: Program) -> Option<Quartiles> {
        self.over(|round| Some(net(round, Program::Failover)? / net(round, program)?))
    }

    fn over(
        &self,
        figure: impl Fn(&[Option<f64>; Program::ALL.len()]) -> Option<f64>,
    ) -> Option<Quartiles> {
        Quartiles::of(self.rounds.iter().filter_map(figure).collect())
    }
}

fn net(round: &[Option<f64>; Program::ALL.len()], program: Program) -> Option<f64> {
    Some(round[program as usize]? - round[Program::Empty as usize]?)
}

/// Median and middle half of some figures.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Quartiles {
    median: f64,
    p25: f64,
    p75: f64,
}

impl Quartiles {
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)?;
        Some(Self {
            median: figures[last / 2],
            p25: figures[last / 4],
            p75: figures[last - last / 4],
        })
    }
}

/// All of it.
pub(crate) struct Report {
    effort: Effort,
    machine: Machine,
    program: ProgramInfo,
    measured: Vec<Measured>,
    left_out: Vec<String>,
}

impl Report {
    /// Adds the machine we are on.
    pub(crate) fn new(
        effort: Effort,
        program: ProgramInfo,
        measured: Vec<Measured>,
        left_out: Vec<String>,
    ) -> Self {
        Self {
            effort,
            machine: Machine::here(),
            program,
            measured,
            left_out,
        }
    }

    /// Writes the figures to a file, and makes its directory.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let cases: Vec<Value> = self
            .measured
            .iter()
            .map(|m| {
                let by_program = |figure: &dyn Fn(Program) -> Option<Quartiles>| -> Value {
                    Program::ALL
                        .iter()
                        .filter_map(|p| Some((p.name().to_owned(), json!(figure(*p)?))))
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                };
                json!({
                    "case": m.case,
                    "names": m.names,
                    "ns": by_program(&|p| m.ns(p)),
                    "ns_over_empty": by_program(&|p| m.net(p)),
                    "failover_by": by_program(&|p| match p {
                        Program::Bare | Program::Grow | Program::Textbook => m.ratio(p),
                        Program::Empty | Program::Failover => None,
                    }),
                })
            })
            .collect();
        let report = json!({
            "machine": { "cpu": self.machine.cpu, "cpus": self.machine.cpus, "kernel": self.machine.kernel },
            "rounds": self.effort.rounds,
            "packets_per_round": self.effort.packets,
            "program": self.program,
            "cases": cases,
            "left_out": self.left_out,
        });
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cpus, kernel } = &self.machine;
        let Effort {
            rounds, packets, ..
        } = self.effort;
        writeln!(f, "Cost per packet, {cpu}, {cpus} CPUs, Linux {kernel}")?;
        writeln!(
            f,
            "ns of CPU time per packet, median of {rounds} rounds of {packets} packets; `by x` = \
             (failover − empty) / (x − empty), ± half the spread of the middle half\n"
        )?;
        writeln!(
            f,
            "| {:<22} | {:>9} | {:>5} | {:>5} | {:>5} | {:>8} | {:>8} | {:>11} | {:>11} | {:>11} | {:>11} |",
            "case",
            "names",
            "empty",
            "bare",
            "grow",
            "textbook",
            "failover",
            "over empty",
            "by bare",
            "by grow",
            "by textbook"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for m in &self.measured {
            let ns = |program| {
                m.ns(program)
                    .map_or_else(dash, |q| format!("{:.0}", q.median))
            };
            writeln!(
                f,
                "| {:<22} | {:>9} | {:>5} | {:>5} | {:>5} | {:>8} | {:>8} | {:>11} | {:>11} | {:>11} | {:>11} |",
                m.case,
                m.names,
                ns(Program::Empty),
                ns(Program::Bare),
                ns(Program::Grow),
                ns(Program::Textbook),
                ns(Program::Failover),
                spread(m.net(Program::Failover), 1),
                spread(m.ratio(Program::Bare), 2),
                spread(m.ratio(Program::Grow), 2),
                spread(m.ratio(Program::Textbook), 2),
            )?;
        }
        writeln!(
            f,
            "\n– : the textbook program answers A over untagged IPv4 only and minds upper and lower \
             case; where the answer is XDP_PASS there is nothing to compare"
        )?;
        for what in &self.left_out {
            writeln!(f, "left out: {what}")?;
        }
        let verified = self.program.verified_instructions.map_or_else(
            || "(unknown to this kernel)".to_owned(),
            |count| format!("{count} of 1000000"),
        );
        writeln!(
            f,
            "failover: {verified} instructions verified, {} octets of machine code",
            self.program.jited_octets
        )
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn spread(quartiles: Option<Quartiles>, digits: usize) -> String {
    quartiles.map_or_else(dash, |q| {
        format!("{:.digits$} ± {:.digits$}", q.median, (q.p75 - q.p25) / 2.0)
    })
}

struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
}

impl Machine {
    fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.to_owned());
        Self {
            cpu,
            // Not what this thread may use: it stays on one.
            cpus: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// `bench/packet_cost.json` where cargo puts what it builds: we are `TARGET/PROFILE/deps/BENCH`.
pub(crate) fn default_path() -> PathBuf {
    let own = std::env::current_exe().ok();
    own.as_deref()
        .and_then(|own| own.ancestors().nth(3))
        .unwrap_or(Path::new("target"))
        .join("bench/packet_cost.json")
}
