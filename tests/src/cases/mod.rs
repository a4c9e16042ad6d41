//! DNS cases: queries and the replies they get, in text files that anybody can extend.
//!
//! `tests/cases/README.md` has the format. [`load`] reads all files; [`render`] writes a reply in
//! the words of a case; [`Case::check`] compares. The same cases are held against the pure engine,
//! against the daemon over its sockets ([`ask`]), and against other name servers
//! ([`Case::check_peer`]), where every difference is explained in the file.

mod ask;
mod difference;
mod file;
mod query;
mod reply;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

pub use ask::{Heard, ask};
pub use file::load;
pub use reply::render;

/// The directory of the case files, with the configuration and the zones they are about.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// What a case is asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
}

/// An established name server to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Knot DNS.
    Knotd,
    /// NSD, by NLnet Labs.
    Nsd,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Tcp];
}

impl Peer {
    /// Every peer.
    pub const ALL: [Self; 2] = [Self::Knotd, Self::Nsd];

    /// The name of its program, and in the case files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Knotd => "knotd",
            Self::Nsd => "nsd",
        }
    }
}

/// A query and the reply that it gets.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file and line it stands in.
    pub place: String,
    /// The message that is sent.
    pub query: Vec<u8>,
    /// What it is sent over.
    pub over: Vec<Protocol>,
    /// The reply, as [`render`] writes it.
    pub expected: Vec<String>,
    /// What a peer does otherwise.
    explained: BTreeMap<(Peer, Protocol), BTreeSet<String>>,
}

/// Which order of address records is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the file.
    AsWritten,
    /// Beginning with any of them: the addresses of a service take turns.
    Rotated,
}

/// A reply that is not as the case says.
#[derive(Clone, Debug)]
pub struct Mismatch {
    place: String,
    title: &'static str,
    expected: Vec<String>,
    found: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, found) = (self.expected.join("\n"), self.found.join("\n"));
        let Self { place, title, .. } = self;
        write!(
            f,
            "{place}: {title}\n--- expected\n{expected}\n+++ found\n{found}"
        )
    }
}

impl Case {
    /// Compares a reply, as [`render`] writes it.
    ///
    /// # Errors
    ///
    /// When it differs.
    pub fn check(&self, found: &[String], order: Order) -> Result<(), Mismatch> {
        if difference::is_same(&self.expected, found, order) {
            return Ok(());
        }
        Err(Mismatch {
            place: self.place.clone(),
            title: "another reply",
            expected: self.expected.clone(),
            found: found.to_vec(),
        })
    }

    /// Compares the reply of a peer: it differs in what the case explains, no more and no less.
    ///
    /// # Errors
    ///
    /// When a difference is not explained, or one that is explained is none.
    pub fn check_peer(
        &self,
        peer: Peer,
        protocol: Protocol,
        found: &[String],
    ) -> Result<(), Mismatch> {
        let found = difference::differences(&self.expected, found);
        let explained = self.explained.get(&(peer, protocol));
        let explained = explained.cloned().unwrap_or_default();
        if found == explained {
            return Ok(());
        }
        Err(Mismatch {
            place: self.place.clone(),
            title: "other differences than are explained",
            expected: explained.into_iter().collect(),
            found: found.into_iter().collect(),
        })
    }
}
