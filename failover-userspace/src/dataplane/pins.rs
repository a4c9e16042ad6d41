//! Attachments that outlive the daemon: links, pinned on a BPF file system.
//!
//! A pinned link keeps its program on its interface, and with it the maps. So XDP answers on
//! while there is no daemon, for as long as the last heartbeat is good, and the next daemon puts
//! its own program in the place of that one, so that each packet finds one of them.
//!
//! The name of a pin says what it is for: network namespace, index of the interface, and mode. What
//! is in the maps of an earlier program is never looked at. Only the map that leads from one program
//! to the other is pinned as well, as the kernel would empty it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::Map;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use rustix::fs::{FlockOperation, flock, statfs};
use tracing::warn;

use super::AttachedMode;

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS: i64 = 0xcafe_4a11;
/// How long a daemon that has been killed may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
/// What is pinned: the first word of its name.
const LINK: &str = "link";
const MAP: &str = "map";
/// For the daemon's user alone.
const DIRECTORY_MODE: u32 = 0o700;

/// Why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The directory is somewhere else.
    #[error("{0} is not on a BPF file system, as is mounted by `mount -t bpf bpf /sys/fs/bpf`")]
    NotThere(PathBuf),
    /// Another daemon has its pins there.
    #[error("another daemon uses {0}")]
    Busy(PathBuf),
    /// It cannot be used.
    #[error("{path}")]
    Io {
        /// It, or what is in it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The pins of one daemon, in a directory that is its own for as long as this lives.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// Inode of our network namespace: indices of interfaces mean nothing in another one.
    netns: u64,
    /// Locked.
    _lock: File,
}

impl Pins {
    /// Uses a directory, which is made if `make` says so. `None`: there is none.
    ///
    /// # Errors
    ///
    /// If it is not on a BPF file system, in use, or refused.
    pub fn open(directory: &Path, make: bool) -> Result<Option<Self>, PinsError> {
        let on_error = |source| PinsError::Io {
            path: directory.to_owned(),
            source,
        };
        let parent = directory.parent().unwrap_or(Path::new("/"));
        let existing = if directory.exists() {
            directory
        } else if make {
            parent
        } else {
            return Ok(None);
        };
        let is_bpf = statfs(existing).is_ok_and(|found| found.f_type == BPF_FS);
        if !is_bpf {
            return Err(PinsError::NotThere(directory.to_owned()));
        }
        if existing == parent {
            let mut builder = DirBuilder::new();
            builder.mode(DIRECTORY_MODE);
            builder.create(directory).map_err(on_error)?;
        }
        let lock = File::open(directory).map_err(on_error)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(PinsError::Busy(directory.to_owned()));
                }
                Err(error) => return Err(on_error(error.into())),
            }
        }
        let netns = fs::metadata("/proc/thread-self/ns/net").map_err(on_error)?;
        Ok(Some(Self {
            directory: directory.to_owned(),
            netns: netns.ino(),
            _lock: lock,
        }))
    }

    /// The link of an earlier daemon that is pinned, if its interface is still there.
    pub(super) fn get(&self, index: u32, mode: AttachedMode) -> Option<XdpLink> {
        let path = self.path(index, mode);
        if !path.exists() {
            return None;
        }
        let link = PinnedLink::from_pin(&path).and_then(|link| FdLink::from(link).try_into());
        link.inspect_err(|error| complain(&path, error)).ok()
    }

    /// Pins a link. `None`: it could not be pinned, and is gone.
    pub(super) fn put(&self, link: XdpLink, index: u32, mode: AttachedMode) -> Option<XdpLink> {
        let path = self.path(index, mode);
        // Of an interface that has had this index.
        self.remove(index, mode);
        let link = FdLink::try_from(link)
            .inspect_err(|error| complain(&path, error))
            .ok()?;
        let link = link
            .pin(&path)
            .inspect_err(|error| complain(&path, error))
            .ok()?;
        FdLink::from(link).try_into().ok()
    }

    /// Removes a pin, if there is one. The link goes when nobody holds it any more.
    pub(super) fn remove(&self, index: u32, mode: AttachedMode) {
        remove(&self.path(index, mode));
    }

    /// Pins a map with this number.
    pub(super) fn put_map(&self, map: &Map, id: u32) {
        let path = self.map_path(id);
        if !path.exists()
            && let Err(error) = map.pin(&path)
        {
            complain(&path, &error);
        }
    }

    /// Removes the pin of a map, if there is one.
    pub(super) fn remove_map(&self, id: u32) {
        remove(&self.map_path(id));
    }

    /// Removes the pins of all interfaces but these, in this network namespace, and of all maps but
    /// this. Returns how many interfaces.
    pub fn keep(&self, kept: &[(u32, AttachedMode)], map: Option<u32>) -> usize {
        let kept: Vec<PathBuf> = kept
            .iter()
            .map(|(index, mode)| self.path(*index, *mode))
            .chain(map.map(|id| self.map_path(id)))
            .collect();
        let remove_others = |prefix| {
            let ours = self.all().into_iter().filter(|path| {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                name.starts_with(self.name(prefix).as_bytes())
            });
            ours.filter(|path| !kept.contains(path))
                .filter(|path| remove(path))
                .count()
        };
        let interfaces = remove_others(LINK);
        remove_others(MAP);
        interfaces
    }

    /// Removes all pins, and the directory. Returns of how many interfaces there were some.
    ///
    /// # Errors
    ///
    /// If one of them stays.
    pub fn remove_all(self) -> Result<usize, PinsError> {
        let pins = self.all();
        for path in &pins {
            let removed = fs::remove_file(path);
            removed.map_err(|source| PinsError::Io {
                path: path.clone(),
                source,
            })?;
        }
        let removed = fs::remove_dir(&self.directory);
        removed.map_err(|source| PinsError::Io {
            path: self.directory.clone(),
            source,
        })?;
        let is_link = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(LINK.as_bytes())
        };
        Ok(pins.iter().filter(is_link).count())
    }

    fn all(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }

    fn path(&self, index: u32, mode: AttachedMode) -> PathBuf {
        let mode = match mode {
            AttachedMode::Native => "native",
            AttachedMode::Generic => "generic",
        };
        self.directory
            .join(format!("{}{index}-{mode}", self.name(LINK)))
    }

    fn map_path(&self, id: u32) -> PathBuf {
        self.directory.join(format!("{}{id}", self.name(MAP)))
    }

    /// What the names of pins of this kind start with in this network namespace.
    fn name(&self, kind: &str) -> String {
        format!("{kind}-{}-", self.netns)
    }
}

fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            complain(path, &error);
            false
        }
    }
}

fn complain(path: &Path, error: &(dyn std::error::Error + 'static)) {
    warn!(pin = %path.display(), error, "the program does not outlive the daemon here");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_file_systems_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pins = directory.path().join("pins");
        assert!(Pins::open(&pins, false).unwrap().is_none());
        assert!(!pins.exists());
        for _ in 0..2 {
            let error = Pins::open(&pins, true).unwrap_err().to_string();
            assert!(error.contains("is not on a BPF file system"), "{error}");
            fs::create_dir_all(&pins).unwrap();
        }
    }
}
