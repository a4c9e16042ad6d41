//! Who is told of events over HTTP.

use std::time::Duration;

use glob::Pattern;
use hyper::header::{HeaderName, HeaderValue};

use super::Tls;
use crate::journal::{Entry, Kind};

/// `[[notify]]`: where events are sent, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// What it is called in logs and counters: its URL may be a secret.
    pub name: String,
    /// A host name, which is looked up each time, or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `None`: without TLS.
    pub tls: Option<Tls>,
    /// Value of the Host header.
    pub authority: String,
    /// Path and query.
    pub path: Secret,
    /// More headers; their values are never shown.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Kinds of entries; `None`: all.
    pub kinds: Option<Vec<Kind>>,
    /// Patterns of names of services; empty: all.
    pub services: Vec<Pattern>,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Webhook {
    /// Whether it wants an entry. What is lost might have been one that it wants.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        let news = &entry.news;
        let kinds = self.kinds.as_ref();
        let of_service = || {
            news.service().is_none_or(|service| {
                self.services.is_empty() || self.services.iter().any(|name| name.matches(service))
            })
        };
        news.kind == Kind::Lost
            || (kinds.is_none_or(|kinds| kinds.contains(&news.kind)) && of_service())
    }
}
