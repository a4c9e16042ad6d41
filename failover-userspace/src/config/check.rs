//! Checks: what `[check]`, a service and a server say, each over the one before.

use std::time::Duration;

use super::reader::{Field, Node, Table};
use super::report::Report;
use super::value;
use crate::model::Timing;

const MINIMUM_INTERVAL: Duration = Duration::from_millis(10);
const MINIMUM_TIMEOUT: Duration = Duration::from_millis(1);

/// `type = …` of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    Tcp,
    Icmp,
}

/// A `check` table as written.
#[derive(Clone)]
pub(super) struct CheckSpec {
    kind: Field<CheckKind>,
    interval: Field<Duration>,
    timeout: Field<Duration>,
    fastinter: Field<Duration>,
    rise: Field<u8>,
    fall: Field<u8>,
}

impl CheckSpec {
    pub(super) fn read(node: Node<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut table = Table::open(node, report)?;
        let spec = Self {
            kind: table.optional("type", report, read_kind),
            interval: table.optional("interval", report, value::duration(MINIMUM_INTERVAL)),
            timeout: table.optional("timeout", report, value::duration(MINIMUM_TIMEOUT)),
            fastinter: table.optional("fastinter", report, value::duration(MINIMUM_INTERVAL)),
            rise: table.optional("rise", report, value::count),
            fall: table.optional("fall", report, value::count),
        };
        // The keys of a type that is refused would only be refused again.
        if !matches!(spec.kind, Field::Bad) {
            table.finish(report);
        }
        Some(spec)
    }
}

fn read_kind(node: Node<'_>, report: &mut Report<'_>) -> Option<CheckKind> {
    match node.value.as_str() {
        Some("tcp") => Some(CheckKind::Tcp),
        Some("icmp") => Some(CheckKind::Icmp),
        Some(kind @ ("http" | "https" | "exec")) => {
            let message = format!(
                "check type \"{kind}\" is not available in this version; use \"tcp\" or \"icmp\""
            );
            report.error(node.span, message);
            None
        }
        _ => {
            node.expected("one of \"tcp\", \"icmp\"", report);
            None
        }
    }
}

/// A check with everything inherited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) kind: CheckKind,
    interval: Duration,
    /// Whether `interval` is what was meant: false after an error.
    interval_known: bool,
    timeout: Duration,
    /// As inherited; lowered to `interval` only in [`Check::timing`].
    fastinter: Duration,
    rise: u8,
    fall: u8,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(1),
            interval_known: true,
            timeout: Duration::from_millis(500),
            fastinter: Duration::from_millis(200),
            rise: 2,
            fall: 3,
        }
    }
}

impl Check {
    /// This check with what `spec` says instead. A `fastinter` written in `spec` may not
    /// be longer than the interval that holds there; an inherited one is lowered.
    pub(super) fn overridden(self, spec: &Field<CheckSpec>, report: &mut Report<'_>) -> Self {
        let Some(spec) = spec.value() else {
            return self;
        };
        let check = Self {
            kind: spec.kind.value_or(self.kind),
            interval: spec.interval.value_or(self.interval),
            interval_known: match spec.interval {
                Field::Absent => self.interval_known,
                Field::Bad => false,
                Field::Given(_) => true,
            },
            timeout: spec.timeout.value_or(self.timeout),
            fastinter: spec.fastinter.value_or(self.fastinter),
            rise: spec.rise.value_or(self.rise),
            fall: spec.fall.value_or(self.fall),
        };
        if let Some(fastinter) = spec.fastinter.given()
            && check.interval_known
            && fastinter.value > check.interval
        {
            let message = format!(
                "fastinter: expected at most the interval, {}, found {}",
                humantime::format_duration(check.interval),
                report.quote(fastinter.span)
            );
            report.consequence(fastinter.span, message);
        }
        check
    }

    pub(super) fn timing(self) -> Timing {
        Timing {
            interval: self.interval,
            fastinter: self.fastinter.min(self.interval),
            timeout: self.timeout,
            rise: self.rise,
            fall: self.fall,
        }
    }
}
