//! Who is at the other end of a unix socket: the kernel's word from the moment they connected.

use std::ffi::c_void;
use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;

use nix::getsockopt_impl;
use nix::libc::{self, socklen_t};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::Get;
use nix::unistd::{Uid, User};
use rustix::net::sockopt::socket_peercred;

use crate::rights::Peer;

/// Groups that are looked at; whoever has more has only what their user and first group give.
const MOST_GROUPS: usize = 4096;

impl Peer {
    /// Who has connected.
    ///
    /// # Errors
    ///
    /// If it is no unix socket.
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = socket_peercred(socket)?;
        Ok(Self {
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            groups: getsockopt(socket, PeerGroups).unwrap_or_default(),
        })
    }

    /// The user's name, or its number where it has none. May ask a directory service.
    pub(super) fn name(&self) -> String {
        let user = User::from_uid(Uid::from_raw(self.uid)).ok().flatten();
        let name = user.map(|user| user.name);
        let is_plain = |name: &String| !name.is_empty() && !name.contains(char::is_control);
        name.filter(is_plain)
            .unwrap_or_else(|| format!("uid {}", self.uid))
    }

    /// The same with the numbers of user and groups.
    pub(super) fn described(&self) -> String {
        let name = self.name();
        let mut text = if name.starts_with("uid ") {
            format!("{name}, gid {}", self.gid)
        } else {
            format!("{name} (uid {}, gid {}", self.uid, self.gid)
        };
        for group in self
            .groups
            .iter()
            .filter(|group| **group != self.gid)
            .take(16)
        {
            let _ = write!(text, " {group}");
        }
        if !name.starts_with("uid ") {
            text.push(')');
        }
        text
    }
}

/// Supplementary groups of the peer (`SO_PEERGROUPS`).
#[derive(Clone, Copy, Debug)]
struct PeerGroups;

getsockopt_impl!(
    PeerGroups,
    libc::SOL_SOCKET,
    libc::SO_PEERGROUPS,
    Vec<u32>,
    Groups
);

/// Room for the groups, and how many octets of it are filled.
struct Groups {
    octets: socklen_t,
    ids: Vec<u32>,
}

impl Get<Vec<u32>> for Groups {
    fn uninit() -> Self {
        let ids = vec![0; MOST_GROUPS];
        Self {
            octets: socklen_t::try_from(size_of_val(ids.as_slice())).unwrap_or(0),
            ids,
        }
    }

    fn ffi_ptr(&mut self) -> *mut c_void {
        self.ids.as_mut_ptr().cast()
    }

    fn ffi_len(&mut self) -> *mut socklen_t {
        &raw mut self.octets
    }

    // The trait's word, for getters whose room is not initialized; ours is.
    unsafe fn assume_init(mut self) -> Vec<u32> {
        self.ids.truncate(self.octets as usize / size_of::<u32>());
        self.ids
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn we_are_who_we_are() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        let mut told = peer.groups.clone();
        groups.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, groups);
    }

    #[test]
    fn names() {
        let root = Peer::default();
        assert_eq!(
            (root.name().as_str(), root.described().as_str()),
            ("root", "root (uid 0, gid 0)")
        );
        let stranger = Peer {
            uid: 4_000_000_000,
            gid: 7,
            groups: vec![7, 8, 9],
        };
        assert_eq!(stranger.name(), "uid 4000000000");
        assert_eq!(stranger.described(), "uid 4000000000, gid 7 8 9");
    }
}
