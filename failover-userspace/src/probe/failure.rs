//! From errors of the system to [`Failure`].

use std::fmt;
use std::io;

use rustix::io::Errno;

use super::Failure;

impl Failure {
    /// A failure to prepare a probe, for whatever reason.
    pub(crate) fn local(doing: impl fmt::Display, error: &io::Error) -> Self {
        Self::Local(format!("{doing}: {error}"))
    }

    /// A failure of `connect`, `send` or `recv`.
    ///
    /// The kernel reports ICMP errors by the errors of `icmp_err_convert` (IPv4) and
    /// `tab_unreach` (IPv6).
    pub(crate) fn of(error: &io::Error) -> Self {
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
