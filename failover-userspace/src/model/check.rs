//! Checks that need more than an address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};

/// A request, and what its response must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// Where the request goes.
    pub address: SocketAddr,
    /// `None`: without TLS.
    pub tls: Option<Tls>,
    /// Of the request.
    pub method: HttpMethod,
    /// Value of the Host header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Status codes, any of which the response must have.
    pub expect: Vec<RangeInclusive<u16>>,
    /// Text that must be in the body; never empty.
    pub body: Option<String>,
}

/// `method = …` of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// The response has a body.
    #[default]
    Get,
    /// It has none.
    Head,
}

/// Who the server must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The name in its certificate; also sent to it (SNI), unless it is an address.
    pub name: ServerName<'static>,
    /// Who must vouch for it.
    pub trust: Trust,
}

/// Who may issue a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Whom the system trusts.
    System,
    /// The CAs of a file, and nobody else.
    File {
        /// The file, for messages.
        path: PathBuf,
        /// Its certificates, each of which may be a trust anchor.
        certificates: Arc<[CertificateDer<'static>]>,
    },
    /// Anybody: certificates are not verified.
    Anybody,
}

/// A program, and whom it is to check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecCheck {
    /// Absolute path, and arguments.
    pub command: Vec<String>,
    /// Name of the service.
    pub service: String,
    /// Name of the server.
    pub server: String,
    /// The server's address, or the one to be checked instead.
    pub address: IpAddr,
    /// Its port.
    pub port: NonZeroU16,
}

impl HttpMethod {
    /// As it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

impl HttpCheck {
    /// What the response is judged by, in words.
    pub(super) fn criteria(&self) -> String {
        let mut text = format!("{} expect", self.method.as_str());
        for codes in &self.expect {
            text += &format!(" {}-{}", codes.start(), codes.end());
        }
        if let Some(body) = &self.body {
            text += &format!(" body {body:?}");
        }
        match self.tls.as_ref().map(|tls| &tls.trust) {
            None | Some(Trust::System) => {}
            Some(Trust::File { path, .. }) => text += &format!(" ca_file {}", path.display()),
            Some(Trust::Anybody) => text += " unverified",
        }
        text
    }
}

impl fmt::Display for HttpCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} ({})", self.address, self.path, self.host)
    }
}

impl fmt::Display for ExecCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command.join(" "))
    }
}
