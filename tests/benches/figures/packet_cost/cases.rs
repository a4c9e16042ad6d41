//! What is asked, and what must come of it.

use anyhow::{Context as _, Result, ensure};
use failover::dataplane::DataPlane;

use super::frame::{Frame, Question};
use super::names::{NameSet, SHORT, ZONE};
use super::programs::{PASS, Program, ProgramInfo, TX, Textbook};

const A: u16 = 1;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
/// Queries of one case at most.
const MAX_QUERIES: usize = failover_common::bench::MAX_TEMPLATES;

/// Queries where caches are to be of little help.
pub(super) const MANY: usize = 200_000;

/// One line of the table.
pub(crate) struct Case {
    /// What it is.
    pub name: String,
    /// What is loaded.
    pub set: NameSet,
    /// Frames, all of one length.
    pub queries: Vec<Vec<u8>>,
    /// What our program must do.
    ours: Expect,
    /// Whether the responders we compare with can do the same.
    compare: bool,
    /// Whether the textbook program can.
    textbook: bool,
}

/// What a program must do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// `XDP_PASS`, and nothing changed.
    Pass,
    /// `XDP_TX` with addresses swapped.
    Swapped,
    /// `XDP_TX` of a reply with this many answers.
    Answers(u16),
}

impl Expect {
    /// The verdict.
    pub(crate) const fn verdict(self) -> u32 {
        match self {
            Self::Pass => PASS,
            Self::Swapped | Self::Answers(_) => TX,
        }
    }

    /// Checks verdict and reply to a query.
    pub(crate) fn check(self, query: &[u8], verdict: u32, reply: &[u8]) -> Result<()> {
        ensure!(
            verdict == self.verdict(),
            "verdict {verdict}, not {}",
            self.verdict()
        );
        if self == Self::Pass {
            ensure!(reply == query, "packet changed");
            return Ok(());
        }
        ensure!(
            reply.get(..6) == query.get(6..12) && reply.get(6..12) == query.get(..6),
            "MAC addresses"
        );
        if let Self::Answers(answers) = self {
            let dns = Frame::dns_offset(query);
            let message = reply.get(dns..).context("too short")?;
            let question = query.get(dns..).context("too short")?;
            ensure!(message.len() >= 12, "too short");
            ensure!(
                message[..2] == question[..2] && message[2] & 0x84 == 0x84,
                "ID, QR, AA"
            );
            let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
            ensure!(count(4) == 1, "{} questions", count(4));
            ensure!(count(6) == answers, "{} answers", count(6));
        }
        Ok(())
    }
}

impl Case {
    fn new(name: &str, set: NameSet, frames: impl Iterator<Item = Frame>, ours: Expect) -> Self {
        let queries: Vec<Vec<u8>> = frames.map(|frame| frame.bytes()).collect();
        assert!(
            !queries.is_empty() && queries.iter().all(|query| query.len() == queries[0].len()),
            "{name}: the wrapper would be charged for changing the length"
        );
        let compare = ours != Expect::Pass;
        Self {
            name: name.to_owned(),
            set,
            queries,
            ours,
            compare,
            textbook: compare,
        }
    }

    /// The textbook program does not do this.
    fn without_textbook(self) -> Self {
        Self {
            textbook: false,
            ..self
        }
    }

    /// What a program must do; `None`: it is not measured.
    pub(crate) fn expect(&self, program: Program) -> Option<Expect> {
        match program {
            Program::Empty => Some(Expect::Pass),
            Program::Bare | Program::Grow => self.compare.then_some(Expect::Swapped),
            Program::Textbook => self.textbook.then_some(Expect::Answers(1)),
            Program::Failover => Some(self.ours),
        }
    }
}

/// All cases, with tables of up to `most_names`.
pub(crate) fn all(most_names: usize) -> Vec<Case> {
    let one = NameSet::ONE;
    let ask = |set: NameSet, qtype| {
        set.asked(MAX_QUERIES)
            .map(move |name| Question::new(name, qtype))
    };
    let v4 = |question: Question| Frame::v4(question.bytes());
    let both = Expect::Answers(2);

    let mut cases = vec![
        Case::new("A, EDNS", one, ask(one, A).map(v4), both),
        Case::new(
            "A, no EDNS",
            one,
            ask(one, A).map(|q| v4(q.without_edns())),
            both,
        ),
        Case::new("AAAA, EDNS", one, ask(one, AAAA).map(v4), both).without_textbook(),
        Case::new(
            "A, mixed case",
            one,
            ask(one, A).map(|q| v4(q.mixed_case())),
            both,
        )
        .without_textbook(),
    ];
    for len in [60, 120, 255] {
        let set = NameSet { len, ..one };
        cases.push(Case::new(
            &format!("A, name of {len} octets"),
            set,
            ask(set, A).map(v4),
            both,
        ));
    }
    cases.extend([
        Case::new(
            "A over IPv6",
            one,
            ask(one, A).map(|q| Frame::v6(q.bytes())),
            both,
        )
        .without_textbook(),
        Case::new(
            "A, VLAN tag",
            one,
            ask(one, A).map(|q| v4(q).tagged()),
            both,
        )
        .without_textbook(),
        Case::new(
            "A, heartbeat checked",
            NameSet {
                heartbeat: true,
                ..one
            },
            ask(one, A).map(v4),
            both,
        ),
        Case::new(
            "NODATA",
            NameSet {
                only_v4: true,
                ..one
            },
            ask(one, AAAA).map(v4),
            Expect::Answers(0),
        )
        .without_textbook(),
        Case::new(
            "NODATA, type HTTPS",
            one,
            ask(one, HTTPS).map(v4),
            Expect::Answers(0),
        )
        .without_textbook(),
        Case::new(
            "A, cookie",
            one,
            ask(one, A).map(|q| v4(q.with_cookie())),
            both,
        )
        .without_textbook(),
        Case::new("NXDOMAIN", one, one.unknown().map(v4_a), Expect::Answers(0)).without_textbook(),
        Case::new(
            "NXDOMAIN, 30 labels",
            one,
            std::iter::once(v4_a(many_labels())),
            Expect::Answers(0),
        )
        .without_textbook(),
        Case::new("name outside", one, one.outside().map(v4_a), Expect::Pass),
        Case::new("TCP", one, ask(one, A).map(|q| v4(q).tcp()), Expect::Pass),
        Case::new(
            "UDP, another port",
            one,
            ask(one, A).map(|q| v4(q).at_port(123)),
            Expect::Pass,
        ),
    ]);
    for names in [1_000, 100_000, 1_000_000] {
        if names > most_names {
            continue;
        }
        let set = NameSet { names, ..one };
        cases.push(Case::new("A, EDNS", set, ask(set, A).map(v4), both));
        if names > MANY {
            let shuffled = set.shuffled(MANY).map(v4_a);
            cases.push(Case::new(
                &format!("A, EDNS, {MANY} of them"),
                set,
                shuffled,
                both,
            ));
        }
        cases.push(
            Case::new("NXDOMAIN", set, set.unknown().map(v4_a), Expect::Answers(0))
                .without_textbook(),
        );
        cases.push(Case::new(
            "name outside",
            set,
            set.outside().map(v4_a),
            Expect::Pass,
        ));
    }
    cases
}

/// A name of 30 labels in the zone.
fn many_labels() -> Vec<u8> {
    [&b"\x01x".repeat(28)[..], ZONE].concat()
}

fn v4_a(name: Vec<u8>) -> Frame {
    Frame::v4(Question::new(name, A).bytes())
}

/// Programs with their names, each set once.
pub(crate) struct Sets(Vec<Set>);

/// Our program and the textbook's with the same names.
pub(crate) struct Set {
    names: NameSet,
    /// Ours.
    pub plane: DataPlane,
    /// The textbook's.
    pub textbook: Textbook,
}

impl Sets {
    /// Loads what the cases need, after having said so.
    pub(crate) fn load(cases: &[Case], say: impl Fn(NameSet)) -> Result<Self> {
        let mut sets: Vec<Set> = Vec::new();
        for case in cases {
            if sets.iter().any(|set| set.names == case.set) {
                continue;
            }
            say(case.set);
            sets.push(Set {
                names: case.set,
                plane: case.set.publish()?,
                textbook: Textbook::load(case.set.all(), case.set.names)?,
            });
        }
        Ok(Self(sets))
    }

    /// What a case asks.
    pub(crate) fn of(&mut self, case: &Case) -> &mut Set {
        self.0
            .iter_mut()
            .find(|set| set.names == case.set)
            .expect("loaded for every case")
    }

    /// What the kernel says about our programs, with the most names.
    pub(crate) fn program_info(&mut self) -> Result<[ProgramInfo; 2]> {
        let sets = self.0.iter_mut();
        let set = sets.max_by_key(|set| set.names.names);
        let plane = &mut set.context("no case")?.plane;
        Ok([
            ProgramInfo::new(plane.program()?)?,
            ProgramInfo::new(plane.rest_program()?)?,
        ])
    }
}

const _: () = assert!(SHORT == 17);
