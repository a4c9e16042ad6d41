//! One entry: what has happened to whom, and why.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::model::Generation;
use crate::policy::Answer;

/// Characters of a reason.
const REASON_LIMIT: usize = 1024;

/// An entry of the journal. As JSON on one line it is what `failover events --json` prints,
/// what the file holds, and most of what a webhook gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows by one with each entry, over restarts too.
    pub seq: u64,
    /// When it happened, in milliseconds.
    #[serde(serialize_with = "in_milliseconds")]
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub news: News,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What it is about.
    pub kind: Kind,
    /// Whom: `SERVICE/SERVER`, `wan/LINK`, `service/SERVICE`, `interface/NAME`, `daemon`,
    /// `journal`.
    pub subject: String,
    /// Whom it may wake.
    pub severity: Severity,
    /// What it was before, in one word; `None`: nothing, or not known.
    pub from: Option<String>,
    /// What it is now, in one word.
    pub to: Option<String>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Of a service: the addresses that were answered before; `None`: nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Vec<IpAddr>>,
    /// Of a service: the addresses that are answered now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Vec<IpAddr>>,
    /// Of a service: `NOERROR` or `SERVFAIL`, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// The generation that brought it; `None`: none has, or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Of an operator's change: whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word used in entries.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What an entry is about.
    Kind {
        /// A server's state.
        Server = "server",
        /// A WAN link's state.
        Wan = "wan",
        /// A service's answer.
        Service = "service",
        /// A publication that was refused, and the first one after it that was not.
        Publication = "publication",
        /// The XDP program on an interface.
        Interface = "interface",
        /// The daemon's start and stop.
        Daemon = "daemon",
        /// What an operator told of a server or a link.
        Admin = "admin",
        /// A configuration that was taken over, or refused.
        Reload = "reload",
        /// Entries that there are not, because there were too many at once.
        Lost = "lost",
    }
}

words! {
    /// Whom an entry may wake.
    Severity {
        /// Nobody.
        Info = "info",
        /// Something has failed that has a stand-in.
        Warning = "warning",
        /// Clients are affected.
        Error = "error",
    }
}

/// Three decimals, whatever they are: entries look alike.
fn in_milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

impl News {
    /// Something about `subject`.
    #[must_use]
    pub fn new(kind: Kind, subject: impl Into<String>, severity: Severity) -> Self {
        Self {
            kind,
            subject: subject.into(),
            severity,
            from: None,
            to: None,
            reason: None,
            old: None,
            new: None,
            rcode: None,
            generation: None,
            by: None,
        }
    }

    /// With what it is now.
    #[must_use]
    pub fn to(mut self, to: impl fmt::Display) -> Self {
        self.to = Some(to.to_string());
        self
    }

    /// With what it was.
    #[must_use]
    pub fn from(mut self, from: impl fmt::Display) -> Self {
        self.from = Some(from.to_string());
        self
    }

    /// With a reason; parts of it may come from elsewhere, so it is cut where it is long, and
    /// has no control characters.
    #[must_use]
    pub fn because(mut self, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let mut shown: String = reason.chars().take(REASON_LIMIT).map(printable).collect();
        if shown.len() < reason.len() {
            shown.push('…');
        }
        self.reason = Some(shown);
        self
    }

    /// With the answers of a service.
    #[must_use]
    pub fn answers(mut self, old: Option<&Answer>, new: &Answer) -> Self {
        let addresses = |answer: &Answer| {
            let addresses = answer.addresses().iter();
            addresses.map(|weighted| weighted.address).collect()
        };
        self.old = old.map(addresses);
        self.new = Some(addresses(new));
        let servfail = *new == Answer::Servfail;
        self.rcode = Some(if servfail { "SERVFAIL" } else { "NOERROR" }.to_owned());
        self
    }

    /// With the generation that brought it.
    #[must_use]
    pub const fn generation(mut self, generation: Option<Generation>) -> Self {
        self.generation = generation;
        self
    }

    /// With the one who did it.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// The service that it is about, itself or one of its servers.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self.kind {
            Kind::Service => self.subject.strip_prefix("service/"),
            // No service is called "wan".
            Kind::Server | Kind::Admin => {
                let (service, _) = self.subject.split_once('/')?;
                (service != "wan").then_some(service)
            }
            Kind::Wan
            | Kind::Publication
            | Kind::Interface
            | Kind::Daemon
            | Kind::Reload
            | Kind::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn entries_are_stable_json() {
        let addresses = |addresses: &[&str]| {
            let weighted = addresses.iter().map(|address| crate::policy::Weighted {
                address: address.parse().unwrap(),
                weight: std::num::NonZeroU16::MIN,
            });
            Answer::Addresses(weighted.collect())
        };
        let down = News::new(Kind::Server, "www/web-a", Severity::Warning)
            .from("up")
            .to("down")
            .because("tcp:192.0.2.1:80: connection refused");
        let service = |old: Option<&Answer>, new: &Answer| {
            News::new(Kind::Service, "service/www", Severity::Info)
                .to("backup2")
                .answers(old, new)
        };
        let both = addresses(&["198.51.100.134", "203.0.113.70"]);
        for (news, want) in [
            (
                down,
                r#"{"seq":7,"time":"2026-11-22T10:00:00.120Z","kind":"server","subject":"www/web-a","severity":"warning","from":"up","to":"down","reason":"tcp:192.0.2.1:80: connection refused"}"#,
            ),
            (
                service(Some(&both), &addresses(&["192.0.2.200"])).generation(Some(Generation(8))),
                r#"{"seq":7,"time":"2026-11-22T10:00:00.120Z","kind":"service","subject":"service/www","severity":"info","from":null,"to":"backup2","reason":null,"old":["198.51.100.134","203.0.113.70"],"new":["192.0.2.200"],"rcode":"NOERROR","generation":8}"#,
            ),
            (
                service(None, &Answer::Servfail),
                r#"{"seq":7,"time":"2026-11-22T10:00:00.120Z","kind":"service","subject":"service/www","severity":"info","from":null,"to":"backup2","reason":null,"new":[],"rcode":"SERVFAIL"}"#,
            ),
        ] {
            let entry = Entry {
                seq: 7,
                time: time("2026-11-22T10:00:00.12Z"),
                news,
            };
            assert_eq!(serde_json::to_string(&entry).unwrap(), want);
            assert_eq!(serde_json::from_str::<Entry>(want).unwrap(), entry);
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            let json = serde_json::to_string(kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
        }
        for severity in Severity::ALL {
            let json = serde_json::to_string(severity).unwrap();
            assert_eq!(json, format!("\"{severity}\""));
        }
    }

    #[test]
    fn reasons_are_bounded_and_printable() {
        let news = News::new(Kind::Server, "www/web-a", Severity::Info);
        let reason = |text: &str| news.clone().because(text).reason.unwrap();
        assert_eq!(reason("a\x1b[31m\nb"), "a [31m b");
        let long = reason(&"é".repeat(2000));
        assert_eq!(long.chars().count(), REASON_LIMIT + 1);
        assert!(long.ends_with("é…"));
    }

    #[test]
    fn servers_belong_to_services() {
        for (kind, subject, want) in [
            (Kind::Service, "service/www", Some("www")),
            (Kind::Server, "www/web-a", Some("www")),
            (Kind::Admin, "www/web-a", Some("www")),
            (Kind::Admin, "wan/wan1", None),
            (Kind::Wan, "wan/wan1", None),
            // A service may be called so.
            (Kind::Server, "service/web-a", Some("service")),
            (Kind::Interface, "interface/eth0", None),
            (Kind::Daemon, "daemon", None),
        ] {
            let news = News::new(kind, subject, Severity::Info);
            assert_eq!(news.service(), want, "{kind} {subject}");
        }
    }
}
