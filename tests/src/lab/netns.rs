//! One network namespace.
//!
//! Things are done *inside* it by a thread that enters it: sockets made, files under
//! `/proc/sys/net` written and programs started there belong to the namespace. Unlike
//! `ip netns exec` that leaves the mounts alone, so that bpffs is the same everywhere.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// A network namespace by name, as `ip netns` knows it. Not removed on drop.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Names a namespace, whether it exists or not.
    #[must_use]
    pub fn named(name: String) -> Self {
        Self { name }
    }

    /// The name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Creates the namespace.
    ///
    /// # Errors
    ///
    /// When it exists already, or for want of privileges.
    pub fn create(&self) -> Result<()> {
        command::output(command::command("ip").args(["netns", "add", &self.name])).map(drop)
    }

    /// Removes the namespace's name; it dies with the last process in it.
    ///
    /// # Errors
    ///
    /// When there is no such namespace.
    pub fn delete(&self) -> Result<()> {
        command::output(command::command("ip").args(["netns", "delete", &self.name])).map(drop)
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    ///
    /// What `ip` complains about.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        command::output(command::command("ip").args(["-n", &self.name]).args(args)).map(drop)
    }

    /// Sets a key under `/proc/sys/net`, written with slashes.
    ///
    /// # Errors
    ///
    /// When the kernel has no such key or does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .with_context(|| format!("cannot set net/{key} to {value} in {}", self.name))
        })
    }

    /// Runs `f` on a thread of its own inside the namespace.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, and the error of `f`.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            self.move_into()?;
            f()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    ///
    /// When there is no such namespace, or for want of privileges.
    pub fn move_into(&self) -> Result<()> {
        let file = File::open(self.path())
            .with_context(|| format!("no network namespace {}", self.name))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter network namespace {}", self.name))
    }

    /// Starts a program in the namespace.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered or the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let line = command::display(command);
        self.enter(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start `{line}`"))
        })
    }

    /// Runs a program in the namespace and returns what it printed.
    ///
    /// # Errors
    ///
    /// As [`command::output`].
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.enter(|| command::output(command))
    }

    /// Whether the process is alive and in this namespace.
    #[must_use]
    pub fn contains(&self, pid: u32) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let here = fs::metadata(self.path()).map(|meta| (meta.dev(), meta.ino()));
        let there =
            fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| (meta.dev(), meta.ino()));
        matches!((here, there), (Ok(here), Ok(there)) if here == there)
    }
}
