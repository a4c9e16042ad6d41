//! Who may do what over the control socket. Pure: who somebody is, is an argument.
//!
//! There are two rights, to read and to change. Root and the daemon's own user have both; others
//! have what the configuration gives them, and who may change may read.

use std::fmt;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To see.
    Read,
    /// To make a difference.
    Change,
}

impl Right {
    /// The key of the configuration that gives it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Read => "control_read",
            Self::Change => "control_change",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Change => "change",
        })
    }
}

/// Somebody at the other end of the socket, as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The other groups.
    pub groups: Vec<u32>,
}

/// To whom the configuration gives a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every user of this host.
    All,
    /// These users, and the members of these groups.
    Listed {
        /// By their ids.
        users: Vec<u32>,
        /// By their ids.
        groups: Vec<u32>,
    },
}

impl Default for Who {
    fn default() -> Self {
        Self::NOBODY
    }
}

impl Who {
    /// Nobody but those who always may.
    pub const NOBODY: Self = Self::Listed {
        users: Vec::new(),
        groups: Vec::new(),
    };

    fn includes(&self, peer: &Peer) -> bool {
        match self {
            Self::All => true,
            Self::Listed { users, groups } => {
                let mut of_peer = std::iter::once(&peer.gid).chain(&peer.groups);
                users.contains(&peer.uid) || of_peer.any(|group| groups.contains(group))
            }
        }
    }
}

/// What the configuration gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `control_read`.
    pub read: Who,
    /// `control_change`.
    pub change: Who,
}

impl Access {
    /// Whether it gives nothing to anybody.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        [&self.read, &self.change]
            .into_iter()
            .all(|who| *who == Who::NOBODY)
    }
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The daemon's own user.
    own: u32,
    access: Access,
}

impl Rights {
    /// What the configuration gives, in a daemon of this user.
    #[must_use]
    pub const fn new(access: Access, own: u32) -> Self {
        Self { own, access }
    }

    /// Whether somebody has a right.
    #[must_use]
    pub fn allow(&self, peer: &Peer, right: Right) -> bool {
        let Access { read, change } = &self.access;
        let always = peer.uid == 0 || peer.uid == self.own;
        always
            || change.includes(peer)
            || match right {
                Right::Read => read.includes(peer),
                Right::Change => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u32 = 0;
    const DAEMON: u32 = 900;
    const ALICE: u32 = 1000;
    const NOBODY: u32 = 65534;
    const NETOPS: u32 = 500;
    const STAFF: u32 = 501;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    fn listed(users: &[u32], groups: &[u32]) -> Who {
        Who::Listed {
            users: users.to_vec(),
            groups: groups.to_vec(),
        }
    }

    /// For each peer whether it may read, and change.
    #[test]
    fn who_may_do_what() {
        let peers = [
            ("root", peer(ROOT, 0, &[])),
            ("daemon", peer(DAEMON, 900, &[])),
            ("alice", peer(ALICE, 1000, &[])),
            ("alice of netops", peer(ALICE, NETOPS, &[])),
            ("alice, also of netops", peer(ALICE, 1000, &[STAFF, NETOPS])),
            ("nobody of staff", peer(NOBODY, NOBODY, &[STAFF])),
            // Gave up the user, but not the group.
            ("nobody of root's group", peer(NOBODY, 0, &[0])),
        ];
        let nobody = || Who::NOBODY;
        #[rustfmt::skip]
        let table = [
            // read, change              root daemon alice netops +netops staff gid 0
            (nobody(), nobody(),                        "c c - - - - -"),
            (Who::All, nobody(),                        "c c r r r r r"),
            (nobody(), Who::All,                        "c c c c c c c"),
            (listed(&[ALICE], &[]), nobody(),           "c c r r r - -"),
            (listed(&[], &[NETOPS]), nobody(),          "c c - r r - -"),
            (nobody(), listed(&[], &[NETOPS]),          "c c - c c - -"),
            (nobody(), listed(&[ALICE], &[]),           "c c c c c - -"),
            (listed(&[], &[STAFF]), listed(&[], &[NETOPS]), "c c - c c r -"),
            (Who::All, listed(&[NOBODY], &[]),          "c c r r r c c"),
            (listed(&[], &[0]), nobody(),               "c c - - - - r"),
        ];
        for (read, change, want) in table {
            let rights = Rights::new(Access { read, change }, DAEMON);
            for ((name, peer), want) in peers.iter().zip(want.split(' ')) {
                let may = [Right::Read, Right::Change].map(|right| rights.allow(peer, right));
                let may = match may {
                    [true, true] => "c",
                    [true, false] => "r",
                    [false, false] => "-",
                    [false, true] => "may change, but not read",
                };
                assert_eq!(may, want, "{name}: {rights:?}");
            }
        }
    }

    #[test]
    fn whether_anybody_is_given_anything() {
        assert!(Access::default().is_nobody());
        for who in [Who::All, listed(&[0], &[]), listed(&[], &[0])] {
            for (read, change) in [(who.clone(), Who::NOBODY), (Who::NOBODY, who.clone())] {
                assert!(!Access { read, change }.is_nobody());
            }
        }
    }
}
