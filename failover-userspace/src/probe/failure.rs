//! Why a probe failed.

use std::fmt;
use std::io;

use rustix::io::Errno;
use serde::Serialize;

/// Why a probe failed.
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.pad("connection refused"),
            Self::Reset => f.pad("connection reset"),
            Self::Unreachable => f.pad("unreachable"),
            Self::TimedOut => f.pad("timed out"),
            Self::Local(why) => write!(f, "local error: {why}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A failure to prepare a probe, for whatever reason.
    pub(super) fn local(doing: impl fmt::Display, error: &io::Error) -> Self {
        Self::Local(format!("{doing}: {error}"))
    }

    /// A failure of `connect`, `send` or `recv`.
    ///
    /// The kernel reports ICMP errors by the errors of `icmp_err_convert` (IPv4) and
    /// `tab_unreach` (IPv6).
    pub(super) fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED) => Self::Refused,
            Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => Self::Reset,
            Some(Errno::TIMEDOUT) => Self::TimedOut,
            Some(
                Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN
                | Errno::NONET
                // Protocol unreachable.
                | Errno::NOPROTOOPT
                // ICMPv6 administratively prohibited, and routes of type prohibit.
                | Errno::ACCESS,
            ) => Self::Unreachable,
            _ => Self::Local(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (errno, want) in [
            (Errno::CONNREFUSED, "connection refused"),
            (Errno::CONNRESET, "connection reset"),
            (Errno::HOSTUNREACH, "unreachable"),
            (Errno::NETUNREACH, "unreachable"),
            (Errno::HOSTDOWN, "unreachable"),
            (Errno::ACCESS, "unreachable"),
            (Errno::TIMEDOUT, "timed out"),
            (
                Errno::MFILE,
                "local error: Too many open files (os error 24)",
            ),
            (
                Errno::ADDRNOTAVAIL,
                "local error: Cannot assign requested address (os error 99)",
            ),
            (
                Errno::PERM,
                "local error: Operation not permitted (os error 1)",
            ),
        ] {
            assert_eq!(Failure::of(&errno.into()).to_string(), want);
        }
    }
}
