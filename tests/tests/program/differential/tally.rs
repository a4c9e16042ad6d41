//! What XDP answered, by kind of query, and what it promises to answer.

use std::collections::BTreeMap;
use std::fmt;

use super::edns::{VARIANTS, Variant};
use super::queries::Query;

/// What a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A or AAAA at the name of a service.
    Service,
    ServiceOtherType,
    BelowService,
    /// A name with records.
    Static,
    BelowStatic,
    EmptyNonTerminal,
    BelowEmptyNonTerminal,
    /// The wildcard itself.
    Wildcard,
    BelowWildcard,
    BelowServiceWildcard,
    Alias,
    BelowDname,
    /// At a cut or below it.
    Delegation,
    /// Nearly a name of the snapshot.
    Beside,
    /// Any name under one of our zones.
    Random,
    /// Outside our zones, or nearly so.
    Elsewhere,
    Any,
    MetaType,
    OtherClass,
    OtherHeader,
    Malformed,
}

/// What the slow path makes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Records,
    NoData,
    NxDomain,
    Referral,
    Truncated,
    ServFail,
    Refused,
    FormErr,
    OtherError,
    Silence,
}

/// A row of the table.
type Kind = (Subject, Outcome);

/// What XDP answers at the least, in percent, of each kind of query whose OPT record is in order.
/// Kinds that are not listed may pass. A kind of 0 is expected to be asked about, too.
const PROMISED: [(Kind, u32); 27] = [
    ((Subject::Service, Outcome::Records), 100),
    ((Subject::Service, Outcome::NoData), 100),
    ((Subject::Service, Outcome::ServFail), 100),
    ((Subject::ServiceOtherType, Outcome::Records), 80),
    ((Subject::ServiceOtherType, Outcome::NoData), 97),
    ((Subject::BelowService, Outcome::NxDomain), 95),
    ((Subject::Static, Outcome::Records), 85),
    ((Subject::Static, Outcome::NoData), 95),
    ((Subject::BelowStatic, Outcome::NxDomain), 93),
    ((Subject::EmptyNonTerminal, Outcome::NoData), 97),
    ((Subject::BelowEmptyNonTerminal, Outcome::NxDomain), 95),
    ((Subject::Wildcard, Outcome::Records), 75),
    ((Subject::Wildcard, Outcome::NoData), 95),
    ((Subject::BelowWildcard, Outcome::Records), 0),
    ((Subject::BelowWildcard, Outcome::NoData), 0),
    ((Subject::BelowServiceWildcard, Outcome::Records), 95),
    ((Subject::BelowServiceWildcard, Outcome::NoData), 95),
    ((Subject::Alias, Outcome::Records), 40),
    ((Subject::BelowDname, Outcome::Records), 0),
    ((Subject::Delegation, Outcome::Referral), 0),
    ((Subject::Beside, Outcome::NxDomain), 30),
    ((Subject::Random, Outcome::NxDomain), 70),
    ((Subject::Elsewhere, Outcome::Refused), 0),
    ((Subject::Any, Outcome::Records), 0),
    ((Subject::OtherClass, Outcome::Refused), 0),
    ((Subject::OtherHeader, Outcome::FormErr), 0),
    ((Subject::Malformed, Outcome::FormErr), 0),
];

/// Less than so many queries of a kind say nothing about what share of them is answered.
const FEW: u32 = 200;
/// One of so many queries is of each of the kinds above, at the least.
const RAREST_KIND: u32 = 2000;
/// One of so many has each variant of OPT and asks for the addresses of a service.
const RAREST_VARIANT: u32 = 10_000;

/// Queries, and those of them that XDP answered.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    queries: u32,
    answered: u32,
}

/// All queries, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: Count,
    /// By kind, of queries whose OPT record is in order.
    kinds: BTreeMap<Kind, Count>,
    /// By variant, of queries for the addresses of services, where they fit.
    edns: [Count; VARIANTS.len()],
}

impl Count {
    fn add(&mut self, is_answered: bool) {
        self.queries += 1;
        self.answered += u32::from(is_answered);
    }

    /// A share is no promise about a few.
    fn is_at_least(self, percent: u32) -> bool {
        self.answered * 100 >= self.queries * percent || percent < 100 && self.queries < FEW
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = f64::from(self.answered) * 100.0 / f64::from(self.queries.max(1));
        write!(f, "{:8} {:8} {percent:5.1} %", self.queries, self.answered)
    }
}

impl Tally {
    /// Counts a query with the slow path's reply.
    pub(super) fn add(&mut self, query: &Query, reply: Option<&[u8]>, is_answered: bool) {
        let kind = (query.subject, outcome(reply));
        self.all.add(is_answered);
        if VARIANTS[query.edns].is_ordinary() {
            self.kinds.entry(kind).or_default().add(is_answered);
        }
        if query.subject == Subject::Service && kind.1 != Outcome::Truncated {
            self.edns[query.edns].add(is_answered);
        }
    }

    /// XDP answered what it promises.
    pub(super) fn assert_promises(&self) {
        for (kind, promised) in PROMISED {
            let count = self.kind(kind);
            assert!(
                count.is_at_least(promised),
                "{kind:?}: {count}, want {promised} %"
            );
        }
        for (variant, count) in VARIANTS.iter().zip(self.edns) {
            let Variant { name, promised, .. } = variant;
            assert!(
                count.is_at_least(*promised),
                "EDNS {name}: {count}, want {promised} %"
            );
        }
    }

    /// Each kind and each variant was asked about often enough for a promise to mean something.
    pub(super) fn assert_is_broad(&self) {
        for (kind, _) in PROMISED {
            let queries = self.kind(kind).queries;
            assert!(
                queries >= self.all.queries / RAREST_KIND,
                "{kind:?}: {queries} queries only"
            );
        }
        for (Variant { name, .. }, Count { queries, .. }) in VARIANTS.iter().zip(self.edns) {
            assert!(
                queries >= self.all.queries / RAREST_VARIANT,
                "EDNS {name}: {queries} queries only"
            );
        }
    }

    fn kind(&self, kind: Kind) -> Count {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:44}  queries answered by XDP", "OPT in order")?;
        for ((subject, outcome), count) in &self.kinds {
            let kind = format!("{}: {}", subject.name(), outcome.name());
            writeln!(f, "{kind:44} {count}")?;
        }
        writeln!(f, "\nservice, A or AAAA that fit, with OPT")?;
        for (variant, count) in VARIANTS.iter().zip(&self.edns) {
            writeln!(f, "{:44} {count}", variant.name)?;
        }
        write!(f, "\n{:44} {}", "all queries", self.all)
    }
}

/// What a reply says.
fn outcome(reply: Option<&[u8]>) -> Outcome {
    let Some(reply) = reply else {
        return Outcome::Silence;
    };
    let has_records = |at: usize| reply[at..at + 2] != [0, 0];
    match reply[3] & 0xf {
        _ if reply[2] & 0x02 != 0 => Outcome::Truncated,
        0 if has_records(6) => Outcome::Records,
        // AA: it is ours, and there is nothing.
        0 if reply[2] & 0x04 != 0 => Outcome::NoData,
        0 if has_records(8) => Outcome::Referral,
        1 => Outcome::FormErr,
        2 => Outcome::ServFail,
        3 => Outcome::NxDomain,
        5 => Outcome::Refused,
        _ => Outcome::OtherError,
    }
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Service => "service, A or AAAA",
            Self::ServiceOtherType => "service, other type",
            Self::BelowService => "below a service",
            Self::Static => "static name",
            Self::BelowStatic => "below a static name",
            Self::EmptyNonTerminal => "empty non-terminal",
            Self::BelowEmptyNonTerminal => "below an empty non-terminal",
            Self::Wildcard => "wildcard owner",
            Self::BelowWildcard => "below a wildcard",
            Self::BelowServiceWildcard => "below a service's wildcard",
            Self::Alias => "alias",
            Self::BelowDname => "below a DNAME",
            Self::Delegation => "delegation",
            Self::Beside => "nearly a name",
            Self::Random => "random name under a zone",
            Self::Elsewhere => "outside",
            Self::Any => "ANY",
            Self::MetaType => "meta type",
            Self::OtherClass => "class other than IN",
            Self::OtherHeader => "not a plain query",
            Self::Malformed => "malformed",
        }
    }
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::NoData => "NODATA",
            Self::NxDomain => "NXDOMAIN",
            Self::Referral => "referral",
            Self::Truncated => "truncated",
            Self::ServFail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::FormErr => "FORMERR",
            Self::OtherError => "other error",
            Self::Silence => "no reply",
        }
    }
}
