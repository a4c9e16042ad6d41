//! Figures of all rounds, and the table of them.

use failover_tests::charts::{Bar, Chart, Scale};
use failover_tests::figures::{Cell, Quartiles, Table};

use super::Effort;
use super::cases::{Case, MANY};
use super::programs::{Program, ProgramInfo};

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

/// The cost over the empty program, of the main cases with the fewest and with the most names.
fn chart(effort: Effort, measured: &[Measured]) -> Chart {
    let many = format!("A, EDNS, {MANY} of them");
    let main = [
        "A, EDNS",
        &many,
        "AAAA, EDNS",
        "A, cookie",
        "NODATA",
        "NXDOMAIN",
    ];
    let is_shown =
        |m: &Measured| main.contains(&m.case.as_str()) && [1, effort.most_names].contains(&m.names);
    let rows = measured.iter().enumerate().filter(|(_, m)| is_shown(m));
    let (rounds, packets) = (effort.total_rounds(), effort.packets);
    Chart {
        name: "packet-cost".to_owned(),
        title: "Cost per packet".to_owned(),
        subtitle: format!(
            "CPU time that a program takes more than the empty one, median of {rounds} rounds of \
             {packets} packets; less is better. bare: addresses and ports swapped; grow: and 64 \
             octets longer; textbook: an ordinary XDP DNS server, one A record; failover: 2 A, \
             2 NS, 2 glue records. –: the program cannot do this."
        ),
        section: Some("names loaded: {names}".into()),
        label: "{case}".into(),
        bars: vec![
            Bar::new("bare over empty", "bare"),
            Bar::new("grow over empty", "grow"),
            Bar::new("textbook over empty", "textbook"),
            Bar::new("over empty", "failover"),
        ],
        unit: "ns".to_owned(),
        scale: Scale::Linear,
        rows: Some(rows.map(|(row, _)| row).collect()),
        emphasis: Some("failover".to_owned()),
    }
}

/// All of it as a table.
pub(crate) fn table(effort: Effort, programs: [ProgramInfo; 2], measured: &[Measured]) -> Table {
    let (rounds, packets) = (effort.total_rounds(), effort.packets);
    let mut table = Table::new(
        format!("Cost per packet: ns of CPU time, median of {rounds} rounds of {packets} packets"),
        &[
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
            "by textbook",
        ],
    )
    .with_unprinted(&["bare over empty", "grow over empty", "textbook over empty"]);
    for m in measured {
        let ns = |program| Cell::median(m.ns(program), 0);
        table.row([
            Cell::text(m.case.clone()),
            Cell::count(m.names as u64),
            ns(Program::Empty),
            ns(Program::Bare),
            ns(Program::Grow),
            ns(Program::Textbook),
            ns(Program::Failover),
            Cell::spread(m.net(Program::Failover), 1),
            Cell::spread(m.ratio(Program::Bare), 2),
            Cell::spread(m.ratio(Program::Grow), 2),
            Cell::spread(m.ratio(Program::Textbook), 2),
            Cell::median(m.net(Program::Bare), 1),
            Cell::median(m.net(Program::Grow), 1),
            Cell::median(m.net(Program::Textbook), 1),
        ]);
    }
    table.chart(chart(effort, measured));
    table.note(
        "by x: (failover − empty) / (x − empty) of the same round. ±: half the spread of the \
         middle half.",
    );
    if effort.loads > 1 {
        table.note(format!(
            "Everything is loaded {} times, for {} rounds each: where programs and maps come to \
             lie makes a difference.",
            effort.loads, effort.rounds
        ));
    }
    table.note(
        "–: the textbook program answers A over untagged IPv4 only and minds upper and lower \
         case; where the answer is XDP_PASS there is nothing to compare.",
    );
    for program in programs {
        let verified = program.verified_instructions.map_or_else(
            || "(unknown to this kernel)".to_owned(),
            |count| format!("{count} of 1000000"),
        );
        table.note(format!(
            "{}: {verified} instructions verified, {} octets of machine code.",
            program.name, program.jited_octets
        ));
    }
    table
}
