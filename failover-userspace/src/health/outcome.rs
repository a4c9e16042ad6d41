//! The result of one execution of a probe.

use std::fmt;
use std::io;
use std::time::Duration;

/// Result of one execution of a probe: the round-trip time, or why there is none.
pub type Outcome = Result<Duration, Failure>;

/// Why a probe failed; told apart in status, events and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The target turned the connection down.
    Refused,
    /// The target cut the connection.
    Reset,
    /// A router, or this host's routing, knows no way to the target.
    Unreachable,
    /// No answer within the timeout.
    TimedOut,
    /// This host could not send the probe; the operating system's words.
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

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Local(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_told_apart() {
        // (errno, metrics label, in status)
        let table = [
            (libc::ECONNREFUSED, "refused", "connection refused"),
            (libc::ECONNRESET, "reset", "connection reset"),
            (libc::ECONNABORTED, "reset", "connection reset"),
            (libc::EHOSTUNREACH, "unreachable", "unreachable"),
            (libc::ENETUNREACH, "unreachable", "unreachable"),
            (libc::ETIMEDOUT, "timeout", "timed out"),
            (
                libc::EMFILE,
                "local",
                "local error: Too many open files (os error 24)",
            ),
        ];
        for (errno, label, status) in table {
            let failure = Failure::from(&io::Error::from_raw_os_error(errno));
            assert_eq!((failure.label(), &*failure.to_string()), (label, status));
        }
    }
}
