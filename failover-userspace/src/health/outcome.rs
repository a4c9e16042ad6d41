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
    /// The connection was reset.
    Reset,
    /// No route, no neighbour, or an ICMP error on the way.
    Unreachable,
    /// No answer to a TCP or ICMP probe within its `timeout`.
    TimedOut,
    /// No connection for an HTTP request within the `timeout`.
    ConnectTimedOut,
    /// A connection, but no TLS session within the `timeout`.
    TlsTimedOut,
    /// A request was sent, but what is needed of the response did not come within the `timeout`.
    ResponseTimedOut,
    /// The server cannot be trusted, or speaks no TLS that we do.
    Tls(TlsFailure),
    /// The response is not the wanted one.
    Http(HttpFailure),
    /// The program does not say that all is well.
    Exec(ExecFailure),
    /// The probe could not be sent: says something about this host, not about the target.
    Local(String),
}

/// Why there is no TLS session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsFailure {
    /// The certificate is not valid any more.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is for other names.
    WrongName,
    /// The certificate comes from nobody that is trusted.
    UnknownCa,
    /// Something else is wrong with the certificate.
    Certificate(String),
    /// The two sides do not come to terms, or the other one is no TLS server.
    Handshake(String),
}

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpFailure {
    /// A status code that is not expected.
    Status(u16),
    /// The wanted text is not in the body.
    Body,
    /// It is no HTTP, or its head is too large.
    Malformed(String),
    /// It ended too early.
    Closed,
}

/// How a program failed, each with the beginning of what it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecFailure {
    /// It exited with this status.
    Status(i32, String),
    /// This signal ended it.
    Signal(i32, String),
    /// There is no such program, or it may not be executed; why.
    NotStarted(String),
    /// It did not end within the `timeout`, and was killed.
    TimedOut(String),
}

impl Failure {
    /// All that [`Self::label`] says.
    pub const LABELS: [&'static str; 22] = [
        "refused",
        "reset",
        "unreachable",
        "timeout",
        "connect_timeout",
        "tls_timeout",
        "response_timeout",
        "tls_expired",
        "tls_not_yet_valid",
        "tls_wrong_name",
        "tls_unknown_ca",
        "tls_certificate",
        "tls_handshake",
        "http_status",
        "http_body",
        "http_malformed",
        "http_closed",
        "exec_status",
        "exec_signal",
        "exec_not_started",
        "exec_timeout",
        "local",
    ];

    /// The value of the `outcome` label in metrics: one word from a fixed set.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::ConnectTimedOut => "connect_timeout",
            Self::TlsTimedOut => "tls_timeout",
            Self::ResponseTimedOut => "response_timeout",
            Self::Tls(TlsFailure::Expired) => "tls_expired",
            Self::Tls(TlsFailure::NotYetValid) => "tls_not_yet_valid",
            Self::Tls(TlsFailure::WrongName) => "tls_wrong_name",
            Self::Tls(TlsFailure::UnknownCa) => "tls_unknown_ca",
            Self::Tls(TlsFailure::Certificate(_)) => "tls_certificate",
            Self::Tls(TlsFailure::Handshake(_)) => "tls_handshake",
            Self::Http(HttpFailure::Status(_)) => "http_status",
            Self::Http(HttpFailure::Body) => "http_body",
            Self::Http(HttpFailure::Malformed(_)) => "http_malformed",
            Self::Http(HttpFailure::Closed) => "http_closed",
            Self::Exec(ExecFailure::Status(..)) => "exec_status",
            Self::Exec(ExecFailure::Signal(..)) => "exec_signal",
            Self::Exec(ExecFailure::NotStarted(_)) => "exec_not_started",
            Self::Exec(ExecFailure::TimedOut(_)) => "exec_timeout",
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
            Self::ConnectTimedOut => f.pad("connecting timed out"),
            Self::TlsTimedOut => f.pad("TLS handshake timed out"),
            Self::ResponseTimedOut => f.pad("response timed out"),
            Self::Tls(failure) => failure.fmt(f),
            Self::Http(failure) => failure.fmt(f),
            Self::Exec(failure) => failure.fmt(f),
            Self::Local(text) => write!(f, "local error: {text}"),
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.pad("certificate expired"),
            Self::NotYetValid => f.pad("certificate not yet valid"),
            Self::WrongName => f.pad("certificate for another name"),
            Self::UnknownCa => f.pad("certificate from an unknown CA"),
            Self::Certificate(text) => write!(f, "certificate rejected: {text}"),
            Self::Handshake(text) => write!(f, "TLS handshake failed: {text}"),
        }
    }
}

impl fmt::Display for HttpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "HTTP status {code}"),
            Self::Body => f.pad("body without the wanted text"),
            Self::Malformed(text) => write!(f, "malformed HTTP response: {text}"),
            Self::Closed => f.pad("connection closed before the end of the response"),
        }
    }
}

impl fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = match self {
            Self::Status(status, output) => {
                write!(f, "exit status {status}")?;
                output
            }
            Self::Signal(signal, output) => {
                write!(f, "ended by signal {signal}")?;
                output
            }
            Self::NotStarted(why) => {
                f.write_str("not started")?;
                why
            }
            Self::TimedOut(output) => {
                f.write_str("killed after its timeout")?;
                output
            }
        };
        if output.is_empty() {
            return Ok(());
        }
        write!(f, ": {output}")
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let text = || "why".to_owned();
        // (failure, metrics label, in status)
        let table = [
            (Failure::Refused, "refused", "connection refused"),
            (Failure::Reset, "reset", "connection reset"),
            (Failure::Unreachable, "unreachable", "unreachable"),
            (Failure::TimedOut, "timeout", "timed out"),
            (
                Failure::ConnectTimedOut,
                "connect_timeout",
                "connecting timed out",
            ),
            (
                Failure::TlsTimedOut,
                "tls_timeout",
                "TLS handshake timed out",
            ),
            (
                Failure::ResponseTimedOut,
                "response_timeout",
                "response timed out",
            ),
            (
                Failure::Tls(TlsFailure::Expired),
                "tls_expired",
                "certificate expired",
            ),
            (
                Failure::Tls(TlsFailure::NotYetValid),
                "tls_not_yet_valid",
                "certificate not yet valid",
            ),
            (
                Failure::Tls(TlsFailure::WrongName),
                "tls_wrong_name",
                "certificate for another name",
            ),
            (
                Failure::Tls(TlsFailure::UnknownCa),
                "tls_unknown_ca",
                "certificate from an unknown CA",
            ),
            (
                Failure::Tls(TlsFailure::Certificate(text())),
                "tls_certificate",
                "certificate rejected: why",
            ),
            (
                Failure::Tls(TlsFailure::Handshake(text())),
                "tls_handshake",
                "TLS handshake failed: why",
            ),
            (
                Failure::Http(HttpFailure::Status(503)),
                "http_status",
                "HTTP status 503",
            ),
            (
                Failure::Http(HttpFailure::Body),
                "http_body",
                "body without the wanted text",
            ),
            (
                Failure::Http(HttpFailure::Malformed(text())),
                "http_malformed",
                "malformed HTTP response: why",
            ),
            (
                Failure::Http(HttpFailure::Closed),
                "http_closed",
                "connection closed before the end of the response",
            ),
            (
                Failure::Exec(ExecFailure::Status(2, String::new())),
                "exec_status",
                "exit status 2",
            ),
            (
                Failure::Exec(ExecFailure::Signal(15, text())),
                "exec_signal",
                "ended by signal 15: why",
            ),
            (
                Failure::Exec(ExecFailure::NotStarted(text())),
                "exec_not_started",
                "not started: why",
            ),
            (
                Failure::Exec(ExecFailure::TimedOut(text())),
                "exec_timeout",
                "killed after its timeout: why",
            ),
            (
                Failure::Local("Too many open files (os error 24)".to_owned()),
                "local",
                "local error: Too many open files (os error 24)",
            ),
        ];
        assert_eq!(
            table.each_ref().map(|(_, label, _)| *label),
            Failure::LABELS
        );
        for (failure, label, status) in table {
            assert_eq!((failure.label(), &*failure.to_string()), (label, status));
        }
    }
}
