//! The result of one execution of a probe.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Result of one execution of a probe: the round-trip time, or why there is none.
pub type Outcome = Result<Duration, Failure>;

/// Why a probe failed; told apart in status, events and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The host is there, and nobody listens on the port.
    Refused,
    /// The connection was reset before it was established.
    Reset,
    /// No route, no neighbour, or an ICMP error on the way.
    Unreachable,
    /// No answer within the probe's `timeout`.
    TimedOut,
    /// The probe could not be sent: says something about this host, not about the target.
    Local(String),
}

impl Failure {
    /// The value of the `reason` label in metrics: one word from a fixed set.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Local(_) => "local",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.pad("connection refused"),
            Self::Reset => f.pad("connection reset"),
            Self::Unreachable => f.pad("unreachable"),
            Self::TimedOut => f.pad("timed out"),
            Self::Local(text) => write!(f, "local error: {text}"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        // (failure, metrics label, in status)
        let table = [
            (Failure::Refused, "refused", "connection refused"),
            (Failure::Reset, "reset", "connection reset"),
            (Failure::Unreachable, "unreachable", "unreachable"),
            (Failure::TimedOut, "timeout", "timed out"),
            (
                Failure::Local("Too many open files (os error 24)".to_owned()),
                "local",
                "local error: Too many open files (os error 24)",
            ),
        ];
        for (failure, label, status) in table {
            assert_eq!((failure.label(), &*failure.to_string()), (label, status));
        }
    }
}
